//! The service over real sockets: raw WebSockets and HTTP, and the official JavaScript client.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use signalr_local::{LOCAL_ACCESS_KEY, Service, SignalRLocal};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const DEADLINE: Duration = Duration::from_secs(30);

fn token(audience: &str, more: Value) -> String {
    let mut claims = json!({"aud": audience, "exp": jiff::Timestamp::now().as_second() + 3600});
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(LOCAL_ACCESS_KEY.as_bytes()),
    )
    .unwrap()
}

fn client_token(user: Option<&str>) -> String {
    token(
        "http://127.0.0.1/client/?hub=events",
        user.map_or(json!({}), |user| json!({"asrs.s.uid": user})),
    )
}

async fn rest(service: &Service, method: Method, path: &str, body: Option<Value>) -> Response {
    let token = token(
        &format!("http://127.0.0.1{}", path.split('?').next().unwrap()),
        json!({}),
    );
    let request = Client::new()
        .request(method, service.endpoint() + path)
        .bearer_auth(token);
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    fn url(service: &Service, user: Option<&str>, more: &str) -> String {
        format!(
            "{}/client/?hub=events&access_token={}{more}",
            service.endpoint().replace("http", "ws"),
            client_token(user)
        )
    }

    async fn open(service: &Service, user: Option<&str>) -> Self {
        Self::connect(service, user, "").await
    }

    async fn connect(service: &Service, user: Option<&str>, more: &str) -> Self {
        let url = Self::url(service, user, more);
        let mut socket = Self(connect_async(url).await.unwrap().0);
        socket
            .send("{\"protocol\":\"json\",\"version\":1}\u{1e}{\"type\":6}\u{1e}")
            .await;
        assert_eq!(socket.next().await, "{}\u{1e}");
        socket
    }

    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> String {
        timeout(DEADLINE, self.0.next())
            .await
            .expect("a message in time")
            .unwrap()
            .unwrap()
            .into_text()
            .unwrap()
            .to_string()
    }
}

#[tokio::test]
async fn a_broadcast_reaches_every_connection_as_it_was_sent() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let (mut a, mut b) = (
        Socket::open(&service, None).await,
        Socket::open(&service, Some("ana")).await,
    );
    let raw = "{\"Target\":\"console\",\"Arguments\":[[{\"id\":9007199254740993,\"v\":1.0,\"time\":\"2020-01-01T00:00:00.000Z\"}]]}";
    for path in [
        "/api/hubs/Events/:send?api-version=2022-06-01",
        "/api/v1/hubs/events",
    ] {
        let token = token(
            &format!("http://localhost{}", path.split('?').next().unwrap()),
            json!({}),
        );
        let sent = Client::new()
            .post(service.endpoint() + path)
            .bearer_auth(token)
            .header("content-type", "application/json; charset=utf-8")
            .body(raw)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
        for socket in [&mut a, &mut b] {
            assert_eq!(
                socket.next().await,
                "{\"type\":1,\"target\":\"console\",\"arguments\":[[{\"id\":9007199254740993,\"v\":1.0,\"time\":\"2020-01-01T00:00:00.000Z\"}]]}\u{1e}"
            );
        }
    }
    assert_eq!(service.stats().connections, 2);
    assert_eq!(service.stats().messages, 4);
}

