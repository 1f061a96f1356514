//! SDKs that this project has not written, unmodified, against accounts of several regions over real HTTP.
//!
//! A suite is a program in a folder beside this file. It is told the account by environment variables, and another one of
//! the same regions, of which only one takes writes. It asks for outages and the like on its stdout, a line each, which is
//! answered on its stdin:
//!
//! - `offline REGION`, `failing REGION`, `withdrawn REGION`, `online REGION`: how a region meets its clients,
//! - `limited UNITS REGION`, `unlimited REGION`: its throughput,
//! - `cut REGION`, `open REGION`: the links that carry what it accepts,
//! - `split DATABASE CONTAINER`: the first of its partitions,
//! - `hub REGION`: where the other account takes writes,
//! - `settled`: waits until every region has what the others have accepted.
//!
//! What it reports to people goes to stderr.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use cosmos_local::{
    Account, Availability, ControlError, CosmosLocal, EMULATOR_KEY, Failover, LinkState,
    RegionConfig, WriteMode,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::{sleep, timeout},
};

/// How long a suite may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// So many that clients have results to merge.
const PARTITIONS: u32 = 3;

const REGIONS: [&str; 3] = ["West US", "North Europe", "Southeast Asia"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript() {
    let folder = folder("javascript");
    install(&folder, "node_modules/.package-lock.json", |folder| {
        run(
            std::process::Command::new("npm").args(["install", "--no-audit", "--no-fund"]),
            folder,
        );
    });
    let mut suite = Command::new("node");
    suite
        .args(["--test-reporter=spec", "--test-reporter-destination=stderr"])
        .arg("suite.mjs")
        .current_dir(&folder);
    pass(suite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    let folder = folder("python");
    install(&folder, ".venv/.complete", |folder| {
        run(
            std::process::Command::new("python3").args(["-m", "venv", ".venv"]),
            folder,
        );
        let pip = ["-m", "pip", "install", "--quiet", "-r", "requirements.txt"];
        run(
            std::process::Command::new(folder.join(".venv/bin/python")).args(pip),
            folder,
        );
        File::create(folder.join(".venv/.complete")).unwrap();
    });
    let mut suite = Command::new(folder.join(".venv/bin/python"));
    suite.arg("suite.py").current_dir(&folder);
    pass(suite).await;
}

fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(language)
}

/// Installs what a suite needs, unless `complete` says that this was done. Several test programs may run at once, and only
/// one may install.
fn install(folder: &Path, complete: &str, install: impl FnOnce(&Path)) {
    let lock = File::create(folder.join(".install.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join(complete).exists() {
        install(folder);
    }
}

fn run(command: &mut std::process::Command, folder: &Path) {
    let output = command
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("these tests need {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The accounts of a suite.
struct Accounts {
    /// Every region takes writes.
    main: Account,
    /// One region takes writes.
    single: Account,
}

impl Accounts {
    async fn start() -> Self {
        let start = |write_mode| {
            let regions = REGIONS.iter();
            let builder = regions.fold(CosmosLocal::builder(), |builder, name| {
                builder.region(RegionConfig::new(*name))
            });
            builder
                .partitions(PARTITIONS)
                .check_dates(true)
                .write_mode(write_mode)
                .start()
        };
        Self {
            main: start(WriteMode::Multi).await.unwrap(),
            single: start(WriteMode::Single).await.unwrap(),
        }
    }

    /// The region of each gateway: `http://127.0.0.1:1/=West US,…`.
    fn gateways(&self) -> String {
        let regions = [&self.main, &self.single].map(Account::regions).concat();
        let gateways = regions
            .iter()
            .map(|region| format!("{}={}", region.endpoint, region.name));
        gateways.collect::<Vec<_>>().join(",")
    }

    async fn shut_down(&self) {
        self.main.shutdown().await;
        self.single.shutdown().await;
    }
}

/// Runs a suite against accounts of its own, and fails with its report when it fails.
async fn pass(mut suite: Command) {
    let accounts = Accounts::start().await;
    let mut suite = suite
        .env("COSMOS_ENDPOINT", accounts.main.endpoint())
        .env("COSMOS_SINGLE_WRITE_ENDPOINT", accounts.single.endpoint())
        .env("COSMOS_KEY", EMULATOR_KEY)
        .env("COSMOS_REGIONS", REGIONS.join(","))
        .env("COSMOS_GATEWAYS", accounts.gateways())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut answers = suite.stdin.take().unwrap();
    let mut requests = BufReader::new(suite.stdout.take().unwrap()).lines();
    let mut stderr = suite.stderr.take().unwrap();
    let report = tokio::spawn(async move {
        let mut report = String::new();
        stderr.read_to_string(&mut report).await.unwrap();
        report
    });
    let served = timeout(DEADLINE, async {
        while let Some(request) = requests.next_line().await.unwrap() {
            let answer = match serve(&accounts, &request).await {
                Ok(()) => "done\n".to_owned(),
                Err(problem) => format!("{problem}\n"),
            };
            // A suite that has ended reads no answer, and its report says why it has.
            if answers.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
        suite.wait().await.unwrap()
    });
    let status = served.await;
    if status.is_err() {
        suite.kill().await.unwrap();
    }
    let report = report.await.unwrap();
    match status {
        Ok(status) => assert!(status.success(), "{report}"),
        Err(_) => panic!("not done after {DEADLINE:?}:\n{report}"),
    }
    accounts.shut_down().await;
}

async fn serve(accounts: &Accounts, request: &str) -> Result<(), String> {
    let account = &accounts.main;
    let (what, name) = request.split_once(' ').unwrap_or((request, ""));
    let available = async |availability| account.set_availability(name, availability).await;
    let done = match what {
        "offline" => available(Availability::Refusing).await,
        "failing" => available(Availability::Failing).await,
        "withdrawn" => available(Availability::Withdrawn).await,
        "online" => available(Availability::Online).await,
        "limited" => {
            let (units, name) = name.split_once(' ').unwrap_or((name, ""));
            let units = units
                .parse()
                .map_err(|_| format!("{units:?} is no number"))?;
            account.limit_throughput(name, Some(units))
        }
        "unlimited" => account.limit_throughput(name, None),
        "cut" => set_links_from(account, name, LinkState::Cut),
        "open" => set_links_from(account, name, LinkState::Open),
        "split" => {
            let (database, container) = name.split_once(' ').unwrap_or((name, ""));
            account
                .partitions(database, container)
                .and_then(|ranges| account.split_partition(database, container, &ranges[0]))
                .map(drop)
        }
        "hub" => accounts.single.fail_over(name, Failover::Graceful).await,
        "settled" => return settled([account, &accounts.single]).await,
        _ => return Err(format!("{request:?} is not a request")),
    };
    done.map_err(|error| error.to_string())
}

fn set_links_from(account: &Account, region: &str, state: LinkState) -> Result<(), ControlError> {
    let links = account.links().into_iter();
    links
        .filter(|link| link.from == region)
        .try_for_each(|link| account.set_link(&link.from, &link.to, state, None))
}

async fn settled(accounts: [&Account; 2]) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let links = accounts.map(Account::links).concat();
        if links.iter().all(|link| link.pending == 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("changes are still on their way: {links:?}"));
        }
        sleep(Duration::from_millis(2)).await;
    }
}
