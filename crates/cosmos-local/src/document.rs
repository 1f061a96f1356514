//! A document as a client gave it, checked, and what the store derives from it.

use serde_json::{Map, Value, json};

use crate::{container::Container, ttl};

/// Largest item, in bytes of its text without system properties.
pub(crate) const MAX_ITEM: usize = 2 * 1024 * 1024;

/// Most arrays and objects in each other, the item counted. That is what a text is read with, so that whatever is stored can
/// be read again; the service has 128.
pub(crate) const MAX_NESTING: usize = 127;

/// Below this, a double without a fraction is written as an integer.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Longest id, in bytes.
const MAX_ID: usize = 1023;

/// Written by the service; what a client sends of them is left out.
const SYSTEM_PROPERTIES: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];

/// Why a document cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("{0}")]
    Invalid(String),
    #[error("an item has at most {MAX_ITEM} bytes")]
    TooLarge,
}

/// A document without system properties.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) id: String,
    pub(crate) members: Map<String, Value>,
    /// The members as a JSON object, of which there is at least one: the id.
    pub(crate) text: String,
    /// Its own time to live, in seconds; -1 is for ever.
    pub(crate) ttl: Option<i64>,
}

impl Document {
    pub(crate) fn new(members: Map<String, Value>) -> Result<Self, DocumentError> {
        let mut members = without_system_properties(members);
        let id = match members.get("id") {
            Some(Value::String(id)) => id.clone(),
            _ => {
                return Err(DocumentError::Invalid(
                    "the item has no id; give it a member \"id\" that is a string".into(),
                ));
            }
        };
        if id.is_empty() || id.len() > MAX_ID || id.contains(['/', '\\']) {
            return Err(DocumentError::Invalid(format!(
                "an id has 1 to {MAX_ID} bytes, and no / or \\"
            )));
        }
        let ttl = members
            .get("ttl")
            .filter(|ttl| !ttl.is_null())
            .map(ttl::parse)
            .transpose()
            .map_err(DocumentError::Invalid)?;
        // Patches nest what was read one by one, and binary bodies are not read as text.
        if !members
            .values_mut()
            .all(|value| settle(value, MAX_NESTING - 1))
        {
            return Err(DocumentError::Invalid(format!(
                "an item has at most {MAX_NESTING} arrays and objects in each other"
            )));
        }
        let text = serde_json::to_string(&members)
            .map_err(|error| DocumentError::Invalid(format!("the item has no text: {error}")))?;
        if text.len() > MAX_ITEM {
            return Err(DocumentError::TooLarge);
        }
        Ok(Self {
            id,
            members,
            text,
            ttl,
        })
    }
}

/// Writes numbers as the service does, which knows doubles only: 3.0 is 3. Says whether the value has at most so many levels.
fn settle(value: &mut Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter_mut().all(|item| settle(item, levels - 1)),
        Value::Object(members) => {
            levels > 0
                && members
                    .values_mut()
                    .all(|member| settle(member, levels - 1))
        }
        Value::Number(number) => {
            let double = number.as_f64().filter(|_| number.is_f64());
            let whole = double.filter(|double| double.fract() == 0.0 && double.abs() < WHOLE);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
            true
        }
        _ => true,
    }
}

pub(crate) fn without_system_properties(mut members: Map<String, Value>) -> Map<String, Value> {
    members.retain(|name, _| !SYSTEM_PROPERTIES.contains(&name.as_str()));
    members
}

/// What must be unique of a document among those with the same partition key: one text per unique key of the container.
/// A missing member counts as a value.
pub(crate) fn unique_values(container: &Container, members: &Map<String, Value>) -> Vec<String> {
    let value = |path: &Vec<String>| {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(members.get(first)?, |value, name| value.get(name))
    };
    let keys = container.unique_keys.iter().enumerate();
    keys.map(|(number, paths)| {
        let values: Vec<Value> = paths
            .iter()
            .map(|path| json!(value(path).map_or_else(Vec::new, |value| vec![value])))
            .collect();
        json!([number, values]).to_string()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: Value) -> Result<Document, DocumentError> {
        Document::new(value.as_object().expect("an object").clone())
    }

    #[test]
    fn ids_sizes_and_lifetimes_are_checked() {
        let good = document(json!({"id": "a+@=&%25 ü", "_etag": "x", "ttl": 5})).expect("valid");
        assert_eq!((good.ttl, good.members.get("_etag")), (Some(5), None));
        assert!(document(json!({"id": "é".repeat(511)})).is_ok());
        for bad in [
            json!({}),
            json!({"id": 5}),
            json!({"id": ""}),
            json!({"id": "a/b"}),
            json!({"id": "a\\b"}),
            json!({"id": "é".repeat(512)}),
            json!({"id": "a", "ttl": 0}),
            json!({"id": "a", "ttl": "5"}),
        ] {
            assert!(
                matches!(document(bad.clone()), Err(DocumentError::Invalid(_))),
                "{bad}"
            );
        }
        let nested = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
        let deepest = document(json!({"id": "a", "x": nested(MAX_NESTING - 1)})).expect("valid");
        assert!(serde_json::from_str::<Value>(&deepest.text).is_ok());
        assert!(document(json!({"id": "a", "x": nested(MAX_NESTING)})).is_err());
        let around = json!({"id": "a", "text": ""}).to_string().len();
        let text = |len: usize| json!({"id": "a", "_self": "not counted", "text": "x".repeat(len - around)});
        assert!(document(text(MAX_ITEM)).is_ok());
        assert_eq!(
            document(text(MAX_ITEM + 1)).err(),
            Some(DocumentError::TooLarge)
        );
    }
}
