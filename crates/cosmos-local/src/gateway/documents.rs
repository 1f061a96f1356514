//! Items: create, upsert, replace, patch, read, delete and list.

use std::{ops::Bound, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Gateway, Region,
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    charge,
    container::Container,
    document::{Document, DocumentError},
    epk,
    partition_key::{Named, PartitionKey},
    patch::Patch,
    record::{ItemKey, Record},
    replica::{Change, Outcome, Step, Transaction, WriteError},
    scope::Scope,
    ttl::Lifetimes,
};

/// Items of a page, when the client has no wish, and at the most; and its bytes, at the most.
pub(super) const USUAL_PAGE: usize = 100;
pub(super) const MAX_PAGE: usize = 1000;
pub(super) const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let (status, substatus) = match &error {
            WriteError::Conflict | WriteError::Entangled => (StatusCode::CONFLICT, 0),
            WriteError::NotUnique => (StatusCode::CONFLICT, 3301),
            WriteError::NotFound => (StatusCode::NOT_FOUND, 0),
            WriteError::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, 0),
            WriteError::ConditionFalse => (StatusCode::PRECONDITION_FAILED, 1110),
            WriteError::Invalid(_) | WriteError::Document(DocumentError::Invalid(_)) => {
                (StatusCode::BAD_REQUEST, 0)
            }
            WriteError::TooMuchRead => (StatusCode::PAYLOAD_TOO_LARGE, 3402),
            WriteError::Document(DocumentError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, 0),
            WriteError::Disk(_) | WriteError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, 0),
            // As any request is answered that comes a moment later.
            WriteError::Sealed => (StatusCode::FORBIDDEN, 1008),
        };
        Self::new(status, error.to_string()).substatus(substatus)
    }
}

