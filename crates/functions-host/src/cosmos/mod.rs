//! The Cosmos DB bindings of a Functions host: `cosmosDBTrigger`, `cosmosDB` in and out.
//!
//! Everything goes through the official SDK (`azure_data_cosmos`), so a real account and a local
//! one are the same to this module. It takes the typed bindings of [`crate::binding`] and returns
//! values that the host has yet to encode for the handler.
//!
//! - [`CosmosClients`]: connections, shared by all bindings of one host.
//! - [`input`]: one item by id, or the rows of a query.
//! - [`output`] does upserts.
//! - [`trigger`]: the change feed processor; start with [`trigger::listen`].
//!
//! What it is not: no all-versions-and-deletes mode, no estimator.

mod backoff;
mod clients;
mod connection;
mod error;
pub mod input;
pub mod output;
mod partition_key;
pub mod trigger;

pub use clients::{CONTAINER_CACHE_LIMIT, CosmosClients, OPERATION_LIMIT};
