//! The wire format between a Functions host and a custom handler: [`Invocation`] in, [`Reply`] out.
//!
//! `POST /<function name>` with `{"Data": {<binding>: <value>}, "Metadata": {…}}`, answered by
//! `{"Outputs": {<binding>: <value>}, "Logs": […], "ReturnValue": null}`.
//!
//! What a value looks like depends on what the binding hands to the host: an object stands in place, an array is JSON
//! text inside a string, and text that holds JSON (change feed batches, items, SignalR connection info) is JSON inside
//! a JSON string literal inside a string. All of them are accepted for every binding, see [`Structured`].
//!
//! Sources: `Azure/azure-functions-host: src/WebJobs.Script/Workers/Http/DefaultHttpWorkerService.cs`,
//! `src/WebJobs.Script/Workers/MessageExtensions/ScriptInvocationContextExtensions.cs`,
//! `src/WebJobs.Script/Extensions/HttpRequestExtensions.cs`.

mod scanner;
mod unpack;

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::value::RawValue;
use thiserror::Error;

use self::unpack::unpack;
use crate::{
    pairs::Pairs,
    problem::{PROBLEM_JSON, Problem},
};

/// Most bytes of one invocation. A page of the change feed has at most 4 MB of documents; writing it as a string inside
/// a string makes at most four bytes of one, and the host's envelope comes on top.
pub const MAX_INVOCATION: usize = 20 * 1024 * 1024;

/// Bytes that most replies fit into, such as one to a write of one event.
const COMMON_REPLY: usize = 1024;

/// Media type of every JSON body that is not a [`Problem`].
pub const JSON: &str = "application/json; charset=utf-8";

/// Why an invocation cannot be understood. The handler answers such an invocation with a non-2xx status, which the host
/// takes as a failure of the function.
#[derive(Debug, Error)]
pub enum InvocationError {
    /// The body is not the JSON object of the protocol.
    #[error("the invocation is not a JSON object with `Data`: {0}")]
    Envelope(#[source] serde_json::Error),
    /// The value of a binding is not what the function's binding delivers.
    #[error("the value of the binding `{binding}` cannot be read: {source}")]
    Binding {
        /// Name of the binding in function.json.
        binding: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A binding that the function cannot do without is absent or null.
    #[error("the invocation has no value for the binding `{0}`; is its function.json in place?")]
    Missing(&'static str),
}

/// One invocation, borrowed from the body of the host's request. `Metadata` and unknown members are not looked at.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// The JSON text of each binding, by name; packed into strings or not.
    data: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "Data")]
    data: Option<Pairs<'a, &'a RawValue>>,
}

impl<'a> Invocation<'a> {
    /// Reads the body of an invocation.
    ///
    /// # Errors
    /// [`InvocationError::Envelope`].
    pub fn parse(body: &'a [u8]) -> Result<Self, InvocationError> {
        if let Some(members) = str::from_utf8(body).ok().and_then(scanner::data) {
            let named = |(name, json)| (Cow::Borrowed(name), json);
            return Ok(Self {
                data: members.into_iter().map(named).collect(),
            });
        }
        let envelope: Envelope<'a> =
            serde_json::from_slice(body).map_err(InvocationError::Envelope)?;
        let members = envelope.data.map(Pairs::into_inner).unwrap_or_default();
        let named = |(name, json): (_, &'a RawValue)| (name, Cow::Borrowed(json.get()));
        Ok(Self {
            data: members.into_iter().map(named).collect(),
        })
    }

    /// The structured value of a binding; `None` when it is absent or null in any encoding.
    pub fn structured(&self, binding: &'static str) -> Option<Structured<'_>> {
        let (_, json) = self.data.iter().find(|(name, _)| name == binding)?;
        let text = unpack(json);
        (text != "null").then_some(Structured { binding, text })
    }
}

/// The JSON text of a structured binding value, unpacked from however many strings it came in.
#[derive(Debug)]
pub struct Structured<'a> {
    binding: &'static str,
    text: Cow<'a, str>,
}

impl Structured<'_> {
    /// Reads the value, borrowing from it.
    ///
    /// # Errors
    /// [`InvocationError::Binding`].
    pub fn read<'s, T: Deserialize<'s>>(&'s self) -> Result<T, InvocationError> {
        self.read_with(serde_json::from_str)
    }

    /// Reads the JSON text with a function of one's own.
    ///
    /// # Errors
    /// [`InvocationError::Binding`].
    pub fn read_with<'s, T>(
        &'s self,
        read: impl FnOnce(&'s str) -> Result<T, serde_json::Error>,
    ) -> Result<T, InvocationError> {
        read(&self.text).map_err(|source| InvocationError::Binding {
            binding: self.binding,
            source,
        })
    }
}

