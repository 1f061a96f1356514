//! Regions that come and go while the account runs.

use std::{net::TcpListener, time::Duration};

use cosmos_local::{
    Account, Availability, ControlError, CosmosLocal, LinkState, RegionConfig, RegionError,
    WriteMode,
};
use serde_json::{Value, json};

use crate::support::{
    Container, REGIONS, Raw, builder, eventually, gateways, key, set_links, settled,
};

const NEW: &str = "Brazil South";

fn definition() -> Value {
    json!({
        "id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2},
        "conflictResolutionPolicy": {"mode": "Custom"},
    })
}

async fn put(items: &Container, id: &str, value: u64) -> u16 {
    let item = json!({"id": id, "k": "t", "v": value});
    items.upsert(&key("t"), &item).await.status
}

fn of(account: &Account, name: &str) -> Container {
    let regions = account.regions();
    let region = regions.iter().find(|region| region.name == name).unwrap();
    Raw::new(&region.endpoint).container("c")
}

/// Names of the readable and the writable regions, as an account document has them.
async fn listed(account: &Account) -> [Vec<String>; 2] {
    let global = Raw::new(&account.endpoint());
    let body = global.send("GET", "", &[], None).await.body;
    ["readableLocations", "writableLocations"].map(|list| {
        let list = body[list].as_array().unwrap().iter();
        list.map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    })
}

fn folder_builder(folder: &tempfile::TempDir, regions: &[&str]) -> CosmosLocal {
    let builder = CosmosLocal::builder().data_dir(Some(folder.path().to_owned()));
    regions.iter().fold(builder, |builder, name| {
        builder.region(RegionConfig::new(*name))
    })
}

#[tokio::test]
async fn a_new_region_has_items_deletes_conflicts_and_ranges() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    assert_eq!(raw[0].create(definition()).await.status, 201);
    let items: Vec<Container> = raw.iter().map(|raw| raw.container("c")).collect();
    put(&items[0], "conflict", 0).await;
    put(&items[0], "deleted", 0).await;
    settled(&account).await;
    set_links(&account, LinkState::Cut);
    put(&items[0], "conflict", 1).await;
    put(&items[1], "conflict", 2).await;
    items[0].delete(&key("t"), "deleted").await;
    put(&items[1], "deleted", 1).await;
    put(&items[1], "only here", 1).await;
    let range = account.partitions("db", "c").unwrap();
    account.split_partition("db", "c", &range[0]).unwrap();

    account.add_region(RegionConfig::new(NEW)).await.unwrap();
    let new = of(&account, NEW);
    assert_eq!(new.read(&key("t"), "only here").await.status, 200);
    assert_eq!(
        new.read(&key("t"), "deleted").await.status,
        404,
        "a delete wins against an update from elsewhere"
    );
    let conflicts = async |items: &Container| {
        let answer = items.send("GET", "conflicts", "", &[], None).await;
        answer.body["Conflicts"].clone()
    };
    let of_new = conflicts(&new).await;
    assert_eq!(of_new.as_array().unwrap().len(), 2, "{of_new}");
    let ranges = new.send("GET", "pkranges", "", &[], None).await;
    assert_eq!(ranges.body["_count"], 2);

    set_links(&account, LinkState::Open);
    settled(&account).await;
    for items in &items {
        assert_eq!(conflicts(items).await, of_new);
        for id in ["conflict", "deleted", "only here"] {
            let (here, there) = (
                items.read(&key("t"), id).await,
                new.read(&key("t"), id).await,
            );
            assert_eq!(
                (here.status, &here.body["_etag"], &here.body["v"]),
                (there.status, &there.body["_etag"], &there.body["v"])
            );
        }
    }
    account.shutdown().await;
}

