//! What a function hands to a `signalR` output: a message or a group action, and the REST call it
//! becomes.
//!
//! Rules from `Azure/azure-sdk-for-net: sdk/signalr/Microsoft.Azure.WebJobs.Extensions.SignalRService`
//! (`SignalROutputConverter`, `SignalRMessage`, `SignalRGroupAction`) and the routes of
//! `Azure/azure-signalr: src/Microsoft.Azure.SignalR.Management/RestApiProvider.cs`.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// REST API generation that the extension speaks.
pub const API_VERSION: &str = "2022-06-01";

/// Everything but the unreserved characters of RFC 3986, as .NET's `Uri.EscapeDataString` does.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why an item is neither a message nor a group action that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum MessageError {
    /// Neither `target` with `arguments`, nor `action`.
    #[error(
        "an item needs \"target\" and \"arguments\" (a message) or \"action\" (a group action)"
    )]
    NeitherMessageNorAction,
    /// A member has another type than it must have.
    #[error("\"{name}\" must be {expected}")]
    WrongType {
        /// Member name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The action is not one of the three.
    #[error("unknown group action \"{0}\"; known are add, remove and removeAll")]
    UnknownAction(String),
    /// `add` or `remove` without a group.
    #[error("the group action needs \"groupName\"")]
    NoGroup,
    /// A group action without connection and user.
    #[error("the group action needs \"connectionId\" or \"userId\"")]
    NoSubject,
    /// `endpoints` restricts the item to some of several service instances.
    #[error("\"endpoints\" is not supported: one SignalR Service instance per connection setting")]
    Endpoints,
}

/// One call of the REST API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RestCall {
    pub(crate) method: Method,
    /// Path below `/api/hubs/{hub}`, with a leading slash, escaped.
    pub(crate) path: String,
    /// JSON body, for sends.
    pub(crate) body: Option<Value>,
    /// Whether sending it twice is the same as sending it once.
    pub(crate) idempotent: bool,
    /// Whether "this connection does not exist" is as good as success.
    pub(crate) may_miss_connection: bool,
}

/// The calls for one item, in order: one, or none for the one combination that does nothing.
pub(crate) fn call_for(item: &Map<String, Value>) -> Result<Option<RestCall>, MessageError> {
    let item = Item(item);
    if item.get("endpoints").is_some() {
        return Err(MessageError::Endpoints);
    }
    match (
        item.text("target")?,
        item.get("arguments"),
        item.text("action")?,
    ) {
        (Some(target), Some(arguments), _) => message(&item, target, arguments).map(Some),
        (_, _, Some(action)) => group_action(&item, action),
        _ => Err(MessageError::NeitherMessageNorAction),
    }
}

fn message(item: &Item<'_>, target: &str, arguments: &Value) -> Result<RestCall, MessageError> {
    if !arguments.is_array() {
        return Err(MessageError::WrongType {
            name: "arguments",
            expected: "an array, one element per argument",
        });
    }
    let address = if let Some(connection) = item.non_empty("connectionId")? {
        format!("/connections/{}", segment(connection))
    } else if let Some(user) = item.non_empty("userId")? {
        format!("/users/{}", segment(user))
    } else if let Some(group) = item.non_empty("groupName")? {
        format!("/groups/{}", segment(group))
    } else {
        String::new()
    };
    Ok(RestCall {
        method: Method::POST,
        path: format!("{address}/:send"),
        body: Some(json!({ "Target": target, "Arguments": arguments })),
        idempotent: false,
        may_miss_connection: false,
    })
}

fn group_action(item: &Item<'_>, action: &str) -> Result<Option<RestCall>, MessageError> {
    let connection = item.non_empty("connectionId")?;
    let user = item.non_empty("userId")?;
    let method = match action.to_ascii_lowercase().as_str() {
        "add" => Method::PUT,
        "remove" => Method::DELETE,
        "removeall" => {
            return match (connection, user) {
                // The extension does nothing here, without a word.
                (Some(_), _) => Ok(None),
                (None, Some(user)) => Ok(Some(RestCall {
                    method: Method::DELETE,
                    path: format!("/users/{}/groups", segment(user)),
                    body: None,
                    idempotent: true,
                    may_miss_connection: false,
                })),
                (None, None) => Err(MessageError::NoSubject),
            };
        }
        _ => return Err(MessageError::UnknownAction(action.to_owned())),
    };
    let group = segment(item.non_empty("groupName")?.ok_or(MessageError::NoGroup)?);
    let adds = method == Method::PUT;
    let path = match (connection, user) {
        (Some(connection), _) => format!("/groups/{group}/connections/{}", segment(connection)),
        (None, Some(user)) => format!("/users/{}/groups/{group}", segment(user)),
        (None, None) => return Err(MessageError::NoSubject),
    };
    Ok(Some(RestCall {
        method,
        path,
        body: None,
        idempotent: true,
        may_miss_connection: adds && connection.is_some(),
    }))
}

