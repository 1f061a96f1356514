//! Several physical partitions, and splitting them.

use std::collections::BTreeSet;

use cosmos_local::LinkState;
use serde_json::{Value, json};

use crate::support::{
    Answer, Container, FEED, builder, eventually, gateways, key, set_links, settled,
};

fn definition() -> Value {
    json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2}})
}

async fn fill(items: &Container, from: usize, count: usize) {
    for n in from..from + count {
        let k = format!("k{n}");
        let written = items
            .upsert(&key(k.clone()), &json!({"id": k, "k": k}))
            .await;
        assert_eq!(written.status, 201, "{written:?}");
    }
}

fn ranges(answer: &Answer) -> Vec<(String, String, String)> {
    let text = |range: &Value, name: &str| range[name].as_str().unwrap().to_owned();
    let ranges = answer.body["PartitionKeyRanges"].as_array().unwrap().iter();
    ranges
        .map(|range| {
            (
                text(range, "id"),
                text(range, "minInclusive"),
                text(range, "maxExclusive"),
            )
        })
        .collect()
}

/// Reads the feed of one range to its end: ids, and where it ended.
async fn drain(items: &Container, range: &str, after: Option<String>) -> (Vec<String>, String) {
    let mut after = after;
    let mut ids = Vec::new();
    loop {
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", range),
            ("x-ms-max-item-count", "3"),
        ];
        let page = items.changes(after.as_deref(), &headers).await;
        assert!(matches!(page.status, 200 | 304), "{page:?}");
        ids.extend(page.ids().into_iter().map(str::to_owned));
        let etag = page.header("etag").to_owned();
        if page.status == 304 {
            return (ids, etag);
        }
        after = Some(etag);
    }
}

