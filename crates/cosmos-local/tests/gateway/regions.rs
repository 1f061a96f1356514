//! Several regions: who takes writes, outages, links, and conflicts.

use std::time::{Duration, Instant};

use cosmos_local::{
    Account, Availability, ControlError, Failover, Fault, LinkQuality, LinkState, Operation,
    WriteMode,
};
use serde_json::{Value, json};

use crate::support::{
    Answer, Container, REGIONS, Raw, UPSERT, builder, eventually, gateways, key, set_links, settled,
};

fn definition() -> Value {
    json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}})
}

fn containers(raw: &[Raw]) -> Vec<Container> {
    raw.iter().map(|raw| raw.container("c")).collect()
}

async fn put(items: &Container, id: &str, more: Value) -> Answer {
    let mut item = json!({"id": id, "k": "t"});
    for (name, value) in more.as_object().unwrap() {
        item[name] = value.clone();
    }
    items.upsert(&key("t"), &item).await
}

/// An account of so many regions, with a container whose conflicts are left to its users.
async fn with_conflicts(regions: usize) -> (Account, Vec<Container>) {
    let account = builder(regions).start().await.unwrap();
    let raw = gateways(&account);
    let mut custom = definition();
    custom["conflictResolutionPolicy"] = json!({"mode": "Custom"});
    assert_eq!(raw[0].create(custom).await.status, 201);
    (account, containers(&raw))
}

/// An account of two regions of which the first takes the writes, with a container: its gateways, and the container there.
async fn single_write() -> (Account, Vec<Raw>, Vec<Container>) {
    let account = builder(2)
        .write_mode(WriteMode::Single)
        .start()
        .await
        .unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    (account, raw, items)
}

