//! The SDK clients of one host, shared by all its bindings.
//!
//! One client per connection setting and region list, as the real extension caches them
//! (`Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.CosmosDB/Config/CosmosDBExtensionConfigProvider.cs`);
//! one runtime (connection pool, background tasks) per host, so that hosts in one process neither
//! share nor outlive each other's connections.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_data_cosmos::clients::{ContainerClient, DatabaseClient};
use azure_data_cosmos::models::{
    ContainerProperties, PartitionKeyDefinition, ThroughputProperties, TimeToLive,
};
use azure_data_cosmos::options::{CreateContainerOptions, Region};
use azure_data_cosmos::{CosmosClient, CosmosRuntime, RoutingStrategy};
use tokio::sync::OnceCell;

use super::connection::Connection;
use super::error::Error;
use crate::identity::Credential;
use crate::settings::Settings;

/// Longest time for one operation, the SDK's own retries included.
pub const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// Containers remembered at once; only bindings with `{expressions}` in names can exceed it, and
/// then all are looked up again.
pub const CONTAINER_CACHE_LIMIT: usize = 64;

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ContainerAddress {
    /// Name of the connection setting.
    pub(crate) connection: String,
    /// Regions in the order of preference; empty = the account's own order.
    pub(crate) preferred_locations: Vec<String>,
    /// Database name.
    pub(crate) database: String,
    /// Container name.
    pub(crate) container: String,
}

/// How to create a container that does not exist (`createIfNotExists`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CreateContainer {
    /// Path of the partition key, such as `/deviceId`.
    pub(crate) partition_key_path: String,
    /// Throughput in RU/s; `None` = the service's default.
    pub(crate) throughput: Option<u64>,
}

/// A container that exists.
pub(crate) struct Container {
    pub(crate) client: ContainerClient,
    pub(crate) properties: ContainerProperties,
}

/// All Cosmos DB clients of one host. Cheap to clone.
#[derive(Clone)]
pub struct CosmosClients {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    connection: String,
    preferred_locations: Vec<String>,
}

type Slot<T> = Arc<OnceCell<T>>;

struct Inner {
    settings: Arc<Settings>,
    identity: Option<Credential>,
    runtime: OnceCell<CosmosRuntime>,
    // Both maps are locked only to find or add a slot, never across an await.
    clients: Mutex<HashMap<ClientKey, Slot<CosmosClient>>>,
    containers: Mutex<HashMap<ContainerAddress, Slot<Arc<Container>>>>,
}

