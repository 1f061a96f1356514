//! The loads: what is sent, and how long the answers take.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    Outcome,
    http::{Account, Connection, Signed, container},
};

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// Documents that are read and replaced.
const ITEMS: u64 = 10_000;

/// Devices whose documents are read by their id.
const DEVICES: u64 = 1_000;

/// All documents of devices whose newest are read, however many each of them has.
const OF_ALL_DEVICES: u64 = 40_000;

/// How long a change feed is read at the most.
const FEED_TIME: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    Create,
    Read,
    Upsert,
    /// The newest 20 of so many documents of a device.
    NewestOf(u64),
}

pub(crate) struct Measured {
    pub(crate) per_second: f64,
    /// All of them, while warming up too.
    pub(crate) requests: u64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// Numbers that no other request of this process has.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A document of 300 bytes.
fn document(id: &str, device: &str, time: u64) -> String {
    let start = format!(
        "{{\"id\":\"{id}\",\"deviceId\":\"{device}\",\"region\":\"West US\",\"time\":\"2026-08-06T10:00:00.{time:09}Z\",\"value\":{},\"note\":\"",
        time % 1000
    );
    let fill = 300_usize.saturating_sub(start.len() + 2);
    format!("{start}{}\"}}", "n".repeat(fill))
}

impl Load {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Create => "create".to_owned(),
            Self::Read => "point read".to_owned(),
            Self::Upsert => "upsert".to_owned(),
            Self::NewestOf(count) => format!("newest 20 of a device's {count}"),
        }
    }

    /// Stores what the load needs.
    pub(crate) fn prepare(self, account: &Account) -> Outcome<()> {
        let mut connection = Connection::open(account)?;
        match self {
            Self::Create | Self::Upsert => {}
            Self::Read => {
                for number in 0..ITEMS {
                    put(
                        &mut connection,
                        "items",
                        &item(number),
                        &device(number),
                        number,
                    )?;
                }
            }
            Self::NewestOf(count) => {
                for number in 0..OF_ALL_DEVICES {
                    let device = device_of(number, count);
                    let id = format!("{device}-{number}");
                    put(&mut connection, "devices", &id, &device, number)?;
                }
            }
        }
        Ok(())
    }

    /// One request and its answer.
    fn once(self, connection: &mut Connection) -> Outcome<()> {
        let number = unique();
        match self {
            Self::Create => {
                let id = format!("new-{number}");
                let device = device(number);
                post(
                    connection,
                    "items",
                    &device,
                    false,
                    &document(&id, &device, number),
                )
            }
            Self::Upsert => {
                let number = scattered(number, ITEMS);
                put(connection, "items", &item(number), &device(number), number)
            }
            Self::Read => {
                let number = scattered(number, ITEMS);
                let link = format!("{}/docs/{}", container("items"), item(number));
                let signed = Signed {
                    resource_type: "docs",
                    link: &link,
                };
                let key = key(&device(number));
                let headers = [("x-ms-documentdb-partitionkey", key.as_str())];
                connection
                    .send("GET", &format!("/{link}"), signed, &headers, b"")?
                    .expect(&[200])?;
                Ok(())
            }
            Self::NewestOf(count) => {
                let device = device_of(scattered(number, OF_ALL_DEVICES), count);
                let body = format!(
                    "{{\"query\":\"SELECT TOP 20 * FROM c WHERE c.deviceId = @d ORDER BY c.time DESC\",\"parameters\":[{{\"name\":\"@d\",\"value\":\"{device}\"}}]}}"
                );
                let link = container("devices");
                let signed = Signed {
                    resource_type: "docs",
                    link: &link,
                };
                let key = key(&device);
                let headers = [
                    ("x-ms-documentdb-partitionkey", key.as_str()),
                    ("x-ms-documentdb-isquery", "True"),
                    ("content-type", "application/query+json"),
                ];
                let answer = connection
                    .send(
                        "POST",
                        &format!("/{link}/docs"),
                        signed,
                        &headers,
                        body.as_bytes(),
                    )?
                    .expect(&[200])?;
                match answer.header("x-ms-item-count") {
                    Some("20") => Ok(()),
                    other => Err(format!("20 items were expected, not {other:?}").into()),
                }
            }
        }
    }
}

fn item(number: u64) -> String {
    format!("item-{number}")
}

fn device(number: u64) -> String {
    format!("device-{}", number % DEVICES)
}

/// One of the devices that have so many documents each.
fn device_of(number: u64, count: u64) -> String {
    format!("device-of-{count}-{}", number % (OF_ALL_DEVICES / count))
}

