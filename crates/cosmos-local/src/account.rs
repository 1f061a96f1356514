//! The handle by which a running account is looked at and driven.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    DiskError, EMULATOR_KEY, RegionConfig, RegionError,
    container::Container,
    gateway::{self, Gateway, Listener, Region},
    metadata::MetadataError,
    replication::{Link, LinkControl, LinkQuality, LinkState},
    topology::Topology,
    ttl::Lifetimes,
};

/// Something of a running account was not changed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is no such region.
    #[error("the account has no region {0:?}")]
    NoSuchRegion(String),
    /// There is no such container, or what the account knows of itself cannot be changed in this way.
    #[error("{0}")]
    Metadata(String),
    /// Not the status of a failure.
    #[error("the status {0} is none of a failure, which are 400 to 599")]
    NoFault(u16),
    /// A region cannot have its port, be it new or come back.
    #[error("region {region:?} cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The region.
        region: String,
        /// Its port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The account would have no region, or no write region.
    #[error("the account cannot do without {0:?}; let another region take its place first")]
    Needed(String),
    /// The region is none of the account's at the moment.
    #[error("{0:?} is withdrawn from the account")]
    Withdrawn(String),
    /// Every region takes writes, so there is nothing to move.
    #[error("every region of this account takes writes; only a single-write account fails over")]
    EveryRegionWrites,
    /// The old write region's changes did not all arrive in time.
    #[error(
        "{0:?} does not get the last changes of the write region; open the link, or force the failover"
    )]
    Undrained(String),
    /// The account is being shut down, or has been.
    #[error("the account is shutting down")]
    Stopping,
    /// The region cannot be one of the account's.
    #[error("{0}")]
    Region(#[from] RegionError),
    /// What a region has accepted does not reach all others, so that it would be lost with the region.
    #[error(
        "{region:?} has accepted {pending} changes that {to:?} does not get; open the link, and remove the region then"
    )]
    Unreplicated {
        /// The region that was to be removed.
        region: String,
        /// The one that its changes do not reach.
        to: String,
        /// How many there are.
        pending: u64,
    },
    /// The data folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Data {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data folder of a new region cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Disk {
        /// The folder in question.
        path: PathBuf,
        /// What the database said.
        source: DiskError,
    },
}

impl From<MetadataError> for ControlError {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error.to_string())
    }
}

/// How a region meets its clients. Replication goes on in any case, unless links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It answers.
    Online,
    /// Connections are refused, and open ones dropped.
    Refusing,
    /// Every request is answered with 503.
    Failing,
    /// Connections are accepted, and no request is ever answered.
    Silent,
    /// To clients it is no region of the account: not in the account's lists, and every request is answered with 403 and
    /// substatus 1008. It keeps its copy up to date all the same, so that it can come back at once;
    /// [`Account::remove_region`] is for good.
    Withdrawn,
}

/// What requests are for, as far as a [`Fault`] tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Items are read one by one or listed, and conflicts.
    Read,
    /// Items are written; all batches are here.
    Write,
    /// Queries, and plans for them.
    Query,
    /// The change feed.
    Feed,
    /// The region's account document, databases, containers, partition key ranges and offers.
    Metadata,
}

impl Operation {
    /// Everything.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Query,
        Self::Feed,
        Self::Metadata,
    ];
}

/// An answer that a region gives, now and then, instead of doing what it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// HTTP status, such as 503, 410, 429 or 449.
    pub status: u16,
    /// Substatus; 0 is none.
    pub substatus: u32,
    /// How likely: 0 is never, and 1 or more, always.
    pub likelihood: f64,
    /// The requests that it hits.
    pub operations: Vec<Operation>,
}

impl Default for Fault {
    /// 503, always, to everything.
    fn default() -> Self {
        Self {
            status: 503,
            substatus: 0,
            likelihood: 1.0,
            operations: Operation::ALL.to_vec(),
        }
    }
}

/// How the write region moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// The new one gets all of the old one's changes first; meanwhile nobody takes writes.
    Graceful,
    /// At once. Changes that were on their way arrive later, and conflicts are resolved then.
    Forced,
}

/// State of one region, as [`Account::regions`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Azure display name.
    pub name: String,
    /// URL of its gateway, with a slash at its end.
    pub endpoint: String,
    /// Whether it answers clients.
    pub online: bool,
    /// Whether it takes writes.
    pub writable: bool,
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

