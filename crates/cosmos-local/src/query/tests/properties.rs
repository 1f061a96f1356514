//! What holds for every text and every tree.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::client;
use super::fixture::{Case, Expected};
use super::rid;
use crate::query::{PageLimits, Position, Query, Supply, parser};

/// Texts made of the grammar's own pieces: most are wrong, in every way there is.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "SELECT", "DISTINCT", "TOP", "VALUE", "*", "FROM", "JOIN", "IN", "WHERE", "GROUP BY",
            "ORDER BY", "ASC", "DESC", "OFFSET", "LIMIT", "AS", "AND", "OR", "NOT", "BETWEEN", "LIKE",
            "ESCAPE", "EXISTS", "ARRAY", "udf.", "true", "null", "undefined", "(", ")", "[", "]", "{",
            "}", ",", ".", ":", "?", "??", "=", "!=", "<", ">>>", "||", "+", "-", "~", "c", "x", "@p",
            "1", "1.5", "'s'", "\"\\u00e9\"", "COUNT(1)", "SUM(", "UPPER(", "LENGTH(c.a)", "-- c\n",
            "(SELECT", "c.a", "c['b']", "/*", "\\", "'",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.join(" "))
}

/// A valid expression over the alias `c`.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "c.a",
        "c.b",
        "c.n",
        "c.list",
        "c.list[0]",
        "c[\"o\"].x",
        "c.missing",
        "1",
        "2.5",
        "-3",
        "'s'",
        "\"t\"",
        "true",
        "false",
        "null",
        "undefined",
        "@p",
        "[1, c.a]",
        "{\"k\": c.b}",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let infix = prop::sample::select(vec![
            "AND", "OR", "=", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "&", "|", "^",
            "<<", ">>", ">>>", "||", "??",
        ]);
        let prefix = prop::sample::select(vec!["NOT ", "-", "+", "~"]);
        let function = prop::sample::select(vec![
            "IS_DEFINED",
            "LENGTH",
            "ABS",
            "ToString",
            "ARRAY_LENGTH",
        ]);
        prop_oneof![
            (inner.clone(), infix, inner.clone()).prop_map(|(l, o, r)| format!("{l} {o} {r}")),
            (prefix, inner.clone()).prop_map(|(o, e)| format!("{o} {e}")),
            inner.clone().prop_map(|e| format!("({e})")),
            (function, inner.clone()).prop_map(|(f, e)| format!("{f}({e})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a}) NOT BETWEEN ({b}) AND ({c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) IN ({b}, 1)")),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| format!("({a}) LIKE ({b}) ESCAPE '!'")),
            inner
                .clone()
                .prop_map(|e| format!("EXISTS(SELECT VALUE x FROM x IN c.list WHERE x = ({e}))")),
            inner.prop_map(|e| format!("ARRAY(SELECT VALUE [x, {e}] FROM x IN c.list)")),
        ]
    })
}

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    let document = (
        prop::option::of(value.clone()),
        prop::option::of(value.clone()),
        prop::collection::vec(value, 0..3),
    );
    prop::collection::vec(document, 0..8).prop_map(|documents| {
        documents
            .into_iter()
            .enumerate()
            .map(|(n, (a, b, list))| {
                let mut document =
                    json!({"id": n.to_string(), "_rid": rid(n as u64), "n": n, "list": list});
                document["o"] = json!({"x": a.clone()});
                if let Some(a) = a {
                    document["a"] = a;
                }
                if let Some(b) = b {
                    document["b"] = b;
                }
                document
            })
            .collect()
    })
}

