//! Azure Cosmos DB for NoSQL on this machine: one gateway per region, multi-region writes.
//!
//! Real SDKs connect to it over plain HTTP, unmodified. Links between regions can be delayed and cut; regions can be taken
//! offline, added and removed.
//!
//! - [`record`]: mutations, and which version of an item wins,
//! - [`replica`]: one region's items, change order and log, and what clients ask to be done to them,
//! - [`document`], [`patch`], [`ttl`]: documents, and what can be done to them,
//! - [`folder`], [`file`]: the data folder; [`disk`]: a region's part of it,
//! - [`replication`]: the links,
//! - [`membership`]: which regions the account has and had, [`topology`]: how they come and go while it runs,
//! - [`vector`]: numbers per region,
//! - [`upkeep`]: what goes on in the background, [`tombstones`]: when a delete can be forgotten,
//!   [`expiry`]: which items expire, and when,
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
//! permissions. Entra ID tokens are taken when that is switched on.
//!
//! In a test, with the SDK that the application uses:
//!
//! ```
//! use azure_data_cosmos::{AccountReference, CosmosClient, RoutingStrategy};
//! use cosmos_local::{CosmosLocal, EMULATOR_KEY, RegionConfig};
//!
//! # /*
//! #[tokio::test]
//! # */ #[tokio::main(flavor = "current_thread")] async fn main() { a_database_is_created().await.unwrap() }
//! async fn a_database_is_created() -> Result<(), Box<dyn std::error::Error>> {
//!     let account = CosmosLocal::builder().region(RegionConfig::new("West US")).start().await?;
//!     let reference = AccountReference::with_authentication_key(account.endpoint().parse()?, EMULATOR_KEY);
//!     let client = CosmosClient::builder().build(reference, RoutingStrategy::PreferredRegions(vec![])).await?;
//!     client.create_database("shop", None).await?;
//!     account.shutdown().await;
//!     Ok(())
//! }
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
mod expiry;
mod file;
mod folder;
mod gateway;
mod hybrid_row;
mod membership;
mod metadata;
mod offer;
mod partition_key;
mod patch;
mod query;
mod ranges;
mod record;
mod replica;
mod replication;
mod scope;
mod session;
mod tombstones;
mod topology;
mod ttl;
mod upkeep;
mod vector;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;

use account::Inner;
pub use account::{
    Account, Availability, ControlError, Failover, Fault, LinkStatus, Operation, RegionStatus,
};
use auth::{MasterKey, SignIn};
pub use disk::DiskError;
use folder::{DataFolder, Opened};
use gateway::{Door, Gateway, Region, Socket};
pub use membership::RegionError;
use membership::plain;
use metadata::Metadata;
use replica::{MAX_REGIONS, Replica};
pub use replication::{LinkQuality, LinkState};
use topology::{Settings, Topology};

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
    /// A region's data folder cannot be used.
    #[error("cannot open {}: {source}", path.display())]
    Disk {
        /// The folder in question.
        path: PathBuf,
        /// What the database said.
        source: DiskError,
    },
}

impl From<RegionError> for StartError {
    fn from(error: RegionError) -> Self {
        Self::Regions(error.to_string())
    }
}

/// A region to start, or to add to an account that runs.
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
    check_dates: bool,
    upkeep: Option<Duration>,
}

impl CosmosLocal {
    /// An account without regions, in memory.
    pub fn builder() -> Self {
        Self::default()
    }

    /// Names a region; the first is the hub of a new account.
    ///
    /// A data folder keeps the regions of its account. All of them have to be named, and those that are new to it get
    /// everything that the others have.
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

    /// Refuses signatures of the account key whose date is more than 15 minutes from this machine's time, as the service
    /// does. Off by default: clocks of containers stand still now and then.
    #[must_use]
    pub fn check_dates(mut self, checked: bool) -> Self {
        self.check_dates = checked;
        self
    }

    /// How often logs are cut down, deletes forgotten that nobody needs any more, and expired items deleted; every second by
    /// default. Expired items cannot be seen, and deleted ones not read, however seldom that is.
    #[must_use]
    pub fn upkeep_interval(mut self, every: Duration) -> Self {
        self.upkeep = Some(every);
        self
    }

