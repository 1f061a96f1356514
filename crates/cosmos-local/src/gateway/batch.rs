//! Batches: many operations in one request, either all or none, or each on its own; in JSON, or in the binary form of the
//! .NET SDK, which is then answered in that form.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Gateway, Region,
    documents::{charge_of, check_partition, partition, patch, replacement, scope, whole_key},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    charge,
    container::Container,
    document::Document,
    hybrid_row::{self, OperationRow, ResultRow},
    partition_key::PartitionKey,
    replica::{Change, Outcome, Step, Transaction},
};

/// Operations of one batch, at the most.
const MAX_OPERATIONS: usize = 100;

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
    /// Whether no body is wanted back.
    #[serde(skip)]
    minimal: bool,
}

impl TryFrom<OperationRow> for Operation {
    type Error = ApiError;

    fn try_from(row: OperationRow) -> Result<Self, ApiError> {
        let operation_type = match row.operation_type {
            0 => "Create",
            1 => "Patch",
            2 => "Read",
            4 => "Delete",
            5 => "Replace",
            20 => "Upsert",
            other => {
                return Err(ApiError::bad_request(format!(
                    "the operation number {other} is none of a batch"
                )));
            }
        };
        Ok(Self {
            operation_type: operation_type.to_owned(),
            id: row.id,
            if_match: row.if_match,
            if_none_match: row.if_none_match,
            resource_body: row.body.map(|body| json_of(&body)).transpose()?,
            partition_key: row.partition_key,
            minimal: row.minimal,
        })
    }
}

/// The operations of a request, in whichever form they came.
fn operations(request: &Request) -> Result<Vec<Operation>, ApiError> {
    let operations: Vec<Operation> = if hybrid_row::is_stream(&request.body) {
        let rows = hybrid_row::decode(&request.body).map_err(ApiError::bad_request)?;
        rows.into_iter()
            .map(Operation::try_from)
            .collect::<Result<_, ApiError>>()?
    } else {
        serde_json::from_value(request.json()?).map_err(|error| {
            ApiError::bad_request(format!(
                "the body is not a batch such as [{{\"operationType\":\"Read\",\"id\":\"a\"}}]: {error}"
            ))
        })?
    };
    if operations.is_empty() || operations.len() > MAX_OPERATIONS {
        return Err(ApiError::bad_request(format!(
            "a batch has 1 to {MAX_OPERATIONS} operations"
        )));
    }
    Ok(operations)
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

fn json_of(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("a resourceBody is not valid JSON: {error}"))
    })
}

/// What matters of an operation once it has been carried out.
#[derive(Clone, Copy)]
struct Sort {
    success: Success,
    minimal: bool,
}

#[derive(Clone, Copy)]
enum Success {
    Creates,
    CreatesOrReplaces,
    Changes,
    Deletes,
    Reads,
}

impl Sort {
    fn of(change: &Change, minimal: bool) -> Self {
        let success = match change {
            Change::Create(_) => Success::Creates,
            Change::Upsert(_) => Success::CreatesOrReplaces,
            Change::Read { .. } => Success::Reads,
            Change::Delete { .. } | Change::Expire { .. } => Success::Deletes,
            Change::Replace(_) | Change::Patch { .. } | Change::Dismiss { .. } => Success::Changes,
        };
        Self { success, minimal }
    }

    /// Whether it is a write, and the status.
    fn success(self, created: bool) -> (bool, StatusCode) {
        match self.success {
            Success::Reads => (false, StatusCode::OK),
            Success::Deletes => (true, StatusCode::NO_CONTENT),
            Success::Creates => (true, StatusCode::CREATED),
            Success::CreatesOrReplaces if created => (true, StatusCode::CREATED),
            Success::CreatesOrReplaces | Success::Changes => (true, StatusCode::OK),
        }
    }
}

/// What became of one operation.
struct Row {
    status: StatusCode,
    substatus: u32,
    etag: Option<String>,
    body: Option<String>,
    message: Option<String>,
    charge: f64,
}

impl Row {
    fn text(&self) -> String {
        let mut row = json!({"statusCode": self.status.as_u16(), "requestCharge": self.charge});
        if self.substatus != 0 {
            row["subStatusCode"] = self.substatus.into();
        }
        if let Some(etag) = &self.etag {
            row["eTag"] = etag.as_str().into();
        }
        if let Some(message) = &self.message {
            row["message"] = message.as_str().into();
        }
        let mut text = row.to_string();
        if let Some(body) = &self.body {
            // It is text already, and what was carried out is not to fail any more.
            text.pop();
            text += &format!(",\"resourceBody\":{body}}}");
        }
        text
    }
}

/// A batch's answer, operation by operation.
struct Results {
    rows: Vec<Row>,
    failed: bool,
    /// Whether no operation's body is wanted back.
    minimal: bool,
    is_binary: bool,
}

impl Results {
    fn of(request: &Request) -> Self {
        Self {
            rows: Vec::new(),
            failed: false,
            minimal: request.minimal(),
            is_binary: hybrid_row::is_stream(&request.body),
        }
    }

