//! What goes on in the background: logs are cut down, deletes forgotten, and expired items deleted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    container::Container,
    expiry::Expiry,
    gateway::{Gateway, Members, Region},
    partition_key::PartitionKey,
    record::ItemKey,
    replica::{Change, Replica, Step, Transaction, WriteError},
    tombstones::Horizon,
    topology::Topology,
    ttl::Lifetimes,
};

/// How often, usually.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How often, at the most.
const SHORTEST: Duration = Duration::from_millis(1);

/// Deletes that a region forgets in one go, at the most, so that writers need not wait for long; the next go takes more.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// Items of a container that expire in one go, at the most; the next go takes more.
const EXPIRED_AT_ONCE: usize = 1000;

/// Items that expire in one transaction, at the most, so that writers need not wait for long.
const EXPIRED_TOGETHER: usize = 100;

/// Does all of it until told to stop.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    topology: Arc<Topology>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = interval(every.max(SHORTEST));
    let mut horizon = Horizon::default();
    let mut expiries = HashMap::new();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A region that is about to join still needs what the others need no more; the next go cuts it off.
        if let Some(_held) = topology.try_hold() {
            let members = gateway.members();
            trim_logs(&members.regions);
            forget_deletes(&gateway, &members, &mut horizon);
        }
        // One region speaks for all, so that an item does not expire in as many mutations as there are regions.
        if let Some(hub) = gateway.hub_region() {
            expire_all(&gateway, &hub.replica, &mut expiries).await;
        }
    }
}

/// Cuts logs down to what some region still needs.
fn trim_logs(regions: &[Arc<Region>]) {
    for source in regions {
        let seen = regions
            .iter()
            .map(|region| region.replica.read().seen_of(source.index))
            .min()
            .unwrap_or_default();
        let oldest = source
            .replica
            .read()
            .log
            .first_key_value()
            .map(|(number, _)| *number);
        if oldest.is_some_and(|oldest| oldest <= seen) {
            source.replica.trim(seen);
        }
    }
}

/// Forgets deletes that nobody can need any more.
fn forget_deletes(gateway: &Gateway, members: &Members, horizon: &mut Horizon) {
    let regions = members.regions.iter();
    let seen: Vec<Vec<u64>> = regions.map(|it| it.replica.read().seen.clone()).collect();
    let Some(known) = horizon.advance(members.membership.version(), &seen) else {
        return;
    };
    let containers = gateway.metadata().all_containers();
    let containers: Vec<(u32, bool)> = containers
        .iter()
        .map(|container| (container.number, container.keeps_conflicts))
        .collect();
    for region in &members.regions {
        let state = region.replica.read();
        let found = state.forgettable(&containers, &known, FORGOTTEN_AT_ONCE);
        drop(state);
        if let Some(found) = found {
            region.replica.collect(found);
        }
    }
}

/// Deletes what has expired. `expiries` are what is noted of each container that lets items expire.
async fn expire_all(
    gateway: &Gateway,
    replica: &Arc<Replica>,
    expiries: &mut HashMap<u32, Expiry>,
) {
    let mut containers = gateway.metadata().all_containers();
    containers.retain(|container| Lifetimes::now(container).are_limited());
    expiries.retain(|number, _| containers.iter().any(|it| it.number == *number));
    for container in containers {
        let lifetimes = Lifetimes::now(&container);
        let new = || Expiry::new(Arc::clone(replica), container.number, lifetimes);
        let expiry = expiries.entry(container.number).or_insert_with(new);
        if !expiry.is_of(replica, lifetimes) {
            *expiry = new();
        }
        let over = expiry.over(lifetimes, EXPIRED_AT_ONCE);
        expire(replica, &container, over).await;
    }
}

async fn expire(replica: &Replica, container: &Arc<Container>, over: BTreeSet<ItemKey>) {
    let mut expired: BTreeMap<PartitionKey, Vec<String>> = BTreeMap::new();
    for key in over {
        let ids = expired.entry(key.partition).or_default();
        ids.push(key.id.to_string());
    }
    for (partition, ids) in expired {
        for ids in ids.chunks(EXPIRED_TOGETHER) {
            let expiry = |id: &String| Step::new(Change::Expire { id: id.clone() });
            let transaction = Transaction {
                container: Arc::clone(container),
                partition: partition.clone(),
                steps: ids.iter().map(expiry).collect(),
            };
            match replica.transact(transaction).await {
                Ok(_) => {}
                // One of them was written or deleted meanwhile; the next go takes the others.
                Err(rejected) if matches!(rejected.error, WriteError::NotFound) => {}
                // Another region is about to become the hub, and deletes them then.
                Err(rejected) if matches!(rejected.error, WriteError::Sealed) => return,
                Err(rejected) => {
                    tracing::warn!(error = %rejected.error, "expired items were not deleted");
                    return;
                }
            }
        }
    }
}
