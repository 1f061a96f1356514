//! What Cosmos DB endpoints do under load: `cargo bench -p cosmos-local --bench gateway`.
//!
//! Without arguments this program starts itself again as servers of cosmos-local, in memory and with a data folder, and
//! measures those; with `-- --endpoint URL --key KEY` it measures that account, in a database of its own that it deletes in
//! the end. Requests are raw signed HTTP/1.1 over connections that are kept open, so that what is measured is the server
//! and not an SDK. Only `http://` endpoints can be measured.
//!
//! Measured, with documents of 300 bytes: create, point read, upsert and "the newest 20 of a device", which has 100 or 1,000
//! documents among 40,000 or more, at 1 and 16 connections; a page of 100 while the change feed is drained, at growing sizes of the
//! container; the memory that 100,000 documents take (Linux), for which peers should be started anew, with `--only memory`;
//! and of our own servers the start of three regions.
//!
//! Load and server share the machine: the numbers are no capacity. The processor time that a server takes for a request
//! says more on a machine that others use too. For the same reason all endpoints take turns, round by round, at each
//! operation: what disturbs one disturbs all, and their ratio stands. The rate is the median of the rounds.
//!
//! # Beside others
//!
//! `--peer NAME=URL` measures a running endpoint beside ours, in turns; with `--peer NAME=URL,PID` its processor time and memory too (Linux).
//! It may be given several times. What a peer cannot do is told below the table. With another emulator:
//!
//! ```text
//! npx @vercel/cosmosdb-server --no-ssl --port 3000
//! cargo bench -p cosmos-local --bench gateway -- --peer vercel=http://127.0.0.1:3000
//! ```
//!
//! With Microsoft's in-memory emulator, from a clone of `Azure/azure-sdk-for-rust`; it tells its `accountEndpoint`:
//!
//! ```text
//! cargo run --release -p azure_data_cosmos_emulator -- --config sdk/cosmos/azure_data_cosmos_emulator/config/ci-gateway-v1.json
//! cargo bench -p cosmos-local --bench gateway -- --peer microsoft=http://127.0.0.1:PORT
//! ```
//!
//! With an older build of this program, whose server tells its address and runs until its input ends:
//!
//! ```text
//! tail -f /dev/null | old/gateway serve 1
//! cargo bench -p cosmos-local --bench gateway -- --peer old=http://127.0.0.1:PORT,PID
//! ```
//!
//! # Options
//!
//! `--only NAME` measures what has that in its name, `--connections 1,16` says at how many, `--rounds N` how often all take
//! turns, `--seconds N` how long each turn takes.

mod http;
mod load;
mod server;
mod target;

use std::{error::Error, time::Duration};

use hdrhistogram::Histogram;
use http::{Account, Connection};
use load::Load;
use server::Server;
use target::Target;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Sizes of the container at which the change feed is read.
const FEED_SIZES: [usize; 3] = [10_000, 50_000, 200_000];

struct Options {
    endpoint: Option<String>,
    key: String,
    peers: Vec<String>,
    only: String,
    connections: Vec<usize>,
    rounds: usize,
    time: Duration,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        endpoint: None,
        key: cosmos_local::EMULATOR_KEY.to_owned(),
        peers: Vec::new(),
        only: String::new(),
        connections: vec![1, 16],
        rounds: 3,
        time: Duration::from_secs(1),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // What cargo adds of itself.
            "--bench" => {}
            "--endpoint" => options.endpoint = Some(value()?),
            "--key" => options.key = value()?,
            "--peer" => options.peers.push(value()?),
            "--only" => options.only = value()?,
            "--connections" => {
                let counts = value()?;
                let counts = counts.split(',').map(str::parse);
                options.connections = counts.collect::<Result<_, _>>()?;
            }
            "--rounds" => options.rounds = value()?.parse()?,
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
    let mut notes = Vec::new();
    let peers = options.peers.iter();
    let peers = peers.map(|peer| Target::parse(peer, &options.key));
    let peers: Vec<Target> = peers.collect::<Outcome<_>>()?;
    if let Some(endpoint) = &options.endpoint {
        let account = Account::new(endpoint, &options.key)?;
        let given = [Target::new("given", account, None)];
        measure(&given, &peers, &options, &mut notes)?;
    } else {
        let folder = tempfile::tempdir()?;
        let servers = [
            ("memory", Server::start(1, None)?),
            ("durable", Server::start(1, Some(folder.path()))?),
        ];
        let own = servers.iter().map(|(name, server)| server.target(name));
        measure(
            &own.collect::<Outcome<Vec<_>>>()?,
            &peers,
            &options,
            &mut notes,
        )?;
    }
    if options.endpoint.is_none() && "start".contains(&options.only) {
        notes.push(start()?);
    }
    if options.endpoint.is_none() && "memory".contains(&options.only) {
        let server = Server::start(1, None)?;
        let own = server.target("cosmos-local")?;
        for target in [&own].into_iter().chain(&peers) {
            match memory(target) {
                Ok(note) => notes.extend(note),
                Err(error) => notes.push(format!("{}, memory: {error}", target.name)),
            }
        }
    }
    println!();
    for note in notes {
        println!("- {note}");
    }
    Ok(())
}

