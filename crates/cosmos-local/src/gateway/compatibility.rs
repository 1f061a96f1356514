//! `COMPATIBILITY.md` says what is so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use http::StatusCode;
use serde_json::{Value, json};

use super::tests::Setup;
use crate::query::function_names;

const PAGE: &str = include_str!("../../COMPATIBILITY.md");

/// The rows of the tables under a heading, without head and line.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "{heading}");
    rows
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn versions_are_those_of_the_suites() {
    let javascript = include_str!("../../tests/clients/javascript/package.json");
    let python = include_str!("../../tests/clients/python/requirements.txt");
    for row in table("Clients") {
        let (name, version) = (quoted(row[0])[0], row[1]);
        let is_there = match name {
            "@azure/cosmos" => javascript.contains(&format!("\"{name}\": \"{version}\"")),
            "azure-cosmos" => python.contains(&format!("{name}=={version}\n")),
            "azure_data_cosmos" => include_str!("../../../../Cargo.toml")
                .contains(&format!("{name} = {{ version = \"{version}\"")),
            other => panic!("{other} has no suite"),
        };
        assert!(is_there, "{name} {version}");
    }
}

#[test]
fn features_have_the_tests_that_it_names() {
    for row in table("Features") {
        let [feature, tests] = row.as_slice() else {
            panic!("{row:?}")
        };
        let tests = quoted(tests);
        assert!(!tests.is_empty(), "{feature}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
            let source = std::fs::read_to_string(path).unwrap();
            let lines: Vec<&str> = source.lines().collect();
            let start = format!("async fn {name}() {{");
            let is_there = lines
                .windows(2)
                .any(|pair| pair[0].starts_with("#[tokio::test") && pair[1] == start);
            assert!(is_there, "{feature}: {test}");
        }
    }
}

#[test]
fn requests_are_answered_as_it_says() {
    for row in table("Requests") {
        let [request, body, status] = row.as_slice() else {
            panic!("{row:?}")
        };
        let quotes = quoted(request);
        let (method, path) = quotes[0].split_once(' ').unwrap();
        let headers: Vec<_> = quotes[1..]
            .iter()
            .map(|header| header.split_once(": ").unwrap())
            .collect();
        let body = match *body {
            "" => "",
            "item" => r#"{"id":"new","tenant":"t"}"#,
            other => quoted(other)[0],
        };
        let answer = Setup::new().send(method, path, &headers, body.as_bytes());
        assert_eq!(
            answer.status.as_str(),
            *status,
            "{request}: {:?}",
            answer.body
        );
        if answer.status == StatusCode::NOT_IMPLEMENTED {
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("not supported"), "{request}: {message}");
        }
    }
}

#[test]
fn queries_give_what_it_says() {
    let setup = Setup::empty();
    let document = r#"{"id":"1","tenant":"t","n":2,"s":"Text","list":[1,2]}"#;
    let key = ("x-ms-documentdb-partitionkey", "[\"t\"]");
    let made = setup.send(
        "POST",
        "/dbs/shop/colls/orders/docs",
        &[key],
        document.as_bytes(),
    );
    assert_eq!(made.status, StatusCode::CREATED);
    for row in table("Queries") {
        let (query, expected) = (quoted(row[0])[0], row[1]);
        let answer = setup.query(query, &[key]);
        let body = answer.json();
        match quoted(expected).as_slice() {
            [rows] => {
                let rows: Value = serde_json::from_str(rows).unwrap();
                assert_eq!(body["Documents"], rows, "{query}: {body}");
            }
            _ => {
                assert_eq!(answer.status.as_str(), expected, "{query}: {body}");
                assert_ne!(body["message"], json!(null), "{query}");
            }
        }
    }
}

#[test]
fn functions_are_those_that_it_lists() {
    let listed = |title: &str| -> Vec<&str> {
        let (_, rest) = PAGE.split_once(&format!("\n{title}: ")).unwrap();
        let list = rest.split(".\n").next().unwrap();
        list.split(',').map(str::trim).collect()
    };
    let names = function_names();
    for (title, names) in [
        ("Functions", names.implemented),
        ("Aggregates", names.aggregates),
        ("Refused functions", names.refused),
    ] {
        assert_eq!(listed(title).join(", "), names.join(", "), "{title}");
    }
}
