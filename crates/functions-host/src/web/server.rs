//! The listening side: connections, CORS, and the way from a request to a function.
//!
//! Order for every request: CORS (a preflight never reaches a function), `/admin/…`, routes in function order, the home page
//! at `/`, 404. Source: `Azure/azure-functions-host: src/WebJobs.Script.WebHost/Middleware`,
//! `Azure/azure-functions-core-tools: src/Cli/func/Actions/HostActions/Startup.cs`. HTTP/1.1 only, as `func start` without a
//! certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use uuid::Uuid;

use super::admin;
use super::request::http_invocation;
use super::response::Shaped;
use crate::host::{Phase, Shared};
use crate::invoker::{Function, TriggerData};
use crate::script_host::ScriptHost;
use crate::trace;

/// Largest request body, in bytes; beyond it 413.
pub const MAX_REQUEST_BYTES: usize = 104_857_600;

/// Connections at one time; further ones wait in the system's queue.
pub const MAX_CONNECTIONS: usize = 4_096;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request waits for a host that is starting, before 503.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(30);

/// Pause after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The responses of this server.
pub(crate) type HostResponse = Response<Full<Bytes>>;

/// Allowed origins of browsers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cors {
    pub(crate) origins: Vec<String>,
    pub(crate) credentials: bool,
}

impl Cors {
    /// The layer; `None` when no origin is configured and therefore no header is sent.
    ///
    /// # Errors
    /// An origin that is no header value; `*` together with credentials.
    pub(crate) fn layer(&self) -> Result<Option<CorsLayer>, String> {
        if self.origins.is_empty() {
            return Ok(None);
        }
        let any = self.origins.iter().any(|origin| origin == "*");
        if any && self.credentials {
            return Err("CORS: `*` cannot be combined with credentials; list the origins".into());
        }
        let origin = if any {
            AllowOrigin::any()
        } else {
            let values: Result<Vec<HeaderValue>, String> = self
                .origins
                .iter()
                .map(|origin| {
                    let plain = origin.trim_end_matches('/');
                    HeaderValue::from_str(plain)
                        .map_err(|_| format!("CORS: {origin:?} is not an origin"))
                })
                .collect();
            AllowOrigin::list(values?)
        };
        Ok(Some(
            CorsLayer::new()
                .allow_origin(origin)
                .allow_headers(AllowHeaders::mirror_request())
                .allow_methods(AllowMethods::mirror_request())
                .allow_credentials(self.credentials),
        ))
    }
}

