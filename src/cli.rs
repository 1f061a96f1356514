//! The command line: what can be typed, and what is done then.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use geo_events::{
    functions::App,
    handler::Handler,
    logging, package, provision,
    settings::{Listen, Settings},
    smoke,
    telemetry::{Instrumentation, Telemetry},
};
use opentelemetry::KeyValue;

use crate::stop::{self, Reason};

/// Geo-distributed, event-driven functions on Azure, and the whole multi-region cloud for them on one machine
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the whole multi-region system up on this machine, until Ctrl-C
    #[cfg(feature = "local")]
    Up(geo_events::local::UpArgs),
    /// Run the functions: what a Functions host starts as its custom handler
    Serve,
    /// Write the deployable script root: host.json, the functions and the executable
    Package(PackageArgs),
    /// Test a running system as its clients use it: write, read, and see what is pushed
    Smoke(SmokeArgs),
    /// Create the database and its containers in an emulator; what exists stays as it is
    Provision(ProvisionArgs),
}

#[derive(Debug, Args)]
struct PackageArgs {
    /// Folder to write; new, empty, or written by this command before
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Also write DIR.zip, ready to be deployed
    #[arg(long)]
    zip: bool,

    /// The executable to deploy [default: this one]
    #[arg(long, value_name = "PATH")]
    executable: Option<PathBuf>,

    /// Also write local.settings.json, for `func start` in DIR; it is never deployed
    #[arg(long)]
    local_settings: bool,
}

#[derive(Debug, Args)]
struct SmokeArgs {
    /// Function App of a region, such as https://app.azurewebsites.net; several regions are tested together
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<reqwest::Url>,

    /// Longest wait for a step, in seconds; a Function App that has been idle takes its time to wake
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=600))]
    patience: u64,
}

#[derive(Debug, Args)]
struct ProvisionArgs {
    /// AccountEndpoint=…;AccountKey=…; of the account
    #[arg(long, env = "CosmosDBConnection", hide_env_values = true)]
    connection_string: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// It would have gone on, but was asked to stop.
    Stopped(Reason),
}

impl Cli {
    /// Does what was typed.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        match self.command {
            #[cfg(feature = "local")]
            Command::Up(args) => up(args),
            Command::Serve => serve(),
            Command::Package(args) => package(args),
            Command::Smoke(args) => runtime()?.block_on(smoke(args)),
            Command::Provision(args) => runtime()?.block_on(provision(args)),
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // One thread: the server has threads of its own, and nothing else here has much to do.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

#[cfg(feature = "local")]
fn up(args: geo_events::local::UpArgs) -> anyhow::Result<Outcome> {
    logging::start_beside_output()?;
    let telemetry = Telemetry::start("geo-events-up", [])?;
    // All regions share these threads, as many as there are cores.
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        let mut stop = stop::Stop::listen(false)?;
        Box::pin(geo_events::local::run(args, stop.requested())).await
    });
    drop(runtime);
    if let Some(telemetry) = telemetry {
        telemetry.stop();
    }
    outcome?;
    Ok(Outcome::Done)
}

fn serve() -> anyhow::Result<Outcome> {
    logging::start()?;
    let listen = Listen::from_env()?;
    let settings = Settings::from_env()?;
    let region = KeyValue::new("cloud.region", settings.region.as_str().to_owned());
    let telemetry = Telemetry::start("geo-events", [region])?;
    let instrumentation = match &telemetry {
        Some(_) => Instrumentation::of(&settings.region),
        None => Instrumentation::default(),
    };
    let app = App {
        instrumentation,
        ..App::new(settings)
    };
    let outcome = runtime()?.block_on(serve_app(app, listen));
    if let Some(telemetry) = telemetry {
        telemetry.stop();
    }
    outcome
}

async fn serve_app(app: App, listen: Listen) -> anyhow::Result<Outcome> {
    let region = app.settings.region.clone();
    if app.settings.cosmos.is_none() {
        tracing::warn!(%region, "there is no CosmosDBConnection: `changes` and `health` will answer 503");
    }
    let mut stop = stop::Stop::listen(listen.under_host)?;
    let handler = Handler::bind(app, listen.port)
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", listen.port))?;
    tracing::info!(%region, address = %handler.address(), version = env!("CARGO_PKG_VERSION"), "serving");
    let mut reason = None;
    handler
        .run(async {
            let why = stop.requested().await;
            tracing::info!(%region, reason = %why, "asked to stop");
            reason = Some(why);
        })
        .await
        .context("the server failed")?;
    let reason = reason.context("the server ended by itself")?;
    Ok(Outcome::Stopped(reason))
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of the command"
)]
fn package(args: PackageArgs) -> anyhow::Result<Outcome> {
    let executable = match args.executable {
        Some(path) => path,
        None => std::env::current_exe().context("cannot find the running executable")?,
    };
    let options = package::Options {
        zip: args.zip,
        local_settings: args.local_settings,
    };
    let written = package::write_package(&args.out, &executable, options)?;
    for warning in &written.warnings {
        eprintln!("warning: {warning}");
    }
    println!(
        "wrote {} ({} functions)",
        written.dir.display(),
        written.functions
    );
    if let Some(zip) = &written.zip {
        println!("wrote {}", zip.display());
    }
    Ok(Outcome::Done)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
async fn smoke(args: SmokeArgs) -> anyhow::Result<Outcome> {
    let report = |passed: smoke::Passed| {
        let ms = passed.elapsed.as_millis();
        println!("ok {}: {} ({ms} ms)", passed.region, passed.step);
    };
    smoke::run(&args.urls, Duration::from_secs(args.patience), report).await?;
    Ok(Outcome::Done)
}

async fn provision(args: ProvisionArgs) -> anyhow::Result<Outcome> {
    logging::start()?;
    provision::run(&args.connection_string).await?;
    Ok(Outcome::Done)
}
