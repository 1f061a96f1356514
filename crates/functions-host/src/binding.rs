//! What a `function.json` asks for, as types.
//!
//! A binding here has been read completely: names of either extension generation are folded into one field, `%SETTING%`
//! has been replaced, defaults are filled in. What is still open are the `{expressions}`, which only an invocation can
//! answer; they are [`Template`]s and [`SqlTemplate`]s.
//!
//! Property names, units and defaults: `Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.CosmosDB` and
//! `Azure/azure-sdk-for-net: sdk/signalr/Microsoft.Azure.WebJobs.Extensions.SignalRService`.
//! The reading of JSON into these types is [`crate::function_json`]; this module holds data only.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::expression::{ExpressionError, SqlTemplate, Template};

/// Which generation of extensions an app is written for; it decides property names and the shape of trigger data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Extension bundle 2 or 3: Cosmos DB extension 3.x (`collectionName`, `connectionStringSetting`, …).
    Three,
    /// Extension bundle 4: Cosmos DB extension 4.x (`containerName`, `connection`, …).
    Four,
}

/// The one binding that starts a function.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per function, made once at start"
)]
pub enum Trigger {
    /// `httpTrigger`
    Http(HttpTrigger),
    /// `cosmosDBTrigger`
    Cosmos(CosmosTrigger),
}

impl Trigger {
    /// The binding's `name`: the member of `Data` that carries the trigger's value.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Http(trigger) => &trigger.name,
            Self::Cosmos(trigger) => &trigger.name,
        }
    }

    /// The binding's `type`, in Azure's spelling.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Http(_) => "httpTrigger",
            Self::Cosmos(_) => "cosmosDBTrigger",
        }
    }
}

/// An input binding: read before the handler is called.
#[derive(Debug, Clone)]
pub enum InputBinding {
    /// `cosmosDB` with an `id`: one point read.
    CosmosItem(CosmosItemInput),
    /// `cosmosDB` without an `id`: a query.
    CosmosQuery(CosmosQueryInput),
    /// `signalRConnectionInfo`
    SignalRConnectionInfo(SignalRConnectionInfo),
}

impl InputBinding {
    /// The binding's `name`: the member of `Data` that carries its value.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::CosmosItem(input) => &input.name,
            Self::CosmosQuery(input) => &input.name,
            Self::SignalRConnectionInfo(input) => &input.name,
        }
    }
}

/// An output binding: applied after the handler replied.
#[derive(Debug, Clone)]
pub enum OutputBinding {
    /// `http`: shapes the response of an `httpTrigger` function.
    Http {
        /// The binding's `name`; `$return` takes its value from `ReturnValue`.
        name: String,
    },
    /// `cosmosDB`
    Cosmos(CosmosOutput),
    /// `signalR`
    SignalR(SignalROutput),
}

impl OutputBinding {
    /// The binding's `name`: the member of `Outputs` it takes its value from (`$return`: `ReturnValue`).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Http { name } => name,
            Self::Cosmos(output) => &output.name,
            Self::SignalR(output) => &output.name,
        }
    }
}

/// `httpTrigger`.
#[derive(Debug, Clone)]
pub struct HttpTrigger {
    /// Binding name.
    pub name: String,
    /// Route template without prefix; `None` = the function's name. Never `%…%`-resolved.
    pub route: Option<String>,
    /// Upper-case methods as written; empty = all methods.
    pub methods: Vec<String>,
    /// Access level; parsed, and like under `func start` not enforced.
    pub auth_level: AuthLevel,
}

/// `authLevel` of an `httpTrigger`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthLevel {
    /// Anyone may call.
    Anonymous,
    /// A function or host key is due (the default).
    Function,
    /// The master key is due.
    Admin,
}

/// `cosmosDBTrigger`: where to read a change feed, and where its leases live.
#[derive(Debug, Clone, PartialEq)]
pub struct CosmosTrigger {
    /// Binding name.
    pub name: String,
    /// *Name* of the setting with the account's connection (`connection`, default `CosmosDB`).
    pub connection: String,
    /// Monitored database.
    pub database: String,
    /// Monitored container.
    pub container: String,
    /// *Name* of the setting with the lease account's connection (default: [`Self::connection`]).
    pub lease_connection: String,
    /// Database of the lease container (default: [`Self::database`]).
    pub lease_database: String,
    /// Lease container (default `leases`).
    pub lease_container: String,
    /// `createLeaseContainerIfNotExists`
    pub create_lease_container: bool,
    /// `leasesContainerThroughput`, request units per second.
    pub lease_container_throughput: Option<u32>,
    /// `leaseContainerPrefix`: functions with equal prefixes share the feed.
    pub lease_prefix: String,
    /// `feedPollDelay`: pause after a poll that found nothing.
    pub feed_poll_delay: Duration,
    /// `leaseRenewInterval`
    pub lease_renew_interval: Duration,
    /// `leaseAcquireInterval`: between looks at the other owners.
    pub lease_acquire_interval: Duration,
    /// `leaseExpirationInterval`: after this long without renewal a lease is free.
    pub lease_expiration_interval: Duration,
    /// `maxItemsPerInvocation`; `None` = the service's page.
    pub max_items: Option<u32>,
    /// Where a lease without a continuation begins.
    pub start: FeedStart,
    /// `preferredLocations`, nearest first.
    pub preferred_locations: Vec<String>,
}

