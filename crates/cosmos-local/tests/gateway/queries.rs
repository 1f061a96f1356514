//! Queries as clients without an SDK see them.

use serde_json::{Value, json};

use crate::support::{Answer, Container, builder, gateways, key};

async fn filled(items: impl IntoIterator<Item = Value>) -> (cosmos_local::Account, Container) {
    let account = builder(1).start().await.unwrap();
    let raw = gateways(&account);
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}});
    assert_eq!(raw[0].create(definition).await.status, 201);
    let container = raw[0].container("c");
    for item in items {
        let partition = key(item["k"].as_str().unwrap());
        assert_eq!(container.upsert(&partition, &item).await.status, 201);
    }
    (account, container)
}

/// A query within the partition key `t`.
async fn ask(items: &Container, sql: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [headers, &[("x-ms-documentdb-isquery", "true")]].concat();
    let body = json!({"query": sql});
    items
        .send("POST", "docs", &key("t"), &headers, Some(&body))
        .await
}

#[tokio::test]
async fn folded_rows_come_in_pages_too() {
    let item = |n: u64| json!({"id": n.to_string(), "k": "t", "kind": n % 5, "n": n});
    let (account, items) = filled((0..20).map(item)).await;
    for (sql, expected) in [
        ("SELECT DISTINCT VALUE c.kind FROM c", 5),
        (
            "SELECT DISTINCT VALUE c.kind FROM c ORDER BY c.kind DESC",
            5,
        ),
        ("SELECT DISTINCT VALUE c.kind FROM c OFFSET 1 LIMIT 3", 3),
        ("SELECT c.kind, SUM(c.n) AS sum FROM c GROUP BY c.kind", 5),
        (
            "SELECT VALUE s.kind FROM (SELECT DISTINCT c.kind FROM c) AS s WHERE s.kind > 0",
            4,
        ),
    ] {
        let whole = ask(&items, sql, &[]).await;
        assert_eq!(whole.status, 200, "{sql}: {}", whole.body);
        assert_eq!(whole.header("x-ms-continuation"), "", "{sql}");
        // A number of rows says nothing about another query.
        let two = ("x-ms-max-item-count", "2");
        let other = ask(&items, "SELECT DISTINCT VALUE c.n FROM c", &[two]).await;
        let foreign = other.header("x-ms-continuation");
        let refused = ask(&items, sql, &[("x-ms-continuation", foreign)]).await;
        assert_eq!(refused.status, 400, "{sql}");

        let mut rows = Vec::new();
        let mut continuation = String::new();
        loop {
            let headers = [two, ("x-ms-continuation", &continuation)];
            let given = if rows.is_empty() { 1 } else { 2 };
            let page = ask(&items, sql, &headers[..given]).await;
            assert_eq!(page.status, 200, "{sql}: {}", page.body);
            let found = page.documents();
            assert!((1..=2).contains(&found.len()), "{sql}: {found:?}");
            rows.extend_from_slice(found);
            page.header("x-ms-continuation")
                .clone_into(&mut continuation);
            if continuation.is_empty() {
                break;
            }
        }
        assert_eq!(json!(rows), whole.body["Documents"], "{sql}");
        assert_eq!(rows.len(), expected, "{sql}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn folding_in_from_is_for_one_partition_key() {
    let item = |n: u64| json!({"id": n.to_string(), "k": "t", "kind": if n < 3 {"1"} else {"b"}});
    let (account, items) = filled((0..6).map(item)).await;
    // The outer filter is about the rows of the subquery: no item with this id has a say in it.
    let sql = "SELECT VALUE s.id FROM (SELECT DISTINCT c.kind AS id FROM c) AS s WHERE s.id = 'b'";
    assert_eq!(ask(&items, sql, &[]).await.body["Documents"], json!(["b"]));
    let sql = "SELECT VALUE s.id FROM (SELECT TOP 2 * FROM c ORDER BY c.id) AS s WHERE s.id = '5'";
    assert_eq!(ask(&items, sql, &[]).await.body["Documents"], json!([]));

    let across = items.query(sql, &[]).await;
    assert_eq!(across.status, 400);
    let message = across.body["message"].as_str().unwrap();
    assert!(message.contains("cannot span partitions"), "{message}");
    account.shutdown().await;
}

#[tokio::test]
async fn what_is_nested_too_deep_is_refused_and_hurts_nobody() {
    let nested = |levels| (0..levels).fold(json!({}), |value, _| json!({"x": value}));
    let deep = json!({"id": "deep", "k": "t", "x": nested(120)});
    let (account, items) = filled([deep]).await;
    let leaf = "/x".repeat(121);
    let patch = json!({"operations": [{"op": "set", "path": leaf, "value": nested(120)}]});
    let refused = items
        .send("PATCH", "docs/deep", &key("t"), &[], Some(&patch))
        .await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("127"), "{message}");
    for sql in ["SELECT * FROM c", "SELECT c.x FROM c ORDER BY c.id"] {
        let answer = ask(&items, sql, &[]).await;
        assert_eq!((answer.status, &answer.body["_count"]), (200, &json!(1)));
    }
    let patch = json!({"operations": [{"op": "set", "path": "/x", "value": 1}]});
    let changed = items
        .send("PATCH", "docs/deep", &key("t"), &[], Some(&patch))
        .await;
    assert_eq!(changed.status, 200);
    account.shutdown().await;
}

/// What the metrics of an answer say that was looked at.
fn looked_at(answer: &Answer) -> &str {
    let metrics = answer.header("x-ms-documentdb-query-metrics").split(';');
    let mut counts = metrics.filter_map(|it| it.strip_prefix("retrievedDocumentCount="));
    counts.next().unwrap()
}

#[tokio::test]
async fn the_newest_items_are_all_that_is_looked_at() {
    const METRICS: (&str, &str) = ("x-ms-documentdb-populatequerymetrics", "true");
    let item = |n: u64| json!({"id": format!("i{}", n * 37 % 400), "k": "t", "n": n});
    let (account, items) = filled((0..400).map(item)).await;
    let newest = "SELECT TOP 5 VALUE c.n FROM c WHERE c.k = 't' ORDER BY c.n DESC";
    let answer = ask(&items, newest, &[METRICS]).await;
    assert_eq!(answer.body["Documents"], json!([399, 398, 397, 396, 395]));
    assert_eq!(looked_at(&answer), "5");

    // What is written, changed or deleted is so at once in an order that is there.
    let put = async |id: &str, n: u64| {
        let item = json!({"id": id, "k": "t", "n": n});
        items.upsert(&key("t"), &item).await.status
    };
    assert_eq!(put("new", 1000).await, 201);
    assert_eq!(put(&format!("i{}", 398 * 37 % 400), 0).await, 200);
    let gone = format!("docs/i{}", 397 * 37 % 400);
    let deleted = items.send("DELETE", &gone, &key("t"), &[], None).await;
    assert_eq!(deleted.status, 204);
    let answer = ask(&items, newest, &[METRICS]).await;
    assert_eq!(answer.body["Documents"], json!([1000, 399, 396, 395, 394]));
    assert_eq!(looked_at(&answer), "5");

    // Pages go on behind the last row, whatever was written meanwhile, and look at no more than they give out.
    let all = "SELECT c.n FROM c WHERE c.n > 300 ORDER BY c.n";
    let mut found = Vec::new();
    let mut continuation = String::new();
    loop {
        let headers = [
            METRICS,
            ("x-ms-max-item-count", "30"),
            ("x-ms-continuation", &continuation),
        ];
        let given = if found.is_empty() { 2 } else { 3 };
        let page = ask(&items, all, &headers[..given]).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page
            .documents()
            .iter()
            .map(|row| row["n"].as_u64().unwrap());
        found.extend(rows);
        assert!(looked_at(&page).parse::<usize>().unwrap() <= 32);
        page.header("x-ms-continuation")
            .clone_into(&mut continuation);
        if continuation.is_empty() {
            break;
        }
        assert_eq!(put("behind", 301).await / 100, 2);
        assert_eq!(put("ahead", 2000).await / 100, 2);
    }
    let expected: Vec<u64> = (301..=396).chain([399, 1000, 2000]).collect();
    assert_eq!(found, expected);
    account.shutdown().await;
}

#[tokio::test]
async fn others_are_answered_while_a_query_works() {
    let numbers: Vec<u64> = (0..70).collect();
    let (account, items) = filled([json!({"id": "a", "k": "t", "l": numbers})]).await;
    let again = gateways(&account).remove(0);
    let sql = "SELECT VALUE COUNT(1) FROM c JOIN a IN c.l JOIN b IN c.l JOIN d IN c.l WHERE a + b + d > 0";
    let work = tokio::spawn(async move { ask(&items, sql, &[]).await });
    // The runtime of this test has one thread, which the query would keep to itself.
    let mut answered = 0;
    while !work.is_finished() {
        assert_eq!(again.send("GET", "", &[], None).await.status, 200);
        answered += 1;
    }
    assert!(answered > 5, "{answered}");
    let answer = work.await.unwrap();
    assert_eq!(answer.body["Documents"], json!([70 * 70 * 70 - 1]));
    account.shutdown().await;
}
