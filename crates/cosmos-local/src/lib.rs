//! Azure Cosmos DB for NoSQL on this machine: one gateway per region, multi-region writes.
//!
//! Real SDKs connect to it over plain HTTP, unmodified. Links between regions can be delayed and cut, regions taken offline.
//!
//! - [`record`]: mutations, and which version of an item wins,
//! - [`replica`]: one region's items, change order and log,
//! - [`disk`]: a replica's data file,
//! - [`replication`]: the links,
//! - [`metadata`]: databases and containers of the account,
//! - [`partition_key`], [`epk`], [`scope`]: which items a request is about,
//! - [`binary_json`], [`session`], [`auth`]: parts of the wire format,
//! - [`query`]: the SQL dialect,
//! - [`gateway`]: the REST API of one region.
//!
//! Not here, and refused by name: patch, batches, stored procedures, triggers, user-defined functions, time to live,
//! unique keys, the all-versions change feed, the conflict feed, Entra ID tokens.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), cosmos_local::StartError> {
//! use cosmos_local::{CosmosLocal, RegionConfig};
//! let account = CosmosLocal::builder().region(RegionConfig::new("West US")).region(RegionConfig::new("North Europe")).start().await?;
//! println!("CosmosDBConnection={}", account.connection_string());
//! assert_eq!(account.links().len(), 2);
//! account.shutdown().await;
//! # Ok(()) }
//! ```

mod auth;
mod binary_json;
mod disk;
mod epk;
mod gateway;
mod metadata;
mod partition_key;
#[allow(
    dead_code,
    reason = "what an index needs to know of a query is there before the index"
)]
mod query;
mod record;
mod replica;
mod replication;
mod scope;
mod session;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{task::JoinHandle, time::interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use auth::MasterKey;
use disk::Disk;
pub use disk::DiskError;
use gateway::{Gateway, Listener};
use metadata::Metadata;
use replica::{MAX_REGIONS, Replica};
pub use replication::LinkState;
use replication::{Link, LinkControl};

/// The key of Microsoft's emulator, publicly documented, so that existing local connection strings work.
pub const EMULATOR_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// How often logs are cut down to what some region still needs.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// Why an account did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The regions are not a valid set.
    #[error("{0}")]
    Regions(String),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on 127.0.0.1:{port} for Cosmos DB ({source}); choose another port, or 0 for any"
    )]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Data {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A region's data file cannot be used.
    #[error("cannot open {}: {source}", path.display())]
    Disk {
        /// The file in question.
        path: PathBuf,
        /// What the database said.
        source: DiskError,
    },
}

/// A region is not one of the account's, or cannot be switched.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is no such region.
    #[error("the account has no region {0:?}")]
    NoSuchRegion(String),
    /// A region cannot come back to its old port.
    #[error("region {region:?} cannot come back to port {port}: {source}")]
    Listen {
        /// The region.
        region: String,
        /// Its port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A region to start.
#[derive(Debug, Clone)]
pub struct RegionConfig {
    name: String,
    port: u16,
}

impl RegionConfig {
    /// A region with this Azure display name, on a port that the system chooses.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            port: 0,
        }
    }

    /// Port of the region's gateway on 127.0.0.1.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
}

/// Builds an [`Account`].
#[derive(Debug, Default)]
pub struct CosmosLocal {
    regions: Vec<RegionConfig>,
    global_port: u16,
    lag: Duration,
    data_dir: Option<PathBuf>,
}

impl CosmosLocal {
    /// An account without regions, in memory.
    pub fn builder() -> Self {
        Self::default()
    }

    /// Adds a region; the first is the hub.
    #[must_use]
    pub fn region(mut self, region: RegionConfig) -> Self {
        self.regions.push(region);
        self
    }

    /// Port of the account-wide endpoint, which belongs to no region and is never cut.
    #[must_use]
    pub fn global_port(mut self, port: u16) -> Self {
        self.global_port = port;
        self
    }

