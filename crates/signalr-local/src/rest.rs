//! The data plane: `/api/hubs/{hub}/…` and, for older SDKs, `/api/v1/hubs/{hub}/…`.
//!
//! Source: the swagger files of Azure SignalR Service's REST API, and `Azure/azure-signalr:
//! src/Microsoft.Azure.SignalR.Management/RestHubLifetimeManager.cs` for the error header that its SDK relies on.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    hub::{Full, Hubs, Recipients},
    protocol,
    server::{Context, error},
    token,
};

/// Largest body of a send, in bytes (the service's documented limit of a message).
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Longest name of a group, in characters.
const MAX_GROUP: usize = 1024;

/// Longest membership of a user in a group, in seconds: the service documents one year.
const MAX_TTL: u64 = 365 * 24 * 60 * 60;

/// Which of the two APIs a path belongs to; they differ in paths and in some status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `/api/v1/hubs/…`
    V1,
    /// `/api/hubs/…?api-version=…`
    Dated,
}

impl Api {
    fn status(self, v1: StatusCode, dated: StatusCode) -> Response {
        match self {
            Self::V1 => v1,
            Self::Dated => dated,
        }
        .into_response()
    }
}

/// A call of the data plane, read from its method and path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Send(Recipients),
    Close(Recipients),
    CloseConnection(String),
    Exists(Recipients),
    Join {
        connection: String,
        group: String,
    },
    Leave {
        connection: String,
        group: Option<String>,
    },
    JoinUser {
        user: String,
        group: String,
    },
    LeaveUser {
        user: String,
        group: Option<String>,
    },
    UserInGroup {
        user: String,
        group: String,
    },
    ClientToken,
}

/// Why a path is not a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoCall {
    NotFound,
    /// An operation of the real service that is not here.
    NotImplemented(&'static str),
}

/// Reads the (decoded) segments behind the hub.
pub(crate) fn call(method: &Method, segments: &[String]) -> Result<Call, NoCall> {
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let own = |text: &&str| (*text).to_owned();
    match path.as_slice() {
        [.., ":execute"] => return Err(NoCall::NotImplemented(":execute")),
        [.., ":invoke"] => return Err(NoCall::NotImplemented(":invoke")),
        ["connections", _, "streams", ..] => return Err(NoCall::NotImplemented("streams")),
        ["groups", _, "connections"] => {
            return Err(NoCall::NotImplemented("listing the connections of a group"));
        }
        _ => {}
    }
    let read = *method == Method::GET || *method == Method::HEAD;
    let call = match (method.as_str(), path.as_slice()) {
        ("POST", [] | [":send"]) => Call::Send(Recipients::Everyone),
        ("POST", [":generateToken"]) => Call::ClientToken,
        ("POST", [":closeConnections"]) => Call::Close(Recipients::Everyone),
        ("POST", [kind, name] | [kind, name, ":send"]) => Call::Send(recipients(kind, name)?),
        ("POST", [kind @ ("groups" | "users"), name, ":closeConnections"]) => {
            Call::Close(recipients(kind, name)?)
        }
        ("DELETE", ["connections", connection]) => Call::CloseConnection(own(connection)),
        (_, [kind, name]) if read => Call::Exists(recipients(kind, name)?),
        (
            "PUT",
            ["groups", group, "connections", connection]
            | ["connections", connection, "groups", group],
        ) => Call::Join {
            connection: own(connection),
            group: own(group),
        },
        (
            "DELETE",
            ["groups", group, "connections", connection]
            | ["connections", connection, "groups", group],
        ) => Call::Leave {
            connection: own(connection),
            group: Some(own(group)),
        },
        ("DELETE", ["connections", connection, "groups"]) => Call::Leave {
            connection: own(connection),
            group: None,
        },
        ("PUT", ["groups", group, "users", user] | ["users", user, "groups", group]) => {
            Call::JoinUser {
                user: own(user),
                group: own(group),
            }
        }
        ("DELETE", ["groups", group, "users", user] | ["users", user, "groups", group]) => {
            Call::LeaveUser {
                user: own(user),
                group: Some(own(group)),
            }
        }
        ("DELETE", ["users", user, "groups"]) => Call::LeaveUser {
            user: own(user),
            group: None,
        },
        (_, ["groups", group, "users", user] | ["users", user, "groups", group]) if read => {
            Call::UserInGroup {
                user: own(user),
                group: own(group),
            }
        }
        _ => return Err(NoCall::NotFound),
    };
    Ok(call)
}

fn recipients(kind: &str, name: &str) -> Result<Recipients, NoCall> {
    match kind {
        "users" => Ok(Recipients::User(name.to_owned())),
        "groups" => Ok(Recipients::Group(name.to_owned())),
        "connections" => Ok(Recipients::Connection(name.to_owned())),
        _ => Err(NoCall::NotFound),
    }
}

