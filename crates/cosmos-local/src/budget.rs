//! A region's throughput: request units that flow in evenly and are spent by requests.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A token bucket that holds one second's worth. One request may overdraw it; the next waits until it is paid for.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    balance: f64,
    at: Instant,
}

/// The throughput of one region; without a limit, everything goes.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    bucket: Mutex<Option<Bucket>>,
}

impl Budget {
    /// Limits the throughput from now on, or lifts the limit.
    pub(crate) fn limit(&self, per_second: Option<u32>, now: Instant) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        *bucket = per_second.map(|per_second| Bucket {
            per_second: f64::from(per_second.max(1)),
            balance: f64::from(per_second.max(1)),
            at: now,
        });
    }

    /// How long to wait before the next request, if one has to.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.as_mut()?;
        bucket.fill(now);
        (bucket.balance < 0.0).then(|| Duration::from_secs_f64(-bucket.balance / bucket.per_second))
    }

    pub(crate) fn spend(&self, charge: f64, now: Instant) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = bucket.as_mut() {
            bucket.fill(now);
            bucket.balance -= charge;
        }
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.balance = (self.balance + passed * self.per_second).min(self.per_second);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_overdrawn_once_and_fills_up_again() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.spend(1e9, start);
        assert_eq!(budget.wait(start), None, "there is no limit");
        budget.limit(Some(100), start);
        budget.spend(150.0, start);
        assert_eq!(budget.wait(start), Some(Duration::from_millis(500)));
        let later = start + Duration::from_millis(500);
        assert_eq!(budget.wait(later), None);
        let much_later = start + Duration::from_secs(60);
        budget.spend(100.0, much_later);
        assert_eq!(
            budget.wait(much_later),
            None,
            "no more than a second is saved"
        );
        budget.spend(1.0, much_later);
        assert_eq!(budget.wait(much_later), Some(Duration::from_millis(10)));
        budget.limit(None, much_later);
        assert_eq!(budget.wait(much_later), None);
    }
}