/// Writes on both sides reach the other after a first region was joined by a second.
async fn both_sides_flow(account: &Account) {
    let items: Vec<Container> = gateways(account)
        .iter()
        .map(|raw| raw.container("c"))
        .collect();
    for value in 1..=3 {
        for (region, items) in items.iter().enumerate() {
            let id = format!("of {region} {value}");
            assert_eq!(put(items, &id, value).await, 201);
        }
    }
    settled(account).await;
    for items in &items {
        for (region, value) in [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3)] {
            let id = format!("of {region} {value}");
            assert_eq!(items.read(&key("t"), &id).await.status, 200, "{id}");
        }
        assert_eq!(items.read(&key("t"), "alone").await.status, 200);
    }
}

#[tokio::test]
async fn an_only_region_is_joined_by_another() {
    let account = builder(1).start().await.unwrap();
    let raw = gateways(&account);
    assert_eq!(raw[0].create(definition()).await.status, 201);
    assert_eq!(put(&raw[0].container("c"), "alone", 0).await, 201);
    account.add_region(RegionConfig::new(NEW)).await.unwrap();
    both_sides_flow(&account).await;
    account.shutdown().await;
}

#[tokio::test]
async fn the_only_region_of_a_folder_is_joined_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let account = folder_builder(&folder, &REGIONS[..1])
        .start()
        .await
        .unwrap();
    let raw = gateways(&account);
    assert_eq!(raw[0].create(definition()).await.status, 201);
    assert_eq!(put(&raw[0].container("c"), "alone", 0).await, 201);
    account.shutdown().await;

    let two = folder_builder(&folder, &[REGIONS[0], NEW]);
    let account = two.start().await.unwrap();
    both_sides_flow(&account).await;
    account.shutdown().await;

    let two = folder_builder(&folder, &[REGIONS[0], NEW]);
    let account = two.start().await.unwrap();
    let raw = gateways(&account);
    assert_eq!(put(&raw[0].container("c"), "after", 0).await, 201);
    settled(&account).await;
    let new = raw[1].container("c");
    assert_eq!(new.read(&key("t"), "after").await.status, 200);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_write_while_regions_come_and_go() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let items = raw[writer % 2].container("c");
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.is_cancelled() {
                    let status = put(&items, &format!("{writer}-{count}"), 1).await;
                    assert_eq!(status, 201);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..5 {
        let status = account.add_region(RegionConfig::new(NEW)).await.unwrap();
        let new = Raw::new(&status.endpoint).container("c");
        assert_eq!(put(&new, &format!("new-{round}"), 1).await, 201);
        account.remove_region(NEW).await.unwrap();
    }
    account.add_region(RegionConfig::new(NEW)).await.unwrap();
    stop.cancel();
    let mut total = 5;
    for writer in writers {
        total += writer.await.unwrap();
    }
    settled(&account).await;
    for region in account.regions() {
        let count = account.item_count(&region.name, "db", "c");
        assert_eq!(count, Some(total), "{}", region.name);
    }
    // Everything is in the new region's feed, and once.
    let new = of(&account, NEW);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = new.changes(after.as_deref(), &[]).await;
        if page.status == 304 {
            break;
        }
        seen.extend(page.ids().into_iter().map(str::to_owned));
        after = Some(page.header("etag").to_owned());
    }
    assert_eq!(seen.len() as u64, total);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len() as u64, total);
    account.shutdown().await;
}