/// The value of an `httpTrigger` binding, `Data.<name>`.
///
/// Names are looked up as the host defines them: headers ignoring case, query parameters and route values exactly.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HttpRequest<'a> {
    #[serde(borrow, default)]
    query: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

impl HttpRequest<'_> {
    /// The body as text. Absent when the caller sent none, or sent it without `Content-Length`.
    ///
    /// JSON is normally not parsed by the host; a host that did parse it is understood too.
    pub fn body(&self) -> Option<Cow<'_, str>> {
        let raw = self.body?.get();
        if !raw.starts_with('"') {
            return Some(Cow::Borrowed(raw));
        }
        // Exactly one round: what is inside belongs to the caller.
        serde_json::from_str::<Text<'_>>(raw)
            .ok()
            .map(|Text(text)| text)
    }

    /// A query parameter.
    pub fn query(&self, name: &str) -> Option<String> {
        member(self.query, |key| key == name)
    }

    /// A value of the route.
    pub fn param(&self, name: &str) -> Option<String> {
        member(self.params, |key| key == name)
    }

    /// A header's first line.
    pub fn header(&self, name: &str) -> Option<String> {
        member(self.headers, |key| key.eq_ignore_ascii_case(name))
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a member of an object (or of an object packed into a string). Values may be strings, arrays of strings,
/// of which the first counts, or scalars; null is absent.
fn member(object: Option<&RawValue>, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let text = unpack(object?.get());
    let pairs: Pairs<'_, &RawValue> = serde_json::from_str(&text).ok()?;
    let (_, value) = pairs
        .into_inner()
        .into_iter()
        .find(|(name, _)| wanted(name))?;
    match serde_json::from_str(value.get()).ok()? {
        serde_json::Value::Array(lines) => lines.into_iter().next().and_then(scalar),
        value => scalar(value),
    }
}

fn scalar(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
    }
}

/// The answer to an invocation. `ReturnValue` is always null.
///
/// It is always an object, because the host waits without end on an empty one.
#[derive(Debug)]
pub struct Reply<O> {
    outputs: O,
    logs: Vec<String>,
}

impl<O: Serialize> Reply<O> {
    /// A reply with the values of the output bindings, as a struct or map by binding name.
    pub fn new(outputs: O) -> Self {
        Self {
            outputs,
            logs: Vec::new(),
        }
    }

    /// Adds a line that the host logs for the function.
    #[must_use]
    pub fn with_log(mut self, line: impl Into<String>) -> Self {
        self.logs.push(line.into());
        self
    }

    /// The body of the answer.
    ///
    /// # Errors
    /// When an output cannot be written as JSON.
    pub fn into_json(self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = Vec::with_capacity(COMMON_REPLY);
        serde_json::to_writer(&mut json, &self)?;
        Ok(json)
    }
}

impl<O: Serialize> Serialize for Reply<O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reply = serializer.serialize_struct("Reply", 3)?;
        reply.serialize_field("Outputs", &self.outputs)?;
        reply.serialize_field("Logs", &(!self.logs.is_empty()).then_some(&self.logs))?;
        reply.serialize_field("ReturnValue", &())?;
        reply.end()
    }
}

/// The value of an `http` output binding.
///
/// The body is text that is JSON already: the host sends a string byte for byte, but rewrites dates in anything else
/// and capitalises booleans. `statusCode` is always set, because the host ignores `status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    status_code: u16,
    headers: Headers,
    body: String,
}

#[derive(Debug, Serialize)]
struct Headers {
    #[serde(rename = "content-type")]
    content_type: &'static str,
    #[serde(rename = "cache-control")]
    cache_control: &'static str,
}

impl HttpResponse {
    /// A response whose body is `body` as JSON.
    ///
    /// # Errors
    /// When the body cannot be written as JSON.
    pub fn json(status: u16, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::raw(status, JSON, serde_json::to_string(body)?))
    }

    /// A problem.
    ///
    /// # Errors
    /// When the problem cannot be written as JSON.
    pub fn problem(problem: &Problem) -> Result<Self, serde_json::Error> {
        Ok(Self::raw(
            problem.status(),
            PROBLEM_JSON,
            serde_json::to_string(problem)?,
        ))
    }

    fn raw(status: u16, content_type: &'static str, body: String) -> Self {
        // Nothing here may be kept by a cache in between: Front Door stands before every region.
        Self {
            status_code: status,
            headers: Headers {
                content_type,
                cache_control: "no-store",
            },
            body,
        }
    }
}

