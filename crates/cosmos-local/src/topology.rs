//! The parts of a running account that there are once per region, or once per pair of regions; and how regions come and go.
//!
//! A region joins with everything that the others have accepted so far, and only then does anybody learn of it: see
//! [`crate::replica::seed`]. It leaves in this order: it is taken out of the account's lists and accepts nothing any more,
//! the others get what it had accepted, its links end, it is forgotten, its gateway closes, and its data is deleted.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Availability, ControlError, Failover, RegionConfig, WriteMode,
    disk::{self, Disk},
    folder::DataFolder,
    forget_deleted,
    gateway::{Door, Gateway, Listener, Members, Region, Socket},
    membership::Membership,
    replica::{Replica, State, seed},
    replication::Link,
};

/// How long a region that is to be removed, or to hand over the writes, has to bring its last changes to the others.
const DRAIN: Duration = Duration::from_secs(30);

/// What every region, and every link, starts with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) lag: Duration,
    /// Request units per second.
    pub(crate) throughput: Option<u32>,
    pub(crate) data: Option<DataFolder>,
}

/// A link, and the task that carries.
struct RunningLink {
    link: Arc<Link>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Gateways and links of an account.
pub(crate) struct Topology {
    gateway: Arc<Gateway>,
    settings: Settings,
    listeners: RwLock<BTreeMap<usize, Arc<Listener>>>,
    links: RwLock<Vec<RunningLink>>,
    changing: Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Topology {
    pub(crate) fn new(gateway: Arc<Gateway>, settings: Settings) -> Self {
        Self {
            gateway,
            settings,
            listeners: RwLock::default(),
            links: RwLock::default(),
            changing: Mutex::new(()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Ends everything that [`Self::spawn`] has started.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Does something until the account stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Keeps regions from coming and going, once none is about to.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Keeps other regions from coming and going while one does, unless the account stops.
    async fn change(&self) -> Result<MutexGuard<'_, ()>, ControlError> {
        let held = self.changing.lock().await;
        if self.stop.is_cancelled() {
            return Err(ControlError::Stopping);
        }
        Ok(held)
    }

    /// Keeps regions from coming and going; `None` when one is about to.
    pub(crate) fn try_hold(&self) -> Option<MutexGuard<'_, ()>> {
        self.changing.try_lock().ok()
    }

    pub(crate) fn listener(&self, region: &Region) -> Option<Arc<Listener>> {
        let listeners = read(&self.listeners);
        listeners.get(&region.index).cloned()
    }

    /// All links, by source, then by target.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        let links = read(&self.links);
        let mut links: Vec<Arc<Link>> = links.iter().map(|it| Arc::clone(&it.link)).collect();
        links.sort_unstable_by_key(|link| (link.source.index, link.target.index));
        links
    }

    /// Makes regions those of the account, with links to and from all others, and opens their gateways.
    pub(crate) fn launch(&self, membership: Membership, new: Vec<(Arc<Region>, Socket)>) {
        let mut regions = self.gateway.members().regions.clone();
        for (region, _) in &new {
            for other in &regions {
                for (source, target) in [(region, other), (other, region)] {
                    let (source, target) = (&source.replica, &target.replica);
                    let link = Link::new(Arc::clone(source), Arc::clone(target), self.settings.lag);
                    self.run(Arc::new(link));
                }
            }
            region.limit_throughput(self.settings.throughput);
            regions.push(Arc::clone(region));
        }
        regions.sort_unstable_by_key(|region| region.index);
        self.gateway.set_members(Members {
            membership,
            regions,
        });
        for (region, socket) in new {
            let index = region.index;
            let listener = socket.serve(Arc::clone(&self.gateway), Door::Region(region));
            write(&self.listeners).insert(index, Arc::new(listener));
        }
    }

    fn run(&self, link: Arc<Link>) {
        let stop = self.stop.child_token();
        let (running, stopping) = (Arc::clone(&link), stop.clone());
        let task = self.tasks.spawn(async move { running.run(stopping).await });
        write(&self.links).push(RunningLink { link, stop, task });
    }

    /// Makes a region one of the account's.
    pub(crate) async fn add(&self, config: RegionConfig) -> Result<Arc<Region>, ControlError> {
        // Nothing that the new region needs is cut off a log meanwhile.
        let _held = self.change().await?;
        let mut membership = self.gateway.members().membership.clone();
        let index = membership.join(&config.name)?;
        let listen = |source| ControlError::Listen {
            region: config.name.clone(),
            port: config.port,
            source,
        };
        let socket = Socket::bind(config.port).await.map_err(listen)?;
        let replica = self.seed(index, membership.start_of_feed(index)).await?;
        let replica = Arc::new(replica);
        if let Err(error) = self.store(&membership) {
            replica.close().await;
            self.delete_folder(index);
            return Err(error);
        }
        let region = Arc::new(Region::new(&config.name, socket.port(), replica));
        self.launch(membership, vec![(Arc::clone(&region), socket)]);
        // A container may have been deleted while its items were copied.
        forget_deleted(
            self.gateway.metadata(),
            std::slice::from_ref(&region.replica),
        )
        .await;
        Ok(region)
    }

    /// A replica with all that the account's regions have, on disk where theirs are.
    async fn seed(&self, index: usize, shift: u64) -> Result<Replica, ControlError> {
        let members = self.gateway.members();
        let folder = self.settings.data.as_ref().map(|data| data.region(index));
        let copy = move || {
            let sources = members.regions.iter();
            let sources = sources.map(|region| (region.index, region.replica.read()));
            let state = seed(sources, shift).unwrap_or_else(|| State::empty(index + 1));
            let Some(path) = folder else {
                return Ok(Replica::in_memory(index, state));
            };
            match Disk::create(&path, index, &state) {
                Ok(disk) => Ok(Replica::on_disk(index, state, disk)),
                Err(source) => Err(ControlError::Disk { path, source }),
            }
        };
        // All of an account's data may take its time.
        match tokio::task::spawn_blocking(copy).await {
            Ok(replica) => replica,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn store(&self, membership: &Membership) -> Result<(), ControlError> {
        let Some(data) = &self.settings.data else {
            return Ok(());
        };
        let path = data.membership();
        membership
            .store(&path)
            .map_err(|source| ControlError::Data { path, source })
    }

    /// Ends a region, once the others have all that it has accepted.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), ControlError> {
        let _held = self.change().await?;
        let members = self.gateway.members();
        let region = members
            .find(name)
            .ok_or_else(|| ControlError::NoSuchRegion(name.to_owned()))?;
        if self.gateway.needs(region) {
            return Err(ControlError::Needed(name.to_owned()));
        }
        let before = region.availability();
        region.set_availability(Availability::Withdrawn);
        region.replica.seal(true).await;
        let mut links = Vec::new();
        let left = match self.drain(region, &members).await {
            Ok(()) => {
                links = self.unlink(region).await;
                self.leave(region, &members)
            }
            Err(error) => Err(error),
        };
        let membership = match left {
            Ok(membership) => membership,
            Err(error) => {
                links.into_iter().for_each(|link| self.run(link));
                // In a single-write account it may be one that has handed over the writes.
                let takes_writes = self.gateway.is_writable(region);
                region.replica.seal(!takes_writes).await;
                region.set_availability(before);
                return Err(error);
            }
        };
        let others = members.regions.iter();
        let others = others.filter(|other| other.index != region.index).cloned();
        self.gateway.set_members(Members {
            membership,
            regions: others.collect(),
        });
        let listener = write(&self.listeners).remove(&region.index);
        if let Some(listener) = listener {
            listener.stop().await;
        }
        region.replica.close().await;
        self.delete_folder(region.index);
        Ok(())
    }

    /// Waits until all others have what a region has accepted.
    async fn drain(&self, region: &Region, members: &Members) -> Result<(), ControlError> {
        let deadline = Instant::now() + DRAIN;
        let mut links = self.links();
        links.retain(|link| link.source.index == region.index);
        for link in links {
            // A link that is cut, or has ended, is not worth waiting for.
            let drained = async {
                tokio::select! {
                    biased;
                    () = link.drained() => true,
                    () = link.is_cut() => false,
                    () = self.stop.cancelled() => false,
                }
            };
            if !timeout_at(deadline, drained).await.unwrap_or(false) {
                let mut others = members.regions.iter();
                let to = others.find(|other| other.index == link.target.index);
                return Err(ControlError::Unreplicated {
                    region: region.name.clone(),
                    to: to.map(|to| to.name.clone()).unwrap_or_default(),
                    pending: link.pending(),
                });
            }
        }
        Ok(())
    }

    /// Makes another region the one that takes the writes, unless `given_up` is cancelled before.
    pub(crate) async fn fail_over(
        &self,
        to: &str,
        failover: Failover,
        given_up: &CancellationToken,
    ) -> Result<(), ControlError> {
        let undrained = || ControlError::Undrained(to.to_owned());
        // The new one is not to leave before it is the one.
        let _held = tokio::select! {
            held = self.change() => held?,
            () = given_up.cancelled() => return Err(undrained()),
        };
        let members = self.gateway.members();
        let target = members
            .find(to)
            .ok_or_else(|| ControlError::NoSuchRegion(to.to_owned()))?;
        if self.gateway.write_mode() == WriteMode::Multi {
            return Err(ControlError::EveryRegionWrites);
        }
        if !target.is_listed() {
            return Err(ControlError::Withdrawn(to.to_owned()));
        }
        let old = self
            .gateway
            .hub_region()
            .filter(|old| old.index != target.index);
        let Some(old) = old else { return Ok(()) };
        let _frozen = self.gateway.freeze();
        // A write that was let in before may still be on its way to the replica.
        old.replica.seal(true).await;
        let is_ready = match failover {
            Failover::Graceful => self.hand_over(&old, target, given_up).await,
            Failover::Forced => true,
        };
        let moved = if is_ready {
            let moved = self.gateway.metadata().set_hub(target.index);
            moved.map_err(ControlError::from)
        } else {
            Err(undrained())
        };
        // The other one stays sealed: however late such a write comes, it is not accepted there.
        let writer = if moved.is_ok() { target } else { &old };
        writer.replica.seal(false).await;
        moved
    }

    /// Waits until a region has what another has accepted; `false` when that takes too long.
    async fn hand_over(&self, from: &Region, to: &Region, given_up: &CancellationToken) -> bool {
        let links = self.links();
        let Some(link) = links.iter().find(|link| link.is(from.index, to.index)) else {
            return true;
        };
        tokio::select! {
            biased;
            () = link.drained() => true,
            () = sleep(DRAIN) => false,
            () = given_up.cancelled() => false,
            () = self.stop.cancelled() => false,
        }
    }

    /// Ends all links from and to a region.
    async fn unlink(&self, region: &Region) -> Vec<Arc<Link>> {
        let is_of =
            |link: &Link| link.source.index == region.index || link.target.index == region.index;
        let ended: Vec<RunningLink> = write(&self.links)
            .extract_if(.., |running| is_of(&running.link))
            .collect();
        let mut links = Vec::with_capacity(ended.len());
        for RunningLink { link, stop, task } in ended {
            stop.cancel();
            // It ends by the token; the only other end is a panic, which has been reported.
            let _ = task.await;
            links.push(link);
        }
        links
    }

    /// The membership without a region, which holds from now on, whatever happens.
    fn leave(&self, region: &Region, members: &Members) -> Result<Membership, ControlError> {
        if self.gateway.hub() == region.index {
            let mut others = members.regions.iter();
            let next = others.find(|other| other.index != region.index && other.is_listed());
            let next = next.ok_or_else(|| ControlError::Needed(region.name.clone()))?;
            self.gateway.metadata().set_hub(next.index)?;
        }
        let mut membership = members.membership.clone();
        membership.leave(region.index, region.replica.read().applied);
        self.store(&membership)?;
        Ok(membership)
    }

    fn delete_folder(&self, index: usize) {
        if let Some(data) = &self.settings.data
            && let Err(error) = disk::remove(&data.region(index))
        {
            // It is nobody's: when the region comes back it is replaced.
            tracing::warn!(%error, "the data folder of no region was not deleted");
        }
    }

    /// Stops all gateways and links, and closes all data folders.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        let _held = self.changing.lock().await;
        let listeners: Vec<_> = read(&self.listeners).values().cloned().collect();
        for listener in listeners {
            listener.stop().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        for region in &self.gateway.members().regions {
            region.replica.close().await;
        }
    }
}

/// Lists are changed by whole entries, so a panic elsewhere leaves them good.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
