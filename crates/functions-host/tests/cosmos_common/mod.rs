//! What the Cosmos DB tests share: a local account, containers, a sink that remembers.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Each test file uses a part of it.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::credentials::Secret;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use azure_data_cosmos::options::Region;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, FeedScope, Query, RoutingStrategy,
};
use cosmos_local::{Account, CosmosLocal, RegionConfig};
use functions_host::binding::{
    BindingError, CosmosTrigger, Delivery, FeedSink, FeedStart, ListenerBoard, ListenerContext,
    ListenerState,
};
use functions_host::cosmos::{CosmosClients, trigger};
use functions_host::settings::{Origin, Settings};
use futures::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const DATABASE: &str = "db";

/// A local account with database `db`, and containers `events` and `leases` (both `/id`).
pub struct World {
    pub account: Account,
    pub client: CosmosClient,
}

impl World {
    pub async fn new() -> Self {
        Self::with_regions(&["West US"]).await
    }

    pub async fn with_regions(regions: &[&str]) -> Self {
        let world = Self::without_containers(regions).await;
        for container in ["events", "leases"] {
            world.create_container(container, "/id").await;
        }
        world
    }

    /// `client` prefers the last region.
    pub async fn without_containers(regions: &[&str]) -> Self {
        let mut builder = CosmosLocal::builder();
        for region in regions {
            builder = builder.region(RegionConfig::new(*region).port(0));
        }
        let account = builder.start().await.unwrap();
        let (endpoint, key) = parts(&account.connection_string());
        let runtime = CosmosRuntime::builder().build().await.unwrap();
        let client = Box::pin(
            CosmosClient::builder().with_runtime(runtime).build(
                AccountReference::with_authentication_key(
                    endpoint.parse().unwrap(),
                    Secret::from(key),
                ),
                RoutingStrategy::PreferredRegions(
                    regions
                        .iter()
                        .rev()
                        .map(|region| Region::from((*region).to_owned()))
                        .collect(),
                ),
            ),
        )
        .await
        .unwrap();
        Box::pin(client.create_database(DATABASE, None))
            .await
            .unwrap();
        Self { account, client }
    }

    pub async fn create_container(&self, name: &'static str, key: &'static str) {
        let key = PartitionKeyDefinition::new(vec![Cow::Borrowed(key)]);
        Box::pin(
            self.client
                .database_client(DATABASE)
                .create_container(ContainerProperties::new(name, key), None),
        )
        .await
        .unwrap();
    }

    pub async fn container(&self, name: &str) -> ContainerClient {
        Box::pin(
            self.client
                .database_client(DATABASE)
                .container_client(name.to_owned(), None),
        )
        .await
        .unwrap()
    }

    /// Writes an event; returns when the service has accepted it.
    pub async fn write(&self, id: &str) {
        self.put("events", id, json!({ "id": id, "value": 41.5 }))
            .await;
    }

    pub async fn put(&self, container: &str, key: &str, item: Value) {
        let id = item["id"].as_str().unwrap().to_owned();
        let container = self.container(container).await;
        Box::pin(container.upsert_item(key.to_owned(), &id, &item, None))
            .await
            .unwrap();
    }

    pub async fn all(&self, container: &str) -> Vec<Value> {
        let container = self.container(container).await;
        let items = Box::pin(container.query_items::<Value>(
            Query::from("SELECT * FROM c"),
            FeedScope::full_container(),
            None,
        ))
        .await
        .unwrap();
        let mut items = Box::pin(items.into_pages());
        let mut all = Vec::new();
        while let Some(page) = items.next().await {
            all.extend(page.unwrap().into_items());
        }
        all
    }

    /// The lease documents proper, without markers.
    pub async fn leases(&self) -> Vec<Value> {
        let mut leases = self.all("leases").await;
        leases.retain(|lease| lease.get("LeaseToken").is_some());
        leases
    }

    pub fn settings(&self) -> Arc<Settings> {
        let mut settings = Settings::default();
        settings.set(Origin::Explicit, "Db", &self.account.connection_string());
        Arc::new(settings)
    }

    pub fn clients(&self) -> CosmosClients {
        CosmosClients::new(self.settings(), None)
    }

