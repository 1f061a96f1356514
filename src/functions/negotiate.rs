//! `POST /api/negotiate`: where a browser finds its region's SignalR, and a token for it.
//!
//! The client asks `<base>/negotiate`, gets `{"url", "accessToken"}` and negotiates again with the service itself
//! (`@microsoft/signalr`). The input binding `connectionInfo` makes both; they are passed on and never logged.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{InvokeError, refuse, respond};
use crate::{invocation::Invocation, problem::Problem, telemetry::InvocationSpan};

/// What the client needs; what else a newer binding adds is left out.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionInfo<'a> {
    #[serde(borrow)]
    url: &'a RawValue,
    #[serde(borrow)]
    access_token: &'a RawValue,
}

pub(super) fn invoke(body: &[u8], span: &mut InvocationSpan<'_>) -> Result<Vec<u8>, InvokeError> {
    let invocation = Invocation::parse(body)?;
    let Some(info) = invocation.structured("connectionInfo") else {
        let problem = Problem::new(
            503,
            "No SignalR",
            "This region has no connection to a SignalR Service: set AzureSignalRConnectionString.",
        );
        return refuse(&problem, span);
    };
    respond(200, &info.read::<ConnectionInfo<'_>>()?)
}
