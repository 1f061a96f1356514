//! The handler over a real socket: recorded invocations in, replies out.
//!
//! `tests/payloads/<Function>/<case>.json` is what the host sends, `<case>.reply.json` beside it what the handler must
//! answer. With `BLESS=1` in the environment the replies are written anew; read the difference before you keep it.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use geo_events::{
    functions::{App, Function, Source},
    handler::Handler,
    settings::{NotificationScope, Settings},
};
use jiff::Timestamp;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

const INVOCATION_ID: &str = "X-Azure-Functions-InvocationId";

/// A handler in a thread of its own, at a fixed time.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        let (started, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut app = App::new(settings);
                app.source = Source {
                    now: || Timestamp::from_millisecond(1_772_359_200_123).expect("in range"),
                    id: || Uuid::from_u128(0x0190_d1c2_0000_7000_8000_0000_0000_0001),
                };
                let handler = Handler::bind(app, 0).expect("a free port");
                started.send(handler.address()).expect("the test waits");
                handler
                    .run(async {
                        let _ = stopped.await;
                    })
                    .await
                    .expect("the handler stops well");
            });
        });
        let address = address.recv().expect("the handler starts");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the handler panicked");
        }
    }
}

fn west_us() -> Running {
    Running::start(Settings::of_region("West US"))
}

fn payloads() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads")
}

/// The recorded invocations of a function, by case.
fn cases(function: Function) -> Vec<PathBuf> {
    let dir = payloads().join(function.name());
    let mut cases: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| !path.to_string_lossy().ends_with(".reply.json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no payloads in {}", dir.display());
    cases
}

async fn post(url: String, body: impl Into<reqwest::Body>) -> (StatusCode, String, Vec<u8>) {
    let request = reqwest::Client::new()
        .post(url)
        .header(CONTENT_TYPE, "application/json; charset=utf-8");
    let answer = request
        .header(INVOCATION_ID, Uuid::nil().to_string())
        .body(body)
        .send()
        .await
        .expect("an answer");
    let content_type = answer
        .headers()
        .get(CONTENT_TYPE)
        .expect("a content type")
        .to_str()
        .expect("text")
        .to_owned();
    (
        answer.status(),
        content_type,
        answer.bytes().await.expect("a body").to_vec(),
    )
}

#[tokio::test]
async fn recorded_invocations() {
    let handler = west_us();
    for function in Function::ALL {
        for case in cases(function) {
            let (status, content_type, reply) = post(
                handler.url(function.name()),
                fs::read(&case).expect("readable"),
            )
            .await;
            assert_eq!(
                status,
                StatusCode::OK,
                "{}: {}",
                case.display(),
                String::from_utf8_lossy(&reply)
            );
            assert_eq!(content_type, "application/json", "{}", case.display());
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            well_formed(function, &reply);

            let expected = case.with_extension("reply.json");
            if std::env::var_os("BLESS").is_some() {
                fs::write(&expected, format!("{reply:#}\n")).expect("writable");
            }
            let expected: Value = serde_json::from_slice(
                &fs::read(&expected)
                    .unwrap_or_else(|error| panic!("{}: {error}", expected.display())),
            )
            .expect("JSON");
            assert_eq!(reply, expected, "{}", case.display());
        }
    }
}

