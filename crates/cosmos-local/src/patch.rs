//! Partial updates of an item: a list of operations, all or none, perhaps under a condition.

use serde::Deserialize;
use serde_json::{Map, Number, Value};

use crate::query::Query;

/// Operations of one patch, at the most.
pub(crate) const MAX_OPERATIONS: usize = 10;

/// One partial update.
#[derive(Debug)]
pub(crate) struct Patch {
    condition: Option<Query>,
    operations: Vec<Operation>,
}

#[derive(Debug)]
enum Operation {
    Add(Path, Value),
    Set(Path, Value),
    Replace(Path, Value),
    Remove(Path),
    Increment(Path, Number),
    Move { from: Path, to: Path },
}

/// Why a patch was not applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PatchError {
    /// The item does not meet the condition.
    ConditionFalse,
    /// An operation does not fit the item, or the condition cannot be evaluated.
    Invalid(String),
}

/// Names on the way to a value; a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path(Vec<String>);

#[derive(Deserialize)]
struct Body {
    condition: Option<String>,
    operations: Vec<OperationBody>,
}

#[derive(Deserialize)]
struct OperationBody {
    op: String,
    path: String,
    /// A null is a value too.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    from: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Patch {
    /// Reads `{"condition": "from c where …", "operations": […]}`, or only the operations. `fixed` are the paths that
    /// cannot be patched. The error is for the client.
    pub(crate) fn parse(body: Value, fixed: &[String]) -> Result<Self, String> {
        let body = match body {
            Value::Array(_) => serde_json::json!({"operations": body}),
            other => other,
        };
        let body: Body = serde_json::from_value(body).map_err(|error| {
            format!("the patch is not {{\"operations\":[{{\"op\":…,\"path\":…}}]}}: {error}")
        })?;
        if body.operations.is_empty() || body.operations.len() > MAX_OPERATIONS {
            return Err(format!("a patch has 1 to {MAX_OPERATIONS} operations"));
        }
        let operations = body
            .operations
            .into_iter()
            .map(|operation| Operation::parse(operation, fixed))
            .collect::<Result<_, String>>()?;
        let condition = body
            .condition
            .filter(|text| !text.trim().is_empty())
            .map(|text| Query::parse(&format!("SELECT * {text}"), &[]))
            .transpose()
            .map_err(|error| format!("the patch's condition is not valid: {error}"))?;
        Ok(Self {
            condition,
            operations,
        })
    }

    /// The members of an item after the patch. `item` has its system properties, for the condition; `members` has not.
    pub(crate) fn apply(
        &self,
        item: &Value,
        members: Map<String, Value>,
    ) -> Result<Map<String, Value>, PatchError> {
        if let Some(condition) = &self.condition {
            let rows = condition
                .execute(std::iter::once(item.clone()))
                .map_err(|error| PatchError::Invalid(error.to_string()))?;
            if rows.is_empty() {
                return Err(PatchError::ConditionFalse);
            }
        }
        let mut root = Value::Object(members);
        for operation in &self.operations {
            operation.apply(&mut root).map_err(PatchError::Invalid)?;
        }
        match root {
            Value::Object(members) => Ok(members),
            _ => Err(PatchError::Invalid("an item has to be an object".into())),
        }
    }
}

impl Operation {
    fn parse(body: OperationBody, fixed: &[String]) -> Result<Self, String> {
        let OperationBody {
            op,
            path,
            value,
            from,
        } = body;
        let path = Path::parse(&path, fixed)?;
        let needed = |value: Option<Value>| {
            value.ok_or_else(|| format!("the operation {op:?} at {path} needs a value"))
        };
        Ok(match op.to_ascii_lowercase().as_str() {
            "add" => Self::Add(path.clone(), needed(value)?),
            "set" => Self::Set(path.clone(), needed(value)?),
            "replace" => Self::Replace(path.clone(), needed(value)?),
            "remove" => Self::Remove(path),
            "incr" | "increment" => match needed(value)? {
                Value::Number(by) => Self::Increment(path, by),
                _ => return Err(format!("{path} can only be incremented by a number")),
            },
            "move" => {
                let from = from.ok_or_else(|| format!("the move to {path} needs a from"))?;
                let from = Path::parse(&from, fixed)?;
                if path.0.starts_with(&from.0) && path != from {
                    return Err(format!("{from} cannot be moved into itself"));
                }
                Self::Move { from, to: path }
            }
            _ => {
                return Err(format!(
                    "the operation {op:?} is none of add, set, replace, remove, incr, move"
                ));
            }
        })
    }

