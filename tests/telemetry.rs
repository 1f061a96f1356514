//! What a collector is told, by `up` and by the handlers that it starts. The collector decodes with OpenTelemetry's own
//! Python package.
#![cfg(all(feature = "local", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeSet,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Receiver,
    time::Instant,
};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use support::{Console, DEADLINE, Up, lines_of, python_program};

/// The trace that the device is in.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const DEVICE_SPAN: &str = "00f067aa0ba902b7";

struct Collector {
    process: Child,
    _stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<Value>,
    endpoint: String,
}

impl Collector {
    fn start() -> Self {
        let (python, program) = python_program("collector", "collect.py");
        let mut process = Command::new(python)
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(&mut process);
        let first: Value = serde_json::from_str(&lines.recv_timeout(DEADLINE).unwrap()).unwrap();
        Self {
            _stdin: process.stdin.take().unwrap(),
            process,
            lines,
            seen: Vec::new(),
            endpoint: format!("http://127.0.0.1:{}", first["port"]),
        }
    }

    /// Waits until what was told so far satisfies a condition.
    fn until<T>(&mut self, what: &str, condition: impl Fn(&[Value]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = condition(&self.seen) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(serde_json::from_str(&line).unwrap()),
                Err(_) => panic!("the collector was not told {what}: {:#?}", self.seen),
            }
        }
    }

    /// Waits for a metric that satisfies a condition.
    fn metric(&mut self, name: &str, condition: impl Fn(&Value) -> bool) {
        self.until(name, |seen| {
            seen.iter()
                .any(|line| line["metric"] == name && condition(line))
                .then_some(())
        });
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn one_event_is_one_trace_from_the_device_to_every_region() {
    let mut collector = Collector::start();
    let up = Up::start_with(
        &["--regions", "West US,North Europe"],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ],
    );
    let console = Console::connect(up.functions(1));
    let event = json!({"id": "e-1", "deviceId": "dev-7", "value": 41});
    let answer = Client::new()
        .post(format!("{}/api/WriteEvent", up.functions(0)))
        .header("traceparent", format!("00-{TRACE}-{DEVICE_SPAN}-01"))
        .json(&event)
        .send()
        .unwrap();
    assert_eq!(answer.status(), 201);
    let stored: Value = answer.json().unwrap();
    let pushed = console.next(DEADLINE).unwrap()["event"].clone();

    // From the device to the host, to the handler, and on with the event to both feeds of both regions.
    let of_trace = |seen: &[Value]| -> Vec<Value> {
        seen.iter()
            .filter(|line| line["trace"] == TRACE)
            .cloned()
            .collect()
    };
    let regions_of = |spans: &[Value], name: &str| -> BTreeSet<String> {
        spans
            .iter()
            .filter(|span| span["span"] == name)
            .map(|span| {
                span["resource"]["cloud.region"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let everywhere = BTreeSet::from(["North Europe".to_owned(), "West US".to_owned()]);
    let here = BTreeSet::from(["West US".to_owned()]);
    let spans = collector.until("the whole trace", |seen| {
        let spans = of_trace(seen);
        (regions_of(&spans, "push event") == everywhere
            && regions_of(&spans, "materialize event") == here
            && spans
                .iter()
                .any(|span| span["span"] == "attempt WriteEvent"))
        .then_some(spans)
    });
    let one = |name: &str| {
        let mut found = spans.iter().filter(|span| span["span"] == name);
        let span = found
            .next()
            .unwrap_or_else(|| panic!("no span {name} in {spans:#?}"));
        assert!(found.next().is_none(), "several spans {name} in {spans:#?}");
        span
    };
    let attempt = one("attempt WriteEvent");
    assert_eq!(attempt["parent"], DEVICE_SPAN);
    assert_eq!(attempt["kind"], "server");
    assert_eq!(attempt["resource"]["service.name"], "geo-events-up");
    let write = one("WriteEvent");
    assert_eq!(write["parent"], attempt["id"]);
    assert_eq!(write["resource"]["service.name"], "geo-events");
    assert_eq!(write["attributes"]["geo_events.events"], 1);
    let output = one("output events");
    assert_eq!(output["parent"], attempt["id"]);
    assert_eq!(output["kind"], "client");
    let written = format!("00-{TRACE}-{}-01", write["id"].as_str().unwrap());
    assert_eq!(stored["traceparent"], written);
    for span in spans
        .iter()
        .filter(|span| span["span"] == "push event" || span["span"] == "materialize event")
    {
        assert_eq!(span["parent"], write["id"]);
        assert_eq!(span["kind"], "consumer");
        assert_eq!(span["attributes"]["geo_events.event.id"], "e-1");
        // The batch it came in is a trace of its own.
        let batch = span["links"][0].as_str().unwrap();
        assert_ne!(batch, TRACE);
    }
    let push = spans
        .iter()
        .find(|span| {
            span["span"] == "push event" && span["resource"]["cloud.region"] == "North Europe"
        })
        .unwrap();
    let followed = format!("00-{TRACE}-{}-01", push["id"].as_str().unwrap());
    assert_eq!(pushed["traceparent"], followed);
    // And the batch knows the writes that it is made of.
    collector.until("a batch that is linked to the write", |seen| {
        seen.iter()
            .any(|line| {
                line["span"] == "Notifications"
                    && line["links"].as_array().unwrap().contains(&json!(TRACE))
            })
            .then_some(())
    });

    let refused = Client::new()
        .post(format!("{}/api/WriteEvent", up.functions(0)))
        .json(&json!({"deviceId": "dev-7"}))
        .send()
        .unwrap();
    assert_eq!(refused.status(), 400);
    let in_region = |line: &Value, region: &str| line["attributes"]["cloud.region"] == region;
    collector.metric("geo_events.events.accepted", |line| {
        in_region(line, "West US") && line["value"] == 1
    });
    collector.metric("geo_events.writes.refused", |line| {
        line["attributes"]["http.response.status_code"] == 400 && line["value"] == 1
    });
    for region in ["West US", "North Europe"] {
        collector.metric("geo_events.events.pushed", |line| {
            in_region(line, region) && line["value"] == 1
        });
        collector.metric("geo_events.feed.lag", |line| {
            in_region(line, region) && line["unit"] == "s"
        });
        collector.metric("geo_events.cosmos.items", |line| {
            in_region(line, region)
                && line["attributes"]["container"] == "events"
                && line["value"] == 1
        });
    }
    collector.metric("geo_events.documents.materialized", |line| {
        in_region(line, "West US") && line["value"] == 1
    });
    collector.metric("faas.invoke_duration", |line| {
        line["attributes"]["faas.invoked_name"] == "Materialized"
    });
    collector.metric("geo_events.signalr.connections", |line| {
        in_region(line, "North Europe") && line["value"] == 1
    });
    collector.metric("geo_events.replication.pending", |line| {
        line["attributes"]["from"] == "West US" && line["value"] == 0
    });
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let up = Up::start_with(
        &["--regions", "West US"],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ],
    );
    let console = Console::connect(up.functions(0));
    let answer = Client::new()
        .post(format!("{}/api/WriteEvent", up.functions(0)))
        .json(&json!({"id": "e-1", "deviceId": "dev-7", "value": 41}))
        .send()
        .unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(console.next(DEADLINE).unwrap()["event"]["id"], "e-1");
}

#[test]
fn nothing_is_traced_when_nobody_listens() {
    let up = Up::start(&["--regions", "West US"]);
    let stored: Value = Client::new()
        .post(format!("{}/api/WriteEvent", up.functions(0)))
        .header("traceparent", format!("00-{TRACE}-{DEVICE_SPAN}-01"))
        .json(&json!({"deviceId": "dev-7", "value": 41}))
        .send()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(stored.get("traceparent"), None);
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_geo-events"))
        .args(["up", "--ports", "auto", "--services-only"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("OTEL_EXPORTER_OTLP_PROTOCOL cannot be `grpc`"),
        "{error}"
    );
}