/// What the host demands of every reply.
fn well_formed(function: Function, reply: &Value) {
    let definition: Value = serde_json::from_str(function.definition()).expect("JSON");
    let outputs: BTreeSet<&str> = definition["bindings"]
        .as_array()
        .expect("bindings")
        .iter()
        .filter(|binding| binding["direction"] == "out")
        .map(|binding| binding["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(reply["ReturnValue"], Value::Null);
    assert!(reply["Logs"].is_null() || reply["Logs"].is_array());
    for (name, value) in reply["Outputs"].as_object().expect("outputs") {
        assert!(
            outputs.contains(name.as_str()),
            "{function:?} has no output binding {name}"
        );
        let items = match value {
            Value::Array(items) => items.clone(),
            Value::Object(_) => vec![value.clone()],
            other => panic!("{name} is neither an object nor an array of objects: {other}"),
        };
        for item in items {
            match name.as_str() {
                "res" => {
                    assert!(
                        item["statusCode"].is_u64() && item["body"].is_string(),
                        "{item}"
                    );
                    let body = item["body"].as_str().expect("text");
                    assert!(
                        serde_json::from_str::<Value>(body).is_ok(),
                        "the body is no JSON: {body}"
                    );
                    assert!(item["headers"]["content-type"].is_string(), "{item}");
                }
                "messages" => assert!(
                    item["target"].is_string() && item["arguments"].is_array(),
                    "{item}"
                ),
                _ => assert!(item["id"].is_string(), "a document without id: {item}"),
            }
        }
    }
    if outputs.contains("res") {
        assert!(
            reply["Outputs"]["res"].is_object(),
            "{function:?} leaves its caller without an answer"
        );
    }
}

#[tokio::test]
async fn chunked_and_parallel_invocations() {
    let handler = west_us();
    let body = fs::read(payloads().join("WriteEvent/one.json")).expect("readable");
    let answers = (0..64).map(|n| {
        let url = handler.url("WriteEvent");
        let body = body.clone();
        async move {
            if n % 2 == 0 {
                return post(url, body).await;
            }
            // A stream has no known length, so this goes out with `Transfer-Encoding: chunked`.
            let chunks: Vec<_> = body
                .chunks(100)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect();
            post(
                url,
                reqwest::Body::wrap_stream(futures::stream::iter(chunks)),
            )
            .await
        }
    });
    let answers = futures::future::join_all(answers).await;
    let first = &answers[0];
    assert_eq!(first.0, StatusCode::OK);
    assert!(answers.iter().all(|answer| answer == first));
}

#[tokio::test]
async fn scope_and_origins_are_settings() {
    let mut settings = Settings::of_region("North Europe");
    settings.notification_scope = NotificationScope::Origin;
    let handler = Running::start(settings);
    for function in [Function::Notifications, Function::Materialized] {
        let batch =
            fs::read(payloads().join(function.name()).join("batch.json")).expect("readable");
        let (_, _, reply) = post(handler.url(function.name()), batch).await;
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        let found = match function {
            Function::Notifications => &reply["Outputs"]["messages"]["arguments"][0],
            _ => &reply["Outputs"]["materialized"],
        };
        let regions: Vec<_> = found
            .as_array()
            .expect("an array")
            .iter()
            .map(|item| &item["region"])
            .collect();
        assert_eq!(regions, ["North Europe"], "{function:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_understood_fails_the_invocation() {
    let handler = west_us();
    for (path, body, status) in [
        ("WriteEvent", "", StatusCode::INTERNAL_SERVER_ERROR),
        ("WriteEvent", "{", StatusCode::INTERNAL_SERVER_ERROR),
        ("WriteEvent", "[]", StatusCode::INTERNAL_SERVER_ERROR),
        (
            "WriteEvent",
            r#"{"Data":{}}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        (
            "Materialized",
            r#"{"Data":{"events":"no JSON"}}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        (
            "Materialized",
            r#"{"Data":{"events":"{\"id\":\"e-1\"}"}}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        (
            "Notifications",
            r#"{"Data":{"events":"[{]"}}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
        // Names are exact.
        ("writeevent", "{}", StatusCode::NOT_FOUND),
        ("nothing", "{}", StatusCode::NOT_FOUND),
    ] {
        let (found, content_type, answer) = post(handler.url(path), body).await;
        assert_eq!(found, status, "{path} {body}");
        assert_eq!(content_type, "application/json");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_oversized_invocation_is_refused_and_the_next_is_served() {
    let handler = west_us();
    let padding = "x".repeat(geo_events::invocation::MAX_INVOCATION);
    let body = json!({"Data": {"req": {}}, "Metadata": {"padding": padding}}).to_string();
    let chunk = |text: String| Ok::<_, std::io::Error>(text);
    let client = reqwest::Client::new();
    let sent = client
        .post(handler.url("WriteEvent"))
        .body(reqwest::Body::wrap_stream(futures::stream::iter([chunk(
            body,
        )])))
        .send()
        .await;
    // The answer comes before all was sent; a client that goes on sending may see the end of the connection instead.
    if let Ok(answer) = sent {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = fs::read(payloads().join("WriteEvent/one.json")).expect("readable");
    assert_eq!(
        post(handler.url("WriteEvent"), body).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_large_event_body_is_a_problem_of_the_caller() {
    let handler = west_us();
    let spaces = " ".repeat(geo_events::functions::write_event::MAX_BODY);
    let event = format!("{spaces}{}", json!({"deviceId": "d", "value": 1}));
    let body = json!({"Data": {"req": {"Body": event}}}).to_string();
    let (status, _, reply) = post(handler.url("WriteEvent"), body).await;
    assert_eq!(status, StatusCode::OK);
    let reply: Value = serde_json::from_slice(&reply).expect("JSON");
    assert_eq!(reply["Outputs"]["res"]["statusCode"], 413);
    assert_eq!(reply["Outputs"]["events"], Value::Null);
}

#[tokio::test]
async fn the_host_sees_that_it_is_ready() {
    let handler = west_us();
    let answer = reqwest::get(handler.url("")).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}
