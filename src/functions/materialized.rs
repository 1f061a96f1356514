//! Change feed of `events` → Cosmos DB: the maximum per device of each batch, in another container with another
//! partition key.
//!
//! A materialized document is keyed by the id of the event that it is made of, and holds nothing that is not in that
//! event. So it does not matter how the feed is cut into batches, or how often a batch comes: the same id always has the
//! same content, and the largest `maxValue` of a device is the largest `value` it ever sent.
//!
//! Each region materializes only the events born in it (`MATERIALIZED_ORIGINS`), so every document has one writer and no
//! two regions ever conflict. Replication brings the documents everywhere.
//!
//! Documents that are no events go to the container `quarantine`, with the reason. What is written there depends on the
//! document alone, so it is the same in whichever region it is written.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::Serialize;
use serde_json::Value;

use super::{Function, InvokeError, feed_log};
use crate::{
    event::{Batch, Event, Stranger, time_to_live},
    invocation::{Invocation, Reply},
    measurement::Measurement,
    settings::{RegionName, Settings},
    telemetry::InvocationSpan,
};

#[derive(Serialize)]
struct Outputs<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    materialized: Vec<Maximum<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quarantine: Vec<Quarantined>,
}

/// A document of the container `materialized`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Maximum<'a> {
    id: &'a str,
    device_id: &'a str,
    max_value: Measurement,
    region: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

/// A document of the container `quarantine`.
#[derive(Serialize)]
struct Quarantined {
    id: String,
    reason: String,
    document: Value,
}

pub(super) fn invoke(
    settings: &Settings,
    body: &[u8],
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    let invocation = Invocation::parse(body)?;
    let documents = invocation.structured("events");
    let batch = documents
        .as_ref()
        .map(|documents| documents.read_with(Batch::read))
        .transpose()?
        .unwrap_or_default();
    feed_log::batch(
        Function::Materialized,
        &settings.region,
        &batch.events,
        span,
    );

    let winners = maxima(&batch.events, &settings.materialized_origins);
    let strangers = batch.strangers.len();
    for event in winners.values() {
        span.event("materialize", event);
    }
    span.materialized(winners.len(), strangers);
    let outputs = Outputs {
        materialized: winners.into_values().map(Maximum::from).collect(),
        quarantine: batch.strangers.into_iter().map(Quarantined::from).collect(),
    };
    tracing::debug!(
        parent: span.log(),
        maxima = outputs.materialized.len(),
        "materializing"
    );
    if strangers == 0 {
        return Ok(Reply::new(outputs).into_json()?);
    }
    for stranger in &outputs.quarantine {
        tracing::warn!(
            parent: span.log(),
            id = stranger.id,
            reason = stranger.reason,
            "quarantined a document that is no event"
        );
    }
    let log = format!("put {strangers} documents that are no events into quarantine");
    Ok(Reply::new(outputs).with_log(log).into_json()?)
}

/// The winning event of each device. Of equal values the smallest id wins, so that the order of the batch has no say.
fn maxima<'e>(events: &'e [Event<'e>], origins: &[RegionName]) -> BTreeMap<&'e str, &'e Event<'e>> {
    let mut winners = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| origins.iter().any(|origin| origin.is(&event.region)))
    {
        match winners.entry(&*event.device_id) {
            Entry::Vacant(entry) => {
                entry.insert(event);
            }
            Entry::Occupied(mut entry) if beats(event, entry.get()) => {
                entry.insert(event);
            }
            Entry::Occupied(_) => {}
        }
    }
    winners
}

fn beats(challenger: &Event<'_>, holder: &Event<'_>) -> bool {
    challenger
        .value
        .cmp(&holder.value)
        .then_with(|| holder.id.cmp(&challenger.id))
        .is_gt()
}

impl<'a> From<&'a Event<'a>> for Maximum<'a> {
    fn from(event: &'a Event<'a>) -> Self {
        Self {
            id: &event.id,
            device_id: &event.device_id,
            max_value: event.value,
            region: &event.region,
            time: &event.time,
            ttl: time_to_live(&event.device_id),
        }
    }
}

