//! Values as the query language sees them: equality, the order over all types, and an encoding
//! under which equal values are equal bytes.
//!
//! A value that may be *undefined* is an `Option`: `None` is undefined, and is not null.
//! All numbers are IEEE doubles; strings compare by UTF-16 code unit, which is what clients that
//! merge sorted pages do as well.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

/// A value or undefined, borrowed from the document where possible.
pub(super) type Maybe<'e> = Option<Cow<'e, Value>>;

/// Doubles without a fraction below this size are integers of 64 bits, and are written as such.
const INTEGERS_BELOW: f64 = 9_223_372_036_854_775_808.0;

/// A number as JSON, or undefined for what JSON cannot hold (infinities, NaN).
pub(super) fn number(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() < INTEGERS_BELOW {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be an exact integer"
        )]
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// The double a JSON number stands for.
pub(super) fn double(number: &Number) -> f64 {
    // Without arbitrary precision every JSON number has a double.
    number.as_f64().unwrap_or(f64::NAN)
}

/// The double in a value, if it is a number.
pub(super) fn as_double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(double(number)),
        _ => None,
    }
}

/// A number without a fraction that fits an `i64`.
pub(super) fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let value = double(number);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be an exact integer"
            )]
            (value.fract() == 0.0 && value.abs() < INTEGERS_BELOW).then_some(value as i64)
        }),
        _ => None,
    }
}

/// Compares strings by UTF-16 code unit.
pub(super) fn compare_text(left: &str, right: &str) -> Ordering {
    // UTF-8 order and UTF-16 order differ only where a character beyond U+FFFF meets one at or
    // above U+E000; every such character has a lead byte of at least 0xEE.
    match differing(left.as_bytes(), right.as_bytes()) {
        None => left.len().cmp(&right.len()),
        Some((l, r)) if l < 0xEE || r < 0xEE => l.cmp(&r),
        Some(_) => left.encode_utf16().cmp(right.encode_utf16()),
    }
}

/// The first bytes in which the two differ, before either ends. Most texts that are sorted begin alike, so that is passed in
/// larger steps.
fn differing(left: &[u8], right: &[u8]) -> Option<(u8, u8)> {
    let steps = left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0);
    let alike = 8 * steps.take_while(|(l, r)| l == r).count();
    let mut rest = left[alike..].iter().zip(&right[alike..]);
    rest.find(|(l, r)| l != r).map(|(l, r)| (*l, *r))
}

/// Position of a value's type in the sort order.
fn rank(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(false)) => 2,
        Some(Value::Bool(true)) => 3,
        Some(Value::Number(_)) => 4,
        Some(Value::String(_)) => 5,
        Some(Value::Array(_)) => 6,
        Some(Value::Object(_)) => 7,
    }
}

