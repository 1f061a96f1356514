//! Retry policies of functions: how often a failed batch is tried again, and after what pause.
//!
//! Source: `Azure/azure-webjobs-sdk: src/Microsoft.Azure.WebJobs.Host/Executors/FunctionExecutorExtensions.cs` and
//! Microsoft Learn, "Azure Functions error handling and retries". The policy is a pure decision; waiting is the invoker's.

use std::time::Duration;

use serde_json::Value;

use crate::fields::Fields;
use crate::timespan;

/// A `retry` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first attempt; `None` = without end (`-1`).
    pub max_retries: Option<u32>,
    /// The pause between attempts.
    pub delay: RetryDelay,
}

/// The pause before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDelay {
    /// `fixedDelay`: always `delayInterval`.
    Fixed(Duration),
    /// `exponentialBackoff`: from about `minimumInterval`, doubling, up to `maximumInterval`.
    Exponential {
        /// `minimumInterval`
        minimum: Duration,
        /// `maximumInterval`
        maximum: Duration,
    },
}

/// How much an exponential pause is varied, up and down, so that regions do not retry in step.
const NOISE: f64 = 0.2;

impl RetryPolicy {
    /// The pause before retry number `retry` (0 = the first), or `None` when the policy is used up. `noise` is in −1..=1.
    #[must_use]
    pub fn pause(&self, retry: u32, noise: f64) -> Option<Duration> {
        if self.max_retries.is_some_and(|max| retry >= max) {
            return None;
        }
        Some(match self.delay {
            RetryDelay::Fixed(delay) => delay,
            RetryDelay::Exponential { minimum, maximum } => {
                // 2^30 minimum intervals are beyond any sensible maximum; the bound keeps the arithmetic finite.
                let growth = f64::from((1_u32 << retry.min(30)) - 1);
                let grown =
                    minimum.as_secs_f64() * growth * noise.clamp(-1.0, 1.0).mul_add(NOISE, 1.0);
                let pause = minimum.as_secs_f64() + grown;
                Duration::from_secs_f64(pause.min(maximum.as_secs_f64()))
            }
        })
    }

    /// `MaxRetryCount` as `RetryContext` shows it.
    #[must_use]
    pub fn max_retry_count(&self) -> i64 {
        self.max_retries.map_or(-1, i64::from)
    }

    /// Reads a `retry` section; `owner` names it in messages.
    pub(crate) fn parse(value: &Value) -> Result<Self, String> {
        let fields = Fields::of(value).ok_or("`retry` must be an object")?;
        let strategy = fields
            .text("strategy")?
            .ok_or("`retry.strategy` is missing: `fixedDelay` or `exponentialBackoff`")?;
        let max_retries = match fields.integer("maxRetryCount")? {
            None => {
                return Err("`retry.maxRetryCount` is missing: a number, -1 = without end".into());
            }
            Some(-1) => None,
            Some(count) => {
                Some(u32::try_from(count).map_err(|_| {
                    format!("`retry.maxRetryCount` must be -1 or more, not {count}")
                })?)
            }
        };
        let interval = |name: &str| -> Result<Duration, String> {
            let text = fields.text(name)?.ok_or_else(|| {
                format!("`retry.{name}` is missing: strategy `{strategy}` needs it")
            })?;
            timespan::parse(&text).ok_or_else(|| {
                format!("`retry.{name}` must be a time span such as \"00:00:05\", not {text:?}")
            })
        };
        let delay = if strategy.eq_ignore_ascii_case("fixedDelay") {
            RetryDelay::Fixed(interval("delayInterval")?)
        } else if strategy.eq_ignore_ascii_case("exponentialBackoff") {
            let (minimum, maximum) = (interval("minimumInterval")?, interval("maximumInterval")?);
            if minimum > maximum {
                return Err(
                    "`retry.minimumInterval` is greater than `retry.maximumInterval`".into(),
                );
            }
            RetryDelay::Exponential { minimum, maximum }
        } else {
            return Err(format!(
                "`retry.strategy` must be `fixedDelay` or `exponentialBackoff`, not {strategy:?}"
            ));
        };
        Ok(Self { max_retries, delay })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fixed_delay_ends_after_the_count() {
        let policy = RetryPolicy::parse(
            &json!({"strategy":"fixedDelay","maxRetryCount":2,"delayInterval":"00:00:03"}),
        )
        .unwrap();
        assert_eq!(policy.pause(0, 0.0), Some(Duration::from_secs(3)));
        assert_eq!(policy.pause(1, 0.0), Some(Duration::from_secs(3)));
        assert_eq!(policy.pause(2, 0.0), None);
        assert_eq!(policy.max_retry_count(), 2);
    }

    #[test]
    fn exponential_grows_to_the_maximum_without_end() {
        let policy =
            RetryPolicy::parse(&json!({"strategy":"exponentialBackoff","maxRetryCount":-1,
                    "minimumInterval":"00:00:02","maximumInterval":"00:05:00"}))
            .unwrap();
        let pauses: Vec<_> = (0..4)
            .map(|retry| policy.pause(retry, 0.0).unwrap().as_secs())
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16]);
        assert_eq!(policy.pause(1_000_000, 0.0), Some(Duration::from_secs(300)));
        assert_eq!(policy.max_retry_count(), -1);
    }

    proptest! {
        #[test]
        fn a_pause_stays_between_minimum_and_maximum(retry in any::<u32>(), noise in -1.0..=1.0_f64) {
            let (minimum, maximum) = (Duration::from_millis(500), Duration::from_secs(60));
            let policy = RetryPolicy { max_retries: None, delay: RetryDelay::Exponential { minimum, maximum } };
            let pause = policy.pause(retry, noise).unwrap();
            prop_assert!(pause >= minimum && pause <= maximum);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (value, named) in [
            (json!({"maxRetryCount":1}), "strategy"),
            (json!({"strategy":"fixedDelay"}), "maxRetryCount"),
            (
                json!({"strategy":"fixedDelay","maxRetryCount":-2,"delayInterval":"00:00:01"}),
                "maxRetryCount",
            ),
            (
                json!({"strategy":"fixedDelay","maxRetryCount":1}),
                "delayInterval",
            ),
            (
                json!({"strategy":"exponentialBackoff","maxRetryCount":1,"minimumInterval":"00:00:01"}),
                "maximumInterval",
            ),
            (json!({"strategy":"linear","maxRetryCount":1}), "linear"),
            (
                json!({"strategy":"fixedDelay","maxRetryCount":1,"delayInterval":"5"}),
                "delayInterval",
            ),
        ] {
            let message = RetryPolicy::parse(&value).unwrap_err();
            assert!(message.contains(named), "{message}");
        }
    }
}
