//! `/admin/…`: what tools ask a host. Open to everyone, as under `func start`; no route prefix applies.
//!
//! Source: `Azure/azure-functions-host: src/WebJobs.Script.WebHost/Controllers/HostController.cs`,
//! `…/FunctionsController.cs`, `…/Extensions/FunctionMetadataExtensions.cs`. Key management is not implemented: 501.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::server::{HostResponse, START_PATIENCE, empty, read_body, run, text_response};
use crate::binding::{Encoded, Trigger};
use crate::binding_data::{BindingData, DataValue};
use crate::feed::feed_text;
use crate::host::{Phase, Shared};
use crate::invocation::HOST_VERSION;
use crate::invoker::{Function, TriggerData};
use crate::script_host::ScriptHost;
use crate::trace;

/// The endpoint a path names, segments in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/admin/host/status`
    HostStatus,
    /// `/admin/host/ping`
    Ping,
    /// `/admin/host/restart`
    Restart,
    /// `/admin/host/synctriggers`
    SyncTriggers,
    /// `/admin/host/config`
    Config,
    /// `/admin/functions`
    Functions,
    /// `/admin/functions/{name}`
    Function(String),
    /// `/admin/functions/{name}/status`
    FunctionStatus(String),
    /// Key management.
    Keys,
    /// Anything else below `/admin`.
    Unknown,
}

impl Endpoint {
    /// The endpoint, when `path` is below `/admin`.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let lower = path.trim_matches('/').to_ascii_lowercase();
        let segments: Vec<&str> = lower.split('/').collect();
        let (first, rest) = segments.split_first()?;
        if *first != "admin" {
            return None;
        }
        Some(match rest {
            ["host", "status"] => Self::HostStatus,
            ["host", "ping"] => Self::Ping,
            ["host", "restart"] => Self::Restart,
            ["host", "synctriggers"] => Self::SyncTriggers,
            ["host", "config"] => Self::Config,
            ["host", "keys" | "functionkeys" | "systemkeys", ..] => Self::Keys,
            ["functions"] => Self::Functions,
            ["functions", _, "keys", ..] => Self::Keys,
            ["functions", name] => Self::Function((*name).to_owned()),
            ["functions", name, "status"] => Self::FunctionStatus((*name).to_owned()),
            _ => Self::Unknown,
        })
    }
}

/// `GET /admin/host/status`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostStatusBody<'a> {
    id: &'a str,
    state: &'static str,
    version: &'static str,
    version_details: &'static str,
    instance_id: &'a str,
    computer_name: &'a str,
    process_uptime: u64,
    function_app_content_editing_state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extension_bundle: Option<BundleBody>,
}

#[derive(Serialize)]
struct BundleBody {
    id: String,
    version: String,
}

/// One element of `GET /admin/functions`
#[derive(Serialize)]
struct FunctionBody<'a> {
    name: &'a str,
    script_root_path_href: String,
    script_href: Option<String>,
    config_href: String,
    test_data_href: Option<String>,
    href: String,
    invoke_url_template: Option<String>,
    language: Option<String>,
    config: &'a RawValue,
    files: Option<String>,
    test_data: Option<String>,
    #[serde(rename = "isDisabled")]
    disabled: bool,
    #[serde(rename = "isDirect")]
    direct: bool,
    #[serde(rename = "isProxy")]
    proxy: bool,
}

/// `GET /admin/functions/{name}/status`
#[derive(Serialize)]
struct FunctionStatusBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// `POST /admin/functions/{name}`
#[derive(Deserialize)]
struct ManualRun {
    #[serde(alias = "Input")]
    input: Option<String>,
}

