//! The program `cosmos-local`, as a process: how it starts, how it stops, and what is left when it is killed.
#![cfg(all(unix, feature = "program"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::{Container, Raw, eventually, key};

struct Program {
    child: Child,
    ready: Value,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cosmos-local"))
            .args(["--ports", "auto", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("not the line that says it is ready: {line:?}"));
        Self { child, ready }
    }

    fn durable(data: &Path) -> Self {
        let data = data.to_str().unwrap();
        Self::start(&["--regions", "West US,North Europe", "--data", data])
    }

    fn gateways(&self) -> Vec<Raw> {
        let regions = self.ready["regions"].as_array().unwrap().iter();
        regions
            .map(|region| Raw::new(region["endpoint"].as_str().unwrap()))
            .collect()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn it_says_when_it_is_ready_and_stops_when_it_is_told() {
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&[
            "--write-mode",
            "single",
            "--regions",
            "West US, North Europe",
        ]);
        assert_eq!(program.ready["event"], "ready");
        let names: Vec<(&Value, &Value)> = program.ready["regions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|region| (&region["name"], &region["writable"]))
            .collect();
        assert_eq!(
            names,
            [
                (&json!("West US"), &json!(true)),
                (&json!("North Europe"), &json!(false))
            ]
        );
        let endpoint = program.ready["endpoint"].as_str().unwrap();
        assert!(endpoint.starts_with("http://127.0.0.1:"));
        let text = program.ready["connectionString"].as_str().unwrap();
        assert!(text.contains(endpoint));
        assert_eq!(
            Raw::new(endpoint).send("GET", "", &[], None).await.status,
            200
        );
        let told = Command::new("kill")
            .args([format!("-{signal}"), program.child.id().to_string()])
            .status()
            .unwrap();
        assert!(told.success());
        assert!(program.child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn what_cannot_be_started_is_said_in_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, expected) in [
        (["--ports", port.as_str()], "choose another port"),
        (["--regions", "West US,west us"], "a name of its own"),
        (["--ports", "many"], "neither a port number nor"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_cosmos-local"))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(expected),
            "{text}"
        );
    }
    let help = Command::new(env!("CARGO_BIN_EXE_cosmos-local"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in [
        "--regions",
        "--write-mode",
        "--data",
        "--ports",
        "--lag",
        "--json",
        "Examples",
    ] {
        assert!(help.contains(option), "{help}");
    }
}

#[tokio::test]
async fn a_region_more_is_a_region_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::durable(folder.path());
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/id"], "kind": "Hash", "version": 2}});
    let gateways = program.gateways();
    assert_eq!(gateways[0].create(definition).await.status, 201);
    for (gateway, id) in gateways.iter().zip(["a", "b"]) {
        let item = json!({"id": id});
        assert_eq!(
            gateway.container("c").create(&key(id), &item).await.status,
            201
        );
    }
    program.kill();
    let data = folder.path().to_str().unwrap();
    let regions = "West US,North Europe,Southeast Asia";
    let program = Program::start(&["--regions", regions, "--data", data]);
    let new = program.gateways()[2].container("c");
    for id in ["a", "b"] {
        assert_eq!(new.read(&key(id), id).await.status, 200);
    }
    drop(program);
    let fewer = Command::new(env!("CARGO_BIN_EXE_cosmos-local"))
        .args(["--ports", "auto", "--regions", "West US", "--data", data])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&fewer.stderr).into_owned();
    assert!(text.contains("name all of them"), "{text}");
}

/// Rounds of killing, and writers in each.
const ROUNDS: usize = 3;
const WRITERS: usize = 8;

/// Acknowledged writes of a round before the process is killed.
const WRITES: u64 = 200;

async fn drain(items: &Container, after: &mut Option<String>, seen: &mut Vec<String>) {
    loop {
        let page = items.changes(after.as_deref(), &[]).await;
        assert!(matches!(page.status, 200 | 304), "{page:?}");
        *after = Some(page.header("etag").to_owned());
        if page.status == 304 {
            return;
        }
        seen.extend(page.ids().into_iter().map(str::to_owned));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::durable(folder.path());
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/id"], "kind": "Hash", "version": 2}});
    assert_eq!(program.gateways()[0].create(definition).await.status, 201);
    let mut acknowledged: Vec<String> = Vec::new();
    let (mut token, mut seen) = (None, Vec::new());
    for round in 0..ROUNDS {
        let count = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let gateways = program.gateways();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (count, is_over) = (Arc::clone(&count), Arc::clone(&is_over));
                let raw = gateways[writer % gateways.len()].clone();
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for n in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        let id = format!("{round}-{writer}-{n}");
                        let (item, partition) = (json!({"id": id, "n": n}), key(id.clone()));
                        let path = "dbs/db/colls/c/docs";
                        let headers = [("x-ms-documentdb-partitionkey", partition.as_str())];
                        match raw.try_send("POST", path, &headers, Some(&item)).await {
                            Ok(answer) => assert_eq!(answer.status, 201, "{answer:?}"),
                            Err(_) => break,
                        }
                        done.push(id);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    done
                })
            })
            .collect();
        eventually("there are enough writes", async || {
            count.load(Ordering::Relaxed) > WRITES / 2
        })
        .await;
        drain(&gateways[1].container("c"), &mut token, &mut seen).await;
        eventually("there are enough writes", async || {
            count.load(Ordering::Relaxed) > WRITES
        })
        .await;
        program.kill();
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }

        program = Program::durable(folder.path());
        let gateways = program.gateways();
        for gateway in &gateways {
            let items = gateway.container("c");
            let last = acknowledged.last().unwrap();
            eventually("replication goes on", async || {
                items.read(&key(last.clone()), last).await.status == 200
            })
            .await;
            for id in &acknowledged {
                eventually("an acknowledged write is there", async || {
                    items.read(&key(id.clone()), id).await.status == 200
                })
                .await;
            }
        }
        drain(&gateways[1].container("c"), &mut token, &mut seen).await;
        for id in &acknowledged {
            assert!(
                seen.contains(id),
                "the feed goes on from an old token, without {id}"
            );
        }
    }
    program.kill();
}

