//! Queries give the same however their items are found, and look at no more of them in a large container.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::RefCell;

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;

use super::*;
use crate::{
    document::Document as Body,
    gateway::tests::{Answer, Setup},
    query::Query,
};

const METRICS: (&str, &str) = ("x-ms-documentdb-populatequerymetrics", "True");
const RANGE: &str = "x-ms-documentdb-partitionkeyrangeid";

/// A gateway with items that another region has accepted, so that they have any `_ts`.
struct Filled {
    setup: Setup,
    container: Arc<Container>,
    /// Mutations so far.
    number: u64,
    /// Bytes of the member `text` of what is put.
    text: usize,
}

/// What becomes of an item.
#[derive(Debug, Clone)]
struct Put {
    tenant: usize,
    id: u64,
    /// Its member `n` and its `_ts`; a delete without.
    value: Option<(u64, i64)>,
}

impl Filled {
    fn new(partitions: u32, puts: impl Iterator<Item = Put>) -> Self {
        let setup = Setup::divided(partitions);
        let container = setup.gateway.metadata.container("shop", "orders").unwrap();
        let mut filled = Self {
            setup,
            container,
            number: 0,
            text: 0,
        };
        filled.put(puts);
        filled
    }

    fn replica(&self) -> Arc<Replica> {
        Arc::clone(&self.setup.gateway.members().regions[0].replica)
    }

    fn put(&mut self, puts: impl Iterator<Item = Put>) {
        let record = |put: Put| {
            let seen = self.number;
            self.number += 1;
            let (tenant, id) = (format!("t{}", put.tenant), format!("i-{}", put.id));
            let ordinal = put.id * 100 + put.tenant as u64 + 1;
            let ts = put.value.map_or(0, |(_, ts)| ts);
            let body = put.value.map(|(n, _)| {
                let members =
                    json!({"id": id, "tenant": tenant, "n": n, "text": "x".repeat(self.text)});
                let body = Body::new(members.as_object().unwrap().clone()).unwrap();
                self.container.render(&body, ordinal, "\"e\"", ts)
            });
            let partition = self.container.partition_key.value(vec![json!(tenant)]);
            Arc::new(Record {
                origin: 1,
                number: self.number,
                context: vec![0, seen],
                container: self.container.number,
                key: ItemKey {
                    partition: partition.unwrap(),
                    id: id.into(),
                },
                body,
                etag: self.number.to_string(),
                ordinal,
                ts,
                stamp: self.number,
                rank: self.number as f64,
                ttl: None,
                is_expiry: false,
                followers: 0,
                unique: Vec::new(),
                repeats: None,
            })
        };
        let records = puts.map(record).collect();
        let applied = self.replica();
        self.setup.runtime.block_on(applied.apply(records)).unwrap();
    }

    fn ask(&self, text: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self.setup.query(text, headers);
        assert_eq!(answer.status.as_u16(), 200, "{text}: {:?}", answer.body);
        answer
    }
}

/// So many items of each of some tenants, whose `n` and `_ts` are anything up to some bounds.
fn items(tenants: usize, each: u64, n: u64, ts: i64) -> impl Iterator<Item = Put> {
    (0..tenants).flat_map(move |tenant| {
        (0..each).map(move |id| {
            let mixed = (id * 7919 + tenant as u64 * 31) % 10_007;
            let value = Some((mixed % n, (mixed / 3) as i64 % ts));
            Put { tenant, id, value }
        })
    })
}

/// More than one for each physical partition.
const TENANTS: usize = 6;

fn put() -> impl Strategy<Value = Put> {
    let value = prop::option::weighted(0.8, (0..40_u64, 0..200_i64));
    (0..TENANTS, 0..350_u64, value).prop_map(|(tenant, id, value)| Put { tenant, id, value })
}

/// A query, and what happens before each of its pages.
#[derive(Debug)]
struct Case {
    select: String,
    conditions: Vec<&'static str>,
    order: &'static str,
    tenant: Option<usize>,
    /// Headers that name a range.
    scope: Vec<(&'static str, &'static str)>,
    changes: Vec<Vec<Put>>,
}