#[tokio::test]
async fn one_region_takes_the_writes_and_hands_over() {
    let account = builder(2)
        .write_mode(WriteMode::Single)
        .start()
        .await
        .unwrap();
    let raw = gateways(&account);
    let global = Raw::new(&account.endpoint());
    assert_eq!(raw[1].create(definition()).await.codes(), (403, 3));
    assert_eq!(raw[0].create(definition()).await.status, 201);
    let items = containers(&raw);
    let k = key("t");
    assert_eq!(put(&items[0], "a", json!({})).await.status, 201);
    settled(&account).await;
    assert_eq!(items[1].read(&k, "a").await.status, 200);
    for refused in [
        put(&items[1], "b", json!({})).await,
        items[1].delete(&k, "a").await,
        items[1]
            .patch(&k, "a", json!([{"op": "set", "path": "/n", "value": 1}]))
            .await,
        items[1]
            .batch(&k, json!([{"operationType": "Delete", "id": "a"}]))
            .await,
    ] {
        assert_eq!(refused.codes(), (403, 3), "{refused:?}");
    }
    assert_eq!(
        items[1]
            .batch(&k, json!([{"operationType": "Read", "id": "a"}]))
            .await
            .status,
        200
    );
    let writable = async || {
        let body = global.send("GET", "", &[], None).await.body;
        assert_eq!(body["enableMultipleWriteLocations"], false);
        assert_eq!(body["readableLocations"].as_array().unwrap().len(), 2);
        body["writableLocations"][0]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(writable().await, REGIONS[0]);

    // A graceful failover brings along what was on its way.
    account
        .set_link(
            REGIONS[0],
            REGIONS[1],
            LinkState::Open,
            Some(Duration::from_millis(50)),
        )
        .unwrap();
    put(&items[0], "last", json!({})).await;
    account
        .fail_over(REGIONS[1], Failover::Graceful)
        .await
        .unwrap();
    assert_eq!(items[1].read(&k, "last").await.status, 200);
    assert_eq!(writable().await, REGIONS[1]);
    assert_eq!(put(&items[0], "b", json!({})).await.codes(), (403, 3));
    assert_eq!(put(&items[1], "b", json!({})).await.status, 201);
    assert_eq!(
        put(&global.container("c"), "c", json!({})).await.status,
        201
    );

    // A forced one does not wait; what was on its way arrives later.
    set_links(&account, LinkState::Cut);
    put(&items[1], "stranded", json!({})).await;
    account
        .fail_over(REGIONS[0], Failover::Forced)
        .await
        .unwrap();
    assert_eq!(items[0].read(&k, "stranded").await.status, 404);
    assert_eq!(put(&items[0], "d", json!({})).await.status, 201);
    set_links(&account, LinkState::Open);
    settled(&account).await;
    assert_eq!(items[0].read(&k, "stranded").await.status, 200);
    account.shutdown().await;

    let multi = builder(2).start().await.unwrap();
    let refused = multi
        .fail_over(REGIONS[1], Failover::Forced)
        .await
        .unwrap_err();
    assert!(matches!(refused, ControlError::EveryRegionWrites));
    multi.shutdown().await;
}

#[tokio::test]
async fn a_write_that_was_let_in_before_a_failover_is_not_accepted_after_it() {
    let (account, _, items) = single_write().await;
    let k = key("t");
    for round in 1..=10 {
        let (old, new) = ((round + 1) % 2, round % 2);
        settled(&account).await;
        // It waits for what the new write region accepts next.
        let accepted = round / 2;
        let token = format!("0:1#0#{}={}", new + 1, accepted + round % 2);
        let waiting = {
            let (items, k) = (items[old].clone(), k.clone());
            let item = json!({"id": format!("late-{round}"), "k": "t"});
            tokio::spawn(async move {
                let headers = [UPSERT, ("x-ms-session-token", token.as_str())];
                items.send("POST", "docs", &k, &headers, Some(&item)).await
            })
        };
        tokio::task::yield_now().await;
        // A request that is answered after it was sent: most likely it has been let in.
        items[old].read(&k, "none").await;
        account
            .fail_over(REGIONS[new], Failover::Forced)
            .await
            .unwrap();
        assert_eq!(put(&items[new], "next", json!({})).await.status / 100, 2);
        let late = waiting.await.unwrap();
        assert!(
            [(403, 3), (404, 1002)].contains(&late.codes()),
            "{round}: {late:?}"
        );
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_failover_that_is_given_up_changes_nothing() {
    let (account, _, items) = single_write().await;
    set_links(&account, LinkState::Cut);
    put(&items[0], "a", json!({})).await;
    let takes_writes = async |region: usize| put(&items[region], "b", json!({})).await.status < 300;
    {
        let waiting = account.fail_over(REGIONS[1], Failover::Graceful);
        let refusing = async {
            eventually("nobody takes writes meanwhile", async || {
                !takes_writes(0).await && !takes_writes(1).await
            })
            .await;
        };
        tokio::select! {
            biased;
            moved = waiting => panic!("it does not wait for the link: {moved:?}"),
            () = refusing => {}
        }
    }
    eventually("the old region takes writes", async || {
        takes_writes(0).await
    })
    .await;
    assert!(!takes_writes(1).await);
    put(&items[0], "c", json!({})).await;
    set_links(&account, LinkState::Open);
    account
        .fail_over(REGIONS[1], Failover::Graceful)
        .await
        .unwrap();
    assert!(takes_writes(1).await && !takes_writes(0).await);
    for id in ["a", "b", "c"] {
        assert_eq!(items[1].read(&key("t"), id).await.status, 200, "{id}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn the_accounts_endpoint_is_served_by_the_next_region_while_the_hub_is_away() {
    for mode in [WriteMode::Multi, WriteMode::Single] {
        let account = builder(3).write_mode(mode).start().await.unwrap();
        let raw = gateways(&account);
        raw[0].create(definition()).await;
        let global = Raw::new(&account.endpoint());
        let items = global.container("c");
        put(&items, "a", json!({})).await;
        settled(&account).await;
        let set = async |region: usize, availability| {
            let name = REGIONS[region];
            account.set_availability(name, availability).await.unwrap();
        };
        let mut ways = vec![
            Availability::Refusing,
            Availability::Silent,
            Availability::Failing,
        ];
        if mode == WriteMode::Multi {
            ways.push(Availability::Withdrawn);
        }
        for away in ways {
            set(0, away).await;
            assert_eq!(items.read(&key("t"), "a").await.status, 200, "{away:?}");
            let written = put(&items, "b", json!({})).await;
            match mode {
                WriteMode::Multi => {
                    // An etag names the region that has made the version.
                    let etag = written.header("etag");
                    assert!(etag.starts_with("\"0001-"), "{away:?}: {etag}");
                }
                WriteMode::Single => assert_eq!(written.codes(), (403, 3), "{away:?}"),
            }
            set(0, Availability::Online).await;
        }
        let written = put(&items, "b", json!({})).await;
        assert!(
            written.header("etag").starts_with("\"0000-"),
            "the hub is back"
        );
        for region in 0..3 {
            set(region, Availability::Silent).await;
        }
        assert_eq!(items.read(&key("t"), "a").await.status, 503);
        assert_eq!(
            global.send("GET", "", &[], None).await.status,
            200,
            "which regions there are can be learnt all the same"
        );
        account.shutdown().await;
    }
}

#[tokio::test]
async fn a_feed_does_not_go_on_where_its_account_never_was() {
    let start = async || {
        let account = builder(2).start().await.unwrap();
        let raw = gateways(&account);
        raw[0].create(definition()).await;
        let items = containers(&raw);
        put(&items[0], "a", json!({})).await;
        settled(&account).await;
        (account, items)
    };
    let versions = async |items: &Container, after: &str| {
        let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", after)];
        items.send("GET", "docs", "", &headers, None).await
    };
    let (account, items) = start().await;
    put(&items[0], "b", json!({})).await;
    settled(&account).await;
    let latest = items[0].changes(None, &[]).await.header("etag").to_owned();
    let all = versions(&items[0], "*").await.header("etag").to_owned();
    assert_eq!(items[1].changes(Some(&latest), &[]).await.status, 304);
    account.shutdown().await;

    // Without a data folder it has forgotten everything.
    let (account, items) = start().await;
    for refused in [
        items[0].changes(Some(&latest), &[]).await,
        items[1].changes(Some(&latest), &[]).await,
        versions(&items[0], &all).await,
    ] {
        let message = refused.body["message"].as_str().unwrap();
        assert_eq!(refused.status, 400, "{message}");
        assert!(message.contains("from the beginning"), "{message}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn items_that_violate_a_unique_key_together_stay_until_one_is_deleted() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    let mut unique = definition();
    unique["uniqueKeyPolicy"] = json!({"uniqueKeys": [{"paths": ["/mail"]}]});
    assert_eq!(raw[0].create(unique).await.status, 201);
    let items = containers(&raw);
    set_links(&account, LinkState::Cut);
    let mail = json!({"mail": "x"});
    assert_eq!(put(&items[0], "a", mail.clone()).await.status, 201);
    assert_eq!(put(&items[1], "b", mail.clone()).await.status, 201);
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for items in &items {
        for id in ["a", "b"] {
            assert_eq!(items.read(&key("t"), id).await.status, 200);
            let written = put(items, id, mail.clone()).await;
            assert_eq!(written.codes(), (409, 3301));
        }
    }
    assert_eq!(items[0].delete(&key("t"), "a").await.status, 204);
    assert_eq!(put(&items[0], "b", mail).await.status, 200);
    account.shutdown().await;
}

#[tokio::test]
async fn a_region_can_refuse_connections_or_answer_that_it_is_unavailable() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    account
        .set_availability(REGIONS[0], Availability::Failing)
        .await
        .unwrap();
    assert!(!account.regions()[0].online);
    let answer = put(&items[0], "a", json!({})).await;
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (503, &json!("ServiceUnavailable"))
    );
    assert_eq!(raw[0].send("GET", "", &[], None).await.status, 503);
    account
        .set_availability(REGIONS[0], Availability::Refusing)
        .await
        .unwrap();
    let refused = raw[0].try_send("GET", "", &[], None).await.unwrap_err();
    assert!(refused.is_connect(), "{refused}");
    let global = Raw::new(&account.endpoint());
    assert_eq!(
        global.send("GET", "", &[], None).await.status,
        200,
        "the account's own endpoint stays"
    );
    account
        .set_availability(REGIONS[0], Availability::Silent)
        .await
        .unwrap();
    let impatient = raw[0].send("GET", "", &[], None);
    let answer = tokio::time::timeout(Duration::from_millis(50), impatient).await;
    assert!(answer.is_err(), "connected, and never answered");
    // Replication does not depend on clients.
    put(&items[1], "b", json!({})).await;
    settled(&account).await;
    account
        .set_availability(REGIONS[0], Availability::Online)
        .await
        .unwrap();
    assert_eq!(items[0].read(&key("t"), "b").await.status, 200);
    account.shutdown().await;
}

#[tokio::test]
async fn a_bad_link_is_late_and_loses_nothing() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    let quality = |loss| LinkQuality {
        lag: Duration::from_millis(1),
        jitter: Duration::from_millis(10),
        loss,
    };
    account
        .set_link_quality(REGIONS[0], REGIONS[1], quality(1.0))
        .unwrap();
    for n in 0..50 {
        put(&items[0], &format!("{n:02}"), json!({})).await;
    }
    let pending = || account.links().iter().map(|link| link.pending).max();
    assert_eq!(
        pending(),
        Some(50),
        "everything is lost on the way, again and again"
    );
    account
        .set_link_quality(REGIONS[0], REGIONS[1], quality(0.5))
        .unwrap();
    settled(&account).await;
    let page = items[1].changes(None, &[]).await;
    let expected: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    assert_eq!(page.ids(), expected, "in order");
    account.shutdown().await;
}

#[tokio::test]
async fn a_batch_arrives_whole() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    set_links(&account, LinkState::Cut);
    let batches = 10;
    for batch in 0..batches {
        let creates: Vec<Value> = (0..100)
            .map(|n| json!({"operationType": "Create", "resourceBody": {"id": format!("{batch}-{n}"), "k": "t"}}))
            .collect();
        assert_eq!(items[0].batch(&key("t"), json!(creates)).await.status, 200);
    }
    set_links(&account, LinkState::Open);
    let mut last = 0;
    eventually("all batches arrive", async || {
        let count = account.item_count(REGIONS[1], "db", "c").unwrap();
        assert!(count.is_multiple_of(100), "{count} is a part of a batch");
        assert!(count >= last);
        last = count;
        count == batches * 100
    })
    .await;
    account.shutdown().await;
}

#[tokio::test]
async fn the_greatest_value_at_the_conflict_path_wins() {
    let account = builder(3).start().await.unwrap();
    let raw = gateways(&account);
    let mut with_path = definition();
    with_path["conflictResolutionPolicy"] =
        json!({"mode": "LastWriterWins", "conflictResolutionPath": "/meta/rank"});
    assert_eq!(raw[0].create(with_path).await.status, 201);
    let items = containers(&raw);
    set_links(&account, LinkState::Cut);
    for (number, rank) in [2.5, 7.0, -1.0].iter().enumerate() {
        put(&items[number], "x", json!({"meta": {"rank": rank}})).await;
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for items in &items {
        assert_eq!(items.read(&key("t"), "x").await.body["meta"]["rank"], 7.0);
    }
    // Who has seen the greatest may replace it by less.
    put(&items[2], "x", json!({"meta": {"rank": 1}})).await;
    settled(&account).await;
    assert_eq!(items[0].read(&key("t"), "x").await.body["meta"]["rank"], 1);
    let conflicts = items[0].send("GET", "conflicts", "", &[], None).await;
    assert_eq!(conflicts.body["Conflicts"], json!([]), "losers vanish");

    // A delete wins over an update that has not seen it, whatever its rank.
    set_links(&account, LinkState::Cut);
    items[0].delete(&key("t"), "x").await;
    put(&items[1], "x", json!({"meta": {"rank": 100}})).await;
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for items in &items {
        assert_eq!(items.read(&key("t"), "x").await.status, 404);
    }
    account.shutdown().await;
}

#[tokio::test]
async fn conflicts_can_be_left_to_the_users() {
    let (account, items) = with_conflicts(3).await;
    put(&items[0], "x", json!({"from": "before"})).await;
    settled(&account).await;
    set_links(&account, LinkState::Cut);
    for (number, items) in items.iter().enumerate() {
        put(items, "x", json!({"from": number})).await;
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let conflicts = async |number: usize| -> Vec<Value> {
        let answer = items[number].send("GET", "conflicts", "", &[], None).await;
        answer.body["Conflicts"].as_array().unwrap().clone()
    };
    let k = key("t");
    let winner = items[0].read(&k, "x").await.body;
    let losers = conflicts(0).await;
    assert_eq!(losers.len(), 2, "{losers:?}");
    for loser in &losers {
        assert_eq!(
            (&loser["operationType"], &loser["resourceId"]),
            (&json!("replace"), &winner["_rid"])
        );
        let content: Value = serde_json::from_str(loser["content"].as_str().unwrap()).unwrap();
        assert_ne!(content["from"], winner["from"]);
    }
    for number in 1..3 {
        assert_eq!(conflicts(number).await, losers, "the same in every region");
    }
    let sql = [("x-ms-documentdb-isquery", "true")];
    let query = json!({"query": "SELECT * FROM c WHERE c.operationType = 'replace'"});
    let found = items[1]
        .send("POST", "conflicts", "", &sql, Some(&query))
        .await;
    assert_eq!(found.body["_count"], 2);

    // Letting go of one leaves the other, and the item as it is.
    let etag = items[1].changes(None, &[]).await.header("etag").to_owned();
    let path = format!("conflicts/{}", losers[0]["id"].as_str().unwrap());
    assert_eq!(
        items[1].send("GET", &path, &k, &[], None).await.body,
        losers[0]
    );
    assert_eq!(
        items[1].send("DELETE", &path, &k, &[], None).await.status,
        204
    );
    settled(&account).await;
    for (number, items) in items.iter().enumerate() {
        assert_eq!(conflicts(number).await, losers[1..]);
        assert_eq!(items.read(&k, "x").await.body, winner);
    }
    assert_eq!(
        items[1].changes(Some(&etag), &[]).await.status,
        304,
        "nothing has changed for readers"
    );
    assert_eq!(
        items[1].send("DELETE", &path, &k, &[], None).await.status,
        404
    );
    // Who writes the item in knowledge of both resolves it.
    put(&items[2], "x", json!({"from": "merged"})).await;
    settled(&account).await;
    for number in 0..3 {
        assert_eq!(conflicts(number).await, Vec::<Value>::new());
    }
    account.shutdown().await;
}

#[tokio::test]
async fn the_write_region_stays_where_it_is_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        builder(2)
            .write_mode(WriteMode::Single)
            .data_dir(Some(folder.path().to_owned()))
            .start()
    };
    let account = start().await.unwrap();
    account
        .fail_over(REGIONS[1], Failover::Graceful)
        .await
        .unwrap();
    account.shutdown().await;
    let account = start().await.unwrap();
    let writable: Vec<bool> = account
        .regions()
        .iter()
        .map(|region| region.writable)
        .collect();
    assert_eq!(writable, [false, true]);
    account.shutdown().await;
}

#[tokio::test]
async fn failures_can_be_asked_for() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    for (status, substatus, code) in [
        (503, 0, "ServiceUnavailable"),
        (410, 1022, "Gone"),
        (429, 3092, "TooManyRequests"),
        (449, 0, "RetryWith"),
    ] {
        let fault = Fault {
            status,
            substatus,
            ..Fault::default()
        };
        account.set_fault(REGIONS[0], Some(fault)).unwrap();
        let failed = put(&items[0], "a", json!({})).await;
        assert_eq!(
            (failed.codes(), &failed.body["code"]),
            ((status, substatus), &json!(code))
        );
        assert_eq!(
            put(&items[1], &status.to_string(), json!({})).await.status,
            201
        );
    }
    let sometimes = Fault {
        likelihood: 0.5,
        ..Fault::default()
    };
    account.set_fault(REGIONS[0], Some(sometimes)).unwrap();
    let mut statuses = std::collections::BTreeSet::new();
    eventually("both happen", async || {
        statuses.insert(items[0].read(&key("t"), "a").await.status);
        statuses.len() == 2
    })
    .await;
    account.set_fault(REGIONS[0], None).unwrap();
    assert_eq!(
        items[0].read(&key("t"), "a").await.status,
        404,
        "nothing was done"
    );
    let no_failure = Fault {
        status: 200,
        ..Fault::default()
    };
    assert!(account.set_fault(REGIONS[0], Some(no_failure)).is_err());
    account.shutdown().await;
}

#[tokio::test]
async fn failures_hit_the_operations_that_they_are_for() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account).remove(0);
    raw.create(definition()).await;
    let items = raw.container("c");
    let k = key("t");
    put(&items, "a", json!({})).await;
    let query = json!({"query": "SELECT * FROM c"});
    let plan = [("x-ms-cosmos-is-query-plan-request", "True")];
    for operation in Operation::ALL {
        let fault = Fault {
            operations: vec![operation],
            ..Fault::default()
        };
        account.set_fault(REGIONS[0], Some(fault)).unwrap();
        let failing = |answer: &Answer| answer.status == 503;
        for (what, answers) in [
            (
                Operation::Read,
                vec![
                    items.read(&k, "a").await,
                    items.send("GET", "docs", "", &[], None).await,
                    items.send("GET", "conflicts", "", &[], None).await,
                ],
            ),
            (
                Operation::Write,
                vec![
                    put(&items, "a", json!({})).await,
                    items.delete(&k, "none").await,
                    items
                        .batch(&k, json!([{"operationType": "Read", "id": "a"}]))
                        .await,
                ],
            ),
            (
                Operation::Query,
                vec![
                    items.query("SELECT * FROM c", &[]).await,
                    items.send("POST", "docs", "", &plan, Some(&query)).await,
                ],
            ),
            (Operation::Feed, vec![items.changes(None, &[]).await]),
            (
                Operation::Metadata,
                vec![
                    raw.send("GET", "", &[], None).await,
                    raw.send("GET", "dbs/db/colls/c", &[], None).await,
                    items.send("GET", "pkranges", "", &[], None).await,
                ],
            ),
        ] {
            for answer in &answers {
                assert_eq!(failing(answer), what == operation, "{what:?}: {answer:?}");
            }
        }
        let global = Raw::new(&account.endpoint());
        assert_eq!(global.send("GET", "", &[], None).await.status, 200);
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_withdrawn_region_is_not_of_the_account_until_it_comes_back() {
    let (account, raw, items) = single_write().await;
    let needed = account.set_availability(REGIONS[0], Availability::Withdrawn);
    assert!(matches!(needed.await, Err(ControlError::Needed(_))));
    account
        .set_availability(REGIONS[1], Availability::Withdrawn)
        .await
        .unwrap();
    assert_eq!(items[1].read(&key("t"), "a").await.codes(), (403, 1008));
    let listed = async || {
        let body = raw[0].send("GET", "", &[], None).await.body;
        body["readableLocations"].as_array().unwrap().len()
    };
    assert_eq!(listed().await, 1);
    let refused = account.fail_over(REGIONS[1], Failover::Forced).await;
    assert!(matches!(refused, Err(ControlError::Withdrawn(_))));
    put(&items[0], "a", json!({})).await;
    account
        .set_availability(REGIONS[1], Availability::Online)
        .await
        .unwrap();
    settled(&account).await;
    assert_eq!(
        (listed().await, items[1].read(&key("t"), "a").await.status),
        (2, 200)
    );
    account.shutdown().await;
}

/// A reader sees a version in one region that never shows in the next, because what replaced it was there first; and the
/// one that stands in the end was known to the reader's first region, which did not show it.
#[tokio::test]
async fn a_reader_that_moves_is_not_left_with_a_version_that_was_replaced() {
    for moves_late in [true, false] {
        let account = builder(3).start().await.unwrap();
        let raw = gateways(&account);
        let mut by_rank = definition();
        by_rank["conflictResolutionPolicy"] =
            json!({"mode": "LastWriterWins", "conflictResolutionPath": "/rank"});
        raw[0].create(by_rank).await;
        let items = containers(&raw);
        set_links(&account, LinkState::Cut);
        let carry = async |from: usize, to: usize| {
            account
                .set_link(REGIONS[from], REGIONS[to], LinkState::Open, None)
                .unwrap();
            eventually("it arrives", async || {
                let links = account.links();
                let mut links = links.iter();
                links.any(|link| {
                    link.from == REGIONS[from] && link.to == REGIONS[to] && link.pending == 0
                })
            })
            .await;
            account
                .set_link(REGIONS[from], REGIONS[to], LinkState::Cut, None)
                .unwrap();
        };
        let ranks = |page: &Answer| -> Vec<Value> {
            page.documents()
                .iter()
                .map(|row| row["rank"].clone())
                .collect()
        };
        put(&items[0], "x", json!({"rank": 5})).await;
        put(&items[2], "x", json!({"rank": 10})).await;
        carry(2, 1).await;
        put(&items[1], "x", json!({"rank": 1})).await;
        carry(0, 2).await;
        let page = items[2].changes(None, &[]).await;
        assert_eq!(ranks(&page), [10]);
        let mut etag = page.header("etag").to_owned();
        if !moves_late {
            let page = items[0].changes(Some(&etag), &[]).await;
            assert_eq!(ranks(&page), Vec::<Value>::new());
            etag = page.header("etag").to_owned();
        }
        carry(1, 0).await;
        carry(2, 0).await;
        assert_eq!(items[0].read(&key("t"), "x").await.body["rank"], 5);
        let page = items[0].changes(Some(&etag), &[]).await;
        assert_eq!(ranks(&page), [5]);
        let etag = page.header("etag");
        assert_eq!(items[0].changes(Some(etag), &[]).await.status, 304);
        account.shutdown().await;
    }
}

#[tokio::test]
async fn a_lag_holds_back_one_direction_and_not_the_other() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    let set_lag = |lag| {
        let set = account.set_link(REGIONS[0], REGIONS[1], LinkState::Open, Some(lag));
        set.unwrap();
    };
    let is_there = async |region: usize, id: &str| {
        let read = items[region].read(&key("t"), id).await;
        read.status == 200
    };
    let lag = Duration::from_millis(300);
    set_lag(lag);
    let start = Instant::now();
    put(&items[0], "a", json!({})).await;
    eventually("it arrives", async || is_there(1, "a").await).await;
    // Times of changes are whole milliseconds.
    let (passed, least) = (start.elapsed(), lag - Duration::from_millis(1));
    assert!(passed >= least, "after {passed:?}");

    set_lag(Duration::from_secs(3600));
    put(&items[0], "there", json!({})).await;
    put(&items[1], "back", json!({})).await;
    eventually("it arrives", async || is_there(0, "back").await).await;
    assert!(!is_there(1, "there").await);
    set_lag(Duration::ZERO);
    eventually("it arrives", async || is_there(1, "there").await).await;
    account.shutdown().await;
}

#[tokio::test]
async fn jitter_holds_back_each_write_for_another_time() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    let quality = LinkQuality {
        jitter: Duration::from_millis(400),
        ..LinkQuality::default()
    };
    let [from, to] = [REGIONS[0], REGIONS[1]];
    account.set_link_quality(from, to, quality).unwrap();
    let mut times = Vec::new();
    for n in 0..20 {
        let start = Instant::now();
        put(&items[0], &n.to_string(), json!({})).await;
        settled(&account).await;
        times.push(start.elapsed());
    }
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    // That twenty of them are so near to each other does not happen by chance.
    assert!(*most - *least > Duration::from_millis(150), "{times:?}");
    account.shutdown().await;
}

