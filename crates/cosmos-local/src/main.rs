//! Azure Cosmos DB for NoSQL on this machine, as a program.

use std::{io::Write as _, path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};
use cosmos_local::{Account, CosmosLocal, RegionConfig, WriteMode};
use serde_json::json;

/// Azure Cosmos DB for NoSQL on this machine, in one region or many.
///
/// Real SDKs connect to it, unmodified, in gateway mode over plain HTTP, with the key of Microsoft's emulator. Every
/// region has a gateway of its own on 127.0.0.1; changes are replicated between all of them. It says when it is ready,
/// and runs until it gets Ctrl-C or SIGTERM.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        cosmos-local\n  \
        cosmos-local --regions \"West US,North Europe\" --data ./cosmos --lag 80ms\n  \
        cosmos-local --ports auto --json | head -1"
)]
struct Arguments {
    /// Azure display names of the regions, comma-separated; the first is the hub, and writes where only one region does
    #[arg(
        long,
        default_value = "West US",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    regions: Vec<String>,

    /// Which regions take writes
    #[arg(long, value_enum, default_value_t = Mode::Multi)]
    write_mode: Mode,

    /// Folder to keep everything in; without it, everything is gone when the program ends
    ///
    /// What was acknowledged is in it, whatever happens to the program. Name all of its regions; one that is new to it gets
    /// everything that the others have.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Port of the account endpoint, with the regions' gateways on the ports after it; or "auto" for any that are free
    #[arg(long, default_value = "8081", value_name = "PORT|auto")]
    ports: Ports,

    /// Replication lag between regions, such as 80ms or 2s
    #[arg(long, default_value = "0ms", value_parser = duration, value_name = "TIME")]
    lag: Duration,

    /// Physical partitions of every new container
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    partitions: u32,

    /// Request units per second that each region has; beyond them it answers 429. Without it there is no limit
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "UNITS")]
    throughput: Option<u32>,

    /// Take Entra tokens besides the account key: any that are for Cosmos DB and have not expired
    #[arg(long)]
    entra_tokens: bool,

    /// Refuse signatures whose date is more than 15 minutes from this machine's time
    #[arg(long)]
    check_dates: bool,

    /// Say that it is ready in one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Every region
    Multi,
    /// The first region only; the others refuse writes as the service does
    Single,
}

#[derive(Debug, Clone, Copy)]
enum Ports {
    Auto,
    From(u16),
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "0" => Ok(Self::Auto),
            number => number
                .parse()
                .map(Self::From)
                .map_err(|_| "is neither a port number nor \"auto\"".into()),
        }
    }
}

impl Ports {
    /// The port of the account endpoint, which is number 0, or of a region.
    fn number(self, number: usize) -> Result<u16, String> {
        match self {
            Self::Auto => Ok(0),
            Self::From(first) => u16::try_from(number)
                .ok()
                .and_then(|number| first.checked_add(number))
                .ok_or_else(|| format!("there are not enough ports after {first}")),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .map_err(|error| error.to_string())
        .and_then(|duration| {
            Duration::try_from(duration).map_err(|_| "a time is not negative".into())
        })
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cosmos-local: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    // Before anything is started, so that a signal always ends it properly.
    let stop = stop_signal().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let json = arguments.json;
    let account = start(arguments).await?;
    let ready = if json {
        ready_line(&account)
    } else {
        ready_text(&account)
    };
    // Whoever started it may not listen; it runs all the same.
    let _ = writeln!(std::io::stdout().lock(), "{ready}");
    stop.await;
    account.shutdown().await;
    Ok(())
}

async fn start(arguments: Arguments) -> Result<Account, String> {
    let mut builder = CosmosLocal::builder()
        .global_port(arguments.ports.number(0)?)
        .lag(arguments.lag)
        .data_dir(arguments.data)
        .partitions(arguments.partitions)
        .throughput(arguments.throughput)
        .entra_tokens(arguments.entra_tokens)
        .check_dates(arguments.check_dates)
        .write_mode(match arguments.write_mode {
            Mode::Multi => WriteMode::Multi,
            Mode::Single => WriteMode::Single,
        });
    for (index, name) in arguments.regions.iter().enumerate() {
        let port = arguments.ports.number(index + 1)?;
        builder = builder.region(RegionConfig::new(name.trim()).port(port));
    }
    builder.start().await.map_err(|error| error.to_string())
}

fn ready_line(account: &Account) -> String {
    let regions: Vec<_> = account
        .regions()
        .into_iter()
        .map(|region| json!({"name": region.name, "endpoint": region.endpoint, "writable": region.writable}))
        .collect();
    json!({
        "event": "ready", "endpoint": account.endpoint(), "connectionString": account.connection_string(),
        "regions": regions,
    })
    .to_string()
}

fn ready_text(account: &Account) -> String {
    let mut text = format!(
        "Cosmos DB is ready at {}\n\n{}\n",
        account.endpoint(),
        account.connection_string()
    );
    for region in account.regions() {
        let writes = if region.writable {
            ""
        } else {
            " (takes no writes)"
        };
        text += &format!("\n{:<24} {}{writes}", region.name, region.endpoint);
    }
    text + "\n\nCtrl-C ends it."
}

#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // When it cannot be waited for, the program ends rather than run for ever.
        let _ = tokio::signal::ctrl_c().await;
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert_eq!(duration("80ms"), Ok(Duration::from_millis(80)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
        assert_eq!(Ports::From(8081).number(2), Ok(8083));
        assert!(Ports::From(u16::MAX).number(1).is_err());
    }
}