/// Serves until `stop`, then lets open requests finish until `abort`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    cors: Option<CorsLayer>,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let handle = {
        let shared = shared.clone();
        tower::service_fn(move |request: Request<Incoming>| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(answer(&shared, request).await) }
        })
    };
    let service =
        TowerToHyperService::new(ServiceBuilder::new().option_layer(cors).service(handle));
    let mut protocol = hyper::server::conn::http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);

    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    // Small responses must not wait for an acknowledgement; a failure to say so costs time only.
                    drop(stream.set_nodelay(true));
                    let connection = protocol.serve_connection(TokioIo::new(stream), service.clone());
                    let stop = stop.clone();
                    connections.spawn(async move {
                        let mut connection = std::pin::pin!(connection);
                        let ended = tokio::select! {
                            ended = connection.as_mut() => ended,
                            () = stop.cancelled() => {
                                connection.as_mut().graceful_shutdown();
                                connection.await
                            }
                        };
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(host = %shared.label, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Closed before the wait, so that the port is free for a successor at once.
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let finished = tokio::select! {
        () = drained => true,
        () = abort.cancelled() => false,
    };
    if !finished {
        connections.shutdown().await;
    }
}

/// Binds 127.0.0.1. The address may be reused at once after a stop.
pub(crate) async fn bind(port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> HostResponse {
    if let Some(endpoint) = admin::Endpoint::of(request.uri().path()) {
        return admin::answer(shared, endpoint, request).await;
    }
    let script = match shared.running_script(START_PATIENCE).await {
        Ok(script) => script,
        Err(phase) => {
            let text = match phase {
                Phase::Error(_) => "The function host cannot run this app; see its log.",
                _ => "The function host is not running.",
            };
            return text_response(StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    let mut response = functions(&script, request).await;
    for (name, value) in &script.host_json.custom_headers {
        if !response.headers().contains_key(name) {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}

async fn functions(script: &Arc<ScriptHost>, request: Request<Incoming>) -> HostResponse {
    let (parts, body) = request.into_parts();
    let Some((function, values)) = script.route(parts.method.as_str(), parts.uri.path()) else {
        return if parts.uri.path() == "/" {
            home(script)
        } else {
            empty(StatusCode::NOT_FOUND)
        };
    };
    if function.definition.disabled {
        return empty(StatusCode::NOT_FOUND);
    }
    let _outstanding = match &script.outstanding {
        None => None,
        Some(limit) => match limit.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => return empty(StatusCode::TOO_MANY_REQUESTS),
        },
    };
    let body = match read_body(&parts.headers, body).await {
        Ok(body) => body,
        Err(status) => return empty(status),
    };
    let invocation = match http_invocation(&function.definition.name, &parts, &body, &values) {
        Ok(invocation) => invocation,
        Err(error) => {
            tracing::error!(function = function.definition.name, %error, "cannot describe the request");
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let trigger = TriggerData {
        value: invocation.request,
        binding_data: invocation.binding_data,
        reason: "This function was programmatically called via the host APIs.",
        caller: trace::of_caller(&parts.headers),
    };
    // A task of its own: a client that hangs up does not cancel what it started.
    let run = run(script.clone(), function.clone(), trigger);
    match script.running.spawn(run).await {
        Ok(Some(shaped)) => {
            let mut response = Response::new(Full::new(shaped.body));
            *response.status_mut() = shaped.status;
            *response.headers_mut() = shaped.headers;
            response
        }
        // The reason is in the log; the caller learns nothing, as from the real host.
        Ok(None) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        Err(error) => {
            tracing::error!(%error, "an invocation ended abnormally");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// One attempt, within `maxConcurrentRequests`. `None` = it failed; the log says why.
pub(crate) async fn run(
    script: Arc<ScriptHost>,
    function: Arc<Function>,
    trigger: TriggerData,
) -> Option<Shaped> {
    let _permit = match &script.concurrent {
        None => None,
        Some(limit) => Some(limit.acquire().await.ok()?),
    };
    let invoker = script.invoker.clone()?;
    Box::pin(invoker.attempt(&function, Uuid::new_v4(), &trigger, None))
        .await
        .ok()
}

/// The body of a request with `Content-Length`. A chunked body is not read, as by the real host.
pub(crate) async fn read_body(
    headers: &http::HeaderMap,
    body: Incoming,
) -> Result<Bytes, StatusCode> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok())
        .unwrap_or(0);
    if length == 0 {
        return Ok(Bytes::new());
    }
    if length > MAX_REQUEST_BYTES as u64 || body.size_hint().lower() > MAX_REQUEST_BYTES as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn home(script: &ScriptHost) -> HostResponse {
    if script.home_page_disabled() {
        return empty(StatusCode::NO_CONTENT);
    }
    let mut response = text_response(
        StatusCode::OK,
        "<!DOCTYPE html>\n<html><head><title>Functions host</title></head><body><h1>The functions host is up and running</h1></body></html>\n",
    );
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

pub(crate) fn empty(status: StatusCode) -> HostResponse {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

pub(crate) fn text_response(status: StatusCode, text: &'static str) -> HostResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wild_card_and_credentials_exclude_each_other() {
        let cors = |origins: &[&str], credentials| {
            Cors {
                origins: origins.iter().map(|&origin| origin.into()).collect(),
                credentials,
            }
            .layer()
        };
        assert!(cors(&["*"], true).is_err());
        assert!(cors(&["http://a\n"], false).is_err());
        assert!(matches!(cors(&["*"], false), Ok(Some(_))));
        assert!(matches!(cors(&["http://a"], true), Ok(Some(_))));
        assert!(matches!(cors(&[], false), Ok(None)));
    }
}
