//! A JSON object as a list of its members.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// The members of a JSON object in their order. For objects of a handful of members this is cheaper than a map, and
/// names are borrowed where they have no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairs<'a, V>(Vec<(Cow<'a, str>, V)>);

impl<'a, V> Pairs<'a, V> {
    pub(crate) fn into_inner(self) -> Vec<(Cow<'a, str>, V)> {
        self.0
    }
}

/// A name that borrows where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Pairs<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Vec<(Cow<'de, str>, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}
