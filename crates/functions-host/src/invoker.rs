//! One attempt to run a function: inputs, handler, outputs.
//!
//! Source of the order and of every failure: `Azure/azure-functions-host:
//! src/WebJobs.Script/Description/Workers/WorkerFunctionInvoker.cs`, `…/Workers/Http/DefaultHttpWorkerService.cs`,
//! `…/Binding/FunctionBinding.cs`. Retrying is the feed's business ([`crate::feed`]); answering an HTTP caller is the
//! server's. Local choices: an empty 2xx fails at once unless the host is strict; a redirect is a failure and is not followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;
use uuid::Uuid;

use crate::binding::ListenerBoard;
use crate::binding::{BindingError, Encoded, InputBinding, OutputBinding, Trigger};
use crate::binding_data::BindingData;
use crate::cosmos::{self, CosmosClients};
use crate::function_json::FunctionDefinition;
use crate::identity::Credential;
use crate::invocation::{
    HOST_VERSION, HOST_VERSION_HEADER, INVOCATION_ID_HEADER, Reply, ReplyError, RetryContext,
    output_items, request_body,
};
use crate::process::supervisor::{Handler, HandlerState};
use crate::settings::Settings;
use crate::signalr::{self, SignalRClients};
use crate::status::{Counters, FunctionStatus};
use crate::trace;
use crate::web::response::{Shaped, shape};

/// Largest reply of a handler, in bytes.
pub const MAX_REPLY_BYTES: usize = 128 * 1024 * 1024;

/// An invocation waits this many initialization timeouts for a handler that is being started: three starts and one more.
const READY_PATIENCE: u32 = 4;

/// A loaded function with its counters.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) definition: FunctionDefinition,
    pub(crate) counters: Counters,
    /// For triggers that listen.
    pub(crate) board: Option<ListenerBoard>,
}

impl Function {
    pub(crate) fn new(definition: FunctionDefinition) -> Self {
        let board = match definition.trigger {
            Trigger::Cosmos(_) if !definition.disabled => Some(ListenerBoard::default()),
            Trigger::Cosmos(_) | Trigger::Http(_) => None,
        };
        Self {
            definition,
            counters: Counters::default(),
            board,
        }
    }

    pub(crate) fn status(&self) -> FunctionStatus {
        let (invocations, failures, running) = self.counters.read();
        FunctionStatus {
            name: self.definition.name.clone(),
            trigger: self.definition.trigger.type_name(),
            disabled: self.definition.disabled,
            invocations,
            failures,
            running,
            listener: self.board.as_ref().map(ListenerBoard::status),
        }
    }
}

/// What triggers an attempt.
#[derive(Debug, Clone)]
pub(crate) struct TriggerData {
    /// `Data.<trigger name>`
    pub(crate) value: Encoded,
    /// Names for expressions and `Metadata`.
    pub(crate) binding_data: BindingData,
    /// For the log: "This function was programmatically called via the host APIs."
    pub(crate) reason: &'static str,
    /// The trace that the trigger is in; an empty one begins a trace.
    pub(crate) caller: opentelemetry::Context,
}

/// Why an attempt failed. The text goes to the log, never to an HTTP caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvocationError {
    #[error("input `{binding}`: {source}")]
    Input {
        binding: String,
        source: BindingError,
    },
    #[error("the handler is not running: {0}")]
    NoHandler(String),
    #[error("the request to the handler failed: {0}")]
    Transport(String),
    #[error(transparent)]
    Reply(#[from] ReplyError),
    #[error("{0}")]
    Response(String),
    #[error("output `{binding}`: {message}")]
    Output { binding: String, message: String },
    #[error("the function did not end within functionTimeout ({0:?}); the handler is restarted")]
    Timeout(Duration),
}

/// Runs attempts against one handler.
#[derive(Debug)]
pub(crate) struct Invoker {
    pub(crate) label: Arc<str>,
    pub(crate) handler: Arc<Handler>,
    pub(crate) bindings: Bindings,
    pub(crate) client: reqwest::Client,
    pub(crate) function_timeout: Option<Duration>,
    pub(crate) initialization_timeout: Duration,
    /// Reproduce the real host's endless wait on an empty 2xx.
    pub(crate) strict: bool,
    /// Set once, when the host cannot go on.
    pub(crate) fatal: watch::Sender<Option<String>>,
}

