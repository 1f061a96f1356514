//! Requests as a client without an SDK would send them.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cosmos_local::{Account, CosmosLocal, EMULATOR_KEY, LinkState, RegionConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const REGIONS: [&str; 3] = ["West US", "North Europe", "Southeast Asia"];

/// Headers of a request.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

pub(crate) const UPSERT: (&str, &str) = ("x-ms-documentdb-is-upsert", "true");
pub(crate) const FEED: (&str, &str) = ("a-im", "Incremental Feed");

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) substatus: u32,
    pub(crate) headers: reqwest::header::HeaderMap,
    /// Null when there is none.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    pub(crate) fn codes(&self) -> (u16, u32) {
        (self.status, self.substatus)
    }

    pub(crate) fn documents(&self) -> &[Value] {
        self.body["Documents"].as_array().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn ids(&self) -> Vec<&str> {
        let documents = self.documents().iter();
        documents
            .map(|document| document["id"].as_str().unwrap())
            .collect()
    }
}

/// A client of one gateway.
#[derive(Clone)]
pub(crate) struct Raw {
    http: reqwest::Client,
    endpoint: String,
}

impl Raw {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        }
    }

    /// A client of another gateway, with what is costly to make in common.
    pub(crate) fn at(&self, endpoint: &str) -> Self {
        Self {
            http: self.http.clone(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        }
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let body = body.map(|body| body.to_string().into_bytes());
        answer(self.request(method, path, headers, body).await?).await
    }

    /// Sends a request to a path just as it is written, which is signed over any resource type and link.
    pub(crate) async fn send_signed(
        &self,
        method: &str,
        path: &str,
        signed: (&str, &str),
        headers: Headers<'_>,
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(|body| body.to_string().into_bytes());
        let response = self.signed(method, path, signed, headers, body).await;
        answer(response.unwrap()).await.unwrap()
    }

    /// Status and body of a request whose body and answer are not JSON.
    pub(crate) async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Vec<u8>,
    ) -> (u16, Vec<u8>) {
        let response = self
            .request(method, path, headers, Some(body))
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.bytes().await.unwrap().to_vec())
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (kind, link) = match segments.as_slice() {
            [] => ("", String::new()),
            [parent @ .., kind] if segments.len() % 2 == 1 => (*kind, parent.join("/")),
            [.., kind, _] => (*kind, segments.join("/")),
            [_] => ("", String::new()),
        };
        let encoded: Vec<String> = segments
            .iter()
            .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string())
            .collect();
        let path = format!("/{}", encoded.join("/"));
        self.signed(method, &path, (kind, &link), headers, body)
            .await
    }

    async fn signed(
        &self,
        method: &str,
        path: &str,
        (kind, link): (&str, &str),
        headers: Headers<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let date = "Thu, 06 Aug 2026 10:00:00 GMT";
        let text = format!(
            "{}\n{kind}\n{link}\n{}\n\n",
            method.to_lowercase(),
            date.to_lowercase()
        );
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&STANDARD.decode(EMULATOR_KEY).unwrap()).unwrap();
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let token = format!("type=master&ver=1.0&sig={signature}");
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.endpoint))
            .header(
                "authorization",
                utf8_percent_encode(&token, NON_ALPHANUMERIC).to_string(),
            )
            .header("x-ms-date", date);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        request.send().await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Option<&Value>,
    ) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    /// Creates the database `db`, if it is not there, and a container in it.
    pub(crate) async fn create(&self, container: Value) -> Answer {
        self.send("POST", "dbs", &[], Some(&json!({"id": "db"})))
            .await;
        self.send("POST", "dbs/db/colls", &[], Some(&container))
            .await
    }

    pub(crate) fn container(&self, name: &str) -> Container {
        Container {
            raw: self.clone(),
            path: format!("dbs/db/colls/{name}"),
        }
    }
}

async fn answer(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let substatus = headers
        .get("x-ms-substatus")
        .map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    Ok(Answer {
        status,
        substatus,
        headers,
        body: if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        },
    })
}

/// A container by way of one gateway.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) raw: Raw,
    pub(crate) path: String,
}

pub(crate) fn key(value: impl Into<Value>) -> String {
    json!([value.into()]).to_string()
}

impl Container {
    pub(crate) async fn send(
        &self,
        method: &str,
        rest: &str,
        partition: &str,
        headers: Headers<'_>,
        body: Option<&Value>,
    ) -> Answer {
        let mut all = headers.to_vec();
        if !partition.is_empty() {
            all.push(("x-ms-documentdb-partitionkey", partition));
        }
        let path = format!("{}/{rest}", self.path);
        self.raw.send(method, &path, &all, body).await
    }

    pub(crate) async fn upsert(&self, partition: &str, item: &Value) -> Answer {
        self.send("POST", "docs", partition, &[UPSERT], Some(item))
            .await
    }

    pub(crate) async fn create(&self, partition: &str, item: &Value) -> Answer {
        self.send("POST", "docs", partition, &[], Some(item)).await
    }

    pub(crate) async fn read(&self, partition: &str, id: &str) -> Answer {
        self.send("GET", &format!("docs/{id}"), partition, &[], None)
            .await
    }

    pub(crate) async fn delete(&self, partition: &str, id: &str) -> Answer {
        self.send("DELETE", &format!("docs/{id}"), partition, &[], None)
            .await
    }

    pub(crate) async fn patch(&self, partition: &str, id: &str, patch: Value) -> Answer {
        self.send("PATCH", &format!("docs/{id}"), partition, &[], Some(&patch))
            .await
    }

    pub(crate) async fn query(&self, sql: &str, headers: Headers<'_>) -> Answer {
        let headers = [headers, &[("x-ms-documentdb-isquery", "true")]].concat();
        let headers = [
            &headers[..],
            &[("x-ms-documentdb-query-enablecrosspartition", "true")],
        ]
        .concat();
        let body = json!({"query": sql, "parameters": []});
        self.send("POST", "docs", "", &headers, Some(&body)).await
    }

    /// One page of the change feed after an etag.
    pub(crate) async fn changes(&self, after: Option<&str>, headers: Headers<'_>) -> Answer {
        let mut headers = [headers, &[FEED]].concat();
        if let Some(after) = after {
            headers.push(("if-none-match", after));
        }
        self.send("GET", "docs", "", &headers, None).await
    }

    pub(crate) async fn batch(&self, partition: &str, operations: Value) -> Answer {
        let headers = [
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "True"),
        ];
        self.send("POST", "docs", partition, &headers, Some(&operations))
            .await
    }
}

pub(crate) async fn start(regions: usize) -> Account {
    builder(regions).start().await.unwrap()
}

pub(crate) fn builder(regions: usize) -> CosmosLocal {
    REGIONS[..regions]
        .iter()
        .fold(CosmosLocal::builder(), |builder, name| {
            builder.region(RegionConfig::new(*name))
        })
}

/// A client for each region's gateway.
pub(crate) fn gateways(account: &Account) -> Vec<Raw> {
    let regions = account.regions();
    regions
        .iter()
        .map(|region| Raw::new(&region.endpoint))
        .collect()
}

pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn settled(account: &Account) {
    eventually("nothing is pending", async || {
        account.links().iter().all(|link| link.pending == 0)
    })
    .await;
}

pub(crate) fn set_links(account: &Account, state: LinkState) {
    for link in account.links() {
        account.set_link(&link.from, &link.to, state, None).unwrap();
    }
}
