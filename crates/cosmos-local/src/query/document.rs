//! Documents as a store hands them over: unread, so that only what a query looks at is taken apart.

use memchr::memchr2;
use serde_json::{Map, Value};

use super::position::ordinal;
use super::reads::Members;
use super::value;

/// A document of the store.
pub(crate) trait Document: Clone {
    /// These of its members, as an object.
    fn read(&self, members: &Members) -> Value;

    /// The same in the place of a value that is no longer needed, whose memory may serve again.
    fn read_over(&self, members: &Members, value: &mut Value) {
        *value = self.read(members);
    }

    /// Its `_rid`; empty when it has none.
    fn rid(&self) -> &str;

    /// The ordinal in its `_rid`, by which equal rows run; see [`ordinal`].
    fn ordinal(&self) -> u64 {
        ordinal(self.rid())
    }

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

    fn rid(&self) -> &str {
        self.get("_rid").and_then(Self::as_str).unwrap_or_default()
    }

    fn size(&self) -> usize {
        value::size(self)
    }
}

/// Members of a JSON object; what is not wanted is passed over without being built.
pub(crate) fn read_text(text: &str, members: &Members) -> serde_json::Result<Value> {
    let mut value = Value::Null;
    read_text_over(text, members, &mut value)?;
    Ok(value)
}

