//! The handle by which a running account is looked at and driven.

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EMULATOR_KEY, WriteMode,
    container::Container,
    gateway::{self, Gateway, Listener},
    metadata::MetadataError,
    replica::Replica,
    replication::{Link, LinkControl, LinkQuality, LinkState},
    ttl::Lifetimes,
};

/// How long a graceful failover waits for the old write region's last changes.
const DRAIN: Duration = Duration::from_secs(30);

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
    /// It is no region of the account: not in the account's lists, and every request is answered with 403 and substatus
    /// 1008. It keeps its copy up to date all the same, so that it can become one again.
    Withdrawn,
}

/// An answer that a region gives, now and then, instead of doing what it is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// HTTP status, such as 503, 410, 429 or 449.
    pub status: u16,
    /// Substatus; 0 is none.
    pub substatus: u32,
    /// How likely: 0 is never, and 1 or more, always.
    pub likelihood: f64,
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

pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) listener: Listener,
}

pub(crate) struct Inner {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) replicas: Vec<Arc<Replica>>,
    pub(crate) regions: Vec<Region>,
    pub(crate) global: Listener,
    pub(crate) links: Vec<Arc<Link>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
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
        let gateway = &self.inner.gateway;
        let status = |(index, region): (usize, &Region)| RegionStatus {
            name: region.name.clone(),
            endpoint: gateway::endpoint(region.listener.port()),
            online: region.listener.is_online() && gateway.is_answering(index),
            writable: gateway.is_writable(index),
        };
        self.inner.regions.iter().enumerate().map(status).collect()
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

    /// Changes how a region meets its clients.
    ///
    /// # Errors
    /// When there is no such region, or its port was taken meanwhile.
    pub async fn set_availability(
        &self,
        name: &str,
        availability: Availability,
    ) -> Result<(), ControlError> {
        let index = self.index(name)?;
        let region = &self.inner.regions[index];
        if availability == Availability::Withdrawn && self.is_needed(index) {
            return Err(ControlError::Needed(name.to_owned()));
        }
        self.inner.gateway.set_availability(index, availability);
        if availability == Availability::Refusing {
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

    /// Whether the account would have no region, or no write region, without this one.
    fn is_needed(&self, region: usize) -> bool {
        let gateway = &self.inner.gateway;
        match gateway.write_mode() {
            WriteMode::Single => gateway.hub() == region,
            WriteMode::Multi => {
                let mut others = (0..self.inner.regions.len()).filter(|other| *other != region);
                !others.any(|other| gateway.is_listed(other))
            }
        }
    }

    /// Makes another region the one that takes the writes.
    ///
    /// # Errors
    /// When the account is not a single-write account or has no such region; and, if it is to be graceful, when the last
    /// changes do not arrive.
    pub async fn fail_over(&self, to: &str, failover: Failover) -> Result<(), ControlError> {
        let target = self.index(to)?;
        let gateway = &self.inner.gateway;
        if gateway.write_mode() == WriteMode::Multi {
            return Err(ControlError::EveryRegionWrites);
        }
        if !gateway.is_listed(target) {
            return Err(ControlError::Withdrawn(to.to_owned()));
        }
        if failover == Failover::Graceful {
            gateway.freeze(true);
            let drained = timeout(DRAIN, self.drain(gateway.hub(), target)).await;
            gateway.freeze(false);
            if drained.is_err() {
                return Err(ControlError::Undrained(to.to_owned()));
            }
        }
        Ok(gateway.metadata().set_hub(target)?)
    }

    /// Waits until a region has what another has accepted.
    async fn drain(&self, source: usize, target: usize) {
        let mut links = self.inner.links.iter();
        let Some(link) = links.find(|link| link.is(source, target)) else {
            return;
        };
        let mut changes = link.target.changes();
        loop {
            changes.borrow_and_update();
            if link.pending() == 0 || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Makes operations on items in a region fail, now and then, before anything is done; `None` ends it.
    ///
    /// # Errors
    /// When there is no such region, or no such status.
    pub fn set_fault(&self, region: &str, fault: Option<Fault>) -> Result<(), ControlError> {
        let region = self.index(region)?;
        if let Some(fault) = fault
            && !(400..600).contains(&fault.status)
        {
            return Err(ControlError::NoFault(fault.status));
        }
        self.inner.gateway.set_fault(region, fault);
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
        let region = self.index(region)?;
        self.inner.gateway.limit_throughput(region, per_second);
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
        let name = |replica: &Replica| self.inner.regions[replica.index].name.clone();
        let status = |link: &Arc<Link>| {
            let LinkControl { state, quality } = *link.control.borrow();
            LinkStatus {
                from: name(&link.source),
                to: name(&link.target),
                state,
                lag: quality.lag,
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

    fn link(&self, from: &str, to: &str) -> Result<&Arc<Link>, ControlError> {
        let (source, target) = (self.index(from)?, self.index(to)?);
        let mut links = self.inner.links.iter();
        links
            .find(|link| link.is(source, target))
            .ok_or_else(|| ControlError::NoSuchRegion(format!("{from} → {to}")))
    }

    /// Items of a container in a region.
    pub fn item_count(&self, region: &str, database: &str, container: &str) -> Option<u64> {
        let region = self.index(region).ok()?;
        let container = self.container(database, container).ok()?;
        let lifetimes = Lifetimes::now(&container);
        let state = self.inner.replicas[region].read();
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
