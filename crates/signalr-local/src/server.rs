//! The listener: CORS, tokens, and routing by raw path, because ids in paths may hold encoded slashes and literal
//! segments begin with a colon.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{FromRequestParts as _, Request, WebSocketUpgrade},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::service_fn;
use tracing::{debug, warn};

use crate::{
    client,
    hub::{Hubs, Identity},
    rest::{self, Api, NoCall},
    token::Keys,
};

/// Largest message of a client that the WebSocket layer puts together, in bytes.
const MAX_FRAME: usize = 2 * 1024 * 1024;

/// What requests and connections share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) keys: Arc<Keys>,
    /// `http://127.0.0.1:8888`
    pub(crate) endpoint: Arc<str>,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) stop: CancellationToken,
    connections: TaskTracker,
    warned: Arc<AtomicBool>,
}

impl Context {
    pub(crate) fn new(
        keys: Keys,
        endpoint: String,
        hubs: Arc<Hubs>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            keys: Arc::new(keys),
            endpoint: endpoint.into(),
            hubs,
            stop,
            connections: TaskTracker::new(),
            warned: Arc::default(),
        }
    }

    /// Says, once, that what clients invoke goes nowhere.
    pub(crate) fn warn_of_upstream(&self, target: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn!(
                target,
                "a client has invoked a hub method; this local service has no upstream, so it is not carried out"
            );
        }
    }
}

/// Serves until told to stop, and until all clients have been told.
pub(crate) async fn serve(listener: TcpListener, context: Context) {
    let stop = context.stop.clone();
    let connections = context.connections.clone();
    let service = service_fn(move |request: Request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(route(context, request).await) }
    });
    let app = Router::new().fallback_service(service);
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(cause) = served {
        warn!(%cause, "the SignalR listener failed");
    }
    connections.close();
    connections.wait().await;
}

/// An error as the service words it: `{"code", "message"}`.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"code": code, "message": message}))).into_response()
}

fn unauthorized(cause: &crate::token::Refused) -> Response {
    debug!(%cause, "token refused");
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "the access token is missing or not good for this request",
    );
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn route(context: Context, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let cors = Cors::of(&parts.headers);
    if parts.method == Method::OPTIONS {
        return cors.preflight();
    }
    let path = parts.uri.path().to_owned();
    // Empty segments inside stay: an empty name has to be refused, not to be skipped.
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let lower: Vec<String> = segments
        .iter()
        .take(3)
        .map(|segment| segment.to_ascii_lowercase())
        .collect();
    let response = match lower
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["client"] => open(context, &mut parts).await,
        ["client", "negotiate"] => negotiate(&context, &parts),
        ["api", "health"] | ["api", "v1", "health"] => StatusCode::OK.into_response(),
        ["api", "hubs", ..] if segments.len() > 2 => {
            data_plane(&context, Api::Dated, &parts, body, &segments[2..]).await
        }
        ["api", "v1", "hubs"] if segments.len() > 3 => {
            data_plane(&context, Api::V1, &parts, body, &segments[3..]).await
        }
        ["server"] => {
            warn!(
                "a server connection was refused: this is a serverless service; use the Transient transport type"
            );
            error(
                StatusCode::NOT_FOUND,
                "Serverless",
                "this is a serverless service: it takes no server connections",
            )
        }
        _ => error(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there is nothing at this path",
        ),
    };
    cors.apply(response)
}

/// Query parameters of `/client`, the first of each name.
struct ClientQuery {
    hub: String,
    id: Option<String>,
    access_token: Option<String>,
    negotiate_version: Option<String>,
}

impl ClientQuery {
    fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut hubs, mut id, mut access_token, mut version) = (Vec::new(), None, None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.to_ascii_lowercase().as_str() {
                "hub" => hubs.push(value.into_owned()),
                "id" => id = Some(value.into_owned()),
                // The last one counts: a client that reconnects through a redirect appends.
                "access_token" => access_token = Some(value.into_owned()),
                "negotiateversion" => version = version.or(Some(value.into_owned())),
                _ => {}
            }
        }
        let hub = match hubs.as_slice() {
            [hub] if is_hub(hub) => hub.to_lowercase(),
            [_] => return Err("hub has to be a letter, then up to 127 letters, digits or _`,.[]"),
            [] => return Err("the query parameter hub is missing"),
            _ => return Err("the query parameter hub stands more than once"),
        };
        Ok(Self {
            hub,
            id,
            access_token,
            negotiate_version: version,
        })
    }
}