#[tokio::test]
async fn throughput_is_of_each_region() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = containers(&raw);
    account.limit_throughput(REGIONS[0], Some(1)).unwrap();
    eventually("it is used up", async || {
        put(&items[0], "a", json!({})).await.status == 429
    })
    .await;
    for n in 0..20 {
        let written = put(&items[1], &n.to_string(), json!({})).await;
        assert_eq!(written.status, 201, "{written:?}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_session_of_the_write_region_waits_where_its_writes_have_not_arrived() {
    let (account, _, items) = single_write().await;
    set_links(&account, LinkState::Cut);
    let written = put(&items[0], "a", json!({})).await;
    let token = written.header("x-ms-session-token");
    let read = async |headers: &[(&str, &str)]| {
        let k = key("t");
        let read = items[1].send("GET", "docs/a", &k, headers, None).await;
        read.codes()
    };
    let session = [("x-ms-session-token", token)];
    assert_eq!(read(&session).await, (404, 1002));
    assert_eq!(read(&[]).await, (404, 0));
    set_links(&account, LinkState::Open);
    settled(&account).await;
    assert_eq!(read(&session).await, (200, 0));
    account.shutdown().await;
}

#[tokio::test]
async fn a_version_without_a_number_at_the_conflict_path_ranks_by_its_time() {
    let account = builder(2).start().await.unwrap();
    let raw = gateways(&account);
    let mut by_rank = definition();
    by_rank["conflictResolutionPolicy"] =
        json!({"mode": "LastWriterWins", "conflictResolutionPath": "/rank"});
    raw[0].create(by_rank).await;
    let items = containers(&raw);
    set_links(&account, LinkState::Cut);
    let after_all_time = 9_000_000_000_000_u64;
    let cases = [
        ("a", json!({"rank": 5}), json!({"n": 1}), 1),
        ("b", json!({"rank": after_all_time}), json!({"n": 1}), 0),
        ("c", json!({"rank": "text"}), json!({"rank": 5}), 0),
        (
            "d",
            json!({"rank": null}),
            json!({"rank": after_all_time}),
            1,
        ),
    ];
    for (id, first, second, _) in &cases {
        put(&items[0], id, first.clone()).await;
        put(&items[1], id, second.clone()).await;
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for (id, first, second, winner) in &cases {
        let expected = [first, second][*winner];
        for items in &items {
            let read = items.read(&key("t"), id).await.body;
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&read[name], value, "{id}");
            }
        }
    }
    account.shutdown().await;
}

