//! A request taken apart at the door: what it addresses, and its headers by name.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, request::Parts};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

use super::{documents::is_query, reply::ApiError};
use crate::{Operation, binary_json, container::Container, partition_key::Named};

/// What a path addresses; names may be resource ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Account,
    Databases,
    Database(String),
    Containers(String),
    Container(String, String),
    Ranges(String, String),
    Documents(String, String),
    Document(String, String, String),
    Conflicts(String, String),
    Conflict(String, String, String),
    Offers,
    Offer(String),
    /// Something of the service that is not here, by name.
    Unsupported(&'static str),
}

/// One request.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) target: Target,
    segments: Vec<String>,
    headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What its header names, once somebody has asked.
    partition_key: OnceLock<Option<Result<Named, String>>>,
}

/// Longest id of a request that is taken over from a client.
const MAX_ACTIVITY: usize = 128;

/// The client's id of the request, or a new one when it has none that is plain: ids are repeated in the texts of errors.
pub(crate) fn activity_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=MAX_ACTIVITY).contains(&id.len()) && id.bytes().all(plain)
    };
    headers
        .get("x-ms-activity-id")
        .and_then(|value| value.to_str().ok())
        .filter(is_plain)
        .map_or_else(new_activity_id, str::to_owned)
}

/// Unique, not secret; so it need not come from the system, which every request would have to ask.
fn new_activity_id() -> String {
    uuid::Builder::from_random_bytes(rand::random())
        .into_uuid()
        .to_string()
}

impl Request {
    pub(crate) fn read(parts: Parts, body: Bytes) -> Result<Self, ApiError> {
        let segments = parts
            .uri
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| {
                percent_decode_str(segment)
                    .decode_utf8()
                    .map(|text| text.into_owned())
            })
            .collect::<Result<Vec<String>, _>>()
            .map_err(|_| ApiError::bad_request("the path is not UTF-8"))?;
        let target = target(&segments)
            .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path"))?;
        let is_text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).is_ok();
        if let Some((name, _)) = parts.headers.iter().find(|(_, value)| !is_text(value)) {
            return Err(ApiError::bad_request(format!(
                "the header {name} is not UTF-8"
            )));
        }
        let coding = parts.headers.get("content-encoding");
        if coding.is_some_and(|coding| coding != "identity") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "bodies are taken as they are; send none with content-encoding",
            ));
        }
        Ok(Self {
            method: parts.method,
            target,
            segments,
            headers: parts.headers,
            body,
            partition_key: OnceLock::new(),
        })
    }

    /// What the partition key header names in the container that the request is about; `None` when there is no such header.
    /// The error is for the client.
    pub(crate) fn partition_key(&self, container: &Container) -> Option<Result<&Named, &str>> {
        let named = self.partition_key.get_or_init(|| {
            let text = self.header("x-ms-documentdb-partitionkey")?;
            Some(container.partition_key.of_header(text))
        });
        let named = named.as_ref()?;
        Some(named.as_ref().map_err(String::as_str))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        // A request has few headers: looking at each is quicker than to hash a name.
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.as_str() == name)?;
        std::str::from_utf8(value.as_bytes()).ok()
    }

    /// A header that is on when its text is `true`, in any case.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.header(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether the client wants no body back.
    pub(crate) fn minimal(&self) -> bool {
        self.header("prefer")
            .is_some_and(|value| value.eq_ignore_ascii_case("return=minimal"))
    }

    /// Whether it is about databases or containers themselves, and changes them.
    pub(crate) fn changes_metadata(&self) -> bool {
        matches!(
            self.target,
            Target::Databases
                | Target::Database(_)
                | Target::Containers(_)
                | Target::Container(_, _)
                | Target::Offer(_)
        ) && !matches!(self.method, Method::GET | Method::HEAD)
            && !is_query(self)
    }

    /// What it is for, as faults see it.
    pub(crate) fn operation(&self) -> Operation {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        let queries = is_query(self) || self.flag("x-ms-cosmos-is-query-plan-request");
        match self.target {
            Target::Documents(..) if reads && self.header("a-im").is_some() => Operation::Feed,
            Target::Documents(..) | Target::Conflicts(..) if !reads && queries => Operation::Query,
            Target::Documents(..)
            | Target::Document(..)
            | Target::Conflicts(..)
            | Target::Conflict(..) => match reads {
                true => Operation::Read,
                false => Operation::Write,
            },
            _ => Operation::Metadata,
        }
    }

    /// `x-ms-max-item-count`, as far as `most` allows; absent or -1 means the server's choice.
    pub(crate) fn page_size(&self, usual: usize, most: usize) -> usize {
        let asked = self
            .header("x-ms-max-item-count")
            .and_then(|text| text.trim().parse::<i64>().ok());
        asked
            .and_then(|asked| usize::try_from(asked).ok())
            .filter(|asked| *asked > 0)
            .map_or(usual, |asked| asked.min(most))
    }

    /// The body as JSON, text or binary.
    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        if binary_json::is_binary(&self.body) {
            return binary_json::decode(&self.body).map_err(ApiError::bad_request);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}")))
    }

    /// The body, JSON as text or binary, in a shape that is known.
    pub(crate) fn json_as<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        if binary_json::is_binary(&self.body) {
            let value = binary_json::decode(&self.body).map_err(serde_json::Error::custom)?;
            return T::deserialize(value);
        }
        serde_json::from_slice(&self.body)
    }

    /// The body as a JSON object.
    pub(crate) fn object(&self) -> Result<Map<String, Value>, ApiError> {
        match self.json()? {
            Value::Object(object) => Ok(object),
            _ => Err(ApiError::bad_request("the body has to be a JSON object")),
        }
    }

    /// Resource type of the signature, and the links it may be over: by name and, lower-cased, by resource id.
    pub(crate) fn signed(&self) -> (&str, Vec<String>) {
        let mut segments = self.segments.as_slice();
        // What is done to all items of a partition key is signed as if it were done to their container.
        if let [_, _, _, _, kind, _] = segments
            && kind == "operations"
        {
            return ("colls", vec![segments[..4].join("/")]);
        }
        // A feed is signed with its parent's link, a resource with its own.
        let resource_type = match segments {
            [] => "",
            [parent @ .., kind] if segments.len() % 2 == 1 => {
                segments = parent;
                kind
            }
            [.., kind, _] => kind,
            [_] => "",
        };
        let by_rid = segments
            .last()
            .map(|id| id.to_lowercase())
            .unwrap_or_default();
        (resource_type, vec![segments.join("/"), by_rid])
    }
}