impl CosmosTrigger {
    /// `feedPollDelay` when not given.
    pub const FEED_POLL_DELAY: Duration = Duration::from_millis(5_000);
    /// `leaseRenewInterval` when not given.
    pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_millis(17_000);
    /// `leaseAcquireInterval` when not given.
    pub const LEASE_ACQUIRE_INTERVAL: Duration = Duration::from_millis(13_000);
    /// `leaseExpirationInterval` when not given.
    pub const LEASE_EXPIRATION_INTERVAL: Duration = Duration::from_millis(60_000);
}

/// Where a feed begins while its lease has no continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// With the first change after the listener's first start (the default).
    Now,
    /// `startFromBeginning`: with the first change ever.
    Beginning,
    /// `startFromTime`: with the first change at or after this moment.
    Time(jiff::Timestamp),
}

/// `cosmosDB` in, by id.
#[derive(Debug, Clone)]
pub struct CosmosItemInput {
    /// Binding name.
    pub name: String,
    /// *Name* of the connection setting.
    pub connection: String,
    /// Database.
    pub database: Template,
    /// Container.
    pub container: Template,
    /// Id of the item.
    pub id: Template,
    /// Partition key *value*, always a string; `None` = the "none" key.
    pub partition_key: Option<Template>,
    /// Regions, nearest first.
    pub preferred_locations: Vec<String>,
}

/// `cosmosDB` in, by query.
#[derive(Debug, Clone)]
pub struct CosmosQueryInput {
    /// Binding name.
    pub name: String,
    /// *Name* of the connection setting.
    pub connection: String,
    /// Database.
    pub database: Template,
    /// Container.
    pub container: Template,
    /// The query; `None` = every document of the container.
    pub sql_query: Option<SqlTemplate>,
    /// Partition key *value*, always a string; `None` = cross-partition.
    pub partition_key: Option<Template>,
    /// Regions, nearest first.
    pub preferred_locations: Vec<String>,
}

/// `cosmosDB` out: upsert of each item.
#[derive(Debug, Clone)]
pub struct CosmosOutput {
    /// Binding name.
    pub name: String,
    /// *Name* of the connection setting.
    pub connection: String,
    /// Database.
    pub database: Template,
    /// Container.
    pub container: Template,
    /// `createIfNotExists`: make database and container when a write finds them missing.
    pub create_if_not_exists: bool,
    /// Partition key *path* for that creation.
    pub partition_key_path: Option<Template>,
    /// Throughput for that creation, request units per second.
    pub container_throughput: Option<u32>,
    /// Regions, nearest first.
    pub preferred_locations: Vec<String>,
}

/// `signalRConnectionInfo` in.
#[derive(Debug, Clone)]
pub struct SignalRConnectionInfo {
    /// Binding name.
    pub name: String,
    /// *Name* of the connection setting (`connectionStringSetting`, default `AzureSignalRConnectionString`).
    pub connection: String,
    /// Hub.
    pub hub: Template,
    /// User the client will be.
    pub user_id: Option<Template>,
    /// A JWT whose claims may be copied.
    pub id_token: Option<Template>,
    /// Claims to copy from [`Self::id_token`].
    pub claim_types: Vec<String>,
}

/// `signalR` out: messages and group actions.
#[derive(Debug, Clone)]
pub struct SignalROutput {
    /// Binding name.
    pub name: String,
    /// *Name* of the connection setting (`connectionStringSetting`, default `AzureSignalRConnectionString`).
    pub connection: String,
    /// Hub.
    pub hub: Template,
}

