//! Cases from `fixtures/`, each run in every way there is to run a query, and properties that hold
//! for all texts.
//!
//! - [`fixture`] reads the files,
//! - [`client`] merges partitions as the SDKs do,
//! - [`properties`] throws generated texts and trees at the parser.

#![allow(clippy::unwrap_used)]

mod client;
mod fixture;
mod properties;

use serde_json::Value;

use super::*;
use fixture::{Case, Expected, PlanCase};

/// The `_rid` of a document: eight bytes of its container, then its ordinal.
fn rid(ordinal: u64) -> String {
    use base64::Engine as _;
    let mut bytes = vec![0; 8];
    bytes.extend(ordinal.to_le_bytes());
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn values(rows: Vec<Row<Value>>) -> Vec<Value> {
    rows.into_iter().map(Row::into_value).collect()
}

/// The result in one go.
fn whole(case: &Case) -> Result<Vec<Value>> {
    Query::parse(&case.query, &case.parameters)?.execute(case.documents.iter().cloned())
}

/// The result of the query as it is printed from its tree.
fn printed(case: &Case) -> Vec<Value> {
    let query = Query::parse(&case.query, &case.parameters).unwrap();
    let text = query.select.to_string();
    let again = Query::parse(&text, &case.parameters)
        .unwrap_or_else(|error| panic!("{}: {error} in\n{text}", case.title));
    assert_eq!(again.select, query.select, "{}", case.title);
    again.execute(case.documents.iter().cloned()).unwrap()
}

/// The documents in the order of the query from a position on, where it has one.
fn in_order(query: &Query, documents: &[Value], after: Option<&Position>) -> Option<Vec<Value>> {
    let order = query.sort_order(after)?;
    let place = |document: &Value| {
        let ordinal = position::ordinal(document.rid());
        order.paths.place(&document.to_string(), ordinal).unwrap()
    };
    let mut documents: Vec<(Place, &Value)> = documents
        .iter()
        .map(|document| (place(document), document))
        .filter(|(place, _)| {
            let (low, high) = &order.between;
            low.as_ref().is_none_or(|low| low <= place)
                && high.as_ref().is_none_or(|high| place <= high)
        })
        .collect();
    documents.sort_by(|(left, _), (right, _)| left.cmp(right));
    if order.is_descending {
        documents.reverse();
    }
    Some(documents.into_iter().map(|(_, it)| it.clone()).collect())
}

/// The result page by page, through tokens, with the documents as a store brings them: in the order of the query where that
/// is asked for, else from the position's document on when they are not sorted, else in another order on each page.
fn paged(case: &Case, rows_per_page: usize, supply: Supply) -> Vec<Value> {
    let query = Query::parse(&case.query, &case.parameters).unwrap();
    let limits = PageLimits {
        rows: rows_per_page,
        bytes: usize::MAX,
    };
    let mut rows = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let mut documents = case.documents.clone();
        match &after {
            Some(_) if query.starts_over() => {}
            Some(position) if query.program.order.is_empty() => {
                let is_before = |document: &Value| document["_rid"] != position.rid();
                let start = documents
                    .iter()
                    .take_while(|document| is_before(document))
                    .count();
                documents.drain(..start);
            }
            Some(_) => documents.reverse(),
            None => {}
        }
        if supply == Supply::Sorted {
            documents = in_order(&query, &documents, after.as_ref()).unwrap();
        }
        let page = query
            .execute_page(documents.into_iter(), supply, limits, after.as_ref())
            .unwrap();
        assert!(page.rows.len() <= rows_per_page, "{}", case.title);
        assert!(
            page.next.is_none() || !page.rows.is_empty(),
            "{}: an empty page",
            case.title
        );
        rows.extend(values(page.rows));
        match page.next {
            Some(position) => {
                let token = query.position_to_json(&position);
                after = Some(query.position_from_json(&token).unwrap());
            }
            None => return rows,
        }
    }
}

