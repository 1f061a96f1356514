//! The handler beside a floor, in one run: `cargo bench -p geo-events --no-default-features --bench handler`.
//!
//! `GEO_EVENTS_EXECUTABLE=target/azure/functions/geo-events` measures the executable that is deployed, which
//! `infra/hooks/build.sh` builds.
//!
//! The floor is a bare actix-web server that parses the same invocation to `serde_json::Value`, unpacks the strings
//! that hold JSON (as whoever wants to see an event must), and answers a fixed reply. It validates nothing, makes
//! nothing and logs nothing.
//!
//! Measured, each alternating between the two so that both see the same machine:
//!
//! - `WriteEvent` with an invocation of 1 KB, and `Materialized` with 100 documents of 300 bytes, as the doubly encoded
//!   string that the host sends; at 1, 16 and 64 connections: requests per second, p50 and p99 of the latency, and the
//!   server's processor time per request, which other programs on the machine disturb least
//! - cold start: from the spawn of the process to the first answer to `GET /`
//! - resident memory, at the start and after the load (Linux)
//!
//! Load generator and server share the machine: the numbers compare the two servers, they are no capacity.

mod floor;
mod load;
mod server;

use std::time::Duration;

use serde_json::{Value, json};

use self::{
    load::{Load, Request},
    server::{Kind, Server},
};

/// How long each measurement runs, once per round.
const MEASURE: Duration = Duration::from_secs(2);

/// How long a server is warmed up before each measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// How often each measurement is repeated; the median counts.
const ROUNDS: usize = 3;

/// How many processes are started for the median of the cold start.
const COLD_STARTS: usize = 31;

const CONNECTIONS: [usize; 3] = [1, 16, 64];

fn main() -> anyhow::Result<()> {
    // The floor is this program again.
    if std::env::args().nth(1).as_deref() == Some(floor::COMMAND) {
        return floor::serve();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let requests = [write_event(), materialized()];
    for request in &requests {
        println!("{}: {} bytes", request.function, request.body.len());
    }

    println!(
        "\n| function | connections | server | req/s | of floor | p50 µs | p99 µs | CPU µs | of floor |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let servers = [Server::start(Kind::Floor)?, Server::start(Kind::Handler)?];
    let at_start = [servers[0].resident_kib()?, servers[1].resident_kib()?];
    for request in &requests {
        for connections in CONNECTIONS {
            let mut rounds = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (server, results) in servers.iter().zip(&mut rounds) {
                    runtime.block_on(load::run(server.address(), request, connections, WARM_UP))?;
                    let before = server.cpu_time()?;
                    let mut result = runtime.block_on(load::run(
                        server.address(),
                        request,
                        connections,
                        MEASURE,
                    ))?;
                    result.cpu = (server.cpu_time()? - before) / result.requests;
                    results.push(result);
                }
            }
            let [floor, handler] = rounds.map(median);
            row(request.function, connections, "floor", &floor, &floor);
            row(
                request.function,
                connections,
                "geo-events",
                &handler,
                &floor,
            );
        }
    }

    let after = [servers[0].resident_kib()?, servers[1].resident_kib()?];
    drop(servers);
    let mut cold = [Vec::new(), Vec::new()];
    for _ in 0..COLD_STARTS {
        for (kind, times) in [Kind::Floor, Kind::Handler].into_iter().zip(&mut cold) {
            times.push(Server::start(kind)?.cold_start());
        }
    }
    let cold = cold.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });

    println!("\n| | floor | geo-events | of floor |");
    println!("| --- | ---: | ---: | ---: |");
    let ms = cold.map(|time| time.as_secs_f64() * 1000.0);
    println!(
        "| cold start, ms (median of {COLD_STARTS}) | {:.1} | {:.1} | {:.2} |",
        ms[0],
        ms[1],
        ms[1] / ms[0]
    );
    for (name, [floor, handler]) in [
        ("memory at start, MiB", at_start),
        ("memory after the load, MiB", after),
    ] {
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!(
            "| {name} | {:.1} | {:.1} | {:.2} |",
            mib(floor),
            mib(handler),
            mib(handler) / mib(floor)
        );
    }
    Ok(())
}

fn row(function: &str, connections: usize, server: &str, load: &Load, floor: &Load) {
    println!(
        "| {function} | {connections} | {server} | {:.0} | {:.2} | {:.0} | {:.0} | {:.1} | {:.2} |",
        load.per_second,
        load.per_second / floor.per_second,
        load.p50.as_secs_f64() * 1e6,
        load.p99.as_secs_f64() * 1e6,
        load.cpu.as_secs_f64() * 1e6,
        load.cpu.as_secs_f64() / floor.cpu.as_secs_f64(),
    );
}

fn median(mut rounds: Vec<Load>) -> Load {
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds.swap_remove(rounds.len() / 2)
}

fn system(function: &str) -> Value {
    json!({
        "MethodName": function,
        "UtcNow": "2026-03-01T10:00:00.1234567Z",
        "RandGuid": "5b0c1c0e-6f5a-4f0e-9d44-0c7e1d2c3b4a",
    })
}

/// An invocation of about 1 KB: most of it is what the host says about the request.
fn write_event() -> Request {
    let event = json!({"id": "0190d1c2-7000-7000-8000-000000000001", "deviceId": "device-0007", "value": 41.5}).to_string();
    let invocation = json!({
        "Data": {"req": {
            "Url": "http://localhost:7071/api/WriteEvent",
            "Method": "POST",
            "Query": {},
            "Headers": {
                "Host": ["localhost:7071"], "User-Agent": ["device/1.0"], "Accept": ["*/*"],
                "Content-Type": ["application/json"], "Content-Length": [event.len().to_string()],
            },
            "Params": {},
            "Identities": [{
                "AuthenticationType": null, "IsAuthenticated": false, "Actor": null, "Claims": [], "Label": null, "Name": null,
                "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
                "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
            }],
            "Body": event,
        }},
        "Metadata": {"deviceId": "\"device-0007\"", "value": "\"41.5\"", "sys": system("WriteEvent")},
    });
    Request {
        function: "WriteEvent",
        body: invocation.to_string(),
    }
}

/// 100 documents of about 300 bytes, with the system properties of Cosmos DB.
fn materialized() -> Request {
    let documents: Vec<Value> = (0..100)
        .map(|n| {
            json!({
                "id": format!("0190d1c2-7000-7000-8000-{n:012}"),
                "deviceId": format!("device-{:04}", n % 10),
                "region": "West US",
                "value": f64::from(n * 37 % 101) + 0.5,
                "time": format!("2026-03-01T10:00:{:02}.{n:03}Z", n % 60),
                "_rid": "XkQGAKT4eOkBAAAAAAAAAA==",
                "_self": "dbs/XkQGAA==/colls/XkQGAKT4eOk=/",
                "_etag": "\"0000d826-0000-0700\"",
                "_ts": 1_772_359_200 + n,
                "_lsn": 1000 + n,
            })
        })
        .collect();
    let packed = Value::String(Value::String(Value::from(documents).to_string()).to_string());
    let invocation =
        json!({"Data": {"events": packed}, "Metadata": {"sys": system("Materialized")}});
    Request {
        function: "Materialized",
        body: invocation.to_string(),
    }
}