    fn apply(&self, root: &mut Value) -> Result<(), String> {
        match self {
            Self::Add(path, value) => path.add(root, value.clone()),
            Self::Set(path, value) => path.set(root, value.clone()),
            Self::Replace(path, value) => {
                *path.find(root)? = value.clone();
                Ok(())
            }
            Self::Remove(path) => path.remove(root).map(drop),
            Self::Increment(path, by) => match path.find(root) {
                Ok(Value::Number(number)) => {
                    *number = sum(number, by)
                        .ok_or_else(|| format!("{path} would be no finite number"))?;
                    Ok(())
                }
                Ok(_) => Err(format!("{path} is not a number")),
                Err(_) => path.set(root, by.clone().into()),
            },
            Self::Move { from, to } => {
                let value = from.remove(root)?;
                to.add(root, value)
            }
        }
    }
}

/// Whole numbers stay whole as long as they fit.
fn sum(number: &Number, by: &Number) -> Option<Number> {
    let whole = number
        .as_i64()
        .zip(by.as_i64())
        .and_then(|(number, by)| number.checked_add(by));
    match whole {
        Some(whole) => Some(whole.into()),
        None => Number::from_f64(number.as_f64()? + by.as_f64()?),
    }
}

impl Path {
    fn parse(text: &str, fixed: &[String]) -> Result<Self, String> {
        let names = text
            .strip_prefix('/')
            .filter(|names| !names.is_empty())
            .ok_or_else(|| format!("{text:?} is not a path such as /name"))?
            .split('/')
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .collect();
        let path = Self(names);
        for fixed in fixed {
            let names: Vec<&str> = fixed
                .split('/')
                .skip(1)
                .map(|name| name.trim_matches('"'))
                .collect();
            // What is above a fixed value carries it along, and what is below is a part of it.
            if path.0.iter().zip(&names).all(|(a, b)| a == b) {
                return Err(format!("{text} cannot be patched: {fixed} is fixed"));
            }
        }
        Ok(path)
    }

    fn missing(&self) -> String {
        format!("there is nothing at {self}")
    }

    fn find<'a>(&self, root: &'a mut Value) -> Result<&'a mut Value, String> {
        descend(root, &self.0).ok_or_else(|| self.missing())
    }

    /// The container of the value, and the last name.
    fn parent<'a>(&self, root: &'a mut Value) -> Result<(&'a mut Value, &str), String> {
        let (last, above) = self.0.split_last().ok_or_else(|| self.missing())?;
        let parent = descend(root, above).ok_or_else(|| self.missing())?;
        Ok((parent, last))
    }

    fn add(&self, root: &mut Value, value: Value) -> Result<(), String> {
        match self.parent(root)? {
            (Value::Object(members), name) => {
                members.insert(name.to_owned(), value);
                Ok(())
            }
            (Value::Array(items), name) => {
                let at = match name {
                    "-" => items.len(),
                    index => index_of(index).ok_or_else(|| self.missing())?,
                };
                if at > items.len() {
                    return Err(self.missing());
                }
                items.insert(at, value);
                Ok(())
            }
            _ => Err(self.missing()),
        }
    }

    fn set(&self, root: &mut Value, value: Value) -> Result<(), String> {
        match self.parent(root)? {
            (Value::Object(members), name) => {
                members.insert(name.to_owned(), value);
                Ok(())
            }
            (Value::Array(items), name) => {
                let item = index_of(name).and_then(|index| items.get_mut(index));
                *item.ok_or_else(|| self.missing())? = value;
                Ok(())
            }
            _ => Err(self.missing()),
        }
    }

    fn remove(&self, root: &mut Value) -> Result<Value, String> {
        match self.parent(root)? {
            (Value::Object(members), name) => members.shift_remove(name),
            (Value::Array(items), name) => index_of(name)
                .filter(|index| *index < items.len())
                .map(|index| items.remove(index)),
            _ => None,
        }
        .ok_or_else(|| self.missing())
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

fn descend<'a>(root: &'a mut Value, names: &[String]) -> Option<&'a mut Value> {
    names.iter().try_fold(root, |value, name| match value {
        Value::Object(members) => members.get_mut(name),
        Value::Array(items) => items.get_mut(index_of(name)?),
        _ => None,
    })
}