fn target(segments: &[String]) -> Option<Target> {
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let own = |text: &str| text.to_owned();
    Some(match path.as_slice() {
        [] => Target::Account,
        ["dbs"] => Target::Databases,
        ["dbs", database] => Target::Database(own(database)),
        ["dbs", database, "colls"] => Target::Containers(own(database)),
        ["dbs", database, "colls", container] => Target::Container(own(database), own(container)),
        ["dbs", database, "colls", container, "pkranges"] => {
            Target::Ranges(own(database), own(container))
        }
        ["dbs", database, "colls", container, "docs"] => {
            Target::Documents(own(database), own(container))
        }
        ["dbs", database, "colls", container, "docs", id] => {
            Target::Document(own(database), own(container), own(id))
        }
        ["dbs", _, "colls", _, "sprocs", ..] => Target::Unsupported("a stored procedure"),
        ["dbs", _, "colls", _, "triggers", ..] => Target::Unsupported("a trigger"),
        ["dbs", _, "colls", _, "udfs", ..] => Target::Unsupported("a user-defined function"),
        ["dbs", database, "colls", container, "conflicts"] => {
            Target::Conflicts(own(database), own(container))
        }
        ["dbs", database, "colls", container, "conflicts", id] => {
            Target::Conflict(own(database), own(container), own(id))
        }
        ["dbs", _, "colls", _, "operations", ..] => {
            Target::Unsupported("deleting by partition key")
        }
        ["dbs", _, "users", ..] => Target::Unsupported("users and permissions"),
        ["offers"] => Target::Offers,
        ["offers", rid] => Target::Offer(own(rid)),
        ["addresses", ..] => Target::Unsupported("direct mode; use gateway mode, which"),
        _ => return None,
    })
}
