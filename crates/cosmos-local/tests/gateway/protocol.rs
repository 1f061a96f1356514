//! What clients rely on without saying so: the account document, addresses, resource ids, headers and limits.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cosmos_local::{Account, LinkState};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde_json::{Map, Value, json};

use crate::support::{
    Answer, Container, FEED, REGIONS, Raw, UPSERT, builder, eventually, gateways, key, set_links,
    settled, start,
};

const MB: usize = 1024 * 1024;

fn definition() -> Value {
    json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}})
}

/// An account of so many regions with a container, by way of each of them.
async fn containers(regions: usize) -> (Account, Vec<Container>) {
    let account = start(regions).await;
    let raw = gateways(&account);
    let created = raw[0].create(definition()).await;
    assert_eq!(created.status, 201, "{created:?}");
    let containers = raw.iter().map(|raw| raw.container("c")).collect();
    (account, containers)
}

fn item(id: &str) -> Value {
    json!({"id": id, "k": "t"})
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} of {value} is no text"))
}

fn rid(value: &Value) -> &str {
    text(value, "_rid")
}

#[tokio::test]
async fn the_account_says_what_clients_need_to_know() {
    let account = start(2).await;
    let global = Raw::new(&account.endpoint());
    let regions = account.regions();
    for raw in gateways(&account).iter().chain([&global]) {
        let body = raw.send("GET", "", &[], None).await.body;
        // Clients of an account that is called localhost know no regions.
        assert!(!matches!(text(&body, "id"), "" | "localhost"), "{body}");
        for name in ["_rid", "_self", "_dbs", "media", "addresses"] {
            text(&body, name);
        }
        for list in ["writableLocations", "readableLocations"] {
            let locations = body[list].as_array().unwrap().iter();
            let locations: Vec<(&str, &str)> = locations
                .map(|it| (text(it, "name"), text(it, "databaseAccountEndpoint")))
                .collect();
            let expected = regions
                .iter()
                .map(|region| (region.name.as_str(), region.endpoint.as_str()));
            assert_eq!(locations, expected.collect::<Vec<_>>());
            for (_, endpoint) in locations {
                assert!(endpoint.ends_with('/'), "{endpoint}");
                assert_ne!(endpoint, account.endpoint(), "it is of no region");
            }
        }
        assert_eq!(body["enableMultipleWriteLocations"], true);
        assert_eq!(
            body["userConsistencyPolicy"]["defaultConsistencyLevel"],
            "Session"
        );
        let engine: Map<String, Value> =
            serde_json::from_str(text(&body, "queryEngineConfiguration")).unwrap();
        // Who plans queries by itself refuses what is not allowed here.
        for allowed in [
            "sqlAllowAggregateFunctions",
            "sqlAllowGroupByClause",
            "sqlAllowSubQuery",
            "sqlAllowScalarSubQuery",
            "sqlAllowTop",
            "sqlAllowLike",
            "allowNewKeywords",
        ] {
            assert_eq!(engine[allowed], true, "{allowed}");
        }
        for other in ["thinClientReadableLocations", "thinClientWritableLocations"] {
            assert!(body.get(other).is_none(), "{other} is another protocol");
        }
    }
    account.shutdown().await;
}

