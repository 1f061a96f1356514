//! `geo-events smoke`: uses a running system as a device, a browser and a reader do, and says what it saw.
//!
//! Every region given is written to, and every event has to come out everywhere: pushed by SignalR, listed by `changes`,
//! and readable as the device's maximum. The events are of a device of their own whose documents expire by themselves (see
//! [`time_to_live`](crate::event::time_to_live)), so there is nothing to clean up, even if a test ends halfway.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};
use uuid::Uuid;

use crate::{event::SMOKE_DEVICES, names::TARGET};

/// Pause between two looks at what takes its time to arrive.
const POLL: Duration = Duration::from_millis(250);

/// Most bytes of an answer that an error quotes.
const MAX_QUOTE: usize = 500;

/// The end of a SignalR message, see `dotnet/aspnetcore: src/SignalR/docs/specs/HubProtocol.md`.
const RECORD_SEPARATOR: char = '\u{1e}';

/// What went wrong, and where.
#[derive(Debug, Error)]
#[error("{region}: {step}: {cause}")]
pub struct SmokeError {
    /// URL of the region's Function App.
    pub region: String,
    /// What was tried.
    pub step: &'static str,
    /// Why it did not work.
    pub cause: Cause,
}

/// Why a step did not work.
#[derive(Debug, Error)]
pub enum Cause {
    /// No answer, or none that can be read.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// Another answer than the one that there has to be.
    #[error("answered {status}: {body}")]
    Answer {
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
    },
    /// The address cannot be used.
    #[error("{0}")]
    Address(String),
    /// The WebSocket does not open or breaks.
    #[error(transparent)]
    Socket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// SignalR says something that is not its protocol, or closes.
    #[error("SignalR said {0}")]
    Protocol(String),
    /// It did not come.
    #[error("not within {} s", .0.as_secs())]
    Late(Duration),
}

/// One step that worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// URL of the region's Function App.
    pub region: String,
    /// What was done.
    pub step: &'static str,
    /// How long it took.
    pub elapsed: Duration,
}

/// Tests the regions with these Function App URLs, such as `https://app.azurewebsites.net`, and reports every step that
/// worked. No step may take longer than `patience`.
///
/// # Errors
/// The first step that does not work.
pub async fn run(
    urls: &[Url],
    patience: Duration,
    mut report: impl FnMut(Passed),
) -> Result<(), SmokeError> {
    let client = Client::new();
    let device = format!("{SMOKE_DEVICES}{}", Uuid::now_v7().simple());
    let mut regions = Vec::new();
    for url in urls {
        let mut region = Region::new(client.clone(), url, patience);
        region
            .step("health", &mut report, async |region| region.health().await)
            .await?;
        region
            .step("negotiate and connect", &mut report, async |region| {
                region.connect().await
            })
            .await?;
        region
            .step("the end of the feed", &mut report, async |region| {
                region.follow().await
            })
            .await?;
        regions.push(region);
    }
    let mut written: Vec<String> = Vec::new();
    for (n, region) in regions.iter_mut().enumerate() {
        let id = format!("{device}-{n}");
        region
            .step("write", &mut report, async |region| {
                region.write(&device, &id, n).await
            })
            .await?;
        written.push(id);
    }
    let maximum = regions.len() - 1;
    for region in &mut regions {
        region
            .step("push", &mut report, async |region| {
                region.pushed(&written).await
            })
            .await?;
        region
            .step("changes", &mut report, async |region| {
                region.listed(&written).await
            })
            .await?;
        region
            .step("read", &mut report, async |region| {
                region.maximum(&device, maximum).await
            })
            .await?;
    }
    Ok(())
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One region, as a client sees it.
struct Region {
    client: Client,
    url: String,
    patience: Duration,
    socket: Option<Socket>,
    continuation: String,
}

/// What `negotiate` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionInfo {
    url: String,
    access_token: String,
}

/// What `changes` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    events: Vec<Value>,
    continuation: String,
    has_more: bool,
}

impl Region {
    fn new(client: Client, url: &Url, patience: Duration) -> Self {
        Self {
            client,
            url: url.as_str().trim_end_matches('/').to_owned(),
            patience,
            socket: None,
            continuation: String::new(),
        }
    }