fn is_hub(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_`,.[]".contains(c))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn negotiate(context: &Context, parts: &Parts) -> Response {
    if parts.method != Method::POST {
        return error(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "negotiate is a POST",
        );
    }
    let query = match ClientQuery::parse(parts.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(message) => return error(StatusCode::BAD_REQUEST, "InvalidQuery", message),
    };
    match context.keys.client(bearer(&parts.headers), &query.hub) {
        Ok(user) => match query.negotiate_version.as_deref().unwrap_or("0").parse() {
            Ok(version) => client::negotiate(
                &context.hubs,
                Identity::new(&query.hub, user),
                u32::min(version, 1),
            ),
            // In a 200, as in ASP.NET Core: clients show this text, and of other answers only the status.
            Err(_) => {
                Json(json!({"error": "negotiateVersion has to be a whole number"})).into_response()
            }
        },
        Err(cause) => unauthorized(&cause),
    }
}

/// `GET /client/?hub=…&id=…`: the WebSocket. Clients that have skipped negotiation bring no id.
async fn open(context: Context, parts: &mut Parts) -> Response {
    let query = match ClientQuery::parse(parts.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(message) => return error(StatusCode::BAD_REQUEST, "InvalidQuery", message),
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) => upgrade
            .max_message_size(MAX_FRAME)
            .max_frame_size(MAX_FRAME),
        Err(_) => {
            return error(
                StatusCode::BAD_REQUEST,
                "UnsupportedTransport",
                "this local service has the WebSockets transport only, as negotiate says",
            );
        }
    };
    let token = bearer(&parts.headers).or(query.access_token.as_deref());
    let user = match context.keys.client(token, &query.hub) {
        Ok(user) => user,
        Err(cause) => return unauthorized(&cause),
    };
    let identity = match &query.id {
        None => Identity::new(&query.hub, user),
        Some(id) => match context
            .hubs
            .redeem(id)
            .filter(|identity| identity.hub == query.hub)
        {
            Some(identity) => identity,
            None => {
                return error(
                    StatusCode::NOT_FOUND,
                    "NoSuchConnection",
                    "no connection with this id was negotiated",
                );
            }
        },
    };
    let connections = context.connections.clone();
    upgrade
        .on_upgrade(move |socket| connections.track_future(client::run(socket, identity, context)))
}

async fn data_plane(
    context: &Context,
    api: Api,
    parts: &Parts,
    body: Body,
    segments: &[&str],
) -> Response {
    if let Err(cause) = context.keys.rest(bearer(&parts.headers), parts.uri.path()) {
        return unauthorized(&cause);
    }
    let decoded = segments.iter().map(|segment| {
        percent_decode_str(segment)
            .decode_utf8()
            .map(|text| text.into_owned())
    });
    let Ok(mut segments) = decoded.collect::<Result<Vec<String>, _>>() else {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidPath",
            "the path is not UTF-8",
        );
    };
    let query = rest::Query::parse(parts.uri.query().unwrap_or_default());
    let mut hub = segments.remove(0).to_lowercase();
    let application = query.application.as_deref();
    if !is_hub(&hub) || !application.is_none_or(is_hub) {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidHub",
            "a hub, and an application, is a letter, then up to 127 letters, digits or _`,.[]",
        );
    }
    if let Some(application) = application {
        hub = format!("{}_{hub}", application.to_lowercase());
    }
    if segments.iter().any(String::is_empty) {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidPath",
            "the path has an empty name in it",
        );
    }
    let call = match rest::call(&parts.method, &segments) {
        Ok(call) => call,
        Err(NoCall::NotFound) => {
            return error(
                StatusCode::NOT_FOUND,
                "NotFound",
                "there is no such operation",
            );
        }
        Err(NoCall::NotImplemented(what)) => {
            return error(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                &format!("{what} is not supported by this local service"),
            );
        }
    };
    let Ok(body) = to_bytes(body, rest::MAX_BODY).await else {
        return error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TooLarge",
            "a message has at most 1 MiB",
        );
    };
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    rest::answer(context, api, &hub, call, query, content_type, &body)
}

/// Browsers send credentials, so origins and headers are echoed: with credentials a `*` means nothing.
struct Cors {
    origin: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

impl Cors {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            origin: headers.get(header::ORIGIN).cloned(),
            headers: headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        }
    }

    fn preflight(self) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("600"),
        );
        if let Some(asked) = self.headers.clone() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        self.apply(response)
    }

    fn apply(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(
            header::VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Headers"),
        );
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        response
    }
}