#[tokio::test]
async fn slashes_more_than_needed_are_no_matter() {
    let (account, items) = containers(1).await;
    let raw = &items[0].raw;
    items[0].upsert(&key("t"), &item("a")).await;
    let k = key("t");
    let headers = [("x-ms-documentdb-partitionkey", k.as_str())];
    let own = "dbs/db/colls/c";
    for (path, kind, link) in [
        ("//", "", ""),
        ("//dbs", "dbs", ""),
        ("//dbs/db/", "dbs", "dbs/db"),
        ("//dbs/db/colls/c", "colls", own),
        ("/dbs/db/colls/c/", "colls", own),
        ("//dbs/db/colls/c/pkranges/", "pkranges", own),
        ("//dbs/db/colls/c/docs/", "docs", own),
        ("//dbs/db/colls/c/docs/a/", "docs", "dbs/db/colls/c/docs/a"),
    ] {
        let answer = raw
            .send_signed("GET", path, (kind, link), &headers, None)
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn resource_ids_are_addresses_too() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let database = items.raw.send("GET", "dbs/db", &[], None).await.body;
    let container = items.raw.send("GET", &items.path, &[], None).await.body;
    let (db, coll) = (rid(&database).to_owned(), rid(&container).to_owned());
    // They are signed alone, and in lower case, unlike names.
    let (signed_db, signed_coll) = (db.to_lowercase(), coll.to_lowercase());
    assert_ne!(signed_coll, coll);
    let docs = format!("/dbs/{db}/colls/{coll}/docs");
    let k = key("t");
    let headers = [("x-ms-documentdb-partitionkey", k.as_str())];
    let created = items
        .raw
        .send_signed(
            "POST",
            &docs,
            ("docs", &signed_coll),
            &headers,
            Some(&item("a")),
        )
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(items.read(&k, "a").await.body, created.body);

    let get = async |path: &str, kind: &str, link: &str, headers: &[(&str, &str)]| {
        items
            .raw
            .send_signed("GET", path, (kind, link), headers, None)
            .await
    };
    let path = format!("/dbs/{db}");
    assert_eq!(get(&path, "dbs", &signed_db, &[]).await.body, database);
    let path = format!("/dbs/{db}/colls");
    let list = get(&path, "colls", &signed_db, &[]).await.body;
    assert_eq!(list["DocumentCollections"], json!([container]));
    let path = format!("/dbs/{db}/colls/{coll}");
    assert_eq!(get(&path, "colls", &signed_coll, &[]).await.body, container);
    let path = format!("/dbs/{db}/colls/{coll}/pkranges");
    let by_rid = get(&path, "pkranges", &signed_coll, &[]).await;
    let by_name = items.send("GET", "pkranges", "", &[], None).await;
    assert_eq!((by_rid.status, by_rid.body), (200, by_name.body));
    let list = get(&docs, "docs", &signed_coll, &[]).await;
    assert_eq!(list.ids(), ["a"], "{list:?}");
    let feed = get(&docs, "docs", &signed_coll, &[FEED]).await;
    assert_eq!(feed.ids(), ["a"], "{feed:?}");
    assert_eq!(
        feed.header("x-ms-alt-content-path"),
        "dbs/db/colls/c",
        "names, whatever the address"
    );
    let sql = [
        ("x-ms-documentdb-isquery", "true"),
        ("x-ms-documentdb-query-enablecrosspartition", "true"),
    ];
    let query = json!({"query": "SELECT * FROM c"});
    let found = items
        .raw
        .send_signed("POST", &docs, ("docs", &signed_coll), &sql, Some(&query))
        .await;
    assert_eq!(found.ids(), ["a"], "{found:?}");

    // The signature is over this resource, and no other.
    for link in [&signed_db, &coll, ""] {
        let path = format!("/dbs/{db}/colls/{coll}/pkranges");
        let refused = get(&path, "pkranges", link, &[]).await;
        assert_eq!(refused.status, 401, "{link}: {refused:?}");
    }
    account.shutdown().await;
}

fn bytes(rid: &str) -> Vec<u8> {
    STANDARD.decode(rid.replace('-', "/")).unwrap()
}

/// The number of an item in its resource id.
fn ordinal(rid: &str) -> u64 {
    u64::from_le_bytes(bytes(rid)[8..].try_into().unwrap())
}

/// Resource ids of everything that an account has in `db` and `c`: database, container, range, and items by id.
async fn rids(raw: &Raw) -> Vec<String> {
    let items = raw.container("c");
    let ranges = items.send("GET", "pkranges", "", &[], None).await.body;
    let mut rids = vec![
        rid(&raw.send("GET", "dbs/db", &[], None).await.body).to_owned(),
        rid(&raw.send("GET", &items.path, &[], None).await.body).to_owned(),
        rid(&ranges["PartitionKeyRanges"][0]).to_owned(),
    ];
    let list = items.send("GET", "docs", "", &[], None).await;
    rids.extend(list.documents().iter().map(|item| rid(item).to_owned()));
    rids
}

#[tokio::test]
async fn resource_ids_say_what_they_are_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let builder = builder(2).data_dir(Some(folder.path().to_owned()));
        builder.start().await.unwrap()
    };
    let account = open().await;
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    set_links(&account, LinkState::Cut);
    let mut by_region = [const { Vec::new() }; 2];
    for n in 0..10 {
        for (region, own) in by_region.iter_mut().enumerate() {
            let id = format!("{region}-{n}");
            let created = raw[region]
                .container("c")
                .create(&key("t"), &item(&id))
                .await;
            own.push(rid(&created.body).to_owned());
        }
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for own in &by_region {
        assert!(
            own.is_sorted_by_key(|rid| ordinal(rid)),
            "ties of a sort run in the order of creation: {own:?}"
        );
    }
    let all: BTreeSet<&String> = by_region.iter().flatten().collect();
    assert_eq!(all.len(), 20, "whichever region they come from");

    let known = rids(&raw[0]).await;
    assert_eq!(known, rids(&raw[1]).await);
    let [database, container, range, items @ ..] = known.as_slice() else {
        panic!("{known:?}")
    };
    let decoded = bytes(container);
    assert_eq!((bytes(database).len(), decoded.len()), (4, 8));
    assert!(decoded.starts_with(&bytes(database)));
    assert_ne!(decoded[4] & 0x80, 0, "no user of the database");
    assert_eq!(items.len(), 20);
    for (rid, kind) in items.iter().map(|rid| (rid, 0x0)).chain([(range, 0x5)]) {
        let bytes = bytes(rid);
        assert_eq!((bytes.len(), bytes[15] >> 4), (16, kind), "{rid}");
        assert!(bytes.starts_with(&decoded), "{rid}");
    }
    account.shutdown().await;

    let account = open().await;
    let raw = gateways(&account);
    for raw in &raw {
        assert_eq!(rids(raw).await, known);
        let items = raw.container("c");
        let replaced = items.upsert(&key("t"), &item("0-0")).await;
        assert_eq!(rid(&replaced.body), by_region[0][0], "it is the same item");
    }
    let new = raw[0].container("c").create(&key("t"), &item("new")).await;
    assert!(!known.iter().any(|known| known == rid(&new.body)));
    account.shutdown().await;
}

