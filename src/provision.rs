//! Creates the database and its containers where they do not exist yet: for emulators and for `up`.
//!
//! In Azure this is the deployment's work (`infra/`): control-plane requests with the account key need an account key,
//! and a deployed account has none that an app should know.

use azure_data_cosmos::{
    CosmosError,
    models::{ContainerProperties, PartitionKeyDefinition, TimeToLive},
};
use thiserror::Error;

use crate::{
    cosmos::{self, ConnectError},
    names::{DATABASE, EVENTS, LEASES, MATERIALIZED, QUARANTINE},
};

/// Why a resource is not there.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The account cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A database or container cannot be created.
    #[error("cannot create {resource}: {source}")]
    Create {
        /// What was to be created.
        resource: String,
        /// Why it was not.
        source: Box<CosmosError>,
    },
}

/// The containers, each with the path of its partition key.
pub const CONTAINERS: [(&str, &str); 4] = [
    (EVENTS, "/id"),
    (MATERIALIZED, "/deviceId"),
    (LEASES, "/id"),
    (QUARANTINE, "/id"),
];

/// Creates what is missing; what exists stays as it is.
///
/// # Errors
/// See [`ProvisionError`].
pub async fn run(connection_string: &str) -> Result<(), ProvisionError> {
    let cosmos = cosmos::connect(connection_string, &[]).await?;
    created(
        format!("the database {DATABASE}"),
        cosmos.client().create_database(DATABASE, None).await,
    )?;
    let database = cosmos.database(DATABASE);
    for (name, partition_key) in CONTAINERS {
        let mut properties =
            ContainerProperties::new(name, PartitionKeyDefinition::from(partition_key));
        if name != QUARANTINE {
            // On without a default: documents live for ever, but for those that say how long. The feed processor locks with
            // documents that expire (`Azure/azure-webjobs-sdk-extensions` creates its lease container in the same way), and
            // what smoke tests leave behind expires.
            properties = properties.with_default_ttl(TimeToLive::NoDefault);
        }
        created(
            format!("the container {name}"),
            database.create_container(properties, None).await,
        )?;
    }
    Ok(())
}

fn created<T>(resource: String, result: Result<T, CosmosError>) -> Result<(), ProvisionError> {
    match result {
        Ok(_) => {
            tracing::info!(resource, "created");
            Ok(())
        }
        Err(error) if error.status().is_conflict() => {
            tracing::debug!(resource, "exists");
            Ok(())
        }
        Err(source) => Err(ProvisionError::Create {
            resource,
            source: Box::new(source),
        }),
    }
}
