//! The change feed processor against a local account, through the official SDK on both sides.
#![allow(clippy::unwrap_used)]

mod cosmos_common;

use std::collections::BTreeSet;
use std::time::Duration;

use cosmos_common::{DATABASE, Sink, World, until};
use functions_host::binding::{BindingError, FeedStart};
use serde_json::{Value, json};

/// Long enough that nothing expires during a test.
const NEVER: Duration = Duration::from_secs(3600);

fn set(ids: &[String]) -> BTreeSet<&str> {
    ids.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_with_different_prefixes_each_see_every_change() {
    let world = World::new().await;
    let (one, two) = (Sink::default(), Sink::default());
    let first = world.listen(world.trigger("one"), None, &one).ready().await;
    let second = world.listen(world.trigger("two"), None, &two).ready().await;
    let ids: Vec<String> = (0..25).map(|i| format!("e{i}")).collect();
    for id in &ids {
        world.write(id).await;
    }
    for sink in [&one, &two] {
        for id in &ids {
            sink.has(id).await;
        }
        // In a calm world nothing comes twice.
        assert_eq!(sink.ids().len(), ids.len());
        let document = &sink.batches()[0][0];
        assert_eq!(document["value"], 41.5);
        for member in ["_lsn", "_ts", "_etag", "_rid"] {
            assert!(document.get(member).is_some(), "{member} in {document}");
        }
    }
    first.stop().await;
    second.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_prefix_share_the_changes_and_take_over_from_the_dead() {
    let world = World::new().await;
    let (one, two) = (Sink::default(), Sink::default());
    let first = world
        .listen(world.trigger("shared"), None, &one)
        .ready()
        .await
        .holding()
        .await;
    let second = world
        .listen(world.trigger("shared"), None, &two)
        .ready()
        .await;
    world.write("before").await;
    one.has("before").await;
    // The position is written after the delivery; wait for it, or it would come again.
    until("the checkpoint is written", async || {
        first.board.status().leases[0].checkpointed_at.is_some()
    })
    .await;
    assert_eq!(two.ids(), Vec::<String>::new());

    first.kill().await;
    world.write("after").await;
    two.has("after").await;
    assert_eq!(set(&one.ids()), BTreeSet::from(["before"]));
    assert_eq!(set(&two.ids()), BTreeSet::from(["after"]));
    second.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_not_finished_comes_again_and_a_finished_one_does_not() {
    let world = World::new().await;
    let stopping = Sink::that_is_stopping();
    let first = world
        .listen(world.trigger("p"), None, &stopping)
        .ready()
        .await;
    world.write("a").await;
    stopping.has("a").await;
    first.stop().await;

    let sink = Sink::default();
    let second = world.listen(world.trigger("p"), None, &sink).ready().await;
    sink.has("a").await;
    second.stop().await;

    let later = Sink::default();
    let third = world.listen(world.trigger("p"), None, &later).ready().await;
    world.write("b").await;
    later.has("b").await;
    assert_eq!(later.ids(), ["b"]);
    third.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_now_has_no_gap_even_if_the_host_is_killed_at_once() {
    let world = World::new().await;
    world.write("too early").await;
    let mut trigger = world.trigger("now");
    trigger.lease_expiration_interval = NEVER;
    let unlucky = Sink::that_is_stopping();
    let first = world
        .listen(trigger.clone(), Some("host/f"), &unlucky)
        .ready()
        .await;
    first.kill().await;
    world.write("in between").await;

    // The same name takes its leases back at once; nobody waits for the expiry.
    let sink = Sink::default();
    let second = world.listen(trigger, Some("host/f"), &sink).ready().await;
    sink.has("in between").await;
    assert_eq!(sink.ids(), ["in between"]);
    second.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_with_a_fixed_name_goes_on_where_it_was() {
    let world = World::new().await;
    let mut trigger = world.trigger("fixed");
    trigger.lease_expiration_interval = NEVER;
    let sink = Sink::default();
    let first = world
        .listen(trigger.clone(), Some("up/f"), &sink)
        .ready()
        .await
        .holding()
        .await;
    world.write("a").await;
    sink.has("a").await;
    until("the checkpoint is written", async || {
        first.board.status().leases[0].checkpointed_at.is_some()
    })
    .await;
    first.kill().await;
    world.write("b").await;
    let second = world.listen(trigger, Some("up/f"), &sink).ready().await;
    sink.has("b").await;
    assert_eq!(sink.ids(), ["a", "b"]);
    second.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_beginning_reads_what_was_there_in_bounded_batches() {
    let world = World::new().await;
    for i in 0..10 {
        world.write(&format!("e{i}")).await;
    }
    let mut trigger = world.trigger("beginning");
    trigger.start = FeedStart::Beginning;
    trigger.max_items = Some(4);
    let sink = Sink::default();
    let listener = world.listen(trigger, None, &sink).ready().await;
    sink.has("e9").await;
    let sizes: Vec<usize> = sink.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 10, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
    listener.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_written_as_documented_and_given_back_at_a_stop() {
    let world = World::new().await;
    let sink = Sink::default();
    let listener = world.listen(world.trigger("Shape-West US"), Some("me"), &sink);
    let listener = listener.ready().await.holding().await;
    world.write("a").await;
    sink.has("a").await;

    let leases = world.leases().await;
    assert_eq!(leases.len(), 1);
    let lease = &leases[0];
    let id = lease["id"].as_str().unwrap();
    assert!(id.starts_with("Shape-West US127.0.0.1_"), "{id}");
    assert!(id.ends_with("..-FF"), "{id}");
    assert_eq!(lease["Owner"], "me");
    assert_eq!(lease["LeaseToken"], "-FF");
    assert_eq!(
        lease["FeedRange"],
        json!({"Range": {"min": "", "max": "FF"}})
    );
    assert_eq!(lease["Mode"], "Incremental Feed");
    assert!(
        lease["ContinuationToken"]
            .as_str()
            .unwrap()
            .starts_with("c1.")
    );
    let base = id.strip_suffix("..-FF").unwrap();
    let ids: Vec<Value> = world
        .all("leases")
        .await
        .iter()
        .map(|d| d["id"].clone())
        .collect();
    assert!(ids.contains(&json!(format!("{base}.info"))), "{ids:?}");
    assert!(!ids.contains(&json!(format!("{base}.lock"))), "{ids:?}");

    let board = listener.board.clone();
    assert_eq!(board.status().leases[0].owner, "me");
    listener.stop().await;
    assert_eq!(world.leases().await[0]["Owner"], Value::Null);
    assert!(board.status().leases.is_empty());
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_shown_and_sat_out() {
    let world = World::new().await;
    let sink = Sink::default();
    let listener = world
        .listen(world.trigger("outage"), None, &sink)
        .ready()
        .await
        .holding()
        .await;
    world.write("before").await;
    sink.has("before").await;
    world
        .account
        .set_region_online("West US", false)
        .await
        .unwrap();
    until("the outage shows", async || {
        listener.board.status().trouble.is_some()
    })
    .await;
    world
        .account
        .set_region_online("West US", true)
        .await
        .unwrap();
    until("the account answers again", async || {
        let container = world.container("events").await;
        let item = json!({"id": "after"});
        Box::pin(container.upsert_item("after", "after", &item, None))
            .await
            .is_ok()
    })
    .await;
    sink.has("after").await;
    until("the trouble is over", async || {
        listener.board.status().trouble.is_none()
    })
    .await;
    listener.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_goes_and_comes_back_loses_nothing() {
    let world = World::with_regions(&["West US", "North Europe"]).await;
    let sink = Sink::default();
    let listener = world
        .listen(world.trigger("west"), None, &sink)
        .ready()
        .await
        .holding()
        .await;
    // The world writes in North Europe, the listener reads in West US.
    let mut written = Vec::new();
    for phase in ["before", "during", "after"] {
        match phase {
            "during" => world
                .account
                .set_region_online("West US", false)
                .await
                .unwrap(),
            "after" => world
                .account
                .set_region_online("West US", true)
                .await
                .unwrap(),
            _ => {}
        }
        for i in 0..10 {
            let id = format!("{phase}-{i}");
            world.write(&id).await;
            written.push(id);
        }
        if phase == "before" {
            sink.has("before-9").await;
        }
    }
    for id in &written {
        sink.has(id).await;
    }
    assert_eq!(set(&sink.ids()), set(&written));
    listener.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_the_start_leaves_no_lock_behind() {
    let world = World::new().await;
    let sink = Sink::default();
    for _ in 0..5 {
        world
            .listen(world.trigger("early"), None, &sink)
            .stop()
            .await;
    }
    let ids: Vec<Value> = world
        .all("leases")
        .await
        .iter()
        .map(|d| d["id"].clone())
        .collect();
    assert!(
        !ids.iter().any(|id| id.as_str().unwrap().ends_with(".lock")),
        "{ids:?}"
    );
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_container_is_created_only_when_asked_for() {
    let world = World::without_containers(&["West US"]).await;
    let sink = Sink::default();
    let error = world
        .listen(world.trigger("c"), None, &sink)
        .outcome()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("container events of database db does not exist"),
        "{error}"
    );

    world.create_container("events", "/id").await;
    let error = world
        .listen(world.trigger("c"), None, &sink)
        .outcome()
        .await
        .unwrap_err();
    assert!(matches!(error, BindingError::Configuration(_)));
    assert!(
        error
            .to_string()
            .contains("createLeaseContainerIfNotExists"),
        "{error}"
    );

    let mut trigger = world.trigger("c");
    trigger.create_lease_container = true;
    let listener = world.listen(trigger, None, &sink).ready().await;
    world.write("a").await;
    sink.has("a").await;
    listener.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_cannot_work_are_refused_by_name() {
    let world = World::new().await;
    world.create_container("by-device", "/deviceId").await;
    let sink = Sink::default();
    type Change = fn(&mut functions_host::binding::CosmosTrigger);
    let cases: [(Change, &str); 3] = [
        (
            |t| t.lease_container = "events".into(),
            "are the same (db/events)",
        ),
        (
            |t| t.lease_container = "by-device".into(),
            "partition key /deviceId; leases need /id",
        ),
        (|t| t.connection = "Nowhere".into(), "`Nowhere` is missing"),
    ];
    for (change, expected) in cases {
        let mut trigger = world.trigger("bad");
        change(&mut trigger);
        let error = world
            .listen(trigger, None, &sink)
            .outcome()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_another_kind_of_host_are_left_alone() {
    let world = World::new().await;
    let sink = Sink::default();
    world
        .listen(world.trigger("net"), None, &sink)
        .ready()
        .await
        .stop()
        .await;
    // Turn our lease into one of the .NET host.
    let mut lease = world.leases().await.remove(0);
    lease["ContinuationToken"] = json!("\"128\"");
    let id = lease["id"].as_str().unwrap().to_owned();
    world.put("leases", &id, lease).await;

    let error = world
        .listen(world.trigger("net"), None, &sink)
        .outcome()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("another kind of Functions host"),
        "{error}"
    );
    assert!(
        error.to_string().contains("leaseContainerPrefix"),
        "{error}"
    );
    assert_eq!(world.leases().await[0]["ContinuationToken"], "\"128\"");
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_start_together_create_the_leases_once() {
    let world = World::new().await;
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::default()).collect();
    let starting = sinks
        .iter()
        .map(|sink| world.listen(world.trigger("race"), None, sink).ready());
    let listeners = futures::future::join_all(starting).await;
    world.write("a").await;
    until("somebody gets it", async || {
        sinks.iter().any(|sink| !sink.ids().is_empty())
    })
    .await;
    assert_eq!(world.leases().await.len(), 1);
    for listener in listeners {
        listener.stop().await;
    }
    let total: usize = sinks.iter().map(|sink| sink.ids().len()).sum();
    assert_eq!(total, 1);
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_lock_that_was_left_behind_delays_but_does_not_block() {
    let world = World::new().await;
    let sink = Sink::default();
    world
        .listen(world.trigger("lock"), None, &sink)
        .ready()
        .await
        .stop()
        .await;
    let info = world.all("leases").await;
    let info = info
        .iter()
        .find(|d| d["id"].as_str().unwrap().ends_with(".info"))
        .unwrap();
    let id = info["id"].as_str().unwrap();
    let lock = id.replace(".info", ".lock");
    world
        .put("leases", &lock, json!({"id": lock, "ttl": 30}))
        .await;
    let container = world.container("leases").await;
    Box::pin(container.delete_item(id.to_owned(), id, None))
        .await
        .unwrap();

    let listener = world
        .listen(world.trigger("lock"), None, &sink)
        .ready()
        .await;
    world.write("a").await;
    sink.has("a").await;
    listener.stop().await;
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_leases_end_the_listener_so_that_it_can_be_started_again() {
    let world = World::new().await;
    let sink = Sink::default();
    let listener = world
        .listen(world.trigger("gone"), None, &sink)
        .ready()
        .await
        .holding()
        .await;
    let container = world.container("leases").await;
    for document in world.all("leases").await {
        let id = document["id"].as_str().unwrap();
        Box::pin(container.delete_item(id.to_owned(), id, None))
            .await
            .unwrap();
    }
    let error = listener.outcome().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("leases of this trigger have disappeared"),
        "{error}"
    );
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_split_and_merge_lose_and_repeat_nothing() {
    let world = World::new().await;
    let sink = Sink::default();
    let partitions = || world.account.partitions(DATABASE, "events").unwrap();
    let mut running = world.listen(world.trigger("p"), None, &sink).ready().await;
    let mut written = Vec::new();
    for round in 0..6 {
        for half in ["before", "after"] {
            for number in 0..4 {
                let id = format!("{round}-{half}-{number}");
                world.write(&id).await;
                written.push(id);
            }
            let known = partitions();
            if half == "after" {
                continue;
            }
            if round < 4 {
                let split = &known[round % known.len()];
                world
                    .account
                    .split_partition(DATABASE, "events", split)
                    .unwrap();
            } else {
                let account = &world.account;
                account
                    .merge_partitions(DATABASE, "events", [&known[0], &known[1]])
                    .unwrap();
            }
        }
        for id in &written {
            sink.has(id).await;
        }
        if round == 2 {
            // One that starts later reads on over the ranges of that time.
            running.stop().await;
            running = world.listen(world.trigger("p"), None, &sink).ready().await;
        }
    }
    assert_eq!(partitions().len(), 3);
    let delivered = sink.ids();
    assert_eq!(set(&delivered), set(&written));
    assert_eq!(delivered.len(), written.len(), "nothing comes twice");
    running.stop().await;
    world.account.shutdown().await;
}