impl CosmosClients {
    /// Connects to nothing yet; settings are read when a binding is first used. `identity` takes the place of a managed
    /// identity.
    pub fn new(settings: Arc<Settings>, identity: Option<Credential>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                identity,
                runtime: OnceCell::new(),
                clients: Mutex::default(),
                containers: Mutex::default(),
            }),
        }
    }

    /// Host name of the account behind the connection setting `name`, without port.
    pub(crate) fn account_host(&self, name: &str) -> Result<String, Error> {
        Ok(self.connection(name)?.host().to_owned())
    }

    fn connection(&self, name: &str) -> Result<Connection, Error> {
        let get = |key: &str| self.inner.settings.get(key);
        Ok(Connection::find(get, name, self.inner.identity.as_ref())?)
    }

    pub(crate) async fn database(
        &self,
        address: &ContainerAddress,
    ) -> Result<DatabaseClient, Error> {
        let client = self.client(address).await?;
        Ok(client.database_client(address.database.clone()))
    }

    /// The container at `address`, looked up once.
    pub(crate) async fn container(
        &self,
        address: &ContainerAddress,
    ) -> Result<Arc<Container>, Error> {
        let slot = {
            let mut containers = lock(&self.inner.containers);
            if containers.len() >= CONTAINER_CACHE_LIMIT && !containers.contains_key(address) {
                containers.clear();
            }
            containers.entry(address.clone()).or_default().clone()
        };
        slot.get_or_try_init(|| async {
            let database = self.database(address).await?;
            let action = || format!("looking up container {}", address.path());
            let client = bounded(
                action,
                database.container_client(address.container.clone(), None),
            )
            .await?;
            let properties = bounded(action, client.read(None)).await?;
            let properties = properties.into_model().map_err(Error::service(action()))?;
            Ok(Arc::new(Container { client, properties }))
        })
        .await
        .cloned()
    }

    /// Forgets what is known about the container at `address`: it was deleted, or created again.
    pub(crate) fn forget(&self, address: &ContainerAddress) {
        lock(&self.inner.containers).remove(address);
    }

    /// Creates database and container unless they exist.
    pub(crate) async fn create(
        &self,
        address: &ContainerAddress,
        create: &CreateContainer,
        ttl: TimeToLive,
    ) -> Result<(), Error> {
        let client = self.client(address).await?;
        exists_or(
            bounded(
                || format!("creating database {}", address.database),
                client.create_database(&address.database, None),
            )
            .await,
        )?;
        let key = PartitionKeyDefinition::new(vec![Cow::Owned(create.partition_key_path.clone())]);
        let properties =
            ContainerProperties::new(address.container.clone(), key).with_default_ttl(ttl);
        let options = create.throughput.map(|throughput| {
            CreateContainerOptions::default()
                .with_throughput(ThroughputProperties::manual(throughput))
        });
        exists_or(
            bounded(
                || format!("creating container {}", address.path()),
                client
                    .database_client(address.database.clone())
                    .create_container(properties, options),
            )
            .await,
        )?;
        self.forget(address);
        Ok(())
    }

    async fn client(&self, address: &ContainerAddress) -> Result<CosmosClient, Error> {
        let key = ClientKey {
            connection: address.connection.clone(),
            preferred_locations: address.preferred_locations.clone(),
        };
        let slot = lock(&self.inner.clients).entry(key).or_default().clone();
        slot.get_or_try_init(|| async {
            let connection = self.connection(&address.connection)?;
            let action = || format!("connecting to {}", connection.host());
            let runtime = self
                .inner
                .runtime
                .get_or_try_init(|| bounded(action, CosmosRuntime::builder().build()))
                .await?;
            let regions = address
                .preferred_locations
                .iter()
                .map(|region| Region::from(region.clone()))
                .collect();
            bounded(
                action,
                CosmosClient::builder().with_runtime(runtime.clone()).build(
                    connection.account(),
                    RoutingStrategy::PreferredRegions(regions),
                ),
            )
            .await
        })
        .await
        .cloned()
    }
}

impl std::fmt::Debug for CosmosClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CosmosClients").finish_non_exhaustive()
    }
}

impl ContainerAddress {
    /// `database/container`, for messages.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.database, self.container)
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("id", &self.properties.id)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Partition key paths, such as `/deviceId`.
    pub(crate) fn partition_key_paths(&self) -> &[Cow<'static, str>] {
        self.properties.partition_key.paths()
    }
}

/// Runs one SDK operation within [`OPERATION_LIMIT`].
///
/// An operation that runs into the limit may still take effect: callers treat the outcome as
/// unknown. The future is boxed because the SDK's are large.
pub(crate) fn bounded<T>(
    action: impl Fn() -> String + Send,
    operation: impl Future<Output = azure_data_cosmos::Result<T>> + Send,
) -> impl Future<Output = Result<T, Error>> + Send {
    let operation = Box::pin(operation);
    async move {
        match tokio::time::timeout(OPERATION_LIMIT, operation).await {
            Ok(result) => result.map_err(|source| Error::service(action())(source)),
            Err(_) => Err(Error::TimedOut {
                action: action(),
                seconds: OPERATION_LIMIT.as_secs(),
            }),
        }
    }
}

/// "It exists already" is as good as "created".
fn exists_or<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_conflict() => Ok(()),
        other => other.map(|_| ()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps stay whole whatever panics elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