#[tokio::test]
async fn ranges_divide_a_container_and_a_split_loses_and_repeats_nothing() {
    let account = builder(2).partitions(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = raw[0].container("c");
    let before = items.send("GET", "pkranges", "", &[], None).await;
    let end = "20000000000000000000000000000000";
    assert_eq!(
        ranges(&before),
        [
            ("0".into(), String::new(), end.into()),
            ("1".into(), end.into(), "FF".to_owned())
        ]
    );
    let current = [("if-none-match", before.header("etag"))];
    let unchanged = items.send("GET", "pkranges", "", &current, None).await;
    assert_eq!(
        (unchanged.status, unchanged.header("etag")),
        (304, before.header("etag"))
    );

    fill(&items, 0, 20).await;
    let (first, token) = drain(&items, "0", None).await;
    let (second, _) = drain(&items, "1", None).await;
    let all: BTreeSet<&String> = first.iter().chain(&second).collect();
    assert!(all.len() == 20 && !first.is_empty() && !second.is_empty());
    fill(&items, 20, 20).await;

    let halves = account.split_partition("db", "c", "0").unwrap();
    assert_eq!(account.partitions("db", "c").unwrap(), ["2", "3", "1"]);
    for gateway in &raw {
        let items = gateway.container("c");
        let after = items.send("GET", "pkranges", "", &current, None).await;
        let parents: Vec<&Value> = after.body["PartitionKeyRanges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|range| &range["parents"])
            .collect();
        assert_eq!(parents, [&json!(["0"]), &json!(["0"]), &json!([])]);
        let again = [("if-none-match", after.header("etag"))];
        assert_eq!(
            items.send("GET", "pkranges", "", &again, None).await.status,
            304
        );
    }
    let gone = [("x-ms-documentdb-partitionkeyrangeid", "0")];
    assert_eq!(items.changes(None, &gone).await.codes(), (410, 1002));
    assert_eq!(
        items.query("SELECT * FROM c", &gone).await.codes(),
        (410, 1002)
    );
    let crossing = [
        ("x-ms-documentdb-partitionkeyrangeid", halves[0].as_str()),
        ("x-ms-start-epk", "00"),
        ("x-ms-end-epk", "30"),
    ];
    assert_eq!(items.changes(None, &crossing).await.codes(), (410, 1002));

    let mut seen: Vec<String> = Vec::new();
    for half in &halves {
        seen.extend(drain(&items, half, Some(token.clone())).await.0);
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "nothing twice: {seen:?}");
    assert!(seen.iter().all(|id| !first.contains(id)), "nothing again");
    let (second, _) = drain(&items, "1", None).await;
    assert_eq!(
        first.len() + seen.len() + second.len(),
        40,
        "and nothing lost"
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_place_in_a_range_that_was_split_is_good_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let builder = builder(2).data_dir(Some(folder.path().to_owned()));
        builder.start().await.unwrap()
    };
    let account = open().await;
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = raw[0].container("c");
    fill(&items, 0, 20).await;
    let (before, token) = drain(&items, "0", None).await;
    assert_eq!(before.len(), 20);
    account.split_partition("db", "c", "0").unwrap();
    fill(&items, 20, 20).await;
    settled(&account).await;
    account.shutdown().await;

    let account = open().await;
    assert_eq!(account.partitions("db", "c").unwrap(), ["1", "2"]);
    for raw in gateways(&account) {
        let items = raw.container("c");
        let parent = [("x-ms-documentdb-partitionkeyrangeid", "0")];
        let gone = items.changes(Some(&token), &parent).await;
        assert_eq!(gone.codes(), (410, 1002));
        let known = items.send("GET", "pkranges", "", &[], None).await;
        assert_eq!(known.body["PartitionKeyRanges"][1]["parents"], json!(["0"]));
        let (mut ids, _) = drain(&items, "1", Some(token.clone())).await;
        let (second, _) = drain(&items, "2", Some(token.clone())).await;
        assert!(!ids.is_empty() && !second.is_empty());
        ids.extend(second);
        ids.sort();
        let expected: Vec<String> = (20..40).map(|n| format!("k{n}")).collect();
        assert_eq!(ids, expected, "nothing lost, or twice");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn merged_ranges_go_on_where_their_parents_were() {
    let account = builder(2).partitions(3).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let items = raw[0].container("c");
    fill(&items, 0, 20).await;
    let (first, token) = drain(&items, "0", None).await;
    let (second, other) = drain(&items, "1", None).await;
    let known = items.send("GET", "pkranges", "", &[], None).await;
    let borders = ranges(&known);
    let inside = first[0].clone();

    assert!(account.merge_partitions("db", "c", ["0", "2"]).is_err());
    let merged = account.merge_partitions("db", "c", ["0", "1"]).unwrap();
    assert_eq!(account.partitions("db", "c").unwrap(), [&merged, "2"]);
    for gateway in &raw {
        let items = gateway.container("c");
        let current = [("if-none-match", known.header("etag"))];
        let after = items.send("GET", "pkranges", "", &current, None).await;
        assert_eq!(after.status, 200);
        assert_eq!(
            ranges(&after)[0],
            (merged.clone(), String::new(), borders[1].2.clone())
        );
        let parents = &after.body["PartitionKeyRanges"][0]["parents"];
        assert_eq!(parents, &json!(["0", "1"]));
        for old in ["0", "1"] {
            let gone = [("x-ms-documentdb-partitionkeyrangeid", old)];
            assert_eq!(items.changes(None, &gone).await.codes(), (410, 1002));
            let query = items.query("SELECT * FROM c", &gone).await;
            assert_eq!(query.codes(), (410, 1002));
        }
    }
    fill(&items, 20, 20).await;
    // Clients go on with each parent's continuation, in its part of the merged range.
    let mut seen = Vec::new();
    for (after, (_, start, end)) in [token, other].iter().zip(&borders) {
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", merged.as_str()),
            ("x-ms-start-epk", start),
            ("x-ms-end-epk", end),
            ("x-ms-read-key-type", "EffectivePartitionKeyRange"),
        ];
        let page = items.changes(Some(after), &headers).await;
        seen.extend(page.ids().into_iter().map(str::to_owned));
    }
    let (third, _) = drain(&items, "2", None).await;
    let all = [first, second, seen, third].concat();
    let unique: BTreeSet<&String> = all.iter().collect();
    assert_eq!(
        (all.len(), unique.len()),
        (40, 40),
        "nothing lost, or twice"
    );
    // A session of a parent goes on in the merged range.
    let k = key(inside.clone());
    let path = format!("docs/{inside}");
    let session = |range: &str, needed| format!("{range}:1#{needed}#1={needed}#2=0");
    for (token, codes) in [
        (session("0", 20), (200, 0)),
        (session("1", 20), (200, 0)),
        (session("0", 999), (404, 1002)),
        (session("1", 999), (404, 1002)),
        (session("2", 999), (200, 0)),
    ] {
        let headers = [("x-ms-session-token", token.as_str())];
        let read = items.send("GET", &path, &k, &headers, None).await;
        assert_eq!(read.codes(), codes, "{token}");
        let range = read.header("x-ms-documentdb-partitionkeyrangeid");
        assert_eq!(range, merged);
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_session_goes_on_after_a_split() {
    let account = builder(1).start().await.unwrap();
    let raw = gateways(&account).remove(0);
    raw.create(definition()).await;
    let items = raw.container("c");
    let k = key("t");
    let written = items.upsert(&k, &json!({"id": "a", "k": "t"})).await;
    let token = written.header("x-ms-session-token").to_owned();
    account.split_partition("db", "c", "0").unwrap();
    let read = items
        .send("GET", "docs/a", &k, &[("x-ms-session-token", &token)], None)
        .await;
    assert_eq!(read.status, 200);
    let range = read
        .header("x-ms-documentdb-partitionkeyrangeid")
        .to_owned();
    assert!(["1", "2"].contains(&range.as_str()));
    assert!(
        read.header("x-ms-session-token")
            .starts_with(&format!("{range}:"))
    );
    let ahead = token.replacen("=1", "=99", 1);
    for token in [ahead.clone(), ahead.replacen("0:", &format!("{range}:"), 1)] {
        let read = items
            .send("GET", "docs/a", &k, &[("x-ms-session-token", &token)], None)
            .await;
        assert_eq!(read.codes(), (404, 1002), "{token}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn a_session_holds_for_every_range_that_a_request_spans() {
    let account = builder(2).partitions(2).start().await.unwrap();
    let raw = gateways(&account);
    let mut hierarchical = definition();
    hierarchical["partitionKey"] =
        json!({"paths": ["/k", "/l"], "kind": "MultiHash", "version": 2});
    raw[0].create(hierarchical).await;
    let (here, there) = (raw[0].container("c"), raw[1].container("c"));
    set_links(&account, LinkState::Cut);
    // Something in the range that is not the last.
    let mut tenants = (0..).map(|n| n.to_string());
    let (tenant, written) = loop {
        let tenant = tenants.next().unwrap();
        let item = json!({"id": "a", "k": tenant, "l": "b"});
        let written = here.upsert(&json!([tenant, "b"]).to_string(), &item).await;
        if written.header("x-ms-documentdb-partitionkeyrangeid") == "0" {
            break (tenant, written);
        }
    };
    let prefix = key(tenant);
    // A session that has read both ranges, and one of them before the write.
    let token = format!("{},1:1#0#1=0#2=0", written.header("x-ms-session-token"));
    let session = ("x-ms-session-token", token.as_str());
    let whole = ("x-ms-start-epk", "");
    let end = ("x-ms-end-epk", "ff");
    for (headers, partition) in [
        (vec![], ""),
        (vec![whole, end], ""),
        (vec![], prefix.as_str()),
        (vec![("x-ms-documentdb-partitionkeyrangeid", "0")], ""),
    ] {
        let mut headers = [&headers[..], &[session]].concat();
        let listed = there.send("GET", "docs", partition, &headers, None).await;
        assert_eq!(listed.codes(), (404, 1002), "{headers:?} {partition}");
        headers.push(FEED);
        let changed = there.send("GET", "docs", partition, &headers, None).await;
        assert_eq!(changed.codes(), (404, 1002), "{headers:?} {partition}");
        headers.pop();
        if !partition.is_empty() {
            headers.push(("x-ms-documentdb-partitionkey", partition));
        }
        let found = there.query("SELECT * FROM c", &headers).await;
        assert_eq!(found.codes(), (404, 1002), "{headers:?}");
    }
    let other = [("x-ms-documentdb-partitionkeyrangeid", "1"), session];
    let found = there.query("SELECT * FROM c", &other).await;
    assert_eq!(found.status, 200, "what this one asks for is all there");
    set_links(&account, LinkState::Open);
    settled(&account).await;
    for headers in [
        &[session][..],
        &[session, ("x-ms-documentdb-partitionkey", &prefix)],
    ] {
        let found = there.query("SELECT * FROM c", headers).await;
        assert_eq!(found.status, 200);
        assert!(found.ids().contains(&"a"), "{found:?}");
    }
    account.shutdown().await;
}

#[tokio::test]
async fn pages_of_a_query_end_and_neither_repeat_nor_skip() {
    let account = builder(1).partitions(2).start().await.unwrap();
    let raw = gateways(&account).remove(0);
    raw.create(definition()).await;
    let items = raw.container("c");
    fill(&items, 0, 25).await;
    let mut found = BTreeSet::new();
    for range in ["0", "1"] {
        let mut continuation: Option<String> = None;
        loop {
            let mut headers = vec![
                ("x-ms-documentdb-partitionkeyrangeid", range),
                ("x-ms-max-item-count", "4"),
            ];
            if let Some(continuation) = &continuation {
                headers.push(("x-ms-continuation", continuation));
            }
            let page = items.query("SELECT c.id FROM c", &headers).await;
            assert_eq!(page.status, 200, "{page:?}");
            for id in page.ids() {
                assert!(found.insert(id.to_owned()), "{id} twice");
                // What was given out may go, and what the page ended at, too.
                items.delete(&key(id), id).await;
            }
            continuation =
                Some(page.header("x-ms-continuation").to_owned()).filter(|it| !it.is_empty());
            if continuation.is_none() {
                break;
            }
        }
    }
    assert_eq!(found.len(), 25);
    account.shutdown().await;
}

#[tokio::test]
async fn windows_of_keys_divide_queries_lists_and_feeds() {
    let account = builder(1).start().await.unwrap();
    let raw = gateways(&account).remove(0);
    raw.create(definition()).await;
    let items = raw.container("c");
    fill(&items, 0, 30).await;
    let borders = [
        "",
        "0A",
        "1C33",
        "20000000000000000000000000000000",
        "3f",
        "FF",
    ];
    let (mut queried, mut listed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for window in borders.windows(2) {
        let headers = [
            ("x-ms-start-epk", window[0]),
            ("x-ms-end-epk", window[1]),
            ("x-ms-read-key-type", "EffectivePartitionKeyRange"),
        ];
        let answers = [
            items.query("SELECT * FROM c", &headers).await,
            items.send("GET", "docs", "", &headers, None).await,
            items.changes(None, &headers).await,
        ];
        let sorted = |answer: &Answer| {
            let mut ids: Vec<String> = answer.ids().into_iter().map(str::to_owned).collect();
            ids.sort();
            ids
        };
        assert_eq!(sorted(&answers[0]), sorted(&answers[1]), "{window:?}");
        assert_eq!(sorted(&answers[0]), sorted(&answers[2]), "{window:?}");
        queried.extend(sorted(&answers[0]));
        listed.extend(sorted(&answers[1]));
        changed.extend(sorted(&answers[2]));
    }
    for ids in [queried, listed, changed] {
        let unique: BTreeSet<&String> = ids.iter().collect();
        assert_eq!((ids.len(), unique.len()), (30, 30));
    }
    let wrong = [
        ("x-ms-start-epk", ""),
        ("x-ms-end-epk", "FF"),
        ("x-ms-read-key-type", "EffectivePartitionKey"),
    ];
    assert_eq!(items.changes(None, &wrong).await.status, 400);
    account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_many_writers_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for data in [None, Some(folder.path().to_owned())] {
        let account = builder(2).data_dir(data).start().await.unwrap();
        let raw = gateways(&account);
        raw[0].create(definition()).await;
        let writers: Vec<_> = (0..4)
            .map(|writer: usize| {
                let items = raw[writer % 2].container("c");
                tokio::spawn(async move {
                    for n in 0..50 {
                        let id = format!("{writer}-{n}");
                        let written = items.upsert(&key("t"), &json!({"id": id, "k": "t"})).await;
                        assert_eq!(written.status, 201, "{written:?}");
                    }
                })
            })
            .collect();
        let items = raw[0].container("c");
        let (mut seen, mut etag) = (BTreeSet::new(), None::<String>);
        eventually("everything is delivered", async || {
            let headers = [("x-ms-max-item-count", "7")];
            let page = items.changes(etag.as_deref(), &headers).await;
            for id in page.ids() {
                assert!(seen.insert(id.to_owned()), "{id} twice");
            }
            etag = Some(page.header("etag").to_owned());
            seen.len() == 200
        })
        .await;
        for writer in writers {
            writer.await.unwrap();
        }
        account.shutdown().await;
    }
}

/// Reads the feed of a container range by range, as clients do that know ranges and not what becomes of them.
struct Reader {
    items: Container,
    ranges: Vec<(String, String, String)>,
    /// Start and end of a part of the container, and how far it is read.
    parts: Vec<(String, String, Option<String>)>,
    seen: Vec<String>,
    /// How often it was told that a range is gone.
    gone: usize,
}

impl Reader {
    async fn new(items: Container) -> Self {
        let mut reader = Self {
            items,
            ranges: Vec::new(),
            parts: vec![(String::new(), "FF".to_owned(), None)],
            seen: Vec::new(),
            gone: 0,
        };
        reader.learn().await;
        reader
    }

    /// Looks up the ranges, and divides parts that are in several; those of ranges that were merged stay as they are.
    async fn learn(&mut self) {
        let known = self.items.send("GET", "pkranges", "", &[], None).await;
        self.ranges = ranges(&known);
        let parts = std::mem::take(&mut self.parts);
        for (start, end, after) in parts {
            for (_, first, last) in &self.ranges {
                let (first, last) = (
                    start.clone().max(first.clone()),
                    end.clone().min(last.clone()),
                );
                if first < last {
                    self.parts.push((first, last, after.clone()));
                }
            }
        }
    }

    /// Reads a page of each part; says whether all were at their end.
    async fn read(&mut self) -> bool {
        let (mut is_over, mut at) = (true, 0);
        while at < self.parts.len() {
            let (start, end, after) = &self.parts[at];
            let mut ranges = self.ranges.iter();
            let range = ranges.find(|(_, first, last)| first <= start && end <= last);
            let headers = [
                (
                    "x-ms-documentdb-partitionkeyrangeid",
                    range.unwrap().0.as_str(),
                ),
                ("x-ms-start-epk", start.as_str()),
                ("x-ms-end-epk", end.as_str()),
                ("x-ms-read-key-type", "EffectivePartitionKeyRange"),
                ("x-ms-max-item-count", "5"),
            ];
            let page = self.items.changes(after.as_deref(), &headers).await;
            if page.codes() == (410, 1002) {
                self.gone += 1;
                self.learn().await;
                // The parts may be others.
                return false;
            }
            assert!(matches!(page.status, 200 | 304), "{page:?}");
            is_over &= page.status == 304;
            self.seen.extend(page.ids().into_iter().map(str::to_owned));
            self.parts[at].2 = Some(page.header("etag").to_owned());
            at += 1;
        }
        is_over
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_ranges_miss_nothing_while_these_split_and_merge() {
    const WRITERS: usize = 4;
    const WRITES: usize = 100;
    let account = builder(2).partitions(2).start().await.unwrap();
    let raw = gateways(&account);
    raw[0].create(definition()).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let items = raw[writer % 2].container("c");
        writers.spawn(async move {
            for n in 0..WRITES {
                let id = format!("{writer}-{n}");
                let item = json!({"id": id, "k": id});
                let written = items.create(&key(id.clone()), &item).await;
                assert_eq!(written.status, 201, "{written:?}");
            }
        });
    }
    let mut readers = Vec::new();
    for raw in &raw {
        readers.push(Reader::new(raw.container("c")).await);
    }
    // What is done to the ranges, always when so many items more have been read.
    let ranges = || account.partitions("db", "c").unwrap();
    let split = |at: usize| {
        account.split_partition("db", "c", &ranges()[at]).unwrap();
    };
    let merge = |at: usize| {
        let (first, second) = (&ranges()[at], &ranges()[at + 1]);
        account
            .merge_partitions("db", "c", [first, second])
            .unwrap();
    };
    let changes: [&dyn Fn(); 7] = [
        &|| split(0),
        &|| merge(1),
        &|| split(1),
        &|| split(0),
        &|| merge(0),
        &|| merge(1),
        &|| split(1),
    ];
    let total = WRITERS * WRITES;
    let mut done = 0;
    eventually("everything is read", async || {
        let mut is_over = true;
        for reader in &mut readers {
            is_over &= reader.read().await;
        }
        let read = readers
            .iter()
            .map(|reader| reader.seen.len())
            .min()
            .unwrap();
        if done < changes.len() && read >= (done + 1) * total / 10 {
            changes[done]();
            done += 1;
        }
        is_over && read >= total && done == changes.len()
    })
    .await;
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    assert_eq!(ranges().len(), 3);
    for reader in readers {
        let unique: BTreeSet<&String> = reader.seen.iter().collect();
        let counts = (reader.seen.len(), unique.len());
        assert_eq!(counts, (total, total), "nothing lost, or twice");
        assert!(reader.gone > 0);
    }
    account.shutdown().await;
}