/// Query parameters of the data plane.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Prefix of the hub: an application has hubs of its own.
    pub(crate) application: Option<String>,
    excluded: Vec<String>,
    reason: Option<String>,
    ttl: Option<String>,
    user: Option<String>,
    minutes: Option<String>,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "application" if !value.is_empty() => parsed.application = Some(value.into_owned()),
                "excluded" => parsed.excluded.push(value.into_owned()),
                "reason" => parsed.reason = Some(value.into_owned()),
                "ttl" => parsed.ttl = Some(value.into_owned()),
                "userId" if !value.is_empty() => parsed.user = Some(value.into_owned()),
                "minutesToExpire" => parsed.minutes = Some(value.into_owned()),
                _ => {}
            }
        }
        parsed
    }
}

/// Body of a send. The .NET SDK writes the names in Pascal case, everybody else in camel case.
#[derive(Deserialize)]
struct Payload {
    #[serde(alias = "Target")]
    target: String,
    #[serde(alias = "Arguments", default)]
    arguments: Option<Vec<Box<RawValue>>>,
}

/// Carries a call out.
pub(crate) fn answer(
    context: &Context,
    api: Api,
    hub: &str,
    call: Call,
    query: Query,
    content_type: Option<&str>,
    body: &[u8],
) -> Response {
    if let Some(group) = group_of(&call)
        && (group.trim().is_empty() || group.chars().count() > MAX_GROUP)
    {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidGroup",
            "a group has 1 to 1024 characters, not only white space",
        );
    }
    let hubs = &context.hubs;
    match call {
        Call::ClientToken => client_token(context, hub, &query),
        Call::Send(to) => send(hubs, hub, &to, &query, content_type, body),
        Call::Close(who) => {
            hubs.close(hub, &who, &query.excluded, query.reason);
            StatusCode::NO_CONTENT.into_response()
        }
        Call::CloseConnection(connection) => {
            hubs.close(hub, &Recipients::Connection(connection), &[], query.reason);
            api.status(StatusCode::ACCEPTED, StatusCode::OK)
        }
        Call::Exists(who) => {
            let missing = match &who {
                Recipients::User(_) => "Warning.User.NotExisted",
                Recipients::Group(_) => "Warning.Group.NotExisted",
                Recipients::Connection(_) | Recipients::Everyone => "Warning.Connection.NotExisted",
            };
            found(hubs.exists(hub, &who), missing)
        }
        Call::Join { connection, group } => match hubs.join(hub, &connection, &group) {
            Ok(joined) => found(joined, "Error.Connection.NotExisted"),
            Err(Full) => full(),
        },
        Call::Leave { connection, group } => found(
            hubs.leave(hub, &connection, group.as_deref()),
            "Error.Connection.NotExisted",
        ),
        Call::JoinUser { user, group } => {
            let Ok(ttl) = query.ttl.as_deref().map(ttl).transpose() else {
                let message = format!("ttl is a number of seconds up to {MAX_TTL}");
                return error(StatusCode::BAD_REQUEST, "InvalidTtl", &message);
            };
            match hubs.join_user(hub, &user, &group, ttl) {
                Ok(()) => api.status(StatusCode::ACCEPTED, StatusCode::OK),
                Err(Full) => full(),
            }
        }
        Call::LeaveUser { user, group } => {
            hubs.leave_user(hub, &user, group.as_deref());
            let v1 = if group.is_some() {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            api.status(v1, StatusCode::NO_CONTENT)
        }
        Call::UserInGroup { user, group } => {
            found(hubs.user_is_in(hub, &user, &group), "Info.User.NotInGroup")
        }
    }
}

/// `{"token": "…"}`
fn client_token(context: &Context, hub: &str, query: &Query) -> Response {
    let Some(minutes) = token::minutes(query.minutes.as_deref()) else {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidMinutesToExpire",
            "minutesToExpire is a number from 1 to 1440",
        );
    };
    let user = query.user.as_deref();
    match context
        .keys
        .for_client(&context.endpoint, hub, user, minutes)
    {
        Ok(token) => Json(json!({"token": token})).into_response(),
        Err(cause) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "TokenNotMade",
            &cause.to_string(),
        ),
    }
}

fn group_of(call: &Call) -> Option<&str> {
    match call {
        Call::Send(Recipients::Group(group))
        | Call::Close(Recipients::Group(group))
        | Call::Exists(Recipients::Group(group)) => Some(group),
        Call::Join { group, .. }
        | Call::JoinUser { group, .. }
        | Call::UserInGroup { group, .. } => Some(group),
        Call::Leave { group, .. } | Call::LeaveUser { group, .. } => group.as_deref(),
        _ => None,
    }
}

