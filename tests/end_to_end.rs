//! The main job, from the outside: three regions, real clients, nothing lost and nothing twice.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Console, Up, eventually};

const EVENTS: usize = 200;
const DEVICES: usize = 7;

/// Device and value of the n-th event; values neither rise nor fall, so that the maximum is no accident.
fn event(n: usize) -> Value {
    json!({"id": format!("e-{n:03}"), "deviceId": format!("device-{}", n % DEVICES), "value": (n * 37) % 101})
}

async fn get(url: &str) -> (StatusCode, Value) {
    let answer = reqwest::get(url).await.expect("the host answers");
    let status = answer.status();
    (status, answer.json().await.expect("the answer is JSON"))
}

/// All pages of `changes` after a token, and the last token.
async fn changes(functions: &str, mut continuation: String) -> (Vec<Value>, String) {
    let mut events = Vec::new();
    loop {
        let url = reqwest::Url::parse_with_params(
            &format!("{functions}/api/changes"),
            [("continuation", continuation.as_str())],
        )
        .expect("a URL");
        let (status, page) = get(url.as_str()).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        events.extend(page["events"].as_array().expect("events").iter().cloned());
        continuation = page["continuation"].as_str().expect("a token").to_owned();
        if !page["hasMore"].as_bool().expect("hasMore") {
            return (events, continuation);
        }
    }
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events
        .iter()
        .map(|event| event["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_region_reach_every_browser_once_and_every_reader() {
    let up = Up::start(&["--lag", "5ms"]);
    let regions = up.regions().len();
    assert_eq!(regions, 3);
    let consoles: Vec<_> = (0..regions)
        .map(|region| Console::connect(up.functions(region)))
        .collect();
    let mut tokens = Vec::new();
    for region in 0..regions {
        let (events, token) = changes(up.functions(region), "now".to_owned()).await;
        assert!(
            events.is_empty(),
            "a new system has no events, not even its own probes: {events:?}"
        );
        tokens.push(token);
    }

    let client = reqwest::Client::new();
    for n in 0..EVENTS {
        let answer = client
            .post(format!("{}/api/WriteEvent", up.functions(0)))
            .json(&event(n))
            .send()
            .await
            .expect("the host answers");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let stored: Value = answer.json().await.expect("the stored event");
        assert_eq!(stored["region"], up.regions()[0]);
    }
    let written: BTreeSet<String> = (0..EVENTS).map(|n| format!("e-{n:03}")).collect();

    for console in &consoles {
        let pushed = console.ids(EVENTS);
        assert_eq!(
            pushed.iter().cloned().collect::<BTreeSet<_>>(),
            written,
            "each event, exactly once"
        );
    }

    let mut maxima: BTreeMap<String, i64> = BTreeMap::new();
    for event in (0..EVENTS).map(event) {
        let value = event["value"].as_i64().expect("an integer");
        let device = event["deviceId"].as_str().expect("a device").to_owned();
        let maximum = maxima.entry(device).or_insert(value);
        *maximum = value.max(*maximum);
    }
    for region in 0..regions {
        for (device, maximum) in &maxima {
            let url = format!("{}/api/ReadAPI/{device}", up.functions(region));
            let shown = eventually_async("the maximum is readable in every region", async || {
                let (status, documents) = get(&url).await;
                let shown = documents
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|d| d["maxValue"].as_i64())
                    .max();
                (status == StatusCode::OK && shown == Some(*maximum)).then_some(())
            });
            shown
                .await
                .unwrap_or_else(|error| panic!("{error}: {device} in region {region}"));
        }
    }

    for (region, token) in tokens.into_iter().enumerate() {
        let (missed, _) = changes(up.functions(region), token).await;
        assert_eq!(missed.len(), EVENTS, "each event is in the feed once");
        assert_eq!(ids(&missed), written);
    }
    // What were pushed twice would come before what is written now.
    write(up.functions(0), "marker").await;
    for console in &consoles {
        assert_eq!(console.ids(1), ["marker"], "nothing is pushed twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_keeps_what_was_accepted() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("a path in UTF-8");
    let args = ["--regions", "West US,North Europe", "--data", folder];
    let up = Up::start(&args);
    let (_, token) = changes(up.functions(1), "now".to_owned()).await;
    write(up.functions(0), "before").await;
    // Killed, not stopped: an answer of 201 has to be enough.
    up.kill();

    let up = Up::start(&args);
    write(up.functions(0), "after").await;
    let both = BTreeSet::from(["before".to_owned(), "after".to_owned()]);
    eventually_async(
        "the other region has both events behind the old token",
        async || {
            let (events, _) = changes(up.functions(1), token.clone()).await;
            assert!(ids(&events).is_subset(&both), "nothing else: {events:?}");
            (ids(&events) == both).then_some(())
        },
    )
    .await
    .expect("they arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_only_gives_what_func_start_needs() {
    let up = Up::start(&["--regions", "West US", "--services-only"]);
    assert!(up.ready["regions"][0].get("functions").is_none());
    assert!(up.children().is_empty(), "no handler");
    let settings = &up.ready["settings"];
    let connection = settings["CosmosDBConnection"]
        .as_str()
        .expect("a connection string");
    let cosmos = geo_events::cosmos::connect(connection, &["West US".to_owned()])
        .await
        .expect("the account answers");
    for (container, _) in geo_events::provision::CONTAINERS {
        cosmos
            .container(geo_events::names::DATABASE, container)
            .await
            .expect("the containers are there");
    }
    let signalr = settings["AzureSignalRConnectionString"]
        .as_str()
        .expect("a connection string");
    let endpoint = signalr
        .split(';')
        .find_map(|part| part.strip_prefix("Endpoint="))
        .expect("an endpoint");
    let health = reqwest::get(format!("{endpoint}/api/health"))
        .await
        .expect("SignalR answers");
    assert_eq!(health.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smoke_test_passes_here_and_says_what_is_broken() {
    let up = Up::start(&["--regions", "West US,North Europe"]);
    let smoke = |urls: &[&str], patience: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_geo-events"));
        command.args(["smoke", "--patience", patience]);
        for url in urls {
            command.args(["--url", url]);
        }
        let output = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let both = [up.functions(0), up.functions(1)];
    let (passed, out, err) = smoke(&both, "60");
    assert!(passed, "{out}{err}");
    assert_eq!(out.matches(": push (").count(), 2, "{out}");

    let answer = reqwest::Client::new()
        .put(up.control("links/West US/North Europe"))
        .json(&json!({"state": "cut"}))
        .send()
        .await
        .expect("the control API answers");
    assert_eq!(answer.status(), StatusCode::OK);
    let (passed, _, err) = smoke(&both, "2");
    assert!(!passed);
    assert!(
        err.contains(&format!("{}: push: not within 2 s", up.functions(1))),
        "{err}"
    );

    let (passed, _, err) = smoke(&[&up.control("nothing")], "2");
    assert!(!passed);
    assert!(err.contains("health: answered 404"), "{err}");
}

async fn write(functions: &str, id: &str) {
    let answer = reqwest::Client::new()
        .post(format!("{functions}/api/WriteEvent"))
        .json(&json!({"id": id, "deviceId": "device-1", "value": 1}))
        .send()
        .await
        .expect("the host answers");
    assert_eq!(
        answer.status(),
        StatusCode::CREATED,
        "every region accepts writes at any time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_region_goes_on_alone_and_catches_up_when_healed() {
    let up = Up::start(&["--regions", "West US,North Europe"]);
    let (west, north) = (up.functions(0).to_owned(), up.functions(1).to_owned());
    let client = reqwest::Client::new();
    let cut = async |state: &str| {
        for (from, to) in [("West US", "North Europe"), ("North Europe", "West US")] {
            let answer = client
                .put(up.control(&format!("links/{from}/{to}")))
                .json(&json!({ "state": state }))
                .send()
                .await
                .expect("the control API answers");
            assert_eq!(answer.status(), StatusCode::OK);
        }
    };

    let (_, token) = changes(&north, "now".to_owned()).await;
    cut("cut").await;
    write(&west, "from-west").await;
    write(&north, "from-north").await;
    let (alone, later) = changes(&north, token.clone()).await;
    assert_eq!(
        ids(&alone),
        BTreeSet::from(["from-north".to_owned()]),
        "nothing crosses a cut link"
    );

    cut("open").await;
    eventually_async(
        "the late event is in the feed behind the old token",
        async || {
            let (events, _) = changes(&north, later.clone()).await;
            (ids(&events) == BTreeSet::from(["from-west".to_owned()])).then_some(())
        },
    )
    .await
    .expect("it arrives");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_a_killed_up() {
    let up = Up::start(&["--regions", "West US"]);
    let functions = up.functions(0).to_owned();
    let handlers = up.children();
    assert!(!handlers.is_empty(), "the handler is a process of its own");
    up.kill();
    eventually("the handlers are gone", || {
        handlers.iter().all(|id| !is_running(*id)).then_some(())
    })
    .expect("they end");
    assert!(
        reqwest::get(&functions).await.is_err(),
        "nobody listens any more"
    );
}

#[cfg(unix)]
fn is_running(id: u32) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &id.to_string()])
        .output()
        .expect("ps runs");
    let state = String::from_utf8_lossy(&output.stdout);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

/// [`eventually`] for conditions that are asked over HTTP.
async fn eventually_async(
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<()>,
) -> Result<(), String> {
    let deadline = std::time::Instant::now() + support::DEADLINE;
    while std::time::Instant::now() < deadline {
        if condition().await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err(format!("did not come true: {what}"))
}
