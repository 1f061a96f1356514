//! What `up` measures of its services, for the collector that [`telemetry`](crate::telemetry) sends to. Without one nobody
//! ever asks, and nothing is measured.

use opentelemetry::{KeyValue, global, metrics::AsyncInstrument};

use super::cloud::{Cloud, Region, WeakCloud};
use crate::names::{DATABASE, EVENTS, MATERIALIZED};

/// Measures a cloud for as long as it lives.
pub(super) fn observe(cloud: &Cloud) {
    let meter = global::meter("geo-events-up");
    let cloud = cloud.downgrade();
    meter
        .u64_observable_gauge("geo_events.replication.pending")
        .with_unit("{change}")
        .with_description("Changes accepted in one region and not yet applied in the other")
        .with_callback(of(&cloud, |cloud, gauge| {
            for link in cloud.links() {
                let attributes = [
                    KeyValue::new("from", link.from),
                    KeyValue::new("to", link.to),
                ];
                gauge.observe(link.pending, &attributes);
            }
        }))
        .build();
    meter
        .u64_observable_gauge("geo_events.cosmos.items")
        .with_unit("{item}")
        .with_description("Items of a container, as a region has them")
        .with_callback(of(&cloud, |cloud, gauge| {
            for region in cloud.regions() {
                for container in [EVENTS, MATERIALIZED] {
                    let items = cloud
                        .account()
                        .item_count(&region.name, DATABASE, container);
                    let attributes = [of_region(region), KeyValue::new("container", container)];
                    gauge.observe(items.unwrap_or_default(), &attributes);
                }
            }
        }))
        .build();
    meter
        .u64_observable_gauge("geo_events.signalr.connections")
        .with_unit("{connection}")
        .with_description("Browsers connected to the SignalR Service of a region")
        .with_callback(of(&cloud, |cloud, gauge| {
            for region in cloud.regions() {
                gauge.observe(region.signalr.stats().connections, &[of_region(region)]);
            }
        }))
        .build();
    meter
        .u64_observable_counter("geo_events.signalr.messages")
        .with_unit("{message}")
        .with_description("Messages that the SignalR Service of a region has sent to browsers")
        .with_callback(of(&cloud, |cloud, counter| {
            for region in cloud.regions() {
                counter.observe(region.signalr.stats().messages, &[of_region(region)]);
            }
        }))
        .build();
    meter
        .u64_observable_counter("geo_events.functions.failures")
        .with_unit("{invocation}")
        .with_description("Failed invocations since the Functions host of a region was started")
        .with_callback(of(&cloud, |cloud, counter| {
            for region in cloud.regions() {
                if let Some(functions) = &region.functions {
                    let (_, _, failures) = functions.status();
                    counter.observe(failures, &[of_region(region)]);
                }
            }
        }))
        .build();
}

fn of_region(region: &Region) -> KeyValue {
    KeyValue::new("cloud.region", region.name.clone())
}

/// A callback that measures the cloud if it is still there. The meters live as long as the process, the cloud does not.
fn of(
    cloud: &WeakCloud,
    measure: impl Fn(&Cloud, &dyn AsyncInstrument<u64>) + Send + Sync + 'static,
) -> impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static {
    let cloud = cloud.clone();
    move |instrument| {
        if let Some(cloud) = cloud.upgrade() {
            measure(&cloud, instrument);
        }
    }
}