/// Clients of the services behind bindings, shared by all functions of a host.
pub(crate) struct Bindings {
    pub(crate) cosmos: CosmosClients,
    pub(crate) signalr: SignalRClients,
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bindings").finish_non_exhaustive()
    }
}

impl Bindings {
    pub(crate) fn new(settings: &Arc<Settings>, identity: Option<&Credential>) -> Self {
        Self {
            cosmos: CosmosClients::new(settings.clone(), identity.cloned()),
            signalr: SignalRClients::new(settings.clone(), identity.cloned()),
        }
    }

    async fn read(
        &self,
        input: &InputBinding,
        data: &BindingData,
    ) -> Result<Encoded, BindingError> {
        match input {
            InputBinding::CosmosItem(item) => {
                cosmos::input::read_item(&self.cosmos, item, data).await
            }
            InputBinding::CosmosQuery(query) => {
                cosmos::input::query(&self.cosmos, query, data).await
            }
            InputBinding::SignalRConnectionInfo(info) => {
                signalr::connection_info(&self.signalr, info, data).await
            }
        }
    }

    async fn write(
        &self,
        output: &OutputBinding,
        data: &BindingData,
        reply: &Reply,
        attempt: &opentelemetry::Context,
    ) -> Result<(), String> {
        if matches!(output, OutputBinding::Http { .. }) {
            return Ok(());
        }
        let Some(value) = reply.output(output.name()) else {
            return Ok(());
        };
        let items = output_items(value)?;
        if items.is_empty() {
            return Ok(());
        }
        let span = trace::output(attempt, output);
        let written = match output {
            OutputBinding::Http { .. } => Ok(()),
            OutputBinding::Cosmos(cosmos) => {
                cosmos::output::write(&self.cosmos, cosmos, data, &items).await
            }
            OutputBinding::SignalR(signalr) => {
                signalr::output::send(&self.signalr, signalr, data, &items).await
            }
        };
        let written = written.map_err(|error| error.to_string());
        trace::end(&span, written.as_ref().err().cloned());
        written
    }
}

impl Invoker {
    /// Runs one attempt and logs its beginning and end. The shaped response is for HTTP triggers; others ignore it.
    pub(crate) async fn attempt(
        &self,
        function: &Function,
        id: Uuid,
        trigger: &TriggerData,
        retry: Option<&RetryContext>,
    ) -> Result<Shaped, InvocationError> {
        let name = &function.definition.name;
        let category = format!("Function.{name}");
        let started = Instant::now();
        tracing::info!(host = %self.label, category, invocation = %id, "Executing 'Functions.{name}' (Reason='{}', Id={id})", trigger.reason);
        let attempt = function.counters.begin();
        let span = trace::attempt(
            &trigger.caller,
            &function.definition,
            &self.label,
            id,
            retry.map(|retry| retry.retry_count),
        );
        let result = self
            .within_timeout(function, id, trigger, retry, &span)
            .await;
        trace::end(&span, result.as_ref().err().map(ToString::to_string));
        let millis = started.elapsed().as_millis();
        match &result {
            Ok(_) => {
                attempt.succeed();
                tracing::info!(host = %self.label, category, invocation = %id, "Executed 'Functions.{name}' (Succeeded, Id={id}, Duration={millis}ms)");
            }
            Err(error) => {
                drop(attempt);
                tracing::error!(host = %self.label, category, invocation = %id, %error, "Executed 'Functions.{name}' (Failed, Id={id}, Duration={millis}ms)");
            }
        }
        result
    }

