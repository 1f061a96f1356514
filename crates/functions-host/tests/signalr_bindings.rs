//! The SignalR bindings against a local service with real WebSocket clients, and against a scripted
//! server for what a healthy service does not do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use functions_host::binding::{BindingError, Encoded, SignalRConnectionInfo, SignalROutput};
use functions_host::binding_data::{BindingData, DataValue};
use functions_host::expression::Template;
use functions_host::settings::{Origin, Settings};
use functions_host::signalr::{ATTEMPTS, SignalRClients, connection_info, output};
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use signalr_local::SignalRLocal;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const DEADLINE: Duration = Duration::from_secs(60);

/// Ends every hub message.
const RECORD_SEPARATOR: char = '\u{1e}';

fn clients(connection_string: &str) -> SignalRClients {
    let mut settings = Settings::default();
    settings.set(Origin::Explicit, "SignalR", connection_string);
    SignalRClients::new(Arc::new(settings), None)
}

fn info(user: Option<&str>) -> SignalRConnectionInfo {
    SignalRConnectionInfo {
        name: "info".into(),
        connection: "SignalR".into(),
        hub: Template::parse("Events").unwrap(),
        user_id: user.map(|user| Template::parse(user).unwrap()),
        id_token: None,
        claim_types: Vec::new(),
    }
}

fn out() -> SignalROutput {
    SignalROutput {
        name: "messages".into(),
        connection: "SignalR".into(),
        hub: Template::parse("Events").unwrap(),
    }
}

fn data() -> BindingData {
    let mut data = BindingData::new("F");
    data.set("user", DataValue::Text("ana".into()));
    data
}

fn maps(items: Value) -> Vec<Map<String, Value>> {
    serde_json::from_value(items).unwrap()
}

async fn send(clients: &SignalRClients, items: Value) -> Result<(), BindingError> {
    output::send(clients, &out(), &data(), &maps(items)).await
}

async fn connect_info(clients: &SignalRClients, user: Option<&str>) -> (String, String) {
    let value = connection_info(clients, &info(user), &data())
        .await
        .unwrap();
    let Encoded::Text(text) = value else {
        panic!("{value:?}")
    };
    assert!(text.contains("\n  \"url\""), "indented: {text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let member = |name: &str| value[name].as_str().unwrap().to_owned();
    (member("url"), member("accessToken"))
}

/// A client on a WebSocket of its own, past the handshake.
struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: Vec<Value>,
}

impl Client {
    async fn connect(clients: &SignalRClients, user: Option<&str>) -> Self {
        let (url, token) = connect_info(clients, user).await;
        let url = url.replacen("http://", "ws://", 1);
        let (socket, _) = tokio_tungstenite::connect_async(format!("{url}&access_token={token}"))
            .await
            .unwrap();
        let mut client = Self {
            socket,
            waiting: Vec::new(),
        };
        let hello = format!(
            "{}{RECORD_SEPARATOR}",
            json!({"protocol": "json", "version": 1})
        );
        client.socket.send(Message::text(hello)).await.unwrap();
        assert_eq!(client.next().await, json!({}));
        client
    }

    async fn next(&mut self) -> Value {
        while self.waiting.is_empty() {
            let message = tokio::time::timeout(DEADLINE, self.socket.next()).await;
            let message = message.expect("a message arrives").unwrap().unwrap();
            if let Message::Text(text) = message {
                let records = text
                    .split(RECORD_SEPARATOR)
                    .filter(|record| !record.is_empty());
                self.waiting
                    .extend(records.map(|record| serde_json::from_str::<Value>(record).unwrap()));
            }
        }
        self.waiting.remove(0)
    }