/// Starts it on this port and those after it; `None` where one of them is taken.
fn start_from(port: u16, arguments: &[&str]) -> Option<Program> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cosmos-local"))
        .args(["--json", "--ports", &port.to_string()])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    // Ended with the program where it says nothing.
    let mut program = Program {
        child,
        ready: Value::Null,
    };
    program.ready = serde_json::from_str(&line).ok()?;
    Some(program)
}

#[tokio::test]
async fn it_has_the_ports_that_it_is_told_and_those_after_it() {
    let names = ["--regions", "West US,North Europe,Southeast Asia"];
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    // Others may take one of them first.
    let mut tries = (0..50).map(|_| free()).filter(|port| *port < u16::MAX - 3);
    let (first, program) = tries
        .find_map(|port| Some((port, start_from(port, &names)?)))
        .unwrap();
    let regions = program.ready["regions"].as_array().unwrap().iter();
    let endpoints = regions.map(|region| &region["endpoint"]);
    for (port, endpoint) in (first..).zip([&program.ready["endpoint"]].into_iter().chain(endpoints))
    {
        assert_eq!(endpoint, &format!("http://127.0.0.1:{port}/"));
        let raw = Raw::new(endpoint.as_str().unwrap());
        let answer = raw.send("GET", "", &[], None).await;
        assert_eq!(answer.status, 200, "{endpoint}");
    }
    assert_eq!(program.gateways().len(), 3);
}

fn definition() -> Value {
    json!({"id": "c", "partitionKey": {"paths": ["/id"], "kind": "Hash", "version": 2}})
}

#[tokio::test]
async fn throughput_and_partitions_are_as_it_is_told() {
    let program = Program::start(&["--throughput", "5", "--partitions", "3"]);
    let raw = program.gateways().remove(0);
    assert_eq!(raw.create(definition()).await.status, 201);
    let items = raw.container("c");
    eventually("it is used up", async || {
        let written = items.upsert(&key("a"), &json!({"id": "a"})).await;
        written.codes() == (429, 3200)
    })
    .await;
    let mut ranges = None;
    eventually("there is some again", async || {
        let answer = items.send("GET", "pkranges", "", &[], None).await;
        ranges = answer.body["PartitionKeyRanges"].as_array().map(Vec::len);
        answer.status == 200
    })
    .await;
    assert_eq!(ranges, Some(3));
}

#[tokio::test]
async fn changes_are_as_late_as_it_is_told() {
    let regions = "West US,North Europe";
    let program = Program::start(&["--lag", "300ms", "--regions", regions]);
    let gateways = program.gateways();
    assert_eq!(gateways[0].create(definition()).await.status, 201);
    for (from, to) in [(0, 1), (1, 0)] {
        let id = from.to_string();
        let start = Instant::now();
        let items = gateways[from].container("c");
        let written = items.create(&key(id.clone()), &json!({"id": id})).await;
        assert_eq!(written.status, 201);
        let items = gateways[to].container("c");
        eventually("it arrives", async || {
            items.read(&key(id.clone()), &id).await.status == 200
        })
        .await;
        // Times of changes are whole milliseconds.
        assert!(start.elapsed() >= Duration::from_millis(299));
    }
}

#[tokio::test]
async fn old_signatures_and_entra_tokens_are_taken_as_it_is_told() {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":"https://cosmos.azure.com","exp":99999999999}"#);
    let authorization = format!("type%3Daad%26ver%3D1.0%26sig%3De30.{claims}.none");
    for (arguments, old, entra) in [
        (&[][..], 200, 401),
        (&["--check-dates"][..], 403, 401),
        (&["--entra-tokens"][..], 200, 200),
    ] {
        let program = Program::start(arguments);
        let endpoint = program.ready["endpoint"].as_str().unwrap();
        // These tests sign with a date of long ago.
        let signed = Raw::new(endpoint).send("GET", "", &[], None).await;
        assert_eq!(signed.status, old, "{arguments:?}");
        let request = reqwest::Client::new().get(endpoint);
        let answer = request.header("authorization", &authorization).send().await;
        assert_eq!(answer.unwrap().status(), entra, "{arguments:?}");
    }
}
