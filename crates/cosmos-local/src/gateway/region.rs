//! A region as its gateway sees it.

use std::{fmt, sync::Arc, time::Instant};

use http::StatusCode;
use tokio::sync::watch;

use super::{FAULT_RETRY, reply::ApiError};
use crate::{
    Availability, Fault, Operation,
    budget::Budget,
    replica::{Replica, WriteError},
};

/// One region of the account.
pub(crate) struct Region {
    /// By which mutations and continuations name it.
    pub(crate) index: usize,
    /// Azure display name.
    pub(crate) name: String,
    /// Of its gateway, on 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) replica: Arc<Replica>,
    availability: watch::Sender<Availability>,
    fault: watch::Sender<Option<Fault>>,
    pub(super) budget: Budget,
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Region {
    pub(crate) fn new(name: &str, port: u16, replica: Arc<Replica>) -> Self {
        Self {
            index: replica.index,
            name: name.to_owned(),
            port,
            replica,
            availability: watch::channel(Availability::Online).0,
            fault: watch::channel(None).0,
            budget: Budget::default(),
        }
    }

    pub(crate) fn availability(&self) -> Availability {
        *self.availability.borrow()
    }

    pub(crate) fn set_availability(&self, availability: Availability) {
        self.availability.send_replace(availability);
    }

    /// Whether it is in the account's lists at the moment.
    pub(crate) fn is_listed(&self) -> bool {
        self.availability() != Availability::Withdrawn
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.availability() == Availability::Online
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    /// The failure that a request meets, if it is to meet one.
    pub(super) fn meet_fault(&self, operation: Operation) -> Result<(), ApiError> {
        let is_hit = |fault: &Fault| {
            fault.operations.contains(&operation) && rand::random::<f64>() < fault.likelihood
        };
        match &*self.fault.borrow() {
            Some(fault) if is_hit(fault) => {
                let status =
                    StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let error =
                    ApiError::new(status, "this failure was asked for").substatus(fault.substatus);
                Err(match fault.status {
                    429 | 449 => error.retry_after(FAULT_RETRY),
                    _ => error,
                })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn takes_no_writes(&self) -> ApiError {
        let message = format!("the region {} does not take writes", self.name);
        ApiError::new(StatusCode::FORBIDDEN, message).substatus(3)
    }

    /// What the client of a transaction is told that was not made.
    pub(super) fn refusal(&self, error: WriteError) -> ApiError {
        match error {
            // One that is about to leave is not listed any more; this one has handed over the writes.
            WriteError::Sealed if self.is_listed() => self.takes_no_writes(),
            error => error.into(),
        }
    }

    pub(crate) fn limit_throughput(&self, per_second: Option<u32>) {
        self.budget.limit(per_second, Instant::now());
    }
}