/// Percent-encodes one path segment.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// An item, its members looked up ignoring case, null counting as absent.
struct Item<'a>(&'a Map<String, Value>);

impl<'a> Item<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<&'a str>, MessageError> {
        self.get(name)
            .map(|value| {
                value.as_str().ok_or(MessageError::WrongType {
                    name,
                    expected: "a string",
                })
            })
            .transpose()
    }

    fn non_empty(&self, name: &'static str) -> Result<Option<&'a str>, MessageError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(item: Value) -> Result<Option<RestCall>, MessageError> {
        call_for(item.as_object().unwrap())
    }

    fn line(item: Value) -> String {
        call(item)
            .unwrap()
            .map_or_else(|| "nothing".into(), |c| format!("{} {}", c.method, c.path))
    }

    #[test]
    fn every_item_becomes_the_call_of_the_extension() {
        for (item, expected) in [
            (json!({"target": "t", "arguments": []}), "POST /:send"),
            (
                json!({"target": "t", "arguments": [1], "groupName": "eu/west"}),
                "POST /groups/eu%2Fwest/:send",
            ),
            (
                json!({"target": "t", "arguments": [1], "groupName": "g", "userId": "ana b"}),
                "POST /users/ana%20b/:send",
            ),
            (
                json!({"target": "t", "arguments": [1], "userId": "u", "connectionId": "c"}),
                "POST /connections/c/:send",
            ),
            (
                json!({"Target": "t", "ARGUMENTS": [1], "userId": "", "connectionId": null, "groupName": null, "endpoints": null}),
                "POST /:send",
            ),
            (
                json!({"action": "Add", "userId": "u1", "groupName": "g1"}),
                "PUT /users/u1/groups/g1",
            ),
            (
                json!({"action": "remove", "userId": "u1", "groupName": "g1"}),
                "DELETE /users/u1/groups/g1",
            ),
            (
                json!({"action": "add", "connectionId": "c1", "userId": "u1", "groupName": "g1"}),
                "PUT /groups/g1/connections/c1",
            ),
            (
                json!({"action": "remove", "connectionId": "c1", "groupName": "g1"}),
                "DELETE /groups/g1/connections/c1",
            ),
            (
                json!({"action": "removeAll", "userId": "u1"}),
                "DELETE /users/u1/groups",
            ),
            (
                json!({"action": "removeAll", "connectionId": "c1"}),
                "nothing",
            ),
            (
                json!({"target": "t", "arguments": [1], "action": "add"}),
                "POST /:send",
            ),
            (
                json!({"target": "t", "action": "removeAll", "userId": "u"}),
                "DELETE /users/u/groups",
            ),
        ] {
            assert_eq!(line(item.clone()), expected, "{item}");
        }
    }

    #[test]
    fn arguments_are_passed_as_they_are() {
        let call = call(json!({"target": "console", "arguments": [[{"value": 41.5}]]}))
            .unwrap()
            .unwrap();
        assert_eq!(
            call.body.unwrap(),
            json!({"Target": "console", "Arguments": [[{"value": 41.5}]]})
        );
        assert!(!call.idempotent);
    }

    #[test]
    fn what_is_neither_is_refused_by_name() {
        use MessageError as E;
        for (item, expected) in [
            (json!({}), E::NeitherMessageNorAction),
            (json!({"target": "t"}), E::NeitherMessageNorAction),
            (
                json!({"target": null, "arguments": []}),
                E::NeitherMessageNorAction,
            ),
            (json!({"arguments": []}), E::NeitherMessageNorAction),
            (
                json!({"target": 5, "arguments": []}),
                E::WrongType {
                    name: "target",
                    expected: "a string",
                },
            ),
            (
                json!({"target": "t", "arguments": {}}),
                E::WrongType {
                    name: "arguments",
                    expected: "an array, one element per argument",
                },
            ),
            (
                json!({"target": "t", "arguments": [], "userId": 1}),
                E::WrongType {
                    name: "userId",
                    expected: "a string",
                },
            ),
            (json!({"action": "join"}), E::UnknownAction("join".into())),
            (json!({"action": "add", "userId": "u"}), E::NoGroup),
            (json!({"action": "add", "groupName": "g"}), E::NoSubject),
            (json!({"action": "removeAll"}), E::NoSubject),
            (
                json!({"target": "t", "arguments": [], "endpoints": []}),
                E::Endpoints,
            ),
        ] {
            assert_eq!(call(item.clone()).unwrap_err(), expected, "{item}");
        }
    }
}