impl From<Stranger> for Quarantined {
    fn from(stranger: Stranger) -> Self {
        Self {
            id: stranger.id,
            reason: stranger.reason,
            document: stranger.document,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const REGIONS: [&str; 3] = ["West US", "North Europe", "Southeast Asia"];

    /// All materialized documents of the world, by device and id.
    type Container = BTreeMap<(String, String), Value>;

    /// Invokes the function of a region with a batch as the host sends it, and stores what it puts out.
    fn deliver(
        region: &str,
        batch: &[Value],
        container: &mut Container,
    ) -> Result<(), TestCaseError> {
        let packed =
            Value::String(Value::String(Value::from(batch.to_vec()).to_string()).to_string());
        let body = json!({"Data": {"events": packed}, "Metadata": {}}).to_string();
        let reply = invoke(
            &Settings::of_region(region),
            body.as_bytes(),
            &mut InvocationSpan::unobserved(),
        )
        .unwrap();
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        for document in reply["Outputs"]["materialized"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let text = |field: &str| document[field].as_str().unwrap().to_owned();
            let key = (text("deviceId"), text("id"));
            if let Some(old) = container.insert(key.clone(), document.clone()) {
                prop_assert_eq!(&old, document, "{:?} appears with two contents", key);
            }
        }
        Ok(())
    }

    prop_compose! {
        fn events()(seeds in prop::collection::vec((0..4_u8, 0..3_usize, -3..4_i32, any::<bool>()), 1..40)) -> Vec<Value> {
            seeds.into_iter().enumerate().map(|(n, (device, region, value, real))| json!({
                // Ids in another order than the events, so that ties are really decided by the id.
                "id": format!("e-{:02}", (n * 17) % 41),
                "deviceId": format!("dev-{device}"),
                "region": REGIONS[region],
                "value": if real { json!(f64::from(value)) } else { json!(value) },
                "time": format!("2026-03-01T10:00:00.{n:03}Z"),
            })).collect()
        }
    }

    proptest! {
        /// The feed of each region is delivered in batches of any size, with any batch again and again, the regions in
        /// any order: what a reader sees as the maximum of a device is the maximum, and no document changes.
        #[test]
        fn any_batching_and_any_redelivery_give_the_same_maxima(
            events in events(),
            orders in prop::collection::vec(any::<prop::sample::Index>(), 3),
            cuts in prop::collection::vec((1..9_usize, 1..4_usize), 1..40),
        ) {
            let mut container = Container::new();
            for (region, order) in REGIONS.iter().zip(&orders) {
                // Each region gets the events in its own order.
                let mut feed = events.clone();
                feed.rotate_left(order.index(events.len()));
                let mut cuts = cuts.iter().cycle();
                let mut rest = &feed[..];
                while let (false, Some((size, times))) = (rest.is_empty(), cuts.next()) {
                    let (batch, after) = rest.split_at(rest.len().min(*size));
                    for _ in 0..*times {
                        deliver(region, batch, &mut container)?;
                    }
                    // A crash before the checkpoint: the feed goes on a little earlier, in other batches.
                    let again = &feed[feed.len() - after.len() - batch.len().min(*times)..feed.len() - after.len()];
                    deliver(region, again, &mut container)?;
                    rest = after;
                }
            }

            let mut expected: BTreeMap<String, f64> = BTreeMap::new();
            for event in &events {
                let device = event["deviceId"].as_str().unwrap().to_owned();
                let maximum = expected.entry(device).or_insert(f64::NEG_INFINITY);
                *maximum = maximum.max(event["value"].as_f64().unwrap());
            }
            let mut seen: BTreeMap<String, f64> = BTreeMap::new();
            for ((device, _), document) in &container {
                let maximum = seen.entry(device.clone()).or_insert(f64::NEG_INFINITY);
                *maximum = maximum.max(document["maxValue"].as_f64().unwrap());
            }
            prop_assert_eq!(seen, expected);

            // And every document is the event it is named after.
            for ((_, id), document) in &container {
                let event = events.iter().find(|event| event["id"] == **id).unwrap();
                prop_assert_eq!(&document["maxValue"], &event["value"]);
                prop_assert_eq!(&document["deviceId"], &event["deviceId"]);
                prop_assert_eq!(&document["region"], &event["region"]);
                prop_assert_eq!(&document["time"], &event["time"]);
            }
        }
    }

    #[test]
    fn only_the_configured_origins_are_materialized_here() {
        let batch: Vec<Value> = REGIONS
            .iter()
            .map(|region| json!({"id": region, "deviceId": "d", "region": region, "value": 1, "time": "t"}))
            .collect();
        let mut container = Container::new();
        deliver("North Europe", &batch, &mut container).unwrap();
        let ids: Vec<_> = container.keys().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, ["North Europe"]);

        let mut settings = Settings::of_region("North Europe");
        settings.materialized_origins = REGIONS.map(RegionName::new).to_vec();
        let body = json!({"Data": {"events": batch}}).to_string();
        let reply: Value = serde_json::from_slice(
            &invoke(
                &settings,
                body.as_bytes(),
                &mut InvocationSpan::unobserved(),
            )
            .unwrap(),
        )
        .unwrap();
        // All values are equal, so the smallest id wins.
        assert_eq!(reply["Outputs"]["materialized"][0]["id"], "North Europe");
        assert_eq!(
            reply["Outputs"]["materialized"].as_array().unwrap().len(),
            1
        );
    }
}