#[tokio::test]
async fn etags_are_unique_over_regions() {
    let (account, items) = containers(2).await;
    set_links(&account, LinkState::Cut);
    let (mut etags, mut count) = (BTreeSet::new(), 0);
    for _ in 0..10 {
        for items in &items {
            let written = items.upsert(&key("t"), &item("a")).await;
            let etag = written.header("etag").to_owned();
            assert_eq!(written.body["_etag"], etag.as_str());
            assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'));
            etags.insert(etag);
            count += 1;
        }
    }
    assert_eq!(etags.len(), count, "{etags:?}");
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let shown = items[0].read(&key("t"), "a").await;
    let other = items[1].read(&key("t"), "a").await;
    assert_eq!(shown.header("etag"), other.header("etag"));
    assert!(etags.contains(shown.header("etag")));
    account.shutdown().await;
}

/// The session token and the two names of the container, by which SDKs file it.
fn check_session_headers(answer: &Answer, rid: &str) {
    assert_eq!(answer.header("x-ms-content-path"), rid, "{answer:?}");
    assert_eq!(
        answer.header("x-ms-alt-content-path"),
        "dbs/db/colls/c",
        "{answer:?}"
    );
    let token = answer.header("x-ms-session-token");
    let (range, numbers) = token.split_once(':').unwrap();
    assert_eq!(
        range,
        answer.header("x-ms-documentdb-partitionkeyrangeid"),
        "{answer:?}"
    );
    let mut numbers = numbers.split('#');
    numbers.next().unwrap().parse::<u64>().unwrap();
    let applied: u64 = numbers.next().unwrap().parse().unwrap();
    let regions: Vec<(u64, u64)> = numbers
        .map(|part| {
            let (region, seen) = part.split_once('=').unwrap();
            (region.parse().unwrap(), seen.parse().unwrap())
        })
        .collect();
    let names: Vec<u64> = regions.iter().map(|(region, _)| *region).collect();
    assert_eq!(names, [1, 2], "every region, in order: {token}");
    let seen: u64 = regions.iter().map(|(_, seen)| seen).sum();
    assert_eq!(applied, seen, "{token}");
}