fn check(file: &str, text: &str) {
    let cases = fixture::cases(text);
    assert!(!cases.is_empty(), "{file} has no cases");
    for case in &cases {
        let title = format!("{file}: {}", case.title);
        match (&case.expected, whole(case)) {
            (Expected::Rows(expected), Ok(rows)) => {
                assert_rows(&title, expected, &rows);
                assert_rows(&format!("{title} (printed)"), expected, &printed(case));
                let query = Query::parse(&case.query, &case.parameters).unwrap();
                let has_rids = case
                    .documents
                    .iter()
                    .all(|document| document.get("_rid").is_some());
                let mut supplies = vec![Supply::AnyOrder];
                supplies.extend(query.sort_order(None).map(|_| Supply::Sorted));
                for supply in supplies {
                    for rows_per_page in 1..4 {
                        if has_rids || query.starts_over() {
                            let rows = paged(case, rows_per_page, supply);
                            let title = format!("{title} ({supply:?}, pages of {rows_per_page})");
                            assert_rows(&title, expected, &rows);
                        }
                    }
                }
                if let Some(rows) = client::merged(case) {
                    let comparable = client::comparable(&query, rows);
                    let expected = client::comparable(&query, expected.clone());
                    assert_rows(&format!("{title} (two partitions)"), &expected, &comparable);
                }
            }
            (Expected::Error(expected), Err(error)) => {
                assert_eq!(expected.mismatch(&error), None, "{title}");
            }
            (Expected::Rows(_), Err(error)) => panic!("{title}: {error}"),
            (Expected::Error(_), Ok(rows)) => panic!("{title}: no error but {rows:?}"),
        }
    }
}

/// Compares as text, so that the order of members counts.
fn assert_rows(title: &str, expected: &[Value], rows: &[Value]) {
    let lines = |rows: &[Value]| rows.iter().map(Value::to_string).collect::<Vec<_>>();
    assert_eq!(lines(rows), lines(expected), "{title}");
}

macro_rules! fixtures {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("../fixtures/", stringify!($name), ".txt")));
        }
    )*};
}

fixtures!(select expressions subqueries aggregates functions errors);

#[test]
fn plans() {
    let defaults = json!({
        "distinctType": "None", "top": null, "offset": null, "limit": null,
        "orderBy": [], "orderByExpressions": [],
        "groupByExpressions": [], "groupByAliases": [],
        "aggregates": [], "groupByAliasToAggregateType": {},
        "rewrittenQuery": "", "hasSelectValue": false, "dCountInfo": null,
        "hasNonStreamingOrderBy": false,
    });
    for case in fixture::plans(include_str!("../fixtures/plans.txt")) {
        let PlanCase {
            title,
            query,
            parameters,
            key_paths,
            features,
            expected,
        } = case;
        let key_paths: Vec<&str> = key_paths.iter().map(String::as_str).collect();
        let parsed =
            Query::parse(&query, &parameters).unwrap_or_else(|error| panic!("{title}: {error}"));
        let plan = parsed.plan(&features, &key_paths, json!(["ranges"]));
        let (members, rewritten, keys) = match (expected, plan) {
            (Ok(expected), Ok(plan)) => {
                assert_eq!(plan["queryRanges"], json!(["ranges"]), "{title}");
                let mut info = defaults.clone();
                for (name, value) in expected.members {
                    assert!(info.get(&name).is_some(), "{title}: no member {name}");
                    info[name] = value;
                }
                info["rewrittenQuery"] = json!(expected.rewritten);
                (plan["queryInfo"].clone(), info, expected.keys)
            }
            (Err(expected), Err(error)) => {
                assert_eq!(expected.mismatch(&error), None, "{title}");
                continue;
            }
            (_, plan) => panic!("{title}: {plan:?}"),
        };
        assert_eq!(members, rewritten, "{title}");
        assert_eq!(parsed.key_set(&key_paths), keys, "{title}");
    }
}

#[test]
fn filters_name_what_an_index_can_answer() {
    let query = Query::parse(
        "SELECT * FROM c WHERE c.deviceId = @d AND 5 <= c._ts AND c._ts < 9 AND c.a.b IN ('x') AND c.on
         AND c.n BETWEEN 1 AND 2 AND (c.x = 1 OR c.y = 2) AND c['a/b'] = 3 AND NOT c.off AND c.p = c.q",
        &[("@d".into(), json!("d1"))],
    )
    .unwrap();
    assert_eq!(
        query.equality_filters(),
        [
            ("/deviceId".into(), json!("d1")),
            ("/a/b".into(), json!("x")),
            ("/on".into(), json!(true)),
            ("/\"a/b\"".into(), json!(3)),
        ]
    );
    let range = |path: &str, lower, upper| RangeFilter {
        path: path.into(),
        lower,
        upper,
    };
    assert_eq!(
        query.range_filters(),
        [
            range("/_ts", Some((json!(5), true)), None),
            range("/_ts", None, Some((json!(9), false))),
            range("/n", Some((json!(1), true)), Some((json!(2), true))),
        ]
    );
}

