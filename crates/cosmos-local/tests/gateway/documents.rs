//! Items of one container.

use cosmos_local::Account;
use serde_json::{Value, json};

use crate::support::{
    Container, FEED, UPSERT, eventually, gateways, key, set_links, settled, start,
};
use cosmos_local::LinkState;

async fn container(definition: Value) -> (Account, Container) {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    let created = raw.create(definition.clone()).await;
    assert_eq!(created.status, 201, "{created:?}");
    let container = raw.container(definition["id"].as_str().unwrap());
    (account, container)
}

fn simple() -> Value {
    json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}})
}

fn with(name: &str, value: Value) -> Value {
    let mut definition = simple();
    definition[name] = value;
    definition
}

#[tokio::test]
async fn patches_are_all_or_nothing() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    items
        .upsert(&k, &json!({"id": "a", "k": "t", "n": 1, "tags": ["x"]}))
        .await;
    let etag = items.read(&k, "a").await.header("etag").to_owned();
    let patched = items
        .patch(&k, "a", json!({"operations": [{"op": "incr", "path": "/n", "value": 2}, {"op": "add", "path": "/tags/-", "value": null}]}))
        .await;
    assert_eq!(patched.status, 200, "{patched:?}");
    assert_eq!(
        (&patched.body["n"], &patched.body["tags"]),
        (&json!(3), &json!(["x", null]))
    );
    assert_ne!(patched.header("etag"), etag);
    assert_eq!(patched.body["_etag"], patched.header("etag"));
    let feed = items.changes(None, &[]).await;
    assert_eq!(feed.ids(), ["a"], "one version, one change");

    for (patch, codes) in [
        (
            json!([{"op": "set", "path": "/n", "value": 9}, {"op": "remove", "path": "/missing"}]),
            (400, 0),
        ),
        (json!([{"op": "set", "path": "/k", "value": "u"}]), (400, 0)),
        (
            json!([{"op": "set", "path": "/_etag", "value": "u"}]),
            (400, 0),
        ),
        (
            json!([{"op": "set", "path": "/ttl", "value": "u"}]),
            (400, 0),
        ),
        (
            json!({"condition": "from c where c.n = 1", "operations": [{"op": "set", "path": "/n", "value": 9}]}),
            (412, 1110),
        ),
        (
            json!({"operations": vec![json!({"op": "incr", "path": "/n", "value": 1}); 11]}),
            (400, 0),
        ),
        (json!("x"), (400, 0)),
    ] {
        let refused = items.patch(&k, "a", patch.clone()).await;
        assert_eq!(refused.codes(), codes, "{patch} {refused:?}");
    }
    assert_eq!(items.read(&k, "a").await.body["n"], 3);
    let missing = items
        .patch(&k, "b", json!([{"op": "set", "path": "/n", "value": 9}]))
        .await;
    assert_eq!(missing.codes(), (404, 0));
    let stale = [("if-match", etag.as_str())];
    let patch = json!([{"op": "set", "path": "/n", "value": 9}]);
    let refused = items
        .send("PATCH", "docs/a", &k, &stale, Some(&patch))
        .await;
    assert_eq!(refused.codes(), (412, 0));
    account.shutdown().await;
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    items
        .upsert(&k, &json!({"id": "old", "k": "t", "n": 1}))
        .await;
    let done = items
        .batch(&k, json!([
            {"operationType": "Create", "resourceBody": {"id": "a", "k": "t", "n": 1}},
            {"operationType": "Patch", "id": "a", "resourceBody": {"operations": [{"op": "incr", "path": "/n", "value": 1}]}},
            {"operationType": "Read", "id": "a"},
            {"operationType": "Upsert", "resourceBody": {"id": "b", "k": "t"}},
            {"operationType": "Replace", "id": "old", "resourceBody": {"id": "old", "k": "t", "n": 2}},
            {"operationType": "Delete", "id": "b"},
        ]))
        .await;
    assert_eq!(done.status, 200, "{done:?}");
    let statuses: Vec<u64> = done
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["statusCode"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 200, 200, 201, 200, 204]);
    assert_eq!(
        done.body[2]["resourceBody"]["n"], 2,
        "an operation sees what those before it did"
    );
    assert_eq!(items.read(&k, "a").await.body["n"], 2);
    assert_eq!(items.read(&k, "b").await.status, 404);
    assert_ne!(done.header("x-ms-session-token"), "");

    let before = items.changes(None, &[]).await.header("etag").to_owned();
    let failed = items
        .batch(
            &k,
            json!([
                {"operationType": "Upsert", "resourceBody": {"id": "a", "k": "t", "n": 9}},
                {"operationType": "Create", "resourceBody": {"id": "old", "k": "t"}},
                {"operationType": "Delete", "id": "a"},
            ]),
        )
        .await;
    assert_eq!(failed.status, 207, "{failed:?}");
    let statuses: Vec<u64> = failed
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["statusCode"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [424, 409, 424]);
    assert_eq!(items.read(&k, "a").await.body["n"], 2);
    assert_eq!(
        items.changes(Some(&before), &[]).await.status,
        304,
        "nothing is in the feed"
    );

    let other = items
        .batch(
            &k,
            json!([{"operationType": "Create", "resourceBody": {"id": "x", "k": "u"}}]),
        )
        .await;
    assert_eq!(
        (other.status, &other.body[0]["subStatusCode"]),
        (207, &json!(1001))
    );
    let read = json!({"operationType": "Read", "id": "a"});
    assert_eq!(
        items
            .batch(&k, Value::Array(vec![read.clone(); 100]))
            .await
            .status,
        200
    );
    assert_eq!(
        items.batch(&k, Value::Array(vec![read; 101])).await.status,
        400
    );
    assert_eq!(
        items
            .batch(&k, json!([{"operationType": "Merge", "id": "a"}]))
            .await
            .body[0]["statusCode"],
        400
    );
    account.shutdown().await;
}