pub(crate) struct Inner {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) global: Listener,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.topology.stop().cancel();
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
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

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
        let members = self.inner.gateway.members();
        members.regions.iter().map(|it| self.status(it)).collect()
    }

    fn status(&self, region: &Region) -> RegionStatus {
        let listener = self.inner.topology.listener(region);
        RegionStatus {
            name: region.name.clone(),
            endpoint: gateway::endpoint(region.port),
            online: listener.is_some_and(|it| it.is_online()) && region.is_answering(),
            writable: self.inner.gateway.is_writable(region),
        }
    }

    /// Adds a region while the account runs.
    ///
    /// It gets everything that the others had accepted when this was called, whether links had carried it or not; then
    /// links to and from all others, which are open and have the lag that the account was built with; and then clients
    /// learn of it from the account document. Others take writes all the time. Its change feed begins with all that there
    /// is. With a data folder, it is there again after a restart that names it.
    ///
    /// A region that was removed and comes back starts anew; who has a continuation of its change feed from before is
    /// given everything again.
    ///
    /// # Errors
    /// When the account has a region of that name, or has had too many ([`RegionError`]); when the port is taken; when the
    /// data folder cannot be written; when the account is shut down. Then nothing has changed.
    pub async fn add_region(&self, region: RegionConfig) -> Result<RegionStatus, ControlError> {
        let region = self.inner.topology.add(region).await?;
        Ok(self.status(&region))
    }

    /// Removes a region for good: its gateway closes, its links end, and its copy of the data is deleted.
    ///
    /// From the call on it is not in the account's lists and answers with 403 and substatus 1008. The others get first what
    /// it has accepted; that may take 30 seconds, and when it cannot be, everything is as before. In a multi-write account
    /// whose hub it was, the next region becomes the hub.
    ///
    /// [`Availability::Withdrawn`] is for less: a region that keeps its copy up to date, and can come back at once.
    ///
    /// # Errors
    /// When there is no such region, or the account cannot do without it; when the others do not get all that it has
    /// accepted, because a link is cut or too slow; when the data folder cannot be written; when the account is shut down.
    pub async fn remove_region(&self, name: &str) -> Result<(), ControlError> {
        let (topology, name) = (Arc::clone(&self.inner.topology), name.to_owned());
        // A task of its own goes on to its end even if nobody waits for it any more.
        let removal = tokio::spawn(async move { topology.remove(&name).await });
        match removal.await {
            Ok(removed) => removed,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Takes a region's gateway offline (connections are refused, open ones dropped), or back online on its old port.
    /// Replication goes on unless links are cut.
    ///
    /// # Errors
    /// When there is no such region, or its port was taken meanwhile.
    pub async fn set_region_online(&self, name: &str, online: bool) -> Result<(), ControlError> {
        let availability = if online {
            Availability::Online
        } else {
            Availability::Refusing
        };
        self.set_availability(name, availability).await
    }

    /// Changes how a region meets its clients; waits while regions are added or removed.
    ///
    /// # Errors
    /// When there is no such region, or its port was taken meanwhile.
    pub async fn set_availability(
        &self,
        name: &str,
        availability: Availability,
    ) -> Result<(), ControlError> {
        let _held = self.inner.topology.hold().await;
        let region = self.region(name)?;
        if availability == Availability::Withdrawn && self.inner.gateway.needs(&region) {
            return Err(ControlError::Needed(name.to_owned()));
        }
        region.set_availability(availability);
        let Some(listener) = self.inner.topology.listener(&region) else {
            return Ok(());
        };
        let changed = match availability {
            Availability::Refusing => listener.refuse().await,
            _ => listener.resume().await,
        };
        changed.map_err(|source| ControlError::Listen {
            region: name.to_owned(),
            port: listener.port(),
            source,
        })
    }

    /// Makes another region the one that takes the writes; waits while regions are added or removed.
    ///
    /// A graceful one may take 30 seconds, in which nobody takes writes. Whoever drops the future gives it up: the old
    /// region takes writes again.
    ///
    /// # Errors
    /// When the account is not a single-write account or has no such region; if it is to be graceful, when the last changes
    /// do not arrive; when the account is shut down.
    pub async fn fail_over(&self, to: &str, failover: Failover) -> Result<(), ControlError> {
        let (topology, to) = (Arc::clone(&self.inner.topology), to.to_owned());
        let given_up = CancellationToken::new();
        let _until_dropped = given_up.clone().drop_guard();
        // A task of its own leaves nothing half done when nobody waits for it any more.
        let moving = async move { topology.fail_over(&to, failover, &given_up).await };
        match tokio::spawn(moving).await {
            Ok(moved) => moved,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Makes requests to a region fail, now and then, before anything is done; `None` ends it. The account document at the
    /// account's own endpoint is no region's.
    ///
    /// # Errors
    /// When there is no such region, or no such status.
    pub fn set_fault(&self, region: &str, fault: Option<Fault>) -> Result<(), ControlError> {
        let region = self.region(region)?;
        if let Some(fault) = &fault
            && !(400..600).contains(&fault.status)
        {
            return Err(ControlError::NoFault(fault.status));
        }
        region.set_fault(fault);
        Ok(())
    }

    /// Limits the request units per second of a region, or lifts the limit.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn limit_throughput(
        &self,
        region: &str,
        per_second: Option<u32>,
    ) -> Result<(), ControlError> {
        self.region(region)?.limit_throughput(per_second);
        Ok(())
    }

    /// Ids of a container's partition key ranges, in order.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn partitions(&self, database: &str, container: &str) -> Result<Vec<String>, ControlError> {
        let container = self.container(database, container)?;
        let ranges = container.ranges().all().iter();
        Ok(ranges.map(|range| range.id.to_string()).collect())
    }

    /// Divides a partition key range of a container, in all regions at once; returns the ids of its halves.
    ///
    /// # Errors
    /// When there is no such container or range.
    pub fn split_partition(
        &self,
        database: &str,
        container: &str,
        range: &str,
    ) -> Result<[String; 2], ControlError> {
        let container = self.container(database, container)?;
        let halves = self
            .inner
            .gateway
            .metadata()
            .split_range(&container, range)?;
        Ok(halves.map(|id| id.to_string()))
    }

    /// Makes one partition key range of two of a container that are next to each other, in all regions at once; returns its
    /// id. Requests that name one of the two are answered with 410 and substatus 1002 from then on, so that clients look up
    /// the ranges; session tokens and continuations of both stay good.
    ///
    /// # Errors
    /// When there is no such container or range, or the two are not next to each other.
    pub fn merge_partitions(
        &self,
        database: &str,
        container: &str,
        ranges: [&str; 2],
    ) -> Result<String, ControlError> {
        let container = self.container(database, container)?;
        let metadata = self.inner.gateway.metadata();
        Ok(metadata.merge_ranges(&container, ranges)?.to_string())
    }

    fn container(&self, database: &str, container: &str) -> Result<Arc<Container>, ControlError> {
        let found = self.inner.gateway.metadata().container(database, container);
        found.ok_or_else(|| {
            ControlError::Metadata(format!(
                "container {container:?} does not exist in database {database:?}"
            ))
        })
    }

    /// All links.
    pub fn links(&self) -> Vec<LinkStatus> {
        let members = self.inner.gateway.members();
        let name = |index: usize| {
            let mut regions = members.regions.iter();
            let region = regions.find(|region| region.index == index)?;
            Some(region.name.clone())
        };
        // One whose region comes or goes at this moment is left out.
        let status = |link: Arc<Link>| {
            let LinkControl { state, quality } = *link.control.borrow();
            Some(LinkStatus {
                from: name(link.source.index)?,
                to: name(link.target.index)?,
                state,
                lag: quality.lag,
                pending: link.pending(),
            })
        };
        let links = self.inner.topology.links().into_iter();
        links.filter_map(status).collect()
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
        self.link(from, to)?.control.send_modify(|control| {
            control.state = state;
            control.quality.lag = lag.unwrap_or(control.quality.lag);
        });
        Ok(())
    }

    /// Changes how good a link is.
    ///
    /// # Errors
    /// When the account has no such link.
    pub fn set_link_quality(
        &self,
        from: &str,
        to: &str,
        quality: LinkQuality,
    ) -> Result<(), ControlError> {
        self.link(from, to)?
            .control
            .send_modify(|control| control.quality = quality);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> Result<Arc<Link>, ControlError> {
        let (source, target) = (self.region(from)?.index, self.region(to)?.index);
        let mut links = self.inner.topology.links().into_iter();
        links
            .find(|link| link.is(source, target))
            .ok_or_else(|| ControlError::NoSuchRegion(format!("{from} → {to}")))
    }

    /// Items of a container in a region.
    pub fn item_count(&self, region: &str, database: &str, container: &str) -> Option<u64> {
        let region = self.region(region).ok()?;
        let container = self.container(database, container).ok()?;
        let lifetimes = Lifetimes::now(&container);
        let state = region.replica.read();
        let Some(table) = state.tables.get(&container.number) else {
            return Some(0);
        };
        if !lifetimes.are_limited() {
            return Some(table.feed.len() as u64);
        }
        let items = table.items.values();
        Some(
            items
                .filter(|item| item.visible(lifetimes).is_some())
                .count() as u64,
        )
    }

    /// Deleted items of a container that a region still remembers.
    ///
    /// They are forgotten once no older version can arrive any more, from whichever region: some upkeep intervals after all
    /// regions have everything that was accepted until all had the delete. While a link is cut, none is.
    pub fn tombstone_count(&self, region: &str, database: &str, container: &str) -> Option<u64> {
        let region = self.region(region).ok()?;
        let container = self.container(database, container).ok()?;
        let state = region.replica.read();
        let table = state.tables.get(&container.number);
        Some(table.map_or(0, |table| table.tombstones()) as u64)
    }

    /// Stops all gateways and links. What was acknowledged is on disk already, if there is one.
    pub async fn shutdown(&self) {
        self.inner.global.stop().await;
        self.inner.topology.shut_down().await;
    }

    fn region(&self, name: &str) -> Result<Arc<Region>, ControlError> {
        let members = self.inner.gateway.members();
        let region = members.find(name);
        region
            .cloned()
            .ok_or_else(|| ControlError::NoSuchRegion(name.to_owned()))
    }
}
