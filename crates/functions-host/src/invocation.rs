//! The custom-handler wire format: the request the host sends and the reply it takes.
//!
//! `POST /<FunctionName>` with `{"Data": {...}, "Metadata": {...}}`; the reply is
//! `{"Outputs": {...}, "Logs": [...], "ReturnValue": ...}`. Sources: `Azure/azure-functions-host:
//! src/WebJobs.Script/Workers/Http/DefaultHttpWorkerService.cs`,
//! `…/Workers/MessageExtensions/ScriptInvocationContextExtensions.cs`. This module turns values into bytes and back; it
//! sends nothing.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::binding::Encoded;
use crate::binding_data::{BindingData, DataValue};
use crate::json::{self, Kind, RawObject};

/// Header with the invocation's GUID; the same for all attempts of one invocation.
pub const INVOCATION_ID_HEADER: &str = "X-Azure-Functions-InvocationId";

/// Header with the host's version.
pub const HOST_VERSION_HEADER: &str = "X-Azure-Functions-HostVersion";

/// The version of the real host whose behaviour this one follows, as it stands in headers and in the status.
pub const HOST_VERSION: &str = "4.1052.200";

/// `Metadata.RetryContext`: present exactly when a retry policy applies.
#[derive(Debug, Clone)]
pub(crate) struct RetryContext {
    /// 0 on the first attempt.
    pub(crate) retry_count: u32,
    /// −1 = without end.
    pub(crate) max_retry_count: i64,
    /// Why the attempt before failed.
    pub(crate) exception: Option<String>,
}

/// Builds the request body. `data` holds the trigger first, then the other inputs.
pub(crate) fn request_body(
    data: &[(&str, Encoded)],
    binding_data: &BindingData,
    retry: Option<&RetryContext>,
) -> Vec<u8> {
    let mut body = Body::default();
    body.raw("{\"Data\":{");
    for (index, (name, value)) in data.iter().enumerate() {
        body.member(index == 0, name);
        body.encoded(value);
    }
    body.raw("},\"Metadata\":{");
    let mut first = true;
    for (name, value) in binding_data.entries() {
        // The real host leaves out every key that ends so, whatever it holds.
        if name.to_ascii_lowercase().ends_with("trigger") || matches!(value, DataValue::Null) {
            continue;
        }
        body.member(first, name);
        body.data_value(value);
        first = false;
    }
    body.member(first, binding_data.sys_name());
    body.raw(&binding_data.sys_json().to_string());
    if let Some(retry) = retry {
        let exception = retry
            .exception
            .as_ref()
            .map(|message| serde_json::json!({ "Message": message }));
        let context = serde_json::json!({
            "RetryCount": retry.retry_count,
            "MaxRetryCount": retry.max_retry_count,
            "Exception": exception,
            "Instance": null,
            "State": {},
        });
        body.member(false, "RetryContext");
        body.raw(&context.to_string());
    }
    body.raw("}}");
    body.0
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn literal(&mut self, text: &str) {
        self.raw(&json::literal(text));
    }

    fn member(&mut self, first: bool, name: &str) {
        if !first {
            self.raw(",");
        }
        self.literal(name);
        self.raw(":");
    }

    /// The one encoding function behind all "JSON inside a string" quirks.
    fn encoded(&mut self, value: &Encoded) {
        match value {
            Encoded::Text(text) => self.literal(&json::literal(text)),
            Encoded::Json(json) => self.literal(json),
            Encoded::Object(object) => self.raw(object.get()),
            Encoded::Null => self.literal("null"),
        }
    }

    fn data_value(&mut self, value: &DataValue) {
        match value {
            DataValue::Text(text) => self.literal(&json::literal(text)),
            DataValue::Json(raw) if Kind::of(raw) == Kind::Object => self.raw(raw.get()),
            DataValue::Json(raw) => self.literal(raw.get()),
            DataValue::Query(pairs) | DataValue::Headers(pairs) => {
                self.raw("{");
                for (index, (name, value)) in pairs.iter().enumerate() {
                    self.member(index == 0, name);
                    self.literal(value);
                }
                self.raw("}");
            }
            DataValue::System(_) | DataValue::Null => self.raw(&value.to_json().to_string()),
        }
    }
}

