//! Partition key definitions and values.
//!
//! A value is kept as canonical JSON of its components, such as `["t1",42]`; a missing component is `{}`, as in the
//! header `x-ms-documentdb-partitionkey`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::epk::Hashing;

/// Components of a hierarchical partition key, at the most.
const MAX_PATHS: usize = 3;

/// Longest value, in bytes of its text; and where it is hashed as in version 1.
const MAX_VALUE: usize = 2048;
const MAX_VALUE_V1: usize = 101;

/// The paths of a container's partition key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartitionKeyDefinition {
    /// As given, such as `/tenant/id`.
    pub(crate) paths: Vec<String>,
    hashing: Hashing,
    /// The service chose the path, because the container's creator gave none.
    is_system: bool,
}

/// A partition key value. In the order of effective partition keys, so that a range of them is a range of values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "StoredKey", into = "StoredKey")]
pub(crate) struct PartitionKey {
    /// The effective partition key's first bytes. Most keys differ in them, and then a search need not follow a pointer to
    /// each key that it passes.
    start: [u8; 8],
    /// The effective partition key.
    pub(crate) epk: Arc<str>,
    /// Canonical JSON of the components.
    pub(crate) value: Arc<str>,
}

/// A partition key value as it is kept.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    epk: Arc<str>,
    value: Arc<str>,
}

impl From<StoredKey> for PartitionKey {
    fn from(StoredKey { epk, value }: StoredKey) -> Self {
        Self::new(epk, value)
    }
}

impl From<PartitionKey> for StoredKey {
    fn from(PartitionKey { epk, value, .. }: PartitionKey) -> Self {
        Self { epk, value }
    }
}

impl PartitionKey {
    /// What comes next in the order of keys: all items of this key lie before it.
    pub(crate) fn successor(&self) -> Self {
        Self::new(Arc::clone(&self.epk), format!("{}\0", self.value))
    }

    /// A value by its effective partition key and the canonical JSON of its components.
    pub(crate) fn new(epk: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let epk = epk.into();
        let mut start = [0; 8];
        // Texts of hex digits, so what is shorter comes first here too.
        for (to, from) in start.iter_mut().zip(epk.bytes()) {
            *to = from;
        }
        Self {
            start,
            epk,
            value: value.into(),
        }
    }
}

/// What a partition key header names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// One value.
    Value(PartitionKey),
    /// All values that begin with the given components: those whose effective partition keys begin with this.
    Prefix(String),
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
        let version = definition.get("version").map(Value::as_u64);
        let hashing = match (kind, paths.len(), version) {
            ("Hash", 1, None | Some(Some(1))) => Hashing::V1,
            ("Hash", 1, Some(Some(2))) => Hashing::V2,
            ("MultiHash", 1.., None | Some(Some(2))) => Hashing::Multi,
            _ => {
                return Err("partitionKey.kind has to be Hash for one path, with version 1 or 2, or MultiHash with version 2".into());
            }
        };
        Ok(Self {
            paths,
            hashing,
            is_system: definition.get("systemKey") == Some(&json!(true)),
        })
    }

    pub(crate) fn hashing(&self) -> Hashing {
        self.hashing
    }

    /// The value in a document.
    pub(crate) fn of_document(&self, members: &Map<String, Value>) -> Result<PartitionKey, String> {
        let components = self.paths.iter().map(|path| {
            let mut parts = path.split('/').skip(1).map(|part| part.trim_matches('"'));
            let first = parts.next().and_then(|name| members.get(name));
            parts
                .fold(first, |value, name| value.and_then(|value| value.get(name)))
                .cloned()
                .unwrap_or_else(|| json!({}))
        });
        self.value(components.collect())
    }

    /// What the header's text names.
    pub(crate) fn of_header(&self, text: &str) -> Result<Named, String> {
        let mut components: Vec<Value> = serde_json::from_str(text)
            .map_err(|_| format!("the partition key header is not a JSON array: {text:?}"))?;
        if components.is_empty() && self.is_system {
            components.push(json!({}));
        }
        let is_prefix = self.hashing == Hashing::Multi && components.len() < self.paths.len();
        if components.is_empty() || components.len() != self.paths.len() && !is_prefix {
            return Err(format!(
                "the partition key header has {} values, and the container's key has {}",
                components.len(),
                self.paths.len()
            ));
        }
        if components
            .iter()
            .any(|value| *value == "Infinity" || *value == "NaN")
        {
            return Err("a partition key value cannot be Infinity or NaN".into());
        }
        let key = self.value(components)?;
        Ok(if is_prefix {
            Named::Prefix(key.epk.to_string())
        } else {
            Named::Value(key)
        })
    }

    /// The value of components from elsewhere, such as a query's filter.
    pub(crate) fn value(&self, components: Vec<Value>) -> Result<PartitionKey, String> {
        let components = components
            .into_iter()
            .map(canonical)
            .collect::<Result<Vec<Value>, String>>()?;
        let bytes: usize = components
            .iter()
            .map(|component| component.as_str().map_or(8, str::len))
            .sum();
        let most = match self.hashing {
            Hashing::V1 => MAX_VALUE_V1,
            Hashing::V2 | Hashing::Multi => MAX_VALUE,
        };
        if bytes > most {
            return Err(format!("a partition key value has at most {most} bytes"));
        }
        Ok(PartitionKey::new(
            self.hashing.of(&components),
            Value::Array(components).to_string(),
        ))
    }
}