fn parameters() -> Vec<(String, Value)> {
    vec![("@p".into(), json!(["x", 1]))]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any_text()) {
        if let Ok(query) = Query::parse(&text, &parameters()) {
            let _ = query.execute(std::iter::once(json!({"a": 1})));
        }
    }

    #[test]
    fn no_characters_make_the_parser_panic(text in any::<String>()) {
        let _ = Query::parse(&text, &[]);
        let _ = Query::parse(&format!("SELECT {text}"), &[]);
    }

    #[test]
    fn errors_lie_within_the_text(text in any_text()) {
        if let Err(error) = Query::parse(&text, &[])
            && let Some((start, end)) = error.location()
        {
            prop_assert!(start <= end && end <= text.chars().count());
        }
    }

    #[test]
    fn printing_and_reading_gives_the_same_tree(expr in expression()) {
        let text = format!("SELECT VALUE {expr} FROM c");
        let tree = parser::parse(&text).unwrap();
        let printed = tree.to_string();
        let again = parser::parse(&printed);
        prop_assert_eq!(again.as_ref().ok(), Some(&tree), "{}", printed);
    }

    /// Constants that are computed early are the constants that rows would give.
    #[test]
    fn a_printed_query_gives_the_same_rows(expr in expression(), documents in documents()) {
        let text = format!("SELECT VALUE {expr} FROM c");
        let query = Query::parse(&text, &parameters()).unwrap();
        let again = Query::parse(&query.select.to_string(), &parameters()).unwrap();
        let run = |query: &Query| query.execute(documents.iter().cloned()).map_err(|error| error.to_string());
        prop_assert_eq!(run(&query), run(&again));
    }

    #[test]
    fn a_filter_never_names_less_than_the_clause_lets_through(expr in expression(), documents in documents()) {
        let text = format!("SELECT * FROM c WHERE {expr}");
        let query = Query::parse(&text, &parameters()).unwrap();
        let Ok(rows) = query.execute(documents.into_iter()) else { return Ok(()) };
        let keys = query.key_set(&["/a"]);
        for row in &rows {
            if let crate::query::KeySet::Keys(keys) = &keys {
                let key = row.get("a").filter(|value| crate::query::value::is_primitive(value)).cloned();
                let is_there = keys.iter().any(|known| {
                    crate::query::value::compare(known[0].as_ref(), key.as_ref()).is_eq()
                });
                prop_assert!(is_there, "{row} is outside of {keys:?}");
            }
            for (path, value) in query.equality_filters() {
                let found = row.pointer(&path);
                prop_assert!(found.is_some_and(|found| crate::query::value::equal(found, &value)), "{path} in {row}");
            }
            for range in query.range_filters() {
                let found = row.pointer(&range.path).cloned().unwrap_or_default();
                let compare = |bound: &Value| crate::query::value::compare(Some(&found), Some(bound));
                let is_above = range.lower.is_none_or(|(bound, inclusive)| compare(&bound).is_gt() || inclusive && compare(&bound).is_eq());
                let is_below = range.upper.is_none_or(|(bound, inclusive)| compare(&bound).is_lt() || inclusive && compare(&bound).is_eq());
                prop_assert!(is_above && is_below, "{} in {row}", range.path);
            }
        }
    }

    #[test]
    fn partitions_merge_to_the_whole(
        documents in documents(),
        query in prop::sample::select(vec![
            "SELECT * FROM c ORDER BY c.a",
            "SELECT VALUE c.b FROM c ORDER BY c.a DESC, c.b",
            "SELECT TOP 3 c.id, c.a FROM c ORDER BY c.b DESC",
            "SELECT c.id FROM c WHERE IS_DEFINED(c.b) ORDER BY c.a OFFSET 1 LIMIT 2",
            "SELECT DISTINCT VALUE c.a FROM c",
            "SELECT DISTINCT VALUE c.a FROM c ORDER BY c.a",
            "SELECT DISTINCT TOP 2 VALUE c.a FROM c ORDER BY c.a DESC",
            "SELECT VALUE x FROM c JOIN x IN c.list ORDER BY c.a",
            "SELECT VALUE COUNT(c.a) FROM c",
            "SELECT COUNT(1) AS n, SUM(c.n) AS s, AVG(c.n) AS v, MIN(c.a) AS l, MAX(c.a) AS h FROM c",
            "SELECT VALUE MIN(c.b) FROM c",
            "SELECT VALUE AVG(c.n) FROM c WHERE c.a = 1",
            "SELECT c.a, COUNT(1) AS n, MAX(c.n) AS m FROM c GROUP BY c.a",
            "SELECT c.a, c.b, AVG(c.n) AS v FROM c GROUP BY c.a, c.b",
            "SELECT VALUE COUNT(1) FROM c GROUP BY c.b",
            "SELECT VALUE COUNT(1) FROM (SELECT DISTINCT VALUE c.a FROM c)",
            "SELECT COUNT(1) AS n FROM (SELECT DISTINCT c.a, c.b FROM c)",
        ]),
    ) {
        let case = Case {
            title: query.to_owned(),
            documents,
            query: query.to_owned(),
            parameters: Vec::new(),
            expected: Expected::Rows(Vec::new()),
        };
        let query = Query::parse(query, &[]).unwrap();
        let whole = query.execute(case.documents.iter().cloned()).unwrap();
        let merged = client::merged(&case).expect("the query has a plan");
        prop_assert_eq!(client::comparable(&query, merged), client::comparable(&query, whole), "{}", case.title);
    }

    #[test]
    fn what_is_known_need_not_be_asked(
        documents in documents(),
        known in prop::sample::select(vec![json!(null), json!(true), json!(0), json!(1.0), json!("a"), json!("")]),
        written in prop::sample::select(vec!["null", "true", "0", "1", "-0.0", "'a'", "\"\""]),
        expr in expression(),
        shape in prop::sample::select(vec!["c.a = @v", "@v = c[\"a\"] AND (@e)", "(@e) AND c.a = @v AND c.b = 1", "c.a = @v OR (@e)", "NOT c.a = @v"]),
    ) {
        let clause = shape.replace("@v", written).replace("@e", &expr);
        let text = format!("SELECT * FROM c WHERE {clause}");
        let documents: Vec<Value> = documents
            .into_iter()
            .filter(|document| document.get("a").is_some_and(|a| crate::query::value::equal(a, &known)))
            .collect();
        let run = |query: Query| query.execute(documents.iter().cloned()).map_err(|error| error.to_string());
        let query = || Query::parse(&text, &parameters()).unwrap();
        prop_assert_eq!(run(query().knowing(&[("/a", known)])), run(query()));
    }

    #[test]
    fn pages_add_up_to_the_whole(
        documents in documents(),
        rows_of in prop::sample::select(vec!["SELECT c.id, x FROM c JOIN x IN c.list", "SELECT * FROM c", "SELECT VALUE c FROM c", "SELECT c.id, c.a FROM c"]),
        filter in prop::sample::select(vec!["", "WHERE c.a > 1", "WHERE c.b <= 2", "WHERE c.a BETWEEN 'a' AND 'b'", "WHERE c.a < 0 AND c.a > 1", "WHERE c.a = 1", "WHERE 'a' = c.b AND c.a < 2"]),
        order in prop::sample::select(vec!["", "ORDER BY c.a", "ORDER BY c.a DESC, c.b", "ORDER BY c.b DESC, c.a DESC", "ORDER BY x"]),
        window in prop::sample::select(vec!["", "OFFSET 0 LIMIT 3", "OFFSET 2 LIMIT 4", "OFFSET 1 LIMIT 100"]),
        rows in 1usize..5,
        bytes in prop::sample::select(vec![1usize, 200, usize::MAX]),
        is_sorted in any::<bool>(),
    ) {
        let order = match rows_of.contains("JOIN") {
            true => order.to_owned(),
            false => order.replace(" x", " c.n"),
        };
        let text = format!("{rows_of} {filter} {order} {window}");
        let query = Query::parse(&text, &[]).unwrap();
        let whole = query.execute(documents.iter().cloned()).unwrap();
        let mut paged = Vec::new();
        let mut after: Option<Position> = None;
        loop {
            let start = match &after {
                Some(position) if order.is_empty() => {
                    documents.iter().position(|document| document["_rid"] == position.rid()).unwrap()
                }
                _ => 0,
            };
            let sorted = super::in_order(&query, &documents, after.as_ref()).filter(|_| is_sorted);
            let (supply, documents) = match sorted {
                Some(sorted) => (Supply::Sorted, sorted),
                None => (Supply::AnyOrder, documents[start..].to_vec()),
            };
            let page = query.execute_page(documents.into_iter(), supply, PageLimits { rows, bytes }, after.as_ref()).unwrap();
            prop_assert!(page.rows.len() <= rows);
            prop_assert!(page.next.is_none() || !page.rows.is_empty());
            paged.extend(super::values(page.rows));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        prop_assert_eq!(paged, whole);
    }
}
