//! JSON that keeps its order and its spelling.
//!
//! The host passes documents and replies on; it must not sort their members or respell their numbers. [`RawObject`]
//! reads one level of an object and leaves the values as text; [`indent`] lays a text out without interpreting it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One JSON object: members in their order, values as text. The last of equal names wins in lookups, as in Json.NET.
#[derive(Debug, Default)]
pub(crate) struct RawObject(Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// Reads `text`, which must be one JSON object and nothing else.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The member of exactly this name.
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.find(|member| member == name)
    }

    /// The member of this name in any casing.
    pub(crate) fn get_ignoring_case(&self, name: &str) -> Option<&RawValue> {
        self.find(|member| member.eq_ignore_ascii_case(name))
    }

    /// All members, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<&RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| wanted(name))
            .map(|(_, value)| value.as_ref())
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawObject;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawObject(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// What kind of value a JSON text is, told by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// The kind of a *valid* JSON text.
    pub(crate) fn of(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    /// For messages: "an array", "null".
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// The text of a JSON string value; `None` when the value is no string.
pub(crate) fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// `text` as a JSON string literal.
pub(crate) fn literal(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// Lays out a *valid* JSON text with two spaces per level, members and numbers as they stand.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut characters = Significant(json.chars().peekable());
    while let Some(character) = characters.next(in_string) {
        if in_string {
            out.push(character);
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                out.push(character);
            }
            '{' | '[' => {
                out.push(character);
                let close = if character == '{' { '}' } else { ']' };
                if characters.peek() == Some(close) {
                    out.push(close);
                    characters.next(false);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Characters of a JSON text, insignificant white space left out on demand.
struct Significant<'a>(std::iter::Peekable<std::str::Chars<'a>>);

impl Significant<'_> {
    fn next(&mut self, keep_space: bool) -> Option<char> {
        if !keep_space {
            self.skip_space();
        }
        self.0.next()
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.0.peek().copied()
    }

    fn skip_space(&mut self) {
        while self.0.next_if(char::is_ascii_whitespace).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn members_keep_their_order_and_spelling() {
        let object = RawObject::parse(r#"{"z":1.50,"a":"x","Z":2}"#).unwrap();
        let names: Vec<_> = object.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a", "Z"]);
        assert_eq!(object.get("z").unwrap().get(), "1.50");
        assert_eq!(object.get_ignoring_case("z").unwrap().get(), "2");
    }

    #[test]
    fn only_one_object_is_an_object() {
        for text in ["[]", "5", "null", "{} {}", ""] {
            assert!(RawObject::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn indents_like_json_net() {
        assert_eq!(
            indent(r#"{"b":[1, {"c":"x, {y}: \"z\""}],"a":{},"d":[ ]}"#),
            "{\n  \"b\": [\n    1,\n    {\n      \"c\": \"x, {y}: \\\"z\\\"\"\n    }\n  ],\n  \"a\": {},\n  \"d\": []\n}"
        );
    }
}
