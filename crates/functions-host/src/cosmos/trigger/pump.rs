//! One lease at work: read, deliver, checkpoint, strictly in turn; renew beside it.

use std::time::Duration;

use azure_data_cosmos::error::CosmosError;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::feed::{FeedReader, Page};
use super::store::{OwnedLease, UpdateError};
use super::trouble::Trouble;
use super::{RELEASE_LIMIT, RETRY_CAP, RETRY_FIRST};
use crate::binding::{Delivery, FeedSink, ListenerBoard};
use crate::cosmos::backoff::Backoff;
use crate::cosmos::error::Error;

/// Reads one lease's slice of the feed until stopped or until the lease is lost.
pub(crate) struct Pump<S> {
    /// Function name, for the log.
    pub(crate) function: String,
    /// Lease token, for the log and the board.
    pub(crate) name: String,
    /// Pause after a poll that found nothing.
    pub(crate) poll_delay: Duration,
    /// Pause between renewals.
    pub(crate) renew_interval: Duration,
    pub(crate) lease: OwnedLease,
    pub(crate) sink: S,
    pub(crate) trouble: Trouble,
    pub(crate) board: ListenerBoard,
    pub(crate) stop: CancellationToken,
}

/// Why a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PumpEnd {
    /// It was told to; the lease has been given back.
    Stopped,
    /// The lease belongs to another host.
    Lost,
    /// The monitored container does not exist any more; the lease has been given back.
    ContainerGone,
}

impl<S: FeedSink> Pump<S> {
    pub(crate) async fn run(self, mut reader: FeedReader) -> PumpEnd {
        let end = tokio::select! {
            biased;
            // First in line: what is delivered after the lease was lost is delivered twice.
            () = self.lease.lost().cancelled() => PumpEnd::Lost,
            end = self.read(&mut reader) => end,
            never = self.keep_renewing() => match never {},
        };
        if end == PumpEnd::Lost {
            tracing::warn!(
                function = self.function,
                lease = self.name,
                "lost a lease to another host"
            );
            return end;
        }
        match tokio::time::timeout(RELEASE_LIMIT, self.lease.release()).await {
            Ok(Ok(())) => tracing::info!(
                function = self.function,
                lease = self.name,
                "released a lease"
            ),
            Ok(Err(UpdateError::Lost)) => {}
            Ok(Err(UpdateError::Failed(error))) => {
                tracing::warn!(function = self.function, lease = self.name, %error, "a lease could not be released; it stays taken until it expires");
            }
            Err(_) => {
                tracing::warn!(
                    function = self.function,
                    lease = self.name,
                    "a lease was not released in time; it stays taken until it expires"
                );
            }
        }
        end
    }

    async fn read(&self, reader: &mut FeedReader) -> PumpEnd {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            let page = tokio::select! {
                biased;
                () = self.stop.cancelled() => return PumpEnd::Stopped,
                page = reader.next() => page,
            };
            let pause = match page {
                Ok(page) => {
                    backoff.succeeded();
                    self.trouble.over(&self.name);
                    match self.handle(page, reader).await {
                        Some(pause) => pause,
                        None => return PumpEnd::Stopped,
                    }
                }
                Err(error) if error.is_not_found() => {
                    self.trouble.is(&self.name, &error);
                    return PumpEnd::ContainerGone;
                }
                Err(error) => {
                    self.trouble.is(&self.name, &error);
                    retry_after(&error)
                        .map_or_else(|| backoff.failed(), |asked| asked.min(RETRY_CAP))
                }
            };
            if !pause.is_zero() && !self.pause(pause).await {
                return PumpEnd::Stopped;
            }
        }
    }

    /// Delivers and records a page; the pause before the next one, or `None` = stopped.
    async fn handle(&self, page: Page, reader: &mut FeedReader) -> Option<Duration> {
        if page.documents.is_empty() {
            if reader.pins_now() && !self.checkpoint(&page.position).await {
                return None;
            }
            let idle = page.retry_after.unwrap_or(self.poll_delay);
            return Some(if page.caught_up { idle } else { Duration::ZERO });
        }
        let count = page.documents.len();
        tracing::debug!(
            function = self.function,
            lease = self.name,
            count,
            "delivering a batch"
        );
        match self.sink.deliver(page.documents).await {
            Delivery::Stopping => None,
            Delivery::Delivered => self
                .checkpoint(&page.position)
                .await
                .then_some(Duration::ZERO),
        }
    }

    /// Writes the position, however long it takes; false when stopped meanwhile.
    ///
    /// Reading on without it would only make the repetition after a crash longer.
    async fn checkpoint(&self, position: &str) -> bool {
        let part = format!("checkpoint of {}", self.name);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.lease.checkpoint(position).await {
                Ok(()) => {
                    self.trouble.over(&part);
                    let now = Timestamp::now().to_string();
                    self.board.update_leases(|leases| {
                        if let Some(lease) = leases.iter_mut().find(|l| l.lease == self.name) {
                            lease.checkpointed_at = Some(now);
                        }
                    });
                    return true;
                }
                // `run` sees the loss and drops this.
                Err(UpdateError::Lost) => std::future::pending().await,
                Err(UpdateError::Failed(error)) => {
                    self.trouble.is(&part, &error);
                    // The release takes the position along.
                    if !self.pause(backoff.failed()).await {
                        self.trouble.over(&part);
                        return false;
                    }
                }
            }
        }
    }

    /// Renews for as long as it is polled: first after half an interval, then every interval.
    async fn keep_renewing(&self) -> std::convert::Infallible {
        let part = format!("renewal of {}", self.name);
        let mut pause = self.renew_interval / 2;
        loop {
            tokio::time::sleep(pause).await;
            pause = self.renew_interval;
            match self.lease.renew().await {
                Ok(()) => self.trouble.over(&part),
                Err(UpdateError::Lost) => std::future::pending().await,
                Err(UpdateError::Failed(error)) => self.trouble.is(&part, &error),
            }
        }
    }

    /// Waits; false when stopped meanwhile.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// How long the service asked to wait.
fn retry_after(error: &Error) -> Option<Duration> {
    let Error::Service { source, .. } = error else {
        return None;
    };
    let response = CosmosError::response(source)?;
    response.headers().retry_after_ms.map(Duration::from_millis)
}
