//! The floor: what any handler on actix-web and `serde_json::Value` has to do.

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use serde_json::Value;

/// The argument that makes this program the floor.
pub(crate) const COMMAND: &str = "floor";

const WRITE_EVENT: &str = r#"{"Outputs":{"res":{"statusCode":201,"headers":{"content-type":"application/json"},"body":"{\"id\":\"0190d1c2-7000-7000-8000-000000000001\",\"deviceId\":\"device-0007\",\"region\":\"West US\",\"value\":41.5,\"time\":\"2026-03-01T10:00:00.123Z\"}"},"events":[{"id":"0190d1c2-7000-7000-8000-000000000001","deviceId":"device-0007","region":"West US","value":41.5,"time":"2026-03-01T10:00:00.123Z"}]},"Logs":null,"ReturnValue":null}"#;

/// Ten documents, as the handler's reply has for ten devices.
fn materialized_reply() -> String {
    let document = r#"{"id":"0190d1c2-7000-7000-8000-000000000001","deviceId":"device-0007","maxValue":41.5,"region":"West US","time":"2026-03-01T10:00:00.123Z"}"#;
    format!(
        r#"{{"Outputs":{{"materialized":[{}]}},"Logs":null,"ReturnValue":null}}"#,
        [document; 10].join(",")
    )
}

/// Serves until it is killed.
pub(crate) fn serve() -> anyhow::Result<()> {
    let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT")
        .context("no port")?
        .parse()?;
    let materialized = web::Data::new(materialized_reply());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        HttpServer::new(move || {
            App::new()
                .app_data(materialized.clone())
                .app_data(web::PayloadConfig::new(20 * 1024 * 1024))
                .route("/", web::get().to(HttpResponse::Ok))
                .route("/WriteEvent", web::post().to(write_event))
                .route("/Materialized", web::post().to(materialized_batch))
        })
        .bind(("127.0.0.1", port))?
        .run()
        .await?;
        Ok(())
    })
}

async fn write_event(body: web::Bytes) -> HttpResponse {
    let Ok(invocation) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    match unpack(invocation["Data"]["req"]["Body"].clone()) {
        Value::Object(_) => HttpResponse::Ok()
            .content_type("application/json")
            .body(WRITE_EVENT),
        _ => HttpResponse::BadRequest().finish(),
    }
}

async fn materialized_batch(body: web::Bytes, reply: web::Data<String>) -> HttpResponse {
    let Ok(mut invocation) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    match unpack(invocation["Data"]["events"].take()) {
        Value::Array(_) => HttpResponse::Ok()
            .content_type("application/json")
            .body(reply.as_str().to_owned()),
        _ => HttpResponse::BadRequest().finish(),
    }
}

fn unpack(mut value: Value) -> Value {
    while let Value::String(text) = &value {
        match serde_json::from_str(text) {
            Ok(inner) => value = inner,
            Err(_) => break,
        }
    }
    value
}
