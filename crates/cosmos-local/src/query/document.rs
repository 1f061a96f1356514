//! Documents as a store hands them over: unread, so that only what a query looks at is taken apart.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::reads::Members;
use super::value;

/// A document of the store.
pub(crate) trait Document: Clone {
    /// These of its members, as an object; `_rid` is always among them.
    fn read(&self, members: &Members) -> Value;

    /// Roughly its bytes as a row.
    fn size(&self) -> usize;
}

/// A document that is there already.
impl Document for Value {
    fn read(&self, members: &Members) -> Value {
        match self {
            Self::Object(object) if *members != Members::All => object
                .iter()
                .filter(|(name, _)| members.contains(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn size(&self) -> usize {
        value::size(self)
    }
}

/// Members of a JSON object; what is not wanted is passed over without being built.
pub(crate) fn read_text(text: &str, members: &Members) -> serde_json::Result<Value> {
    match members {
        Members::All => serde_json::from_str(text),
        Members::Named(_) => serde_json::Deserializer::from_str(text)
            .deserialize_map(Pick(members))
            .map(Value::Object),
    }
}

struct Pick<'m>(&'m Members);

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = Map::new();
        while let Some(wanted) = map.next_key_seed(Name(self.0))? {
            match wanted {
                Some(name) => drop(picked.insert(name, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(picked)
    }
}

/// Reads a name, and keeps it only if it is wanted.
struct Name<'m>(&'m Members);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.contains(name).then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_wanted_is_built() {
        let document =
            json!({"id": "1", "a": {"b": [1, {"id": 2}]}, "c\"d": null, "e": "\u{1F680}"});
        let text = document.to_string();
        let named =
            |names: &[&str]| Members::Named(names.iter().map(ToString::to_string).collect());
        for (members, expected) in [
            (Members::All, document.clone()),
            (named(&["a", "x"]), json!({"a": {"b": [1, {"id": 2}]}})),
            (
                named(&["c\"d", "e"]),
                json!({"c\"d": null, "e": "\u{1F680}"}),
            ),
            (named(&[]), json!({})),
        ] {
            assert_eq!(read_text(&text, &members).unwrap(), expected);
            assert_eq!(document.read(&members), expected);
        }
        assert!(read_text("[1]", &named(&["a"])).is_err());
    }
}