/// The total order of ORDER BY, MIN and MAX:
/// undefined < null < false < true < numbers < strings < arrays < objects.
///
/// The service does not say how arrays or objects run among themselves; here arrays compare
/// element by element and objects by their members sorted by name.
pub(super) fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::Number(l)), Some(Value::Number(r))) => compare_numbers(double(l), double(r)),
        (Some(Value::String(l)), Some(Value::String(r))) => compare_text(l, r),
        (Some(Value::Array(l)), Some(Value::Array(r))) => l
            .iter()
            .zip(r)
            .map(|(l, r)| compare(Some(l), Some(r)))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| l.len().cmp(&r.len())),
        (Some(Value::Object(l)), Some(Value::Object(r))) => {
            let (l, r) = (sorted_members(l), sorted_members(r));
            l.iter()
                .zip(&r)
                .map(|(l, r)| compare_text(l.0, r.0).then_with(|| compare(Some(l.1), Some(r.1))))
                .find(|ordering| ordering.is_ne())
                .unwrap_or_else(|| l.len().cmp(&r.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

/// Doubles, with both zeros equal. JSON holds no NaN.
pub(super) fn compare_numbers(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

fn sorted_members(object: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_by(|l, r| compare_text(l.0, r.0));
    members
}

/// Equality by content; members in any order; values of different types are not equal.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(l), Value::Number(r)) => double(l) == double(r),
        (Value::Array(l), Value::Array(r)) => {
            l.len() == r.len() && l.iter().zip(r).all(|(l, r)| equal(l, r))
        }
        (Value::Object(l), Value::Object(r)) => {
            l.len() == r.len()
                && l.iter()
                    .all(|(name, l)| r.get(name).is_some_and(|r| equal(l, r)))
        }
        _ => left == right,
    }
}

/// Whether the two are of one type, so that `<` and its kin apply: not for arrays and objects.
pub(super) fn is_orderable_pair(left: &Value, right: &Value) -> bool {
    matches!(
        (left, right),
        (Value::Null, Value::Null)
            | (Value::Bool(_), Value::Bool(_))
            | (Value::Number(_), Value::Number(_))
            | (Value::String(_), Value::String(_))
    )
}

/// Neither array nor object.
pub(super) fn is_primitive(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// Appends an encoding in which equal values, and only they, have equal bytes, and in which no
/// encoding is the start of another.
pub(super) fn encode(value: Option<&Value>, out: &mut Vec<u8>) {
    let text = |text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    out.push(rank(value));
    match value {
        None | Some(Value::Null | Value::Bool(_)) => {}
        Some(Value::Number(number)) => {
            // Adding zero folds the two zeros.
            let bits = (double(number) + 0.0).to_bits();
            out.extend_from_slice(&bits.to_be_bytes());
        }
        Some(Value::String(string)) => text(string, out),
        Some(Value::Array(items)) => {
            out.extend_from_slice(&(items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| encode(Some(item), out));
        }
        Some(Value::Object(object)) => {
            out.extend_from_slice(&(object.len() as u64).to_be_bytes());
            for (name, value) in sorted_members(object) {
                text(name, out);
                encode(Some(value), out);
            }
        }
    }
}

/// The encoding of one value; see [`encode`].
pub(super) fn encoded(value: Option<&Value>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out);
    out
}

/// Roughly the bytes a value takes in memory; what limits are counted in.
pub(super) fn size(value: &Value) -> usize {
    const NODE: usize = size_of::<Value>();
    NODE + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| NODE + name.len() + size(value))
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn types_sort_in_the_documented_order() {
        let ladder = [
            None,
            Some(json!(null)),
            Some(json!(false)),
            Some(json!(true)),
            Some(json!(-1.5)),
            Some(json!(2)),
            Some(json!("")),
            Some(json!("a")),
            Some(json!("b")),
            Some(json!([])),
            Some(json!([1])),
            Some(json!({})),
            Some(json!({"a": 1})),
        ];
        for (i, left) in ladder.iter().enumerate() {
            for (j, right) in ladder.iter().enumerate() {
                assert_eq!(
                    compare(left.as_ref(), right.as_ref()),
                    i.cmp(&j),
                    "{left:?} {right:?}"
                );
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            (-3f64..3.0).prop_map(Value::from),
            "[a-c\u{e000}\u{10000}]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn order_equality_and_encoding_agree(left in any_value(), right in any_value()) {
            let ordering = compare(Some(&left), Some(&right));
            prop_assert_eq!(ordering.reverse(), compare(Some(&right), Some(&left)));
            prop_assert_eq!(ordering.is_eq(), equal(&left, &right));
            prop_assert_eq!(ordering.is_eq(), encoded(Some(&left)) == encoded(Some(&right)));
        }

        #[test]
        fn strings_compare_by_code_unit(left in "[a\u{e9}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}",
                                        right in "[a\u{e9}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,4}") {
            let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
            prop_assert_eq!(compare_text(&left, &right), units(&left).cmp(&units(&right)));
        }
    }
}
