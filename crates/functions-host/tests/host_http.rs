//! A whole host over HTTP: what the handler receives, what the caller gets.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Log, Root, eventually, within};
use functions_host::FunctionsHost;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

async fn get(host: &FunctionsHost, path: &str) -> Response {
    Client::new()
        .get(format!("{}{path}", host.url()))
        .send()
        .await
        .unwrap()
}

async fn seen(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    (status, content_type, response.text().await.unwrap())
}

#[tokio::test]
async fn the_handler_gets_the_invocation_and_the_caller_the_answer() {
    let root = Root::new(json!({}));
    root.function(
        "Echo",
        json!({"bindings": [
            {"type": "httpTrigger", "name": "req", "route": "echo/{deviceId}/{view?}"},
            {"type": "http", "direction": "out", "name": "res"},
        ]}),
        json!({"echo": true}),
    );
    let host = root.start().await;
    let response = Client::new()
        .put(format!("{}/api/echo/dev-7?source=sim", host.url()))
        .header("content-type", "application/json")
        .body(r#"{"value":41}"#)
        .send()
        .await
        .unwrap();
    let (status, content_type, body) = seen(response).await;
    assert_eq!(
        (status, content_type.as_str()),
        (200, "text/plain; charset=utf-8")
    );

    let echoed: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (echoed["method"].as_str(), echoed["path"].as_str()),
        (Some("POST"), Some("/Echo"))
    );
    let headers = &echoed["headers"];
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(
        headers["x-azure-functions-hostversion"],
        functions_host::HOST_VERSION
    );
    assert!(
        headers["user-agent"]
            .as_str()
            .unwrap()
            .starts_with("Azure-Functions-Host/4.")
    );
    let id = headers["x-azure-functions-invocationid"].as_str().unwrap();
    assert_eq!(id.len(), 36);

    let request = &echoed["body"]["Data"]["req"];
    assert_eq!(request["Method"], "PUT");
    assert_eq!(
        request["Url"],
        format!("{}/api/echo/dev-7?source=sim", host.url())
    );
    assert_eq!(
        request["Params"],
        json!({"deviceId": "dev-7", "view": null})
    );
    assert_eq!(request["Body"], r#"{"value":41}"#);
    assert_eq!(request["Headers"]["Content-Length"], json!(["12"]));
    let metadata = &echoed["body"]["Metadata"];
    assert_eq!(metadata["deviceId"], "\"dev-7\"");
    assert_eq!(metadata["sys"]["MethodName"], "Echo");
    assert!(metadata.get("RetryContext").is_none());

    // Another invocation has another id.
    within(
        "second",
        Client::new()
            .get(format!("{}/api/echo/x", host.url()))
            .send(),
    )
    .await
    .unwrap();
    let requests = root.requests();
    assert_ne!(requests[1]["headers"]["x-azure-functions-invocationid"], id);
    assert!(requests[1]["body"]["Data"]["req"].get("Body").is_none());
    host.stop().await;
}

#[tokio::test]
async fn a_chunked_body_is_lost_as_in_the_real_host() {
    let root = Root::new(json!({}));
    root.http("Echo", json!({"echo": true}));
    let host = root.start().await;
    let address = host.url().replace("http://", "");
    let raw = format!(
        "POST /api/echo HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(raw.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        root.requests()[0]["body"]["Data"]["req"]
            .get("Body")
            .is_none()
    );
    host.stop().await;
}

#[tokio::test]
async fn replies_are_shaped_as_documented() {
    let root =
        Root::new(json!({"extensions": {"http": {"customHeaders": {"X-Frame-Options": "DENY"}}}}));
    root.http("F", json!({}));
    let host = root.start().await;
    let plain = "text/plain; charset=utf-8";
    for (reply, expected) in [
        (
            json!({"Outputs": {"res": {"statusCode": 201, "headers": {"content-type": "application/json"}, "body": "[1]"}}}),
            (201, "application/json; charset=utf-8", "[1]"),
        ),
        (
            json!({"Outputs": {"res": {"body": {"a": 1}}}}),
            (200, plain, "{\n  \"a\": 1\n}"),
        ),
        (
            json!({"Outputs": {"res": "{\"statusCode\":\"404\"}"}}),
            (404, plain, ""),
        ),
        (json!({"Outputs": {}}), (200, plain, "{}")),
        (json!({}), (204, "", "")),
    ] {
        root.reply("F", json!({"body": reply.to_string()}));
        let response = get(&host, "/api/f").await;
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        let (status, content_type, body) = seen(response).await;
        assert_eq!(
            (status, content_type.as_str(), body.as_str()),
            expected,
            "{reply}"
        );
    }
    host.stop().await;
}

#[tokio::test]
async fn every_other_reply_is_500_with_an_empty_body_and_a_reason_in_the_log() {
    let log = Log::capture();
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let host = root.start().await;
    for (reply, reason) in [
        (json!({"status": 500}), "status 500"),
        (
            json!({"status": 404, "body": "{\"Outputs\":{\"res\":{}}}"}),
            "status 404",
        ),
        (json!({"status": 302}), "status 302"),
        (json!({"body": "[]"}), "not a JSON object"),
        (json!({"body": "{"}), "not a JSON object"),
        (
            json!({"contentType": "text/plain"}),
            "content type text/plain",
        ),
        (json!({"contentType": ""}), "content type (none)"),
        (json!({"body": ""}), "empty body"),
        (json!({"status": 204, "body": ""}), "empty body"),
        (json!({"body": "null"}), "empty body"),
        (
            json!({"body": "{\"Outputs\":{\"res\":5},\"Logs\":[\"kept\"]}"}),
            "must be an object",
        ),
    ] {
        root.reply("F", reply.clone());
        let (status, _, body) = seen(get(&host, "/api/f").await).await;
        assert_eq!((status, body.as_str()), (500, ""), "{reply}");
        let text = log.text();
        let last = text
            .lines()
            .rfind(|line| line.contains("Executed"))
            .unwrap();
        assert!(
            last.contains("Failed") && last.contains(reason),
            "{reply}: {last}"
        );
    }
    let status = &host.status().functions[0];
    assert_eq!(
        (status.invocations, status.failures, status.running),
        (11, 11, 0)
    );
    host.stop().await;
}

#[tokio::test]
async fn a_wrong_method_is_not_found_and_the_first_function_wins() {
    let root = Root::new(json!({}));
    let bindings = |route: &str, methods: Value| {
        json!({"bindings": [
            {"type": "httpTrigger", "name": "req", "route": route, "methods": methods},
            {"type": "http", "direction": "out", "name": "res"},
        ]})
    };
    let says =
        |text: &str| json!({"body": json!({"Outputs": {"res": {"body": text}}}).to_string()});
    root.function("alpha", bindings("x/{any}", json!(["get"])), says("alpha"));
    root.function(
        "Beta",
        bindings("x/exact", json!(["get", "post"])),
        says("beta"),
    );
    root.function("gamma", bindings("X/{any}", json!(["GET"])), says("gamma"));
    root.function("delta", bindings("admin/x", json!(["get"])), says("delta"));
    root.function("off", bindings("off", json!(["get"])), says("off"));
    let host = root
        .builder()
        .setting("AzureWebJobs.off.Disabled", "true")
        .start()
        .await
        .unwrap();
    assert_eq!(
        get(&host, "/api/x/exact").await.text().await.unwrap(),
        "alpha"
    );
    let post = Client::new().post(format!("{}/API/X/exact", host.url()));
    assert_eq!(post.send().await.unwrap().text().await.unwrap(), "beta");
    let delete = Client::new().delete(format!("{}/api/x/exact", host.url()));
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&host, "/x/exact").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&host, "/api/off").await.status(), StatusCode::NOT_FOUND);
    let home = get(&host, "/").await;
    assert_eq!(home.status(), StatusCode::OK);
    assert!(
        home.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );

    let errors = host.status().errors;
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].contains("delta") && errors[0].contains("reserved"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("gamma") && errors[1].contains("alpha"),
        "{errors:?}"
    );
    let listing = host.listing();
    assert!(
        listing.contains(&format!("Beta: [GET,POST] {}/api/x/exact", host.url())),
        "{listing}"
    );
    assert!(listing.contains("Function off is disabled."), "{listing}");
    host.stop().await;
}