#[tokio::test]
async fn every_answer_about_items_tells_how_far_the_region_is() {
    let (account, items) = containers(2).await;
    let items = &items[0];
    let rid = rid(&items.raw.send("GET", &items.path, &[], None).await.body).to_owned();
    let k = key("t");
    let created = items.create(&k, &item("a")).await;
    let etag = created.header("etag").to_owned();
    let known = [("if-none-match", etag.as_str())];
    let stale = [("if-match", "\"old\"")];
    let patch = json!([{"op": "set", "path": "/n", "value": 1}]);
    let batch = json!([{"operationType": "Read", "id": "a"}]);
    let now = items.changes(Some("*"), &[]).await;
    for (answer, status) in [
        (created, 201),
        (items.read(&k, "a").await, 200),
        (items.send("GET", "docs/a", &k, &known, None).await, 304),
        (items.create(&k, &item("a")).await, 409),
        (
            items
                .send("PUT", "docs/a", &k, &stale, Some(&item("a")))
                .await,
            412,
        ),
        (items.read(&k, "b").await, 404),
        (items.create("", &item("a")).await, 400),
        (items.patch(&k, "a", patch).await, 200),
        (items.batch(&k, batch).await, 200),
        (items.send("GET", "docs", "", &[], None).await, 200),
        (items.query("SELECT * FROM c", &[]).await, 200),
        (now, 304),
        (items.changes(None, &[]).await, 200),
        (items.delete(&k, "a").await, 204),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        check_session_headers(&answer, &rid);
        for name in ["x-ms-activity-id", "x-ms-request-charge"] {
            assert_ne!(answer.header(name), "", "{name}: {answer:?}");
        }
    }
    account.limit_throughput(REGIONS[0], Some(1)).unwrap();
    eventually("it is used up", async || {
        let answer = items.read(&k, "a").await;
        check_session_headers(&answer, &rid);
        answer.status == 429
    })
    .await;
    account.shutdown().await;
}

#[tokio::test]
async fn who_wants_no_body_back_gets_none() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let k = key("t");
    let minimal = ("prefer", "return=minimal");
    let patch = json!([{"op": "set", "path": "/n", "value": 1}]);
    let mut etags = BTreeSet::new();
    for (method, path, headers, body, status) in [
        ("POST", "docs", vec![minimal], item("a"), 201),
        ("POST", "docs", vec![minimal, UPSERT], item("b"), 201),
        ("POST", "docs", vec![minimal, UPSERT], item("a"), 200),
        ("PUT", "docs/a", vec![minimal], item("a"), 200),
        ("PATCH", "docs/a", vec![minimal], patch, 200),
    ] {
        let answer = items.send(method, path, &k, &headers, Some(&body)).await;
        assert_eq!((answer.status, &answer.body), (status, &Value::Null));
        assert_eq!(answer.header("content-length"), "0", "{method}");
        assert!(
            etags.insert(answer.header("etag").to_owned()),
            "a version of its own: {answer:?}"
        );
        assert_ne!(answer.header("x-ms-session-token"), "");
    }
    let read = items.read(&k, "a").await;
    assert_eq!(read.body["n"], 1);
    assert!(etags.contains(read.header("etag")));

    let headers = [
        minimal,
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "True"),
    ];
    let operations = json!([
        {"operationType": "Upsert", "resourceBody": item("a")},
        {"operationType": "Read", "id": "a"},
    ]);
    let batch = items
        .send("POST", "docs", &k, &headers, Some(&operations))
        .await;
    assert_eq!(batch.status, 200, "{batch:?}");
    assert_eq!(batch.body[0].get("resourceBody"), None);
    assert_ne!(text(&batch.body[0], "eTag"), read.header("etag"));
    assert_eq!(
        batch.body[1]["resourceBody"]["_etag"], batch.body[0]["eTag"],
        "reads are made for their bodies"
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_star_stands_for_any_version() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let k = key("t");
    items.create(&k, &item("a")).await;
    let any = [("if-match", "*")];
    let patch = json!([{"op": "set", "path": "/n", "value": 1}]);
    let patched = items.send("PATCH", "docs/a", &k, &any, Some(&patch)).await;
    assert_eq!((patched.status, &patched.body["n"]), (200, &json!(1)));
    let deleted = items.send("DELETE", "docs/a", &k, &any, None).await;
    assert_eq!(deleted.status, 204);
    for (method, body) in [("DELETE", None), ("PATCH", Some(&patch))] {
        let missing = items.send(method, "docs/a", &k, &any, body).await;
        assert!(matches!(missing.status, 404 | 412), "{missing:?}");
    }
    assert_eq!(items.read(&k, "a").await.status, 404);
    account.shutdown().await;
}

