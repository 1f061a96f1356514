//! The JSON hub protocol (`dotnet/aspnetcore: src/SignalR/docs/specs/HubProtocol.md`): JSON records, each ended by 0x1E.

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Ends every record.
pub(crate) const RECORD_SEPARATOR: char = '\u{1e}';

/// Versions of the hub protocol that clients may ask for; they differ only where stateful reconnect is negotiated.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;

/// A ping, ready to send.
pub(crate) const PING: Utf8Bytes = Utf8Bytes::from_static("{\"type\":6}\u{1e}");

/// The answer to a good handshake.
pub(crate) const HANDSHAKE_DONE: Utf8Bytes = Utf8Bytes::from_static("{}\u{1e}");

#[derive(Deserialize)]
struct Handshake {
    protocol: String,
    version: u32,
}

/// Checks the first record of a connection; the error is the text for the client.
pub(crate) fn check_handshake(record: &str) -> Result<(), String> {
    let handshake: Handshake = serde_json::from_str(record).map_err(|_| {
        "the first message has to be a handshake such as {\"protocol\":\"json\",\"version\":1}"
            .to_owned()
    })?;
    if handshake.protocol != "json" {
        return Err(format!(
            "no hub protocol named {:?} here: this local service speaks \"json\" only",
            handshake.protocol
        ));
    }
    if !VERSIONS.contains(&handshake.version) {
        return Err(format!(
            "version {} of the hub protocol is not supported; 1 and 2 are",
            handshake.version
        ));
    }
    Ok(())
}

#[derive(Serialize)]
struct HandshakeError<'a> {
    error: &'a str,
}

/// The answer to a bad handshake.
pub(crate) fn handshake_error(error: &str) -> Utf8Bytes {
    record(&HandshakeError { error })
}

/// What a client may send after its handshake. Fields that a serverless service has no use for are left out.
#[derive(Debug, Deserialize)]
pub(crate) struct FromClient {
    #[serde(rename = "type")]
    pub(crate) kind: u8,
    pub(crate) target: Option<String>,
    #[serde(rename = "invocationId")]
    pub(crate) invocation_id: Option<String>,
}

pub(crate) const INVOCATION: u8 = 1;
pub(crate) const STREAM_INVOCATION: u8 = 4;
pub(crate) const CLOSE: u8 = 7;

#[derive(Serialize)]
struct Invocation<'a> {
    #[serde(rename = "type")]
    kind: u8,
    target: &'a str,
    arguments: &'a [Box<RawValue>],
}

/// An invocation of `target` on the client; the arguments go out as they came in, to the byte.
pub(crate) fn invocation(target: &str, arguments: &[Box<RawValue>]) -> Utf8Bytes {
    record(&Invocation {
        kind: INVOCATION,
        target,
        arguments,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completion<'a> {
    #[serde(rename = "type")]
    kind: u8,
    invocation_id: &'a str,
    error: &'a str,
}

/// Tells a client that its invocation has failed.
pub(crate) fn failed(invocation_id: &str, error: &str) -> Utf8Bytes {
    record(&Completion {
        kind: 3,
        invocation_id,
        error,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Close<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    allow_reconnect: bool,
}

/// Ends a connection; a client with automatic reconnect comes back when it is allowed to.
pub(crate) fn close(error: Option<&str>, allow_reconnect: bool) -> Utf8Bytes {
    record(&Close {
        kind: CLOSE,
        error,
        allow_reconnect,
    })
}

fn record(message: &impl Serialize) -> Utf8Bytes {
    let mut text =
        serde_json::to_string(message).expect("plain structs with string keys serialise");
    text.push(RECORD_SEPARATOR);
    text.into()
}

/// Puts records together from the pieces they arrive in.
#[derive(Default)]
pub(crate) struct Records {
    buffer: String,
}

impl Records {
    /// Adds a piece; the error is a record longer than `limit` bytes.
    pub(crate) fn push(&mut self, piece: &str, limit: usize) -> Result<Vec<String>, TooLong> {
        self.buffer.push_str(piece);
        let mut records = Vec::new();
        while let Some(end) = self.buffer.find(RECORD_SEPARATOR) {
            let rest = self.buffer.split_off(end + RECORD_SEPARATOR.len_utf8());
            self.buffer.truncate(end);
            records.push(std::mem::replace(&mut self.buffer, rest));
        }
        if self.buffer.len() > limit || records.iter().any(|record| record.len() > limit) {
            return Err(TooLong);
        }
        Ok(records)
    }
}

/// A record over the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes() {
        assert_eq!(
            check_handshake(r#"{"protocol":"json","version":1}"#),
            Ok(())
        );
        assert_eq!(
            check_handshake(r#"{"protocol":"json","version":2}"#),
            Ok(())
        );
        for (bad, says) in [
            (r#"{"protocol":"messagepack","version":1}"#, "messagepack"),
            (r#"{"protocol":"json","version":3}"#, "version 3"),
            (r#"{"type":6}"#, "handshake"),
            ("GET /", "handshake"),
        ] {
            assert!(check_handshake(bad).expect_err(bad).contains(says), "{bad}");
        }
    }

    #[test]
    fn records_are_found_in_any_pieces() {
        let text = "{}\u{1e}{\"type\":6}\u{1e}ü\u{1e}";
        for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let mut records = Records::default();
            let mut all = records.push(&text[..cut], 100).expect("short");
            all.extend(records.push(&text[cut..], 100).expect("short"));
            assert_eq!(all, ["{}", "{\"type\":6}", "ü"], "cut at {cut}");
        }
        assert_eq!(Records::default().push("12345", 4), Err(TooLong));
    }

    #[test]
    fn arguments_keep_their_text() {
        let raw = r#"[9007199254740993,1.0,"2020-01-01T00:00:00.000Z",{"b":null,"a":"ü"}]"#;
        let arguments: Vec<Box<RawValue>> = serde_json::from_str(raw).expect("JSON");
        let expected = format!("{{\"type\":1,\"target\":\"t\",\"arguments\":{raw}}}\u{1e}");
        assert_eq!(invocation("t", &arguments).as_str(), expected);
        assert_eq!(
            close(None, true).as_str(),
            "{\"type\":7,\"allowReconnect\":true}\u{1e}"
        );
    }
}
