//! The `http` output: from a handler's reply to the response the caller sees.
//!
//! Source of every row: `Azure/azure-functions-host: src/WebJobs.Script/Binding/Http/HttpBinding.cs`,
//! `…/Http/RawScriptResult.cs`, `…/Workers/Http/HttpOutputBindingResponse.cs`. Local choices: strings that look like dates
//! pass untouched; `ReturnValue` without a `$return` binding is refused; a handler's own `content-length` and
//! `transfer-encoding` are dropped, because the host frames the response.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::value::RawValue;

use crate::binding_data::scalar_text;
use crate::invocation::{Reply, from_base64};
use crate::json::{self, Kind, RawObject};

/// Content type of a response that names none, whatever its body.
const DEFAULT_CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// A response, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shaped {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Shaped {
    fn new(
        status: StatusCode,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_str(content_type).map_err(|_| {
                format!("content type {content_type:?} is not a valid header value")
            })?;
            headers.insert(header::CONTENT_TYPE, value);
        }
        Ok(Self {
            status,
            headers,
            body: body.into(),
        })
    }
}

/// Shapes the response of a function whose `http` output is called `output` (`None`: it has none).
///
/// # Errors
/// One sentence; the invocation fails and the caller gets 500.
pub(crate) fn shape(reply: &Reply, output: Option<&str>) -> Result<Shaped, String> {
    if output == Some("$return") {
        return match reply.return_value.as_deref() {
            Some(value) => returned(value),
            None => Shaped::new(StatusCode::NO_CONTENT, None, Bytes::new()),
        };
    }
    if reply.return_value.is_some() {
        return Err(
            "`ReturnValue` needs an output binding named `$return`; send null and use `Outputs`"
                .into(),
        );
    }
    match (output, &reply.outputs) {
        (None, _) | (Some(_), None) => Shaped::new(StatusCode::NO_CONTENT, None, Bytes::new()),
        (Some(name), Some(outputs)) => match outputs.get(name) {
            None => Shaped::new(StatusCode::OK, Some(DEFAULT_CONTENT_TYPE), "{}"),
            Some(value) => {
                { response_object(value).and_then(|object| from_object(&object, false)) }
                    .map_err(|problem| format!("output `{name}`: {problem}"))
            }
        },
    }
}

/// The value of an `http` output as an object: itself, or a string that holds it.
fn response_object(value: &RawValue) -> Result<RawObject, String> {
    match Kind::of(value) {
        Kind::Object => RawObject::parse(value.get()).map_err(|error| error.to_string()),
        Kind::String => RawObject::parse(&json::string(value).unwrap_or_default())
            .map_err(|_| "a string must hold a response object as JSON".to_owned()),
        other => Err(format!(
            "must be an object with `statusCode`, `headers` and `body`, not {}",
            other.described()
        )),
    }
}

/// `$return`: here `status` counts, and a plain value is a body.
fn returned(value: &RawValue) -> Result<Shaped, String> {
    let object = match Kind::of(value) {
        Kind::String => {
            let text = json::string(value).unwrap_or_default();
            if let Some(bytes) = from_base64(&text) {
                return Shaped::new(StatusCode::OK, None, bytes);
            }
            match RawObject::parse(&text) {
                Ok(object) if object.get_ignoring_case("body").is_some() => object,
                _ => return Shaped::new(StatusCode::OK, Some(DEFAULT_CONTENT_TYPE), text),
            }
        }
        Kind::Object => {
            let object = RawObject::parse(value.get()).map_err(|error| error.to_string())?;
            if object.get_ignoring_case("body").is_none() {
                return Shaped::new(
                    StatusCode::OK,
                    Some("application/json; charset=utf-8"),
                    value.get().to_owned(),
                );
            }
            object
        }
        _ => return Shaped::new(StatusCode::OK, Some(DEFAULT_CONTENT_TYPE), body_text(value)),
    };
    from_object(&object, true)
}