impl Gateway {
    /// `…/docs`: by its headers, this is one of seven operations.
    pub(super) async fn documents(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
    ) -> Result<Reply, ApiError> {
        match request.method {
            Method::GET | Method::HEAD => {
                self.reach(region, request, container).await?;
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
                self.batch(region, request, container).await
            }
            Method::POST if is_query(request) => {
                self.reach(region, request, container).await?;
                self.query(region, request, container).await
            }
            Method::POST => {
                let document = Document::new(request.object()?)?;
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
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        id: &str,
    ) -> Result<Reply, ApiError> {
        let id = id.to_owned();
        let change = match request.method {
            Method::GET | Method::HEAD => {
                self.reach(region, request, container).await?;
                return self.read_item(region, request, container, id);
            }
            Method::PUT => replacement(Document::new(request.object()?)?, &id)?,
            Method::DELETE => Change::Delete { id },
            // By the verb: clients send various content types with it, or none.
            Method::PATCH => Change::Patch {
                id,
                patch: patch(request.json()?, container)?,
            },
            _ => {
                return Err(ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{} is not an operation of items", request.method),
                ));
            }
        };
        self.write(region, request, container, change).await
    }

    async fn write(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        change: Change,
    ) -> Result<Reply, ApiError> {
        self.check_write(region, request)?;
        let partition = partition(request, container)?;
        check_partition(&change, &partition, container)?;
        self.reach(region, request, container).await?;
        let creates = matches!(change, Change::Create(_) | Change::Upsert(_));
        let deletes = matches!(change, Change::Delete { .. });
        let step = Step {
            change,
            if_match: request.header("if-match").map(str::to_owned),
            only_if_missing: request.header("if-none-match") == Some("*"),
        };
        let transaction = Transaction {
            container: Arc::clone(container),
            partition,
            steps: vec![step],
        };
        let outcomes = region.replica.transact(transaction).await;
        let outcomes = outcomes.map_err(|rejected| region.refusal(rejected.error))?;
        let outcome = outcomes.into_iter().next().ok_or_else(|| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "a write had no outcome")
        })?;
        let charge = charge_of(&outcome);
        if deletes {
            return Ok(Reply::empty(StatusCode::NO_CONTENT).charge(charge));
        }
        let Outcome { record, created } = outcome;
        let status = if created && creates {
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
            .charge(charge))
    }

    /// Whether this region takes this write.
    pub(super) fn check_write(&self, region: &Region, request: &Request) -> Result<(), ApiError> {
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
        self.writable(region)
    }

    fn read_item(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
        id: String,
    ) -> Result<Reply, ApiError> {
        let key = ItemKey {
            partition: partition(request, container)?,
            id: id.into(),
        };
        let found = {
            let state = region.replica.read();
            let item = state.item(container.number, &key);
            item.and_then(|item| item.visible(Lifetimes::now(container)).cloned())
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
            let body = record.body.clone().unwrap_or_default();
            let charge = charge::read(body.len());
            Reply::new(StatusCode::OK, body).charge(charge)
        };
        Ok(reply.header("etag", record.etag.clone()))
    }

    fn list(
        &self,
        region: &Region,
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
        let lifetimes = Lifetimes::now(container);
        let (mut records, mut bytes): (Vec<Arc<Record>>, usize) = (Vec::new(), 0);
        let mut last = None;
        {
            let state = region.replica.read();
            let items = state
                .tables
                .get(&container.number)
                .into_iter()
                .flat_map(|table| scope.items(table, from));
            for (_, item) in items {
                let Some(record) = item.visible(lifetimes) else {
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
pub(super) fn page<'a>(
    container: &Container,
    rows: impl Iterator<Item = &'a str> + Clone,
) -> Reply {
    let start = format!("{{\"_rid\":\"{}\",\"Documents\":[", container.rid());
    let count = rows.clone().count();
    let end = format!("],\"_count\":{count}}}");
    // Pages can be large, so their text is put together once, in a place that is large enough.
    let bytes: usize = rows.clone().map(|row| row.len() + 1).sum();
    let mut body = String::with_capacity(start.len() + bytes + end.len());
    body.push_str(&start);
    for (at, row) in rows.enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(row);
    }
    body.push_str(&end);
    let charge = charge::read(body.len());
    Reply::new(StatusCode::OK, body)
        .header("x-ms-item-count", count.to_string())
        .charge(charge)
}

/// What a write has cost.
pub(super) fn charge_of(outcome: &Outcome) -> f64 {
    let Outcome { record, created } = outcome;
    match &record.body {
        None => charge::write(0),
        Some(body) if *created => charge::write(body.len()),
        Some(body) => charge::replace(body.len()),
    }
}

pub(super) fn replacement(document: Document, id: &str) -> Result<Change, ApiError> {
    if document.id == id {
        return Ok(Change::Replace(document));
    }
    Err(ApiError::bad_request(format!(
        "the body's id {:?} is not the path's id {id:?}",
        document.id
    )))
}

/// A patch of an item of this container: its id and partition key stay what they are.
pub(super) fn patch(body: Value, container: &Container) -> Result<Arc<Patch>, ApiError> {
    let own = ["/id", "/_rid", "/_self", "/_etag", "/_attachments", "/_ts"].map(str::to_owned);
    let fixed = [&own[..], &container.partition_key.paths].concat();
    Patch::parse(body, &fixed)
        .map(Arc::new)
        .map_err(ApiError::bad_request)
}

/// A document belongs to the partition that its own members name.
pub(super) fn check_partition(
    change: &Change,
    partition: &PartitionKey,
    container: &Container,
) -> Result<(), ApiError> {
    let (Change::Create(document) | Change::Upsert(document) | Change::Replace(document)) = change
    else {
        return Ok(());
    };
    let own = container
        .partition_key
        .of_document(&document.members)
        .map_err(ApiError::bad_request)?;
    if own == *partition {
        return Ok(());
    }
    let message = format!(
        "the partition key header says {}, and the document {}",
        partition.value, own.value
    );
    Err(ApiError::bad_request(message).substatus(1001))
}

/// Whether the body is a query, and not a new resource.
pub(super) fn is_query(request: &Request) -> bool {
    request.flag("x-ms-documentdb-isquery")
        || request
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/query+json"))
}

/// The partition key header, which every operation on one item needs.
pub(super) fn partition(
    request: &Request,
    container: &Container,
) -> Result<PartitionKey, ApiError> {
    let named = request.partition_key(container).ok_or_else(|| {
        ApiError::bad_request("the header x-ms-documentdb-partitionkey is missing")
    })?;
    whole(named.cloned().map_err(ApiError::bad_request)?)
}

/// A partition key value from its text in the header's form.
pub(super) fn whole_key(text: &str, container: &Container) -> Result<PartitionKey, ApiError> {
    whole(
        container
            .partition_key
            .of_header(text)
            .map_err(ApiError::bad_request)?,
    )
}

fn whole(named: Named) -> Result<PartitionKey, ApiError> {
    match named {
        Named::Value(partition) => Ok(partition),
        Named::Prefix(_) => Err(ApiError::bad_request(
            "the partition key header names only a part of the key, and an operation on one item needs all of it",
        )),
    }
}

/// What a feed or query is limited to by its headers. Names of ranges are checked.
pub(super) fn scope(request: &Request, container: &Container) -> Result<Scope, ApiError> {
    let mut scope = Scope::everything();
    if let Some(id) = request.header("x-ms-documentdb-partitionkeyrangeid") {
        let id = id.rsplit(',').next().unwrap_or_default();
        let range = container
            .ranges()
            .get(id)
            .ok_or_else(|| gone(format!("the container has no partition key range {id:?}")))?;
        scope = scope.within(&range.start, &range.end);
    }
    if let Some((start, end)) = effective_range(request)? {
        let wanted = Scope::range(start.as_str(), end.as_str());
        let narrowed = scope.clone().within(&start, &end);
        if scope != Scope::everything() && narrowed != wanted {
            return Err(gone(format!(
                "the effective partition keys {start:?} to {end:?} are not all in the range"
            )));
        }
        scope = narrowed;
    }
    if let Some(named) = request.partition_key(container) {
        scope = scope.named(named.cloned().map_err(ApiError::bad_request)?);
    }
    Ok(scope)
}

fn gone(message: String) -> ApiError {
    ApiError::new(StatusCode::GONE, message).substatus(1002)
}

/// The range of effective partition keys that the headers name, if they do.
pub(super) fn effective_range(request: &Request) -> Result<Option<(String, String)>, ApiError> {
    let (start, end) = (
        request.header("x-ms-start-epk"),
        request.header("x-ms-end-epk"),
    );
    if start.is_none() && end.is_none() {
        return Ok(None);
    }
    if let Some(kind) = request.header("x-ms-read-key-type")
        && kind != "EffectivePartitionKeyRange"
    {
        return Err(ApiError::bad_request(format!(
            "x-ms-read-key-type {kind:?} does not go with a range; EffectivePartitionKeyRange does"
        )));
    }
    Ok(Some((
        effective_key(start.unwrap_or(epk::FIRST))?,
        effective_key(end.unwrap_or(epk::END))?,
    )))
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

/// A key as a continuation.
pub(super) fn encode_key(key: &ItemKey) -> String {
    let parts = [&key.partition.epk, &key.partition.value, &key.id];
    URL_SAFE_NO_PAD.encode(json!(parts).to_string())
}

pub(super) fn decode_key(text: &str) -> Result<ItemKey, ApiError> {
    let parts = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<[Arc<str>; 3]>(&bytes).ok());
    let [epk, value, id] = parts
        .ok_or_else(|| ApiError::bad_request("the continuation is not one of this container's"))?;
    Ok(ItemKey {
        partition: PartitionKey::new(epk, value),
        id,
    })
}