    /// A trigger on `events` with short intervals.
    pub fn trigger(&self, prefix: &str) -> CosmosTrigger {
        CosmosTrigger {
            name: "events".into(),
            connection: "Db".into(),
            database: DATABASE.into(),
            container: "events".into(),
            lease_connection: "Db".into(),
            lease_database: DATABASE.into(),
            lease_container: "leases".into(),
            create_lease_container: false,
            lease_container_throughput: None,
            lease_prefix: prefix.into(),
            feed_poll_delay: Duration::from_millis(20),
            lease_renew_interval: Duration::from_millis(300),
            lease_acquire_interval: Duration::from_millis(100),
            lease_expiration_interval: Duration::from_millis(1500),
            max_items: None,
            start: FeedStart::Now,
            preferred_locations: vec!["West US".into()],
        }
    }

    /// Starts a listener of its own "host".
    pub fn listen(&self, trigger: CosmosTrigger, owner: Option<&str>, sink: &Sink) -> Running {
        let clients = self.clients();
        let board = ListenerBoard::default();
        let context = ListenerContext {
            function: trigger.lease_prefix.clone(),
            owner: owner.map(str::to_owned),
            board: board.clone(),
        };
        let stop = CancellationToken::new();
        let (sink, token) = (sink.clone(), stop.clone());
        let task = tokio::spawn(async move {
            Box::pin(trigger::listen(&clients, &trigger, &context, sink, token)).await
        });
        Running { board, stop, task }
    }
}

/// Endpoint and key of a connection string.
fn parts(text: &str) -> (String, String) {
    let part = |name: &str| {
        text.split(';')
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| *key == name)
            .unwrap()
            .1
            .to_owned()
    };
    (part("AccountEndpoint"), part("AccountKey"))
}

/// A listener at work.
pub struct Running {
    pub board: ListenerBoard,
    stop: CancellationToken,
    task: JoinHandle<Result<(), BindingError>>,
}

impl Running {
    /// Waits until changes accepted from now on are certain to be delivered.
    pub async fn ready(self) -> Self {
        until("the listener is running", async || {
            assert!(!self.task.is_finished(), "the listener ended");
            self.board.status().state == ListenerState::Running
        })
        .await;
        self
    }

    /// Waits until it holds a lease.
    pub async fn holding(self) -> Self {
        until("the listener holds a lease", async || {
            assert!(!self.task.is_finished(), "the listener ended");
            !self.board.status().leases.is_empty()
        })
        .await;
        self
    }

    /// Ends it as a killed process would: no checkpoint, no release.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.outcome().await.unwrap();
    }

    /// Waits for the end that comes by itself.
    pub async fn outcome(self) -> Result<(), BindingError> {
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the listener ends")
            .unwrap()
    }
}

/// Remembers what it was given; can be told to be stopping.
#[derive(Clone, Default)]
pub struct Sink {
    batches: Arc<Mutex<Vec<Vec<Value>>>>,
    stopping: Arc<std::sync::atomic::AtomicBool>,
}

impl Sink {
    /// Takes batches without ever finishing them.
    pub fn that_is_stopping() -> Self {
        let sink = Self::default();
        sink.stopping
            .store(true, std::sync::atomic::Ordering::SeqCst);
        sink
    }

    pub fn batches(&self) -> Vec<Vec<Value>> {
        self.batches.lock().unwrap().clone()
    }

    /// Ids in order of delivery, repetitions included.
    pub fn ids(&self) -> Vec<String> {
        let ids = |document: &Value| document["id"].as_str().unwrap().to_owned();
        self.batches().iter().flatten().map(ids).collect()
    }

    pub async fn has(&self, id: &str) {
        until(&format!("{id} is delivered"), async || {
            self.ids().iter().any(|known| known == id)
        })
        .await;
    }
}

impl FeedSink for Sink {
    async fn deliver(&self, documents: Vec<Box<RawValue>>) -> Delivery {
        let documents = documents
            .iter()
            .map(|document| serde_json::from_str(document.get()).unwrap())
            .collect();
        self.batches.lock().unwrap().push(documents);
        if self.stopping.load(std::sync::atomic::Ordering::SeqCst) {
            Delivery::Stopping
        } else {
            Delivery::Delivered
        }
    }
}

/// Waits for a condition.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, wait).await.is_ok(),
        "timed out: {what}"
    );
}
