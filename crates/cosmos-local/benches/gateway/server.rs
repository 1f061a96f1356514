//! A server of cosmos-local: this program again, as a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cosmos_local::{CosmosLocal, EMULATOR_KEY, RegionConfig};

use crate::{Outcome, http::Account, target::Target};

/// First argument of a server: then the number of regions, and the data folder.
pub(crate) const COMMAND: &str = "serve";

const REGIONS: [&str; 3] = ["West US", "North Europe", "Southeast Asia"];

/// What the server does: it starts, says where it is and how long that took, and ends with its stdin.
pub(crate) fn serve() -> Outcome<()> {
    let mut args = std::env::args().skip(2);
    let regions: usize = args.next().ok_or("how many regions?")?.parse()?;
    let folder = args.next().map(Into::into);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let started = Instant::now();
        let account = REGIONS[..regions]
            .iter()
            .fold(CosmosLocal::builder(), |builder, name| {
                builder.region(RegionConfig::new(*name))
            })
            .data_dir(folder)
            .start()
            .await?;
        let took = started.elapsed().as_micros();
        println!("{} {took}", account.endpoint());
        std::io::stdout().flush()?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        account.shutdown().await;
        Ok(())
    })
}

pub(crate) struct Server {
    process: Child,
    endpoint: String,
    pub(crate) started_in: Duration,
}

impl Server {
    pub(crate) fn start(regions: usize, folder: Option<&Path>) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([COMMAND, &regions.to_string()])
            .args(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let (endpoint, took) = line.trim().split_once(' ').ok_or("it did not start")?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            started_in: Duration::from_micros(took.parse()?),
            process,
        })
    }

    pub(crate) fn target(&self, name: &str) -> Outcome<Target> {
        let account = Account::new(&self.endpoint, EMULATOR_KEY)?;
        Ok(Target::new(name, account, Some(self.process.id())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It ends by itself when its stdin has; that it may have ended before is no matter here.
        let _ = self.process.wait();
    }
}
