//! `geo-events up`: the whole multi-region system on one machine.
//!
//! Composes the three crates of this workspace into regions and adds what only a laptop needs:
//!
//! - [`topology`]: which regions, and in which order each prefers the others,
//! - [`ports`]: which port every server listens on,
//! - [`cloud`]: one Cosmos DB account, and per region a SignalR Service, a Functions host and its handler process,
//! - [`identity`]: the managed identities of the apps, with `--keyless`,
//! - [`probe`]: "ready" means that a write has come back through the change feed in every region,
//! - [`control`]: the control API that the dashboard, and any script, cuts regions with,
//! - [`dashboard`]: builds `client/` with npm and serves it,
//! - [`meters`]: what is measured of all this for a collector,
//! - [`ready`]: what is printed when all of this stands.
//!
//! Start reading at [`run`].

mod cloud;
mod control;
mod dashboard;
mod identity;
mod meters;
mod ports;
mod probe;
mod ready;
mod topology;

use std::{fmt::Display, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use tracing::info;

use self::{cloud::Cloud, dashboard::Dashboard, ports::PortPlan, ready::Ready, topology::Topology};

/// Options of `geo-events up`, as typed.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Azure regions, comma-separated; the first is the hub region of the account
    #[arg(long, value_delimiter = ',', default_values_t = topology::default_regions())]
    regions: Vec<String>,

    /// Replication lag of every link between two regions, such as 80ms or 2s
    #[arg(long, default_value = "0ms", value_parser = parse_lag)]
    lag: Duration,

    /// Keep the data in this folder; without it everything is in memory and gone at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// First of a block of consecutive ports to use instead of the usual ones
    #[arg(long, value_name = "N", conflicts_with = "ports", value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    port_base: Option<u16>,

    /// `auto`: let the operating system choose all ports
    #[arg(long, value_enum)]
    ports: Option<PortChoice>,

    /// Connect the functions as in Azure, by managed identities instead of keys
    #[arg(long, conflicts_with = "services_only")]
    keyless: bool,

    /// Run the functions of this script root, such as one that `package` has written, instead of this program's own
    #[arg(long, value_name = "DIR", conflicts_with = "services_only")]
    script_root: Option<PathBuf>,

    /// Start only Cosmos DB and SignalR, for use with `func start`
    #[arg(long)]
    services_only: bool,

    /// Do not build and serve the dashboard page; the control API is there all the same
    #[arg(long)]
    no_client: bool,

    /// Print one line of JSON on stdout when all is ready, and nothing else there
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PortChoice {
    Auto,
}

/// Longest replication lag that can be asked for: enough to watch, short enough to end a test.
const MAX_LAG: Duration = Duration::from_secs(600);

fn parse_lag(text: &str) -> Result<Duration, String> {
    let lag: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write a duration such as 80ms or 2s"))?;
    let lag = Duration::try_from(lag).map_err(|_| "a lag cannot be negative".to_owned())?;
    if lag > MAX_LAG {
        return Err(format!("the longest lag is {}s", MAX_LAG.as_secs()));
    }
    Ok(lag)
}

impl UpArgs {
    fn port_plan(&self, regions: usize) -> anyhow::Result<PortPlan> {
        match (self.ports, self.port_base) {
            (Some(PortChoice::Auto), _) => Ok(PortPlan::auto(regions)),
            (None, Some(base)) => PortPlan::from_base(base, regions),
            (None, None) => Ok(PortPlan::usual(regions)),
        }
    }
}

/// Runs the local cloud until `stop` resolves, with the reason, then stops every part of it.
///
/// # Errors
/// When a part cannot start, or the probe does not come back; everything started by then is stopped.
pub async fn run<R: Display>(args: UpArgs, stop: impl Future<Output = R>) -> anyhow::Result<()> {
    tokio::pin!(stop);

    let topology = Topology::select(&args.regions)?;
    let ports = args.port_plan(topology.regions().len())?;
    let started = std::time::Instant::now();

    let dashboard = Dashboard::bind(ports.dashboard).await?;
    let origins = dashboard.origins();
    let cloud = tokio::select! {
        cloud = Cloud::start(&topology, &ports, &args, &origins) => cloud?,
        reason = &mut stop => {
            info!(%reason, "stopped while starting");
            return Ok(());
        }
    };

    meters::observe(&cloud);

    let outcome = async {
        let page = async {
            if args.no_client {
                return Ok(None);
            }
            Ok(dashboard::page().await)
        };
        let (page, ()) = tokio::try_join!(page, probe::run(&cloud))?;
        let ready = Ready::new(&cloud, dashboard.url(), page.is_some());
        let server = dashboard.serve(cloud.clone(), page);
        if args.json {
            ready.print_json()?;
        } else {
            ready.print_text(started.elapsed())?;
        }
        server.await
    };

    let outcome = tokio::select! {
        outcome = outcome => outcome,
        reason = &mut stop => {
            info!(%reason, "stopping");
            Ok(())
        }
    };
    cloud.stop().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_a_duration_with_a_unit() {
        assert_eq!(parse_lag("80ms"), Ok(Duration::from_millis(80)));
        assert_eq!(parse_lag("2s"), Ok(Duration::from_secs(2)));
        for bad in ["80", "-1s", "1h", "fast"] {
            assert!(parse_lag(bad).is_err(), "{bad}");
        }
    }
}
