//! The conflict feed: versions that have lost, of containers that leave conflicts to their users.
//!
//! A conflict is there as long as nobody has written the item with knowledge of both versions, and nobody has let go of
//! the loser. What regions have not replaced is the same everywhere once links are open, and so is the conflict feed.

use std::{ops::Bound, sync::Arc};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Gateway, Region,
    documents::{partition, scope},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    container::Container,
    partition_key::PartitionKey,
    record::Record,
    replica::{Change, MAX_REGIONS, Step, Transaction},
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

fn view(container: &Container, loser: &Record) -> Value {
    let ordinal = loser.number * MAX_REGIONS + loser.origin as u64;
    let rid = container.conflict_rid(ordinal);
    let operation = match &loser.body {
        None => "delete",
        // An item's ordinal is that of the record that created it.
        Some(_) if loser.ordinal == ordinal => "create",
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
        let all = self.losers(region, request, container)?;
        let all = all.iter().map(|loser| view(container, loser));
        let conflicts: Vec<Value> = match request.method {
            Method::GET | Method::HEAD => all.collect(),
            Method::POST => self.parse(request)?.execute(all)?,
            _ => {
                return Err(ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{} is not an operation of conflicts", request.method),
                ));
            }
        };
        let count = conflicts.len();
        let body = json!({"_rid": container.rid(), "Conflicts": conflicts, "_count": count});
        Ok(Reply::json(StatusCode::OK, &body).header("x-ms-item-count", count.to_string()))
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
                let losers = self.losers(region, request, container)?;
                let loser = losers
                    .iter()
                    .find(|loser| conflict_id(loser) == id)
                    .ok_or_else(missing)?;
                Ok(Reply::json(StatusCode::OK, &view(container, loser))
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

    fn losers(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
    ) -> Result<Vec<Arc<Record>>, ApiError> {
        let scope = scope(request, container)?;
        if !container.keeps_conflicts {
            return Ok(Vec::new());
        }
        let state = region.replica.read();
        let items = state
            .tables
            .get(&container.number)
            .into_iter()
            .flat_map(|table| scope.items(table, Bound::Unbounded));
        Ok(items
            .flat_map(|(_, item)| item.losers().into_iter().cloned())
            .collect())
    }
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
