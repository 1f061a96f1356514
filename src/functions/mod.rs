//! The functions, one module each, named like their folders under `functions/`.
//!
//! | function | invoked by | does |
//! | --- | --- | --- |
//! | [`WriteEvent`](write_event) | `POST /api/WriteEvent` | accepts events |
//! | [`ReadAPI`](read_api) | `GET /api/ReadAPI/{deviceId}` | the newest maxima of a device |
//! | [`negotiate`] | `POST /api/negotiate` | tells a browser where its SignalR is |
//! | [`Notifications`](notifications) | change feed of `events` | pushes events to browsers |
//! | [`Materialized`](materialized) | change feed of `events` | keeps the maximum per device |
//! | [`changes`] | `GET /api/changes` | every event after a continuation |
//! | [`health`] | `GET /api/health` | the probe of Front Door |
//!
//! A function fails only for what a retry can cure. Whatever is wrong with a request or a document is part of a reply.

pub mod changes;
pub mod health;
pub mod materialized;
pub mod negotiate;
pub mod notifications;
pub mod read_api;
pub mod write_event;

mod feed_log;

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    changes::EventStore,
    invocation::{HttpOutputs, HttpResponse, InvocationError, Reply},
    problem::Problem,
    settings::Settings,
    telemetry::{Instrumentation, InvocationSpan},
};

/// A function of this app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// [`write_event`]
    WriteEvent,
    /// [`read_api`]
    ReadApi,
    /// [`negotiate`]
    Negotiate,
    /// [`notifications`]
    Notifications,
    /// [`materialized`]
    Materialized,
    /// [`changes`]
    Changes,
    /// [`health`]
    Health,
}

impl Function {
    /// All functions.
    pub const ALL: [Self; 7] = [
        Self::WriteEvent,
        Self::ReadApi,
        Self::Negotiate,
        Self::Notifications,
        Self::Materialized,
        Self::Changes,
        Self::Health,
    ];

    /// The name, exactly as its folder is spelled.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteEvent => "WriteEvent",
            Self::ReadApi => "ReadAPI",
            Self::Negotiate => "negotiate",
            Self::Notifications => "Notifications",
            Self::Materialized => "Materialized",
            Self::Changes => "changes",
            Self::Health => "health",
        }
    }

    /// Its function.json.
    pub const fn definition(self) -> &'static str {
        match self {
            Self::WriteEvent => include_str!("../../functions/WriteEvent/function.json"),
            Self::ReadApi => include_str!("../../functions/ReadAPI/function.json"),
            Self::Negotiate => include_str!("../../functions/negotiate/function.json"),
            Self::Notifications => include_str!("../../functions/Notifications/function.json"),
            Self::Materialized => include_str!("../../functions/Materialized/function.json"),
            Self::Changes => include_str!("../../functions/changes/function.json"),
            Self::Health => include_str!("../../functions/health/function.json"),
        }
    }
}

/// What the functions share.
#[derive(Debug)]
pub struct App {
    /// The app settings.
    pub settings: Settings,
    /// The container `events`, for the functions that read it themselves.
    pub store: EventStore,
    /// The last look at the store's health.
    pub health: health::Health,
    /// Time and identity.
    pub source: Source,
    /// What is told of the functions' work.
    pub instrumentation: Instrumentation,
}

impl App {
    /// An app with the clock and the ids of the real world, and no instrumentation. Connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            store: EventStore::new(&settings),
            settings,
            health: health::Health::default(),
            source: Source::system(),
            instrumentation: Instrumentation::default(),
        }
    }
}

/// Where times and ids come from. Tests give their own.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The present.
    pub now: fn() -> Timestamp,
    /// A new id, never given before.
    pub id: fn() -> Uuid,
}

impl Source {
    /// The system clock, and UUIDs of version 7, which sort by time.
    pub fn system() -> Self {
        Self {
            now: Timestamp::now,
            id: Uuid::now_v7,
        }
    }
}