fn case() -> impl Strategy<Value = Case> {
    let select = prop::sample::select(vec![
        "SELECT *",
        "SELECT c.id, c.n",
        "SELECT c._rid, [{\"item\": c.n}] AS orderByItems, c AS payload",
        "SELECT TOP 7 c.id, c.n",
    ]);
    let condition = prop::sample::select(vec![
        "c.id = 'i-7'",
        "c.id = 'nothing'",
        "c._ts = 12",
        "150 = c._ts",
        "c._ts >= 190",
        "c._ts > 20.5",
        "c._ts < 3",
        "c._ts BETWEEN 90 AND 100",
        "c.n > 2",
        "c.n = 3",
    ]);
    let order = prop::sample::select(vec![
        "",
        "",
        "ORDER BY c.n",
        "ORDER BY c.n DESC",
        "ORDER BY c.n, c.tenant",
        "ORDER BY c._ts DESC",
        "ORDER BY c._ts, c.n",
        "ORDER BY c.id DESC",
        "ORDER BY c.n OFFSET 3 LIMIT 9",
        "ORDER BY c.n DESC, c._ts DESC OFFSET 1 LIMIT 300",
    ]);
    let conditions = prop::collection::vec(condition, 0..3);
    let tenant = prop::option::weighted(0.3, 0..TENANTS);
    let scope = prop::sample::select(vec![
        vec![(RANGE, "0")],
        vec![(RANGE, "1")],
        vec![(RANGE, "2")],
        vec![("x-ms-start-epk", "05"), ("x-ms-end-epk", "30")],
    ]);
    let changes = prop::collection::vec(prop::collection::vec(put(), 0..40), 1..4);
    let parts = (select, conditions, order, tenant, scope, changes);
    parts.prop_map(|(select, conditions, order, tenant, scope, changes)| Case {
        // TOP does not go with OFFSET and LIMIT.
        select: match order.contains("OFFSET") {
            true => select.replace("TOP 7 ", ""),
            false => select.to_owned(),
        },
        conditions,
        order,
        tenant,
        scope,
        changes,
    })
}

/// The text of a query, where an index may serve it, and one for the same pages where none can: its conditions are parts of
/// larger ones, and it is about several partition keys.
fn texts(case: &Case) -> (String, String) {
    let Case {
        select,
        conditions,
        order,
        tenant,
        ..
    } = case;
    let all: Vec<String> = (0..TENANTS).map(|tenant| format!("'t{tenant}'")).collect();
    let own = tenant.map(|tenant| format!("c.tenant = 't{tenant}'"));
    let hidden = match tenant {
        Some(tenant) => format!("c.tenant IN ('t{tenant}', 'nobody')"),
        None => format!("c.tenant IN ({})", all.join(", ")),
    };
    let plain = conditions.iter().map(|it| (*it).to_owned()).chain(own);
    let plain: Vec<String> = plain.collect();
    let filter = match plain.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", plain.join(" AND ")),
    };
    let parts = conditions.iter();
    let parts = parts.map(|it| format!("({it} OR c.nothing = 1)"));
    let parts: Vec<String> = parts.chain([hidden]).collect();
    (
        format!("{select} FROM c {filter} {order}"),
        format!("{select} FROM c WHERE {} {order}", parts.join(" AND ")),
    )
}