/// Answers a request to an endpoint.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> HostResponse {
    let method = request.method().clone();
    let read = method == Method::GET || method == Method::HEAD;
    match endpoint {
        Endpoint::HostStatus if read => host_status(shared),
        Endpoint::Ping if read || method == Method::POST => empty(StatusCode::OK),
        Endpoint::Restart if method == Method::POST => {
            shared.request_restart();
            empty(StatusCode::OK)
        }
        Endpoint::SyncTriggers if method == Method::POST => {
            json(StatusCode::OK, &serde_json::json!({ "status": "success" }))
        }
        Endpoint::Config if read => {
            with_script(shared, |script| {
                json(StatusCode::OK, &script.host_json.document)
            })
            .await
        }
        Endpoint::Functions if read => {
            with_script(shared, |script| {
                let bodies: Vec<_> = script
                    .functions
                    .iter()
                    .map(|function| function_body(shared, script, function))
                    .collect();
                json(StatusCode::OK, &bodies)
            })
            .await
        }
        Endpoint::Function(name) if read => {
            with_script(shared, |script| match script.function(&name) {
                Some(function) => json(StatusCode::OK, &function_body(shared, script, function)),
                None => empty(StatusCode::NOT_FOUND),
            })
            .await
        }
        Endpoint::Function(name) if method == Method::POST => {
            manual_run(shared, &name, request).await
        }
        Endpoint::FunctionStatus(name) if read => {
            with_script(shared, |script| function_status(script, &name)).await
        }
        Endpoint::Keys => text_response(
            StatusCode::NOT_IMPLEMENTED,
            "This host has no keys: every function can be called without one.",
        ),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

async fn with_script(
    shared: &Arc<Shared>,
    answer: impl FnOnce(&ScriptHost) -> HostResponse,
) -> HostResponse {
    match shared.running_script(START_PATIENCE).await {
        Ok(script) => answer(&script),
        Err(_) => empty(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// Answers in every state, above all when the script root cannot be loaded.
fn host_status(shared: &Shared) -> HostResponse {
    let phase = shared.phase();
    let (errors, bundle) = match &phase {
        Phase::Error(errors) => (errors.clone(), None),
        Phase::Running(script) => (Vec::new(), script.host_json.bundle.clone()),
        Phase::Starting | Phase::Stopping | Phase::Stopped(_) => (Vec::new(), None),
    };
    json(
        StatusCode::OK,
        &HostStatusBody {
            id: &shared.host_id,
            state: phase.state().azure_name(),
            version: HOST_VERSION,
            version_details: concat!("functions-host ", env!("CARGO_PKG_VERSION")),
            instance_id: &shared.instance_id,
            computer_name: &shared.computer_name,
            process_uptime: u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            function_app_content_editing_state: "Unknown",
            errors,
            extension_bundle: bundle.map(|bundle| BundleBody {
                id: bundle.id,
                version: bundle.version,
            }),
        },
    )
}

fn function_body<'a>(
    shared: &Shared,
    script: &ScriptHost,
    function: &'a Function,
) -> FunctionBody<'a> {
    let name = &function.definition.name;
    let base = &shared.url;
    FunctionBody {
        name,
        script_root_path_href: format!("{base}/admin/vfs/{name}/"),
        script_href: None,
        config_href: format!("{base}/admin/vfs/{name}/function.json"),
        test_data_href: None,
        href: format!("{base}/admin/functions/{name}"),
        // Lower case as a whole, like the original.
        invoke_url_template: script
            .infos
            .iter()
            .find(|info| info.name == *name)
            .and_then(|info| info.url.as_ref())
            .map(|url| url.to_lowercase()),
        language: None,
        config: &function.definition.config,
        files: None,
        test_data: None,
        disabled: function.definition.disabled,
        direct: false,
        proxy: false,
    }
}

fn function_status(script: &ScriptHost, name: &str) -> HostResponse {
    let failed: Vec<String> = script
        .failures
        .iter()
        .filter(|failure| failure.name.eq_ignore_ascii_case(name))
        .map(|failure| failure.reason.clone())
        .collect();
    if !failed.is_empty() {
        return json(StatusCode::OK, &FunctionStatusBody { errors: failed });
    }
    match script.function(name) {
        None => empty(StatusCode::NOT_FOUND),
        Some(function) => {
            let trouble = function
                .board
                .as_ref()
                .and_then(|board| board.status().trouble);
            json(
                StatusCode::OK,
                &FunctionStatusBody {
                    errors: trouble.into_iter().collect(),
                },
            )
        }
    }
}

/// 202 at once; what becomes of the run is in the log only. One attempt, no retry policy.
async fn manual_run(shared: &Arc<Shared>, name: &str, request: Request<Incoming>) -> HostResponse {
    let Ok(script) = shared.running_script(START_PATIENCE).await else {
        return empty(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Some(function) = script.function(name).cloned() else {
        return empty(StatusCode::NOT_FOUND);
    };
    let (parts, body) = request.into_parts();
    let body = match read_body(&parts.headers, body).await {
        Ok(body) => body,
        Err(status) => return empty(status),
    };
    let Ok(ManualRun { input }) = serde_json::from_slice(&body) else {
        return text_response(
            StatusCode::BAD_REQUEST,
            "The body must be a JSON object such as {\"input\": \"text\"}.",
        );
    };
    let trigger = match &function.definition.trigger {
        Trigger::Http(_) => {
            tracing::error!(
                function = function.definition.name,
                "an httpTrigger cannot be run without a request; call its URL"
            );
            return empty(StatusCode::ACCEPTED);
        }
        Trigger::Cosmos(cosmos) => {
            let mut binding_data = BindingData::new(&function.definition.name);
            if let Some(input) = &input {
                binding_data.set(&cosmos.name, DataValue::Text(input.clone()));
            }
            let value = match input {
                Some(input) => feed_text(input, script.generation()),
                None => Encoded::Null,
            };
            TriggerData {
                value,
                binding_data,
                reason: "This function was programmatically called via the host APIs.",
                caller: trace::of_caller(&parts.headers),
            }
        }
    };
    let Ok(permit) = script.manual_runs.clone().try_acquire_owned() else {
        return empty(StatusCode::TOO_MANY_REQUESTS);
    };
    let runner = script.clone();
    script.running.spawn(async move {
        // Success and failure alike are in the log.
        drop(run(runner, function, trigger).await);
        drop(permit);
    });
    empty(StatusCode::ACCEPTED)
}

fn json(status: StatusCode, body: &impl Serialize) -> HostResponse {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Full::new(Bytes::from(bytes)));
            *response.status_mut() = status;
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            response
        }
        Err(error) => {
            tracing::error!(%error, "cannot write an admin answer");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_admin_name_endpoints() {
        assert_eq!(
            Endpoint::of("/admin/host/status"),
            Some(Endpoint::HostStatus)
        );
        assert_eq!(Endpoint::of("/Admin/Host/Ping/"), Some(Endpoint::Ping));
        assert_eq!(
            Endpoint::of("/admin/functions/ReadAPI"),
            Some(Endpoint::Function("readapi".into()))
        );
        assert_eq!(
            Endpoint::of("/admin/functions/x/keys"),
            Some(Endpoint::Keys)
        );
        assert_eq!(Endpoint::of("/admin"), Some(Endpoint::Unknown));
        assert_eq!(Endpoint::of("/administer"), None);
        assert_eq!(Endpoint::of("/api/admin/host/status"), None);
        assert_eq!(Endpoint::of("/"), None);
    }
}