#[tokio::test]
async fn losers_are_created_and_deleted_versions_too() {
    let (account, items) = with_conflicts(2).await;
    put(&items[0], "old", json!({})).await;
    settled(&account).await;
    set_links(&account, LinkState::Cut);
    for (number, items) in items.iter().enumerate() {
        put(items, "new", json!({"from": number})).await;
        assert_eq!(items.delete(&key("t"), "old").await.status, 204);
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let winner = items[0].read(&key("t"), "new").await.body;
    for items in &items {
        let feed = items.send("GET", "conflicts", "", &[], None).await;
        let conflicts = feed.body["Conflicts"].as_array().unwrap();
        let of = |kind: &str| {
            let mut found = conflicts.iter().filter(|it| it["operationType"] == kind);
            (found.next().unwrap(), found.count())
        };
        let (created, more) = of("create");
        let content: Value = serde_json::from_str(created["content"].as_str().unwrap()).unwrap();
        assert_eq!((&content["id"], more), (&json!("new"), 0));
        assert_ne!(content["from"], winner["from"]);
        // A delete loses against another one.
        let (deleted, more) = of("delete");
        assert_eq!((&deleted["content"], more), (&json!(""), 0));
        assert_eq!(conflicts.len(), 2, "{conflicts:?}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn conflicts_come_in_pages() {
    let (account, items) = with_conflicts(2).await;
    settled(&account).await;
    set_links(&account, LinkState::Cut);
    for items in &items {
        for id in ["a", "b", "c", "d", "e"] {
            put(items, id, json!({})).await;
        }
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let (mut pages, mut found) = (Vec::new(), Vec::new());
    let mut next: Option<String> = None;
    loop {
        let mut headers = vec![("x-ms-max-item-count", "2")];
        headers.extend(next.as_deref().map(|next| ("x-ms-continuation", next)));
        let page = items[0].send("GET", "conflicts", "", &headers, None).await;
        pages.push(page.body["_count"].as_u64().unwrap());
        found.extend(page.body["Conflicts"].as_array().unwrap().clone());
        next = page
            .headers
            .get("x-ms-continuation")
            .map(|next| next.to_str().unwrap().to_owned());
        if next.is_none() {
            break;
        }
    }
    assert_eq!(pages, [2, 2, 1]);
    let all = items[1].send("GET", "conflicts", "", &[], None).await;
    assert_eq!(all.body["Conflicts"], Value::from(found));
    account.shutdown().await;
}
