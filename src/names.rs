//! Names that hold everywhere: in the functions' bindings, in the deployed resources and on the wire.
//!
//! The same names are written in `functions/*/function.json`, which only takes literals; a test of [`crate::functions`]
//! keeps the two in step.

/// The Cosmos DB database.
pub const DATABASE: &str = "eventsDb";

/// Container of all events, partition key `/id`.
pub const EVENTS: &str = "events";

/// Container of the maxima per device, partition key `/deviceId`.
pub const MATERIALIZED: &str = "materialized";

/// Container of the change feed leases, partition key `/id`.
pub const LEASES: &str = "leases";

/// Container of documents that were found in [`EVENTS`] but are no events, partition key `/id`.
pub const QUARANTINE: &str = "quarantine";

/// The SignalR hub that browsers connect to.
pub const HUB: &str = "events";

/// The client method that SignalR messages call. Its one argument is an array of events.
pub const TARGET: &str = "console";