/// What is asked of the rows of a subquery is not asked of documents.
#[test]
fn filters_over_folded_rows_are_none_of_documents() {
    let documents = ["a", "a", "b"].map(|kind| json!({"id": "1", "kind": kind, "_ts": 1}));
    let text = "SELECT VALUE s.id FROM (SELECT DISTINCT c.kind AS id FROM c WHERE c._ts = 1) AS s WHERE s.id = 'a'";
    let query = Query::parse(text, &[]).unwrap();
    assert_eq!(query.equality_filters(), [("/_ts".into(), json!(1))]);
    assert_eq!(query.range_filters(), []);
    let text = "SELECT VALUE s.id FROM (SELECT DISTINCT c.kind AS id FROM c) AS s WHERE s.id = 'a'";
    let query = Query::parse(text, &[]).unwrap();
    assert_eq!(query.equality_filters(), []);
    assert_eq!(query.execute(documents.into_iter()).unwrap(), [json!("a")]);
}

#[test]
fn reading_stops_when_enough_rows_are_there() {
    let query = Query::parse("SELECT TOP 2 VALUE c.n FROM c WHERE c.n > 5", &[]).unwrap();
    let mut read = 0;
    let documents = (0..1_000).map(|n: u64| {
        read += 1;
        json!({"n": n})
    });
    assert_eq!(query.execute(documents).unwrap(), [json!(6), json!(7)]);
    assert_eq!(read, 8);
}

#[test]
fn a_page_is_limited_in_bytes_but_never_empty() {
    let query = Query::parse("SELECT * FROM c", &[]).unwrap();
    let documents = || (0..10).map(|n| json!({"_rid": rid(n), "x": "y".repeat(1_000)}));
    let limits = PageLimits {
        rows: usize::MAX,
        bytes: 3_000,
    };
    let page = query
        .execute_page(documents(), Supply::AnyOrder, limits, None)
        .unwrap();
    assert_eq!(page.rows.len(), 2);
    assert_eq!(page.next.unwrap().rid(), rid(1));
    let limits = PageLimits { rows: 0, bytes: 0 };
    let page = query
        .execute_page(documents(), Supply::AnyOrder, limits, None)
        .unwrap();
    assert_eq!(page.rows.len(), 1);
}

#[test]
fn pages_are_not_disturbed_by_other_writers() {
    let query = Query::parse("SELECT VALUE c.n FROM c ORDER BY c.n", &[]).unwrap();
    let document = |n: u64| json!({"_rid": rid(n), "n": n});
    let limits = PageLimits {
        rows: 2,
        bytes: usize::MAX,
    };
    let page = |documents: &[u64], after: Option<&Position>| {
        let documents = documents.iter().copied().map(document).collect::<Vec<_>>();
        query
            .execute_page(documents.into_iter(), Supply::AnyOrder, limits, after)
            .unwrap()
    };
    let first = page(&[30, 10, 20, 40], None);
    assert_eq!(values(first.rows), [json!(10), json!(20)]);
    // Both rows of the first page are gone, and a smaller one has come.
    let second = page(&[40, 5, 30], first.next.as_ref());
    assert_eq!(values(second.rows), [json!(30), json!(40)]);
    assert_eq!(second.next, None);
}

