//! What clients ask for takes no more memory than the limits of queries allow, however it is written. Memory is that of the
//! process, so this is a test of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use support::{UPSERT, gateways, key};

/// What a query may hold, and what a document may become on its way to rows; and some more for the rest.
const MOST: usize = (256 + 64 + 64) * 1024 * 1024;

/// The most bytes that this process has had in memory so far.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() * 1024
}

/// From here on, the peak is counted anew; `false` where the kernel was built without that.
fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Queries that would like to be large, in text, in values, or in rows.
fn queries() -> Vec<String> {
    let select = |value: &str| format!("SELECT VALUE {value} FROM c");
    let list = |count: usize| vec!["c.n"; count].join(",");
    // Values double with each step, and so does the text.
    let doubled = |times| {
        let double = |text: String, _| format!("CONCAT({text}, {text})");
        (0..times).fold("REPLICATE(c.text, 20)".to_owned(), double)
    };
    let (wide, huge) = (&doubled(6), &doubled(12));
    let joins: String = (0..10).map(|at| format!(" JOIN v{at} IN c.list")).collect();
    vec![
        select(&"(".repeat(250_000)),
        select(&"NOT ".repeat(60_000)),
        select(&"-".repeat(250_000)),
        select(&format!("{}1{}", "[".repeat(60), "]".repeat(60))),
        select(&format!("'{}'", "x".repeat(250_000))),
        select(&format!("[{}]", list(60_000))),
        select(&format!("c.n IN ({})", list(15_000))),
        select(&vec!["c.n = 1"; 1_900].join(" OR ")),
        select(&format!("c.text LIKE '{}'", "%a".repeat(100_000))),
        select(&format!("RegexMatch(c.text, '{}')", "(a{1000}){1000}")),
        select(huge),
        select(wide),
        select(&format!("[{}]", vec![wide.as_str(); 100].join(","))),
        select(
            "ARRAY(SELECT VALUE [a, b, c2, d] FROM a IN c.list JOIN b IN c.list JOIN c2 IN c.list JOIN d IN c.list)",
        ),
        format!("SELECT VALUE 1 FROM c{joins}"),
        format!("SELECT DISTINCT VALUE {wide} FROM c"),
        format!("SELECT {wide} AS wide, COUNT(1) AS n FROM c GROUP BY {wide}"),
        format!("SELECT VALUE MAX({wide}) FROM c"),
        format!("SELECT {wide} AS wide FROM c ORDER BY c.n"),
        "SELECT * FROM c ORDER BY c.text OFFSET 0 LIMIT 1000000000".to_owned(),
        "SELECT TOP 1000000000 * FROM c".to_owned(),
    ]
}

#[tokio::test]
async fn queries_take_no_more_memory_than_their_limits_allow() {
    let account = support::builder(1).start().await.unwrap();
    let raw = &gateways(&account)[0];
    let definition =
        json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}});
    assert_eq!(raw.create(definition).await.status, 201);
    let items = raw.container("c");
    let list: Vec<usize> = (0..60).collect();
    for n in 0..300 {
        let text = format!("{n:0>500}");
        let item = json!({"id": n.to_string(), "k": "t", "n": n, "text": text, "list": list});
        let made = items
            .send("POST", "docs", &key("t"), &[UPSERT], Some(&item))
            .await;
        assert_eq!(made.status, 201);
    }
    for query in queries() {
        for count in ["-1", "1"] {
            let headers = [
                ("x-ms-documentdb-isquery", "true"),
                ("x-ms-max-item-count", count),
            ];
            let body = json!({"query": query});
            if !forget_peak() {
                println!("this kernel does not count peaks anew, so nothing was measured");
                return;
            }
            let before = peak();
            let answer = items
                .send("POST", "docs", &key("t"), &headers, Some(&body))
                .await;
            let taken = peak().saturating_sub(before);
            let start: String = query.chars().take(60).collect();
            assert!(
                [200, 400, 413].contains(&answer.status),
                "{start}: {}",
                answer.body
            );
            assert!(taken < MOST, "{start}: {taken} bytes");
        }
    }
    account.shutdown().await;
}
