//! The conflict feed: versions that have lost, of containers that leave conflicts to their users.
//!
//! A conflict is there as long as nobody has written the item with knowledge of both versions, and nobody has let go of
//! the loser. What regions have not replaced is the same everywhere once links are open, and so is the conflict feed.

use std::{ops::Bound, sync::Arc};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Gateway, Region,
    documents::{MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE, decode_key, encode_key, partition, scope},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    container::Container,
    partition_key::PartitionKey,
    record::{ItemKey, Record},
    replica::{Change, MAX_REGIONS, Step, Transaction},
    scope::Scope,
};

/// Name of the conflict about a version that has lost.
fn conflict_id(loser: &Record) -> String {
    format!("{}-{}-{}", loser.origin, loser.number, loser.key.id)
}

/// Region and number of the record that the name is about, and the item's id.
fn parse_id(id: &str) -> Option<((usize, u64), String)> {
    let mut parts = id.splitn(3, '-');
    let loser = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((loser, parts.next()?.to_owned()))
}

/// By which resource ids tell mutations apart.
fn ordinal(origin: usize, number: u64) -> u64 {
    number * MAX_REGIONS + origin as u64
}

fn view(container: &Container, loser: &Record) -> Value {
    let rid = container.conflict_rid(ordinal(loser.origin, loser.number));
    let operation = match &loser.body {
        None => "delete",
        // An item's ordinal is that of the mutation that created it.
        Some(_) if loser.ordinal == ordinal(loser.mutation().origin, loser.mutation().number) => {
            "create"
        }
        Some(_) => "replace",
    };
    json!({
        "id": conflict_id(loser), "_rid": rid, "_self": format!("{}conflicts/{rid}/", container.self_link()),
        "_etag": loser.etag, "_ts": loser.ts, "operationType": operation, "resourceType": "document",
        "resourceId": container.item_rid(loser.ordinal), "conflict_lsn": loser.number,
        "content": loser.body.clone().unwrap_or_default(),
    })
}

fn missing() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is no such conflict")
}

impl Gateway {
    /// `…/conflicts`
    pub(super) fn conflicts(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let view = |loser: Arc<Record>| view(container, &loser);
        let (conflicts, next): (Vec<Value>, _) = match request.method {
            Method::GET | Method::HEAD => {
                let scope = scope(request, container)?;
                let after = request.header("x-ms-continuation").map(decode_key);
                let after = after.transpose()?;
                let most = request.page_size(USUAL_PAGE, MAX_PAGE);
                let (losers, next) = read_losers(
                    region,
                    container,
                    &scope,
                    after.as_ref(),
                    most,
                    MAX_PAGE_BYTES,
                );
                (losers.into_iter().map(view).collect(), next)
            }
            Method::POST => {
                let all = losers(region, request, container)?.into_iter().map(view);
                (self.parse(request)?.execute(all)?, None)
            }
            _ => {
                return Err(ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{} is not an operation of conflicts", request.method),
                ));
            }
        };
        let count = conflicts.len();
        let body = json!({"_rid": container.rid(), "Conflicts": conflicts, "_count": count});
        let reply = Reply::json(StatusCode::OK, &body).header("x-ms-item-count", count.to_string());
        Ok(match next {
            Some(last) => reply.header("x-ms-continuation", encode_key(&last)),
            None => reply,
        })
    }

    /// `…/conflicts/{id}`
    pub(super) async fn conflict(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        id: &str,
    ) -> Result<Reply, ApiError> {
        let partition = partition(request, container)?;
        match request.method {
            Method::GET | Method::HEAD => {
                let loser = loser(region, container, partition, id).ok_or_else(missing)?;
                Ok(Reply::json(StatusCode::OK, &view(container, &loser))
                    .header("etag", loser.etag.clone()))
            }
            Method::DELETE => {
                self.dismiss(region, request, container, partition, id)
                    .await
            }
            _ => Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not an operation of a conflict", request.method),
            )),
        }
    }

    async fn dismiss(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        partition: PartitionKey,
        id: &str,
    ) -> Result<Reply, ApiError> {
        self.check_write(region, request)?;
        if !container.keeps_conflicts {
            return Err(missing());
        }
        let (loser, id) = parse_id(id).ok_or_else(missing)?;
        let transaction = Transaction {
            container: Arc::clone(container),
            partition,
            steps: vec![Step::new(Change::Dismiss { id, loser })],
        };
        let made = region.replica.transact(transaction).await;
        made.map_err(|rejected| region.refusal(rejected.error))?;
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    }
}

/// The version that has lost which a conflict is about.
fn loser(
    region: &Region,
    container: &Container,
    partition: PartitionKey,
    conflict: &str,
) -> Option<Arc<Record>> {
    let (name, id) = parse_id(conflict).filter(|_| container.keeps_conflicts)?;
    let id = id.into();
    let state = region.replica.read();
    let item = state.item(container.number, &ItemKey { partition, id })?;
    let mut losers = item.losers().into_iter();
    losers
        .find(|record| (record.origin, record.number) == name)
        .cloned()
}

/// All versions in the scope of a request that have lost.
fn losers(
    region: &Region,
    request: &Request,
    container: &Container,
) -> Result<Vec<Arc<Record>>, ApiError> {
    let scope = scope(request, container)?;
    Ok(read_losers(region, container, &scope, None, usize::MAX, usize::MAX).0)
}

/// Versions that have lost, behind an item, and the item to go on behind where there are more. Those of an item come
/// together, so there can be more than are asked for: one for each other region.
fn read_losers(
    region: &Region,
    container: &Container,
    scope: &Scope,
    after: Option<&ItemKey>,
    most: usize,
    most_bytes: usize,
) -> (Vec<Arc<Record>>, Option<ItemKey>) {
    let mut losers: Vec<Arc<Record>> = Vec::new();
    if !container.keeps_conflicts {
        return (losers, None);
    }
    let state = region.replica.read();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let table = state.tables.get(&container.number).into_iter();
    let mut bytes = 0;
    for (_, item) in table.flat_map(|table| scope.items(table, from)) {
        let more = item.losers();
        let texts = more.iter().filter_map(|loser| loser.body.as_ref());
        bytes += texts.map(String::len).sum::<usize>();
        if !more.is_empty()
            && let Some(last) = losers.last()
            && (losers.len() >= most || bytes > most_bytes)
        {
            let last = last.key.clone();
            return (losers, Some(last));
        }
        losers.extend(more.into_iter().cloned());
    }
    (losers, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_record() {
        assert_eq!(parse_id("2-17-a-b"), Some(((2, 17), "a-b".to_owned())));
        for bad in ["", "2-17", "x-1-a", "1-x-a"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
