//! Who is in the house when it closes.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};
use tokio::sync::Notify;

/// Counts requests in flight, and knows whether the handler is stopping.
#[derive(Debug, Default)]
pub(super) struct Gate {
    in_flight: AtomicUsize,
    stopping: AtomicBool,
    /// Told whenever the count becomes zero.
    left: Notify,
}

impl Gate {
    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, SeqCst);
    }

    pub(super) fn leave(&self) {
        if self.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.left.notify_waiters();
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Resolves when no request is in flight.
    pub(super) async fn empty(&self) {
        loop {
            // Listened to before the count is read, so that no leaving in between is missed.
            let left = self.left.notified();
            if self.in_flight() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// A reply that keeps its request, whatever stands for it, until the connection has taken all of it.
pub(super) struct Guarded<R> {
    reply: Option<Bytes>,
    size: u64,
    _request: Option<R>,
}

impl<R> Guarded<R> {
    pub(super) fn new(reply: Vec<u8>, request: R) -> Self {
        Self {
            size: reply.len() as u64,
            reply: Some(reply.into()),
            _request: Some(request),
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            reply: None,
            _request: None,
        }
    }
}

impl<R: Unpin> MessageBody for Guarded<R> {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.reply.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn is_empty_when_all_have_left() {
        let gate = Arc::new(Gate::default());
        gate.empty().await;
        gate.enter();
        gate.enter();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.empty().await }
        });
        gate.leave();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.leave();
        waiting.await.expect("resolves");
        assert_eq!(gate.in_flight(), 0);
    }
}
