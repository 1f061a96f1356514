//! `GET /api/ReadAPI/{deviceId}`: the newest materialized documents of a device, newest first, at most [`MAX_ROWS`].
//!
//! The input binding `rows` delivers them. A materialized document is the maximum of one feed batch, so with enough
//! batches the maximum of all time is older than the newest twenty. The binding `maximum` delivers that document, and it
//! takes the last place if it is not among the others: whoever takes the largest `maxValue` of the answer has the
//! device's true maximum.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{InvokeError, refuse, respond};
use crate::{
    invocation::{HttpRequest, Invocation, InvocationError},
    problem::Problem,
    telemetry::InvocationSpan,
};

/// Most documents in one answer; the query of the binding `rows` says the same.
pub const MAX_ROWS: usize = 20;

/// A materialized document, passed on as it is but for system properties.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    max_value: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    region: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    time: Option<&'a RawValue>,
}

impl Row<'_> {
    fn is(&self, other: &Row<'_>) -> bool {
        self.id.map(RawValue::get) == other.id.map(RawValue::get)
    }
}

pub(super) fn invoke(body: &[u8], span: &mut InvocationSpan<'_>) -> Result<Vec<u8>, InvokeError> {
    let invocation = Invocation::parse(body)?;
    let rows = invocation.structured("rows");
    let maximum = invocation.structured("maximum");
    let mut rows: Vec<Row<'_>> = rows
        .as_ref()
        .map(|rows| rows.read())
        .transpose()?
        .unwrap_or_default();
    let maximum: Vec<Row<'_>> = maximum
        .as_ref()
        .map(|rows| rows.read())
        .transpose()?
        .unwrap_or_default();

    rows.truncate(MAX_ROWS);
    if let Some(maximum) = maximum.first()
        && !rows.iter().any(|row| row.is(maximum))
    {
        // It is older than all others, so the order stays.
        rows.truncate(MAX_ROWS - 1);
        rows.push(*maximum);
    }
    if rows.is_empty() {
        let request = invocation
            .structured("req")
            .ok_or(InvocationError::Missing("req"))?;
        let request: HttpRequest<'_> = request.read()?;
        let device = request
            .param("deviceId")
            .map_or(Cow::Borrowed("this name"), |id| {
                Cow::Owned(format!("`{id}`"))
            });
        let problem = Problem::new(
            404,
            "Unknown device",
            format!("No event of a device {device} has been materialized in this region yet."),
        );
        return refuse(&problem, span);
    }
    respond(200, &rows)
}
