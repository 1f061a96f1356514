//! Partition key definitions and values.
//!
//! A value is kept as canonical JSON of its components, such as `["t1",42]`; a missing component is `{}`, as in the
//! header `x-ms-documentdb-partitionkey`.

use serde_json::{Map, Value, json};

/// Components of a hierarchical partition key, at the most.
const MAX_PATHS: usize = 3;

/// Longest value, in bytes of its text.
const MAX_VALUE: usize = 2048;

/// The paths of a container's partition key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartitionKeyDefinition {
    /// As given, such as `/tenant/id`.
    pub(crate) paths: Vec<String>,
}

impl PartitionKeyDefinition {
    /// Reads `{"paths": ["/id"], "kind": "Hash"}`; the error is for the client.
    pub(crate) fn parse(definition: &Value) -> Result<Self, String> {
        let paths: Vec<String> = definition
            .get("paths")
            .and_then(Value::as_array)
            .map(|paths| {
                paths
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        if paths.is_empty()
            || paths.len() > MAX_PATHS
            || paths
                .iter()
                .any(|path| !path.starts_with('/') || path.len() < 2)
        {
            return Err(format!(
                "partitionKey.paths has to be 1 to {MAX_PATHS} paths such as \"/deviceId\""
            ));
        }
        let kind = definition
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("Hash");
        if !matches!((kind, paths.len()), ("Hash", 1) | ("MultiHash", 1..)) {
            return Err("partitionKey.kind has to be Hash for one path, or MultiHash".into());
        }
        Ok(Self { paths })
    }

    /// The canonical value in a document.
    pub(crate) fn of_document(&self, members: &Map<String, Value>) -> Result<String, String> {
        let components = self.paths.iter().map(|path| {
            let mut parts = path.split('/').skip(1).map(|part| part.trim_matches('"'));
            let first = parts.next().and_then(|name| members.get(name));
            parts
                .fold(first, |value, name| value.and_then(|value| value.get(name)))
                .cloned()
                .unwrap_or_else(|| json!({}))
        });
        self.canonical(components.collect())
    }

    /// The canonical value of the header's text, which has to name every component.
    pub(crate) fn of_header(&self, text: &str) -> Result<String, String> {
        let components: Vec<Value> = serde_json::from_str(text)
            .map_err(|_| format!("the partition key header is not a JSON array: {text:?}"))?;
        if components.len() != self.paths.len() {
            return Err(format!(
                "the partition key header has {} values, and the container's key has {}; prefixes of hierarchical keys are not supported by cosmos-local yet",
                components.len(),
                self.paths.len()
            ));
        }
        self.canonical(components)
    }

    /// The canonical value of components from elsewhere, such as a query's filter.
    pub(crate) fn canonical(&self, components: Vec<Value>) -> Result<String, String> {
        let mut normal = Vec::with_capacity(components.len());
        for component in components {
            normal.push(match component {
                Value::Number(number) => {
                    let double = number.as_f64().unwrap_or_default();
                    // 1 and 1.0 are the same key.
                    if double.fract() == 0.0 && double.abs() < 9e15 {
                        json!(double as i64)
                    } else {
                        json!(double)
                    }
                }
                Value::Object(object) if !object.is_empty() => {
                    return Err("a partition key value cannot be an object".into());
                }
                Value::Array(_) => return Err("a partition key value cannot be an array".into()),
                scalar => scalar,
            });
        }
        let text = Value::Array(normal).to_string();
        if text.len() > MAX_VALUE {
            return Err(format!(
                "a partition key value has at most {MAX_VALUE} bytes"
            ));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_document_agree() {
        let definition = PartitionKeyDefinition::parse(
            &json!({"paths": ["/tenant/id", "/n"], "kind": "MultiHash"}),
        )
        .expect("valid");
        let document = json!({"tenant": {"id": "ü"}, "n": 1.0});
        let value = definition
            .of_document(document.as_object().expect("an object"))
            .expect("valid");
        assert_eq!(
            value,
            definition.of_header(r#"["\u00fc",1]"#).expect("valid")
        );
        let missing = json!({"tenant": 5});
        assert_eq!(
            definition
                .of_document(missing.as_object().expect("an object"))
                .expect("valid"),
            "[{},{}]"
        );
        for bad in ["[1]", "x", "[[1],2]", r#"[{"a":1},2]"#] {
            assert!(definition.of_header(bad).is_err(), "{bad}");
        }
    }
}
