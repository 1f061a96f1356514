//! The partition key value of a document, by the paths of its container.

use azure_data_cosmos::PartitionKey;
use azure_data_cosmos::models::PartitionKeyValue;
use serde_json::{Map, Value};

use super::error::Error;

/// Reads the value(s) at `paths` (such as `/deviceId`, `/device/id`, `/"a/b"`) from `document`.
///
/// A missing value is "undefined", which is a partition of its own. `index` only serves the error.
pub(crate) fn of_document<P: AsRef<str>>(
    paths: &[P],
    document: &Map<String, Value>,
    index: usize,
) -> Result<PartitionKey, Error> {
    let wrong_type = |path: &str| Error::PartitionKeyType {
        index,
        path: path.to_owned(),
    };
    let mut values = Vec::with_capacity(paths.len());
    for path in paths {
        let path = path.as_ref();
        let value = match lookup(document, path) {
            None => PartitionKeyValue::UNDEFINED,
            Some(Value::Null) => PartitionKeyValue::NULL,
            Some(Value::Bool(value)) => PartitionKeyValue::from(*value),
            Some(Value::String(value)) => PartitionKeyValue::from(value),
            Some(Value::Number(number)) => number
                .as_f64()
                .and_then(|number| PartitionKeyValue::try_from(number).ok())
                .ok_or_else(|| wrong_type(path))?,
            Some(Value::Array(_) | Value::Object(_)) => return Err(wrong_type(path)),
        };
        values.push(value);
    }
    let joined = || {
        paths
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", ")
    };
    PartitionKey::try_from(values).map_err(|_| wrong_type(&joined()))
}

fn lookup<'a>(document: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = steps(path).into_iter();
    let mut value = document.get(&steps.next()?)?;
    for step in steps {
        value = value.as_object()?.get(&step)?;
    }
    Some(value)
}

/// Splits a path at its slashes; a step in double quotes may contain slashes.
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    while !rest.is_empty() {
        let (step, after) = match rest
            .strip_prefix('"')
            .and_then(|quoted| quoted.split_once('"'))
        {
            Some((step, after)) => (step, after.strip_prefix('/').unwrap_or(after)),
            None => rest.split_once('/').unwrap_or((rest, "")),
        };
        steps.push(step.to_owned());
        rest = after;
    }
    steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn key(paths: &[&str], document: Value) -> Result<PartitionKey, Error> {
        of_document(paths, document.as_object().unwrap(), 3)
    }

    #[test]
    fn values_of_every_scalar_type_are_found() {
        let document = json!({
            "id": "a", "n": 1.5, "b": true, "z": null, "device": {"id": "d"}, "a/b": {"c": "q"}
        });
        for (path, expected) in [
            ("/id", PartitionKey::from("a")),
            ("/n", PartitionKey::try_from(1.5f64).unwrap()),
            ("/b", PartitionKey::from(true)),
            ("/z", PartitionKey::from(PartitionKeyValue::NULL)),
            ("/device/id", PartitionKey::from("d")),
            ("/\"a/b\"/c", PartitionKey::from("q")),
            ("/missing", PartitionKey::from(PartitionKeyValue::UNDEFINED)),
            (
                "/id/deeper",
                PartitionKey::from(PartitionKeyValue::UNDEFINED),
            ),
        ] {
            assert_eq!(key(&[path], document.clone()).unwrap(), expected, "{path}");
        }
        assert_eq!(
            key(&["/id", "/device/id"], document).unwrap(),
            PartitionKey::from(("a", "d"))
        );
    }

    #[test]
    fn containers_are_no_keys() {
        let error = key(&["/k"], json!({"k": {}})).unwrap_err().to_string();
        assert_eq!(
            error,
            "document 3: the partition key /k must be a string, a number, a boolean or null"
        );
    }
}