/// A handler's reply that completes an invocation.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// `Outputs`; `None` when absent or null, which is not the same as empty.
    pub(crate) outputs: Option<RawObject>,
    /// `Logs`
    pub(crate) logs: Vec<String>,
    /// `ReturnValue`; `None` when absent or null.
    pub(crate) return_value: Option<Box<RawValue>>,
}

/// Why a reply does not complete an invocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyError {
    /// The real host never completes such an invocation.
    #[error(
        "the handler answered {status} with an empty body; the real host would wait for ever: answer with a JSON object, at least {{}}"
    )]
    Empty { status: u16 },
    #[error("the handler answered status {status}; only 2xx completes an invocation")]
    Status { status: u16 },
    #[error("the handler answered with content type {found}; the reply must be application/json")]
    ContentType { found: String },
    #[error("the handler's reply is not a JSON object: {reason}")]
    Syntax { reason: String },
    #[error("the handler's reply: `{member}` must be {expected}")]
    Member {
        member: &'static str,
        expected: &'static str,
    },
}

impl Reply {
    /// Reads a reply from its status, its `Content-Type` and its body.
    pub(crate) fn read(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ReplyError> {
        if !(200..300).contains(&status) {
            return Err(ReplyError::Status { status });
        }
        if body.is_empty() {
            return Err(ReplyError::Empty { status });
        }
        let media = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        if !["application/json", "text/json"]
            .iter()
            .any(|json| media.eq_ignore_ascii_case(json))
        {
            return Err(ReplyError::ContentType {
                found: content_type.unwrap_or("(none)").to_owned(),
            });
        }
        let syntax = |error: serde_json::Error| ReplyError::Syntax {
            reason: error.to_string(),
        };
        let text = std::str::from_utf8(body).map_err(|error| ReplyError::Syntax {
            reason: error.to_string(),
        })?;
        if text.trim() == "null" {
            return Err(ReplyError::Empty { status });
        }
        let members = RawObject::parse(text).map_err(syntax)?;
        let present = |name| {
            members
                .get_ignoring_case(name)
                .filter(|value| Kind::of(value) != Kind::Null)
        };
        let outputs = match present("Outputs") {
            None => None,
            Some(value) => Some(
                RawObject::parse(value.get()).map_err(|_| ReplyError::Member {
                    member: "Outputs",
                    expected: "an object or null",
                })?,
            ),
        };
        let logs = match present("Logs") {
            None => Vec::new(),
            Some(value) => log_lines(value).ok_or(ReplyError::Member {
                member: "Logs",
                expected: "an array of strings or null",
            })?,
        };
        Ok(Self {
            outputs,
            logs,
            return_value: present("ReturnValue").map(ToOwned::to_owned),
        })
    }

    /// The value for an output binding; null counts as absent.
    pub(crate) fn output(&self, name: &str) -> Option<&RawValue> {
        let value = if name == "$return" {
            self.return_value.as_deref()
        } else {
            self.outputs.as_ref()?.get(name)
        };
        value.filter(|value| Kind::of(value) != Kind::Null)
    }
}

fn log_lines(value: &RawValue) -> Option<Vec<String>> {
    let lines: Vec<Value> = serde_json::from_str(value.get()).ok()?;
    lines
        .into_iter()
        .map(|line| match line {
            Value::String(text) => Some(text),
            Value::Null => Some(String::new()),
            Value::Bool(_) | Value::Number(_) => Some(line.to_string()),
            Value::Array(_) | Value::Object(_) => None,
        })
        .collect()
}

/// The items of a `cosmosDB` or `signalR` output value, in order.
///
/// An object is one item, an array of objects is several, a string that holds either is taken as it. A string that happens
/// to be valid base64 reaches these bindings as bytes and fails, as in the real host
/// (`Azure/azure-functions-host: src/WebJobs.Script/Workers/Http/HttpScriptInvocationResultExtensions.cs`).
///
/// # Errors
/// One sentence for any other value.
pub(crate) fn output_items(value: &RawValue) -> Result<Vec<Map<String, Value>>, String> {
    let wrong = |found: &str| {
        format!(
            "must be an object, an array of objects, or a string that holds one of these as JSON, not {found}"
        )
    };
    match Kind::of(value) {
        Kind::Null => Ok(Vec::new()),
        Kind::Object | Kind::Array => json_items(value.get()),
        Kind::String => {
            let text = json::string(value).unwrap_or_default();
            if from_base64(&text).is_some() {
                return Err(wrong("a string of base64, which is taken as bytes"));
            }
            if !text.trim_start().starts_with(['{', '[']) {
                return Err(wrong("another string"));
            }
            json_items(&text)
        }
        other => Err(wrong(other.described())),
    }
}

fn json_items(text: &str) -> Result<Vec<Map<String, Value>>, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("holds a string that is not JSON: {error}"))?;
    let elements = match value {
        Value::Array(elements) => elements,
        single => vec![single],
    };
    elements
        .into_iter()
        .enumerate()
        .map(|(index, element)| match element {
            Value::Object(object) => Ok(object),
            other => {
                let found = match other {
                    Value::String(_) => "a string",
                    Value::Null => "null",
                    Value::Array(_) => "an array",
                    _ => "a number or boolean",
                };
                Err(format!("element {index} must be an object, not {found}"))
            }
        })
        .collect()
}

