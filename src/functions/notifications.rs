//! Change feed of `events` → SignalR: pushes the events of a batch to the browsers of this region, in one message.
//!
//! Every region reads its own replica with its own leases, so each event reaches the browsers of every region. If all
//! regions share one SignalR Service, `NOTIFICATION_SCOPE=origin` makes each event come from one region only.
//!
//! A push is at most once for the browser and at least once for the feed: clients know an event by its id.

use std::borrow::Cow;

use serde::Serialize;

use super::{Function, InvokeError, feed_log};
use crate::{
    event::{Batch, Event},
    invocation::{Invocation, Reply},
    names::TARGET,
    settings::{NotificationScope, Settings},
    telemetry::InvocationSpan,
};

#[derive(Serialize)]
struct Outputs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Message<'a>>,
}

/// A message to all clients of the hub.
#[derive(Serialize)]
struct Message<'a> {
    target: &'static str,
    /// The list of arguments has one element, which is the array of events.
    arguments: [&'a [Event<'a>]; 1],
}

pub(super) fn invoke(
    settings: &Settings,
    body: &[u8],
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    let invocation = Invocation::parse(body)?;
    let documents = invocation.structured("events");
    let batch = documents
        .as_ref()
        .map(|documents| documents.read_with(Batch::read))
        .transpose()?
        .unwrap_or_default();
    feed_log::batch(
        Function::Notifications,
        &settings.region,
        &batch.events,
        span,
    );

    let mut events = batch.events;
    if settings.notification_scope == NotificationScope::Origin {
        events.retain(|event| settings.region.is(&event.region));
    }
    tracing::debug!(parent: span.log(), events = events.len(), "pushing");
    for event in &mut events {
        // Whoever goes on from the push goes on from its span.
        if let Some(traceparent) = span.event("push", event) {
            event.traceparent = Some(Cow::Owned(traceparent));
        }
    }
    span.pushed(events.len());
    let messages = (!events.is_empty()).then_some(Message {
        target: TARGET,
        arguments: [&events],
    });
    let mut reply = Reply::new(Outputs { messages });
    if !batch.strangers.is_empty() {
        // `Materialized` puts them into quarantine.
        reply = reply.with_log(format!(
            "skipped {} documents that are no events",
            batch.strangers.len()
        ));
    }
    Ok(reply.into_json()?)
}
