//! `cosmosDB` input bindings: one item by id, or the rows of a query.
//!
//! Semantics of `Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.CosmosDB/Bindings`
//! (`CosmosDBItemValueBinder`, `CosmosDBJArrayBuilder`).

use azure_data_cosmos::models::PartitionKeyValue;
use azure_data_cosmos::{FeedScope, PartitionKey, Query};
use futures::StreamExt;
use serde_json::Value;

use super::clients::{ContainerAddress, CosmosClients, bounded};
use super::error::Error;
use crate::binding::{BindingError, CosmosItemInput, CosmosQueryInput, Encoded};
use crate::binding_data::BindingData;
use crate::expression::{ExpressionError, Template};

/// Most bytes of items (as JSON text) that a query input may bring into one invocation: the size
/// limit of an HTTP request to the host.
pub const QUERY_INPUT_LIMIT: usize = 104_857_600;

/// What is queried when there is neither `id` nor `sqlQuery`.
const EVERYTHING: &str = "SELECT * FROM c";

/// Reads one item: its compact JSON as text, or null when there is none.
///
/// Without `partitionKey` the item is looked for among those that have no partition key value.
/// A missing container reads as a missing item, as in the real extension.
///
/// # Errors
/// An expression without value, an empty id, an unusable connection setting, any answer of the
/// service but 200 and 404.
pub async fn read_item(
    clients: &CosmosClients,
    input: &CosmosItemInput,
    data: &BindingData,
) -> Result<Encoded, BindingError> {
    let address = ContainerAddress {
        connection: input.connection.clone(),
        preferred_locations: input.preferred_locations.clone(),
        database: input.database.resolve(data)?,
        container: input.container.resolve(data)?,
    };
    let id = input.id.resolve(data)?;
    if id.is_empty() {
        return Err(Error::EmptyId.into());
    }
    let key = resolve(input.partition_key.as_ref(), data)?.map_or_else(
        || PartitionKey::from(PartitionKeyValue::UNDEFINED),
        PartitionKey::from,
    );
    match read(clients, &address, &id, key).await {
        Ok(item) => Ok(Encoded::Text(item.to_string())),
        Err(error) if error.is_not_found() => {
            clients.forget(&address);
            Ok(Encoded::Null)
        }
        Err(error) => Err(error.into()),
    }
}

async fn read(
    clients: &CosmosClients,
    address: &ContainerAddress,
    id: &str,
    key: PartitionKey,
) -> Result<Value, Error> {
    let container = clients.container(address).await?;
    let action = || format!("reading an item of {}", address.path());
    let response = bounded(action, container.client.read_item(key, id, None)).await?;
    response.into_model().map_err(Error::service(action()))
}

/// Runs a query to its end: the JSON text of the array of its rows.
///
/// With `partitionKey` only that partition is read.
///
/// # Errors
/// An expression without value, more rows than [`QUERY_INPUT_LIMIT`], any error of the service, a
/// missing container included.
pub async fn query(
    clients: &CosmosClients,
    input: &CosmosQueryInput,
    data: &BindingData,
) -> Result<Encoded, BindingError> {
    let address = ContainerAddress {
        connection: input.connection.clone(),
        preferred_locations: input.preferred_locations.clone(),
        database: input.database.resolve(data)?,
        container: input.container.resolve(data)?,
    };
    let action = format!("querying {}", address.path());
    let mut query = Query::from(EVERYTHING);
    if let Some(sql) = &input.sql_query {
        query = query.with_text(sql.text());
        for (name, value) in sql.parameters(data)? {
            query = query
                .with_parameter(name, value)
                .map_err(Error::service(action.clone()))?;
        }
    }
    let scope = resolve(input.partition_key.as_ref(), data)?
        .map_or_else(FeedScope::full_container, FeedScope::partition);
    let rows = rows(clients, &address, query, scope)
        .await
        .inspect_err(|error| {
            if error.is_not_found() {
                clients.forget(&address);
            }
        })?;
    Ok(Encoded::Json(rows))
}

/// All rows as one JSON array.
async fn rows(
    clients: &CosmosClients,
    address: &ContainerAddress,
    query: Query,
    scope: FeedScope,
) -> Result<String, Error> {
    let action = || format!("querying {}", address.path());
    let container = clients.container(address).await?;
    let rows = container.client.query_items::<Value>(query, scope, None);
    let mut pages = Box::pin(bounded(action, rows).await?.into_pages());
    let mut text = String::from("[");
    while let Some(page) = bounded(action, async { pages.next().await.transpose() }).await? {
        for row in page.into_items() {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&row.to_string());
            if text.len() > QUERY_INPUT_LIMIT {
                return Err(Error::InputTooLarge {
                    limit: QUERY_INPUT_LIMIT,
                });
            }
        }
    }
    text.push(']');
    Ok(text)
}

fn resolve(
    template: Option<&Template>,
    data: &BindingData,
) -> Result<Option<String>, ExpressionError> {
    template.map(|template| template.resolve(data)).transpose()
}
