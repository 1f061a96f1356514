//! One line per change feed batch, for whoever watches a deployment.
//!
//! There is no platform metric for how far a reader of the change feed is behind. The alerts and the workbook in
//! `infra/modules/monitoring` compute it from this line, and a test in `infra/tests` keeps both in step. Where telemetry
//! is on, the same goes there as metrics.

use jiff::Timestamp;

use super::Function;
use crate::{event::Event, settings::RegionName, telemetry::InvocationSpan};

/// Says how many events a batch brought, and how long ago the newest of them was accepted.
pub(super) fn batch(
    function: Function,
    region: &RegionName,
    events: &[Event<'_>],
    span: &mut InvocationSpan<'_>,
) {
    let Some(lag_ms) = lag_ms(events, Timestamp::now()) else {
        return;
    };
    span.delivered(events, lag_ms);
    tracing::info!(
        parent: span.log(),
        function = function.name(),
        %region,
        events = events.len(),
        lag_ms,
        "feed batch"
    );
}

/// Age of the newest event in milliseconds; none for no events. The clock of another region may be ahead of this one:
/// that is no lag.
fn lag_ms(events: &[Event<'_>], now: Timestamp) -> Option<i64> {
    // Times are written in one format, in which later ones are greater texts too.
    let newest = events.iter().map(|event| &*event.time).max()?;
    let newest: Timestamp = newest.parse().ok()?;
    Some((now.as_millisecond() - newest.as_millisecond()).max(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Batch;

    #[test]
    fn the_newest_event_counts() {
        let event = |id: &str, time: &str| {
            format!(
                r#"{{"id":"{id}","deviceId":"d","region":"West US","value":1,"time":"{time}"}}"#
            )
        };
        let json = format!(
            "[{},{}]",
            event("a", "2026-03-01T10:00:01.500Z"),
            event("b", "2026-03-01T10:00:00.000Z")
        );
        let batch = Batch::read(&json).unwrap();
        assert_eq!(batch.events.len(), 2);
        let lag = |now: &str| lag_ms(&batch.events, now.parse().unwrap());
        assert_eq!(lag("2026-03-01T10:00:02.000Z"), Some(500));
        assert_eq!(lag("2026-03-01T10:00:00.000Z"), Some(0));
        assert_eq!(lag_ms(&[], Timestamp::UNIX_EPOCH), None);
    }
}