#[tokio::test]
async fn requests_that_are_too_large_are_told_so() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let k = key("t");
    let path = format!("{}/docs", items.path);
    let plain = [("x-ms-documentdb-partitionkey", k.as_str())];
    let batch = [
        plain[0],
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "True"),
    ];
    // There is room for an item of 2 MB and what is around it.
    for size in [2 * MB + 64 * 1024, 3 * MB, 8 * MB] {
        let filler = "x".repeat(size);
        let large = json!({"id": "large", "k": "t", "text": filler});
        let halves = ["a", "b"].map(|id| {
            let body = json!({"id": id, "k": "t", "text": &filler[..size / 2]});
            json!({"operationType": "Create", "resourceBody": body})
        });
        for (headers, body) in [(&plain[..], large), (&batch, json!(halves))] {
            let body = body.to_string().into_bytes();
            let (status, answer) = items.raw.send_bytes("POST", &path, headers, body).await;
            assert_eq!(status, 413, "{size} bytes");
            let error: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(error["code"], "RequestEntityTooLarge");
        }
    }
    let list = items.send("GET", "docs", "", &[], None).await;
    assert_eq!(list.ids(), [""; 0], "nothing was done");
    account.shutdown().await;
}

#[tokio::test]
async fn a_page_has_no_more_than_four_megabytes() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let k = key("t");
    let now = items.changes(Some("*"), &[]).await;
    let ids = ["a", "b", "c", "d", "e"];
    for id in ids {
        let item = json!({"id": id, "k": "t", "text": "x".repeat(MB + MB / 2)});
        assert_eq!(items.create(&k, &item).await.status, 201);
    }
    let all = ("x-ms-max-item-count", "-1");
    let versions = [all, ("a-im", "Full-Fidelity Feed")];
    let sql = [all, ("x-ms-documentdb-isquery", "true")];
    let query = json!({"query": "SELECT * FROM c"});
    for (method, headers, start) in [
        ("GET", &[all][..], None),
        ("POST", &sql, None),
        ("GET", &[all, FEED], None),
        ("GET", &versions, Some(now.header("etag").to_owned())),
    ] {
        let is_feed = headers.iter().any(|(name, _)| *name == "a-im");
        let (mut after, mut sizes, mut seen) = (start, Vec::new(), Vec::new());
        loop {
            let name = if is_feed {
                "if-none-match"
            } else {
                "x-ms-continuation"
            };
            let after_header = after.as_deref().map(|after| (name, after));
            let headers: Vec<_> = headers.iter().copied().chain(after_header).collect();
            let body = (method == "POST").then_some(&query);
            let page = items.send(method, "docs", &k, &headers, body).await;
            if page.status == 304 {
                break;
            }
            assert_eq!(page.status, 200, "{headers:?}");
            let size: usize = page.header("content-length").parse().unwrap();
            assert!(size <= 4 * MB, "{headers:?}: {size} bytes");
            sizes.push(page.documents().len());
            seen.extend(page.documents().iter().map(|row| {
                let item = row.get("current").unwrap_or(row);
                text(item, "id").to_owned()
            }));
            let next = if is_feed {
                page.header("etag")
            } else {
                page.header("x-ms-continuation")
            };
            if next.is_empty() {
                break;
            }
            after = Some(next.to_owned());
        }
        assert_eq!((sizes, seen.join("")), (vec![2, 2, 1], ids.concat()));
    }
    account.shutdown().await;
}

fn http_date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap();
    let printer = DateTimePrinter::new();
    printer.timestamp_to_rfc9110_string(&time).unwrap()
}

#[tokio::test]
async fn a_feed_from_a_time_has_what_arrived_since_however_old_it_is() {
    let (account, items) = containers(2).await;
    let k = key("t");
    let ts = |answer: &Answer| answer.body["_ts"].as_i64().unwrap();
    items[1].upsert(&k, &item("before")).await;
    set_links(&account, LinkState::Cut);
    let late = ts(&items[0].upsert(&k, &item("late")).await);
    let mut since = 0;
    eventually("the next second", async || {
        since = ts(&items[1].upsert(&k, &item("after")).await);
        since > late
    })
    .await;
    let date = http_date(since);
    let from_then = [("if-modified-since", date.as_str())];
    let page = items[1].changes(None, &from_then).await;
    assert_eq!(page.ids(), ["after"], "{page:?}");
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let page = items[1].changes(None, &from_then).await;
    assert_eq!(page.ids(), ["after", "late"], "{page:?}");
    assert!(page.documents()[1]["_ts"].as_i64().unwrap() < since);
    account.shutdown().await;
}