#[tokio::test]
async fn bulk_operations_stand_alone() {
    let (account, items) = container(simple()).await;
    let operations = json!([
        {"operationType": "Create", "partitionKey": key("t"), "resourceBody": {"id": "a", "k": "t"}},
        {"operationType": "Create", "partitionKey": key("t"), "resourceBody": {"id": "a", "k": "t"}},
        {"operationType": "Create", "partitionKey": key("u"), "resourceBody": {"id": "a", "k": "u"}},
    ]);
    let headers = |range| {
        [
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
            ("x-ms-cosmos-batch-continue-on-error", "True"),
            ("x-ms-documentdb-partitionkeyrangeid", range),
        ]
    };
    let gone = items
        .send("POST", "docs", "", &headers("7"), Some(&operations))
        .await;
    assert_eq!(gone.codes(), (410, 1002));
    let done = items
        .send("POST", "docs", "", &headers("0"), Some(&operations))
        .await;
    let statuses: Vec<u64> = done
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["statusCode"].as_u64().unwrap())
        .collect();
    assert_eq!((done.status, statuses), (207, vec![201, 409, 201]));
    account.shutdown().await;
}

#[tokio::test]
async fn expired_items_are_gone_at_once_and_deleted_later() {
    let account = start(2).await;
    let raw = gateways(&account);
    let created = raw[0].create(with("defaultTtl", json!(-1))).await;
    assert_eq!(created.status, 201, "{created:?}");
    let (items, far) = (raw[0].container("c"), raw[1].container("c"));
    let k = key("t");
    items.upsert(&k, &json!({"id": "for-ever", "k": "t"})).await;
    items
        .upsert(&k, &json!({"id": "brief", "k": "t", "ttl": 1}))
        .await;
    assert_eq!(
        items
            .upsert(&k, &json!({"id": "bad", "k": "t", "ttl": 0}))
            .await
            .status,
        400
    );
    eventually("the item expires", async || {
        items.read(&k, "brief").await.status == 404
    })
    .await;
    assert_eq!(
        items.query("SELECT * FROM c", &[]).await.ids(),
        ["for-ever"]
    );
    assert_eq!(items.changes(None, &[]).await.ids(), ["for-ever"]);
    assert_eq!(
        items.send("GET", "docs", "", &[], None).await.ids(),
        ["for-ever"]
    );
    assert_eq!(account.item_count("West US", "db", "c"), Some(1));
    assert_eq!(
        items
            .create(&k, &json!({"id": "brief", "k": "t", "ttl": -1}))
            .await
            .status,
        201,
        "its id is free"
    );

    // With expiry off, what has expired would show again, if it were not deleted.
    items
        .upsert(&k, &json!({"id": "late", "k": "t", "ttl": 1}))
        .await;
    let off = async || {
        let token = items.send("GET", "docs/late", &k, &[], None).await;
        token.status == 404 && token.header("lsn").parse::<u64>().unwrap() >= 6
    };
    eventually("it is deleted", off).await;
    settled(&account).await;
    let replaced = raw[0]
        .send("PUT", "dbs/db/colls/c", &[], Some(&simple()))
        .await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    for items in [&items, &far] {
        assert_eq!(items.read(&k, "late").await.status, 404);
        assert_eq!(items.read(&k, "brief").await.status, 200);
    }
    let mut bad = with("defaultTtl", json!(0));
    bad["id"] = json!("other");
    assert_eq!(raw[0].create(bad).await.status, 400);
    account.shutdown().await;
}

#[tokio::test]
async fn unique_keys_are_unique_under_one_partition_key() {
    let policy = json!({"uniqueKeys": [{"paths": ["/mail", "/kind"]}]});
    let (account, items) = container(with("uniqueKeyPolicy", policy)).await;
    let (t, u) = (key("t"), key("u"));
    let item = |id: &str, k: &str, mail: Value| json!({"id": id, "k": k, "mail": mail, "kind": 1});
    assert_eq!(
        items.create(&t, &item("a", "t", json!("x"))).await.status,
        201
    );
    assert_eq!(
        items.create(&t, &item("b", "t", json!("x"))).await.codes(),
        (409, 3301)
    );
    assert_eq!(
        items.create(&u, &item("b", "u", json!("x"))).await.status,
        201
    );
    assert_eq!(
        items.create(&t, &item("b", "t", json!("y"))).await.status,
        201
    );
    assert_eq!(
        items.upsert(&t, &item("b", "t", json!("x"))).await.status,
        409
    );
    assert_eq!(
        items.upsert(&t, &item("a", "t", json!("x"))).await.status,
        200,
        "its own value"
    );
    assert_eq!(
        items
            .patch(
                &t,
                "b",
                json!([{"op": "set", "path": "/mail", "value": "x"}])
            )
            .await
            .status,
        409
    );
    assert_eq!(
        items.create(&t, &json!({"id": "c", "k": "t"})).await.status,
        201
    );
    assert_eq!(
        items.create(&t, &json!({"id": "d", "k": "t"})).await.status,
        409,
        "a missing member is a value"
    );
    assert_eq!(items.delete(&t, "a").await.status, 204);
    assert_eq!(
        items.create(&t, &item("e", "t", json!("x"))).await.status,
        201,
        "it is free again"
    );
    let swap = json!([
        {"operationType": "Delete", "id": "e"},
        {"operationType": "Create", "resourceBody": item("f", "t", json!("x"))},
        {"operationType": "Create", "resourceBody": item("g", "t", json!("x"))},
    ]);
    let swapped = items.batch(&t, swap).await;
    assert_eq!(
        swapped.body[2]["statusCode"], 409,
        "within a batch too: {swapped:?}"
    );
    assert_eq!(items.read(&t, "e").await.status, 200);

    let mut changed = with("uniqueKeyPolicy", json!({"uniqueKeys": []}));
    let refused = items
        .raw
        .send("PUT", "dbs/db/colls/c", &[], Some(&changed))
        .await;
    assert_eq!(refused.status, 403);
    changed["id"] = json!("other");
    changed["uniqueKeyPolicy"] = json!({"uniqueKeys": vec![json!({"paths": ["/a"]}); 11]});
    assert_eq!(items.raw.create(changed).await.status, 400);
    account.shutdown().await;
}