/// The same in the place of a value that is no longer needed: where that has the same members, most texts find the room
/// that they need.
pub(crate) fn read_text_over(
    text: &str,
    members: &Members,
    value: &mut Value,
) -> serde_json::Result<()> {
    let Members::Named(names) = members else {
        *value = serde_json::from_str(text)?;
        return Ok(());
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(picked) = value else {
        return Ok(());
    };
    if names.is_empty() {
        picked.clear();
        return Ok(());
    }
    match pick(text, names, picked) {
        Some(outcome) => outcome,
        // It is no object, or none that can be passed over; the parser says what is wrong with it.
        None => {
            *picked = serde_json::from_str(text)?;
            picked.retain(|name, _| names.contains(name));
            Ok(())
        }
    }
}

/// Members that are told apart while an object is gone through; more are read without using what was there.
const MOST_REUSED: usize = 64;

/// The wanted members of an object that is well-formed; `None` where it is seen not to be.
fn pick(
    text: &str,
    names: &[String],
    picked: &mut Map<String, Value>,
) -> Option<serde_json::Result<()>> {
    if names.len() > MOST_REUSED {
        picked.clear();
        return pick_over(text, names, picked).map(|outcome| outcome.map(drop));
    }
    let outcome = pick_over(text, names, picked)?;
    Some(outcome.map(|found| {
        if picked.len() > found.count_ones() as usize {
            picked.retain(|name, _| {
                let index = names.iter().position(|known| known == name);
                index.is_some_and(|index| found >> index & 1 == 1)
            });
        }
    }))
}

/// The same on top of what was picked before; the bits of the answer say which of the first names were found.
fn pick_over(
    text: &str,
    names: &[String],
    picked: &mut Map<String, Value>,
) -> Option<serde_json::Result<u64>> {
    let bytes = text.as_bytes();
    let mut found = 0_u64;
    let mut count = 0;
    let mut at = expect(bytes, 0, b'{')?;
    if let Some(end) = expect(bytes, at, b'}') {
        return (space(bytes, end) == bytes.len()).then_some(Ok(found));
    }
    loop {
        let start = space(bytes, at);
        let end = pass_string(bytes, start)?;
        let name = text.get(start + 1..end - 1)?;
        at = space(bytes, expect(bytes, end, b':')?);
        let value = at..pass(bytes, at)?;
        at = value.end;
        let wanted = match name.contains('\\') {
            false => names.iter().position(|wanted| *wanted == name),
            true => {
                let name: String = serde_json::from_str(text.get(start..end)?).ok()?;
                names.iter().position(|wanted| *wanted == name)
            }
        };
        if let Some(index) = wanted {
            if let Err(error) = assign(picked, &names[index], text.get(value)?) {
                return Some(Err(error));
            }
            let bit = 1_u64.checked_shl(index as u32).unwrap_or_default();
            count += usize::from(found & bit == 0);
            found |= bit;
            if count == names.len() {
                return Some(Ok(found));
            }
        }
        if let Some(next) = expect(bytes, at, b',') {
            at = next;
        } else {
            let end = expect(bytes, at, b'}')?;
            return (space(bytes, end) == bytes.len()).then_some(Ok(found));
        }
    }
}

/// Gives a member its value, in place where it is text that stands for itself, as most is.
fn assign(picked: &mut Map<String, Value>, name: &String, json: &str) -> serde_json::Result<()> {
    // There are few, so comparing is quicker than hashing.
    let member = picked.iter_mut().find(|(known, _)| *known == name);
    let Some((_, member)) = member else {
        picked.insert(name.clone(), serde_json::from_str(json)?);
        return Ok(());
    };
    let plain = json.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let plain = plain.filter(|text| text.bytes().all(|byte| byte != b'\\' && byte >= b' '));
    match (member, plain) {
        (Value::String(text), Some(plain)) => {
            text.clear();
            text.push_str(plain);
        }
        (member, _) => *member = serde_json::from_str(json)?,
    }
    Ok(())
}

/// Behind white space.
fn space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Behind white space and this byte, if that comes.
fn expect(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    let at = space(bytes, at);
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// Behind the string that starts here.
fn pass_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Behind the value that starts here.
fn pass(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = pass_string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                at += 1;
                continue;
            }
            // A number or a word.
            _ => {
                let start = at;
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                while bytes.get(at).is_some_and(is_part) {
                    at += 1;
                }
                if at == start {
                    return None;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
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
            for mut value in [json!(1), json!({"a": "x", "c\"d": [], "e": "long", "b": 1})] {
                read_text_over(&text, &members, &mut value).unwrap();
                assert_eq!(value, expected);
            }
        }
        let spaced =
            " { \"a\" :\n[ { } , -1.5e3 , true ] , \"b\" : { \"}\" : \"\\\"\" } , \"c\" : 1 } ";
        for (members, expected) in [
            (named(&["a"]), json!({"a": [{}, -1500.0, true]})),
            (named(&["b", "x"]), json!({"b": {"}": "\""}})),
            (named(&["c"]), json!({"c": 1})),
        ] {
            assert_eq!(read_text(spaced, &members).unwrap(), expected);
        }
        for wrong in [
            "[1]",
            "",
            "{",
            "{\"b\"}",
            "{\"b\":}",
            "{\"b\":1,}",
            "{\"b\":[}",
            "{\"b\":]}",
            "{\"b\":1} 2",
            "{b:1}",
            "{\"b\":1 2}",
            "{\"b\":\"\\",
            "{\"a\":tru}",
        ] {
            assert!(read_text(wrong, &named(&["a", "x"])).is_err(), "{wrong}");
        }
    }

    /// Members with names and values of any kind, as a document has them.
    fn objects() -> impl Strategy<Value = Value> {
        let value = prop_oneof![
            any::<i32>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!([{"a": "b"}, null])),
        ];
        prop::collection::btree_map("[a-e]|é|\"", value, 0..5)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn picking_is_reading_and_leaving_out(text in "[\\[\\]{}:,\"\\\\ a1e.-]{0,12}", a in any::<bool>()) {
            let document = format!("{{\"a\":{},\"b\":[{text}],\"c\":\"{text}\"}}", if a { "1" } else { "[{\"a\":2}]" });
            let names = Members::Named(vec!["a".into(), "c".into(), "d".into()]);
            if let Ok(whole) = serde_json::from_str::<Value>(&document) {
                prop_assert_eq!(read_text(&document, &names).unwrap(), whole.read(&names));
            }
        }

        #[test]
        fn what_was_there_before_leaves_no_trace(
            documents in prop::collection::vec(objects(), 1..6),
            names in prop::collection::btree_set("[a-e]|é|\"", 0..4),
        ) {
            let members = Members::Named(names.into_iter().collect());
            let mut value = Value::Null;
            for document in documents {
                read_text_over(&document.to_string(), &members, &mut value).unwrap();
                prop_assert_eq!(&value, &document.read(&members));
            }
        }
    }
}