#[test]
fn a_resume_filter_seeks() {
    let documents = || {
        [(1, 10), (2, 20), (3, 20), (4, 30)]
            .map(|(ordinal, n)| json!({"_rid": rid(ordinal), "id": ordinal, "n": n}))
    };
    let third = documents()[2]["_rid"].clone();
    for (filter, expected) in [
        (json!({"value": [20], "exclude": false}), json!([2, 3, 4])),
        (json!({"value": [20], "exclude": true}), json!([4])),
        (
            json!({"value": [20], "rid": third, "exclude": false}),
            json!([3, 4]),
        ),
        (
            json!({"value": [20], "rid": third, "exclude": true}),
            json!([4]),
        ),
        (
            json!({"value": [[]], "exclude": false}),
            json!([1, 2, 3, 4]),
        ),
    ] {
        let rows = Query::parse("SELECT VALUE c.id FROM c ORDER BY c.n", &[])
            .unwrap()
            .with_resume_filter(filter.as_object().unwrap())
            .unwrap()
            .execute(documents().into_iter())
            .unwrap();
        assert_eq!(Value::from(rows), expected, "{filter}");
    }
    for (text, filter, code) in [
        (
            "SELECT * FROM c",
            json!({"value": []}),
            ErrorCode::Malformed,
        ),
        (
            "SELECT * FROM c ORDER BY c.n",
            json!({"value": []}),
            ErrorCode::Malformed,
        ),
        (
            "SELECT * FROM c ORDER BY c.n",
            json!({"value": [1], "rid": 5}),
            ErrorCode::Malformed,
        ),
        (
            "SELECT * FROM c ORDER BY c.n",
            json!({"value": [{"type": "array"}]}),
            ErrorCode::Unsupported,
        ),
    ] {
        let query = Query::parse(text, &[]).unwrap();
        let error = query
            .with_resume_filter(filter.as_object().unwrap())
            .unwrap_err();
        assert_eq!(error.code(), code, "{text} {filter}");
    }
}

#[test]
fn positions_belong_to_one_order() {
    let parse = |text: &str| Query::parse(text, &[]).unwrap();
    let query = parse("SELECT * FROM c WHERE c.a = 1 ORDER BY c.b, c.a DESC");
    let documents = (0..2).map(|n| json!({"_rid": rid(n), "a": 1}));
    let limits = PageLimits {
        rows: 1,
        bytes: usize::MAX,
    };
    let page = query
        .execute_page(documents, Supply::AnyOrder, limits, None)
        .unwrap();
    let token = query.position_to_json(&page.next.unwrap());
    let resumed = parse("SELECT TOP 5 c._rid FROM c WHERE c.b > 7 ORDER BY c[\"b\"] ASC, c.a desc");
    assert!(resumed.position_from_json(&token).is_ok());
    for other in [
        "SELECT * FROM c ORDER BY c.b, c.a",
        "SELECT * FROM c ORDER BY c.a, c.b DESC",
        "SELECT * FROM c ORDER BY c.b",
        "SELECT * FROM c",
    ] {
        let error = parse(other).position_from_json(&token).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Malformed, "{other}");
    }
}

