//! Items: create, upsert, replace, read, delete and list.

use std::{ops::Bound, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Gateway,
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    epk,
    metadata::Container,
    partition_key::{Named, PartitionKey},
    record::{ItemKey, Record},
    replica::{Change, Document, Write, WriteError, Written},
    scope::Scope,
};

/// Largest item, in bytes of its text without system properties.
const MAX_ITEM: usize = 2 * 1024 * 1024;

/// Longest id, in bytes.
const MAX_ID: usize = 1023;

/// Items of a page, when the client has no wish, and at the most; and its bytes, at the most.
pub(super) const USUAL_PAGE: usize = 100;
pub(super) const MAX_PAGE: usize = 1000;
pub(super) const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Written by the service; what a client sends of them is left out.
const SYSTEM_PROPERTIES: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let status = match &error {
            WriteError::Conflict => StatusCode::CONFLICT,
            WriteError::NotFound => StatusCode::NOT_FOUND,
            WriteError::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            WriteError::Disk(_) | WriteError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl Gateway {
    /// `…/docs`: by its headers, this is one of seven operations.
    pub(super) async fn documents(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
    ) -> Result<Reply, ApiError> {
        match request.method {
            Method::GET | Method::HEAD => {
                self.reach(region, request).await?;
                if request.header("a-im").is_some() {
                    self.changes(region, request, container)
                } else {
                    self.list(region, request, container)
                }
            }
            Method::POST if request.flag("x-ms-cosmos-is-query-plan-request") => {
                self.query_plan(request, container)
            }
            Method::POST if request.flag("x-ms-cosmos-is-batch-request") => {
                Err(ApiError::unsupported("a transactional batch"))
            }
            Method::POST if is_query(request) => {
                self.reach(region, request).await?;
                self.query(region, request, container).await
            }
            Method::POST => {
                let document = document(request)?;
                let upsert = request.flag("x-ms-documentdb-is-upsert");
                let change = if upsert {
                    Change::Upsert(document)
                } else {
                    Change::Create(document)
                };
                self.write(region, request, container, change).await
            }
            _ => Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not an operation of items", request.method),
            )),
        }
    }

    /// `…/docs/{id}`
    pub(super) async fn document(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
        id: &str,
    ) -> Result<Reply, ApiError> {
        match request.method {
            Method::GET | Method::HEAD => {
                self.reach(region, request).await?;
                self.read_item(region, request, container, id)
            }
            Method::PUT => {
                let document = document(request)?;
                if document.id != id {
                    return Err(ApiError::bad_request(format!(
                        "the body's id {:?} is not the path's id {id:?}",
                        document.id
                    )));
                }
                self.write(region, request, container, Change::Replace(document))
                    .await
            }
            Method::DELETE => {
                self.write(
                    region,
                    request,
                    container,
                    Change::Delete { id: id.to_owned() },
                )
                .await
            }
            Method::PATCH => Err(ApiError::unsupported("patching an item")),
            _ => Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not an operation of items", request.method),
            )),
        }
    }

    async fn write(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
        change: Change,
    ) -> Result<Reply, ApiError> {
        for trigger in [
            "x-ms-documentdb-pre-trigger-include",
            "x-ms-documentdb-post-trigger-include",
        ] {
            if request
                .header(trigger)
                .is_some_and(|names| !names.is_empty())
            {
                return Err(ApiError::unsupported("a trigger"));
            }
        }
        let partition = partition(request, container)?;
        let deletes = match &change {
            Change::Delete { .. } => true,
            Change::Create(document) | Change::Upsert(document) | Change::Replace(document) => {
                let own = container
                    .partition_key
                    .of_document(&document.members)
                    .map_err(ApiError::bad_request)?;
                if own != partition {
                    let message = format!(
                        "the partition key header says {}, and the document {}",
                        partition.value, own.value
                    );
                    return Err(ApiError::bad_request(message).substatus(1001));
                }
                false
            }
        };
        self.reach(region, request).await?;
        let write = Write {
            container: Arc::clone(container),
            partition,
            change,
            if_match: request.header("if-match").map(str::to_owned),
            only_if_missing: request.header("if-none-match") == Some("*"),
        };
        let Written { record, created } = self.replica(region).write(write).await?;
        if deletes {
            return Ok(Reply::empty(StatusCode::NO_CONTENT).charge(6.0));
        }
        let status = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let body = if request.minimal() {
            String::new()
        } else {
            record.body.clone().unwrap_or_default()
        };
        Ok(Reply::new(status, body)
            .header("etag", record.etag.clone())
            .charge(6.0))
    }

    fn read_item(
        &self,
        region: usize,
        request: &Request,
        container: &Container,
        id: &str,
    ) -> Result<Reply, ApiError> {
        let key = ItemKey {
            partition: partition(request, container)?,
            id: id.to_owned(),
        };
        let found = {
            let state = self.replica(region).read();
            let item = state
                .tables
                .get(&container.number)
                .and_then(|table| table.items.get(&key));
            item.and_then(|item| item.visible().cloned())
        };
        let Some(record) = found else {
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "no item with this id exists under this partition key",
            ));
        };
        let reply = if request.header("if-none-match") == Some(record.etag.as_str()) {
            Reply::empty(StatusCode::NOT_MODIFIED)
        } else {
            Reply::new(StatusCode::OK, record.body.clone().unwrap_or_default())
        };
        Ok(reply.header("etag", record.etag.clone()))
    }

    fn list(
        &self,
        region: usize,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let scope = scope(request, container)?;
        let after = request
            .header("x-ms-continuation")
            .map(decode_key)
            .transpose()?;
        let most = request.page_size(USUAL_PAGE, MAX_PAGE);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut records, mut bytes): (Vec<Arc<Record>>, usize) = (Vec::new(), 0);
        let mut last = None;
        {
            let state = self.replica(region).read();
            let items = state
                .tables
                .get(&container.number)
                .into_iter()
                .flat_map(|table| scope.items(table, from));
            for (_, item) in items {
                let Some(record) = item.visible() else {
                    continue;
                };
                bytes += record.body.as_ref().map_or(0, String::len);
                if !records.is_empty() && (records.len() >= most || bytes > MAX_PAGE_BYTES) {
                    last = records.last().map(|record| encode_key(&record.key));
                    break;
                }
                records.push(Arc::clone(record));
            }
        }
        let reply = page(
            container,
            records.iter().filter_map(|record| record.body.as_deref()),
        );
        Ok(match last {
            Some(continuation) => reply.header("x-ms-continuation", continuation),
            None => reply,
        })
    }
}

