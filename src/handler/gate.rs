//! Who is in the house when it closes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
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

/// A request in flight, until dropped.
#[derive(Debug)]
pub(super) struct Pass(Arc<Gate>);

impl Gate {
    pub(super) fn enter(self: &Arc<Self>) -> Pass {
        self.in_flight.fetch_add(1, SeqCst);
        Pass(Arc::clone(self))
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

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

/// A reply that keeps its request in flight until the connection has taken all of it.
pub(super) struct Guarded {
    reply: Option<Bytes>,
    size: u64,
    _pass: Option<Pass>,
}

impl Guarded {
    pub(super) fn new(reply: Vec<u8>, pass: Pass) -> Self {
        Self {
            size: reply.len() as u64,
            reply: Some(reply.into()),
            _pass: Some(pass),
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            reply: None,
            _pass: None,
        }
    }
}

impl MessageBody for Guarded {
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
    use super::*;

    #[tokio::test]
    async fn is_empty_when_all_have_left() {
        let gate = Arc::new(Gate::default());
        gate.empty().await;
        let (a, b) = (gate.enter(), gate.enter());
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.empty().await }
        });
        drop(a);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(b);
        waiting.await.expect("resolves");
        assert_eq!(gate.in_flight(), 0);
    }
}