    /// Replication lag of every link, to begin with; none by default.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// Folder to keep the data in; `None` is memory.
    #[must_use]
    pub fn data_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.data_dir = dir;
        self
    }

    /// Opens the data, starts replication and all gateways.
    ///
    /// # Errors
    /// When the regions are not valid, a port is taken or the data folder cannot be used.
    pub async fn start(self) -> Result<Account, StartError> {
        self.check_regions()?;
        let (metadata, replicas) = match &self.data_dir {
            None => {
                let count = self.regions.len();
                (
                    Metadata::default(),
                    (0..count)
                        .map(|index| Replica::in_memory(index, count))
                        .collect(),
                )
            }
            Some(dir) => self.open(dir)?,
        };
        let replicas: Vec<Arc<Replica>> = replicas.into_iter().map(Arc::new).collect();
        let key = MasterKey::new(EMULATOR_KEY)
            .ok_or_else(|| StartError::Regions("the account key is not base64".into()))?;
        let gateway = Arc::new(Gateway::new(key, metadata, &self.regions, replicas.clone()));

        let mut regions = Vec::new();
        for (index, config) in self.regions.iter().enumerate() {
            let listener = listen(config.port, Arc::clone(&gateway), index).await?;
            gateway.set_endpoint(index, listener.port());
            regions.push(Region {
                name: config.name.clone(),
                listener,
            });
        }
        let global = listen(self.global_port, Arc::clone(&gateway), 0).await?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut links = Vec::new();
        for source in &replicas {
            for target in &replicas {
                if source.index == target.index {
                    continue;
                }
                let link = Arc::new(Link::new(Arc::clone(source), Arc::clone(target), self.lag));
                let (running, stop) = (Arc::clone(&link), stop.clone());
                tasks.spawn(async move { running.run(stop).await });
                links.push(link);
            }
        }
        let trimming = tasks.spawn(trim_logs(replicas.clone(), stop.clone()));
        tasks.close();
        let inner = Inner {
            gateway,
            replicas,
            regions,
            global,
            links,
            stop,
            tasks,
            _trimming: trimming,
        };
        Ok(Account {
            inner: Arc::new(inner),
        })
    }

    fn check_regions(&self) -> Result<(), StartError> {
        if self.regions.is_empty() || self.regions.len() as u64 > MAX_REGIONS {
            return Err(StartError::Regions(format!(
                "an account has 1 to {MAX_REGIONS} regions"
            )));
        }
        let names: BTreeSet<String> = self
            .regions
            .iter()
            .map(|region| region.name.to_lowercase().replace(' ', ""))
            .collect();
        if names.len() < self.regions.len() || names.contains("") {
            return Err(StartError::Regions(
                "every region of an account has a name of its own".into(),
            ));
        }
        Ok(())
    }

    fn open(&self, dir: &Path) -> Result<(Metadata, Vec<Replica>), StartError> {
        let data = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Data { path, source }
        };
        std::fs::create_dir_all(dir).map_err(data(dir))?;
        // Counters and resource ids depend on which region is which.
        let file = dir.join("regions.json");
        let names: Vec<&str> = self
            .regions
            .iter()
            .map(|region| region.name.as_str())
            .collect();
        match std::fs::read(&file) {
            Ok(text) => {
                let known: Vec<String> =
                    serde_json::from_slice(&text).map_err(|error| data(&file)(error.into()))?;
                if known != names {
                    return Err(StartError::Regions(format!(
                        "{} belongs to an account with the regions {}; name the same in the same order, or choose another folder",
                        dir.display(),
                        known.join(", ")
                    )));
                }
            }
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                let text = serde_json::to_vec(&names).map_err(|error| data(&file)(error.into()))?;
                std::fs::write(&file, text).map_err(data(&file))?;
            }
            Err(error) => return Err(data(&file)(error)),
        }
        let file = dir.join("account.json");
        let metadata = Metadata::open(file.clone()).map_err(data(&file))?;
        let count = self.regions.len();
        let replicas = (0..count).map(|index| {
            let path = dir.join(format!("region-{index}.redb"));
            let (disk, state) =
                Disk::open(&path, count).map_err(|source| StartError::Disk { path, source })?;
            Ok(Replica::on_disk(index, state, disk))
        });
        Ok((metadata, replicas.collect::<Result<_, StartError>>()?))
    }
}

async fn listen(port: u16, gateway: Arc<Gateway>, region: usize) -> Result<Listener, StartError> {
    Listener::start(port, gateway, region)
        .await
        .map_err(|source| StartError::Listen { port, source })
}

async fn trim_logs(replicas: Vec<Arc<Replica>>, stop: CancellationToken) {
    let mut ticks = interval(TRIM_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for source in &replicas {
            let seen = replicas
                .iter()
                .map(|replica| replica.read().seen[source.index])
                .min()
                .unwrap_or_default();
            let oldest = source
                .read()
                .log
                .first_key_value()
                .map(|(number, _)| *number);
            if oldest.is_some_and(|oldest| oldest <= seen) {
                source.trim(seen);
            }
        }
    }
}

