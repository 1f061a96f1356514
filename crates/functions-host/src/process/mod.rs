//! The handler process: how it is started, when it is ready, what happens when it ends.
//!
//! [`command`] turns host.json into a command line, [`spawn`] starts it so that it cannot outlive the host, [`output`]
//! turns its lines into log events, [`supervisor`] decides about readiness, restarts and the end.

pub(crate) mod command;
pub(crate) mod output;
pub(crate) mod spawn;
pub(crate) mod supervisor;
