//! An HTTP request as a trigger: `Data.<name>` and binding data.
//!
//! Source: `Azure/azure-functions-host: src/WebJobs.Script/Extensions/HttpRequestExtensions.cs`,
//! `Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.Http/HttpTriggerAttributeBindingProvider.cs`.
//!
//! Local choices: one empty identity, always; names of headers that are not standard arrive in lower case, since the HTTP
//! library does not keep their spelling (handlers look headers up ignoring case anyway).

use std::borrow::Cow;

use base64::Engine as _;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::route::RouteValues;
use crate::binding::Encoded;
use crate::binding_data::{BindingData, DataValue, scalar_text};
use crate::json::{Kind, RawObject};

/// An `httpTrigger`'s value and names.
#[derive(Debug)]
pub(crate) struct HttpInvocation {
    /// `Data.<trigger name>`: always an object.
    pub(crate) request: Encoded,
    /// Names for expressions and `Metadata`.
    pub(crate) binding_data: BindingData,
}

/// `Data.<trigger name>` on the wire.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RequestData<'a> {
    url: String,
    method: &'a str,
    query: Ordered<&'a [(String, String)]>,
    headers: Ordered<&'a [(String, Vec<String>)]>,
    params: Ordered<&'a [(String, Option<String>)]>,
    identities: [Identity; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

/// A list of pairs, written as an object in their order.
struct Ordered<T>(T);

impl<V: Serialize> Serialize for Ordered<&[(String, V)]> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The identity of a caller who showed no key.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Identity {
    authentication_type: Option<&'static str>,
    is_authenticated: bool,
    actor: Option<&'static str>,
    bootstrap_context: Option<&'static str>,
    claims: [Value; 0],
    label: Option<&'static str>,
    name: Option<&'static str>,
    name_claim_type: &'static str,
    role_claim_type: &'static str,
}

const ANONYMOUS: Identity = Identity {
    authentication_type: None,
    is_authenticated: false,
    actor: None,
    bootstrap_context: None,
    claims: [],
    label: None,
    name: None,
    name_claim_type: "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
    role_claim_type: "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
};

/// Builds the trigger value of `function` from a request. `body` is what came with a `Content-Length`; a chunked body is
/// not read, as in the real host.
pub(crate) fn http_invocation(
    function: &str,
    parts: &Parts,
    body: &Bytes,
    values: &RouteValues,
) -> Result<HttpInvocation, serde_json::Error> {
    let query = query_pairs(parts.uri.query().unwrap_or_default());
    let headers = header_lines(&parts.headers);
    let text = (!body.is_empty()).then(|| body_text(&parts.headers, body));
    let request = RequestData {
        url: url(parts),
        method: parts.method.as_str(),
        query: Ordered(&query),
        headers: Ordered(&headers),
        params: Ordered(values),
        identities: [ANONYMOUS],
        body: text.as_deref(),
    };
    let request = Encoded::Object(RawValue::from_string(serde_json::to_string(&request)?)?);

    let mut data = BindingData::new(function);
    if let Some(object) = text.as_deref().and_then(|text| RawObject::parse(text).ok()) {
        for (name, value) in object.iter() {
            match Kind::of(value) {
                Kind::Object => data.set(name, DataValue::Json(value.to_owned())),
                Kind::Array | Kind::Null => {}
                Kind::String | Kind::Number | Kind::Bool => {
                    data.set(
                        name,
                        DataValue::Text(scalar_text(value).unwrap_or_default()),
                    );
                }
            }
        }
    }
    for (name, value) in
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
    {
        if !name.eq_ignore_ascii_case("code") {
            data.set(&name, DataValue::Text(value.into_owned()));
        }
    }
    for (name, value) in values {
        let value = value.clone().map_or(DataValue::Null, DataValue::Text);
        data.set(name, value);
    }
    data.set_if_absent("Query", DataValue::query(query));
    data.set_if_absent(
        "Headers",
        DataValue::headers(
            headers
                .into_iter()
                .map(|(name, lines)| (name, lines.join(","))),
        ),
    );
    Ok(HttpInvocation {
        request,
        binding_data: data,
    })
}

fn url(parts: &Parts) -> String {
    let host = parts
        .headers
        .get(header::HOST)
        .map(|host| String::from_utf8_lossy(host.as_bytes()))
        .unwrap_or_default();
    let query = parts
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!("http://{host}{}{query}", parts.uri.path())
}

/// Values of one name, in any casing, joined with commas.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match pairs
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
        {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => pairs.push((name.into_owned(), value.into_owned())),
        }
    }
    pairs
}

fn header_lines(headers: &HeaderMap) -> Vec<(String, Vec<String>)> {
    headers
        .keys()
        .map(|name| {
            let lines = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            (canonical(name.as_str()).into_owned(), lines)
        })
        .collect()
}