    /// Opens the data, starts replication and all gateways.
    ///
    /// # Errors
    /// When the regions are not valid, a port is taken or the data folder cannot be used.
    pub async fn start(self) -> Result<Account, StartError> {
        self.check_regions()?;
        // Before the data folder gets regions that could then not be served.
        let mut sockets = Vec::new();
        for region in &self.regions {
            sockets.push(bind(region.port).await?);
        }
        let global = bind(self.global_port).await?;
        let names: Vec<&str> = self.regions.iter().map(|it| it.name.as_str()).collect();
        let data = self.data_dir.map(DataFolder);
        let Opened {
            metadata,
            membership,
            replicas,
        } = match &data {
            None => Opened::in_memory(&names)?,
            Some(data) => data.open(&names)?,
        };
        let replicas: Vec<Arc<Replica>> = replicas.into_iter().map(Arc::new).collect();
        forget_deleted(&metadata, &replicas).await;
        let key = MasterKey::new(EMULATOR_KEY)
            .ok_or_else(|| StartError::Regions("the account key is not base64".into()))?;
        let sign_in = SignIn {
            key,
            entra_tokens: self.entra_tokens,
            checks_dates: self.check_dates,
        };
        let partitions = self.partitions.unwrap_or(1);
        let gateway = Arc::new(Gateway::new(sign_in, metadata, self.write_mode, partitions));

        let mut regions = Vec::new();
        for (name, socket) in names.iter().zip(sockets) {
            let index = membership.index(name);
            let mut replicas = replicas.iter();
            if let Some(replica) = replicas.find(|replica| Some(replica.index) == index) {
                let region = Region::new(name, socket.port(), Arc::clone(replica));
                regions.push((Arc::new(region), socket));
            }
        }
        let settings = Settings {
            lag: self.lag,
            throughput: self.throughput,
            data,
        };
        let topology = Arc::new(Topology::new(Arc::clone(&gateway), settings));
        topology.launch(membership, regions);
        topology.spawn(upkeep::run(
            Arc::clone(&gateway),
            Arc::clone(&topology),
            self.upkeep.unwrap_or(upkeep::INTERVAL),
            topology.stop().clone(),
        ));
        Ok(Account::new(Inner {
            global: global.serve(Arc::clone(&gateway), Door::Account),
            gateway,
            topology,
        }))
    }

    fn check_regions(&self) -> Result<(), StartError> {
        if self.regions.is_empty() || self.regions.len() as u64 > MAX_REGIONS {
            return Err(StartError::Regions(format!(
                "an account has 1 to {MAX_REGIONS} regions"
            )));
        }
        let names: BTreeSet<String> = self.regions.iter().map(|it| plain(&it.name)).collect();
        if names.len() < self.regions.len() {
            return Err(RegionError::Nameless.into());
        }
        Ok(())
    }
}

/// Drops what replicas hold of containers that were deleted without their knowledge, right before the last stop or while
/// they were copied; and lets them take nothing more of these, which may still be on its way.
async fn forget_deleted(metadata: &Metadata, replicas: &[Arc<Replica>]) {
    let gone = metadata.gone();
    for replica in replicas {
        let known = |number: &&u32| replica.read().is_dropped(**number);
        let unknown: Vec<u32> = gone.iter().filter(|it| !known(it)).copied().collect();
        for container in unknown {
            replica.forget(container).await;
        }
    }
}

async fn bind(port: u16) -> Result<Socket, StartError> {
    Socket::bind(port)
        .await
        .map_err(|source| StartError::Listen { port, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{container::Container, record, replica::State};

    #[tokio::test]
    async fn what_is_still_on_its_way_to_a_deleted_container_is_not_kept() {
        let metadata = Metadata::default();
        let database = json!({"id": "db"});
        let database = database.as_object().expect("an object");
        metadata.create_database(database, None).expect("valid");
        let make = |id: &str| {
            let container = json!({"id": id, "partitionKey": {"paths": ["/k"], "kind": "Hash"}});
            let container = container.as_object().expect("an object").clone();
            metadata.create_container("db", container, 1, None)
        };
        let (gone, kept) = (make("gone").expect("valid"), make("kept").expect("valid"));
        let late = |number, container: &Container| {
            let mut record = record::tests::record(0, number, [0; 3], 0.0, true);
            Arc::make_mut(&mut record).container = container.number;
            record
        };
        let replica = Arc::new(Replica::in_memory(1, State::empty(2)));
        let early = vec![late(1, &gone), late(2, &kept)];
        replica.apply(early).await.expect("in memory");
        metadata.delete_container(&gone).expect("is there");
        forget_deleted(&metadata, std::slice::from_ref(&replica)).await;
        let records = vec![late(3, &gone), late(4, &kept)];
        replica.apply(records).await.expect("in memory");
        let state = replica.read();
        let tables: Vec<u32> = state.tables.keys().copied().collect();
        assert_eq!((state.seen_of(0), tables), (4, vec![kept.number]));
    }
}
