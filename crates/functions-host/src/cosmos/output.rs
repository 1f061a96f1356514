//! `cosmosDB` output bindings: every object is upserted, one after the other.
//!
//! Semantics of `Azure/azure-webjobs-sdk-extensions:
//! src/WebJobs.Extensions.CosmosDB/Bindings/CosmosDBAsyncCollector.cs` on the v3 SDK: no id is
//! invented, and what was written before a failure stays written.

use azure_data_cosmos::models::TimeToLive;
use serde_json::{Map, Value};

use super::clients::{ContainerAddress, CosmosClients, CreateContainer, bounded};
use super::error::Error;
use super::partition_key;
use crate::binding::{BindingError, CosmosOutput};
use crate::binding_data::BindingData;

/// Upserts `items` in order.
///
/// With `createIfNotExists` a missing container (and database) is created, and the write repeated
/// once.
///
/// # Errors
/// An expression without value, a document without a string `id` or with an unusable partition key
/// value, a missing container, any error of the service. Documents before the one that failed are
/// written.
pub async fn write(
    clients: &CosmosClients,
    output: &CosmosOutput,
    data: &BindingData,
    items: &[Map<String, Value>],
) -> Result<(), BindingError> {
    let address = ContainerAddress {
        connection: output.connection.clone(),
        preferred_locations: output.preferred_locations.clone(),
        database: output.database.resolve(data)?,
        container: output.container.resolve(data)?,
    };
    for (index, item) in items.iter().enumerate() {
        match upsert(clients, &address, index, item).await {
            Err(error) if error.is_not_found() => {
                clients.forget(&address);
                if !output.create_if_not_exists {
                    return Err(error.into());
                }
                create(clients, &address, output, data).await?;
                upsert(clients, &address, index, item).await?;
            }
            other => other?,
        }
    }
    Ok(())
}

async fn create(
    clients: &CosmosClients,
    address: &ContainerAddress,
    output: &CosmosOutput,
    data: &BindingData,
) -> Result<(), BindingError> {
    let path = output
        .partition_key_path
        .as_ref()
        .map(|path| path.resolve(data))
        .transpose()?
        .filter(|path| !path.is_empty())
        .ok_or(Error::NoPartitionKeyPath)?;
    let create = CreateContainer {
        partition_key_path: path,
        throughput: output.container_throughput.map(u64::from),
    };
    clients
        .create(address, &create, TimeToLive::Forever)
        .await?;
    Ok(())
}

async fn upsert(
    clients: &CosmosClients,
    address: &ContainerAddress,
    index: usize,
    item: &Map<String, Value>,
) -> Result<(), Error> {
    let id = item
        .get("id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty())
        .ok_or(Error::NoId { index })?;
    let container = clients.container(address).await?;
    let key = partition_key::of_document(container.partition_key_paths(), item, index)?;
    bounded(
        || format!("upserting document {index} into {}", address.path()),
        container.client.upsert_item(key, id, item, None),
    )
    .await?;
    Ok(())
}
