//! Queries and query plans: from requests to [`crate::query`], and from items to rows.

use std::{ops::Bound, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Gateway,
    documents::{MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE, decode_key, encode_key, scope},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    metadata::Container,
    partition_key::{Named, PartitionKey},
    query::{Feed, KeySet, Page, PageLimits, Position, Query, QueryError},
    record::{ItemKey, Record},
    scope::Scope,
};

/// Body of a query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    query: String,
    #[serde(default)]
    parameters: Vec<Parameter>,
    /// Where the Rust SDK goes on in a sorted query.
    resume_filter: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    #[serde(default)]
    value: Value,
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::bad_request(format!("Message: {}", error.to_json()))
    }
}

fn parse(request: &Request) -> Result<Query, ApiError> {
    let body: Body = serde_json::from_value(Value::Object(request.object()?)).map_err(|error| {
        ApiError::bad_request(format!("the body is not a query such as {{\"query\":\"SELECT * FROM c\",\"parameters\":[]}}: {error}"))
    })?;
    let parameters: Vec<_> = body
        .parameters
        .into_iter()
        .map(|parameter| (parameter.name, parameter.value))
        .collect();
    let query = Query::parse(&body.query, &parameters)?;
    Ok(match body.resume_filter {
        Some(filter) => query.with_resume_filter(&filter)?,
        None => query,
    })
}

fn key_paths(container: &Container) -> Vec<&str> {
    container
        .partition_key
        .paths
        .iter()
        .map(String::as_str)
        .collect()
}

fn plan(query: &Query, features: &str, container: &Container) -> Result<Value, QueryError> {
    // A range that is wider than need be costs a request that finds nothing, and loses no row.
    let everything =
        json!([{"min": "", "max": "FF", "isMinInclusive": true, "isMaxInclusive": false}]);
    query.plan(features, &key_paths(container), everything)
}

impl Gateway {
    pub(super) fn query_plan(
        &self,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let features = request
            .header("x-ms-cosmos-supported-query-features")
            .unwrap_or_default();
        Ok(Reply::json(
            StatusCode::OK,
            &plan(&parse(request)?, features, container)?,
        ))
    }

    pub(super) fn query(
        &self,
        region: usize,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let query = parse(request)?;
        let mut scope = scope(request, container)?;
        if scope == Scope::everything()
            && let Some(only) = only_partition(&query, container)?
        {
            scope = scope.named(Named::Value(only));
        }
        let one_range = request
            .header("x-ms-documentdb-partitionkeyrangeid")
            .is_some();
        if scope == Scope::everything() && !one_range {
            if !request.flag("x-ms-documentdb-query-enablecrosspartition") {
                return Err(ApiError::bad_request(
                    "the query is not limited to one partition key; give one, or allow queries across partitions",
                ));
            }
            if query.needs_plan() {
                let features = "Aggregate,CompositeAggregate,CountIf,DCount,Distinct,GroupBy,ListAndSetAggregate,MultipleAggregates,MultipleOrderBy,NonStreamingOrderBy,NonValueAggregate,OffsetAndLimit,OrderBy,Top";
                let plan = plan(&query, features, container)?;
                return Err(ApiError::bad_request(
                    "this query spans partitions and needs a plan, by which the client merges",
                )
                .substatus(1004)
                .additional(plan.to_string()));
            }
        }

        let after = request
            .header("x-ms-continuation")
            .map(|text| Continuation::decode(&query, text))
            .transpose()?;
        let limits = PageLimits {
            rows: request.page_size(USUAL_PAGE, MAX_PAGE),
            bytes: MAX_PAGE_BYTES,
        };
        // Versions are immutable and shared, so the lock is held for as long as it takes to list them.
        let from = match &after {
            // Only a query without ORDER BY goes on in key order; others look at every item again.
            Some(after) if after.position.values().is_empty() => Bound::Included(&after.key),
            _ => Bound::Unbounded,
        };
        let records = self.records(region, container, &scope, from);
        let documents = records
            .iter()
            .filter_map(|record| record.body.as_deref())
            .filter_map(|body| serde_json::from_str(body).ok());
        let Page { rows, next } = query.execute_page(
            documents,
            Feed::Unsorted,
            limits,
            after.map(|after| after.position).as_ref(),
        )?;
        let count = rows.len();
        let body = json!({"_rid": container.rid(), "Documents": rows, "_count": count});
        let reply = Reply::json(StatusCode::OK, &body)
            .header("x-ms-item-count", count.to_string())
            .charge(2.5);
        Ok(match next {
            Some(position) => {
                let is_last =
                    |record: &&Arc<Record>| container.item_rid(record.ordinal) == position.rid();
                let last = records.iter().find(is_last).ok_or_else(|| {
                    ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "a page ended at an item that was not read",
                    )
                })?;
                let text = encode(&query, &position, &last.key);
                reply.header("x-ms-continuation", text)
            }
            None => reply,
        })
    }

    /// The visible items in a part of a container, in key order.
    fn records(
        &self,
        region: usize,
        container: &Container,
        scope: &Scope,
        from: Bound<&ItemKey>,
    ) -> Vec<Arc<Record>> {
        let state = self.replica(region).read();
        let Some(table) = state.tables.get(&container.number) else {
            return Vec::new();
        };
        scope
            .items(table, from)
            .filter_map(|(_, item)| item.visible().cloned())
            .collect()
    }
}

/// Answers a query over resources of the account itself: few, so all are looked at, and all rows are one page.
pub(super) fn over_resources(
    request: &Request,
    rid: &str,
    list: &str,
    resources: Vec<Value>,
) -> Result<Reply, ApiError> {
    let rows = parse(request)?.execute(resources.into_iter())?;
    let count = rows.len();
    let body = json!({"_rid": rid, list: rows, "_count": count});
    Ok(Reply::json(StatusCode::OK, &body).header("x-ms-item-count", count.to_string()))
}

/// The one logical partition that the query's own filter leaves.
fn only_partition(query: &Query, container: &Container) -> Result<Option<PartitionKey>, ApiError> {
    match query.key_set(&key_paths(container)) {
        KeySet::Keys(keys) => match keys.as_slice() {
            [key] if key.len() == container.partition_key.paths.len() => {
                let components = key
                    .iter()
                    .map(|value| value.clone().unwrap_or_else(|| json!({})))
                    .collect();
                container
                    .partition_key
                    .value(components)
                    .map(Some)
                    .map_err(ApiError::bad_request)
            }
            _ => Ok(None),
        },
        KeySet::Everything => Ok(None),
    }
}

/// Where a query goes on: a position in its rows, and the item that the last row came from.
struct Continuation {
    position: Position,
    key: ItemKey,
}

fn encode(query: &Query, position: &Position, key: &ItemKey) -> String {
    let token = json!({"key": encode_key(key), "position": query.position_to_json(position)});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

impl Continuation {
    fn decode(query: &Query, text: &str) -> Result<Self, ApiError> {
        let token = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .ok_or_else(|| {
                ApiError::bad_request("the continuation is not one of this account's")
            })?;
        Ok(Self {
            position: query.position_from_json(&token["position"])?,
            key: decode_key(token["key"].as_str().unwrap_or_default())?,
        })
    }
}
