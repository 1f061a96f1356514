//! Batches, in JSON: many operations in one request, either all or none, or each on its own.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Gateway,
    documents::{charge_of, check_partition, partition, patch, replacement, whole_key},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    charge,
    container::Container,
    document::Document,
    partition_key::PartitionKey,
    replica::{Change, Outcome, Step, Transaction},
};

/// Operations of one batch, at the most.
const MAX_OPERATIONS: usize = 100;

/// First byte of the binary form in which the .NET SDK sends batches.
const HYBRID_ROW: u8 = 0x81;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_type: String,
    id: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    resource_body: Option<Value>,
    /// As in the header; only where each operation is on its own.
    partition_key: Option<String>,
}

impl Operation {
    fn step(self, container: &Container) -> Result<Step, ApiError> {
        let Self {
            operation_type,
            id,
            if_match,
            if_none_match,
            resource_body,
            ..
        } = self;
        let id = id.ok_or_else(|| {
            ApiError::bad_request(format!("the operation {operation_type} needs an id"))
        });
        let body = resource_body.ok_or_else(|| {
            ApiError::bad_request(format!(
                "the operation {operation_type} needs a resourceBody"
            ))
        });
        let change = match operation_type.as_str() {
            "Create" => Change::Create(document(body?)?),
            "Upsert" => Change::Upsert(document(body?)?),
            "Replace" => replacement(document(body?)?, &id?)?,
            "Patch" => Change::Patch {
                id: id?,
                patch: patch(body?, container)?,
            },
            "Read" => Change::Read { id: id? },
            "Delete" => Change::Delete { id: id? },
            other => {
                return Err(ApiError::bad_request(format!(
                    "the operation {other:?} is none of Create, Upsert, Replace, Patch, Read, Delete"
                )));
            }
        };
        Ok(Step {
            change,
            if_match,
            only_if_missing: if_none_match.as_deref() == Some("*"),
        })
    }
}

fn document(body: Value) -> Result<Document, ApiError> {
    let members: Map<String, Value> = serde_json::from_value(body)
        .map_err(|_| ApiError::bad_request("a resourceBody has to be a JSON object"))?;
    Ok(Document::new(members)?)
}

/// A batch's answer, operation by operation.
struct Results {
    rows: Vec<Value>,
    charge: f64,
    failed: bool,
    minimal: bool,
}

impl Results {
    fn ok(&mut self, is_write: bool, status: StatusCode, outcome: &Outcome) {
        let record = &outcome.record;
        let size = record.body.as_ref().map_or(0, String::len);
        let charge = if is_write {
            charge_of(outcome)
        } else {
            charge::read(size)
        };
        let mut row =
            json!({"statusCode": status.as_u16(), "eTag": record.etag, "requestCharge": charge});
        let is_wanted = !(is_write && self.minimal);
        if let Some(body) = record.body.as_deref().filter(|_| is_wanted)
            && let Ok(body) = serde_json::from_str::<Value>(body)
        {
            row["resourceBody"] = body;
        }
        self.charge += charge;
        self.rows.push(row);
    }

    fn error(&mut self, error: &ApiError) {
        let (status, substatus) = error.codes();
        self.failed = true;
        self.charge += charge::LEAST;
        self.rows.push(json!({
            "statusCode": status.as_u16(), "subStatusCode": substatus, "requestCharge": charge::LEAST,
            "message": error.message(),
        }));
    }

    /// An operation that was not carried out because of another.
    fn dependent(&mut self) {
        self.rows.push(json!({
            "statusCode": StatusCode::FAILED_DEPENDENCY.as_u16(), "requestCharge": 0,
        }));
    }

    fn reply(self) -> Reply {
        let status = if self.failed {
            StatusCode::MULTI_STATUS
        } else {
            StatusCode::OK
        };
        Reply::json(status, &Value::Array(self.rows)).charge(self.charge)
    }
}

/// What an operation answers when it succeeds: whether it writes, and the status.
fn success(change: &Change, created: bool) -> (bool, StatusCode) {
    match change {
        Change::Read { .. } => (false, StatusCode::OK),
        Change::Create(_) => (true, StatusCode::CREATED),
        Change::Upsert(_) if created => (true, StatusCode::CREATED),
        Change::Delete { .. } => (true, StatusCode::NO_CONTENT),
        _ => (true, StatusCode::OK),
    }
}