/// The usual casing of a standard header; other names as they are.
fn canonical(name: &str) -> Cow<'_, str> {
    const STANDARD: [&str; 45] = [
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "connection",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-authorization",
        "range",
        "referer",
        "request-id",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "warning",
        "x-requested-with",
    ];
    if STANDARD.binary_search(&name).is_err() {
        return Cow::Borrowed(name);
    }
    let mut start = true;
    Cow::Owned(
        name.chars()
            .map(|c| {
                let shown = if start { c.to_ascii_uppercase() } else { c };
                start = c == '-';
                shown
            })
            .collect(),
    )
}

/// Binary content types as base64, everything else as text. JSON is text, too.
fn body_text(headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media == "application/octet-stream" || content_type.contains("multipart/") {
        return base64::engine::general_purpose::STANDARD.encode(body);
    }
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| unit([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match body {
        [0xEF, 0xBB, 0xBF, text @ ..] => String::from_utf8_lossy(text).into_owned(),
        [0xFF, 0xFE, text @ ..] => utf16(text, u16::from_le_bytes),
        [0xFE, 0xFF, text @ ..] => utf16(text, u16::from_be_bytes),
        text => String::from_utf8_lossy(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::invocation::request_body;
    use serde_json::json;

    fn wire(request: http::request::Builder, body: &'static [u8], values: RouteValues) -> Value {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let invocation =
            http_invocation("WriteEvent", &parts, &Bytes::from_static(body), &values).unwrap();
        let body = request_body(
            &[("req", invocation.request)],
            &invocation.binding_data,
            None,
        );
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_json_post_arrives_as_documented() {
        let body = wire(
            http::Request::post("/api/WriteEvent?source=sim&code=k")
                .header("host", "localhost:7071")
                .header("content-type", "application/json")
                .header("x-device", "a")
                .header("x-device", "b"),
            br#"{"id":"e-1","deviceId":"dev-7","value":41,"ok":true,"tags":[1],"at":{"x":1},"none":null}"#,
            vec![],
        );
        assert_eq!(
            body["Data"]["req"],
            json!({
                "Url": "http://localhost:7071/api/WriteEvent?source=sim&code=k",
                "Method": "POST",
                "Query": {"source": "sim", "code": "k"},
                "Headers": {"Host": ["localhost:7071"], "Content-Type": ["application/json"], "x-device": ["a", "b"]},
                "Params": {},
                "Identities": [{
                    "AuthenticationType": null, "IsAuthenticated": false, "Actor": null, "BootstrapContext": null,
                    "Claims": [], "Label": null, "Name": null,
                    "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
                    "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
                }],
                "Body": r#"{"id":"e-1","deviceId":"dev-7","value":41,"ok":true,"tags":[1],"at":{"x":1},"none":null}"#,
            })
        );
        let mut metadata = body["Metadata"].clone();
        metadata.as_object_mut().unwrap().remove("sys");
        assert_eq!(
            metadata,
            json!({
                "id": "\"e-1\"", "deviceId": "\"dev-7\"", "value": "\"41\"", "ok": "\"True\"", "at": {"x": 1},
                "source": "\"sim\"",
                "Query": {"source": "sim", "code": "k"},
                "Headers": {"Host": "localhost:7071", "Content-Type": "application/json", "x-device": "a,b"},
            })
        );
    }

    #[test]
    fn body_gives_way_to_query_and_query_to_route() {
        let body = wire(
            http::Request::post("/api/x?a=query&b=query&B=last"),
            br#"{"A":"body","b":"body","c":"body"}"#,
            vec![
                ("a".into(), Some("route".into())),
                ("optional".into(), None),
            ],
        );
        assert_eq!(body["Metadata"]["A"], "\"route\"");
        assert_eq!(body["Metadata"]["b"], "\"last\"");
        assert_eq!(body["Metadata"]["c"], "\"body\"");
        assert_eq!(body["Metadata"].get("optional"), None);
        assert_eq!(
            body["Data"]["req"]["Params"],
            json!({"a": "route", "optional": null})
        );
        assert_eq!(
            body["Data"]["req"]["Query"],
            json!({"a": "query", "b": "query,last"})
        );
    }

    #[test]
    fn binary_bodies_are_base64_and_an_empty_one_is_absent() {
        for (content_type, bytes, shown) in [
            ("application/octet-stream", &b"\x00\xff"[..], "AP8="),
            ("multipart/form-data; boundary=x", b"--x", "LS14"),
            ("text/plain", b"\xef\xbb\xbfhi", "hi"),
            ("image/png", b"\xffx", "\u{fffd}x"),
        ] {
            let body = wire(
                http::Request::post("/").header("content-type", content_type),
                bytes,
                vec![],
            );
            assert_eq!(body["Data"]["req"]["Body"], shown, "{content_type}");
        }
        let none = wire(http::Request::get("/"), b"", vec![]);
        assert_eq!(none["Data"]["req"].get("Body"), None);
    }

    #[test]
    fn the_table_of_standard_headers_is_sorted() {
        assert_eq!(canonical("x-requested-with"), "X-Requested-With");
        assert_eq!(canonical("accept"), "Accept");
        assert_eq!(canonical("if-none-match"), "If-None-Match");
        assert_eq!(canonical("x-custom"), "x-custom");
    }
}
