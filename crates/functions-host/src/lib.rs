//! An Azure Functions host for custom handlers: function.json in, invocations out.
//!
//! Point it at a script root (the folder that `func start` would run: host.json, one folder per function, the executable) and
//! it does what the real host does: resolves settings and expressions, starts and supervises the handler process, serves HTTP
//! triggers, follows change feeds with leases, and applies output bindings. It talks to Azure Cosmos DB through the official
//! SDK and to Azure SignalR Service through its REST API, so it works against the real services as well as local ones.
//!
//! ```no_run
//! # async fn example() -> Result<(), functions_host::HostError> {
//! use functions_host::FunctionsHost;
//!
//! let host = FunctionsHost::builder("target/script-root")
//!     .port(7071)
//!     .setting("REGION", "West US")
//!     .start()
//!     .await?;
//! println!("{}", host.listing());
//! host.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not
//!
//! No language workers, no `timerTrigger`, queues, blobs or durable functions, no keys (every function can be called, as under
//! `func start`), no forwarding or proxying of raw HTTP requests, no extension downloads. What a script root asks for beyond
//! that is refused by name: in host.json at start, in a function.json by that function alone.
//!
//! # Where to start reading
//!
//! - [`FunctionsHost`] is the door; `host` holds it and decides about restarts and the end.
//! - `script_host` is one life of a script root: functions, handler, listeners, routes.
//! - What the files say: [`settings`], [`host_json`], [`script_root`], [`function_json`], [`binding`], [`expression`], [`retry`].
//! - One invocation: `invoker` (the order of things), `invocation` (the wire format), [`binding_data`] (the names it knows).
//! - Triggers: `web` (routes, requests, responses, admin endpoints), `feed` (batches and retries) on [`cosmos`].
//! - Services: [`cosmos`], [`signalr`]. The child process: `process`.
//!
//! # Invariants
//!
//! - Listens on 127.0.0.1 only. Reads the process environment once and never writes it: several hosts live in one process.
//! - A feed batch is checkpointed only after its invocation, with all retries, has ended; a stop in between redelivers it.
//! - When a host ends, in whatever way, its handler ends: a stop signals the process group, and on Linux the kernel kills the
//!   handler of a host that was killed.
//! - Secrets reach neither logs nor `Debug` output; lines of the handler are masked before they are logged.

pub mod binding;
pub mod binding_data;
pub mod cosmos;
pub mod expression;
pub mod function_json;
pub mod host_json;
pub mod retry;
pub mod script_root;
pub mod settings;
pub mod signalr;

mod feed;
mod fields;
mod host;
mod identity;
mod invocation;
mod invoker;
mod json;
mod process;
mod script_host;
mod secrets;
mod status;
mod timespan;
mod trace;
mod web;

pub use host::{DEFAULT_PORT, FunctionsHost, HostBuilder, HostError, QUIET_PERIOD};
pub use identity::Credential;
pub use invocation::{HOST_VERSION, HOST_VERSION_HEADER, INVOCATION_ID_HEADER};
pub use invoker::MAX_REPLY_BYTES;
pub use script_host::{RELEASE_PATIENCE, STOP_PATIENCE};
pub use status::{
    EVENT_CAPACITY, FunctionInfo, FunctionStatus, HostEvent, HostState, HostStatus, listing,
};
pub use web::server::{MAX_CONNECTIONS, MAX_REQUEST_BYTES};