fn from_object(object: &RawObject, status_counts: bool) -> Result<Shaped, String> {
    let status = object
        .get_ignoring_case("statusCode")
        .filter(|value| Kind::of(value) != Kind::Null)
        .or_else(|| {
            status_counts
                .then(|| object.get_ignoring_case("status"))
                .flatten()
        });
    let status = status_code(status)?;
    let mut headers = HeaderMap::new();
    if let Some(given) = object
        .get_ignoring_case("headers")
        .filter(|value| Kind::of(value) != Kind::Null)
    {
        let given = RawObject::parse(given.get())
            .map_err(|_| "`headers` must be an object of names and scalar values".to_owned())?;
        for (name, value) in given.iter() {
            add_header(&mut headers, name, value)?;
        }
    }
    if !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(DEFAULT_CONTENT_TYPE),
        );
    }
    let body = object
        .get_ignoring_case("body")
        .map(body_text)
        .unwrap_or_default();
    Ok(Shaped {
        status,
        headers,
        // A response of this status has no body on the wire.
        body: if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            Bytes::new()
        } else {
            body.into()
        },
    })
}

/// A number or a numeric string; everything else is 200.
fn status_code(value: Option<&RawValue>) -> Result<StatusCode, String> {
    let Some(number) = value
        .and_then(scalar_text)
        .and_then(|text| text.trim().parse::<i64>().ok())
    else {
        return Ok(StatusCode::OK);
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number >= 200)
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| format!("`statusCode` must be between 200 and 999, not {number}"))
}

fn add_header(headers: &mut HeaderMap, name: &str, value: &RawValue) -> Result<(), String> {
    let text = match Kind::of(value) {
        Kind::Null => return Err(format!("header `{name}` is null")),
        Kind::Object | Kind::Array => value.get().to_owned(),
        Kind::String | Kind::Number | Kind::Bool => scalar_text(value).unwrap_or_default(),
    };
    let invalid = || format!("`headers`: {name:?} is not a valid name or has an invalid value");
    let name = HeaderName::try_from(name).map_err(|_| invalid())?;
    if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
        return Ok(());
    }
    let text = if name == header::CONTENT_TYPE && !text.to_ascii_lowercase().contains("charset=") {
        format!("{text}; charset=utf-8")
    } else {
        text
    };
    let value = HeaderValue::try_from(text).map_err(|_| invalid())?;
    // A name that is there already is not replaced.
    headers.entry(name).or_insert(value);
    Ok(())
}