#[tokio::test]
async fn keys_of_every_kind_are_different_and_prefixes_limit_feeds() {
    let (account, items) = container(simple()).await;
    let keys = [
        json!(0),
        json!(false),
        json!(""),
        json!(null),
        json!({}),
        json!(1.5),
    ];
    for (number, value) in keys.iter().enumerate() {
        let mut item = json!({"id": "same", "number": number});
        if !value.is_object() {
            item["k"] = value.clone();
        }
        let created = items.create(&key(value.clone()), &item).await;
        assert_eq!(created.status, 201, "{value} {created:?}");
    }
    for (number, value) in keys.iter().enumerate() {
        assert_eq!(
            items.read(&key(value.clone()), "same").await.body["number"],
            number
        );
    }
    assert_eq!(
        items
            .create(&key("x"), &json!({"id": "a", "k": "y"}))
            .await
            .codes(),
        (400, 1001)
    );
    assert_eq!(
        items.create("", &json!({"id": "a", "k": "y"})).await.status,
        400
    );
    assert_eq!(
        items
            .create(&key(json!([1])), &json!({"id": "a", "k": [1]}))
            .await
            .status,
        400
    );

    let definition = json!({"id": "h", "partitionKey": {"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2}});
    assert_eq!(items.raw.create(definition).await.status, 201);
    let tree = items.raw.container("h");
    for (a, b) in [("x", "1"), ("x", "2"), ("y", "1")] {
        let id = format!("{a}{b}");
        let created = tree
            .create(
                &json!([a, b]).to_string(),
                &json!({"id": id, "a": a, "b": b}),
            )
            .await;
        assert_eq!(created.status, 201, "{created:?}");
    }
    tree.create(r#"["x",{}]"#, &json!({"id": "x-", "a": "x"}))
        .await;
    let sorted = |answer: crate::support::Answer| {
        let mut ids: Vec<String> = answer.ids().into_iter().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let prefix = key("x");
    let header = [("x-ms-documentdb-partitionkey", prefix.as_str())];
    assert_eq!(
        sorted(tree.query("SELECT * FROM c", &header).await),
        ["x-", "x1", "x2"]
    );
    assert_eq!(
        sorted(tree.changes(None, &header).await),
        ["x-", "x1", "x2"]
    );
    assert_eq!(
        sorted(tree.send("GET", "docs", &prefix, &[], None).await),
        ["x-", "x1", "x2"]
    );
    assert_eq!(tree.read(r#"["x",{}]"#, "x-").await.status, 200);
    assert_eq!(
        tree.read(&prefix, "x1").await.status,
        400,
        "an item needs the whole key"
    );

    assert_eq!(items.raw.create(json!({"id": "none"})).await.status, 201);
    let none = items.raw.container("none");
    assert_eq!(none.create("[]", &json!({"id": "a"})).await.status, 201);
    assert_eq!(none.read("[]", "a").await.status, 200);
    account.shutdown().await;
}

#[tokio::test]
async fn sizes_ids_and_preconditions_are_checked() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let frame = json!({"id": "big", "k": "t", "text": ""}).to_string().len();
    let sized = |bytes: usize| json!({"id": "big", "k": "t", "text": "x".repeat(bytes - frame)});
    let most = 2 * 1024 * 1024;
    assert_eq!(items.upsert(&k, &sized(most)).await.status, 201);
    let too_large = items.upsert(&k, &sized(most + 1)).await;
    assert_eq!(
        (too_large.status, &too_large.body["code"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    let patch = json!([{"op": "add", "path": "/more", "value": 1}]);
    assert_eq!(items.patch(&k, "big", patch).await.status, 413);
    assert_eq!(
        items
            .upsert(&k, &json!({"id": "a/b", "k": "t"}))
            .await
            .status,
        400
    );
    let odd = "a+@=&%25 ü";
    assert_eq!(
        items.upsert(&k, &json!({"id": odd, "k": "t"})).await.status,
        201
    );
    assert_eq!(items.read(&k, odd).await.body["id"], odd);

    let first = items.upsert(&k, &json!({"id": "a", "k": "t"})).await;
    let rid = first.body["_rid"].clone();
    let etag = first.header("etag").to_owned();
    let minimal = items
        .send(
            "POST",
            "docs",
            &k,
            &[UPSERT, ("prefer", "return=minimal")],
            Some(&json!({"id": "a", "k": "t"})),
        )
        .await;
    assert_eq!((minimal.status, &minimal.body), (200, &Value::Null));
    assert_ne!(
        minimal.header("etag"),
        etag,
        "the same content is a new version"
    );
    assert_ne!(minimal.header("x-ms-session-token"), "");
    let item = json!({"id": "a", "k": "t"});
    for (method, path) in [("PUT", "docs/a"), ("DELETE", "docs/a"), ("POST", "docs")] {
        let headers = [UPSERT, ("if-match", etag.as_str())];
        let headers = if method == "POST" {
            &headers[..]
        } else {
            &headers[1..]
        };
        let stale = items.send(method, path, &k, headers, Some(&item)).await;
        assert_eq!(stale.codes(), (412, 0), "{method}");
    }
    let exists = items
        .send("PUT", "docs/a", &k, &[("if-match", "*")], Some(&item))
        .await;
    assert_eq!((exists.status, &exists.body["_rid"]), (200, &rid));
    let not_modified = [("if-none-match", exists.header("etag"))];
    let read = items.send("GET", "docs/a", &k, &not_modified, None).await;
    assert_eq!(
        (read.status, read.header("etag")),
        (304, exists.header("etag"))
    );
    let other = items
        .send(
            "PUT",
            "docs/a",
            &k,
            &[],
            Some(&json!({"id": "b", "k": "t"})),
        )
        .await;
    assert_eq!(other.status, 400);
    account.shutdown().await;
}

#[tokio::test]
async fn a_container_made_anew_is_told_apart() {
    let (account, items) = container(simple()).await;
    let old = items.raw.send("GET", &items.path, &[], None).await.body["_rid"]
        .as_str()
        .unwrap()
        .to_owned();
    items.upsert(&key("t"), &json!({"id": "a", "k": "t"})).await;
    let etag = items.changes(None, &[]).await.header("etag").to_owned();
    assert_eq!(
        items
            .raw
            .send("DELETE", &items.path, &[], None)
            .await
            .status,
        204
    );
    assert_eq!(items.read(&key("t"), "a").await.codes(), (404, 1003));
    assert_eq!(items.changes(Some(&etag), &[]).await.codes(), (404, 1003));
    items.raw.create(simple()).await;
    let intended = [("x-ms-cosmos-intended-collection-rid", old.as_str())];
    assert_eq!(
        items
            .send("GET", "docs/a", &key("t"), &intended, None)
            .await
            .codes(),
        (400, 1024)
    );
    assert_eq!(items.changes(None, &intended).await.codes(), (400, 1024));
    assert_eq!(
        items
            .send("GET", "pkranges", "", &intended, None)
            .await
            .codes(),
        (400, 1024)
    );
    assert_eq!(items.read(&key("t"), "a").await.codes(), (404, 0));
    account.shutdown().await;
}

#[tokio::test]
async fn a_session_reads_what_it_wrote_or_is_told_to_wait() {
    let account = start(2).await;
    let raw = gateways(&account);
    raw[0].create(simple()).await;
    let (here, there) = (raw[0].container("c"), raw[1].container("c"));
    let k = key("t");
    set_links(&account, LinkState::Cut);
    let written = here.upsert(&k, &json!({"id": "a", "k": "t"})).await;
    // Many writes of its own do not make up for one of another region.
    for n in 0..5 {
        there
            .upsert(&k, &json!({"id": n.to_string(), "k": "t"}))
            .await;
    }
    let token = written.header("x-ms-session-token").to_owned();
    assert_eq!(token.matches(':').count(), 1, "one range: {token}");
    let composite = format!("7:1#99#1=99,{token}");
    for token in [&token, &composite] {
        let session = [("x-ms-session-token", token.as_str())];
        let read = there.send("GET", "docs/a", &k, &session, None).await;
        assert_eq!(read.codes(), (404, 1002));
        assert_ne!(read.header("x-ms-session-token"), "");
        let write = there
            .send(
                "POST",
                "docs",
                &k,
                &[UPSERT, session[0]],
                Some(&json!({"id": "b", "k": "t"})),
            )
            .await;
        assert_eq!(
            write.codes(),
            (404, 1002),
            "a session's writes stay behind what it read"
        );
        let weaker = [session[0], ("x-ms-consistency-level", "Eventual")];
        assert_eq!(
            there.send("GET", "docs/a", &k, &weaker, None).await.codes(),
            (404, 0)
        );
    }
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let session = [("x-ms-session-token", composite.as_str())];
    assert_eq!(
        there.send("GET", "docs/a", &k, &session, None).await.status,
        200
    );
    for (level, status) in [
        ("Strong", 400),
        ("BoundedStaleness", 400),
        ("Session", 200),
        ("ConsistentPrefix", 200),
    ] {
        let headers = [("x-ms-consistency-level", level)];
        assert_eq!(
            there.send("GET", "docs/a", &k, &headers, None).await.status,
            status,
            "{level}"
        );
    }
    assert_eq!(
        there
            .send(
                "GET",
                "docs/a",
                &k,
                &[("x-ms-session-token", "nonsense")],
                None
            )
            .await
            .status,
        400
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_feed_from_now_on_an_empty_container_misses_nothing() {
    let (account, items) = container(simple()).await;
    let now = items.changes(Some("*"), &[]).await;
    assert_eq!((now.status, now.header("x-ms-item-count")), (304, "0"));
    items.upsert(&key("t"), &json!({"id": "a", "k": "t"})).await;
    let page = items.changes(Some(now.header("etag")), &[]).await;
    assert_eq!(
        (page.ids(), page.header("x-ms-item-count")),
        (vec!["a"], "1")
    );
    assert_eq!(page.documents()[0]["_lsn"].as_u64().unwrap(), 1);
    assert_eq!(
        items
            .changes(None, &[("x-ms-start-epk", "xyz"), ("x-ms-end-epk", "FF")])
            .await
            .status,
        400
    );
    account.shutdown().await;
}

/// However much has changed elsewhere: those of one key are found among few changes, or few among its items.
#[tokio::test]
async fn the_feed_of_a_partition_key_is_in_the_order_of_change() {
    let (account, items) = container(simple()).await;
    let mut expected = Vec::new();
    for round in 0..12 {
        for k in ["t", "other"] {
            let operations: Vec<Value> = (0..100)
                .map(|n| {
                    // Ids run against the order of change.
                    let id = format!("{:05}", 99_999 - (round * 100 + n));
                    json!({"operationType": "Create", "resourceBody": {"id": id, "k": k}})
                })
                .collect();
            if k == "t" {
                let id = |operation: &Value| operation["resourceBody"]["id"].clone();
                expected.extend(operations.iter().map(id));
            }
            let done = items.batch(&key(k), json!(operations)).await;
            assert_eq!(done.status, 200, "{done:?}");
        }
    }
    let headers = [FEED, ("x-ms-max-item-count", "250")];
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let mut headers = headers.to_vec();
        if !after.is_empty() {
            headers.push(("if-none-match", &after));
        }
        let page = items.send("GET", "docs", &key("t"), &headers, None).await;
        page.header("etag").clone_into(&mut after);
        if page.status == 304 {
            break;
        }
        found.extend(page.documents().iter().map(|item| item["id"].clone()));
    }
    assert_eq!(found, expected);
    account.shutdown().await;
}

#[tokio::test]
async fn a_region_with_little_throughput_says_when_to_come_again() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let charge = |answer: &crate::support::Answer| answer.header("x-ms-request-charge").to_owned();
    let created = items.upsert(&k, &json!({"id": "a", "k": "t"})).await;
    assert_eq!(charge(&created), "4.95");
    assert_eq!(
        charge(&items.upsert(&k, &json!({"id": "a", "k": "t"})).await),
        "9.90"
    );
    assert_eq!(charge(&items.read(&k, "a").await), "1.00");
    account.limit_throughput("West US", Some(5)).unwrap();
    let mut refused = None;
    for _ in 0..100 {
        let answer = items.upsert(&k, &json!({"id": "a", "k": "t"})).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred writes are more than 5 units a second");
    assert_eq!(
        (refused.substatus, &refused.body["code"]),
        (3200, &json!("TooManyRequests"))
    );
    let wait: u64 = refused.header("x-ms-retry-after-ms").parse().unwrap();
    assert!((1..5000).contains(&wait), "{wait}");
    assert_eq!(
        items.raw.send("GET", "", &[], None).await.status,
        200,
        "the account is never refused"
    );
    account.limit_throughput("West US", None).unwrap();
    assert_eq!(items.read(&k, "a").await.status, 200);
    account.shutdown().await;
}

/// A stream of operations as the .NET SDK sends it: type, partition key, id and body of each.
fn hybrid(operations: &[(i32, &str, &str, &str)]) -> Vec<u8> {
    let mut stream = vec![0x81, 0xf0, 0xd8, 0xff, 0x7f, 0x01, 10, 0, 0, 0];
    for (kind, partition, id, body) in operations {
        let mut row = vec![0x81, 0x70, 0x54, 0xe1, 0x7f];
        let bit = |text: &str, bit: u8| u8::from(!text.is_empty()) << bit;
        row.push(3 | bit(partition, 2) | bit(id, 4) | bit(body, 6));
        row.extend(kind.to_le_bytes());
        row.extend(2_i32.to_le_bytes());
        for text in [partition, id, body] {
            if !text.is_empty() {
                row.push(u8::try_from(text.len()).unwrap());
                row.extend(text.as_bytes());
            }
        }
        stream.extend([0x81, 0xf1, 0xd8, 0xff, 0x7f]);
        stream.extend(u32::try_from(row.len()).unwrap().to_le_bytes());
        stream.extend(crc32fast::hash(&row).to_le_bytes());
        stream.extend(row);
    }
    stream
}

/// Statuses and texts of the records of a stream of results.
fn results(stream: &[u8]) -> Vec<(i32, String)> {
    let mut rest = &stream[10..];
    let mut results = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[5..9].try_into().unwrap()) as usize;
        let row = &rest[13..13 + length];
        assert_eq!(crc32fast::hash(row).to_le_bytes(), rest[9..13]);
        let status = i32::from_le_bytes(row[6..10].try_into().unwrap());
        results.push((status, String::from_utf8_lossy(&row[14..]).into_owned()));
        rest = &rest[13 + length..];
    }
    results
}

#[tokio::test]
async fn batches_of_the_dotnet_sdk_are_answered_in_kind() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let operations = hybrid(&[
        (0, "", "", r#"{"id":"a","k":"t","n":1}"#),
        (
            1,
            "",
            "a",
            r#"{"operations":[{"op":"incr","path":"/n","value":1}]}"#,
        ),
        (2, "", "a", ""),
        (20, "", "", r#"{"id":"b","k":"t"}"#),
        (4, "", "b", ""),
    ]);
    let atomic = [
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "True"),
        ("x-ms-documentdb-partitionkey", k.as_str()),
    ];
    let path = format!("{}/docs", items.path);
    let done = items
        .raw
        .send_bytes("POST", &path, &atomic, operations)
        .await;
    assert_eq!(done.0, 200);
    let done = results(&done.1);
    let statuses: Vec<i32> = done.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 200, 200, 201, 204]);
    assert!(done[2].1.contains(r#""n":2"#), "{done:?}");

    let failing = hybrid(&[(4, "", "a", ""), (4, "", "b", "")]);
    let failed = items.raw.send_bytes("POST", &path, &atomic, failing).await;
    let statuses: Vec<i32> = results(&failed.1)
        .iter()
        .map(|(status, _)| *status)
        .collect();
    assert_eq!((failed.0, statuses), (207, vec![424, 404]));
    assert_eq!(items.read(&k, "a").await.status, 200);

    let bulk = hybrid(&[
        (0, r#"["u"]"#, "", r#"{"id":"a","k":"u"}"#),
        (0, r#"["t"]"#, "", r#"{"id":"a","k":"t"}"#),
    ]);
    let headers = [
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "False"),
        ("x-ms-cosmos-batch-continue-on-error", "True"),
        ("x-ms-documentdb-partitionkeyrangeid", "0"),
    ];
    let done = items.raw.send_bytes("POST", &path, &headers, bulk).await;
    let statuses: Vec<i32> = results(&done.1).iter().map(|(status, _)| *status).collect();
    assert_eq!((done.0, statuses), (207, vec![201, 409]));
    account.shutdown().await;
}

#[tokio::test]
async fn all_versions_and_deletes_are_read_in_their_order() {
    let (account, items) = container(with("defaultTtl", json!(-1))).await;
    let k = key("t");
    let mode = [("a-im", "Full-Fidelity Feed"), ("x-ms-max-item-count", "2")];
    let read = async |after: Option<&str>, more: &[(&str, &str)]| {
        let mut headers = [&mode[..], more].concat();
        if let Some(after) = after {
            headers.push(("if-none-match", after));
        }
        items.send("GET", "docs", "", &headers, None).await
    };
    assert_eq!(read(None, &[]).await.status, 400, "not from the beginning");
    let date = ("if-modified-since", "Thu, 06 Aug 2026 10:00:00 GMT");
    assert_eq!(
        read(Some("*"), &[date]).await.status,
        400,
        "nor from a time"
    );
    items.upsert(&k, &json!({"id": "before", "k": "t"})).await;
    let now = read(Some("*"), &[]).await;
    assert_eq!(now.status, 304);

    items
        .upsert(&k, &json!({"id": "a", "k": "t", "n": 1}))
        .await;
    items
        .upsert(&k, &json!({"id": "a", "k": "t", "n": 2}))
        .await;
    items.delete(&k, "a").await;
    items
        .upsert(&k, &json!({"id": "brief", "k": "t", "ttl": 1}))
        .await;
    let drain = async || {
        let (mut rows, mut after) = (Vec::new(), now.header("etag").to_owned());
        loop {
            let page = read(Some(&after), &[]).await;
            after = page.header("etag").to_owned();
            if page.status == 304 {
                return rows;
            }
            rows.extend(page.documents().to_vec());
        }
    };
    eventually("the expiry is in the feed", async || {
        drain().await.len() == 5
    })
    .await;
    let rows = drain().await;
    let seen: Vec<(&Value, &Value)> = rows
        .iter()
        .map(|row| (&row["metadata"]["operationType"], &row["current"]["n"]))
        .collect();
    let null = Value::Null;
    assert_eq!(
        seen,
        [
            (&json!("create"), &json!(1)),
            (&json!("replace"), &json!(2)),
            (&json!("delete"), &null),
            (&json!("create"), &null),
            (&json!("delete"), &null),
        ]
    );
    for pair in rows[..3].windows(2) {
        assert_eq!(
            pair[1]["metadata"]["previousImageLSN"],
            pair[0]["metadata"]["lsn"]
        );
    }
    assert_eq!(
        (
            &rows[2]["metadata"]["id"],
            &rows[2]["metadata"]["partitionKey"]
        ),
        (&json!("a"), &json!({"k": "t"}))
    );
    let expired: Vec<&Value> = rows
        .iter()
        .map(|row| &row["metadata"]["timeToLiveExpired"])
        .collect();
    assert_eq!(expired, [false, false, false, false, true]);
    assert!(
        rows.iter()
            .all(|row| row["metadata"]["crts"].as_u64().unwrap() > 0)
    );
    account.shutdown().await;
}

#[tokio::test]
async fn metadata_is_queried_and_throughput_is_kept() {
    let account = start(1).await;
    let raw = gateways(&account).remove(0);
    raw.create(json!({"id": "plain"})).await;
    let with = |header| [("x-ms-offer-throughput", header)];
    let path = "dbs/db/colls";
    let refused = raw.send("POST", path, &with("7"), Some(&simple())).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let created = raw.send("POST", path, &with("500"), Some(&simple())).await;
    assert_eq!(created.status, 201, "{created:?}");
    let sql = [("x-ms-documentdb-isquery", "true")];
    let query = |text: &str, name: &str, value: &Value| json!({"query": text, "parameters": [{"name": name, "value": value}]});
    let body = query("SELECT * FROM root r WHERE r.id = @id", "@id", &json!("c"));
    let found = raw.send("POST", path, &sql, Some(&body)).await;
    assert_eq!(
        (
            &found.body["_count"],
            &found.body["DocumentCollections"][0]["_rid"]
        ),
        (&json!(1), &created.body["_rid"])
    );
    let body = query("SELECT * FROM root r WHERE r.id = @id", "@id", &json!("db"));
    assert_eq!(
        raw.send("POST", "dbs", &sql, Some(&body)).await.body["_count"],
        1
    );

    let body = query(
        "SELECT * FROM root r WHERE r.resource=@link",
        "@link",
        &created.body["_self"],
    );
    let found = raw.send("POST", "offers", &sql, Some(&body)).await;
    let mut offer = found.body["Offers"][0].clone();
    assert_eq!(
        (
            &offer["content"]["offerThroughput"],
            &offer["offerResourceId"]
        ),
        (&json!(500), &created.body["_rid"])
    );
    offer["content"] = json!({"offerAutopilotSettings": {"maxThroughput": 4000}});
    let path = format!("offers/{}", offer["_rid"].as_str().unwrap());
    let replaced = raw.send("PUT", &path, &[], Some(&offer)).await;
    assert_eq!(
        (
            replaced.status,
            replaced.header("x-ms-offer-replace-pending")
        ),
        (200, "false"),
        "{replaced:?}"
    );
    assert_eq!(
        raw.send("GET", &path, &[], None).await.body["content"]["offerAutopilotSettings"]["maxThroughput"],
        4000
    );
    raw.send("DELETE", "dbs/db/colls/c", &[], None).await;
    let left = raw.send("GET", "offers", &[], None).await.body;
    let mut left = left["Offers"].as_array().unwrap().iter();
    assert!(left.all(|left| left["offerResourceId"] != offer["offerResourceId"]));
    account.shutdown().await;
}

#[tokio::test]
async fn an_item_that_is_made_anew_after_its_time_has_expired_before() {
    let (account, items) = container(with("defaultTtl", json!(-1))).await;
    let k = key("t");
    let start = [("a-im", "Full-Fidelity Feed"), ("if-none-match", "*")];
    let start = items.send("GET", "docs", "", &start, None).await;
    let brief = json!({"id": "brief", "k": "t", "ttl": 1});
    assert_eq!(items.create(&k, &brief).await.status, 201);
    // As soon as it is over, whether it was deleted already or not.
    eventually("its id is free", async || {
        items.create(&k, &brief).await.status == 201
    })
    .await;
    let after = start.header("etag");
    let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", after)];
    let page = items.send("GET", "docs", "", &headers, None).await;
    let seen = page.documents().iter().map(|row| {
        let metadata = &row["metadata"];
        let expired = metadata["timeToLiveExpired"] == true;
        (metadata["operationType"].as_str().unwrap(), expired)
    });
    let seen: Vec<_> = seen.take(3).collect();
    assert_eq!(
        seen,
        [("create", false), ("delete", true), ("create", false)]
    );
    account.shutdown().await;
}

#[tokio::test]
async fn numbers_are_doubles_however_they_are_written() {
    let keys = json!({"uniqueKeys": [{"paths": ["/u"]}]});
    let mut definition = with("uniqueKeyPolicy", keys);
    definition["defaultTtl"] = json!(-1);
    let (account, items) = container(definition).await;
    let k = key("t");
    let item =
        json!({"id": "a", "k": "t", "u": 1.0, "ttl": 1000.0, "deep": [{"n": -3.0}], "half": 0.5});
    let created = items.create(&k, &item).await;
    assert_eq!(created.status, 201, "{created:?}");
    let read = items.read(&k, "a").await.body;
    let texts = [
        &read["u"],
        &read["ttl"],
        &read["deep"][0]["n"],
        &read["half"],
    ]
    .map(Value::to_string);
    assert_eq!(texts, ["1", "1000", "-3", "0.5"]);
    let same = json!({"id": "b", "k": "t", "u": 1});
    assert_eq!(items.create(&k, &same).await.status, 409);
    account.shutdown().await;
}

#[tokio::test]
async fn what_is_read_at_once_has_an_end() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    for id in ["a", "b", "c", "d"] {
        let large = json!({"id": id, "k": "t", "x": "x".repeat(1_500_000)});
        assert_eq!(items.create(&k, &large).await.status, 201);
    }
    // A row that has the same thing twice is twice as large.
    let page = items.query("SELECT c.x AS a, c.x AS b FROM c", &[]).await;
    assert_eq!(page.documents().len(), 1);
    assert_ne!(page.header("x-ms-continuation"), "");
    let read = |id: &str| json!({"operationType": "Read", "id": id});
    let few = items.batch(&k, json!([read("a"), read("b")])).await;
    assert_eq!(few.status, 200, "{:?}", few.headers);
    let many = items
        .batch(&k, json!([read("a"), read("b"), read("c")]))
        .await;
    let results = many.body.as_array().unwrap().iter();
    let statuses: Vec<&Value> = results.map(|it| &it["statusCode"]).collect();
    assert_eq!(statuses, [424, 424, 413]);
    assert_eq!(many.body[2]["subStatusCode"], 3402, "{:?}", many.body[2]);
    account.shutdown().await;
}

#[tokio::test]
async fn an_item_can_be_written_only_where_there_is_none() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let none = ("if-none-match", "*");
    let item = |n: u64| json!({"id": "a", "k": "t", "n": n});
    let write = async |headers: &[(&str, &str)], n| {
        let item = item(n);
        let written = items.send("POST", "docs", &k, headers, Some(&item)).await;
        written.codes()
    };
    let upsert = async |n| write(&[UPSERT, none], n).await;
    let create = async |n| write(&[none], n).await;
    assert_eq!(upsert(1).await, (201, 0));
    assert_eq!(upsert(2).await, (412, 0));
    assert_eq!(create(2).await, (409, 0));
    assert_eq!(items.read(&k, "a").await.body["n"], 1);
    items.delete(&k, "a").await;
    assert_eq!(create(3).await, (201, 0));
    items.delete(&k, "a").await;
    assert_eq!(upsert(4).await, (201, 0));
    assert_eq!(items.read(&k, "a").await.body["n"], 4);
    account.shutdown().await;
}

#[tokio::test]
async fn operations_of_a_batch_have_conditions_of_their_own() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let item = |id: &str, n: u64| json!({"id": id, "k": "t", "n": n});
    let first = items.upsert(&k, &item("a", 1)).await;
    let stale = first.header("etag").to_owned();
    let second = items.upsert(&k, &item("a", 2)).await;
    let current = second.header("etag").to_owned();
    let before = items.changes(None, &[]).await.header("etag").to_owned();
    let incr = json!([{"op": "incr", "path": "/n", "value": 1}]);
    let statuses = |answer: &crate::support::Answer| -> Vec<u64> {
        let results = answer.body.as_array().unwrap().iter();
        results
            .map(|it| it["statusCode"].as_u64().unwrap())
            .collect()
    };
    for refused in [
        json!({"operationType": "Replace", "id": "a", "ifMatch": stale, "resourceBody": item("a", 3)}),
        json!({"operationType": "Upsert", "ifMatch": stale, "resourceBody": item("a", 3)}),
        json!({"operationType": "Patch", "id": "a", "ifMatch": stale, "resourceBody": {"operations": incr}}),
        json!({"operationType": "Delete", "id": "a", "ifMatch": stale}),
        json!({"operationType": "Upsert", "ifNoneMatch": "*", "resourceBody": item("a", 3)}),
    ] {
        let operations = json!([
            {"operationType": "Create", "resourceBody": item("new", 1)},
            refused,
            {"operationType": "Read", "id": "a"},
        ]);
        let failed = items.batch(&k, operations).await;
        let expected = (207, vec![424, 412, 424]);
        assert_eq!((failed.status, statuses(&failed)), expected, "{refused}");
        assert_eq!(items.read(&k, "new").await.status, 404);
        assert_eq!(items.changes(Some(&before), &[]).await.status, 304);
    }
    let operations = json!([
        {"operationType": "Upsert", "ifNoneMatch": "*", "resourceBody": item("new", 1)},
        {"operationType": "Replace", "id": "a", "ifMatch": current, "resourceBody": item("a", 3)},
        {"operationType": "Delete", "id": "new", "ifMatch": "*"},
    ]);
    let done = items.batch(&k, operations).await;
    assert_eq!((done.status, statuses(&done)), (200, vec![201, 200, 204]));
    assert_eq!(items.read(&k, "a").await.body["n"], 3);
    account.shutdown().await;
}

#[tokio::test]
async fn system_properties_are_the_regions_whatever_a_client_sends() {
    let (account, items) = container(simple()).await;
    let k = key("t");
    let container = items.raw.send("GET", &items.path, &[], None).await.body;
    let now = || jiff::Timestamp::now().as_second();
    let sent = json!({
        "id": "a", "k": "t", "n": 1, "_rid": "mine", "_self": "mine", "_etag": "mine", "_attachments": "mine",
        "_ts": 1, "_lsn": 1,
    });
    let check = |item: &Value, since: i64| {
        let rid = item["_rid"].as_str().unwrap();
        let own = format!("{}docs/{rid}/", container["_self"].as_str().unwrap());
        assert_eq!(item["_self"], own.as_str());
        assert_eq!(item["_attachments"], "attachments/");
        let time = item["_ts"].as_i64().unwrap();
        assert!(since <= time && time <= now(), "{item}");
        assert_ne!(item["_etag"], "mine");
        let members = item.as_object().unwrap().keys();
        let expected = [
            "id",
            "k",
            "n",
            "_rid",
            "_self",
            "_etag",
            "_attachments",
            "_ts",
        ];
        let mut members: Vec<&str> = members.map(String::as_str).collect();
        members.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(members, expected);
    };
    let mut rids = Vec::new();
    for (method, path, headers) in [
        ("POST", "docs", &[][..]),
        ("POST", "docs", &[UPSERT][..]),
        ("PUT", "docs/a", &[][..]),
    ] {
        let since = now();
        let written = items.send(method, path, &k, headers, Some(&sent)).await;
        assert!(matches!(written.status, 200 | 201), "{written:?}");
        check(&written.body, since);
        assert_eq!(written.body["_etag"], written.header("etag"));
        assert_eq!(items.read(&k, "a").await.body, written.body);
        rids.push(written.body["_rid"].clone());
    }
    assert!(rids.iter().all(|rid| *rid == rids[0]), "{rids:?}");
    let mut other = sent.clone();
    other["id"] = json!("b");
    let since = now();
    let batch = json!([{"operationType": "Create", "resourceBody": other}]);
    let done = items.batch(&k, batch).await;
    check(&done.body[0]["resourceBody"], since);
    assert_eq!(done.body[0]["resourceBody"]["_etag"], done.body[0]["eTag"]);
    account.shutdown().await;
}

#[tokio::test]
async fn items_without_a_time_to_live_have_that_of_their_container() {
    let account = start(2).await;
    let raw = gateways(&account);
    assert_eq!(
        raw[0].create(with("defaultTtl", json!(1))).await.status,
        201
    );
    let both = [raw[0].container("c"), raw[1].container("c")];
    let k = key("t");
    let versions = async |items: &Container, after: &str| {
        let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", after)];
        items.send("GET", "docs", "", &headers, None).await
    };
    let mut starts = Vec::new();
    for items in &both {
        starts.push(versions(items, "*").await.header("etag").to_owned());
    }
    for item in [
        json!({"id": "for-ever", "k": "t", "ttl": -1}),
        json!({"id": "long", "k": "t", "ttl": 1000}),
        json!({"id": "usual", "k": "t"}),
    ] {
        assert_eq!(both[0].upsert(&k, &item).await.status, 201);
    }
    settled(&account).await;
    for (items, start) in both.iter().zip(&starts) {
        eventually("the item expires", async || {
            items.read(&k, "usual").await.status == 404
        })
        .await;
        let expired = async || -> Vec<Value> {
            let page = versions(items, start).await;
            let rows = page.documents().iter().map(|row| &row["metadata"]);
            let expired = rows.filter(|it| it["timeToLiveExpired"] == true);
            let expired = expired.map(|it| json!([it["operationType"], it["id"]]));
            expired.collect()
        };
        eventually("the expiry is in the feed", async || {
            !expired().await.is_empty()
        })
        .await;
        for row in expired().await {
            assert_eq!(row, json!(["delete", "usual"]));
        }
        for id in ["for-ever", "long"] {
            assert_eq!(items.read(&k, id).await.status, 200, "{id}");
        }
    }
    account.shutdown().await;
}