impl Gateway {
    pub(super) async fn batch(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
    ) -> Result<Reply, ApiError> {
        if request.body.first() == Some(&HYBRID_ROW) {
            return Err(ApiError::unsupported(
                "a batch in the binary form of the .NET SDK",
            ));
        }
        let operations: Vec<Operation> =
            serde_json::from_value(request.json()?).map_err(|error| {
                ApiError::bad_request(format!(
                    "the body is not a batch such as [{{\"operationType\":\"Read\",\"id\":\"a\"}}]: {error}"
                ))
            })?;
        if operations.is_empty() || operations.len() > MAX_OPERATIONS {
            return Err(ApiError::bad_request(format!(
                "a batch has 1 to {MAX_OPERATIONS} operations"
            )));
        }
        if operations.iter().any(|it| it.operation_type != "Read") {
            self.check_write(region, request)?;
        }
        self.reach(region, request, container).await?;
        if request.flag("x-ms-cosmos-batch-atomic") {
            self.atomic(region, request, container, operations).await
        } else {
            self.one_by_one(region, request, container, operations)
                .await
        }
    }

    async fn atomic(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
        operations: Vec<Operation>,
    ) -> Result<Reply, ApiError> {
        let partition = partition(request, container)?;
        let count = operations.len();
        let mut results = Results {
            rows: Vec::with_capacity(count),
            charge: 0.0,
            failed: false,
            minimal: request.minimal(),
        };
        let failed = |mut results: Results, at: usize, error: &ApiError| {
            (0..at).for_each(|_| results.dependent());
            results.error(error);
            (at + 1..count).for_each(|_| results.dependent());
            results.reply()
        };
        let mut steps = Vec::with_capacity(count);
        for (at, operation) in operations.into_iter().enumerate() {
            let step = operation.step(container).and_then(|step| {
                check_partition(&step.change, &partition, container)?;
                Ok(step)
            });
            match step {
                Ok(step) => steps.push(step),
                Err(error) => return Ok(failed(results, at, &error)),
            }
        }
        let transaction = Transaction {
            container: Arc::clone(container),
            partition,
            steps: steps.clone(),
        };
        match self.replica(region).transact(transaction).await {
            Ok(outcomes) => {
                for (step, outcome) in steps.iter().zip(&outcomes) {
                    let (is_write, status) = success(&step.change, outcome.created);
                    results.ok(is_write, status, outcome);
                }
                Ok(results.reply())
            }
            Err(rejected) => {
                let at = rejected.step;
                let error = ApiError::from(rejected);
                if error.codes().0.is_server_error() {
                    return Err(error);
                }
                Ok(failed(results, at, &error))
            }
        }
    }

    async fn one_by_one(
        &self,
        region: usize,
        request: &Request,
        container: &Arc<Container>,
        operations: Vec<Operation>,
    ) -> Result<Reply, ApiError> {
        // A range that was split is refused as a whole, so that the client divides the batch anew.
        let scope = super::documents::scope(request, container)?;
        let common = request
            .header("x-ms-documentdb-partitionkey")
            .map(|text| whole_key(text, container))
            .transpose()?;
        let goes_on = request.flag("x-ms-cosmos-batch-continue-on-error");
        let mut results = Results {
            rows: Vec::with_capacity(operations.len()),
            charge: 0.0,
            failed: false,
            minimal: request.minimal(),
        };
        for operation in operations {
            if results.failed && !goes_on {
                results.dependent();
                continue;
            }
            let prepared =
                prepare(operation, common.as_ref(), container).and_then(|(partition, step)| {
                    if scope.contains(&partition) {
                        return Ok((partition, step));
                    }
                    Err(ApiError::new(
                        StatusCode::GONE,
                        "the operation's partition key is not in the range",
                    )
                    .substatus(1002))
                });
            let (partition, step) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    results.error(&error);
                    continue;
                }
            };
            let change = step.change.clone();
            let transaction = Transaction {
                container: Arc::clone(container),
                partition,
                steps: vec![step],
            };
            match self.replica(region).transact(transaction).await {
                Ok(outcomes) => {
                    for outcome in &outcomes {
                        let (is_write, status) = success(&change, outcome.created);
                        results.ok(is_write, status, outcome);
                    }
                }
                Err(rejected) => results.error(&rejected.into()),
            }
        }
        Ok(results.reply())
    }
}

fn prepare(
    operation: Operation,
    common: Option<&PartitionKey>,
    container: &Container,
) -> Result<(PartitionKey, Step), ApiError> {
    let partition = match (&operation.partition_key, common) {
        (Some(text), _) => whole_key(text, container)?,
        (None, Some(common)) => common.clone(),
        (None, None) => {
            return Err(ApiError::bad_request(
                "an operation needs a partitionKey when the request has none",
            ));
        }
    };
    let step = operation.step(container)?;
    check_partition(&step.change, &partition, container)?;
    Ok((partition, step))
}
