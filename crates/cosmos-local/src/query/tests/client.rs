//! The client's side of a query plan, as the SDKs have it: run the rewritten text on each
//! partition, then merge sorted rows, add up partial aggregates, drop duplicates, cut the window.
//! Following the reading of JS and .NET, which prefer `item2` (`@azure/cosmos`:
//! `dist/esm/queryExecutionContext`).

use serde_json::{Map, Value, json};

use super::fixture::{ALL_FEATURES, Case};
use crate::query::Query;
use crate::query::value;

/// Rows as they can be compared: sorted by content where the query promises no order.
pub(super) fn comparable(query: &Query, mut rows: Vec<Value>) -> Vec<Value> {
    if query.program.order.is_empty() {
        rows.sort_by(|left, right| value::compare(Some(left), Some(right)));
    }
    rows
}

/// The result over two partitions; nothing when the query needs no plan, or when its result
/// depends on the order in which partitions are read.
pub(super) fn merged(case: &Case) -> Option<Vec<Value>> {
    let query = Query::parse(&case.query, &case.parameters).ok()?;
    let has_rids = case
        .documents
        .iter()
        .all(|document| document.get("_rid").is_some());
    if !query.needs_plan() || !has_rids || query.program.sources.is_empty() {
        return None;
    }
    let plan = query.plan(ALL_FEATURES, &["/id"], json!([])).ok()?;
    let info = &plan["queryInfo"];
    let is_sorted = !list(info, "orderBy").is_empty();
    let is_list = case.query.contains("MAKE");
    if (query.top.is_some() || query.window.is_some()) && !is_sorted || is_list {
        return None;
    }
    let text = match info["rewrittenQuery"].as_str()? {
        "" => case.query.clone(),
        text => text.replace("{documentdb-formattableorderbyquery-filter}", "true"),
    };
    let rewritten = Query::parse(&text, &case.parameters)
        .unwrap_or_else(|error| panic!("{}: {error} in\n{text}", case.title));
    let mut rows = Vec::new();
    for partition in 0..2 {
        let documents = case.documents.iter().skip(partition).step_by(2).cloned();
        rows.extend(rewritten.execute(documents).unwrap());
    }
    if is_sorted {
        rows = sort(info, rows);
    }
    let is_grouped = !list(info, "groupByExpressions").is_empty();
    let has_names = !list(info, "groupByAliases").is_empty();
    if is_grouped || has_names || !list(info, "aggregates").is_empty() {
        rows = fold(info, rows);
    }
    if info["distinctType"] != "None" {
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row| seen.insert(value::encoded(Some(row))));
    }
    if let Some(alias) = info["dCountInfo"]["dCountAlias"].as_str() {
        return Some(vec![match alias {
            "" => json!(rows.len()),
            alias => json!({alias: rows.len()}),
        }]);
    }
    let skip = info["offset"].as_u64().unwrap_or(0);
    let take = info["limit"]
        .as_u64()
        .or(info["top"].as_u64())
        .unwrap_or(u64::MAX);
    let (skip, take) = (
        usize::try_from(skip).unwrap(),
        usize::try_from(take).unwrap_or(usize::MAX),
    );
    Some(rows.into_iter().skip(skip).take(take).collect())
}

fn list<'v>(info: &'v Value, name: &str) -> &'v [Value] {
    info[name].as_array().unwrap()
}

