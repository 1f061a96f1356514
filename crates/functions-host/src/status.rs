//! What a host says about itself: status, functions, events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::binding::{ListenerStatus, Trigger};
use crate::function_json::FunctionDefinition;

/// Events kept for a slow subscriber; one that falls further behind is told how many it missed.
pub const EVENT_CAPACITY: usize = 1_024;

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostState {
    /// Loading functions and starting the handler, at first or again.
    Starting,
    /// Taking invocations.
    Running,
    /// The script root cannot be loaded; the HTTP side stays up and a corrected file is picked up.
    Error,
    /// Letting running invocations finish.
    Stopping,
    /// Over.
    Stopped,
}

impl HostState {
    /// The name in `/admin/host/status`.
    #[must_use]
    pub fn azure_name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Error => "Error",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
        }
    }
}

/// What happens in a host.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// The host's state changed.
    State(HostState),
    /// A handler process answers.
    HandlerReady {
        /// Its process id.
        pid: u32,
    },
    /// A batch of a change feed has been handled: the invocation, with all its retries, has ended.
    FeedBatch {
        /// The function.
        function: String,
        /// The `id` of every delivered document, in order; documents without a string `id` are left out.
        ids: Arc<[String]>,
        /// Whether the last attempt succeeded.
        succeeded: bool,
    },
    /// The host has ended by itself.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A snapshot of a host.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The label given to the builder.
    pub label: String,
    /// Where the HTTP side listens.
    pub url: String,
    /// Where the host stands.
    pub state: HostState,
    /// The handler's process id, while it answers.
    pub handler_pid: Option<u32>,
    /// Why the state is `error`, or why functions did not load.
    pub errors: Vec<String>,
    /// Every loaded function.
    pub functions: Vec<FunctionStatus>,
}

/// A snapshot of a function.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// Its name.
    pub name: String,
    /// Its trigger's type.
    pub trigger: &'static str,
    /// Switched off by a setting.
    pub disabled: bool,
    /// Attempts begun since the host loaded it.
    pub invocations: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts running now.
    pub running: u64,
    /// Its listener, for triggers that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerStatus>,
}

/// A function as it is listed at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// Its trigger's type, e.g. `httpTrigger`.
    pub trigger: &'static str,
    /// Methods of an `httpTrigger` in capitals; empty = all.
    pub methods: Vec<String>,
    /// URL of an `httpTrigger`, with `{placeholders}`.
    pub url: Option<String>,
    /// Switched off by a setting.
    pub disabled: bool,
}

impl FunctionInfo {
    pub(crate) fn new(function: &FunctionDefinition, url: Option<String>) -> Self {
        Self {
            name: function.name.clone(),
            trigger: function.trigger.type_name(),
            methods: match &function.trigger {
                Trigger::Http(http) => http.methods.clone(),
                Trigger::Cosmos(_) => Vec::new(),
            },
            url,
            disabled: function.disabled,
        }
    }
}

/// The list that `func start` prints: HTTP functions first, then the others, then the disabled ones.
#[must_use]
pub fn listing(functions: &[FunctionInfo]) -> String {
    let mut text = String::from("Functions:\n");
    let enabled = || functions.iter().filter(|function| !function.disabled);
    for function in enabled() {
        if let Some(url) = &function.url {
            let methods = match function.methods.as_slice() {
                [] => String::new(),
                methods => format!("[{}] ", methods.join(",")),
            };
            text.push_str(&format!("\n\t{}: {methods}{url}\n", function.name));
        }
    }
    for function in enabled().filter(|function| function.url.is_none()) {
        text.push_str(&format!("\n\t{}: {}\n", function.name, function.trigger));
    }
    for function in functions.iter().filter(|function| function.disabled) {
        text.push_str(&format!("\nFunction {} is disabled.\n", function.name));
    }
    if functions.is_empty() {
        text.push_str("\n\t(none)\n");
    }
    text
}

/// Counts the attempts of one function. Plain counters: each is true by itself, no reader needs them to agree.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    begun: AtomicU64,
    succeeded: AtomicU64,
    ended: AtomicU64,
}

/// An attempt that runs. One that is dropped before [`Attempt::succeed`] counts as failed.
#[derive(Debug)]
pub(crate) struct Attempt<'a>(&'a Counters);

impl Counters {
    pub(crate) fn begin(&self) -> Attempt<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Attempt(self)
    }

    /// Begun, failed, running.
    pub(crate) fn read(&self) -> (u64, u64, u64) {
        // In this order no attempt is seen ended before it is seen begun.
        let succeeded = self.succeeded.load(Ordering::Acquire);
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (
            begun,
            ended.saturating_sub(succeeded),
            begun.saturating_sub(ended),
        )
    }
}

impl Attempt<'_> {
    pub(crate) fn succeed(self) {
        self.0.succeeded.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_functions_as_func_start_does() {
        let info = |name: &str, methods: &[&str], url: Option<&str>, disabled| FunctionInfo {
            name: name.into(),
            trigger: if url.is_some() {
                "httpTrigger"
            } else {
                "cosmosDBTrigger"
            },
            methods: methods.iter().map(|&method| method.into()).collect(),
            url: url.map(str::to_owned),
            disabled,
        };
        let text = listing(&[
            info("Feed", &[], None, false),
            info("Any", &[], Some("http://localhost:7071/api/Any"), false),
            info("Off", &[], None, true),
            info(
                "Read",
                &["GET", "POST"],
                Some("http://localhost:7071/api/Read/{id}"),
                false,
            ),
        ]);
        assert_eq!(
            text,
            "Functions:\n\n\tAny: http://localhost:7071/api/Any\n\n\tRead: [GET,POST] http://localhost:7071/api/Read/{id}\n\n\tFeed: cosmosDBTrigger\n\nFunction Off is disabled.\n"
        );
    }

    #[test]
    fn an_abandoned_attempt_counts_as_failed() {
        let counters = Counters::default();
        counters.begin().succeed();
        drop(counters.begin());
        let running = counters.begin();
        assert_eq!(counters.read(), (3, 1, 1));
        drop(running);
        assert_eq!(counters.read(), (3, 2, 0));
    }
}