/// The value an input binding yields, before it is put on the wire.
///
/// The real host pushes .NET values through one encoding function; which of these a binding yields decides how often
/// the handler has to parse (`Azure/azure-functions-host:
/// src/WebJobs.Script/Workers/MessageExtensions/ScriptInvocationContextExtensions.cs`).
#[derive(Debug, Clone)]
pub enum Encoded {
    /// A .NET string: on the wire a string that holds a JSON string literal ("doubly encoded"). The Cosmos item input, the
    /// 4.x Cosmos trigger and the SignalR connection info put JSON text in here.
    Text(String),
    /// The JSON text of an array, number or boolean: on the wire a string that holds it ("singly encoded"). The Cosmos query.
    Json(String),
    /// A JSON object: on the wire as it is.
    Object(Box<RawValue>),
    /// Nothing: the four-character string `null`.
    Null,
}

/// Why an input, an output or a listener could not do its work.
///
/// The text may reach a log; it never holds a key, a token or a connection string.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// A setting that a `connection…` property names does not exist.
    #[error("setting `{setting}` is missing: {advice}")]
    MissingSetting {
        /// The name looked for.
        setting: String,
        /// What to set.
        advice: String,
    },
    /// A setting exists and cannot be understood.
    #[error("setting `{setting}` {reason}")]
    InvalidSetting {
        /// The setting's name.
        setting: String,
        /// What is wrong with it, without its value.
        reason: String,
    },
    /// An `{expression}` has no value in this invocation.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The handler sent something this output cannot take.
    #[error("{0}")]
    InvalidOutput(String),
    /// The configuration is understood and not supported, or contradicts itself.
    #[error("{0}")]
    Configuration(String),
    /// The service refused, or could not be reached.
    #[error("{operation}: {message}")]
    Service {
        /// What was tried, with database and container or hub.
        operation: String,
        /// What came back.
        message: String,
    },
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The invocation, with all its retries, has ended: checkpoint.
    Delivered,
    /// The host is stopping and the batch was not finished: no checkpoint, it will be delivered again.
    Stopping,
}

/// Where a change feed listener delivers its batches.
///
/// One call runs the whole retry policy of the function; it may take as long as the policy allows. Calls for different
/// leases may overlap, calls for one lease must not.
pub trait FeedSink: Clone + Send + Sync + 'static {
    /// Invokes the function with `documents`, in order.
    fn deliver(&self, documents: Vec<Box<RawValue>>) -> impl Future<Output = Delivery> + Send;
}

/// What a listener needs to know beside its trigger.
#[derive(Debug, Clone)]
pub struct ListenerContext {
    /// The function it listens for.
    pub function: String,
    /// Fixed owner name for leases, `<instance name>/<function>`. `None` = a fresh GUID per listener start.
    pub owner: Option<String>,
    /// Where it reports.
    pub board: ListenerBoard,
}

/// A listener's public face: its state and leases, read by the host's status.
#[derive(Debug, Clone, Default)]
pub struct ListenerBoard(std::sync::Arc<tokio::sync::watch::Sender<ListenerStatus>>);

/// See [`ListenerBoard`].
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Where the listener stands.
    pub state: ListenerState,
    /// Why it is not running as it should, while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The leases it holds.
    pub leases: Vec<LeaseStatus>,
}

/// Where a listener stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerState {
    /// Not yet listening.
    #[default]
    Starting,
    /// Listening: whatever is accepted from now on will be delivered.
    Running,
    /// Could not start; tried again after a pause.
    Failed,
    /// Ended by a stop.
    Stopped,
}

/// One lease held by this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The lease token: the range it covers.
    pub lease: String,
    /// The owner written into the lease.
    pub owner: String,
    /// When a continuation was last written, RFC 3339; `None` = not yet by this listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpointed_at: Option<String>,
}

impl ListenerBoard {
    /// Records the state; `Running` also clears the trouble.
    pub fn state(&self, state: ListenerState) {
        self.0.send_modify(|status| {
            status.state = state;
            if state == ListenerState::Running {
                status.trouble = None;
            }
        });
    }

    /// Records what currently hinders the listener, or that nothing does.
    pub fn trouble(&self, trouble: Option<String>) {
        self.0.send_modify(|status| status.trouble = trouble);
    }

    /// Replaces the list of leases.
    pub fn leases(&self, leases: Vec<LeaseStatus>) {
        self.0.send_modify(|status| status.leases = leases);
    }

    /// Changes the list of leases in place.
    pub fn update_leases(&self, change: impl FnOnce(&mut Vec<LeaseStatus>)) {
        self.0.send_modify(|status| change(&mut status.leases));
    }

    /// What was last recorded.
    #[must_use]
    pub fn status(&self) -> ListenerStatus {
        self.0.borrow().clone()
    }

    /// Follows the records.
    #[must_use]
    pub fn watch(&self) -> tokio::sync::watch::Receiver<ListenerStatus> {
        self.0.subscribe()
    }
}