#[test]
fn which_queries_need_a_plan() {
    for (text, expected) in [
        ("SELECT * FROM c WHERE c.a = 1", false),
        ("SELECT c.a FROM c JOIN x IN c.xs", false),
        (
            "SELECT c.id, (SELECT VALUE COUNT(1) FROM x IN c.xs) AS n FROM c",
            false,
        ),
        ("SELECT TOP 1 * FROM c", true),
        ("SELECT * FROM c ORDER BY c.a", true),
        ("SELECT DISTINCT c.a FROM c", true),
        ("SELECT * FROM c OFFSET 0 LIMIT 1", true),
        ("SELECT c.a FROM c GROUP BY c.a", true),
        ("SELECT VALUE COUNT(1) FROM c", true),
        ("SELECT s.a FROM (SELECT DISTINCT c.a FROM c) AS s", true),
    ] {
        assert_eq!(
            Query::parse(text, &[]).unwrap().needs_plan(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn errors_have_the_services_structure() {
    let error = Query::parse("SELECT * FROM c WHERE c.id = @modules", &[]).unwrap_err();
    assert_eq!(
        error.to_json(),
        json!({"errors": [{
            "severity": "Error",
            "location": {"start": 29, "end": 37},
            "code": "SC2001",
            "message": "Parameter '@modules' was not supplied with the query.",
        }]})
    );
}

/// Every limit of the text is a refusal, on the stack that a test thread has.
#[test]
fn limits_are_refusals() {
    let deep = 100_000;
    for text in [
        format!("SELECT VALUE {}1{}", "(".repeat(deep), ")".repeat(deep)),
        format!("SELECT VALUE {}", "[".repeat(deep)),
        format!("SELECT VALUE {}1", "- ".repeat(deep)),
        format!("SELECT VALUE {}1", "NOT ".repeat(deep / 2)),
        format!("SELECT VALUE 1{}", "+1".repeat(deep)),
        format!("SELECT VALUE c{} FROM c", ".a".repeat(deep)),
        format!("SELECT VALUE {}1", "(SELECT VALUE ".repeat(deep / 8)),
        format!("SELECT VALUE {}1", "true ? 1 : ".repeat(deep / 8)),
        format!("SELECT VALUE {}1", "a ?? ".repeat(deep / 8)),
        format!("SELECT VALUE 1 IN ({}1)", "1,".repeat(MAX_LIST_ITEMS)),
        format!(
            "SELECT VALUE true{}",
            " OR true".repeat(MAX_LOGICAL_TERMS + 1)
        ),
        format!("SELECT VALUE 1 FROM c{}", " JOIN c.a".repeat(MAX_JOINS + 1)),
        " ".repeat(MAX_QUERY_LENGTH + 1),
    ] {
        let error = Query::parse(&text, &[]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::LimitExceeded, "{}", &text[..60]);
    }
}

/// What is just within the limits runs on a small stack.
#[test]
fn the_deepest_query_fits_the_stack() {
    let depth = MAX_DEPTH - 4;
    let texts = [
        format!("SELECT VALUE {}1{}", "[".repeat(depth), "]".repeat(depth)),
        format!("SELECT VALUE {}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!(
            "SELECT VALUE {}1{}",
            "-(".repeat(depth / 3),
            ")".repeat(depth / 3)
        ),
        format!(
            "SELECT VALUE {}1{}",
            "(SELECT VALUE ".repeat(depth / 3),
            ")".repeat(depth / 3)
        ),
        format!(
            "SELECT VALUE 1 FROM c WHERE {}true{}",
            "EXISTS(SELECT VALUE 1 FROM x IN c.a WHERE ".repeat(depth / 3),
            ")".repeat(depth / 3)
        ),
        format!(
            "SELECT VALUE {}c.a{} FROM c",
            "[c.a, ".repeat(depth),
            "]".repeat(depth)
        ),
        format!(
            "SELECT VALUE {}1{} FROM c",
            "IIF(c.b, 1, ".repeat(depth),
            ")".repeat(depth)
        ),
        format!("SELECT VALUE {}1 FROM c", "c.b ?? ".repeat(depth)),
        format!(
            "SELECT VALUE {}1{} FROM c",
            "(c.b ? 1 : ".repeat(depth / 2),
            ")".repeat(depth / 2)
        ),
        format!("SELECT VALUE 1{} FROM c", " + c.a[0]".repeat(depth)),
        format!(
            "{}SELECT VALUE c.a FROM c{}",
            "SELECT VALUE s FROM (".repeat(depth / 2),
            ") AS s".repeat(depth / 2)
        ),
        format!(
            "{}SELECT VALUE c.a FROM c{}",
            "SELECT DISTINCT VALUE s FROM (".repeat(depth / 2),
            ") AS s".repeat(depth / 2)
        ),
        format!(
            "SELECT VALUE 1 FROM c JOIN {}c.a AS t{}",
            "(SELECT VALUE s FROM (SELECT VALUE c.a) AS s JOIN ".repeat(depth / 3),
            ") AS u".repeat(depth / 3)
        ),
    ];
    let run = move || {
        for text in texts {
            let query = Query::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}: {text}"));
            let text = query.select.to_string();
            Query::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}: {text}"));
            let rows = query.execute(std::iter::once(json!({"a": [1]}))).unwrap();
            assert_eq!(rows.len(), 1, "{text}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run);
    thread.unwrap().join().unwrap();
}

#[test]
fn joins_without_end_are_stopped() {
    let numbers: Vec<u64> = (0..1_000).collect();
    let query = Query::parse(
        "SELECT VALUE COUNT(1) FROM c JOIN x IN c.a JOIN y IN c.a JOIN z IN c.a",
        &[],
    )
    .unwrap();
    let error = query
        .execute(std::iter::once(json!({"a": numbers})))
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
}
