//! What can go wrong in a Cosmos DB binding, and whether waiting helps.

use azure_data_cosmos::CosmosError;
use thiserror::Error;

use super::connection::ConnectionError;
use crate::binding::BindingError;
use crate::expression::ExpressionError;

/// A failure of a Cosmos DB binding. Texts name settings, properties and containers, never keys.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The connection setting cannot be used.
    #[error(transparent)]
    Connection(#[from] ConnectionError),

    /// An `{expression}` has no value.
    #[error(transparent)]
    Expression(#[from] ExpressionError),

    /// The service or the way to it failed.
    #[error("{action} failed: {source}")]
    Service {
        /// What was tried, with the names of database and container.
        action: String,
        /// The SDK's error.
        source: CosmosError,
    },

    /// The service did not answer in time.
    #[error("{action} did not finish within {seconds} s")]
    TimedOut {
        /// What was tried.
        action: String,
        /// The limit, in seconds.
        seconds: u64,
    },

    /// The item's id resolved to nothing.
    #[error("the id of the item to read is empty")]
    EmptyId,

    /// The rows of a query input do not fit into one invocation.
    #[error("the query returned more than {limit} bytes of items; narrow it (TOP, WHERE)")]
    InputTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },

    /// An output document without a usable id.
    #[error("document {index}: \"id\" must be a non-empty string")]
    NoId {
        /// 0-based position among the documents of the output.
        index: usize,
    },

    /// An output document whose partition key value is an object, an array or no valid number.
    #[error(
        "document {index}: the partition key {path} must be a string, a number, a boolean or null"
    )]
    PartitionKeyType {
        /// 0-based position among the documents of the output.
        index: usize,
        /// Partition key path of the container.
        path: String,
    },

    /// `createIfNotExists` without a partition key path.
    #[error("createIfNotExists needs partitionKey, the path of the partition key, such as \"/id\"")]
    NoPartitionKeyPath,

    /// The container that a trigger watches is missing.
    #[error(
        "container {container} of database {database} does not exist; the trigger has nothing to watch"
    )]
    MonitoredMissing {
        /// Database name.
        database: String,
        /// Container name.
        container: String,
    },

    /// The lease container is missing.
    #[error(
        "lease container {container} of database {database} does not exist; create it with partition key /id, or set createLeaseContainerIfNotExists to true"
    )]
    LeaseContainerMissing {
        /// Database name.
        database: String,
        /// Container name.
        container: String,
    },

    /// The lease container has another partition key than leases need.
    #[error("lease container {container} has partition key {found}; leases need /id")]
    LeaseContainerKey {
        /// Container name.
        container: String,
        /// Its partition key path(s).
        found: String,
    },

    /// A trigger would watch its own leases.
    #[error("the monitored container and the lease container are the same ({0})")]
    SameContainer(String),

    /// The leases of this prefix were written by another kind of host.
    #[error(
        "lease {id} was written by another kind of Functions host and its position cannot be read here; give this host a leaseContainerPrefix of its own, or delete the leases of that prefix"
    )]
    ForeignLease {
        /// Document id of the lease.
        id: String,
    },

    /// A lease was changed by others over and over.
    #[error("lease {id} keeps being written by others")]
    Contended {
        /// Document id of the lease.
        id: String,
    },

    /// The leases have been deleted while the trigger was running.
    #[error("the leases of this trigger have disappeared")]
    LeasesGone,

    /// `startFromTime` is outside of what the SDK can express.
    #[error("startFromTime {0} is out of range")]
    StartTime(jiff::Timestamp),

    /// The service left out something that it always sends.
    #[error("the service did not return {0}")]
    Incomplete(&'static str),
}

impl Error {
    pub(crate) fn service(action: impl Into<String>) -> impl FnOnce(CosmosError) -> Self {
        let action = action.into();
        move |source| Self::Service { action, source }
    }

    /// Whether the same attempt may succeed later without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Contended { .. } => true,
            Self::Service { source, .. } => {
                let status = source.status();
                !(status.is_bad_request()
                    || status.is_unauthorized()
                    || status.is_not_found()
                    || status.is_forbidden())
                    || status.is_read_session_not_available()
                    || status.is_write_forbidden()
            }
            _ => false,
        }
    }

    /// Whether the service said 404 for the resource itself.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Service { source, .. }
            if source.status().is_not_found() && !source.status().is_read_session_not_available())
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Service { source, .. } if source.status().is_conflict())
    }

    pub(crate) fn is_precondition_failed(&self) -> bool {
        matches!(self, Self::Service { source, .. } if source.status().is_precondition_failed())
    }
}

impl From<Error> for BindingError {
    fn from(error: Error) -> Self {
        match error {
            Error::Connection(ConnectionError::Missing { setting }) => Self::MissingSetting {
                setting,
                advice: "set it to a Cosmos DB connection string (AccountEndpoint=…;AccountKey=…;)"
                    .to_owned(),
            },
            Error::Connection(ConnectionError::Unusable { setting, reason }) => {
                Self::InvalidSetting { setting, reason }
            }
            Error::Expression(error) => Self::Expression(error),
            Error::Service { action, source } => Self::Service {
                operation: action,
                message: source.to_string(),
            },
            Error::TimedOut {
                ref action,
                seconds,
            } => Self::Service {
                operation: action.clone(),
                message: format!("no answer within {seconds} s"),
            },
            error @ (Error::NoId { .. } | Error::PartitionKeyType { .. }) => {
                Self::InvalidOutput(error.to_string())
            }
            error => Self::Configuration(error.to_string()),
        }
    }
}
