//! Cosmos binary JSON, as the Rust SDK writes the bodies of creates, replaces and upserts.
//!
//! Source of the format: `microsoft/HybridRow: src/Serialization` and the encoder of `azure_data_cosmos_driver`. Only what
//! that encoder writes is decoded; other forms are refused by their marker.

use serde_json::{Map, Number, Value};

/// First byte of every binary document.
const FORMAT: u8 = 0x80;

/// Deepest nesting, as for text.
const MAX_DEPTH: usize = 128;

/// Names that have a one-byte form, from 0x20 on.
const SYSTEM_STRINGS: [&str; 32] = [
    "$s",
    "$t",
    "$v",
    "_attachments",
    "_etag",
    "_rid",
    "_self",
    "_ts",
    "attachments/",
    "coordinates",
    "geometry",
    "GeometryCollection",
    "id",
    "url",
    "Value",
    "label",
    "LineString",
    "link",
    "MultiLineString",
    "MultiPoint",
    "MultiPolygon",
    "name",
    "Name",
    "Type",
    "Point",
    "Polygon",
    "properties",
    "type",
    "value",
    "Feature",
    "FeatureCollection",
    "_id",
];

/// Whether a body is binary JSON; text never starts with this byte.
pub(crate) fn is_binary(body: &[u8]) -> bool {
    body.first() == Some(&FORMAT)
}

/// Decodes a body; the error is for the client.
pub(crate) fn decode(body: &[u8]) -> Result<Value, String> {
    let mut reader = Reader {
        rest: body.get(1..).unwrap_or_default(),
    };
    let value = reader.value(0)?;
    if !reader.rest.is_empty() {
        return Err("binary JSON: there are bytes behind the document".into());
    }
    Ok(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or("binary JSON: the document ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        usize::try_from(self.number(bytes)?)
            .map_err(|_| "binary JSON: a length is too large".into())
    }

    fn text(&mut self, count: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.take(count)?)
            .map_err(|_| "binary JSON: a string is not UTF-8")?;
        Ok(Value::String(text.to_owned()))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("a document is nested at most {MAX_DEPTH} deep"));
        }
        let marker = self.number(1)? as u8;
        match marker {
            0x00..=0x1f => Ok(marker.into()),
            0x20..=0x3f => Ok(SYSTEM_STRINGS[usize::from(marker - 0x20)].into()),
            0x80..=0xbf => self.text(usize::from(marker - 0x80)),
            0xc0..=0xc2 => {
                let length = self.length(1 << (marker - 0xc0))?;
                self.text(length)
            }
            0xc7 => Ok(self.number(8)?.into()),
            0xc8 => Ok(self.number(1)?.into()),
            0xc9 => Ok((self.number(2)? as u16).cast_signed().into()),
            0xca => Ok((self.number(4)? as u32).cast_signed().into()),
            0xcb => Ok(self.number(8)?.cast_signed().into()),
            0xcc => {
                let double = f64::from_bits(self.number(8)?);
                Number::from_f64(double)
                    .map(Value::Number)
                    .ok_or_else(|| "a number has to be finite".into())
            }
            0xd0 => Ok(Value::Null),
            0xd1 => Ok(Value::Bool(false)),
            0xd2 => Ok(Value::Bool(true)),
            0xe0 => Ok(Value::Array(Vec::new())),
            0xe8 => Ok(Value::Object(Map::new())),
            0xe5..=0xe7 => {
                let width = 1 << (marker - 0xe5);
                self.take(width)?;
                let count = self.length(width)?;
                (0..count)
                    .map(|_| self.value(depth + 1))
                    .collect::<Result<Vec<_>, _>>()
                    .map(Value::Array)
            }
            0xed..=0xef => {
                let width = 1 << (marker - 0xed);
                self.take(width)?;
                let count = self.length(width)?;
                let mut members = Map::new();
                for _ in 0..count {
                    let Value::String(name) = self.value(depth + 1)? else {
                        return Err("binary JSON: a member's name is not a string".into());
                    };
                    members.insert(name, self.value(depth + 1)?);
                }
                Ok(Value::Object(members))
            }
            other => Err(format!(
                "binary JSON: marker {other:#04x} is not supported by cosmos-local"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn known_documents() {
        for (bytes, expected) in [
            (vec![0x80, 0xc8, 0xc8], json!(200)),
            (
                vec![0x80, 0xcb, 0x00, 0x0e, 0xfa, 0xd5, 0xfe, 0xff, 0xff, 0xff],
                json!(-5_000_000_000_i64),
            ),
            (vec![0x80, 0xcc, 0, 0, 0, 0, 0, 0, 0x0c, 0x40], json!(3.5)),
            (vec![0x80, 0x2c], json!("id")),
            (vec![0x80, 0x82, 0x68, 0x69], json!("hi")),
            (
                vec![0x80, 0xed, 4, 2, 0x2c, 0, 0x3b, 1],
                json!({"id": 0, "type": 1}),
            ),
            (vec![0x80, 0xe5, 3, 3, 0, 1, 0xd0], json!([0, 1, null])),
        ] {
            assert_eq!(decode(&bytes), Ok(expected));
        }
        assert!(
            decode(&[0x80, 0xc3, 1])
                .expect_err("refused")
                .contains("0xc3")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
