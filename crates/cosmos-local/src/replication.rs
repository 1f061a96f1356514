//! Links between regions: each carries what its source has accepted to its target, in order, not before its lag has passed.
//!
//! A link keeps no queue. How far it is, is what the target has seen of the source; so a cut, or a restart, loses nothing
//! and repeats nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    record::{Record, STAMP_COUNTER_BITS},
    replica::Replica,
};

/// How long it takes to notice that a delivery was lost, beside the lag of the link.
const RETRY: Duration = Duration::from_millis(20);

/// Mutations that are carried at once, at the most.
const BATCH: usize = 256;

/// Bytes of documents that are carried at once, beyond which nothing more is added.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Whether a link carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It carries every change after its lag.
    Open,
    /// It carries nothing; what is accepted meanwhile waits at its source.
    Cut,
}

/// How good a link is while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkQuality {
    /// Time between acceptance and arrival, at least.
    pub lag: Duration,
    /// What comes on top of it, at random, at the most.
    pub jitter: Duration,
    /// How likely a delivery is lost and has to be repeated: 0 is never, and 1 or more, always.
    pub loss: f64,
}

/// What can be changed about a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LinkControl {
    pub(crate) state: LinkState,
    pub(crate) quality: LinkQuality,
}

/// One directed link.
pub(crate) struct Link {
    pub(crate) source: Arc<Replica>,
    pub(crate) target: Arc<Replica>,
    pub(crate) control: watch::Sender<LinkControl>,
}

impl Link {
    pub(crate) fn new(source: Arc<Replica>, target: Arc<Replica>, lag: Duration) -> Self {
        Self {
            source,
            target,
            control: watch::channel(LinkControl {
                state: LinkState::Open,
                quality: LinkQuality {
                    lag,
                    ..LinkQuality::default()
                },
            })
            .0,
        }
    }

    pub(crate) fn is(&self, source: usize, target: usize) -> bool {
        self.source.index == source && self.target.index == target
    }

    /// Changes accepted at the source and not yet applied at the target.
    pub(crate) fn pending(&self) -> u64 {
        let accepted = self.source.read().seen_of(self.source.index);
        accepted.saturating_sub(self.target.read().seen_of(self.source.index))
    }

    /// Waits until the target has what the source had accepted when there was nothing more to carry.
    pub(crate) async fn drained(&self) {
        let mut changes = self.target.changes();
        loop {
            changes.borrow_and_update();
            if self.pending() == 0 || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the link is cut.
    pub(crate) async fn is_cut(&self) {
        let mut control = self.control.subscribe();
        // The link has the sender, so it cannot be gone.
        let _ = control.wait_for(|it| it.state == LinkState::Cut).await;
    }

    /// The next batch that is due, or how long to wait for it; neither when there is nothing to carry.
    fn next(&self, lag: Duration, clock: &mut Clock) -> (Vec<Arc<Record>>, Option<Duration>) {
        let seen = self.target.read().seen_of(self.source.index);
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let source = self.source.read();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = u64::try_from(wall.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let now = clock.read(wall.max(source.stamp >> STAMP_COUNTER_BITS), Instant::now());
        let (mut due, mut bytes) = (Vec::new(), 0);
        for (_, record) in source.log.range(seen + 1..) {
            // What was accepted as one is carried as one.
            let is_whole = due
                .last()
                .is_none_or(|last: &Arc<Record>| last.followers == 0);
            if is_whole && (due.len() >= BATCH || bytes > BATCH_BYTES) {
                break;
            }
            let at = record.accepted_ms().saturating_add(lag);
            // Without a lag there is nothing to wait for.
            if is_whole && lag > 0 && at > now {
                let wait = Duration::from_millis(at - now);
                return if due.is_empty() {
                    (due, Some(wait))
                } else {
                    (due, None)
                };
            }
            bytes += record.body.as_ref().map_or(0, String::len);
            due.push(Arc::clone(record));
        }
        (due, None)
    }

    /// Carries changes until told to stop.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut control = self.control.subscribe();
        let mut changes = self.source.changes();
        // The part of the jitter that the next delivery waits.
        let mut extra: f64 = rand::random();
        let mut clock = Clock::default();
        while !stop.is_cancelled() {
            // Marked before looking, so that nothing that happens while looking is missed.
            let LinkControl { state, quality } = *control.borrow_and_update();
            changes.borrow_and_update();
            let (batch, mut wait) = match state {
                LinkState::Open => {
                    self.next(quality.lag + quality.jitter.mul_f64(extra), &mut clock)
                }
                LinkState::Cut => (Vec::new(), None),
            };
            let is_lost = !batch.is_empty() && rand::random::<f64>() < quality.loss;
            if is_lost {
                wait = Some(quality.lag + RETRY);
            } else if !batch.is_empty() {
                if let Err(error) = self.target.apply(batch).await {
                    tracing::error!(%error, from = self.source.index, to = self.target.index, "replication has stopped");
                    return;
                }
                extra = rand::random();
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = control.changed() => {}
                _ = changes.changed(), if state == LinkState::Open && wait.is_none() => {}
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }
}

/// The time by which changes are due, in milliseconds since 1970. It goes on where the clock of a machine is set back, as
/// the stamps of changes do: else nothing would be due until that clock has come to where it was.
#[derive(Debug, Default)]
struct Clock {
    last: Option<(Instant, u64)>,
}

impl Clock {
    /// Reads it, when another clock shows this time, or a change has it.
    fn read(&mut self, shown: u64, at: Instant) -> u64 {
        let gone_on = self.last.map_or(0, |(since, time)| {
            let passed = at.duration_since(since).as_millis();
            time.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
        });
        let time = shown.max(gone_on);
        if shown >= gone_on {
            self.last = Some((at, time));
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_when_a_clock_is_set_back() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let minute = 60_000;
        assert_eq!(clock.read(minute, start), minute);
        assert_eq!(clock.read(minute + 5, after(4)), minute + 5);
        // Set back by a minute, and then still for a while.
        assert_eq!(clock.read(10, after(9)), minute + 10);
        assert_eq!(clock.read(10, after(104)), minute + 105);
        // Set forward.
        assert_eq!(clock.read(2 * minute, after(105)), 2 * minute);
        assert_eq!(clock.read(minute, after(106)), 2 * minute + 1);
    }
}