    async fn within_timeout(
        &self,
        function: &Function,
        id: Uuid,
        trigger: &TriggerData,
        retry: Option<&RetryContext>,
        span: &opentelemetry::Context,
    ) -> Result<Shaped, InvocationError> {
        // Boxed: the futures of the bindings are large.
        let work = Box::pin(self.work(&function.definition, id, trigger, retry, span));
        let Some(limit) = self.function_timeout else {
            return work.await;
        };
        let before = self.handler.state();
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => {
                // Only the process that was there all the time is to blame.
                if let HandlerState::Ready { pid } = before {
                    self.handler.restart(pid);
                }
                Err(InvocationError::Timeout(limit))
            }
        }
    }

    async fn work(
        &self,
        function: &FunctionDefinition,
        id: Uuid,
        trigger: &TriggerData,
        retry: Option<&RetryContext>,
        span: &opentelemetry::Context,
    ) -> Result<Shaped, InvocationError> {
        let mut data = vec![(function.trigger.name(), trigger.value.clone())];
        let inputs = function.inputs.iter().map(|input| async {
            let value = self.bindings.read(input, &trigger.binding_data).await;
            value.map_err(|source| InvocationError::Input {
                binding: input.name().to_owned(),
                source,
            })
        });
        for (input, value) in function.inputs.iter().zip(join_all(inputs).await) {
            data.push((input.name(), value?));
        }
        let body = request_body(&data, &trigger.binding_data, retry);
        drop(data);

        let reply = match self.call(&function.name, id, body, span).await {
            Err(InvocationError::Reply(ReplyError::Empty { status })) if self.strict => {
                tracing::warn!(host = %self.label, invocation = %id, status, "the handler answered with an empty body; waiting as the real host does, until functionTimeout");
                std::future::pending().await
            }
            other => other?,
        };
        for line in &reply.logs {
            let line = crate::secrets::masked(line);
            tracing::info!(host = %self.label, category = format!("Function.{}.User", function.name), invocation = %id, "{line}");
        }
        let response = shape(&reply, function.http_output()).map_err(InvocationError::Response)?;
        let outputs = function.outputs.iter().map(|output| async {
            let written = self
                .bindings
                .write(output, &trigger.binding_data, &reply, span)
                .await;
            written.map_err(|message| InvocationError::Output {
                binding: output.name().to_owned(),
                message,
            })
        });
        // All run to their end, whatever becomes of one of them.
        for written in join_all(outputs).await {
            written?;
        }
        Ok(response)
    }

    async fn call(
        &self,
        function: &str,
        id: Uuid,
        body: Vec<u8>,
        span: &opentelemetry::Context,
    ) -> Result<Reply, InvocationError> {
        self.wait_for_handler().await?;
        let transport = |error: reqwest::Error| InvocationError::Transport(root_cause(&error));
        let url = format!("http://127.0.0.1:{}/{function}", self.handler.port());
        let mut response = self
            .client
            .post(url)
            .header(
                http::header::CONTENT_TYPE,
                "application/json; charset=utf-8",
            )
            .header(INVOCATION_ID_HEADER, id.to_string())
            .header(HOST_VERSION_HEADER, HOST_VERSION)
            .headers(trace::headers(span))
            .body(body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if bytes.len() + chunk.len() > MAX_REPLY_BYTES {
                return Err(InvocationError::Transport(format!(
                    "the reply is larger than {MAX_REPLY_BYTES} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Reply::read(status, content_type.as_deref(), &bytes)?)
    }

    async fn wait_for_handler(&self) -> Result<(), InvocationError> {
        let patience = self.initialization_timeout * READY_PATIENCE;
        match self.handler.settled(patience).await {
            Some(HandlerState::Ready { .. }) => Ok(()),
            Some(HandlerState::Exited) => Err(InvocationError::NoHandler(
                "it left with exit code 0, which asks not to be restarted".into(),
            )),
            Some(HandlerState::Failed { reason }) => Err(InvocationError::NoHandler(reason)),
            Some(HandlerState::Stopped | HandlerState::Starting) => {
                Err(InvocationError::NoHandler("the host is stopping".into()))
            }
            None => {
                let reason = format!("the handler was not ready within {patience:?}");
                self.fatal.send_replace(Some(reason.clone()));
                Err(InvocationError::NoHandler(reason))
            }
        }
    }
}

/// The innermost cause: "connection refused" instead of "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
