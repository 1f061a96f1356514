//! What goes on in the background: logs are cut down, and expired items deleted.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    container::Container,
    gateway::Gateway,
    partition_key::PartitionKey,
    replica::{Change, Replica, Step, Transaction, WriteError},
    ttl::Lifetimes,
};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Items of a container that expire in one go, at the most; the next go takes more.
const EXPIRED_AT_ONCE: usize = 1000;

/// Items that expire in one transaction, at the most, so that writers need not wait for long.
const EXPIRED_TOGETHER: usize = 100;

/// Does all of it until told to stop.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    replicas: Vec<Arc<Replica>>,
    stop: CancellationToken,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        trim_logs(&replicas);
        // One region speaks for all, so that an item does not expire in as many mutations as there are regions.
        let hub = &replicas[gateway.hub()];
        for container in gateway.metadata().all_containers() {
            expire(hub, &container).await;
        }
    }
}

/// Cuts logs down to what some region still needs.
fn trim_logs(replicas: &[Arc<Replica>]) {
    for source in replicas {
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

async fn expire(replica: &Replica, container: &Arc<Container>) {
    let lifetimes = Lifetimes::now(container);
    if !lifetimes.are_limited() {
        return;
    }
    let mut expired: BTreeMap<PartitionKey, Vec<String>> = BTreeMap::new();
    {
        let state = replica.read();
        let items = state
            .tables
            .get(&container.number)
            .into_iter()
            .flat_map(|table| &table.items);
        let over = items.filter(|(_, item)| {
            item.current()
                .is_some_and(|record| lifetimes.is_over(record))
        });
        for (key, _) in over.take(EXPIRED_AT_ONCE) {
            let ids = expired.entry(key.partition.clone()).or_default();
            ids.push(key.id.to_string());
        }
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
                Err(rejected) => {
                    tracing::warn!(error = %rejected.error, "expired items were not deleted");
                    return;
                }
            }
        }
    }
}