/// State of one region, as [`Account::regions`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Azure display name.
    pub name: String,
    /// URL of its gateway, with a slash at its end.
    pub endpoint: String,
    /// Whether clients can connect to it.
    pub online: bool,
}

/// State of one directed link, as [`Account::links`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Region that accepts the changes.
    pub from: String,
    /// Region that they go to.
    pub to: String,
    /// Whether it carries anything.
    pub state: LinkState,
    /// Time between acceptance and arrival, at least.
    pub lag: Duration,
    /// Changes accepted at `from` and not yet applied at `to`.
    pub pending: u64,
}

/// Handle to a running account; clones share it.
#[derive(Clone)]
pub struct Account {
    inner: Arc<Inner>,
}

struct Region {
    name: String,
    listener: Listener,
}

struct Inner {
    gateway: Arc<Gateway>,
    replicas: Vec<Arc<Replica>>,
    regions: Vec<Region>,
    global: Listener,
    links: Vec<Arc<Link>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _trimming: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

impl Account {
    /// The account-wide endpoint, such as `http://127.0.0.1:8090/`.
    pub fn endpoint(&self) -> String {
        gateway::endpoint(self.inner.global.port())
    }

    /// `AccountEndpoint=…;AccountKey=…;`
    pub fn connection_string(&self) -> String {
        format!(
            "AccountEndpoint={};AccountKey={EMULATOR_KEY};",
            self.endpoint()
        )
    }

    /// All regions, in account order.
    pub fn regions(&self) -> Vec<RegionStatus> {
        let status = |region: &Region| RegionStatus {
            name: region.name.clone(),
            endpoint: gateway::endpoint(region.listener.port()),
            online: region.listener.is_online(),
        };
        self.inner.regions.iter().map(status).collect()
    }

    /// Takes a region's gateway offline (connections are refused, open ones dropped), or back online on its old port.
    /// Replication goes on unless links are cut.
    ///
    /// # Errors
    /// When there is no such region, or its port was taken meanwhile.
    pub async fn set_region_online(&self, name: &str, online: bool) -> Result<(), ControlError> {
        let region = &self.inner.regions[self.index(name)?];
        if !online {
            region.listener.stop().await;
            return Ok(());
        }
        region
            .listener
            .resume()
            .await
            .map_err(|source| ControlError::Listen {
                region: name.to_owned(),
                port: region.listener.port(),
                source,
            })
    }

    /// All links.
    pub fn links(&self) -> Vec<LinkStatus> {
        let name = |replica: &Replica| self.inner.regions[replica.index].name.clone();
        let status = |link: &Arc<Link>| {
            let LinkControl { state, lag } = *link.control.borrow();
            LinkStatus {
                from: name(&link.source),
                to: name(&link.target),
                state,
                lag,
                pending: link.pending(),
            }
        };
        self.inner.links.iter().map(status).collect()
    }

    /// Opens or cuts a link, and changes its lag when one is given.
    ///
    /// # Errors
    /// When the account has no such link.
    pub fn set_link(
        &self,
        from: &str,
        to: &str,
        state: LinkState,
        lag: Option<Duration>,
    ) -> Result<(), ControlError> {
        let (source, target) = (self.index(from)?, self.index(to)?);
        let mut links = self.inner.links.iter();
        let link = links
            .find(|link| link.source.index == source && link.target.index == target)
            .ok_or_else(|| ControlError::NoSuchRegion(format!("{from} → {to}")))?;
        link.control.send_modify(|control| {
            *control = LinkControl {
                state,
                lag: lag.unwrap_or(control.lag),
            }
        });
        Ok(())
    }

    /// Items of a container in a region.
    pub fn item_count(&self, region: &str, database: &str, container: &str) -> Option<u64> {
        let region = self.index(region).ok()?;
        let container = self
            .inner
            .gateway
            .metadata()
            .container(database, container)?;
        let state = self.inner.replicas[region].read();
        Some(
            state
                .tables
                .get(&container.number)
                .map_or(0, |table| table.feed.len() as u64),
        )
    }

    /// Stops all gateways and links. What was acknowledged is on disk already, if there is one.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        for region in &self.inner.regions {
            region.listener.stop().await;
        }
        self.inner.global.stop().await;
        self.inner.tasks.wait().await;
        for replica in &self.inner.replicas {
            replica.close().await;
        }
    }

    fn index(&self, name: &str) -> Result<usize, ControlError> {
        self.inner
            .regions
            .iter()
            .position(|region| region.name == name)
            .ok_or_else(|| ControlError::NoSuchRegion(name.to_owned()))
    }
}