    /// Target and arguments of the next invocation; pings are skipped.
    async fn invocation(&mut self) -> (String, Value) {
        loop {
            let message = self.next().await;
            if message["type"] == 1 {
                return (
                    message["target"].as_str().unwrap().to_owned(),
                    message["arguments"].clone(),
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_reaches_every_client_as_it_was_sent() {
    let service = SignalRLocal::builder().port(0).start().await.unwrap();
    let clients = clients(&service.connection_string());
    let mut one = Client::connect(&clients, None).await;
    let mut two = Client::connect(&clients, Some("{user}")).await;
    let events = json!([[{"id": "e-1", "deviceId": "dev-7", "region": "West US", "value": 0.1}]]);
    send(
        &clients,
        json!([{"target": "console", "arguments": events}]),
    )
    .await
    .unwrap();
    for client in [&mut one, &mut two] {
        assert_eq!(
            client.invocation().await,
            ("console".to_owned(), events.clone())
        );
    }
    service.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_groups_are_addressed_in_order() {
    let service = SignalRLocal::builder().port(0).start().await.unwrap();
    let clients = clients(&service.connection_string());
    let mut ana = Client::connect(&clients, Some("{user}")).await;
    let mut other = Client::connect(&clients, Some("bo")).await;
    send(
        &clients,
        json!([
            {"target": "t", "arguments": ["to ana"], "userId": "ana"},
            {"action": "add", "userId": "bo", "groupName": "eu/west"},
            {"target": "t", "arguments": ["to the group"], "groupName": "eu/west"},
            {"action": "remove", "userId": "bo", "groupName": "eu/west"},
            {"target": "t", "arguments": ["to nobody"], "groupName": "eu/west"},
            {"action": "removeAll", "userId": "bo"},
            {"target": "t", "arguments": ["to all"]},
        ]),
    )
    .await
    .unwrap();
    let heard = |texts: &[&str]| texts.iter().map(|text| json!([text])).collect::<Vec<_>>();
    let hear =
        async |client: &mut Client| vec![client.invocation().await.1, client.invocation().await.1];
    assert_eq!(hear(&mut ana).await, heard(&["to ana", "to all"]));
    assert_eq!(hear(&mut other).await, heard(&["to the group", "to all"]));
    service.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_info_points_at_the_hub_in_lower_case_with_the_port() {
    let clients = clients("Endpoint=http://127.0.0.1;AccessKey=k;Version=1.0;Port=8888");
    let (url, token) = connect_info(&clients, Some("{user}")).await;
    assert_eq!(url, "http://127.0.0.1:8888/client/?hub=events");
    let payload = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(claims["aud"], "http://127.0.0.1/client/?hub=events");
    assert_eq!(claims["asrs.s.uid"], "ana");
    let lifetime = claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap();
    assert_eq!(lifetime, 3600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_item_is_named_and_nothing_is_sent() {
    let script = Script::start(&[]).await;
    let clients = clients(&script.connection_string);
    let error = send(
        &clients,
        json!([{"target": "t", "arguments": []}, {"message": "hello"}]),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, BindingError::InvalidOutput(_)));
    assert!(
        error
            .to_string()
            .starts_with("item 1: an item needs \"target\""),
        "{error}"
    );
    assert!(script.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_look_like_those_of_the_real_extension() {
    let script = Script::start(&[]).await;
    let clients = clients(&script.connection_string);
    send(
        &clients,
        json!([
            {"target": "t", "arguments": [1]},
            {"action": "add", "connectionId": "c 1", "groupName": "g"},
        ]),
    )
    .await
    .unwrap();
    assert_eq!(
        script.calls(),
        [
            "POST /api/hubs/events/:send?api-version=2022-06-01",
            "PUT /api/hubs/events/groups/g/connections/c%201?api-version=2022-06-01",
        ]
    );
    // The audience is the call without the port, and every token is fresh for its call.
    let audiences = script.audiences();
    assert_eq!(
        audiences,
        BTreeSet::from([
            "http://127.0.0.1/api/hubs/events/:send?api-version=2022-06-01".to_owned(),
            "http://127.0.0.1/api/hubs/events/groups/g/connections/c%201?api-version=2022-06-01"
                .to_owned(),
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_service_is_asked_again_and_a_refusal_is_final() {
    let message = json!([{"target": "t", "arguments": []}]);
    let action = json!([{"action": "add", "userId": "u", "groupName": "g"}]);
    for (items, answers, calls, expected) in [
        (&message, &[503, 503, 202][..], 3, None),
        (
            &message,
            &[503, 503, 503, 503],
            ATTEMPTS as usize,
            Some("503"),
        ),
        // The service may have shown it before it failed: not twice.
        (&message, &[500, 202], 1, Some("500")),
        (&message, &[400, 202], 1, Some("400 Bad Request: no good")),
        (&message, &[401, 202], 1, Some("401")),
        (&action, &[500, 200], 2, None),
        (&action, &[408, 200], 2, None),
        (&action, &[404, 200], 1, Some("404")),
    ] {
        let script = Script::start(answers).await;
        let result = send(&clients(&script.connection_string), items.clone()).await;
        assert_eq!(script.calls().len(), calls, "{answers:?}");
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                let text = error.to_string();
                assert!(matches!(error, BindingError::Service { .. }));
                assert!(
                    text.contains(expected) && text.contains("/api/hubs/events/"),
                    "{text}"
                );
                assert!(!text.contains("s3cret"), "{text}");
            }
            (result, _) => panic!("{answers:?}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_connection_that_is_gone_is_no_failure() {
    let script = Script::start(&[-404]).await;
    let clients = clients(&script.connection_string);
    send(
        &clients,
        json!([{"action": "add", "connectionId": "c", "groupName": "g"}]),
    )
    .await
    .unwrap();
    let script = Script::start(&[-404]).await;
    let clients = self::clients(&script.connection_string);
    send(
        &clients,
        json!([{"action": "add", "userId": "u", "groupName": "g"}]),
    )
    .await
    .unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let clients = clients(&format!(
        "Endpoint=http://127.0.0.1:{port};AccessKey=s3cret;Version=1.0;"
    ));
    let error = send(&clients, json!([{"target": "t", "arguments": []}]))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("POST /api/hubs/events/:send"), "{error}");
    assert!(error.to_lowercase().contains("refused"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

/// A server that answers as told and remembers what it was asked. A negative status carries the
/// header that says a connection is gone; when the script ends it answers 202.
struct Script {
    connection_string: String,
    state: Arc<Mutex<ScriptState>>,
}

#[derive(Default)]
struct ScriptState {
    answers: Vec<i32>,
    calls: Vec<String>,
    audiences: BTreeSet<String>,
}

impl Script {
    async fn start(answers: &[i32]) -> Self {
        let state = Arc::new(Mutex::new(ScriptState {
            answers: answers.to_vec(),
            ..ScriptState::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            connection_string: format!(
                "Endpoint=http://127.0.0.1:{port};AccessKey=s3cret;Version=1.0;"
            ),
            state,
        }
    }

    fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    fn audiences(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().audiences.clone()
    }
}

async fn answer(
    State(state): State<Arc<Mutex<ScriptState>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut state = state.lock().unwrap();
    state.calls.push(format!("{method} {uri}"));
    let token = headers["authorization"]
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let payload = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    state
        .audiences
        .insert(claims["aud"].as_str().unwrap().to_owned());
    let code = if state.answers.is_empty() {
        202
    } else {
        state.answers.remove(0)
    };
    let status = StatusCode::from_u16(code.unsigned_abs() as u16).unwrap();
    if code < 0 {
        return (status, [("x-ms-error-code", "Error.Connection.NotExisted")]).into_response();
    }
    (status, "no good").into_response()
}
