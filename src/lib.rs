//! geo-events: a geo-distributed, event-driven system on Azure, and the whole multi-region cloud for it on one machine.
//!
//! Devices write events to the nearest region; Cosmos DB with multi-region writes replicates them; in every region the
//! change feed wakes functions that push each event to that region's browsers and keep the maximum per device. This
//! library is all the code of the app. The executable `geo-events` is a command line around it, and at the same time the
//! *custom handler* that a Functions host runs.
//!
//! What runs in Azure:
//!
//! - [`functions`]: the seven functions. Start reading here.
//! - [`event`], [`measurement`]: the domain, without any I/O
//! - [`invocation`], [`problem`]: the two wire formats
//! - [`handler`]: the server that a Functions host talks to
//! - [`changes`], [`cosmos`]: the change feed on demand, and the way to Cosmos DB
//! - [`settings`], [`names`]: what is configured, and what is not
//! - [`telemetry`]: traces and metrics, for whoever watches
//!
//! What gets it there:
//!
//! - [`package`]: the deployable script root
//! - [`provision`]: database and containers of an emulator
//! - [`smoke`]: the test of a system that runs
//!
//! And, with the feature `local`, `local`: the whole multi-region system on one machine. All else knows nothing of it and
//! builds without it.
//!
//! It is not a Functions host, and it stores nothing itself.

pub mod changes;
pub mod cosmos;
pub mod event;
pub mod functions;
pub mod handler;
pub mod invocation;
#[cfg(feature = "local")]
pub mod local;
pub mod logging;
pub mod measurement;
pub mod names;
pub mod package;
mod pairs;
pub mod problem;
pub mod provision;
pub mod settings;
pub mod smoke;
pub mod telemetry;