fn key(device: &str) -> String {
    format!("[\"{device}\"]")
}

/// Goes over all numbers below `count`, neighbours far apart.
fn scattered(number: u64, count: u64) -> u64 {
    number.wrapping_mul(7919) % count
}

fn put(connection: &mut Connection, name: &str, id: &str, device: &str, time: u64) -> Outcome<()> {
    post(connection, name, device, true, &document(id, device, time))
}

fn post(
    connection: &mut Connection,
    name: &str,
    device: &str,
    is_upsert: bool,
    document: &str,
) -> Outcome<()> {
    let link = container(name);
    let signed = Signed {
        resource_type: "docs",
        link: &link,
    };
    let key = key(device);
    let headers = [
        ("x-ms-documentdb-partitionkey", key.as_str()),
        (
            "x-ms-documentdb-is-upsert",
            if is_upsert { "True" } else { "False" },
        ),
        ("prefer", "return=minimal"),
        ("content-type", "application/json"),
    ];
    let path = format!("/{link}/docs");
    connection
        .send("POST", &path, signed, &headers, document.as_bytes())?
        .expect(&[200, 201])?;
    Ok(())
}

/// Runs a load over this many connections, each with one request at a time.
pub(crate) fn run(
    load: Load,
    account: &Account,
    connections: usize,
    time: Duration,
) -> Outcome<Measured> {
    let measure = || -> Outcome<(u64, Histogram<u64>)> {
        let mut connection = Connection::open(account)?;
        let warm = Instant::now() + WARM_UP;
        let mut warmed = 0;
        while Instant::now() < warm {
            load.once(&mut connection)?;
            warmed += 1;
        }
        let mut latency = Histogram::new_with_max(60_000_000, 3)?;
        let end = Instant::now() + time;
        let mut started = Instant::now();
        while started < end {
            load.once(&mut connection)?;
            let now = Instant::now();
            latency.saturating_record(micros(now - started));
            started = now;
        }
        Ok((warmed, latency))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(measure)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| "a connection's thread has panicked")
            })
            .collect()
    });
    let mut measured = Measured {
        per_second: 0.0,
        requests: 0,
        latency: Histogram::new_with_max(60_000_000, 3)?,
    };
    for result in results {
        let (warmed, latency) = result??;
        measured.per_second += latency.len() as f64 / time.as_secs_f64();
        measured.requests += warmed + latency.len();
        measured.latency.add(latency)?;
    }
    Ok(measured)
}

/// Stores numbered documents, over several connections.
pub(crate) fn fill(account: &Account, name: &str, numbers: Range<usize>) -> Outcome<()> {
    const CONNECTIONS: usize = 4;
    let results: Vec<Outcome<()>> = thread::scope(|scope| {
        let fill = |first: usize| -> Outcome<()> {
            let mut connection = Connection::open(account)?;
            for number in numbers.clone().skip(first).step_by(CONNECTIONS) {
                let number = number as u64;
                put(
                    &mut connection,
                    name,
                    &item(number),
                    &device(number),
                    number,
                )?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|first| scope.spawn(move || fill(first)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a thread has panicked".into()))
            })
            .collect()
    });
    results.into_iter().collect()
}

/// Drains the change feed in pages of 100, from its beginning to its end, or for [`FEED_TIME`].
pub(crate) fn feed(account: &Account) -> Outcome<Histogram<u64>> {
    let mut connection = Connection::open(account)?;
    let link = container("feed");
    let signed = Signed {
        resource_type: "docs",
        link: &link,
    };
    let path = format!("/{link}/docs");
    let mut latency = Histogram::new_with_max(60_000_000, 3)?;
    let mut continuation: Option<String> = None;
    let began = Instant::now();
    while began.elapsed() < FEED_TIME {
        let mut headers = vec![("a-im", "Incremental Feed"), ("x-ms-max-item-count", "100")];
        headers.extend(continuation.as_deref().map(|text| ("if-none-match", text)));
        let started = Instant::now();
        let answer = connection
            .send("GET", &path, signed, &headers, b"")?
            .expect(&[200, 304])?;
        if answer.status == 304 {
            break;
        }
        latency.saturating_record(micros(started.elapsed()));
        if answer.header("x-ms-item-count") != Some("100") {
            return Err("a page of 100 was expected".into());
        }
        let next = answer.header("etag").map(str::to_owned);
        continuation = Some(next.ok_or("the page has no continuation")?);
    }
    Ok(latency)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
