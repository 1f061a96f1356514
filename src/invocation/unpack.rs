//! JSON that is packed into JSON strings.
//!
//! Most of what the handler does with a change feed batch is to take it out of the two strings that the host packs it into,
//! where every quotation mark of the batch is four characters. `serde_json` would do, but it is made for strings with few
//! escapes; this reads the same strings in about a third of the time. A property test holds the two together.

use std::borrow::Cow;

/// How often JSON may be packed into strings. The host packs at most twice; one more is tolerated.
const MAX_PACKINGS: usize = 3;

/// Parses strings as JSON until something else than a string appears, at most [`MAX_PACKINGS`] times. Text that is not
/// JSON is left as it is, for the reader of the value to complain about.
pub(super) fn unpack(json: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(json.trim_ascii());
    for _ in 0..MAX_PACKINGS {
        let Some(inner) = string(&text) else {
            break;
        };
        text = Cow::Owned(match inner.trim_ascii() {
            trimmed if trimmed.len() == inner.len() => inner,
            trimmed => trimmed.to_owned(),
        });
    }
    text
}

/// The value of a JSON string literal; `None` when the text is anything else.
fn string(json: &str) -> Option<String> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    // No escape is shorter than what it stands for.
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\\' => match *rest.next()? {
                escaped @ (b'"' | b'\\' | b'/') => value.push(escaped),
                b'b' => value.push(0x08),
                b'f' => value.push(0x0c),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                b'u' => {
                    let character = character(&mut rest)?;
                    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return None,
            },
            b'"' | 0..=0x1f => return None,
            _ => value.push(byte),
        }
    }
    String::from_utf8(value).ok()
}

/// The character behind `\u`; those beyond the first 65,536 are written as two such escapes.
fn character(rest: &mut std::slice::Iter<'_, u8>) -> Option<char> {
    let first = unit(rest)?;
    let units = if (0xd800..0xdc00).contains(&first) {
        if (*rest.next()?, *rest.next()?) != (b'\\', b'u') {
            return None;
        }
        vec![first, unit(rest)?]
    } else {
        vec![first]
    };
    char::decode_utf16(units).next()?.ok()
}

/// Four hexadecimal digits.
fn unit(rest: &mut std::slice::Iter<'_, u8>) -> Option<u16> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = char::from(*rest.next()?).to_digit(16)?;
        unit = unit << 4 | u16::try_from(digit).ok()?;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_serde(json: &str) -> Option<String> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for json in [
            r#""""#,
            r#""a""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""é\u00e9\u0000😀\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\ude00\ud83d""#,
            r#""\ud83dx\ude00""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\x""#,
            r#""\""#,
            r#"""""#,
            "\"\n\"",
            "\"\u{7f}\"",
            "\"",
            "",
            "a",
            "1",
        ] {
            assert_eq!(string(json), by_serde(json), "{json}");
        }
    }

    proptest! {
        #[test]
        fn strings_come_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).expect("text is JSON");
            prop_assert_eq!(string(&json), Some(text));
        }

        #[test]
        fn reads_what_serde_json_reads_of_anything(inner in r#"([a"é😀\n]|\\["\\/bfnrtux]|\\u[dD][89a-f][0-9a-f]{2}|\\u[0-9a-f]{4}){0,12}"#) {
            let json = format!("\"{inner}\"");
            prop_assert_eq!(string(&json), by_serde(&json));
        }
    }
}
