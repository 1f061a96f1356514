//! "Ready" means that a write made in every region has come back through the change feed of every region.
//!
//! One probe document per region is written with the official SDK. It is an item of `events` that no function takes
//! for an event, so it reaches no screen and no other container; once all triggers have had it, it is deleted, and with
//! that it is gone from the latest-version change feed too.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail};
use azure_data_cosmos::clients::ContainerClient;
use functions_host::HostEvent;
use futures::future::{join_all, try_join_all};
use tokio::{sync::broadcast::error::RecvError, time::timeout};
use tracing::debug;
use uuid::Uuid;

use super::cloud::{Cloud, Region};
use crate::{
    cosmos,
    event::Probe,
    names::{DATABASE, EVENTS},
};

/// Longest wait for the probes, on top of the replication lag: a cold machine needs a fraction of a second.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition that cannot be awaited is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Writes the probes, waits until every feed trigger of every region has had them, and removes them.
///
/// # Errors
/// When a probe cannot be written or removed, or has not come back in time; the text names what is missing.
pub(super) async fn run(cloud: &Cloud) -> anyhow::Result<()> {
    let longest_lag = cloud
        .links()
        .iter()
        .map(|link| link.lag)
        .max()
        .unwrap_or_default();
    let deadline = DEADLINE + 2 * longest_lag;

    let mut witnesses = Vec::new();
    for region in cloud.regions() {
        witnesses.push(Witness::subscribe(region).await?);
    }
    let writers = try_join_all(cloud.regions().iter().map(|region| async move {
        let container = cosmos::connect(
            &cloud.account().connection_string(),
            std::slice::from_ref(&region.name),
        )
        .await?
        .container(DATABASE, EVENTS)
        .await
        .with_context(|| format!("cannot open the container of events in {}", region.name))?;
        anyhow::Ok((region, container, Probe::new(Uuid::now_v7())))
    }))
    .await?;
    try_join_all(
        writers
            .iter()
            .map(|(region, container, probe)| write(region, container, probe)),
    )
    .await?;

    let ids: BTreeSet<String> = writers
        .iter()
        .map(|(_, _, probe)| probe.id.clone())
        .collect();
    let missing: Vec<String> = join_all(
        witnesses
            .into_iter()
            .map(|witness| witness.wait_for(&ids, deadline)),
    )
    .await
    .into_iter()
    .flatten()
    .collect();

    // Removed also when it has failed: a probe that stays would be found by every later reader of the feed.
    try_join_all(
        writers
            .iter()
            .map(|(region, container, probe)| remove(region, container, probe)),
    )
    .await?;
    if !missing.is_empty() {
        bail!(
            "no probe came back within {} s through {}; run with RUST_LOG=info to see why",
            deadline.as_secs(),
            missing.join(", ")
        );
    }
    timeout(deadline, settled(cloud))
        .await
        .context("the regions did not agree that the probes are gone; is a link cut?")?;
    debug!("probes have come back everywhere and are removed");
    Ok(())
}

/// Sees the batches that the feed triggers of one region have handled.
struct Witness {
    region: String,
    functions: Vec<String>,
    events: Option<tokio::sync::broadcast::Receiver<HostEvent>>,
}

impl Witness {
    async fn subscribe(region: &Region) -> anyhow::Result<Self> {
        let Some(functions) = &region.functions else {
            return Ok(Self {
                region: region.name.clone(),
                functions: Vec::new(),
                events: None,
            });
        };
        let host = functions
            .host()
            .await
            .with_context(|| format!("the functions of {} stopped while starting", region.name))?;
        // A trigger that begins with what is new would miss a probe written before it listens.
        host.listening().await;
        let triggers = functions
            .infos()
            .iter()
            .filter(|info| info.trigger == "cosmosDBTrigger" && !info.disabled);
        Ok(Self {
            region: region.name.clone(),
            functions: triggers.map(|info| info.name.clone()).collect(),
            events: Some(host.subscribe()),
        })
    }

    /// The triggers (`function in region`) that have not had all of `ids` in time.
    async fn wait_for(self, ids: &BTreeSet<String>, deadline: Duration) -> Vec<String> {
        let Some(mut events) = self.events else {
            return Vec::new();
        };
        let mut awaited: BTreeSet<(String, String)> = self
            .functions
            .iter()
            .flat_map(|function| ids.iter().map(|id| (function.clone(), id.clone())))
            .collect();
        let all_seen = async {
            while !awaited.is_empty() {
                match events.recv().await {
                    Ok(HostEvent::FeedBatch {
                        function,
                        ids,
                        succeeded: true,
                    }) => {
                        for id in ids.iter() {
                            awaited.remove(&(function.to_string(), id.clone()));
                        }
                    }
                    // A large backlog in the data folder may outrun this reader, but not for long: the probes come last.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
        };
        if timeout(deadline, all_seen).await.is_err() {
            debug!(region = self.region, "probe deadline passed");
        }
        let functions: BTreeSet<&String> = awaited.iter().map(|(function, _)| function).collect();
        functions
            .into_iter()
            .map(|function| format!("{function} in {}", self.region))
            .collect()
    }
}

async fn write(region: &Region, container: &ContainerClient, probe: &Probe) -> anyhow::Result<()> {
    container
        .upsert_item(&probe.id, &probe.id, probe, None)
        .await
        .with_context(|| format!("cannot write to the container of events in {}", region.name))?;
    Ok(())
}

async fn remove(region: &Region, container: &ContainerClient, probe: &Probe) -> anyhow::Result<()> {
    container
        .delete_item(&probe.id, &probe.id, None)
        .await
        .with_context(|| format!("cannot remove probe {} from {}", probe.id, region.name))?;
    Ok(())
}

/// Returns when every change of every region has been applied in all others.
async fn settled(cloud: &Cloud) {
    while cloud.links().iter().any(|link| link.pending > 0) {
        tokio::time::sleep(POLL).await;
    }
}
