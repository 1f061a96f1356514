//! The REST API, request by request, where an SDK would not show what is on the wire.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod membership;
mod partitions;
mod protocol;
mod queries;
mod regions;
mod tombstones;
