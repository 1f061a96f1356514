//! Azure Cosmos DB for NoSQL on this machine: one gateway per region, multi-region writes.
//!
//! Real SDKs connect to it over plain HTTP, unmodified. Links between regions can be delayed and cut, regions taken offline.
//!
//! - [`record`]: mutations, and which version of an item wins,
//! - [`replica`]: one region's items, change order and log, and what clients ask to be done to them,
//! - [`document`], [`patch`], [`ttl`]: documents, and what can be done to them,
//! - [`disk`]: a replica's data file,
//! - [`replication`]: the links,
//! - [`upkeep`]: what goes on in the background,
//! - [`metadata`], [`container`], [`ranges`]: databases, containers and their physical partitions,
//! - [`partition_key`], [`epk`], [`scope`]: which items a request is about,
//! - [`charge`], [`budget`], [`offer`]: request units,
//! - [`binary_json`], [`hybrid_row`], [`session`], [`auth`]: parts of the wire format,
//! - [`query`]: the SQL dialect,
//! - [`gateway`]: the REST API of one region,
//! - [`account`]: the handle by which all of it is driven.
//!
//! `COMPATIBILITY.md`, which is tested, says what of the service is here; `benches/gateway` measures it.
//!
//! Not here, and refused by name: stored procedures, triggers, user-defined functions, deleting by partition key, users and
//! permissions, Entra ID tokens, merging partition key ranges, regions beyond those that an account was created
//! with (they can be withdrawn and come back).
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

mod account;
mod auth;
mod binary_json;
mod budget;
mod charge;
mod container;
mod disk;
mod document;
mod epk;
mod gateway;
mod hybrid_row;
mod metadata;
mod offer;
mod partition_key;
mod patch;
#[allow(
    dead_code,
    reason = "what an index needs to know of a query is there before the index"
)]
mod query;
mod ranges;
mod record;
mod replica;
mod replication;
mod scope;
mod session;
mod ttl;
mod upkeep;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use account::{Account, Availability, ControlError, Failover, Fault, LinkStatus, RegionStatus};
use account::{Inner, Region};
use auth::{MasterKey, SignIn};
use disk::Disk;
pub use disk::DiskError;
use gateway::{Door, Gateway, Listener};
use metadata::Metadata;
use replica::{MAX_REGIONS, Replica};
use replication::Link;
pub use replication::{LinkQuality, LinkState};

/// The key of Microsoft's emulator, publicly documented, so that existing local connection strings work.
pub const EMULATOR_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// Which regions take writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Every region.
    #[default]
    Multi,
    /// One region, the first to begin with; the others answer writes with 403 and substatus 3.
    Single,
}

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
    write_mode: WriteMode,
    partitions: Option<u32>,
    throughput: Option<u32>,
    entra_tokens: bool,
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

    /// Which regions take writes; all by default.
    #[must_use]
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// Physical partitions of every new container; one by default.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// Request units per second that each region has; beyond them it answers 429. No limit by default.
    #[must_use]
    pub fn throughput(mut self, per_second: Option<u32>) -> Self {
        self.throughput = per_second;
        self
    }

    /// Takes tokens of Microsoft Entra ID besides the account key. Nothing here can check who issued them: only that they
    /// are for Cosmos DB and have not expired. Off by default.
    #[must_use]
    pub fn entra_tokens(mut self, taken: bool) -> Self {
        self.entra_tokens = taken;
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
        forget_deleted(&metadata, &replicas).await;
        let key = MasterKey::new(EMULATOR_KEY)
            .ok_or_else(|| StartError::Regions("the account key is not base64".into()))?;
        let gateway = Arc::new(Gateway::new(
            SignIn {
                key,
                entra_tokens: self.entra_tokens,
            },
            metadata,
            &self.regions,
            replicas.clone(),
            self.write_mode,
            self.partitions.unwrap_or(1),
        ));

        let mut regions = Vec::new();
        for (index, config) in self.regions.iter().enumerate() {
            let listener = listen(config.port, Arc::clone(&gateway), Door::Region(index)).await?;
            gateway.set_endpoint(index, listener.port());
            gateway.limit_throughput(index, self.throughput);
            regions.push(Region {
                name: config.name.clone(),
                listener,
            });
        }
        let global = listen(self.global_port, Arc::clone(&gateway), Door::Account).await?;

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
        tasks.spawn(upkeep::run(
            Arc::clone(&gateway),
            replicas.clone(),
            stop.clone(),
        ));
        tasks.close();
        Ok(Account::new(Inner {
            gateway,
            replicas,
            regions,
            global,
            links,
            stop,
            tasks,
        }))
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

/// Drops what the data files still hold of containers that were deleted right before the last stop.
async fn forget_deleted(metadata: &Metadata, replicas: &[Arc<Replica>]) {
    let known: BTreeSet<u32> = metadata
        .all_containers()
        .iter()
        .map(|container| container.number)
        .collect();
    for replica in replicas {
        let held: Vec<u32> = replica.read().tables.keys().copied().collect();
        for container in held.iter().filter(|number| !known.contains(number)) {
            replica.forget(*container).await;
        }
    }
}

async fn listen(port: u16, gateway: Arc<Gateway>, door: Door) -> Result<Listener, StartError> {
    Listener::start(port, gateway, door)
        .await
        .map_err(|source| StartError::Listen { port, source })
}