#[tokio::test]
async fn a_feed_from_a_time_has_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let builder = builder(2).data_dir(Some(folder.path().to_owned()));
        builder.start().await.unwrap()
    };
    let account = open().await;
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items: Vec<Container> = raw.iter().map(|raw| raw.container("c")).collect();
    let k = key("t");
    let ts = |answer: &Answer| answer.body["_ts"].as_i64().unwrap();
    items[1].upsert(&k, &item("before")).await;
    set_links(&account, LinkState::Cut);
    let late = ts(&items[0].upsert(&k, &item("late")).await);
    let mut since = 0;
    eventually("the next second", async || {
        since = ts(&items[1].upsert(&k, &item("after")).await);
        since > late
    })
    .await;
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let date = http_date(since);
    let from_then = [("if-modified-since", date.as_str())];
    let page = items[1].changes(None, &from_then).await;
    assert_eq!(page.ids(), ["after", "late"], "{page:?}");
    account.shutdown().await;

    let account = open().await;
    let items = gateways(&account).remove(1).container("c");
    let page = items.changes(None, &from_then).await;
    assert_eq!(page.ids(), ["after", "late"], "{page:?}");
    let all = items.changes(None, &[]).await;
    assert_eq!(all.ids(), ["before", "after", "late"], "{all:?}");
    account.shutdown().await;
}

#[tokio::test]
async fn offers_are_found_by_whom_they_are_for() {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    raw.create(json!({"id": "without"})).await;
    let throughput = [("x-ms-offer-throughput", "700")];
    let path = "dbs/db/colls";
    let created = raw
        .send("POST", path, &throughput, Some(&definition()))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    let without = raw.send("GET", "dbs/db/colls/without", &[], None).await;
    let sql = [("x-ms-documentdb-isquery", "true")];
    let offers = async |rid: &str| {
        let query = json!({
            "query": "select * from root r where r.offerResourceId= @targetRID",
            "parameters": [{"name": "@targetRID", "value": rid}],
        });
        let found = raw.send("POST", "offers", &sql, Some(&query)).await;
        assert_eq!(found.status, 200, "{found:?}");
        found.body["Offers"].as_array().unwrap().clone()
    };
    let found = offers(rid(&created.body)).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (
            &found[0]["resource"],
            &found[0]["content"]["offerThroughput"]
        ),
        (&created.body["_self"], &json!(700))
    );
    let least = offers(rid(&without.body)).await;
    assert_eq!(least[0]["content"]["offerThroughput"], 400, "{least:?}");
    // Where a database has throughput, its containers share that.
    let shared = json!({"id": "shared"});
    raw.send("POST", "dbs", &throughput, Some(&shared)).await;
    let path = "dbs/shared/colls";
    let sharing = raw.send("POST", path, &[], Some(&definition())).await;
    assert_eq!(sharing.status, 201, "{sharing:?}");
    assert_eq!(offers(rid(&sharing.body)).await, Vec::<Value>::new());
    account.shutdown().await;
}

