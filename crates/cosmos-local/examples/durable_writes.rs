//! Measures what durability costs: writes that are acknowledged when they are on disk, by several writers at once, and
//! reads beside them. `cargo run --release -p cosmos-local --example durable_writes`
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use support::{builder, gateways, key};

/// How long each number of writers writes.
const TIME: Duration = Duration::from_secs(2);

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times
        .get(times.len().saturating_sub(1) * percent / 100)
        .copied()
        .unwrap_or_default()
}

#[tokio::main]
async fn main() {
    println!(
        "{:>7} {:>9} {:>11} {:>11} {:>11} {:>11}",
        "writers", "writes/s", "write p50", "write p99", "read p50", "read p99"
    );
    for durable in [false, true] {
        println!("{}", if durable { "on disk" } else { "in memory" });
        for writers in [1, 8, 64] {
            measure(durable, writers).await;
        }
    }
}

async fn measure(durable: bool, writers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let data = durable.then(|| folder.path().to_owned());
    let account = builder(1).data_dir(data).start().await.unwrap();
    let raw = gateways(&account).remove(0);
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/id"], "kind": "Hash", "version": 2}});
    raw.create(definition).await;
    let items = raw.container("c");
    items.create(&key("r"), &json!({"id": "r"})).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = (0..writers)
        .map(|writer| {
            let (items, is_over) = (raw.container("c"), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let id = format!("{writer}-{}", times.len());
                    let item = json!({"id": id, "value": 42, "text": "x".repeat(200)});
                    let start = Instant::now();
                    let answer = items.create(&key(id), &item).await;
                    times.push(start.elapsed());
                    assert_eq!(answer.status, 201, "{answer:?}");
                }
                times
            })
        })
        .collect();
    let start = Instant::now();
    let mut reads = Vec::new();
    while start.elapsed() < TIME {
        let start = Instant::now();
        assert_eq!(items.read(&key("r"), "r").await.status, 200);
        reads.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut writes = Vec::new();
    for writer in running {
        writes.extend(writer.await.unwrap());
    }
    let per_second = writes.len() as f64 / start.elapsed().as_secs_f64();
    println!(
        "{writers:>7} {per_second:>9.0} {:>11.2?} {:>11.2?} {:>11.2?} {:>11.2?}",
        percentile(&mut writes, 50),
        percentile(&mut writes, 99),
        percentile(&mut reads, 50),
        percentile(&mut reads, 99),
    );
    account.shutdown().await;
}