/// The outputs of a function that only answers HTTP: the binding `res`.
#[derive(Debug, Serialize)]
pub struct HttpOutputs {
    /// The answer to the caller.
    pub res: HttpResponse,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// How the host packs a value: in place, once, twice.
    fn packings(value: &Value) -> [Value; 3] {
        let once = Value::String(value.to_string());
        let twice = Value::String(once.to_string());
        [value.clone(), once, twice]
    }

    #[test]
    fn structured_values_in_every_packing() {
        for value in [
            json!([{"id": "e-1", "text": "a \"b\" \\ c\n"}]),
            json!({"url": "u"}),
        ] {
            for packed in packings(&value) {
                let body = json!({"Data": {"x": packed}}).to_string();
                let invocation = Invocation::parse(body.as_bytes()).unwrap();
                assert_eq!(
                    invocation.structured("x").unwrap().read::<Value>().unwrap(),
                    value
                );
            }
        }
    }

    #[test]
    fn absent_and_null_are_the_same() {
        for body in [
            r#"{"Data":{"x":null}}"#,
            r#"{"Data":{"x":"null"}}"#,
            r#"{"Data":{"x":"\"null\""}}"#,
            r#"{"Data":{}}"#,
            r#"{"Data":null}"#,
            r#"{"Metadata":{},"Other":[1]}"#,
        ] {
            assert!(
                Invocation::parse(body.as_bytes())
                    .unwrap()
                    .structured("x")
                    .is_none(),
                "{body}"
            );
        }
    }

    #[test]
    fn errors_say_where() {
        let error = Invocation::parse(b"[]").unwrap_err();
        assert!(matches!(error, InvocationError::Envelope(_)), "{error}");
        let body = br#"{"Data":{"x":"not json"}}"#;
        let invocation = Invocation::parse(body).unwrap();
        let structured = invocation.structured("x").unwrap();
        let error = structured.read::<Vec<Value>>().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the value of the binding `x` cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn an_http_request_in_every_shape() {
        let plain = json!({
            "Url": "http://localhost:7071/api/x?a=1", "Method": "GET",
            "Query": {"a": "1", "A": "2"},
            "Headers": {"content-TYPE": ["application/json", "second"], "X": []},
            "Params": {"deviceId": "dev-7", "optional": null},
            "Body": "{\"value\":41}",
        });
        let mut old = plain.clone();
        old["Query"] = Value::String(old["Query"].to_string());
        old["Params"] = Value::String(old["Params"].to_string());
        old["Headers"] = json!({"Content-Type": "application/json"});
        old["Body"] = json!({"value": 41});
        for request in [plain, old] {
            for packed in packings(&request) {
                let body = json!({"Data": {"req": packed}}).to_string();
                let invocation = Invocation::parse(body.as_bytes()).unwrap();
                let structured = invocation.structured("req").unwrap();
                let request: HttpRequest<'_> = structured.read().unwrap();
                assert_eq!(request.query("a").as_deref(), Some("1"));
                assert_eq!(request.query("b"), None);
                assert_eq!(request.param("deviceId").as_deref(), Some("dev-7"));
                assert_eq!(request.param("optional"), None);
                assert_eq!(
                    request.header("Content-Type").as_deref(),
                    Some("application/json")
                );
                assert_eq!(request.header("X"), None);
                assert_eq!(request.body().as_deref(), Some(r#"{"value":41}"#));
            }
        }
    }

    #[test]
    fn a_body_is_unpacked_once_only() {
        let body = json!({"Data": {"req": {"Body": "\"{}\""}}}).to_string();
        let invocation = Invocation::parse(body.as_bytes()).unwrap();
        let structured = invocation.structured("req").unwrap();
        assert_eq!(
            structured
                .read::<HttpRequest<'_>>()
                .unwrap()
                .body()
                .as_deref(),
            Some("\"{}\"")
        );
        let bare: HttpRequest<'_> = serde_json::from_str("{}").unwrap();
        assert_eq!(bare.body(), None);
        assert_eq!(bare.header("x"), None);
    }

    #[test]
    fn a_reply_is_an_object_with_all_three_members() {
        let reply = Reply::new(json!({})).into_json().unwrap();
        assert_eq!(reply, br#"{"Outputs":{},"Logs":null,"ReturnValue":null}"#);
        let res = HttpResponse::json(201, &json!({"time": "2026-03-01T10:00:00.000Z"})).unwrap();
        let reply = Reply::new(HttpOutputs { res })
            .with_log("stored")
            .into_json()
            .unwrap();
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(
            reply,
            json!({
                "Outputs": {"res": {
                    "statusCode": 201,
                    "headers": {"content-type": "application/json; charset=utf-8", "cache-control": "no-store"},
                    "body": "{\"time\":\"2026-03-01T10:00:00.000Z\"}",
                }},
                "Logs": ["stored"],
                "ReturnValue": null,
            })
        );
    }
}
