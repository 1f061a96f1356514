//! Time to live: when an item stops being there.
//!
//! An item counts as gone from the very second it expires; its deletion follows, and is replicated like any other.

use serde_json::Value;

use crate::{container::Container, record::Record};

/// Longest time to live, in seconds.
const MAX_SECONDS: i64 = i32::MAX as i64;

/// Lives for ever, whatever the container's default.
const FOREVER: i64 = -1;

/// Reads a time to live; the error is for the client.
pub(crate) fn parse(value: &Value) -> Result<i64, String> {
    value
        .as_f64()
        .filter(|seconds| seconds.fract() == 0.0)
        .map(|seconds| seconds as i64)
        .filter(|seconds| *seconds == FOREVER || (1..=MAX_SECONDS).contains(seconds))
        .ok_or_else(|| {
            format!("a time to live is -1 or 1 to {MAX_SECONDS} seconds, and not {value}")
        })
}

/// The lifetimes in a container, at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    /// The container's default; without one, items live for ever whatever they say.
    default: Option<i64>,
    /// Seconds since 1970.
    now: i64,
}

impl Lifetimes {
    pub(crate) fn now(container: &Container) -> Self {
        Self {
            default: container.default_ttl,
            now: jiff::Timestamp::now().as_second(),
        }
    }

    /// Whether anything in the container can expire.
    pub(crate) fn are_limited(self) -> bool {
        self.default.is_some()
    }

    /// The moment, in seconds since 1970.
    pub(crate) fn moment(self) -> i64 {
        self.now
    }

    /// Whether items live as long by these as by others, at whatever moment.
    pub(crate) fn are_like(self, other: Self) -> bool {
        self.default == other.default
    }

    /// From which second on a version is over; `None` is never.
    pub(crate) fn end(self, record: &Record) -> Option<i64> {
        let seconds = record.ttl.unwrap_or(self.default?);
        (seconds != FOREVER).then(|| record.ts + seconds)
    }

    pub(crate) fn is_over(self, record: &Record) -> bool {
        self.end(record).is_some_and(|end| self.now >= end)
    }

    #[cfg(test)]
    pub(crate) fn at(default: Option<i64>, now: i64) -> Self {
        Self { default, now }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::tests::record;

    #[test]
    fn the_item_overrides_the_container_and_means_nothing_without_it() {
        let over = |default, own, now| {
            let mut record = record(0, 1, [0, 0, 0], 0.0, true);
            let inner = std::sync::Arc::make_mut(&mut record);
            (inner.ts, inner.ttl) = (1000, own);
            Lifetimes { default, now }.is_over(&record)
        };
        assert!(!over(None, Some(1), 5000));
        assert!(!over(Some(-1), None, i64::MAX));
        assert!(!over(Some(10), None, 1009) && over(Some(10), None, 1010));
        assert!(!over(Some(10), Some(20), 1019) && over(Some(10), Some(20), 1020));
        assert!(!over(Some(10), Some(-1), 5000));
        assert!(over(Some(-1), Some(1), 1001));
    }

    #[test]
    fn only_times_to_live_are_times_to_live() {
        for good in [json!(-1), json!(1), json!(2_147_483_647)] {
            assert!(parse(&good).is_ok(), "{good}");
        }
        for bad in [
            json!(0),
            json!(-2),
            json!(1.5),
            json!("1"),
            json!(2_147_483_648_i64),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