#[tokio::test]
async fn members_of_a_container_that_mean_nothing_here_are_kept() {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    let mut container = definition();
    let kept = json!({
        "indexingPolicy": {
            "indexingMode": "consistent", "automatic": true, "includedPaths": [{"path": "/k/?"}],
            "excludedPaths": [{"path": "/*"}], "compositeIndexes": [[{"path": "/k", "order": "ascending"}]],
            "vectorIndexes": [{"path": "/vector", "type": "diskANN"}], "fullTextIndexes": [{"path": "/text"}],
        },
        "vectorEmbeddingPolicy": {
            "vectorEmbeddings": [{"path": "/vector", "dataType": "float32", "dimensions": 8, "distanceFunction": "cosine"}],
        },
        "fullTextPolicy": {"defaultLanguage": "en-US", "fullTextPaths": [{"path": "/text", "language": "en-US"}]},
        "computedProperties": [{"name": "lower", "query": "SELECT VALUE LOWER(c.k) FROM c"}],
        "changeFeedPolicy": {"retentionDuration": 10},
        "geospatialConfig": {"type": "Geometry"},
        "ofTomorrow": [null, {"a": 1.5}],
    });
    let kept = kept.as_object().unwrap();
    container.as_object_mut().unwrap().extend(kept.clone());
    assert_eq!(raw.create(container).await.status, 201);
    let path = "dbs/db/colls/c";
    let mut read = raw.send("GET", path, &[], None).await.body;
    read["defaultTtl"] = json!(60);
    let replaced = raw.send("PUT", path, &[], Some(&read)).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    let read = raw.send("GET", path, &[], None).await.body;
    assert_eq!(read, replaced.body);
    assert_eq!(read["defaultTtl"], 60);
    for (name, value) in kept {
        assert_eq!(&read[name], value, "{name}");
    }
    // What a replacement does not say any more is gone, or as at first where it cannot change.
    let replaced = raw.send("PUT", path, &[], Some(&definition())).await.body;
    assert_eq!(replaced["partitionKey"], read["partitionKey"]);
    for name in kept.keys().chain([&"defaultTtl".to_owned()]) {
        assert_ne!(replaced[name], read[name], "{name}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn queries_report_all_their_metrics_when_asked() {
    let (account, items) = containers(1).await;
    for id in ["a", "b", "c"] {
        items[0].upsert(&key("t"), &item(id)).await;
    }
    let name = "x-ms-documentdb-query-metrics";
    let text = "SELECT * FROM c WHERE c.id != 'a'";
    let silent = items[0].query(text, &[]).await;
    assert_eq!(silent.header(name), "");
    let wanted = [("x-ms-documentdb-populatequerymetrics", "True")];
    let answer = items[0].query(text, &wanted).await;
    let metrics = answer.header(name).split(';').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    let metrics: std::collections::BTreeMap<String, f64> = metrics.collect();
    for name in [
        "totalExecutionTimeInMs",
        "queryCompileTimeInMs",
        "queryLogicalPlanBuildTimeInMs",
        "queryPhysicalPlanBuildTimeInMs",
        "queryOptimizationTimeInMs",
        "VMExecutionTimeInMs",
        "indexLookupTimeInMs",
        "documentLoadTimeInMs",
        "systemFunctionExecuteTimeInMs",
        "userFunctionExecuteTimeInMs",
        "retrievedDocumentSize",
        "outputDocumentSize",
        "writeOutputTimeInMs",
        "indexUtilizationRatio",
    ] {
        assert!(metrics[name] >= 0.0, "{name}");
    }
    assert_eq!(
        (
            metrics["retrievedDocumentCount"],
            metrics["outputDocumentCount"]
        ),
        (3.0, 2.0)
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_sorted_query_goes_on_from_a_row() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    let mut rids = Vec::new();
    for (id, n) in [("a", 1), ("b", 2), ("c", 2), ("d", 2), ("e", 3)] {
        let created = items
            .create(&key("t"), &json!({"id": id, "k": "t", "n": n}))
            .await;
        rids.push(rid(&created.body).to_owned());
    }
    items.create(&key("t"), &item("none")).await;
    let headers = [
        ("x-ms-documentdb-isquery", "true"),
        ("x-ms-documentdb-partitionkeyrangeid", "0"),
    ];
    let from = async |order: &str, filter: Value| {
        let query = json!({"query": format!("SELECT * FROM c ORDER BY c.n {order}"), "resumeFilter": filter});
        let answer = items.send("POST", "docs", "", &headers, Some(&query)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.ids().join(" ")
    };
    let c = &rids[2];
    for (order, filter, expected) in [
        ("", json!({"value": [2], "exclude": false}), "b c d e"),
        ("", json!({"value": [2], "exclude": true}), "e"),
        ("", json!({"value": [2], "rid": c}), "c d e"),
        ("", json!({"value": [2], "rid": c, "exclude": true}), "d e"),
        ("", json!({"value": [[]], "exclude": true}), "a b c d e"),
        ("DESC", json!({"value": [2], "exclude": true}), "a none"),
        (
            "DESC",
            json!({"value": [2], "rid": c, "exclude": true}),
            "b a none",
        ),
    ] {
        assert_eq!(
            from(order, filter.clone()).await,
            expected,
            "{order} {filter}"
        );
    }
    for filter in [json!({"value": []}), json!({"value": 2}), json!({})] {
        let query = json!({"query": "SELECT * FROM c ORDER BY c.n", "resumeFilter": filter});
        let refused = items.send("POST", "docs", "", &headers, Some(&query)).await;
        assert_eq!(refused.status, 400, "{filter}: {refused:?}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn definitions_that_mean_the_same_are_the_same() {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    let short = json!({"id": "c", "partitionKey": {"paths": ["/k"]}});
    let created = raw.create(short.clone()).await;
    let key = json!({"paths": ["/k"], "kind": "Hash"});
    assert_eq!(created.body["partitionKey"], key, "as SDKs read it");
    let mut whole = json!({"id": "c", "partitionKey": key, "defaultTtl": 5});
    for policy in [
        json!({"mode": "LastWriterWins", "conflictResolutionPath": "/_ts"}),
        json!({"mode": "LastWriterWins", "conflictResolutionPath": "", "conflictResolutionProcedure": null}),
        json!({}),
    ] {
        whole["conflictResolutionPolicy"] = policy;
        let replaced = raw.send("PUT", "dbs/db/colls/c", &[], Some(&whole)).await;
        assert_eq!(replaced.status, 200, "{replaced:?}");
    }
    let replaced = raw.send("PUT", "dbs/db/colls/c", &[], Some(&short)).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    whole["conflictResolutionPolicy"] = json!({"mode": "Custom"});
    let refused = raw.send("PUT", "dbs/db/colls/c", &[], Some(&whole)).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    account.shutdown().await;
}

#[tokio::test]
async fn consistency_is_honoured_or_refused_whatever_is_asked() {
    let (account, items) = containers(1).await;
    let items = &items[0];
    items.create(&key("t"), &item("a")).await;
    let ahead = ("x-ms-session-token", "0:-1#1000000");
    let level = "x-ms-consistency-level";
    let strategy = "x-ms-cosmos-read-consistency-strategy";
    let body = json!({"query": "SELECT * FROM c"});
    let plan = ("x-ms-cosmos-is-query-plan-request", "True");
    let query = ("x-ms-documentdb-isquery", "true");
    for (name, value, expected) in [
        (level, "Strong", 400),
        (level, "BoundedStaleness", 400),
        (level, "Bogus", 400),
        (strategy, "GlobalStrong", 400),
        (strategy, "LatestCommitted", 400),
        (level, "Eventual", 200),
        (strategy, "Eventual", 200),
        (strategy, "Default", 404),
        (strategy, "Session", 404),
    ] {
        let headers = [ahead, (name, value)];
        let read = items.send("GET", "docs/a", &key("t"), &headers, None).await;
        assert_eq!(read.status, expected, "{name}: {value}");
        if expected == 400 {
            let headers = [plan, query, (name, value)];
            let plan = items.send("POST", "docs", "", &headers, Some(&body)).await;
            let conflicts = items
                .send("GET", "conflicts", "", &headers[2..], None)
                .await;
            assert_eq!((plan.status, conflicts.status), (400, 400), "{value}");
        }
    }
    account.shutdown().await;
}

#[tokio::test]
async fn names_mean_nothing_to_signatures() {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    let name = "operations";
    let database = json!({"id": name});
    let made = raw.send("POST", "dbs", &[], Some(&database)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut container = definition();
    container["id"] = json!(name);
    let path = format!("dbs/{name}/colls");
    let made = raw.send("POST", &path, &[], Some(&container)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let partition = key("t");
    let headers = [("x-ms-documentdb-partitionkey", partition.as_str())];
    let path = format!("{path}/{name}/docs");
    let made = raw.send("POST", &path, &headers, Some(&item(name))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("{path}/{name}");
    let read = raw.send("GET", &path, &headers, None).await;
    assert_eq!(read.status, 200, "{read:?}");
    account.shutdown().await;
}

#[tokio::test]
async fn requests_that_are_nearly_right_are_told_apart() {
    let account = builder(2)
        .write_mode(cosmos_local::WriteMode::Single)
        .start()
        .await
        .unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let posted = raw[0].send("POST", "", &[], Some(&json!({}))).await;
    assert_eq!(posted.status, 405, "the account is only read");
    // A query of databases changes nothing, by whatever it says that it is one.
    let kind = [("content-type", "application/query+json")];
    let query = json!({"query": "SELECT * FROM root", "parameters": null});
    let found = raw[1].send("POST", "dbs", &kind, Some(&query)).await;
    assert_eq!((found.status, &found.body["_count"]), (200, &json!(1)));
    let packed = [("content-encoding", "gzip")];
    let refused = raw[0].send("POST", "dbs", &packed, Some(&json!({}))).await;
    assert_eq!(refused.status, 415, "{refused:?}");
    account.shutdown().await;
}