#[tokio::test]
async fn cors_is_answered_by_the_host_and_only_when_configured() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let host = root
        .builder()
        .cors_origins(["http://127.0.0.1:4280"])
        .start()
        .await
        .unwrap();
    let preflight = |origin: &str, path: &str| {
        Client::new()
            .request(Method::OPTIONS, format!("{}{path}", host.url()))
            .header("origin", origin.to_owned())
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-custom,content-type")
            .send()
    };
    for path in ["/api/F", "/admin/host/status", "/nowhere"] {
        let answer = preflight("http://127.0.0.1:4280", path).await.unwrap();
        assert!(answer.status().is_success(), "{path}");
        let headers = answer.headers();
        assert_eq!(
            headers["access-control-allow-origin"],
            "http://127.0.0.1:4280"
        );
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["access-control-allow-methods"], "POST");
        assert_eq!(
            headers["access-control-allow-headers"],
            "x-custom,content-type"
        );
    }
    let stranger = preflight("http://evil.example", "/api/F").await.unwrap();
    assert!(
        !stranger
            .headers()
            .contains_key("access-control-allow-origin")
    );
    let call = Client::new()
        .get(format!("{}/api/F", host.url()))
        .header("origin", "http://127.0.0.1:4280");
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        "http://127.0.0.1:4280"
    );
    assert_eq!(root.requests().len(), 1, "a preflight reached the handler");
    host.stop().await;

    let host = root.start().await;
    let call = Client::new()
        .get(format!("{}/api/F", host.url()))
        .header("origin", "http://127.0.0.1:4280");
    let answer = call.send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    host.stop().await;
}