#[tokio::test]
async fn users_and_groups_are_addressed_by_encoded_names() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let path = "/api/hubs/events/users/a%2Fb/groups/x%25y";
    assert_eq!(
        rest(&service, Method::PUT, path, None).await.status(),
        StatusCode::OK
    );
    let (mut member, mut other) = (
        Socket::open(&service, Some("a/b")).await,
        Socket::open(&service, None).await,
    );
    let say = |n: u32| Some(json!({"target": "t", "arguments": [n]}));
    for (path, n) in [
        ("/api/hubs/events/groups/x%25y/:send", 1),
        ("/api/hubs/events/users/a%2Fb/:send", 2),
        ("/api/hubs/events/:send", 3),
    ] {
        assert_eq!(
            rest(&service, Method::POST, path, say(n)).await.status(),
            StatusCode::ACCEPTED
        );
    }
    for n in 1..=3 {
        assert!(member.next().await.contains(&format!("[{n}]")));
    }
    assert!(
        other.next().await.contains("[3]"),
        "the others get what is for all only"
    );

    let missing = rest(
        &service,
        Method::HEAD,
        "/api/hubs/events/connections/nobody",
        None,
    )
    .await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        missing.headers()["x-ms-error-code"],
        "Warning.Connection.NotExisted"
    );
    let unsupported = rest(
        &service,
        Method::POST,
        "/api/hubs/events/:execute",
        Some(json!({})),
    )
    .await;
    assert_eq!(unsupported.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn browsers_may_read_every_answer_and_bad_tokens_are_refused() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let negotiate = service.endpoint() + "/client/negotiate?hub=events&negotiateVersion=1";
    let preflight = Client::new()
        .request(Method::OPTIONS, &negotiate)
        .header("origin", "http://localhost:4280")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,x-signalr-user-agent",
        )
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        preflight.headers()["access-control-allow-headers"],
        "authorization,x-signalr-user-agent"
    );

    let ask = |token: String| {
        Client::new()
            .post(&negotiate)
            .header("origin", "http://localhost:4280")
            .bearer_auth(token)
            .send()
    };
    let refused = ask(token("http://h/client/?hub=other", json!({})))
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        refused.headers()["access-control-allow-origin"],
        "http://localhost:4280"
    );
    assert_eq!(
        refused.headers()["access-control-allow-credentials"],
        "true"
    );

    let answer: Value = ask(client_token(None)).await.unwrap().json().await.unwrap();
    assert_eq!(answer["negotiateVersion"], 1);
    assert_ne!(answer["connectionId"], answer["connectionToken"]);
    assert_eq!(answer["availableTransports"][0]["transport"], "WebSockets");
}

#[tokio::test]
async fn a_stopping_service_lets_its_clients_come_back() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let mut socket = Socket::open(&service, None).await;
    let stopping = tokio::spawn({
        let service = service.clone();
        async move { service.shutdown().await }
    });
    let close: Value =
        serde_json::from_str(socket.next().await.trim_end_matches('\u{1e}')).unwrap();
    assert_eq!(
        (&close["type"], &close["allowReconnect"]),
        (&json!(7), &json!(true))
    );
    drop(socket);
    timeout(DEADLINE, stopping).await.unwrap().unwrap();
    assert!(
        TcpStream::connect(service.endpoint().trim_start_matches("http://"))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_javascript_client_receives_and_reconnects() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/javascript");
    let lock = std::fs::File::create(folder.join(".install.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/.package-lock.json").exists() {
        let installed = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .status();
        assert!(
            installed
                .expect("this test needs Node.js and npm")
                .success()
        );
    }
    drop(lock);
    let endpoint = service.endpoint();
    let outcome = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .arg(folder.join("client.mjs"))
            .args([&endpoint, LOCAL_ACCESS_KEY])
            .stdin(Stdio::null())
            .output()
            .expect("this test needs Node.js")
    });
    let output = timeout(2 * DEADLINE, outcome).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_connection_of_version_0_is_addressed_by_the_id_it_was_told() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let negotiate = service.endpoint() + "/client/negotiate?hub=events";
    let answer: Value = Client::new()
        .post(&negotiate)
        .bearer_auth(client_token(None))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["connectionToken"], Value::Null);
    let id = answer["connectionId"].as_str().unwrap();
    let mut socket = Socket::connect(&service, None, &format!("&id={id}")).await;
    let sent = rest(
        &service,
        Method::POST,
        &format!("/api/hubs/events/connections/{id}/:send"),
        Some(json!({"target": "t", "arguments": ["for you"]})),
    )
    .await;
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    assert!(socket.next().await.contains("for you"));
}

#[tokio::test]
async fn names_and_numbers_outside_their_range_are_refused_and_do_no_harm() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let message = || Some(json!({"target": "t"}));
    for path in [
        "/api/hubs/events/groups//:send".to_owned(),
        "/api/hubs/events/groups/%20/:send".to_owned(),
        "/api/hubs/events/users//:send".to_owned(),
        format!("/api/hubs/events/groups/{}/:send", "x".repeat(1025)),
        "/api/hubs/1events/:send".to_owned(),
        "/api/hubs//:send".to_owned(),
    ] {
        let refused = rest(&service, Method::POST, &path, message()).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    for ttl in ["18446744073709551615", "31536001", "-1", "x"] {
        let path = format!("/api/hubs/events/users/u/groups/g?ttl={ttl}");
        let refused = rest(&service, Method::PUT, &path, None).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{ttl}");
    }
    let big = json!({"target": "t", "arguments": ["x".repeat(1024 * 1024)]});
    let refused = rest(&service, Method::POST, "/api/hubs/events/:send", Some(big)).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_application_has_hubs_of_its_own() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let mut socket = Socket::open(&service, None).await;
    for (query, n) in [("?application=shop", 1), ("", 2)] {
        let path = format!("/api/hubs/events/:send{query}");
        let body = json!({"target": "t", "arguments": [n]});
        let sent = rest(&service, Method::POST, &path, Some(body)).await;
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
    }
    assert!(
        socket.next().await.contains("[2]"),
        "the hub of the application is another"
    );
}

