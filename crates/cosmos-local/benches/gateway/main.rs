//! What a Cosmos DB endpoint does under load: `cargo bench -p cosmos-local --bench gateway`.
//!
//! Without arguments this program starts itself again as servers of cosmos-local, in memory and with a data folder, and
//! measures those; with `-- --endpoint URL --key KEY` it measures that account, in a database of its own that it deletes in
//! the end. Requests are raw signed HTTP/1.1 over connections that are kept open, so that what is measured is the server
//! and not an SDK. Only `http://` endpoints can be measured.
//!
//! Measured, with documents of 300 bytes: create, point read, upsert and "the newest 20 of a device" at 1 and 16
//! connections; a page of 100 of the change feed at growing sizes of the container; and of our own servers the start of
//! three regions, and the memory at rest and per 100,000 documents (Linux).
//!
//! Load and server share the machine: the numbers are no capacity. The processor time that a server of ours takes for a
//! request says more on a machine that others use too.
//!
//! `--only NAME` measures what has that in its name, `--seconds N` changes how long each measurement takes.

mod http;
mod load;
mod server;

use std::{error::Error, time::Duration};

use http::{Account, Connection};
use load::Load;
use server::Server;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: [usize; 2] = [1, 16];

/// Sizes of the container at which the change feed is read.
const FEED_SIZES: [usize; 3] = [10_000, 50_000, 200_000];

struct Options {
    endpoint: Option<String>,
    key: String,
    only: String,
    time: Duration,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        endpoint: None,
        key: cosmos_local::EMULATOR_KEY.to_owned(),
        only: String::new(),
        time: Duration::from_secs(3),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // What cargo adds of itself.
            "--bench" => {}
            "--endpoint" => options.endpoint = Some(value()?),
            "--key" => options.key = value()?,
            "--only" => options.only = value()?,
            "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
            _ => return Err(format!("{arg:?} is not an option").into()),
        }
    }
    Ok(options)
}

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some(server::COMMAND) {
        return server::serve();
    }
    let options = options()?;
    println!("| storage | operation | connections | per second | p50 µs | p99 µs | processor µs |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    if let Some(endpoint) = &options.endpoint {
        let account = Account::new(endpoint, &options.key)?;
        return measure(&account, None, "given", &options);
    }
    let mut notes = Vec::new();
    {
        let server = Server::start(1, None)?;
        measure(&server.account()?, Some(&server), "memory", &options)?;
    }
    {
        let folder = tempfile::tempdir()?;
        let server = Server::start(1, Some(folder.path()))?;
        measure(&server.account()?, Some(&server), "durable", &options)?;
    }
    if "memory".contains(&options.only) {
        notes.push(memory()?);
    }
    if "start".contains(&options.only) {
        notes.push(start()?);
    }
    println!();
    for note in notes {
        println!("- {note}");
    }
    Ok(())
}

/// Runs all loads against an account.
fn measure(
    account: &Account,
    server: Option<&Server>,
    storage: &str,
    options: &Options,
) -> Outcome<()> {
    let processor = || server.map(Server::processor_time).transpose();
    let per_request = |before: Option<Duration>, after: Option<Duration>, requests: u64| {
        let time = after.zip(before).map(|(after, before)| after - before);
        time.map_or("-".to_owned(), |time| {
            format!("{:.0}", time.as_secs_f64() * 1e6 / requests as f64)
        })
    };
    let mut connection = Connection::open(account)?;
    let _ = connection.delete_database();
    connection.create_database()?;
    for container in ["items", "devices", "feed"] {
        connection.create_container(container)?;
    }
    for load in [Load::Create, Load::Read, Load::Upsert, Load::Newest] {
        if !load.name().contains(&options.only) {
            continue;
        }
        load.prepare(account)?;
        for connections in CONNECTIONS {
            let before = processor()?;
            let measured = load::run(load, account, connections, options.time)?;
            println!(
                "| {storage} | {} | {connections} | {:.0} | {} | {} | {} |",
                load.name(),
                measured.per_second,
                measured.latency.value_at_quantile(0.5),
                measured.latency.value_at_quantile(0.99),
                per_request(before, processor()?, measured.requests),
            );
        }
    }
    if "feed page of 100".contains(&options.only) {
        let mut stored = 0;
        for size in FEED_SIZES {
            load::fill(account, "feed", stored..size)?;
            stored = size;
            let before = processor()?;
            let latency = load::feed(account)?;
            println!(
                "| {storage} | feed page of 100, {size} stored | 1 | {:.0} | {} | {} | {} |",
                1e6 / latency.mean(),
                latency.value_at_quantile(0.5),
                latency.value_at_quantile(0.99),
                per_request(before, processor()?, latency.len()),
            );
        }
    }
    connection.delete_database()?;
    Ok(())
}

/// Resident memory of a server at rest, and with documents.
fn memory() -> Outcome<String> {
    const DOCUMENTS: usize = 100_000;
    let server = Server::start(1, None)?;
    let account = server.account()?;
    let mut connection = Connection::open(&account)?;
    let at_rest = server.resident_kib()?;
    connection.create_database()?;
    connection.create_container("feed")?;
    load::fill(&account, "feed", 0..DOCUMENTS)?;
    // Replicated mutations are forgotten after a while.
    std::thread::sleep(Duration::from_secs(2));
    let full = server.resident_kib()?;
    Ok(format!(
        "memory: {:.1} MiB at rest, {:.1} MiB more with {DOCUMENTS} documents ({} bytes each)",
        at_rest as f64 / 1024.0,
        (full - at_rest) as f64 / 1024.0,
        (full - at_rest) * 1024 / DOCUMENTS as u64,
    ))
}

/// Time from the call to the last listener, of three regions.
fn start() -> Outcome<String> {
    let mut times = Vec::new();
    for _ in 0..11 {
        times.push(Server::start(3, None)?.started_in);
    }
    times.sort();
    Ok(format!(
        "start of three regions: {:.1} ms (median of {})",
        times[times.len() / 2].as_secs_f64() * 1000.0,
        times.len()
    ))
}
