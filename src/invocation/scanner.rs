//! The values of an invocation, found without looking into them.
//!
//! Most of an invocation of a change feed is one long string with an escape every few characters. `serde_json` would step
//! over it from escape to escape, and then unpack it; this does both at once. It does not know valid JSON from invalid: a
//! value is checked by whoever reads it, and what the scanner cannot follow, `serde_json` judges.

use std::borrow::Cow;

use memchr::memchr2;

use super::unpack::unpack_twice;

/// The members of `Data` in their order: the name and the JSON text of each, taken out of two strings where the host packed
/// it into two. `None` when the body cannot be followed.
pub(super) fn data(body: &str) -> Option<Vec<(&str, Cow<'_, str>)>> {
    let mut members = Vec::new();
    let mut scanner = Scanner { json: body, at: 0 };
    scanner.object(|scanner, name| {
        if name == "Data" && scanner.peek()? == b'{' {
            members.clear();
            return scanner.object(|scanner, name| {
                members.push((name, scanner.unpacked()?));
                Some(())
            });
        }
        scanner.value().map(drop)
    })?;
    scanner.peek().is_none().then_some(members)
}

struct Scanner<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Steps over an object. `member` is told the name of each member, and steps over its value.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            return self.expect(b'}');
        }
        loop {
            let name = self.value()?.strip_prefix('"')?.strip_suffix('"')?;
            if name.contains('\\') {
                return None;
            }
            self.expect(b':')?;
            member(self, name)?;
            if self.peek()? == b'}' {
                return self.expect(b'}');
            }
            self.expect(b',')?;
        }
    }

    /// Steps over a value and gives its text; what is packed twice is unpacked.
    fn unpacked(&mut self) -> Option<Cow<'a, str>> {
        self.peek()?;
        match unpack_twice(self.json.get(self.at..)?) {
            Some((text, length)) => {
                self.at += length;
                Some(Cow::Owned(text))
            }
            None => self.value().map(Cow::Borrowed),
        }
    }

    /// Steps over a value and gives its text.
    fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.bytes().get(self.at)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        let text = self.json.get(start..self.at)?.trim_ascii_end();
        (!text.is_empty()).then_some(text)
    }

    /// Steps over a string.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.bytes().get(self.at..)?;
            self.at += memchr2(b'"', b'\\', rest)?;
            if self.bytes().get(self.at) == Some(&b'"') {
                self.at += 1;
                return Some(());
            }
            self.at += 2;
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.bytes().get(self.at..)?;
        self.at += rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        self.bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn bytes(&self) -> &'a [u8] {
        self.json.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn finds_the_members_of_data() {
        let body = r#" { "Metadata" : {"Data":{"no":1}}, "Data":{"a":"x\"}\\", "b" : [1,{"c":"]"}] ,"d":null,"e":-1.5e3 } , "f":2 } "#;
        assert_eq!(
            data(body),
            Some(vec![
                ("a", r#""x\"}\\""#.into()),
                ("b", r#"[1,{"c":"]"}]"#.into()),
                ("d", "null".into()),
                ("e", "-1.5e3".into()),
            ])
        );
        assert_eq!(data("{}"), Some(vec![]));
        assert_eq!(data(r#"{"Data":{}}"#), Some(vec![]));
        assert_eq!(data(r#"{"Data":null}"#), Some(vec![]));
    }

    #[test]
    fn leaves_what_it_cannot_follow() {
        for body in [
            "",
            " ",
            "7",
            "[]",
            "{",
            r#"{"Data""#,
            r#"{"Data":"#,
            r#"{"Data":}"#,
            r#"{"Data":{"a":1}"#,
            r#"{"Data":{"a":"x}}"#,
            r#"{"Data":{"a" 1}}"#,
            r#"{"Data":{"a":1]}"#,
            r#"{"Data":{"a":1}} x"#,
            r#"{"Data":{"a":1,}}"#,
            r#"{"Data":{"\u0061":1}}"#,
            r#"{"a":1 "b":2}"#,
        ] {
            assert_eq!(data(body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(body in r#"([{}\[\],:"\\ a0é]|"Data":){0,40}"#) {
            let _ = data(&body);
        }

        #[test]
        fn every_value_keeps_its_text(texts in prop::collection::vec(any::<String>(), 0..5), pretty in any::<bool>()) {
            let values: serde_json::Map<String, Value> = texts
                .into_iter()
                .enumerate()
                .map(|(n, text)| (format!("b{n}"), json!([text.clone(), {"x": text}, n])))
                .collect();
            let body = json!({"Metadata": {"sys": values.clone()}, "Data": values.clone()});
            let body = if pretty { format!("{body:#}") } else { body.to_string() };
            let found: Option<serde_json::Map<String, Value>> = data(&body).map(|members| {
                members
                    .into_iter()
                    .map(|(name, text)| (name.to_owned(), serde_json::from_str(&text).unwrap_or_default()))
                    .collect()
            });
            prop_assert_eq!(found, Some(values));
        }
    }
}
