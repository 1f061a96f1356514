//! How long to wait before the next attempt of something that keeps failing.

use std::time::Duration;

/// Exponential backoff with jitter of ±20 %, capped.
///
/// Never gives up by itself: the feed of a region that is gone for a day is read again when the
/// region is back.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure, doubling up to `cap`.
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            failures: 0,
        }
    }

    /// Counts a failure and tells how long to wait before the next attempt.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = self.wait(rand::random_range(0.8..1.2));
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Forgets the failures.
    pub(crate) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    fn wait(&self, jitter: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2u32.saturating_pow(self.failures.min(31)));
        doubled.min(self.cap).mul_f64(jitter).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(backoff.wait(1.0).as_millis());
            assert!(backoff.failed() <= Duration::from_secs(1));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.succeeded();
        assert_eq!(backoff.wait(1.0).as_millis(), 100);
    }

    #[test]
    fn a_very_long_outage_does_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..1000 {
            assert!(backoff.failed() <= Duration::from_secs(30));
        }
    }
}
