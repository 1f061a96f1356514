//! The change feed in its other mode: all versions that were visible in this region, and deletes.

use std::ops::Bound;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Gateway, Region,
    documents::{MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE, page, scope},
    feed::Continuation,
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    container::Container,
    record::ItemKey,
    replica::{State, Version},
};

impl Gateway {
    pub(super) fn versions(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let scope = scope(request, container)?;
        if request.header("if-modified-since").is_some() {
            return Err(ApiError::bad_request(
                "all versions and deletes can be read from now on or from a continuation, and not from a time",
            ));
        }
        let most = request.page_size(USUAL_PAGE, MAX_PAGE);
        let after = self.position(region, request)?;
        let state = region.replica.read();
        let start = start(after, container, &state)?;
        let mut rows: Vec<String> = Vec::new();
        let mut bytes = 0;
        // Of use in this region only: a version is not found again in another.
        let at = |position| Continuation::here(region.index, position);
        let mut end = at(state.applied);
        if let Some(table) = state.tables.get(&container.number) {
            let mut last = start;
            for (position, version) in table
                .history()
                .range((Bound::Excluded(start), Bound::Unbounded))
            {
                if !scope.contains(&version.record.key.partition) {
                    continue;
                }
                let row = row(container, *position, version);
                bytes += row.len();
                if !rows.is_empty() && (rows.len() >= most || bytes > MAX_PAGE_BYTES) {
                    end = at(last);
                    break;
                }
                rows.push(row);
                last = *position;
            }
        }
        drop(state);
        let reply = if rows.is_empty() {
            Reply::empty(StatusCode::NOT_MODIFIED).header("x-ms-item-count", "0")
        } else {
            page(container, rows.iter().map(String::as_str))
        };
        Ok(reply.header("etag", end.text()))
    }

    /// The position that a client goes on from; `None` when it starts now.
    fn position(&self, region: &Region, request: &Request) -> Result<Option<u64>, ApiError> {
        let text = request.header("if-none-match").ok_or_else(|| {
            ApiError::bad_request(
                "all versions and deletes can be read from now on or from a continuation, and not from the beginning",
            )
        })?;
        if text == "*" {
            return Ok(None);
        }
        let position = self.continuation(text)?.position_if_in(region.index);
        position.map(Some).ok_or_else(|| {
            ApiError::bad_request(
                "the continuation is of another region, which has made versions visible in another order",
            )
        })
    }
}

/// The position after which versions are read.
fn start(after: Option<u64>, container: &Container, state: &State) -> Result<u64, ApiError> {
    let position = after.unwrap_or(state.applied);
    let kept = state.history_start(container.number);
    if position < kept {
        return Err(ApiError::bad_request(format!(
            "the continuation is older than the versions that this region keeps, which start after {kept}"
        )));
    }
    Ok(position)
}

fn row(container: &Container, position: u64, version: &Version) -> String {
    let Version {
        record,
        previous,
        applied_at,
    } = version;
    let operation = match (&record.body, previous) {
        (None, _) => "delete",
        (Some(_), None) => "create",
        (Some(_), Some(_)) => "replace",
    };
    let mut metadata = json!({
        "operationType": operation, "lsn": position, "crts": applied_at,
        "previousImageLSN": previous.unwrap_or_default(), "timeToLiveExpired": record.is_expiry,
    });
    match &record.body {
        Some(body) => format!("{{\"current\":{body},\"metadata\":{metadata}}}"),
        None => {
            metadata["id"] = (*record.key.id).into();
            metadata["partitionKey"] = partition_members(container, &record.key).into();
            format!("{{\"current\":{{}},\"metadata\":{metadata},\"previous\":{{}}}}")
        }
    }
}

/// The partition key value by the names of its members; one that is missing in the item is missing here.
fn partition_members(container: &Container, key: &ItemKey) -> Map<String, Value> {
    // Canonical text is always an array of components.
    let components: Vec<Value> = serde_json::from_str(&key.partition.value).unwrap_or_default();
    let names = container.partition_key.paths.iter();
    names
        .zip(components)
        .filter(|(_, component)| !component.is_object())
        .map(|(path, component)| (path.trim_start_matches('/').to_owned(), component))
        .collect()
}