/// The one form of a component: 1 and 1.0 are the same key, and so are 0 and -0.
fn canonical(component: Value) -> Result<Value, String> {
    Ok(match component {
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or_default();
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(value: Value) -> PartitionKeyDefinition {
        PartitionKeyDefinition::parse(&value).expect("valid")
    }

    fn members(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn header_and_document_agree() {
        let definition = definition(json!({"paths": ["/tenant/id", "/n"], "kind": "MultiHash"}));
        let value = definition
            .of_document(&members(json!({"tenant": {"id": "ü"}, "n": 1.0})))
            .expect("valid");
        assert_eq!(
            Ok(Named::Value(value.clone())),
            definition.of_header(r#"["\u00fc",1]"#)
        );
        let Ok(Named::Prefix(prefix)) = definition.of_header(r#"["\u00fc"]"#) else {
            panic!("one component of two is a prefix");
        };
        assert!(value.epk.starts_with(&prefix) && *value.epk != *prefix);
        let missing = definition
            .of_document(&members(json!({"tenant": 5})))
            .expect("valid");
        assert_eq!(&*missing.value, "[{},{}]");
        for bad in [
            "[]",
            "x",
            "[[1],2]",
            r#"[{"a":1},2]"#,
            "[1,2,3]",
            r#"["NaN",1]"#,
        ] {
            assert!(definition.of_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_look_alike_are_different_and_equal_numbers_are_one() {
        let one = definition(json!({"paths": ["/k"], "kind": "Hash", "version": 2}));
        let key = |value: Value| one.value(vec![value]).expect("valid");
        let all = [json!(0), json!(false), json!(""), json!(null), json!({})].map(key);
        for (at, first) in all.iter().enumerate() {
            assert!(
                all[at + 1..]
                    .iter()
                    .all(|other| other != first && other.epk != first.epk)
            );
        }
        assert_eq!(key(json!(-0.0)), key(json!(0)));
        assert_eq!(key(json!(1.0)), key(json!(1)));
    }

    #[test]
    fn a_key_that_the_service_chose_is_addressed_by_an_empty_array() {
        let path = json!({"paths": ["/_partitionKey"], "kind": "Hash", "systemKey": true});
        let system = definition(path);
        let undefined = system
            .of_document(&members(json!({"id": "a"})))
            .expect("valid");
        assert_eq!(system.of_header("[]"), Ok(Named::Value(undefined)));
    }

    #[test]
    fn long_values_are_refused() {
        for (version, most) in [(1, MAX_VALUE_V1), (2, MAX_VALUE)] {
            let one = definition(json!({"paths": ["/k"], "kind": "Hash", "version": version}));
            assert!(one.value(vec![json!("a".repeat(most))]).is_ok());
            assert!(one.value(vec![json!("a".repeat(most + 1))]).is_err());
        }
        for bad in [
            json!({"paths": ["/k"], "version": 3}),
            json!({"paths": ["/a", "/b"], "kind": "MultiHash", "version": 1}),
        ] {
            assert!(PartitionKeyDefinition::parse(&bad).is_err(), "{bad}");
        }
    }
}