#[tokio::test]
async fn cors_can_come_from_local_settings() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    root.write(
        "local.settings.json",
        r#"{"IsEncrypted":false,"Values":{"FROM_FILE":"yes","REGION":"file"},"Host":{"CORS":"http://a,http://b","LocalHttpPort":0}}"#,
    );
    let host = FunctionsHost::builder(root.path())
        .setting("REGION", "West US")
        .start()
        .await
        .unwrap();
    let call = Client::new()
        .get(format!("{}/api/F", host.url()))
        .header("origin", "http://b");
    let answer = call.send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://b");
    assert!(
        !answer
            .headers()
            .contains_key("access-control-allow-credentials")
    );
    let environment = &root.starts()[0]["environment"];
    assert_eq!(environment["FROM_FILE"], "yes");
    assert_eq!(environment["REGION"], "West US");
    host.stop().await;
}

#[tokio::test]
async fn more_requests_than_allowed_are_turned_away() {
    let root = Root::new(json!({"extensions": {"http": {"maxOutstandingRequests": 1}}}));
    root.http("F", json!({"waitFor": "go"}));
    let host = root.start().await;
    let first = tokio::spawn(Client::new().get(format!("{}/api/f", host.url())).send());
    eventually("the first request arrives", || {
        (root.requests().len() == 1).then_some(())
    })
    .await;
    assert_eq!(
        get(&host, "/api/f").await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    root.write("go", "");
    assert_eq!(
        first.await.unwrap().unwrap().status(),
        StatusCode::NO_CONTENT
    );
    host.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let root = Root::new(json!({}));
    root.http("F", json!({}));
    let host = root.start().await;
    let address = host.url().replace("http://", "");
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let length = functions_host::MAX_REQUEST_BYTES + 1;
        write!(stream, "POST /api/f HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    })
    .await
    .unwrap();
    assert_eq!(answer, "HTTP/1.1 413");
    host.stop().await;
}

#[tokio::test]
async fn admin_endpoints_answer_as_documented() {
    let root = Root::new(json!({}));
    root.http("ReadAPI", json!({}));
    root.write(
        "Broken/function.json",
        r#"{"bindings":[{"type":"timerTrigger","name":"t"}]}"#,
    );
    let host = root.start().await;
    let status: Value = get(&host, "/admin/host/status").await.json().await.unwrap();
    assert_eq!(status["state"], "Running");
    assert_eq!(status["version"], functions_host::HOST_VERSION);
    assert_eq!(status["extensionBundle"]["version"], "[4.*, 5.0.0)");
    assert!(status["processUptime"].is_u64() && status.get("errors").is_none());

    assert_eq!(
        seen(get(&host, "/admin/host/ping").await).await,
        (200, String::new(), String::new())
    );
    let functions: Value = get(&host, "/admin/functions").await.json().await.unwrap();
    assert_eq!(functions.as_array().unwrap().len(), 1);
    let function: Value = get(&host, "/admin/functions/readapi")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(function, functions[0]);
    assert_eq!(function["name"], "ReadAPI");
    assert_eq!(
        function["invoke_url_template"],
        format!("{}/api/readapi", host.url())
    );
    assert_eq!(function["config"]["bindings"][0]["type"], "httpTrigger");
    assert_eq!(function["isDisabled"], false);
    assert_eq!(
        get(&host, "/admin/functions/nope").await.status(),
        StatusCode::NOT_FOUND
    );

    let fine: Value = get(&host, "/admin/functions/ReadAPI/status")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(fine, json!({}));
    let broken: Value = get(&host, "/admin/functions/broken/status")
        .await
        .json()
        .await
        .unwrap();
    assert!(
        broken["errors"][0]
            .as_str()
            .unwrap()
            .contains("timerTrigger"),
        "{broken}"
    );

    let post = |path: &str, body: &'static str| {
        Client::new()
            .post(format!("{}{path}", host.url()))
            .body(body)
            .send()
    };
    let synced: Value = post("/admin/host/synctriggers", "")
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(synced["status"], "success");
    assert_eq!(
        post("/admin/functions/ReadAPI", "{}")
            .await
            .unwrap()
            .status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(
        post("/admin/functions/ReadAPI", "nonsense")
            .await
            .unwrap()
            .status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        post("/admin/functions/nope", "{}").await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&host, "/admin/host/keys").await.status(),
        StatusCode::NOT_IMPLEMENTED
    );
    assert_eq!(
        get(&host, "/admin/else").await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        root.requests().len(),
        0,
        "an httpTrigger was run without a request"
    );
    host.stop().await;
}