/// What .NET would decode as base64: white space ignored, padding due, the empty text included.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn body(
        data: &[(&str, Encoded)],
        binding_data: &BindingData,
        retry: Option<&RetryContext>,
    ) -> Value {
        serde_json::from_slice(&request_body(data, binding_data, retry)).unwrap()
    }

    #[test]
    fn every_kind_of_value_is_encoded_as_the_real_host_does() {
        let data = [
            (
                "object",
                Encoded::Object(RawValue::from_string(r#"{"a":1}"#.into()).unwrap()),
            ),
            (
                "rows",
                Encoded::Json(r#"[{"id":"1","deviceId":"dev-7","maxValue":41}]"#.into()),
            ),
            (
                "item",
                Encoded::Text(r#"{"id":"1","deviceId":"dev-7"}"#.into()),
            ),
            ("noSuchItem", Encoded::Null),
            ("conn", Encoded::Text("{\n  \"url\": \"u\"\n}".into())),
        ];
        let body = body(&data, &BindingData::new("F"), None);
        assert_eq!(
            body["Data"],
            json!({
                "object": {"a": 1},
                "rows": "[{\"id\":\"1\",\"deviceId\":\"dev-7\",\"maxValue\":41}]",
                "item": "\"{\\\"id\\\":\\\"1\\\",\\\"deviceId\\\":\\\"dev-7\\\"}\"",
                "noSuchItem": "null",
                "conn": "\"{\\n  \\\"url\\\": \\\"u\\\"\\n}\"",
            })
        );
    }

    #[test]
    fn metadata_holds_encoded_texts_and_plain_objects() {
        let mut data = BindingData::new("WriteEvent");
        data.set("deviceId", DataValue::Text("dev-7".into()));
        data.set("place", DataValue::object(r#"{"z":1,"a":2}"#));
        data.set("myTrigger", DataValue::Text("left out".into()));
        data.set("optional", DataValue::Null);
        data.set("Query", DataValue::query([("source".into(), "sim".into())]));
        let body = body(&[], &data, None);
        let metadata = body["Metadata"].as_object().unwrap();
        assert_eq!(metadata["deviceId"], json!("\"dev-7\""));
        assert_eq!(metadata["place"], json!({"z": 1, "a": 2}));
        assert_eq!(metadata["Query"], json!({"source": "sim"}));
        assert_eq!(metadata["sys"]["MethodName"], "WriteEvent");
        let mut names: Vec<_> = metadata.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["Query", "deviceId", "place", "sys"]);
    }

    #[test]
    fn the_retry_context_is_there_exactly_with_a_policy() {
        let data = BindingData::new("F");
        assert!(
            body(&[], &data, None)["Metadata"]
                .get("RetryContext")
                .is_none()
        );
        let first = RetryContext {
            retry_count: 0,
            max_retry_count: -1,
            exception: None,
        };
        assert_eq!(
            body(&[], &data, Some(&first))["Metadata"]["RetryContext"],
            json!({"RetryCount":0,"MaxRetryCount":-1,"Exception":null,"Instance":null,"State":{}})
        );
        let second = RetryContext {
            retry_count: 1,
            max_retry_count: 3,
            exception: Some("boom".into()),
        };
        assert_eq!(
            body(&[], &data, Some(&second))["Metadata"]["RetryContext"]["Exception"]["Message"],
            "boom"
        );
    }

    fn read(status: u16, content_type: &str, body: &str) -> Result<Reply, ReplyError> {
        Reply::read(status, Some(content_type), body.as_bytes())
    }

    #[test]
    fn a_json_object_with_a_json_type_completes() {
        let reply = read(
            200,
            "application/json; charset=utf-8",
            r#"{"outputs":{"Res":{},"res":{"a":1}},"LOGS":["x",5],"returnValue":null,"Other":1}"#,
        )
        .unwrap();
        assert_eq!(reply.logs, ["x", "5"]);
        assert!(reply.return_value.is_none());
        assert_eq!(reply.output("res").unwrap().get(), r#"{"a":1}"#);
        assert!(reply.output("RES").is_none());
        assert!(read(201, "text/json", "{}").unwrap().outputs.is_none());
    }

    #[test]
    fn everything_else_does_not() {
        let json = "application/json";
        assert!(matches!(
            read(500, json, "{}"),
            Err(ReplyError::Status { status: 500 })
        ));
        assert!(matches!(
            read(302, json, "{}"),
            Err(ReplyError::Status { .. })
        ));
        assert!(matches!(
            read(204, json, ""),
            Err(ReplyError::Empty { status: 204 })
        ));
        assert!(matches!(
            read(200, json, " null "),
            Err(ReplyError::Empty { .. })
        ));
        assert!(matches!(
            read(200, "text/plain", "{}"),
            Err(ReplyError::ContentType { .. })
        ));
        assert!(matches!(
            Reply::read(200, None, b"{}"),
            Err(ReplyError::ContentType { .. })
        ));
        for text in ["[]", "5", "\"x\"", "{", "{} x"] {
            assert!(
                matches!(read(200, json, text), Err(ReplyError::Syntax { .. })),
                "{text}"
            );
        }
        for text in [
            r#"{"Outputs":[]}"#,
            r#"{"Outputs":"x"}"#,
            r#"{"Logs":"x"}"#,
            r#"{"Logs":[{}]}"#,
        ] {
            assert!(
                matches!(read(200, json, text), Err(ReplyError::Member { .. })),
                "{text}"
            );
        }
    }

    fn items(json: &str) -> Result<Vec<Map<String, Value>>, String> {
        output_items(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn objects_arrays_and_their_texts_are_items() {
        for (value, ids) in [
            (r#"{"id":"1"}"#, vec!["1"]),
            (r#"[{"id":"2"},{"id":"1"}]"#, vec!["2", "1"]),
            (r#""[{\"id\":\"1\"}]""#, vec!["1"]),
            (r#""{\"id\":\"1\"}""#, vec!["1"]),
            ("[]", vec![]),
            ("null", vec![]),
        ] {
            let found: Vec<_> = items(value)
                .unwrap()
                .into_iter()
                .map(|item| item["id"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(found, ids, "{value}");
        }
    }

    #[test]
    fn no_other_value_is_an_item() {
        for value in [
            "5",
            "true",
            r#""test""#,
            r#""""#,
            r#""plain words""#,
            r#"["{\"id\":\"1\"}"]"#,
            "[null]",
            "[1]",
            r#""{broken""#,
            "[[]]",
        ] {
            assert!(items(value).is_err(), "{value}");
        }
        assert!(items(r#""Done1234""#).unwrap_err().contains("base64"));
    }
}