/// Why an invocation fails. The host then answers 500, or delivers the batch again.
#[derive(Debug, Error)]
pub enum InvokeError {
    /// The invocation itself cannot be understood.
    #[error(transparent)]
    Invocation(#[from] InvocationError),
    /// A reply cannot be written as JSON.
    #[error("the reply cannot be written: {0}")]
    Reply(#[from] serde_json::Error),
}

/// Runs a function: the body of the host's request in, the body of the handler's answer out.
///
/// # Errors
/// See [`InvokeError`].
pub async fn invoke(
    function: Function,
    app: &App,
    body: &[u8],
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    match function {
        Function::WriteEvent => write_event::invoke(app, body, span),
        Function::ReadApi => read_api::invoke(body, span),
        Function::Negotiate => negotiate::invoke(body, span),
        Function::Notifications => notifications::invoke(&app.settings, body, span),
        Function::Materialized => materialized::invoke(&app.settings, body, span),
        // Boxed: the futures of the SDK are large, and every invocation of every function would carry their room around.
        // What is logged on the way to the store is about the invocation too.
        Function::Changes => {
            let log = span.log().clone();
            Box::pin(changes::invoke(app, body, span).instrument(log)).await
        }
        Function::Health => {
            let log = span.log().clone();
            Box::pin(health::invoke(app, span).instrument(log)).await
        }
    }
}

/// A reply that only answers HTTP.
fn respond(status: u16, body: &impl Serialize) -> Result<Vec<u8>, InvokeError> {
    Ok(Reply::new(HttpOutputs {
        res: HttpResponse::json(status, body)?,
    })
    .into_json()?)
}

/// A reply that says no. The host logs why.
fn refuse(problem: &Problem, span: &mut InvocationSpan<'_>) -> Result<Vec<u8>, InvokeError> {
    tracing::info!(
        parent: span.log(),
        status = problem.status(),
        detail = problem.detail(),
        "refused"
    );
    let log = format!("{}: {}", problem.status(), problem.detail());
    Ok(Reply::new(HttpOutputs {
        res: HttpResponse::problem(problem)?,
    })
    .with_log(log)
    .into_json()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::names::{DATABASE, EVENTS, HUB, LEASES, MATERIALIZED, QUARANTINE};
    use serde_json::Value;

    fn bindings(function: Function) -> Vec<Value> {
        let definition: Value = serde_json::from_str(function.definition()).unwrap();
        definition["bindings"].as_array().unwrap().clone()
    }

    fn binding(function: Function, name: &str) -> Value {
        let found = bindings(function)
            .into_iter()
            .find(|binding| binding["name"] == name);
        found.unwrap_or_else(|| panic!("{function:?} has no binding {name}"))
    }

    #[test]
    fn bindings_use_the_names_that_hold_everywhere() {
        for function in Function::ALL {
            for binding in bindings(function) {
                match binding["type"].as_str().unwrap() {
                    "cosmosDB" | "cosmosDBTrigger" => {
                        assert_eq!(binding["connection"], "CosmosDBConnection");
                        assert_eq!(binding["databaseName"], DATABASE);
                        assert_eq!(binding["preferredLocations"], "%PreferredLocations%");
                    }
                    "signalR" | "signalRConnectionInfo" => {
                        assert_eq!(
                            binding["connectionStringSetting"],
                            "AzureSignalRConnectionString"
                        );
                        assert_eq!(binding["hubName"], HUB);
                    }
                    "httpTrigger" => assert_eq!(binding["authLevel"], "anonymous"),
                    "http" => assert_eq!(binding["name"], "res"),
                    other => panic!("{function:?} has a binding of the unexpected type {other}"),
                }
            }
        }
        assert_eq!(
            binding(Function::WriteEvent, "events")["containerName"],
            EVENTS
        );
        assert_eq!(
            binding(Function::ReadApi, "rows")["containerName"],
            MATERIALIZED
        );
        assert_eq!(
            binding(Function::ReadApi, "maximum")["containerName"],
            MATERIALIZED
        );
        assert_eq!(
            binding(Function::Materialized, "materialized")["containerName"],
            MATERIALIZED
        );
        assert_eq!(
            binding(Function::Materialized, "quarantine")["containerName"],
            QUARANTINE
        );
    }

    #[test]
    fn feed_triggers_never_lose_a_batch_and_never_share_their_leases() {
        for function in [Function::Notifications, Function::Materialized] {
            let trigger = binding(function, "events");
            assert_eq!(trigger["containerName"], EVENTS);
            assert_eq!(trigger["leaseContainerName"], LEASES);
            assert_eq!(
                trigger["leaseContainerPrefix"],
                format!("{}-%REGION%", function.name())
            );
            assert_eq!(trigger["maxItemsPerInvocation"], 100);
            let definition: Value = serde_json::from_str(function.definition()).unwrap();
            assert_eq!(definition["retry"]["strategy"], "exponentialBackoff");
            assert_eq!(definition["retry"]["maxRetryCount"], -1);
        }
        assert_eq!(
            binding(Function::Materialized, "events")["startFromBeginning"],
            true
        );
    }
}
