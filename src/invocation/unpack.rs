//! JSON that is packed into JSON strings.
//!
//! Most of what the handler does with a change feed batch is to take it out of the two strings that the host packs it into,
//! where every quotation mark of the batch is four characters. [`unpack_twice`] does that in one pass, in which it finds the
//! end of the string too; `serde_json` does everything else, and a property test holds the two together.

use std::borrow::Cow;

/// How often JSON may be packed into strings. The host packs at most twice; one more is tolerated.
const MAX_PACKINGS: usize = 3;

/// Parses strings as JSON until something else than a string appears, at most [`MAX_PACKINGS`] times. Text that is not
/// JSON is left as it is, for the reader of the value to complain about.
pub(super) fn unpack(json: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(json.trim_ascii());
    for _ in 0..MAX_PACKINGS {
        if !text.starts_with('"') {
            break;
        }
        let Ok(inner) = serde_json::from_str::<String>(&text) else {
            break;
        };
        text = trimmed(inner);
    }
    text
}

fn trimmed(text: String) -> Cow<'static, str> {
    Cow::Owned(match text.trim_ascii() {
        trimmed if trimmed.len() == text.len() => text,
        trimmed => trimmed.to_owned(),
    })
}

/// The bytes that stand for themselves in a JSON string: all but control characters, `"` and `\\`.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut control = 0;
    while control < 0x20 {
        plain[control] = false;
        control += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// What the byte after a backslash stands for; 0 for `u` and for what is no escape.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes[b'/' as usize] = b'/';
    escapes[b'b' as usize] = 0x08;
    escapes[b'f' as usize] = 0x0c;
    escapes[b'n' as usize] = b'\n';
    escapes[b'r' as usize] = b'\r';
    escapes[b't' as usize] = b'\t';
    escapes
};

/// The text inside the string literal inside the string literal that `json` begins with, and how long the latter is; `None`
/// when it begins with anything else, or there is a `\u` in it.
pub(super) fn unpack_twice(json: &str) -> Option<(String, usize)> {
    let mut bytes = json.strip_prefix(r#""\""#)?.bytes();
    // Nothing is shorter than what it stands for, so this never grows.
    let mut text = vec![0; bytes.len()];
    let mut length = 0;
    loop {
        let byte = bytes.next()?;
        let byte = if PLAIN[usize::from(byte)] {
            byte
        } else {
            if byte != b'\\' {
                return None;
            }
            // A backslash of the inner literal is two in the outer, and what follows it may be escaped there as well.
            match bytes.next()? {
                b'\\' => {}
                b'"' => break,
                _ => return None,
            }
            let escaped = match bytes.next()? {
                b'\\' => ESCAPES[usize::from(bytes.next()?)],
                // Ends the outer literal within an escape of the inner one.
                b'"' => return None,
                escaped => escaped,
            };
            match ESCAPES[usize::from(escaped)] {
                0 => return None,
                byte => byte,
            }
        };
        text[length] = byte;
        length += 1;
    }
    (bytes.next()? == b'"').then_some(())?;
    text.truncate(length);
    Some((String::from_utf8(text).ok()?, json.len() - bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_serde(json: &str) -> Option<String> {
        let inner: String = serde_json::from_str(json).ok()?;
        serde_json::from_str(&inner).ok()
    }

    fn twice(json: &str) -> Option<String> {
        let (text, length) = unpack_twice(json)?;
        (length == json.len()).then_some(text)
    }

    fn packed(text: &str) -> String {
        serde_json::to_string(text).expect("text is JSON")
    }

    #[test]
    fn the_end_of_the_outer_string_is_no_escape() {
        for json in [
            r#""\"\""#,
            r#""\"\"""#,
            r#""\"a\\\"""#,
            r#""\"a\\\\\"""#,
            r#""\"a\\\\\\\"""#,
            r#""\"\\\\"""#,
            r#""\"a"b\"""#,
            r#""\"a\"b\"""#,
            r#""\"\\u0041\"""#,
            r#""\"\u005c\"\"""#,
            "\"\\\"\n\\\"\"",
            r#""\"\n\"""#,
            r#""\"\\x\"""#,
            r#""\"\\"\"""#,
        ] {
            if let Some(text) = twice(json) {
                assert_eq!(Some(text), by_serde(json), "{json}");
            }
        }
    }

    #[test]
    fn the_common_case_is_one_pass() {
        let text = r#"[{"id":"é","_etag":"\"0\"","note":"a\nb\\c"}]"#;
        let json = packed(&packed(text));
        let followed = format!("{json},\"x\"");
        assert_eq!(unpack_twice(&followed), Some((text.to_owned(), json.len())));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(text in any::<String>(), times in 0..=MAX_PACKINGS) {
            let json = packed(&text);
            // Unpacking goes on as long as it can, so the text itself must not look packed.
            let object = format!(r#"{{"x":{json}}}"#);
            let many = (0..times).fold(object.clone(), |json, _| packed(&json));
            prop_assert_eq!(unpack(&many), object);
        }

        #[test]
        fn both_passes_agree(inner in r#"([a"é😀\n]|\\["\\/bfnrtux]|\\\\["\\/bfnrtux]|\\\\\\["\\/bfnrtux]|\\u[dD][89a-f][0-9a-f]{2}){0,12}"#) {
            let json = format!(r#""\"{inner}\"""#);
            if let Some(text) = twice(&json) {
                prop_assert_eq!(Some(text), by_serde(&json));
            }
        }
    }
}