/// Runs all loads against some accounts and the peers.
fn measure(
    own: &[Target],
    peers: &[Target],
    options: &Options,
    notes: &mut Vec<String>,
) -> Outcome<()> {
    let targets: Vec<&Target> = own.iter().chain(peers).collect();
    for target in &targets {
        let mut connection = Connection::open(&target.account)?;
        let _ = connection.delete_database();
        connection.create_database()?;
        for container in ["items", "devices", "feed"] {
            connection.create_container(container)?;
        }
    }
    println!(
        "| endpoint | operation | connections | per second | p50 µs | p99 µs | processor µs |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let loads = [
        Load::Create,
        Load::Read,
        Load::Upsert,
        Load::NewestOf(100),
        Load::NewestOf(1_000),
    ];
    for load in loads {
        if load.name().contains(&options.only) {
            operation(load, &targets, options, notes);
        }
    }
    if "feed page of 100".contains(&options.only) {
        for target in &targets {
            if let Err(error) = feed(target) {
                notes.push(format!("{}, feed page of 100: {error}", target.name));
            }
        }
    }
    for target in &targets {
        Connection::open(&target.account)?.delete_database()?;
    }
    Ok(())
}

/// One operation at each number of connections; the targets take turns.
fn operation(load: Load, targets: &[&Target], options: &Options, notes: &mut Vec<String>) {
    let mut able = Vec::new();
    for &target in targets {
        match load.prepare(&target.account) {
            Ok(()) => able.push(target),
            Err(error) => notes.push(format!("{}, {}: {error}", target.name, load.name())),
        }
    }
    for &connections in &options.connections {
        let mut results: Vec<Outcome<Turns>> = able.iter().map(|_| Ok(Turns::default())).collect();
        for _ in 0..options.rounds {
            for (target, result) in able.iter().zip(&mut results) {
                if let Ok(turns) = result
                    && let Err(error) = turns.take(load, target, connections, options.time)
                {
                    *result = Err(error);
                }
            }
        }
        for (target, result) in able.iter().zip(results) {
            match result {
                Ok(turns) => turns.print(target, &load.name(), connections),
                Err(error) => notes.push(format!("{}, {}: {error}", target.name, load.name())),
            }
        }
    }
}

/// What came of a target's turns at something.
#[derive(Default)]
struct Turns {
    /// Of each turn.
    rates: Vec<f64>,
    latency: Option<Histogram<u64>>,
    requests: u64,
    processor: Option<Duration>,
}

impl Turns {
    fn take(
        &mut self,
        load: Load,
        target: &Target,
        connections: usize,
        time: Duration,
    ) -> Outcome<()> {
        let before = target.processor_time()?;
        let measured = load::run(load, &target.account, connections, time)?;
        let used = target.processor_time()?.zip(before);
        self.rates.push(measured.per_second);
        self.requests += measured.requests;
        self.processor = used.map(|(after, before)| {
            self.processor.unwrap_or_default() + after.saturating_sub(before)
        });
        match &mut self.latency {
            Some(latency) => latency.add(measured.latency)?,
            none => *none = Some(measured.latency),
        }
        Ok(())
    }

    fn print(mut self, target: &Target, operation: &str, connections: usize) {
        let Some(latency) = self.latency else { return };
        self.rates.sort_by(f64::total_cmp);
        let processor = self.processor.map_or("-".to_owned(), |time| {
            format!("{:.1}", time.as_secs_f64() * 1e6 / self.requests as f64)
        });
        println!(
            "| {} | {operation} | {connections} | {:.0} | {} | {} | {processor} |",
            target.name,
            self.rates[self.rates.len() / 2],
            latency.value_at_quantile(0.5),
            latency.value_at_quantile(0.99),
        );
    }
}

/// Pages of the change feed at growing sizes of the container.
fn feed(target: &Target) -> Outcome<()> {
    let mut stored = 0;
    for size in FEED_SIZES {
        load::fill(&target.account, "feed", stored..size)?;
        stored = size;
        let before = target.processor_time()?;
        let latency = load::feed(&target.account)?;
        let processor = target.processor_time()?.zip(before);
        let turns = Turns {
            rates: vec![1e6 / latency.mean()],
            requests: latency.len(),
            processor: processor.map(|(after, before)| after.saturating_sub(before)),
            latency: Some(latency),
        };
        turns.print(target, &format!("feed page of 100, {size} stored"), 1);
    }
    Ok(())
}

/// Resident memory of a server before it has a container's documents, and with them; `None` when its process is not known.
fn memory(target: &Target) -> Outcome<Option<String>> {
    const DOCUMENTS: usize = 100_000;
    let Some(before) = target.resident_kib()? else {
        return Ok(None);
    };
    let mut connection = Connection::open(&target.account)?;
    connection.create_database()?;
    connection.create_container("feed")?;
    load::fill(&target.account, "feed", 0..DOCUMENTS)?;
    // Replicated mutations are forgotten after a while.
    std::thread::sleep(Duration::from_secs(2));
    let more = target
        .resident_kib()?
        .unwrap_or_default()
        .saturating_sub(before);
    connection.delete_database()?;
    Ok(Some(format!(
        "{}, memory: {:.1} MiB before, {:.1} MiB more with {DOCUMENTS} documents ({} bytes each)",
        target.name,
        before as f64 / 1024.0,
        more as f64 / 1024.0,
        more * 1024 / DOCUMENTS as u64,
    )))
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
