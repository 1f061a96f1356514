//! SDKs that this project has not written, unmodified, against an account of several regions over real HTTP.
//!
//! A suite is a program in a folder beside this file. It is told the account by environment variables and asks for outages
//! and the like on its stdout, a line each, which is answered on its stdin: `offline REGION`, `failing REGION`,
//! `online REGION`, `split DATABASE CONTAINER`, and `settled`, which waits until every region has what the others have
//! accepted. What it reports to people goes to stderr.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use cosmos_local::{Account, Availability, CosmosLocal, EMULATOR_KEY, RegionConfig};
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

/// Runs a suite against an account of its own, and fails with its report when it fails.
async fn pass(mut suite: Command) {
    let account = REGIONS
        .iter()
        .fold(CosmosLocal::builder(), |builder, name| {
            builder.region(RegionConfig::new(*name))
        })
        .partitions(PARTITIONS)
        .check_dates(true)
        .start()
        .await
        .unwrap();
    let mut suite = suite
        .env("COSMOS_ENDPOINT", account.endpoint())
        .env("COSMOS_KEY", EMULATOR_KEY)
        .env("COSMOS_REGIONS", REGIONS.join(","))
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
            let answer = match serve(&account, &request).await {
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
    account.shutdown().await;
}

async fn serve(account: &Account, request: &str) -> Result<(), String> {
    let (what, name) = request.split_once(' ').unwrap_or((request, ""));
    let available = async |availability| {
        let changed = account.set_availability(name, availability).await;
        changed.map_err(|error| error.to_string())
    };
    match what {
        "offline" => available(Availability::Refusing).await,
        "failing" => available(Availability::Failing).await,
        "online" => available(Availability::Online).await,
        "split" => {
            let (database, container) = name.split_once(' ').unwrap_or((name, ""));
            let text = |error: cosmos_local::ControlError| error.to_string();
            let partitions = account.partitions(database, container).map_err(text)?;
            account
                .split_partition(database, container, &partitions[0])
                .map_err(text)
                .map(drop)
        }
        "settled" => {
            let deadline = Instant::now() + Duration::from_secs(10);
            while account.links().iter().any(|link| link.pending > 0) {
                if Instant::now() > deadline {
                    return Err(format!(
                        "changes are still on their way: {:?}",
                        account.links()
                    ));
                }
                sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
        _ => Err(format!("{request:?} is not a request")),
    }
}