/// Strings as they are, containers indented, booleans capitalised, null as nothing.
fn body_text(value: &RawValue) -> String {
    match Kind::of(value) {
        Kind::Object | Kind::Array => json::indent(value.get()),
        Kind::Null => String::new(),
        Kind::String | Kind::Number | Kind::Bool => scalar_text(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shaped(reply: &str, output: Option<&str>) -> Result<Shaped, String> {
        let reply = Reply::read(200, Some("application/json"), reply.as_bytes()).unwrap();
        shape(&reply, output)
    }

    /// Status, content type, body.
    fn seen(reply: &str) -> (u16, String, String) {
        let shaped = shaped(reply, Some("res")).unwrap();
        (
            shaped.status.as_u16(),
            shaped
                .headers
                .get("content-type")
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            String::from_utf8(shaped.body.to_vec()).unwrap(),
        )
    }

    const PLAIN: &str = "text/plain; charset=utf-8";

    #[test]
    fn bodies_of_every_kind() {
        for (body, sent) in [
            (
                r#""as is: {\"b\":1.0,\"a\":2}""#,
                r#"as is: {"b":1.0,"a":2}"#,
            ),
            (
                r#"{"b":1.50,"a":[true]}"#,
                "{\n  \"b\": 1.50,\n  \"a\": [\n    true\n  ]\n}",
            ),
            ("41", "41"),
            ("true", "True"),
            ("false", "False"),
            ("null", ""),
            (
                r#""2026-03-01T10:00:00.120+02:00""#,
                "2026-03-01T10:00:00.120+02:00",
            ),
        ] {
            let reply = format!(r#"{{"Outputs":{{"res":{{"body":{body}}}}}}}"#);
            assert_eq!(seen(&reply), (200, PLAIN.into(), sent.into()), "{body}");
        }
    }

    #[test]
    fn status_comes_from_status_code_alone() {
        for (response, status) in [
            (r#"{"statusCode":201}"#, 201),
            (r#"{"statusCode":"404"}"#, 404),
            (r#"{"STATUSCODE":418}"#, 418),
            (r#"{"status":404}"#, 200),
            (r#"{"statusCode":null}"#, 200),
            (r#"{"statusCode":"teapot"}"#, 200),
            (r#"{"statusCode":{}}"#, 200),
            ("{}", 200),
            (r#"{"statusCode":204,"body":"gone"}"#, 204),
            (r#""{\"statusCode\":202}""#, 202),
        ] {
            let reply = format!(r#"{{"Outputs":{{"res":{response}}}}}"#);
            assert_eq!(seen(&reply).0, status, "{response}");
        }
        assert!(shaped(r#"{"Outputs":{"res":{"statusCode":100}}}"#, Some("res")).is_err());
        assert!(shaped(r#"{"Outputs":{"res":{"statusCode":-1}}}"#, Some("res")).is_err());
    }

    #[test]
    fn headers_are_set_one_by_one() {
        let shaped = shaped(
            r#"{"Outputs":{"res":{"headers":{"Content-Type":"application/json","X-N":5,"X-B":true,"X-A":["a"],
                "x-n":6,"content-length":"99","cookies":"c"},"body":"{}","cookies":[1]}}}"#,
            Some("res"),
        )
        .unwrap();
        let header = |name: &str| shaped.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json; charset=utf-8");
        assert_eq!(header("x-n"), "5");
        assert_eq!(header("x-b"), "True");
        assert_eq!(header("x-a"), r#"["a"]"#);
        assert!(!shaped.headers.contains_key("content-length"));
        let kept =
            r#"{"Outputs":{"res":{"headers":{"content-type":"text/html; Charset=latin1"}}}}"#;
        assert_eq!(seen(kept).1, "text/html; Charset=latin1");
    }

    #[test]
    fn corner_cases_of_missing_values() {
        assert_eq!(seen(r#"{"Outputs":{}}"#), (200, PLAIN.into(), "{}".into()));
        assert_eq!(
            seen(r#"{"Outputs":{"Res":{"body":"x"}}}"#),
            (200, PLAIN.into(), "{}".into())
        );
        assert_eq!(seen("{}"), (204, String::new(), String::new()));
        assert_eq!(
            seen(r#"{"Outputs":null}"#),
            (204, String::new(), String::new())
        );
        let none = shaped(r#"{"Outputs":{"other":1}}"#, None).unwrap();
        assert_eq!(none.status, StatusCode::NO_CONTENT);
    }

    #[test]
    fn other_kinds_of_response_fail() {
        for value in [
            "null",
            "5",
            "[]",
            "true",
            r#""plain text""#,
            r#"{"headers":{"X":null}}"#,
            r#"{"headers":5}"#,
            r#"{"headers":{"a b":"x"}}"#,
        ] {
            let reply = format!(r#"{{"Outputs":{{"res":{value}}}}}"#);
            assert!(shaped(&reply, Some("res")).is_err(), "{value}");
        }
        assert!(
            shaped(r#"{"ReturnValue":5}"#, Some("res"))
                .unwrap_err()
                .contains("$return")
        );
    }

    #[test]
    fn the_return_value_has_rules_of_its_own() {
        for (value, status, body) in [
            (r#""plain words""#, 200, "plain words"),
            (r#""{\"status\":404,\"body\":\"no\"}""#, 404, "no"),
            (r#"{"statusCode":202,"body":"yes"}"#, 202, "yes"),
            (r#"{"a":1}"#, 200, r#"{"a":1}"#),
            (r#""dGVzdA==""#, 200, "test"),
            ("5", 200, "5"),
            ("null", 204, ""),
        ] {
            let shaped = shaped(&format!(r#"{{"ReturnValue":{value}}}"#), Some("$return")).unwrap();
            assert_eq!(shaped.status.as_u16(), status, "{value}");
            assert_eq!(shaped.body, body, "{value}");
        }
    }
}
