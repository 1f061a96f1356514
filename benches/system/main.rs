//! The whole system as a person meets it: `cargo bench -p geo-events --bench system`.
//!
//! Measured on one running `geo-events up` with three regions and no replication lag:
//!
//! - from its start to its ready line, which is printed when a probe write has come back through every feed;
//! - resident memory of each of its processes, when ready and after the load (Linux);
//! - push: from the answer 201 in the first region to the event in an `@microsoft/signalr` client of each other region,
//!   one event at a time. The client is a Node.js process, and its line on a pipe is the last thing on the way.
//!
//! Everything shares the machine: the numbers say what a laptop does, not what Azure does.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde_json::json;

use self::support::{Console, DEADLINE, Up};

/// How many starts the median of the start-up time is taken from.
const STARTS: usize = 5;

/// How many events are pushed, one after the other.
const EVENTS: u32 = 500;

/// Pauses before writes run through 0 to this, so that no write keeps step with a trigger that polls.
const LONGEST_PAUSE_MS: u32 = 200;

fn main() -> anyhow::Result<()> {
    let mut starts = Vec::new();
    for _ in 1..STARTS {
        starts.push(start().1);
    }
    let (up, elapsed) = start();
    starts.push(elapsed);
    starts.sort();
    println!(
        "ready after {:.0} ms (median of {STARTS})",
        millis(starts[STARTS / 2])
    );
    println!("\n| process | MiB when ready |\n| --- | ---: |");
    memory(&up)?;

    let regions = up.regions();
    let consoles: Vec<Console> = (1..regions.len())
        .map(|region| Console::connect(up.functions(region)))
        .collect();
    let mut delays = vec![Histogram::<u64>::new(3)?; consoles.len()];
    let client = reqwest::blocking::Client::new();
    for n in 0..EVENTS {
        thread::sleep(Duration::from_millis(u64::from(n * 37 % LONGEST_PAUSE_MS)));
        let id = format!("bench-{n}");
        let answer = client
            .post(format!("{}/api/WriteEvent", up.functions(0)))
            .json(&json!({"id": id, "deviceId": "bench", "value": n}))
            .send()?;
        let accepted = Instant::now();
        ensure!(answer.status() == 201, "not accepted: {}", answer.status());
        // The consoles are looked at in turn: what waits on a later one's pipe has a time stamp that is too late, by
        // no more than the difference between them.
        for (console, delays) in consoles.iter().zip(&mut delays) {
            let line = console.next(DEADLINE).context("the event was not pushed")?;
            ensure!(
                line["event"]["id"] == id,
                "another event was pushed: {line}"
            );
            delays.record(u64::try_from(accepted.elapsed().as_micros())?)?;
        }
    }
    println!(
        "\n| 201 in {} to the client in | p50 ms | p99 ms | max ms |",
        regions[0]
    );
    println!("| --- | ---: | ---: | ---: |");
    for (region, delays) in regions[1..].iter().zip(&delays) {
        let ms = |micros: u64| micros as f64 / 1000.0;
        println!(
            "| {region} | {:.1} | {:.1} | {:.1} |",
            ms(delays.value_at_quantile(0.5)),
            ms(delays.value_at_quantile(0.99)),
            ms(delays.max())
        );
    }
    println!("\n| process | MiB after {EVENTS} events |\n| --- | ---: |");
    memory(&up)
}

fn start() -> (Up, Duration) {
    let started = Instant::now();
    let up = Up::start(&[]);
    (up, started.elapsed())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A row for `up` and one for each of its children, the handlers.
fn memory(up: &Up) -> anyhow::Result<()> {
    let mut processes = vec![("up: hosts, Cosmos DB, SignalR of all regions", up.id())];
    processes.extend(
        up.children()
            .into_iter()
            .map(|id| ("handler of a region", id)),
    );
    for (what, id) in processes {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))
            .context("memory can only be measured on Linux")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        println!("| {what} | {:.1} |", kib / 1024.0);
    }
    Ok(())
}
