//! Links between regions: each carries what its source has accepted to its target, in order, not before its lag has passed.
//!
//! A link keeps no queue. How far it is, is what the target has seen of the source; so a cut, or a restart, loses nothing
//! and repeats nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{record::Record, replica::Replica};

/// Mutations that are carried at once, at the most.
const BATCH: usize = 256;

/// Whether a link carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It carries every change after its lag.
    Open,
    /// It carries nothing; what is accepted meanwhile waits at its source.
    Cut,
}

/// What can be changed about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkControl {
    pub(crate) state: LinkState,
    pub(crate) lag: Duration,
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
                lag,
            })
            .0,
        }
    }

    /// Changes accepted at the source and not yet applied at the target.
    pub(crate) fn pending(&self) -> u64 {
        let accepted = self.source.read().seen[self.source.index];
        accepted.saturating_sub(self.target.read().seen[self.source.index])
    }

    /// The next batch that is due, or how long to wait for it; neither when there is nothing to carry.
    fn next(&self, lag: Duration) -> (Vec<Arc<Record>>, Option<Duration>) {
        let seen = self.target.read().seen[self.source.index];
        let now = u64::try_from(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis(),
        )
        .unwrap_or(u64::MAX);
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let source = self.source.read();
        let mut due = Vec::new();
        for record in source
            .log
            .range(seen + 1..)
            .map(|(_, record)| record)
            .take(BATCH)
        {
            let at = record.accepted_ms().saturating_add(lag);
            // The hybrid clock may run ahead of the wall clock; without a lag there is nothing to wait for.
            if lag > 0 && at > now {
                let wait = Duration::from_millis(at - now);
                return if due.is_empty() {
                    (due, Some(wait))
                } else {
                    (due, None)
                };
            }
            due.push(Arc::clone(record));
        }
        (due, None)
    }

    /// Carries changes until told to stop.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut control = self.control.subscribe();
        let mut changes = self.source.changes();
        loop {
            // Marked before looking, so that nothing that happens while looking is missed.
            let LinkControl { state, lag } = *control.borrow_and_update();
            changes.borrow_and_update();
            let (batch, wait) = match state {
                LinkState::Open => self.next(lag),
                LinkState::Cut => (Vec::new(), None),
            };
            if !batch.is_empty() {
                if let Err(error) = self.target.apply(batch).await {
                    tracing::error!(%error, from = self.source.index, to = self.target.index, "replication has stopped");
                    return;
                }
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
