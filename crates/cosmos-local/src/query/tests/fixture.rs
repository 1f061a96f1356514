//! Reads the case files; `fixtures/README.md` explains them.

use serde_json::{Map, Value};

use crate::query::{KeySet, QueryError};

/// A query and what it gives over documents.
pub(super) struct Case {
    pub(super) title: String,
    pub(super) documents: Vec<Value>,
    pub(super) query: String,
    pub(super) parameters: Vec<(String, Value)>,
    pub(super) expected: Expected,
}

pub(super) enum Expected {
    Rows(Vec<Value>),
    Error(ExpectedError),
}

/// `CODE start..end text`
pub(super) struct ExpectedError {
    code: String,
    location: Option<(usize, usize)>,
    message: String,
}

impl ExpectedError {
    fn parse(line: &str) -> Self {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_else(|| panic!("incomplete: {line}"));
        Self {
            code: next().to_owned(),
            location: match next() {
                "-" => None,
                range => {
                    let (start, end) = range.split_once("..").unwrap();
                    Some((start.parse().unwrap(), end.parse().unwrap()))
                }
            },
            message: next().to_owned(),
        }
    }

    /// How an error differs from this.
    pub(super) fn mismatch(&self, error: &QueryError) -> Option<String> {
        let code = match &error.to_json()["errors"][0]["code"] {
            Value::String(code) => code.clone(),
            other => other.to_string(),
        };
        let is_same = code == self.code
            && error.location() == self.location
            && error.to_string().contains(&self.message);
        (!is_same).then(|| format!("{code} {:?} {error}", error.location()))
    }
}

/// A query and its plan.
pub(super) struct PlanCase {
    pub(super) title: String,
    pub(super) query: String,
    pub(super) parameters: Vec<(String, Value)>,
    pub(super) key_paths: Vec<String>,
    pub(super) features: String,
    pub(super) expected: Result<ExpectedPlan, ExpectedError>,
}

pub(super) struct ExpectedPlan {
    pub(super) members: Map<String, Value>,
    pub(super) rewritten: String,
    pub(super) keys: KeySet,
}

/// Everything a client can list.
pub(super) const ALL_FEATURES: &str = "Aggregate,CompositeAggregate,CountIf,DCount,Distinct,GroupBy,ListAndSetAggregate,MultipleAggregates,MultipleOrderBy,NonValueAggregate,OffsetAndLimit,OrderBy,Top";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A block between two titles: the lines of the query, then marked lines.
struct Block<'t> {
    title: &'t str,
    query: String,
    marked: Vec<(&'t str, &'t str)>,
}

fn blocks<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<Block<'t>> {
    let mut blocks: Vec<Block<'t>> = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            blocks.push(Block {
                title,
                query: String::new(),
                marked: Vec::new(),
            });
            continue;
        }
        let block = blocks
            .last_mut()
            .unwrap_or_else(|| panic!("no title before {line}"));
        let is_marked = ["@", ">", "!", "/", "?", "=", "~", "k "]
            .iter()
            .any(|mark| line.starts_with(mark));
        if is_marked && !block.query.is_empty() {
            block.marked.push(line.split_at(1));
        } else {
            assert!(
                block.marked.is_empty(),
                "{}: {line} is behind the query",
                block.title
            );
            if !block.query.is_empty() {
                block.query.push('\n');
            }
            block.query.push_str(line);
        }
    }
    blocks
}

impl Block<'_> {
    fn all(&self, mark: &str) -> impl Iterator<Item = &str> {
        self.marked
            .iter()
            .filter(move |(found, _)| *found == mark)
            .map(|(_, rest)| rest.trim_start())
    }

    fn parameters(&self) -> Vec<(String, Value)> {
        self.all("@")
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap();
                (format!("@{name}"), json(value))
            })
            .collect()
    }

    fn error(&self) -> Option<ExpectedError> {
        self.all("!").next().map(ExpectedError::parse)
    }
}

pub(super) fn cases(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let sections = text
        .split("\ndocs\n")
        .map(|section| section.strip_prefix("docs\n").unwrap_or(section));
    for section in sections {
        let (documents, rest) = section.split_once("\n\n").unwrap();
        let documents: Vec<Value> = documents.lines().map(json).collect();
        for block in blocks(rest.lines()) {
            let rows: Vec<&str> = block.all(">").collect();
            let expected = match (block.error(), rows.as_slice()) {
                (Some(error), []) => Expected::Error(error),
                (None, ["nothing"]) => Expected::Rows(Vec::new()),
                (None, rows) if !rows.is_empty() => {
                    Expected::Rows(rows.iter().copied().map(json).collect())
                }
                _ => panic!("{}: rows or an error", block.title),
            };
            cases.push(Case {
                title: block.title.to_owned(),
                documents: documents.clone(),
                parameters: block.parameters(),
                query: block.query,
                expected,
            });
        }
    }
    cases
}

pub(super) fn plans(text: &str) -> Vec<PlanCase> {
    let read = |block: Block<'_>| {
        let expected = match block.error() {
            Some(error) => Err(error),
            None => Ok(ExpectedPlan {
                members: match block.all("=").next().map(json) {
                    Some(Value::Object(members)) => members,
                    other => panic!("{}: {other:?}", block.title),
                },
                rewritten: block.all("~").collect::<Vec<_>>().join("\n"),
                keys: keys(
                    block
                        .all("k")
                        .next()
                        .unwrap_or_else(|| panic!("{}: no keys", block.title)),
                ),
            }),
        };
        let key_paths = block.all("/").next().unwrap_or("pk").to_owned();
        let features = block.all("?").next().unwrap_or(ALL_FEATURES).to_owned();
        PlanCase {
            title: block.title.to_owned(),
            parameters: block.parameters(),
            key_paths: format!("/{key_paths}")
                .split(' ')
                .map(str::to_owned)
                .collect(),
            features,
            query: block.query,
            expected,
        }
    };
    blocks(text.lines()).into_iter().map(read).collect()
}

fn keys(text: &str) -> KeySet {
    if text == "everything" {
        return KeySet::Everything;
    }
    let component = |value: Value| (value != Value::Object(Map::new())).then_some(value);
    let Value::Array(keys) = json(text) else {
        panic!("{text} is no list of keys")
    };
    KeySet::Keys(
        keys.into_iter()
            .map(|key| match key {
                Value::Array(components) => components.into_iter().map(component).collect(),
                other => panic!("{other} is no key"),
            })
            .collect(),
    )
}
