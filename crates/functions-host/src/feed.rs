//! Change feeds: batches become invocations, failures become retries.
//!
//! Source: `Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.CosmosDB/Trigger/CosmosDBTriggerListener.cs`,
//! `Azure/azure-webjobs-sdk: src/Microsoft.Azure.WebJobs.Host/Executors/FunctionExecutorExtensions.cs`. Without a policy a
//! failed batch is given up and checkpointed; with one it is tried again in place. A batch that a stopping host did not
//! finish is never reported as delivered.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::binding::{
    CosmosTrigger, Delivery, Encoded, FeedSink, Generation, ListenerBoard, ListenerContext,
    ListenerState,
};
use crate::binding_data::BindingData;
use crate::cosmos;
use crate::invocation::RetryContext;
use crate::invoker::{Function, Invoker, TriggerData};
use crate::json::{self, RawObject};
use crate::status::HostEvent;

/// First pause before a listener that could not start is started again.
const FIRST_RESTART: Duration = Duration::from_secs(1);

/// Longest such pause.
const LAST_RESTART: Duration = Duration::from_secs(60);

/// Where batches of one function go.
#[derive(Clone)]
pub(crate) struct FunctionSink {
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) function: Arc<Function>,
    pub(crate) generation: Generation,
    pub(crate) events: broadcast::Sender<HostEvent>,
    /// The host begins to stop: finish the attempt, begin no other.
    pub(crate) stop: CancellationToken,
    /// The host's patience is over: leave the attempt.
    pub(crate) abort: CancellationToken,
}

impl FeedSink for FunctionSink {
    async fn deliver(&self, documents: Vec<Box<RawValue>>) -> Delivery {
        if documents.is_empty() {
            return Delivery::Delivered;
        }
        let ids = document_ids(&documents);
        let trigger = TriggerData {
            value: feed_value(&documents, self.generation),
            binding_data: BindingData::new(&self.function.definition.name),
            reason: "New changes on container",
            caller: opentelemetry::Context::new(),
        };
        drop(documents);
        let succeeded = tokio::select! {
            biased;
            succeeded = self.run_policy(&trigger) => succeeded,
            () = self.abort.cancelled() => None,
        };
        match succeeded {
            Some(succeeded) => {
                let function = self.function.definition.name.clone();
                // Nobody may be listening.
                drop(self.events.send(HostEvent::FeedBatch {
                    function,
                    ids,
                    succeeded,
                }));
                Delivery::Delivered
            }
            None => Delivery::Stopping,
        }
    }
}

impl FunctionSink {
    /// Whether the batch succeeded in the end; `None` = not finished, because the host stops.
    async fn run_policy(&self, trigger: &TriggerData) -> Option<bool> {
        let policy = self.function.definition.retry;
        let invocation = Uuid::new_v4();
        let mut retry = 0_u32;
        let mut exception = None;
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let context = policy.map(|policy| RetryContext {
                retry_count: retry,
                max_retry_count: policy.max_retry_count(),
                exception: exception.take(),
            });
            let attempt =
                self.invoker
                    .attempt(&self.function, invocation, trigger, context.as_ref());
            let error = match attempt.await {
                Ok(_) => return Some(true),
                Err(error) => error,
            };
            if self.stop.is_cancelled() {
                return None;
            }
            let function = &self.function.definition.name;
            let noise = rand::random_range(-1.0..=1.0);
            let Some(pause) = policy.and_then(|policy| policy.pause(retry, noise)) else {
                let label = &self.invoker.label;
                match policy {
                    None => {
                        tracing::error!(host = %label, function, "the batch is skipped: there is no retry policy")
                    }
                    Some(_) => {
                        tracing::error!(host = %label, function, retries = retry, "the batch is skipped: the retry policy is used up")
                    }
                }
                return Some(false);
            };
            tracing::warn!(host = %self.invoker.label, function, retry = retry + 1, "waiting {pause:?} before the next attempt");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return None,
            }
            exception = Some(error.to_string());
            retry = retry.saturating_add(1);
        }
    }
}

/// The value of a `cosmosDBTrigger`: text with the array for extension 4.x, the array itself for 3.x.
fn feed_value(documents: &[Box<RawValue>], generation: Generation) -> Encoded {
    let size: usize = documents
        .iter()
        .map(|document| document.get().len() + 1)
        .sum();
    let mut array = String::with_capacity(size + 1);
    array.push('[');
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            array.push(',');
        }
        array.push_str(document.get());
    }
    array.push(']');
    feed_text(array, generation)
}

/// The same for an array that is text already.
pub(crate) fn feed_text(array: String, generation: Generation) -> Encoded {
    match generation {
        Generation::Four => Encoded::Text(array),
        Generation::Three => Encoded::Json(array),
    }
}

fn document_ids(documents: &[Box<RawValue>]) -> Arc<[String]> {
    documents
        .iter()
        .filter_map(|document| {
            let object = RawObject::parse(document.get()).ok()?;
            json::string(object.get("id")?)
        })
        .collect()
}

/// Listens for one function until `sink.stop`. A listener that cannot start is tried again with growing pauses, as the real
/// host does.
pub(crate) async fn listen(
    trigger: CosmosTrigger,
    board: ListenerBoard,
    owner: Option<String>,
    sink: FunctionSink,
) {
    let function = sink.function.definition.name.clone();
    let label = sink.invoker.label.clone();
    let context = ListenerContext {
        function: function.clone(),
        owner,
        board: board.clone(),
    };
    let mut pause = FIRST_RESTART;
    loop {
        let clients = &sink.invoker.bindings.cosmos;
        let ended = Box::pin(cosmos::trigger::listen(
            clients,
            &trigger,
            &context,
            sink.clone(),
            sink.stop.clone(),
        ))
        .await;
        if sink.stop.is_cancelled() {
            if let Err(error) = ended {
                tracing::warn!(host = %label, function, %error, "the listener did not stop cleanly");
            }
            break;
        }
        let trouble = match ended {
            Ok(()) => "it ended by itself".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::error!(host = %label, category = "Host.Triggers.CosmosDB", function, "the listener failed: {trouble}; trying again in {pause:?}");
        board.state(ListenerState::Failed);
        board.trouble(Some(trouble));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sink.stop.cancelled() => break,
        }
        pause = (pause * 2).min(LAST_RESTART);
    }
    board.state(ListenerState::Stopped);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn documents(texts: &[&str]) -> Vec<Box<RawValue>> {
        texts
            .iter()
            .map(|&text| RawValue::from_string(text.to_owned()).unwrap())
            .collect()
    }

    #[test]
    fn documents_pass_byte_for_byte() {
        let batch = documents(&[r#"{"z":1.0,"a":"\u00fc"}"#, r#"{"id":"2"}"#]);
        let expected = r#"[{"z":1.0,"a":"\u00fc"},{"id":"2"}]"#;
        assert!(
            matches!(feed_value(&batch, Generation::Four), Encoded::Text(text) if text == expected)
        );
        assert!(
            matches!(feed_value(&batch, Generation::Three), Encoded::Json(text) if text == expected)
        );
    }

    #[test]
    fn ids_are_those_that_are_strings() {
        let batch = documents(&[
            r#"{"id":"a"}"#,
            r#"{"id":5}"#,
            r#"{"x":1}"#,
            r#"{"id":"b"}"#,
        ]);
        assert_eq!(*document_ids(&batch), ["a".to_owned(), "b".to_owned()]);
    }
}