    fn ok(&mut self, sort: Sort, outcome: &Outcome) {
        let record = &outcome.record;
        let size = record.body.as_ref().map_or(0, String::len);
        let (is_write, status) = sort.success(outcome.created);
        let is_wanted = !(is_write && (self.minimal || sort.minimal));
        self.rows.push(Row {
            status,
            substatus: 0,
            etag: Some(record.etag.clone()),
            body: record.body.clone().filter(|_| is_wanted),
            message: None,
            charge: if is_write {
                charge_of(outcome)
            } else {
                charge::read(size)
            },
        });
    }

    fn error(&mut self, error: &ApiError) {
        let (status, substatus) = error.codes();
        self.failed = true;
        self.rows.push(Row {
            status,
            substatus,
            etag: None,
            body: None,
            message: Some(error.message().to_owned()),
            charge: charge::LEAST,
        });
    }

    /// An operation that was not carried out because of another.
    fn dependent(&mut self) {
        self.rows.push(Row {
            status: StatusCode::FAILED_DEPENDENCY,
            substatus: 0,
            etag: None,
            body: None,
            message: None,
            charge: 0.0,
        });
    }

    /// A batch of so many operations that failed at one of them.
    fn failed_at(mut self, at: usize, count: usize, error: &ApiError) -> Reply {
        (0..at).for_each(|_| self.dependent());
        self.error(error);
        (at + 1..count).for_each(|_| self.dependent());
        self.reply()
    }

    fn reply(self) -> Reply {
        let status = if self.failed {
            StatusCode::MULTI_STATUS
        } else {
            StatusCode::OK
        };
        let charge = self.rows.iter().map(|row| row.charge).sum();
        let reply = if self.is_binary {
            let rows = self.rows.iter().map(|row| ResultRow {
                status: row.status.as_u16(),
                substatus: row.substatus,
                etag: row.etag.as_deref(),
                // The .NET SDK shows the body of what has failed as the reason.
                body: row.body.as_deref().or(row.message.as_deref()),
                charge: row.charge,
            });
            Reply::new(status, hybrid_row::encode(rows))
        } else {
            let rows: Vec<String> = self.rows.iter().map(Row::text).collect();
            Reply::new(status, format!("[{}]", rows.join(",")))
        };
        reply.charge(charge)
    }
}

impl Gateway {
    pub(super) async fn batch(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
    ) -> Result<Reply, ApiError> {
        let operations = operations(request)?;
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
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        operations: Vec<Operation>,
    ) -> Result<Reply, ApiError> {
        let partition = partition(request, container)?;
        let count = operations.len();
        let mut results = Results::of(request);
        let mut steps = Vec::with_capacity(count);
        let mut sorts = Vec::with_capacity(count);
        for (at, operation) in operations.into_iter().enumerate() {
            let minimal = operation.minimal;
            let step = operation.step(container).and_then(|step| {
                check_partition(&step.change, &partition, container)?;
                Ok(step)
            });
            match step {
                Ok(step) => {
                    sorts.push(Sort::of(&step.change, minimal));
                    steps.push(step);
                }
                Err(error) => return Ok(results.failed_at(at, count, &error)),
            }
        }
        let transaction = Transaction {
            container: Arc::clone(container),
            partition,
            steps,
        };
        match region.replica.transact(transaction).await {
            Ok(outcomes) => {
                for (sort, outcome) in sorts.into_iter().zip(&outcomes) {
                    results.ok(sort, outcome);
                }
                Ok(results.reply())
            }
            // Clients look for another region when the whole request says so.
            Err(rejected) if rejected.error.is_of_the_region() => {
                Err(region.refusal(rejected.error))
            }
            Err(rejected) => Ok(results.failed_at(rejected.step, count, &rejected.error.into())),
        }
    }

    async fn one_by_one(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
        operations: Vec<Operation>,
    ) -> Result<Reply, ApiError> {
        // A range that was split is refused as a whole, so that the client divides the batch anew.
        let scope = scope(request, container)?;
        let common = request
            .header("x-ms-documentdb-partitionkey")
            .map(|text| whole_key(text, container))
            .transpose()?;
        let goes_on = request.flag("x-ms-cosmos-batch-continue-on-error");
        let mut results = Results::of(request);
        for operation in operations {
            if results.failed && !goes_on {
                results.dependent();
                continue;
            }
            let minimal = operation.minimal;
            let prepared = prepare(operation, common.as_ref(), container);
            let (partition, step) = match prepared {
                Ok((partition, _)) if !scope.contains(&partition) => {
                    let message = "the operation's partition key is not in the range";
                    results.error(&ApiError::new(StatusCode::GONE, message).substatus(1002));
                    continue;
                }
                Ok(prepared) => prepared,
                Err(error) => {
                    results.error(&error);
                    continue;
                }
            };
            let sort = Sort::of(&step.change, minimal);
            let transaction = Transaction {
                container: Arc::clone(container),
                partition,
                steps: vec![step],
            };
            match region.replica.transact(transaction).await {
                Ok(outcomes) => outcomes
                    .iter()
                    .for_each(|outcome| results.ok(sort, outcome)),
                Err(rejected) => results.error(&region.refusal(rejected.error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_given_back_whatever_it_is() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let row = Row {
            status: StatusCode::OK,
            substatus: 0,
            etag: Some("\"e\"".into()),
            body: Some(deep.clone()),
            message: None,
            charge: 1.5,
        };
        let expected = format!(
            r#"{{"statusCode":200,"requestCharge":1.5,"eTag":"\"e\"","resourceBody":{deep}}}"#
        );
        assert_eq!(row.text(), expected);
    }
}
