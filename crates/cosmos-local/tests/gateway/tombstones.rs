//! Deletes are remembered as long as an older version may arrive, and no longer.

use std::time::Duration;

use cosmos_local::{Account, CosmosLocal, LinkState};
use serde_json::{Value, json};

use crate::support::{Answer, Container, REGIONS, builder, eventually, gateways, key, set_links};

fn definition(name: &str) -> Value {
    json!({"id": name, "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}, "defaultTtl": -1})
}

fn often(regions: usize) -> CosmosLocal {
    builder(regions).upkeep_interval(Duration::from_millis(5))
}

async fn put(items: &Container, item: Value) {
    let answer = items.upsert(&key("t"), &item).await;
    assert!(answer.status < 300, "{answer:?}");
}

fn remembered(account: &Account, container: &str) -> Vec<u64> {
    let regions = account.regions().into_iter();
    regions
        .map(|region| {
            account
                .tombstone_count(&region.name, "db", container)
                .unwrap()
        })
        .collect()
}

async fn forgotten(account: &Account, container: &str) {
    eventually("deletes are forgotten", async || {
        remembered(account, container)
            .iter()
            .all(|count| *count == 0)
    })
    .await;
}

async fn versions(items: &Container, after: &str) -> Answer {
    let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", after)];
    items.send("GET", "docs", "", &headers, None).await
}

#[tokio::test]
async fn a_delete_stays_while_a_link_is_cut_and_goes_when_all_has_arrived() {
    let account = often(3).start().await.unwrap();
    let raw = gateways(&account);
    for name in ["c", "clock"] {
        assert_eq!(raw[0].create(definition(name)).await.status, 201);
    }
    let items: Vec<Container> = raw.iter().map(|raw| raw.container("c")).collect();
    put(&items[0], json!({"id": "x", "k": "t", "v": 1})).await;
    eventually("it arrives", async || {
        items[2].read(&key("t"), "x").await.status == 200
    })
    .await;
    // The second region hears of the delete; what the third writes, nobody hears.
    account
        .set_link(REGIONS[2], REGIONS[0], LinkState::Cut, None)
        .unwrap();
    account
        .set_link(REGIONS[2], REGIONS[1], LinkState::Cut, None)
        .unwrap();
    put(&items[2], json!({"id": "x", "k": "t", "v": 2})).await;
    let from_now = versions(&items[0], "*").await.header("etag").to_owned();
    assert_eq!(items[0].delete(&key("t"), "x").await.status, 204);
    eventually("all have the delete", async || {
        remembered(&account, "c") == [1, 1, 1]
    })
    .await;
    // When this has expired, the upkeep was there.
    let clock = raw[0].container("clock");
    let started = versions(&clock, "*").await.header("etag").to_owned();
    put(&clock, json!({"id": "tick", "k": "t", "ttl": 1})).await;
    eventually("it expires", async || {
        let page = versions(&clock, &started).await;
        let mut rows = page.documents().iter();
        rows.any(|row| row["metadata"]["timeToLiveExpired"] == true)
    })
    .await;
    assert_eq!(remembered(&account, "c"), [1, 1, 1]);

    set_links(&account, LinkState::Open);
    forgotten(&account, "c").await;
    forgotten(&account, "clock").await;
    for items in &items {
        assert_eq!(items.read(&key("t"), "x").await.status, 404);
        assert_eq!(items.changes(None, &[]).await.status, 304);
    }
    // Whoever follows all versions and deletes still learns of it.
    let page = versions(&items[0], &from_now).await;
    let kinds: Vec<&Value> = page
        .documents()
        .iter()
        .map(|row| &row["metadata"]["operationType"])
        .collect();
    assert_eq!(kinds, ["delete"]);
    let item = json!({"id": "x", "k": "t", "v": 3});
    assert_eq!(items[1].create(&key("t"), &item).await.status, 201);
    eventually("it arrives", async || {
        items[2].read(&key("t"), "x").await.body["v"] == 3
    })
    .await;
    account.shutdown().await;
}

#[tokio::test]
async fn a_conflict_about_a_delete_is_kept_for_its_users() {
    let account = often(2).start().await.unwrap();
    let raw = gateways(&account);
    for (name, mode) in [("c", "Custom"), ("lww", "LastWriterWins")] {
        let mut definition = definition(name);
        definition["conflictResolutionPolicy"] = json!({"mode": mode});
        assert_eq!(raw[0].create(definition).await.status, 201);
        let items = raw.iter().map(|raw| raw.container(name));
        let items: Vec<Container> = items.collect();
        put(&items[0], json!({"id": "x", "k": "t"})).await;
        eventually("it arrives", async || {
            items[1].read(&key("t"), "x").await.status == 200
        })
        .await;
        set_links(&account, LinkState::Cut);
        items[0].delete(&key("t"), "x").await;
        put(&items[1], json!({"id": "x", "k": "t", "v": 2})).await;
        set_links(&account, LinkState::Open);
    }
    // Here the loser has vanished, and so does the delete.
    forgotten(&account, "lww").await;
    let items = raw[1].container("c");
    let list = items.send("GET", "conflicts", "", &[], None).await;
    let conflict = &list.body["Conflicts"][0];
    assert_eq!(remembered(&account, "c"), [1, 1], "{conflict}");
    let path = format!("conflicts/{}", conflict["id"].as_str().unwrap());
    let dismissed = items.send("DELETE", &path, &key("t"), &[], None).await;
    assert_eq!(dismissed.status, 204, "{dismissed:?}");
    forgotten(&account, "c").await;
    account.shutdown().await;
}

#[tokio::test]
async fn what_was_forgotten_is_not_on_disk_either() {
    let folder = tempfile::tempdir().unwrap();
    let start = || often(2).data_dir(Some(folder.path().to_owned())).start();
    let account = start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition("c")).await;
    let items = raw[0].container("c");
    let before = versions(&items, "*").await.header("etag").to_owned();
    for n in 0..20 {
        let id = n.to_string();
        put(&items, json!({"id": id, "k": "t"})).await;
        items.delete(&key("t"), &id).await;
    }
    forgotten(&account, "c").await;
    put(&items, json!({"id": "7", "k": "t"})).await;
    account.shutdown().await;

    let account = start().await.unwrap();
    assert_eq!(remembered(&account, "c"), [0, 0]);
    for raw in gateways(&account) {
        let items = raw.container("c");
        eventually("what is there arrives", async || {
            items.changes(None, &[]).await.ids() == ["7"]
        })
        .await;
        let late = versions(&items, &before).await;
        assert_eq!(late.status, 400, "versions are not kept over a restart");
    }
    account.shutdown().await;
}
