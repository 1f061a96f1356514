//! The program `cosmos-local`, as a process: how it starts, how it stops, and what is left when it is killed.
#![cfg(all(unix, feature = "program"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::{Container, FEED, Raw, eventually, key};

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

    fn durable(data: &Path, arguments: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        let regions = "West US,North Europe";
        Self::start(&[&["--regions", regions, "--data", data], arguments].concat())
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
    let mut program = Program::durable(folder.path(), &[]);
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

/// Acknowledged writes of a round before the process is killed, at least.
const WRITES: u64 = 200;

/// The lag of links while there are writes: others get what was written, but not the last of it before the process is killed.
const LAG: &str = "1s";

/// The lag of links that carry nothing as long as a test runs.
const NEVER: &str = "1h";

/// The numbers of versions of items; an item that is deleted has none.
type Items = BTreeMap<String, Option<u64>>;

/// One who writes items that are nobody else's, in one region, one after the other.
struct Writer {
    region: usize,
    /// Its partition key value, with which the ids of its items begin.
    name: String,
    acknowledged: Items,
    /// What becomes of items by the write that was sent last, if there is no answer to it yet.
    unanswered: Items,
}

/// What a writer sends, and what becomes of items by it.
struct Write {
    method: &'static str,
    path: String,
    headers: &'static [(&'static str, &'static str)],
    body: Option<Value>,
    expected: u16,
    items: Items,
}

const DOCUMENTS: &str = "dbs/db/colls/c/docs";
const BATCH: &[(&str, &str)] = &[
    ("x-ms-cosmos-is-batch-request", "True"),
    ("x-ms-cosmos-batch-atomic", "True"),
];

impl Writer {
    fn new(region: usize, name: String) -> Self {
        Self {
            region,
            name,
            acknowledged: Items::new(),
            unanswered: Items::new(),
        }
    }

    /// Writes until there is no answer any more. Who waits for `count` knows how much was acknowledged.
    async fn write(mut self, raw: Raw, first: u64, count: Arc<AtomicU64>) -> Self {
        for number in first.. {
            let write = self.next(number);
            self.unanswered.clone_from(&write.items);
            let key = key(self.name.clone());
            let headers = [write.headers, &[("x-ms-documentdb-partitionkey", &key)]].concat();
            let sent = raw.try_send(write.method, &write.path, &headers, write.body.as_ref());
            let Ok(answer) = sent.await else {
                break;
            };
            assert_eq!(answer.status, write.expected, "{answer:?}");
            self.acknowledged.append(&mut self.unanswered);
            count.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// Each sort of write in its turn.
    fn next(&self, number: u64) -> Write {
        let item = |id: &str| json!({"id": id, "k": self.name, "v": number});
        let create = |id: &str| json!({"operationType": "Create", "resourceBody": item(id)});
        let new = format!("{}-{number}", self.name);
        let there = self.acknowledged.iter().filter(|(_, it)| it.is_some());
        let there: Vec<&String> = there.map(|(id, _)| id).collect();
        let old = (!there.is_empty()).then(|| there[number as usize % there.len()].clone());
        let write = |method, id: Option<&str>, body, expected, ids: &[&str]| Write {
            method,
            path: id.map_or(DOCUMENTS.to_owned(), |id| format!("{DOCUMENTS}/{id}")),
            headers: &[],
            body,
            expected,
            items: ids
                .iter()
                .map(|id| ((*id).to_owned(), Some(number)))
                .collect(),
        };
        match (number % 5, old) {
            (1, Some(old)) => write("PUT", Some(&old), Some(item(&old)), 200, &[&old]),
            (2, Some(old)) => {
                let operations = json!([{"op": "set", "path": "/v", "value": number}]);
                write("PATCH", Some(&old), Some(operations), 200, &[&old])
            }
            (3, Some(old)) => {
                let more = format!("{new}-more");
                let replace =
                    json!({"operationType": "Replace", "id": old, "resourceBody": item(&old)});
                let operations = json!([create(&new), create(&more), replace]);
                let ids = [new.as_str(), &more, &old];
                Write {
                    headers: BATCH,
                    ..write("POST", None, Some(operations), 200, &ids)
                }
            }
            (4, Some(old)) => Write {
                items: Items::from([(old.clone(), None)]),
                ..write("DELETE", Some(&old), None, 204, &[])
            },
            _ => write("POST", None, Some(item(&new)), 201, &[&new]),
        }
    }

    /// What a region shows of the items of which there may be something.
    async fn shown(&self, gateway: &Raw) -> Items {
        let items = gateway.container("c");
        let mut shown = Items::new();
        for id in self.acknowledged.keys().chain(self.unanswered.keys()) {
            shown.insert(id.clone(), version(&items, &self.name, id).await);
        }
        shown
    }

    /// Looks at its region, once, after the process was killed: what was acknowledged is there, and the write that was not
    /// answered is, or is not, as a whole.
    async fn check(&mut self, gateway: &Raw) {
        let mut shown = self.shown(gateway).await;
        let new = self.unanswered.keys().map(|id| (id.clone(), None));
        let mut without: Items = new.collect();
        without.extend(self.acknowledged.clone());
        let mut with = without.clone();
        with.append(&mut self.unanswered);
        let unlike = |expected: &Items| -> Vec<String> {
            let shown = shown.iter().filter(|(id, it)| expected[*id] != **it);
            shown
                .map(|(id, it)| format!("{id} is {it:?}, and not {:?}", expected[id]))
                .collect()
        };
        let unlike = [&without, &with].map(unlike);
        assert!(
            unlike.iter().any(Vec::is_empty),
            "{}, without the last write, or with it: {unlike:?}",
            self.name
        );
        // What was never there is nobody's.
        shown.retain(|id, it| it.is_some() || self.acknowledged.contains_key(id));
        self.acknowledged = shown;
    }
}

/// The version of an item that a region shows.
async fn version(items: &Container, partition: &str, id: &str) -> Option<u64> {
    let read = items.read(&key(partition), id).await;
    assert!(matches!(read.status, 200 | 404), "{read:?}");
    read.body["v"].as_u64()
}

/// A reader of a region's change feed, which goes on from where it was when the process was killed.
#[derive(Debug, Default)]
struct Reader {
    after: Option<String>,
    /// The position of the last change.
    position: u64,
    given: BTreeSet<(String, u64)>,
    last: BTreeMap<String, u64>,
}

impl Reader {
    /// Reads to the end; `false` when there is no answer.
    async fn drain(&mut self, gateway: &Raw) -> bool {
        loop {
            let mut headers = vec![FEED, ("x-ms-max-item-count", "20")];
            headers.extend(self.after.as_deref().map(|after| ("if-none-match", after)));
            let Ok(page) = gateway.try_send("GET", DOCUMENTS, &headers, None).await else {
                return false;
            };
            assert!(matches!(page.status, 200 | 304), "{page:?}");
            for row in page.documents() {
                self.take(row);
            }
            self.after = Some(page.header("etag").to_owned());
            if page.status == 304 {
                return true;
            }
        }
    }

    fn take(&mut self, row: &Value) {
        let id = row["id"].as_str().unwrap().to_owned();
        let (version, position) = (row["v"].as_u64().unwrap(), row["_lsn"].as_u64().unwrap());
        assert!(self.position < position, "not in order: {row}");
        self.position = position;
        assert!(self.given.insert((id.clone(), version)), "twice: {row}");
        self.last.insert(id, version);
    }

    /// Reads until the process is killed.
    async fn follow(mut self, gateway: Raw) -> Self {
        while self.drain(&gateway).await {
            // Others want to be answered too.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self
    }

    /// Whether the last that it was given of each item is what is there, and it was given nothing that was never there.
    fn check(&self, items: &Items) {
        for (id, version) in items {
            let last = self.last.get(id);
            assert!(
                version.is_none() || last == version.as_ref(),
                "{id} is {version:?}, and not {last:?}"
            );
        }
        let mut given = self.last.keys();
        assert!(given.all(|id| items.contains_key(id)), "{self:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let start = |lag: &str| Program::durable(folder.path(), &["--lag", lag]);
    let mut program = start("0ms");
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}});
    assert_eq!(program.gateways()[0].create(definition).await.status, 201);
    let mut writers: Vec<Writer> = Vec::new();
    let mut readers = vec![Reader::default(), Reader::default()];
    for round in 0..ROUNDS {
        program.kill();
        program = start(LAG);
        let gateways = program.gateways();
        let count = Arc::new(AtomicU64::new(0));
        let write = |number: usize| {
            let region = number % gateways.len();
            let writer = Writer::new(region, format!("{round}-{number}"));
            let (raw, count) = (gateways[region].clone(), Arc::clone(&count));
            tokio::spawn(writer.write(raw, number as u64, count))
        };
        let writing: Vec<_> = (0..WRITERS).map(write).collect();
        let follow =
            |(reader, gateway): (Reader, &Raw)| tokio::spawn(reader.follow(gateway.clone()));
        let reading: Vec<_> = readers.drain(..).zip(&gateways).map(follow).collect();
        let (there, of_first) = (gateways[1].container("c"), key(format!("{round}-0")));
        eventually(
            "there are enough writes, and some have reached the other region",
            async || {
                let list = there.send("GET", "docs", &of_first, &[], None).await;
                count.load(Ordering::Relaxed) > WRITES && !list.documents().is_empty()
            },
        )
        .await;
        program.kill();
        let before = writers.len();
        for writer in writing {
            writers.push(writer.await.unwrap());
        }
        for reader in reading {
            readers.push(reader.await.unwrap());
        }

        // Nothing that was lost can come back from the other region.
        program = start(NEVER);
        let gateways = program.gateways();
        for writer in &mut writers {
            writer.check(&gateways[writer.region]).await;
        }
        let mut is_behind = false;
        for writer in &writers[before..] {
            is_behind |= writer.shown(&gateways[1 - writer.region]).await != writer.acknowledged;
        }
        assert!(is_behind, "what was written last is still to be carried");
        for (reader, gateway) in readers.iter_mut().zip(&gateways) {
            assert!(reader.drain(gateway).await);
        }
        program.kill();

        program = start("0ms");
        let gateways = program.gateways();
        for writer in &writers {
            for gateway in &gateways {
                eventually("replication goes on", async || {
                    writer.shown(gateway).await == writer.acknowledged
                })
                .await;
            }
        }
        let acknowledged = writers.iter().flat_map(|it| it.acknowledged.clone());
        let all: Items = acknowledged.collect();
        for (reader, gateway) in readers.iter_mut().zip(&gateways) {
            assert!(reader.drain(gateway).await);
            reader.check(&all);
        }
    }
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