/// A stable sort by sort values, then by ordinal; gives the payloads.
fn sort(info: &Value, mut rows: Vec<Value>) -> Vec<Value> {
    let is_descending = |column: usize| list(info, "orderBy")[column] == "Descending";
    let directed = |ordering: std::cmp::Ordering, column| match is_descending(column) {
        true => ordering.reverse(),
        false => ordering,
    };
    rows.sort_by(|left, right| {
        let (left_keys, right_keys) = (list(left, "orderByItems"), list(right, "orderByItems"));
        assert_eq!(left_keys.len(), list(info, "orderBy").len());
        let by_keys =
            left_keys
                .iter()
                .zip(right_keys)
                .enumerate()
                .map(|(column, (left, right))| {
                    directed(value::compare(left.get("item"), right.get("item")), column)
                });
        let ordinal = |row: &Value| crate::query::position::ordinal(row["_rid"].as_str().unwrap());
        by_keys
            .chain(std::iter::once(directed(
                ordinal(left).cmp(&ordinal(right)),
                0,
            )))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let payload = |mut row: Value| row.as_object_mut().unwrap().remove("payload");
    rows.into_iter().filter_map(payload).collect()
}

/// The partial results of one output member, or one plain value.
struct Part {
    aggregate: Option<String>,
    partials: Vec<Value>,
}

/// One group: its key and its output, by name, or under no name for VALUE.
struct Group {
    key: Vec<u8>,
    parts: Vec<(Option<String>, Part)>,
}

fn fold(info: &Value, rows: Vec<Value>) -> Vec<Value> {
    let is_grouped = !list(info, "groupByExpressions").is_empty();
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let payload = match (is_grouped, &row) {
            (false, Value::Array(_)) => Some(&row),
            _ => row.get("payload"),
        };
        let key = match is_grouped {
            true => value::encoded(Some(&row["groupByItems"])),
            false => Vec::new(),
        };
        let at = groups
            .iter()
            .position(|group| group.key == key)
            .unwrap_or_else(|| {
                groups.push(Group {
                    key,
                    parts: parts(info),
                });
                groups.len() - 1
            });
        for (name, part) in &mut groups[at].parts {
            let partial = match (name, &part.aggregate) {
                (Some(name), _) => payload.and_then(|payload| payload.get(name.as_str())),
                (None, Some(_)) => payload.and_then(|payload| payload.get(0)),
                (None, None) => payload,
            };
            part.partials.extend(partial.cloned());
        }
    }
    groups.into_iter().filter_map(output).collect()
}

fn parts(info: &Value) -> Vec<(Option<String>, Part)> {
    let part = |aggregate: &Value| Part {
        aggregate: aggregate.as_str().map(str::to_owned),
        partials: Vec::new(),
    };
    match info["hasSelectValue"] == true {
        true => vec![(
            None,
            part(list(info, "aggregates").first().unwrap_or(&Value::Null)),
        )],
        false => list(info, "groupByAliases")
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .map(|name| {
                let aggregate = &info["groupByAliasToAggregateType"][&name];
                (Some(name), part(aggregate))
            })
            .collect(),
    }
}

fn output(group: Group) -> Option<Value> {
    let mut object = Map::new();
    for (name, part) in group.parts {
        let value = part.value();
        match name {
            None => return value,
            Some(name) => object.extend(value.map(|value| (name, value))),
        }
    }
    Some(Value::Object(object))
}

impl Part {
    fn value(self) -> Option<Value> {
        let Some(aggregate) = self.aggregate else {
            return self.partials.into_iter().next();
        };
        let number =
            |partial: &Value, name: &str| partial["item"].get(name).and_then(Value::as_f64);
        let items = || {
            self.partials
                .iter()
                .filter_map(|partial| partial.get("item"))
        };
        match aggregate.as_str() {
            "Count" | "CountIf" => value::number(items().map(|item| item.as_f64().unwrap()).sum()),
            // A partition with a value that is no number has no sum, and then there is none.
            "Sum" => match items().count() == self.partials.len() {
                false => None,
                true => value::number(items().map(|item| item.as_f64().unwrap()).sum()),
            },
            "Average" => {
                let sum: f64 = self
                    .partials
                    .iter()
                    .filter_map(|partial| number(partial, "sum"))
                    .sum();
                let count: f64 = self
                    .partials
                    .iter()
                    .filter_map(|partial| number(partial, "count"))
                    .sum();
                let has_sum = self
                    .partials
                    .iter()
                    .any(|partial| number(partial, "sum").is_some());
                value::number(sum / count).filter(|_| has_sum)
            }
            "Min" | "Max" => {
                let name = aggregate.to_lowercase();
                let best = self
                    .partials
                    .iter()
                    .map(|partial| &partial["item2"])
                    .filter(|item| item["count"] != 0)
                    .filter_map(|item| item.get(&name));
                let compare =
                    |left: &&Value, right: &&Value| value::compare(Some(*left), Some(*right));
                match name.as_str() {
                    "min" => best.min_by(compare).cloned(),
                    _ => best.max_by(compare).cloned(),
                }
            }
            other => panic!("no rule for {other}"),
        }
    }
}