#[tokio::test]
async fn clients_learn_of_it_when_it_is_there_and_no_more_when_it_is_gone() {
    for (mode, writable) in [
        (WriteMode::Multi, vec![REGIONS[0], REGIONS[1], NEW]),
        (WriteMode::Single, vec![REGIONS[0]]),
    ] {
        let lag = Duration::from_millis(7);
        let builder = builder(2).write_mode(mode).lag(lag);
        let account = builder.start().await.unwrap();
        let raw = gateways(&account);
        raw[0].create(definition()).await;
        let items = raw[0].container("c");
        put(&items, "a", 1).await;
        let version = async || {
            let read = items.read(&key("t"), "a").await;
            read.header("x-ms-session-token").to_owned()
        };
        assert!(version().await.starts_with("0:1#1#1=1#2=0"));
        let status = account.add_region(RegionConfig::new(NEW)).await.unwrap();
        assert_eq!((status.name.as_str(), status.online), (NEW, true));
        assert_eq!(status.writable, mode == WriteMode::Multi);
        assert_eq!(
            listed(&account).await,
            [vec![REGIONS[0], REGIONS[1], NEW], writable]
        );
        assert_eq!(version().await, "0:2#1#1=1#2=0#3=0");
        let links = account.links();
        assert_eq!(links.len(), 6);
        for link in links {
            assert_eq!((link.state, link.lag), (LinkState::Open, lag), "{link:?}");
        }

        let new = Raw::new(&status.endpoint);
        account.remove_region(NEW).await.unwrap();
        assert_eq!(listed(&account).await[0], REGIONS[..2]);
        assert_eq!(account.links().len(), 2);
        assert_eq!(version().await, "0:3#1#1=1#2=0");
        let refused = new.try_send("GET", "", &[], None).await.unwrap_err();
        assert!(refused.is_connect(), "{refused}");
        let unknown = account.remove_region(NEW).await;
        assert!(matches!(unknown, Err(ControlError::NoSuchRegion(_))));
        account.shutdown().await;
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_changes_nothing() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let add = async |name: &str, port| {
        let added = account.add_region(RegionConfig::new(name).port(port)).await;
        added.unwrap_err()
    };
    for same in ["North Europe", "northeurope"] {
        let error = add(same, 0).await;
        assert!(matches!(
            error,
            ControlError::Region(RegionError::Exists(_))
        ));
    }
    let error = add(" ", 0).await;
    assert!(matches!(error, ControlError::Region(RegionError::Nameless)));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = add(NEW, taken.local_addr().unwrap().port()).await;
    assert!(
        matches!(&error, ControlError::Listen { region, .. } if region == NEW),
        "{error}"
    );
    assert_eq!(listed(&account).await[0], REGIONS[..2]);

    // What the others do not get would be lost.
    set_links(&account, LinkState::Cut);
    let west = raw[0].container("c");
    put(&west, "a", 1).await;
    let refused = account.remove_region(REGIONS[0]).await.unwrap_err();
    let ControlError::Unreplicated {
        region,
        to,
        pending,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(
        (region.as_str(), to.as_str(), pending),
        (REGIONS[0], REGIONS[1], 1)
    );
    assert_eq!(put(&west, "b", 1).await, 201, "all is as before");
    assert_eq!(listed(&account).await[0], REGIONS[..2]);

    set_links(&account, LinkState::Open);
    let withdrawn = account.set_availability(REGIONS[1], Availability::Withdrawn);
    withdrawn.await.unwrap();
    let needed = account.remove_region(REGIONS[0]).await;
    assert!(matches!(needed, Err(ControlError::Needed(_))));
    account.remove_region(REGIONS[1]).await.unwrap();
    let last = account.remove_region(REGIONS[0]).await;
    assert!(matches!(last, Err(ControlError::Needed(_))));

    // 32 regions in its life: one is left of the two that it began with.
    for number in 2..32 {
        let name = format!("Region {number}");
        account.add_region(RegionConfig::new(&name)).await.unwrap();
        account.remove_region(&name).await.unwrap();
    }
    let error = add("one more", 0).await;
    assert!(matches!(error, ControlError::Region(RegionError::TooMany)));
    let back = account.add_region(RegionConfig::new(REGIONS[1])).await;
    assert_eq!(back.unwrap().name, REGIONS[1]);
    account.shutdown().await;

    let single = builder(2).write_mode(WriteMode::Single);
    let account = single.start().await.unwrap();
    let needed = account.remove_region(REGIONS[0]).await;
    assert!(
        matches!(needed, Err(ControlError::Needed(_))),
        "the write region"
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_removal() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let hour = Some(Duration::from_secs(3600));
    account
        .set_link(REGIONS[0], REGIONS[1], LinkState::Open, hour)
        .unwrap();
    put(&raw[0].container("c"), "a", 1).await;
    let removing = account.clone();
    let removal = tokio::spawn(async move { removing.remove_region(REGIONS[0]).await });
    eventually("it is taken out of the lists", async || {
        listed(&account).await[0] == REGIONS[1..2]
    })
    .await;
    let refused = put(&raw[0].container("c"), "b", 1).await;
    assert_eq!(refused, 403, "and takes no writes");
    account.shutdown().await;
    let unfinished = removal.await.unwrap();
    assert!(matches!(
        unfinished,
        Err(ControlError::Unreplicated { pending: 1, .. })
    ));
    let late = account.add_region(RegionConfig::new(NEW)).await;
    assert!(matches!(late, Err(ControlError::Stopping)), "{late:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_keeps_its_regions() {
    let folder = tempfile::tempdir().unwrap();
    let account = folder_builder(&folder, &REGIONS[..2])
        .start()
        .await
        .unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = raw[1].container("c");
    // Folders cannot be where files are.
    let in_the_way = folder.path().join("region-2");
    std::fs::write(&in_the_way, "").unwrap();
    let added = account.add_region(RegionConfig::new(NEW)).await;
    assert!(
        matches!(&added, Err(ControlError::Disk { path, .. }) if *path == in_the_way),
        "{added:?}"
    );
    std::fs::remove_file(in_the_way).unwrap();
    let in_the_way = folder.path().join("regions.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let added = account.add_region(RegionConfig::new(NEW)).await;
    assert!(matches!(added, Err(ControlError::Data { .. })), "{added:?}");
    let removed = account.remove_region(REGIONS[1]).await;
    assert!(
        matches!(removed, Err(ControlError::Data { .. })),
        "{removed:?}"
    );
    assert_eq!(listed(&account).await[0], REGIONS[..2]);
    assert_eq!(put(&items, "a", 1).await, 201);
    settled(&account).await;
    assert_eq!(account.item_count(REGIONS[0], "db", "c"), Some(1));
    std::fs::remove_dir(in_the_way).unwrap();
    account.add_region(RegionConfig::new(NEW)).await.unwrap();
    assert_eq!(of(&account, NEW).read(&key("t"), "a").await.status, 200);
    account.remove_region(REGIONS[1]).await.unwrap();
    account.shutdown().await;
}

#[tokio::test]
async fn the_hub_can_go_and_its_tail_arrives_first() {
    let account = builder(3).start().await.unwrap();
    let raw = gateways(&account);
    let mut expiring = definition();
    expiring["defaultTtl"] = json!(-1);
    raw[0].create(expiring).await;
    for to in &REGIONS[1..] {
        let lag = Some(Duration::from_millis(50));
        account
            .set_link(REGIONS[0], to, LinkState::Open, lag)
            .unwrap();
    }
    put(&raw[0].container("c"), "tail", 1).await;
    account.remove_region(REGIONS[0]).await.unwrap();
    for raw in &raw[1..] {
        assert_eq!(raw.container("c").read(&key("t"), "tail").await.status, 200);
    }
    // The account's endpoint has another region behind it, which expires items now.
    let items = Raw::new(&account.endpoint()).container("c");
    let versions = async |after: &str| {
        let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", after)];
        items.send("GET", "docs", "", &headers, None).await
    };
    let now = versions("*").await.header("etag").to_owned();
    let item = json!({"id": "short", "k": "t", "ttl": 1});
    assert_eq!(items.upsert(&key("t"), &item).await.status, 201);
    eventually("it expires", async || {
        let page = versions(&now).await;
        let mut rows = page.documents().iter();
        rows.any(|row| row["metadata"]["timeToLiveExpired"] == true)
    })
    .await;
    account.shutdown().await;
}

#[tokio::test]
async fn a_region_that_comes_back_gives_old_readers_everything_again() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = raw[1].container("c");
    for n in 0..5 {
        put(&items, &n.to_string(), 1).await;
    }
    let page = items.changes(None, &[]).await;
    assert_eq!(page.ids().len(), 5);
    let etag = page.header("etag").to_owned();
    let versions = [("a-im", "Full-Fidelity Feed"), ("if-none-match", &etag)];
    let following = items.send("GET", "docs", "", &versions, None).await;
    assert_eq!(following.status, 304);
    settled(&account).await;
    account.remove_region(REGIONS[1]).await.unwrap();
    put(&raw[0].container("c"), "meanwhile", 1).await;
    account
        .add_region(RegionConfig::new(REGIONS[1]))
        .await
        .unwrap();
    let items = of(&account, REGIONS[1]);
    let ids = items.changes(Some(&etag), &[]).await;
    assert_eq!(ids.ids(), ["0", "1", "2", "3", "4", "meanwhile"]);
    let following = items.send("GET", "docs", "", &versions, None).await;
    assert_eq!(following.status, 400, "versions from before are not kept");
    // It goes on counting where it was, so nothing that it writes looks old.
    assert_eq!(put(&items, "0", 2).await, 200);
    settled(&account).await;
    let west = raw[0].container("c").read(&key("t"), "0").await;
    assert_eq!(west.body["v"], 2);
    account.shutdown().await;
}

#[tokio::test]
async fn regions_of_a_folder_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = |regions: &[&str]| folder_builder(&folder, regions).start();
    let account = start(&REGIONS[..2]).await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    put(&raw[0].container("c"), "a", 1).await;
    account.add_region(RegionConfig::new(NEW)).await.unwrap();
    set_links(&account, LinkState::Cut);
    put(&of(&account, NEW), "b", 1).await;
    account.shutdown().await;

    let refused = start(&REGIONS[..2]).await.unwrap_err().to_string();
    assert!(refused.contains(NEW), "{refused}");
    // The order does not matter, and a name more is a region more.
    let account = start(&[NEW, REGIONS[2], REGIONS[0], REGIONS[1]])
        .await
        .unwrap();
    assert_eq!(
        listed(&account).await[0],
        [REGIONS[0], REGIONS[1], NEW, REGIONS[2]]
    );
    let seeded = of(&account, REGIONS[2]);
    let all = seeded.changes(None, &[]).await;
    assert_eq!(all.ids(), ["a", "b"], "with what was not carried yet");
    settled(&account).await;
    assert_eq!(put(&seeded, "c", 1).await, 201);
    account.remove_region(NEW).await.unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let folders = entries.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 3);
    account.shutdown().await;

    let account = start(&REGIONS).await.unwrap();
    for region in REGIONS {
        eventually("all is carried", async || {
            account.item_count(region, "db", "c") == Some(3)
        })
        .await;
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_has_lost_something_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let start = || folder_builder(&folder, &REGIONS[..2]).start();
    let account = start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    assert_eq!(put(&raw[0].container("c"), "a", 1).await, 201);
    account.shutdown().await;

    let members = folder.path().join("regions.json");
    let kept = std::fs::read(&members).unwrap();
    std::fs::remove_file(&members).unwrap();
    let refused = start().await.err().unwrap().to_string();
    assert!(
        refused.contains("regions.json") && refused.contains("region-0 has data"),
        "{refused}"
    );
    // What cannot be read is not nothing.
    let lock = folder.path().join("region-0/lock");
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let refused = start().await.err().unwrap().to_string();
    assert!(refused.contains("region-0 has data"), "{refused}");
    drop(held);
    std::fs::write(&members, kept).unwrap();

    let (region, elsewhere) = (
        folder.path().join("region-0"),
        folder.path().join("elsewhere"),
    );
    std::fs::rename(&region, &elsewhere).unwrap();
    let refused = start().await.err().unwrap().to_string();
    assert!(refused.contains("region-0: it is not there"), "{refused}");
    std::fs::rename(&elsewhere, &region).unwrap();

    let account = start().await.unwrap();
    assert_eq!(account.item_count(REGIONS[0], "db", "c"), Some(1));
    account.shutdown().await;
}