/// A page of rows that are JSON text already.
pub(super) fn page<'a>(container: &Container, rows: impl Iterator<Item = &'a str>) -> Reply {
    let mut documents = String::new();
    let mut count = 0;
    for row in rows {
        if count > 0 {
            documents.push(',');
        }
        documents.push_str(row);
        count += 1;
    }
    let body = format!(
        "{{\"_rid\":\"{}\",\"Documents\":[{documents}],\"_count\":{count}}}",
        container.rid()
    );
    Reply::new(StatusCode::OK, body).header("x-ms-item-count", count.to_string())
}

/// Whether the body is a query, and not a new resource.
pub(super) fn is_query(request: &Request) -> bool {
    request.flag("x-ms-documentdb-isquery")
        || request
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/query+json"))
}

/// The partition key header, which every operation on one item needs.
fn partition(request: &Request, container: &Container) -> Result<PartitionKey, ApiError> {
    let text = request
        .header("x-ms-documentdb-partitionkey")
        .ok_or_else(|| {
            ApiError::bad_request("the header x-ms-documentdb-partitionkey is missing")
        })?;
    match container
        .partition_key
        .of_header(text)
        .map_err(ApiError::bad_request)?
    {
        Named::Value(partition) => Ok(partition),
        Named::Prefix(_) => Err(ApiError::bad_request(
            "the partition key header names only a part of the key, and an operation on one item needs all of it",
        )),
    }
}

/// What a feed or query is limited to by its headers. Names of ranges are checked.
pub(super) fn scope(request: &Request, container: &Container) -> Result<Scope, ApiError> {
    let mut scope = Scope::everything();
    if let Some(range) = request.header("x-ms-documentdb-partitionkeyrangeid") {
        let range = range.rsplit(',').next().unwrap_or_default();
        if range != crate::metadata::RANGE_ID {
            return Err(ApiError::new(
                StatusCode::GONE,
                format!("the container has no partition key range {range:?}"),
            )
            .substatus(1002));
        }
    }
    let (start, end) = (
        request.header("x-ms-start-epk"),
        request.header("x-ms-end-epk"),
    );
    if start.is_some() || end.is_some() {
        if let Some(kind) = request.header("x-ms-read-key-type")
            && kind != "EffectivePartitionKeyRange"
        {
            return Err(ApiError::bad_request(format!(
                "x-ms-read-key-type {kind:?} does not go with a range; EffectivePartitionKeyRange does"
            )));
        }
        let (start, end) = (
            effective_key(start.unwrap_or(epk::FIRST))?,
            effective_key(end.unwrap_or(epk::END))?,
        );
        scope = scope.within(&start, &end);
    }
    if let Some(text) = request.header("x-ms-documentdb-partitionkey") {
        let named = container
            .partition_key
            .of_header(text)
            .map_err(ApiError::bad_request)?;
        scope = scope.named(named);
    }
    Ok(scope)
}

fn effective_key(text: &str) -> Result<String, ApiError> {
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(ApiError::bad_request(format!(
            "the effective partition key {text:?} is not hexadecimal"
        )))
    }
}

fn document(request: &Request) -> Result<Document, ApiError> {
    let mut members: Map<String, Value> = request.object()?;
    for name in SYSTEM_PROPERTIES {
        members.shift_remove(name);
    }
    let id = match members.get("id") {
        Some(Value::String(id)) => id.clone(),
        _ => {
            return Err(ApiError::bad_request(
                "the item has no id; give it a member \"id\" that is a string",
            ));
        }
    };
    if id.is_empty() || id.len() > MAX_ID || id.contains(['/', '\\']) {
        return Err(ApiError::bad_request(format!(
            "an id has 1 to {MAX_ID} bytes, and no / or \\"
        )));
    }
    if request.body.len() > MAX_ITEM {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("an item has at most {MAX_ITEM} bytes"),
        ));
    }
    Ok(Document { id, members })
}

/// A key as a continuation.
fn encode_key(key: &ItemKey) -> String {
    let parts = [&key.partition.epk, &key.partition.value, &key.id];
    URL_SAFE_NO_PAD.encode(json!(parts).to_string())
}

fn decode_key(text: &str) -> Result<ItemKey, ApiError> {
    let parts = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<[String; 3]>(&bytes).ok());
    let [epk, value, id] = parts
        .ok_or_else(|| ApiError::bad_request("the continuation is not one of this container's"))?;
    Ok(ItemKey {
        partition: PartitionKey { epk, value },
        id,
    })
}