#[test]
fn pages_are_the_same_however_items_are_found_while_they_change() {
    let filled = RefCell::new(Filled::new(3, items(TENANTS, 300, 40, 200)));
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    };
    let run = |case: Case| {
        let (plain, hidden) = texts(&case);
        let mut filled = filled.borrow_mut();
        let mut continuation: Option<String> = None;
        for changes in case.changes {
            filled.put(changes.into_iter());
            let mut headers = case.scope.clone();
            headers.push(("x-ms-max-item-count", "20"));
            let after = continuation.as_deref();
            headers.extend(after.map(|after| ("x-ms-continuation", after)));
            let (one, other) = (filled.ask(&plain, &headers), filled.ask(&hidden, &headers));
            prop_assert_eq!(one.json(), other.json(), "{}", plain);
            let next = one.header("x-ms-continuation");
            prop_assert_eq!(next, other.header("x-ms-continuation"), "{}", plain);
            match next {
                Some(next) => continuation = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&case(), run).unwrap();
}

#[test]
fn a_large_container_is_no_more_work() {
    for each in [100, 2000] {
        // Whatever there are of others, one item of each tenant is new, and `n` starts with 0, 1, 2.
        let old = items(TENANTS, each, u64::MAX, 200);
        let old = old.filter(|put| put.id > 0).map(|mut put| {
            put.value = put.value.map(|(n, ts)| (n + 1000, ts));
            put
        });
        let new = (0..TENANTS).map(|tenant| Put {
            tenant,
            id: 0,
            value: Some((tenant as u64, 1000)),
        });
        let filled = Filled::new(1, old.chain(new));
        let range = (RANGE, "0");
        for (text, page, expected) in [
            ("SELECT * FROM c WHERE c.id = 'i-0'", "10", "6"),
            ("SELECT * FROM c WHERE c._ts = 1000", "10", "6"),
            ("SELECT * FROM c WHERE c._ts > 300 ORDER BY c.n", "10", "6"),
            ("SELECT * FROM c ORDER BY c.n", "10", "11"),
            ("SELECT TOP 3 * FROM c ORDER BY c._ts DESC", "10", "3"),
            (
                "SELECT TOP 3 * FROM c WHERE c._ts >= 0 ORDER BY c.n",
                "10",
                "3",
            ),
            (
                "SELECT c._rid, [{\"item\": c.n}] AS orderByItems, c AS payload FROM c WHERE (true) ORDER BY c.n DESC",
                "5",
                "6",
            ),
            (
                "SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 2 LIMIT 2",
                "10",
                "4",
            ),
        ] {
            let answer = filled.ask(text, &[range, METRICS, ("x-ms-max-item-count", page)]);
            assert_eq!(answer.looked_at(), expected, "{text} of {each}");
        }
    }
}

/// In how many steps, each under one lock, a query's items are gone through once their order is there.
fn steps(filled: &Filled, scope: Scope, text: &str) -> usize {
    let query = Query::parse(text, &[]).unwrap();
    let conditions = Conditions::of(&query);
    let source = Source::new(filled.replica(), &filled.container, conditions);
    let scan = || Scan::new(&source, vec![scope.clone()], Bound::Unbounded);
    scan().is_narrow();
    let mut scan = scan();
    let mut steps = 0;
    while !scan.scopes.is_empty() {
        match scan.way {
            None => scan.find_way(MAX_CANDIDATES),
            Some(_) => scan.read_on(),
        }
        steps += 1;
    }
    steps
}

#[test]
fn conditions_that_leave_few_items_are_gone_through_in_two_steps() {
    let everything = Scope::everything();
    let mut filled = Filled::new(1, items(TENANTS, 500, 40, 200));
    let partition = filled.container.partition_key.value(vec![json!("t1")]);
    let partition = crate::partition_key::Named::Value(partition.unwrap());
    let only = everything.clone().named(partition);
    let (id, ts) = (
        "SELECT * FROM c WHERE c.id = 'i-7'",
        "SELECT * FROM c WHERE c._ts = 7",
    );
    for _ in 0..2 {
        assert_eq!(steps(&filled, everything.clone(), id), 2);
        assert_eq!(steps(&filled, everything.clone(), ts), 2);
        assert_eq!(steps(&filled, only.clone(), id), 2);
        assert_eq!(steps(&filled, only.clone(), ts), 2);
        filled.put(items(TENANTS, 1500, 40, 300));
    }
    // Where more are left than that is worth for, all are gone through.
    let all = "SELECT * FROM c WHERE c._ts >= 0";
    assert_eq!(
        steps(&filled, everything.clone(), all),
        1 + 9000_usize.div_ceil(STEP)
    );
    assert_eq!(steps(&filled, only, all), 1 + 1500_usize.div_ceil(STEP));
    // Nor are few items worth it, however many there are elsewhere.
    let few = Scope::range("", "0001");
    assert_eq!(steps(&filled, few, all), 2);
}

#[test]
fn a_query_whose_order_is_too_large_sorts_what_it_reads() {
    let mut filled = Filled::new(1, items(1, 3, 100, 200));
    let text = "SELECT VALUE c.n FROM c ORDER BY c.text, c.n";
    let query = Query::parse(text, &[]).unwrap();
    let conditions = Conditions::default();
    let source = Source::new(filled.replica(), &filled.container, conditions);
    let order = query.sort_order(None).unwrap();
    let mut scan = SortedScan::new(&source, Scope::everything(), order, 2);
    assert!(scan.next().is_some());
    assert!(scan.next().is_some());
    // It grows while it is read.
    filled.text = 1_500_000;
    filled.put(items(1, 30, 100, 200).skip(3));
    assert_eq!(
        (scan.next().map(|it| it.0.ordinal), scan.has_failed()),
        (None, true)
    );
    let page = |most| {
        let headers = [(RANGE, "0"), ("x-ms-max-item-count", most)];
        filled.ask(text, &headers).json()["Documents"].clone()
    };
    let mut expected: Vec<Put> = items(1, 30, 100, 200).collect();
    expected[3..].sort_by_key(|put| put.value);
    expected[..3].sort_by_key(|put| put.value);
    let expected: Vec<u64> = expected.iter().map(|put| put.value.unwrap().0).collect();
    assert_eq!(page("2"), json!(expected[..2]));
    assert_eq!(page("30"), json!(expected));
}