fn index_of(name: &str) -> Option<usize> {
    name.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fixed() -> Vec<String> {
        vec!["/id".into(), "/tenant/name".into()]
    }

    fn patched(operations: Value, item: Value) -> Result<Value, String> {
        let patch = Patch::parse(operations, &fixed())?;
        let members = item.as_object().expect("an object").clone();
        match patch.apply(&item, members) {
            Ok(members) => Ok(Value::Object(members)),
            Err(PatchError::ConditionFalse) => Err("condition".into()),
            Err(PatchError::Invalid(message)) => Err(message),
        }
    }

    #[test]
    fn operations_change_what_they_name() {
        let item = json!({"id": "a", "n": 1, "tags": ["x", "y"], "deep": {"m": 1.5}});
        for (operation, expected) in [
            (
                json!({"op": "add", "path": "/new", "value": null}),
                json!({"id": "a", "n": 1, "tags": ["x", "y"], "deep": {"m": 1.5}, "new": null}),
            ),
            (
                json!({"op": "add", "path": "/tags/-", "value": "z"}),
                json!({"id": "a", "n": 1, "tags": ["x", "y", "z"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "add", "path": "/tags/0", "value": "z"}),
                json!({"id": "a", "n": 1, "tags": ["z", "x", "y"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "set", "path": "/tags/0", "value": "z"}),
                json!({"id": "a", "n": 1, "tags": ["z", "y"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "set", "path": "/deep/k", "value": [1]}),
                json!({"id": "a", "n": 1, "tags": ["x", "y"], "deep": {"m": 1.5, "k": [1]}}),
            ),
            (
                json!({"op": "replace", "path": "/n", "value": "one"}),
                json!({"id": "a", "n": "one", "tags": ["x", "y"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "remove", "path": "/tags/0"}),
                json!({"id": "a", "n": 1, "tags": ["y"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "incr", "path": "/n", "value": 41}),
                json!({"id": "a", "n": 42, "tags": ["x", "y"], "deep": {"m": 1.5}}),
            ),
            (
                json!({"op": "increment", "path": "/deep/m", "value": 1}),
                json!({"id": "a", "n": 1, "tags": ["x", "y"], "deep": {"m": 2.5}}),
            ),
            (
                json!({"op": "incr", "path": "/fresh", "value": -2}),
                json!({"id": "a", "n": 1, "tags": ["x", "y"], "deep": {"m": 1.5}, "fresh": -2}),
            ),
            (
                json!({"op": "move", "from": "/n", "path": "/deep/n"}),
                json!({"id": "a", "tags": ["x", "y"], "deep": {"m": 1.5, "n": 1}}),
            ),
        ] {
            assert_eq!(
                patched(json!([operation]), item.clone()),
                Ok(expected),
                "{operation}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let item = json!({"id": "a", "n": 1, "tags": ["x"], "tenant": {"name": "t", "size": 1}});
        for operation in [
            json!({"op": "add", "path": "/no/where", "value": 1}),
            json!({"op": "add", "path": "/tags/2", "value": 1}),
            json!({"op": "add", "path": "/n/x", "value": 1}),
            json!({"op": "add", "path": "/x"}),
            json!({"op": "set", "path": "/tags/1", "value": 1}),
            json!({"op": "replace", "path": "/missing", "value": 1}),
            json!({"op": "remove", "path": "/missing"}),
            json!({"op": "incr", "path": "/tags", "value": 1}),
            json!({"op": "incr", "path": "/n", "value": "1"}),
            json!({"op": "move", "path": "/x"}),
            json!({"op": "move", "from": "/missing", "path": "/x"}),
            json!({"op": "move", "from": "/tags", "path": "/tags/0"}),
            json!({"op": "set", "path": "/id", "value": "b"}),
            json!({"op": "set", "path": "/tenant/name", "value": "u"}),
            json!({"op": "remove", "path": "/tenant"}),
            json!({"op": "set", "path": "n", "value": 1}),
            json!({"op": "test", "path": "/n", "value": 1}),
        ] {
            assert!(
                patched(json!([operation]), item.clone()).is_err(),
                "{operation}"
            );
        }
        let one = json!({"op": "incr", "path": "/n", "value": 1});
        assert!(
            patched(
                Value::Array(vec![one.clone(); MAX_OPERATIONS]),
                item.clone()
            )
            .is_ok()
        );
        assert!(patched(Value::Array(vec![one; MAX_OPERATIONS + 1]), item.clone()).is_err());
        assert!(patched(json!([]), item.clone()).is_err());
        assert!(
            patched(
                json!([{"op": "set", "path": "/tenant/size", "value": 2}]),
                item
            )
            .is_ok()
        );
    }

    #[test]
    fn a_condition_decides() {
        let patch = |condition: &str| json!({"condition": condition, "operations": [{"op": "incr", "path": "/n", "value": 1}]});
        let item = json!({"id": "a", "n": 1, "_etag": "\"e\""});
        assert!(patched(patch("from c where c.n = 1"), item.clone()).is_ok());
        assert!(patched(patch("FROM c WHERE c._etag = '\"e\"'"), item.clone()).is_ok());
        assert_eq!(
            patched(patch("from c where c.n = 2"), item.clone()),
            Err("condition".into())
        );
        let broken = patched(patch("where where"), item).expect_err("not a query");
        assert!(broken.contains("condition"), "{broken}");
    }
}
