//! Processes for the tests of functions-host.
//!
//! `handler`: a custom handler that does what its script root tells it. For function `F` it reads `F/reply.json` at every call
//! (see `Reply`), and writes what it received to `requests.jsonl` and what it was started with to `starts.jsonl` in the
//! script root. Settings beginning with `HANDLER_` change how it starts.
//!
//! `host ROOT`: runs a host on a script root, prints `ready <handler pid>` and stays until it is killed.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};

/// What to do with an invocation. Without a file: answer `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reply {
    /// Answer this text; the default is `{}`.
    body: Option<String>,
    /// With this status (200).
    status: Option<u16>,
    /// With this content type (`application/json`); empty = none.
    content_type: Option<String>,
    /// With the received request as the text of `Outputs.res.body`.
    echo: bool,
    /// Leave with this exit code instead.
    exit: Option<i32>,
    /// Abort instead, as after a crash.
    abort: bool,
    /// Wait until this file exists in the script root before answering.
    wait_for: Option<String>,
    /// Answer status 500 to this many attempts of each invocation first.
    fail_first: usize,
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("handler") => handler().await,
        Some("host") => host(arguments.get(2).ok_or("host needs a script root")?).await,
        other => Err(format!("unknown role {other:?}").into()),
    }
}

async fn host(root: &str) -> Result<(), Problem> {
    let host = functions_host::FunctionsHost::builder(root)
        .port(0)
        .start()
        .await?;
    let pid = host.status().handler_pid.ok_or("no handler")?;
    println!("ready {pid}");
    std::future::pending().await
}

fn number(name: &str) -> Option<i32> {
    std::env::var(name).ok()?.parse().ok()
}

fn append(file: &Path, line: &Value) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)?;
    // One write per line: processes may overlap.
    file.write_all(format!("{line}\n").as_bytes())
}

async fn handler() -> Result<(), Problem> {
    let root = PathBuf::from(std::env::var("FUNCTIONS_APP_ROOT_PATH")?);
    let mut grandchild = None;
    if number("HANDLER_GRANDCHILD").is_some() {
        let child = std::process::Command::new("sleep").arg("1000").spawn()?;
        grandchild = Some(child.id());
    }
    let environment: serde_json::Map<String, Value> = std::env::vars()
        .map(|(name, value)| (name, value.into()))
        .collect();
    append(
        &root.join("starts.jsonl"),
        &json!({
            "pid": std::process::id(),
            "grandchild": grandchild,
            "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
            "directory": std::env::current_dir()?,
            "environment": environment,
        }),
    )?;
    println!("handler says hello");
    if let Ok(line) = std::env::var("HANDLER_STDERR") {
        eprintln!("{line}");
    }
    if let Some(code) = number("HANDLER_EXIT_ON_START") {
        std::process::exit(code);
    }
    if number("HANDLER_NEVER_LISTEN").is_some() {
        std::future::pending::<()>().await;
    }
    if number("HANDLER_IGNORE_TERM").is_some() {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::spawn(async move { while term.recv().await.is_some() {} });
    }
    let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT")?.parse()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let root = root.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let root = root.clone();
                async move { Ok::<_, Infallible>(answer(&root, request).await) }
            });
            // A host that hangs up is none of our business.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn answer(root: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match try_answer(root, request).await {
        Ok(response) => response,
        Err(problem) => {
            eprintln!("handler: {problem}");
            let mut response = Response::new(Full::default());
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn try_answer(
    root: &Path,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if path == "/" {
        return Ok(Response::new(Full::default()));
    }
    let body = body.collect().await?.to_bytes();
    let headers: serde_json::Map<String, Value> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect();
    let received = json!({
        "method": parts.method.as_str(),
        "path": path,
        "headers": headers,
        "body": serde_json::from_slice::<Value>(&body)?,
    });
    let requests = root.join("requests.jsonl");
    append(&requests, &received)?;

    let file = root.join(path.trim_start_matches('/')).join("reply.json");
    let reply: Reply = match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Reply::default(),
    };
    if let Some(code) = reply.exit {
        std::process::exit(code);
    }
    if reply.abort {
        std::process::abort();
    }
    if let Some(file) = &reply.wait_for {
        while !root.join(file).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    if reply.fail_first > 0 {
        let id = headers.get("x-azure-functions-invocationid");
        let attempts = std::fs::read_to_string(&requests)?
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|seen| seen["headers"].get("x-azure-functions-invocationid") == id)
            .count();
        if attempts <= reply.fail_first {
            let mut response = Response::new(Full::default());
            *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(response);
        }
    }
    let body = if reply.echo {
        json!({"Outputs": {"res": {"body": received.to_string()}}, "Logs": ["echoed, AccountKey=topsecret;"]}).to_string()
    } else {
        reply.body.unwrap_or_else(|| "{}".to_owned())
    };
    let mut response = Response::builder().status(reply.status.unwrap_or(200));
    match reply.content_type.as_deref() {
        Some("") => {}
        other => response = response.header("content-type", other.unwrap_or("application/json")),
    }
    Ok(response.body(Full::new(body.into()))?)
}