#[tokio::test]
async fn a_close_frame_is_answered_and_the_connection_forgotten() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let mut socket = Socket::open(&service, None).await;
    socket.0.send(Message::Close(None)).await.unwrap();
    let answer = timeout(DEADLINE, socket.0.next()).await.unwrap();
    assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
    timeout(DEADLINE, async {
        while service.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_has_not_shaken_hands() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let url = Socket::url(&service, None, "");
    let (mut socket, _) = connect_async(url).await.unwrap();
    let began = std::time::Instant::now();
    timeout(DEADLINE, service.shutdown()).await.unwrap();
    assert!(
        timeout(DEADLINE, socket.next())
            .await
            .unwrap()
            .is_none_or(|end| !matches!(end, Ok(Message::Text(_)))),
        "the socket ends without a hub message"
    );
    // Far below the handshake timeout of 15 s, so the stop has ended the wait and not the timer.
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_negotiate_version_that_is_no_number_is_told_to_the_client() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let negotiate = service.endpoint() + "/client/negotiate?hub=events&negotiateVersion=x";
    let answer = Client::new()
        .post(&negotiate)
        .bearer_auth(client_token(None))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("negotiateVersion"),
        "{answer}"
    );
}

#[tokio::test]
async fn success_has_the_status_of_its_api_version() {
    let service = SignalRLocal::builder().start().await.unwrap();
    for (method, path, status) in [
        (Method::PUT, "/api/hubs/events/users/u/groups/g", 200),
        (Method::DELETE, "/api/hubs/events/users/u/groups/g", 204),
        (Method::DELETE, "/api/hubs/events/users/u/groups", 204),
        (Method::DELETE, "/api/hubs/events/connections/c", 200),
        (Method::PUT, "/api/v1/hubs/events/groups/g/users/u", 202),
        (Method::DELETE, "/api/v1/hubs/events/groups/g/users/u", 202),
        (Method::DELETE, "/api/v1/hubs/events/users/u/groups", 200),
        (Method::DELETE, "/api/v1/hubs/events/connections/c", 202),
    ] {
        let answer = rest(&service, method.clone(), path, None).await;
        assert_eq!(answer.status(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_is_closed_though_messages_flow() {
    let service = SignalRLocal::builder().start().await.unwrap();
    let mut socket = Socket::open(&service, None).await;
    let body = || Some(json!({"target": "t", "arguments": ["x".repeat(1000)]}));
    let close = timeout(2 * DEADLINE, async {
        loop {
            let sent = rest(&service, Method::POST, "/api/hubs/events/:send", body()).await;
            assert_eq!(sent.status(), StatusCode::ACCEPTED);
            let received: Value =
                serde_json::from_str(socket.next().await.trim_end_matches('\u{1e}')).unwrap();
            if received["type"] == 7 {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(close["allowReconnect"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_answers_is_the_order_of_messages_on_every_connection() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 300;
    let service = SignalRLocal::builder().start().await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        let mut socket = Socket::open(&service, None).await;
        readers.push(tokio::spawn(async move {
            for n in 0..MESSAGES {
                assert!(
                    socket.next().await.contains(&format!("[{n}]")),
                    "message {n}"
                );
            }
        }));
    }
    let client = Client::new();
    let token = token("http://127.0.0.1/api/hubs/events/:send", json!({}));
    for n in 0..MESSAGES {
        let sent = client
            .post(service.endpoint() + "/api/hubs/events/:send")
            .bearer_auth(&token)
            .json(&json!({"target": "t", "arguments": [n]}))
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
    }
    for reader in readers {
        timeout(DEADLINE, reader).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_sent_after_the_handshake_was_answered_arrives() {
    let service = SignalRLocal::builder().start().await.unwrap();
    for n in 0..100 {
        let mut socket = Socket::open(&service, Some("ana")).await;
        let body = json!({"target": "t", "arguments": [n]});
        let path = "/api/hubs/events/users/ana/:send";
        let sent = rest(&service, Method::POST, path, Some(body)).await;
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
        assert!(socket.next().await.contains(&format!("[{n}]")));
    }
}