fn send(
    hubs: &Hubs,
    hub: &str,
    to: &Recipients,
    query: &Query,
    content_type: Option<&str>,
    body: &[u8],
) -> Response {
    let media_type = content_type
        .unwrap_or("application/json")
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "this local service takes application/json; messages framed for other hub protocols are not supported",
        );
    }
    let payload: Payload = match serde_json::from_slice(body) {
        Ok(payload) => payload,
        Err(cause) => {
            let message = format!(
                "the body is not a message such as {{\"target\":\"…\",\"arguments\":[…]}}: {cause}"
            );
            return error(StatusCode::BAD_REQUEST, "InvalidMessage", &message);
        }
    };
    if payload.target.is_empty() {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidMessage",
            "target must not be empty",
        );
    }
    let message = protocol::invocation(&payload.target, &payload.arguments.unwrap_or_default());
    hubs.send(hub, to, &query.excluded, &message);
    StatusCode::ACCEPTED.into_response()
}

fn ttl(text: &str) -> Result<Duration, Unfit> {
    let seconds: u64 = text.parse().map_err(|_| Unfit)?;
    if seconds > MAX_TTL {
        return Err(Unfit);
    }
    Ok(Duration::from_secs(seconds))
}

/// A `ttl` that is not a number of seconds in the range.
struct Unfit;

/// 503, which the SDK's retry options take for a reason to try again.
fn full() -> Response {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "Full",
        "this local service holds as many hubs or group memberships as it may",
    )
}

/// 200, or 404 with the header that lets the SDK tell "it is not there" from "there is no such operation".
fn found(found: bool, missing: &'static str) -> Response {
    if found {
        return StatusCode::OK.into_response();
    }
    let mut response = error(StatusCode::NOT_FOUND, missing, "it does not exist");
    response
        .headers_mut()
        .insert("x-ms-error-code", HeaderValue::from_static(missing));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn parse(method: &str, path: &str) -> Result<Call, NoCall> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        call(&method.parse().expect("a method"), &segments)
    }

    #[test]
    fn both_generations_of_paths_are_calls() {
        let group = || Recipients::Group("g".into());
        let cases = [
            ("POST", "", Call::Send(Recipients::Everyone)),
            ("POST", ":send", Call::Send(Recipients::Everyone)),
            ("POST", "groups/g", Call::Send(group())),
            ("POST", "groups/g/:send", Call::Send(group())),
            (
                "POST",
                "users/u/:send",
                Call::Send(Recipients::User("u".into())),
            ),
            (
                "POST",
                "connections/c/:send",
                Call::Send(Recipients::Connection("c".into())),
            ),
            ("POST", "groups/g/:closeConnections", Call::Close(group())),
            ("DELETE", "connections/c", Call::CloseConnection("c".into())),
            ("HEAD", "groups/g", Call::Exists(group())),
            (
                "PUT",
                "groups/g/connections/c",
                Call::Join {
                    connection: "c".into(),
                    group: "g".into(),
                },
            ),
            (
                "DELETE",
                "connections/c/groups/g",
                Call::Leave {
                    connection: "c".into(),
                    group: Some("g".into()),
                },
            ),
            (
                "DELETE",
                "connections/c/groups",
                Call::Leave {
                    connection: "c".into(),
                    group: None,
                },
            ),
            (
                "PUT",
                "users/u/groups/g",
                Call::JoinUser {
                    user: "u".into(),
                    group: "g".into(),
                },
            ),
            (
                "GET",
                "users/u/groups/g",
                Call::UserInGroup {
                    user: "u".into(),
                    group: "g".into(),
                },
            ),
            (
                "DELETE",
                "users/u/groups",
                Call::LeaveUser {
                    user: "u".into(),
                    group: None,
                },
            ),
        ];
        for (method, path, expected) in cases {
            assert_eq!(parse(method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn a_group_name_is_counted_in_characters() {
        let status = |length: usize| {
            let call = Call::Exists(Recipients::Group("ü".repeat(length)));
            let context = Context::new(
                token::Keys::new("an-access-key-of-32-characters-..", false),
                "http://127.0.0.1".to_owned(),
                Arc::default(),
                CancellationToken::new(),
            );
            answer(&context, Api::Dated, "h", call, Query::default(), None, b"").status()
        };
        assert_eq!(status(MAX_GROUP), StatusCode::NOT_FOUND);
        assert_eq!(status(MAX_GROUP + 1), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn what_is_missing_is_named_and_nonsense_is_not_found() {
        assert_eq!(
            parse("POST", ":execute"),
            Err(NoCall::NotImplemented(":execute"))
        );
        assert_eq!(
            parse("POST", "connections/c/:invoke"),
            Err(NoCall::NotImplemented(":invoke"))
        );
        for (method, path) in [
            ("GET", ":send"),
            ("POST", "things/x/:send"),
            ("PATCH", "groups/g"),
            ("POST", "a/b/c/d"),
        ] {
            assert_eq!(
                parse(method, path),
                Err(NoCall::NotFound),
                "{method} {path}"
            );
        }
    }
}