    async fn step(
        &mut self,
        step: &'static str,
        report: &mut impl FnMut(Passed),
        action: impl AsyncFnOnce(&mut Self) -> Result<(), Cause>,
    ) -> Result<(), SmokeError> {
        let (started, patience, region) = (Instant::now(), self.patience, self.url.clone());
        let result = timeout(patience, action(self))
            .await
            .unwrap_or(Err(Cause::Late(patience)));
        match result {
            Ok(()) => {
                report(Passed {
                    region,
                    step,
                    elapsed: started.elapsed(),
                });
                Ok(())
            }
            Err(cause) => Err(SmokeError {
                region,
                step,
                cause,
            }),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        expected: StatusCode,
    ) -> Result<T, Cause> {
        let answer = request.timeout(self.patience).send().await?;
        let status = answer.status();
        if status != expected {
            let mut body = answer.text().await?;
            body.truncate(body.floor_char_boundary(MAX_QUOTE));
            return Err(Cause::Answer { status, body });
        }
        Ok(answer.json().await?)
    }

    async fn health(&self) -> Result<(), Cause> {
        let request = self.client.get(format!("{}/api/health", self.url));
        self.ask::<Value>(request, StatusCode::OK).await.map(drop)
    }

    async fn connect(&mut self) -> Result<(), Cause> {
        let request = self.client.post(format!("{}/api/negotiate", self.url));
        let info: ConnectionInfo = self.ask(request, StatusCode::OK).await?;
        let mut url = Url::parse(&info.url)
            .map_err(|error| Cause::Address(format!("{:?} is not a URL: {error}", info.url)))?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        if url.set_scheme(scheme).is_err() {
            return Err(Cause::Address(format!(
                "{:?} is not a URL of the web",
                info.url
            )));
        }
        url.query_pairs_mut()
            .append_pair("access_token", &info.access_token);
        let (mut socket, _) = connect_async(url.as_str()).await.map_err(Box::new)?;
        let handshake = format!(
            "{}{RECORD_SEPARATOR}",
            json!({"protocol": "json", "version": 1})
        );
        socket
            .send(Message::text(handshake))
            .await
            .map_err(Box::new)?;
        self.socket = Some(socket);
        match self.messages().await?.first() {
            Some(answer) if answer.get("error").is_none() => Ok(()),
            answer => Err(Cause::Protocol(format!("{answer:?}"))),
        }
    }

    /// The messages of the next frame.
    async fn messages(&mut self) -> Result<Vec<Value>, Cause> {
        let closed = || Cause::Protocol("nothing more: the connection is closed".to_owned());
        let socket = self.socket.as_mut().ok_or_else(closed)?;
        loop {
            let frame = socket.next().await.ok_or_else(closed)?.map_err(Box::new)?;
            let text = match frame {
                Message::Text(text) => text,
                Message::Close(reason) => {
                    return Err(Cause::Protocol(format!("goodbye: {reason:?}")));
                }
                _ => continue,
            };
            return text
                .split(RECORD_SEPARATOR)
                .filter(|message| !message.is_empty())
                .map(|message| {
                    serde_json::from_str(message).map_err(|_| Cause::Protocol(message.to_owned()))
                })
                .collect();
        }
    }

    async fn follow(&mut self) -> Result<(), Cause> {
        self.continuation = "now".to_owned();
        self.changes().await.map(drop)
    }

    /// The ids of all events since the last call.
    async fn changes(&mut self) -> Result<Vec<String>, Cause> {
        let mut found = Vec::new();
        loop {
            let request = self
                .client
                .get(format!("{}/api/changes", self.url))
                .query(&[("continuation", &self.continuation)]);
            let page: Changes = self.ask(request, StatusCode::OK).await?;
            self.continuation = page.continuation;
            found.extend(page.events.iter().filter_map(id));
            if !page.has_more {
                return Ok(found);
            }
        }
    }

    async fn write(&self, device: &str, id: &str, value: usize) -> Result<(), Cause> {
        let event = json!({"id": id, "deviceId": device, "value": value});
        let request = self
            .client
            .post(format!("{}/api/WriteEvent", self.url))
            .json(&event);
        self.ask::<Value>(request, StatusCode::CREATED)
            .await
            .map(drop)
    }

    /// Waits until all of `ids` have been pushed.
    async fn pushed(&mut self, ids: &[String]) -> Result<(), Cause> {
        let mut missing = ids.to_vec();
        while !missing.is_empty() {
            for message in self.messages().await? {
                if message["target"] == TARGET {
                    let events = message["arguments"][0].as_array();
                    let pushed: Vec<String> = events.into_iter().flatten().filter_map(id).collect();
                    missing.retain(|id| !pushed.contains(id));
                }
            }
        }
        Ok(())
    }

    /// Waits until `changes` has listed all of `ids`.
    async fn listed(&mut self, ids: &[String]) -> Result<(), Cause> {
        let mut missing = ids.to_vec();
        loop {
            let found = self.changes().await?;
            missing.retain(|id| !found.contains(id));
            if missing.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the largest value of the device is readable.
    async fn maximum(&self, device: &str, maximum: usize) -> Result<(), Cause> {
        loop {
            let request = self
                .client
                .get(format!("{}/api/ReadAPI/{device}", self.url));
            match self.ask::<Vec<Value>>(request, StatusCode::OK).await {
                Ok(rows)
                    if rows
                        .iter()
                        .any(|row| row["maxValue"].as_f64() == Some(maximum as f64)) =>
                {
                    return Ok(());
                }
                // Not materialized yet, or not here.
                Ok(_)
                | Err(Cause::Answer {
                    status: StatusCode::NOT_FOUND,
                    ..
                }) => {}
                Err(cause) => return Err(cause),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn id(event: &Value) -> Option<String> {
    event["id"].as_str().map(str::to_owned)
}
