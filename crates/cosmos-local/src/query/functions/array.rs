//! Arrays, sets and the members of objects.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Args, Builtin, flag, integer, list, optional, pure, string, value};
use crate::query::error::Result;
use crate::query::eval::{Machine, boolean, numeric};
use crate::query::value::{self as values, Maybe};

pub(super) const BUILTINS: &[Builtin] = &[
    pure("ARRAY_LENGTH", 1, 1, |_, args| {
        #[expect(clippy::cast_precision_loss, reason = "a count of something in memory")]
        Ok(list(&args, 0).and_then(|items| numeric(items.len() as f64)))
    }),
    pure("ARRAY_CONTAINS", 2, 3, |_, args| Ok(contains(&args))),
    pure("ARRAY_CONTAINS_ANY", 2, usize::MAX, |_, args| {
        Ok(contains_some(&args, true))
    }),
    pure("ARRAY_CONTAINS_ALL", 2, usize::MAX, |_, args| {
        Ok(contains_some(&args, false))
    }),
    pure("ARRAY_CONCAT", 2, usize::MAX, |machine, args| {
        let lists: Option<Vec<&Vec<Value>>> = (0..args.len()).map(|at| list(&args, at)).collect();
        made(
            machine,
            lists.map(|lists| lists.into_iter().flatten().collect()),
        )
    }),
    pure("ARRAY_SLICE", 2, 3, |machine, args| {
        made(machine, slice(&args))
    }),
    pure("SETINTERSECT", 2, 2, |machine, args| {
        made(machine, combine(&args, true))
    }),
    pure("SETDIFFERENCE", 2, 2, |machine, args| {
        made(machine, combine(&args, false))
    }),
    pure("SETUNION", 2, 2, |machine, args| {
        let both = list(&args, 0).zip(list(&args, 1));
        made(
            machine,
            both.map(|(left, right)| distinct(left.iter().chain(right))),
        )
    }),
    pure("OBJECTTOARRAY", 1, 3, object_to_array),
];

/// An array of copies of `items`.
fn made<'e>(machine: &Machine, items: Option<Vec<&Value>>) -> Result<Maybe<'e>> {
    let Some(items) = items else { return Ok(None) };
    let owned: Result<Vec<Value>> = items
        .into_iter()
        .map(|item| machine.own(Cow::Borrowed(item)))
        .collect();
    Ok(Some(Cow::Owned(Value::Array(owned?))))
}

fn contains<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (items, wanted) = (list(args, 0)?, value(args, 1)?);
    let is_partial = optional(args, 2, false, flag)?;
    boolean(items.iter().any(|item| match is_partial {
        true => has(item, wanted),
        false => values::equal(item, wanted),
    }))
}

/// Whether an object has all members of another, in every depth; other values must be equal.
fn has(item: &Value, wanted: &Value) -> bool {
    match (item, wanted) {
        (Value::Object(item), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| item.get(name).is_some_and(|item| has(item, wanted))),
        _ => values::equal(item, wanted),
    }
}

/// ANY: whether one of the values is there; ALL: whether each is. An undefined value leaves open
/// what the others do not decide.
fn contains_some<'e>(args: &Args<'_>, decisive: bool) -> Maybe<'e> {
    let items = list(args, 0)?;
    let mut is_undefined = false;
    for at in 1..args.len() {
        match value(args, at) {
            Some(wanted) => {
                if items.iter().any(|item| values::equal(item, wanted)) == decisive {
                    return boolean(decisive);
                }
            }
            None => is_undefined = true,
        }
    }
    match is_undefined {
        true => None,
        false => boolean(!decisive),
    }
}

/// A negative start counts from the end.
fn slice<'a>(args: &'a Args<'_>) -> Option<Vec<&'a Value>> {
    let items = list(args, 0)?;
    let start = match integer(args, 1)? {
        start if start < 0 => {
            let back = usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX);
            items.len().saturating_sub(back)
        }
        start => usize::try_from(start).unwrap_or(usize::MAX),
    };
    let length = optional(args, 2, i64::MAX, integer)?;
    let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX);
    Some(items.iter().skip(start).take(length).collect())
}

fn distinct<'a>(items: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    let mut seen = HashSet::new();
    items
        .filter(|item| seen.insert(values::encoded(Some(item))))
        .collect()
}

/// The distinct items of the first array that are, or are not, in the second.
fn combine<'a>(args: &'a Args<'_>, is_in: bool) -> Option<Vec<&'a Value>> {
    let (left, right) = (list(args, 0)?, list(args, 1)?);
    let right: HashSet<Vec<u8>> = right
        .iter()
        .map(|item| values::encoded(Some(item)))
        .collect();
    let chosen = left
        .iter()
        .filter(|item| right.contains(&values::encoded(Some(item))) == is_in);
    Some(distinct(chosen))
}

/// One `{"k": name, "v": value}` per member, or with the names given.
fn object_to_array<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let (Some(Value::Object(object)), Some(key), Some(content)) = (
        value(&args, 0),
        optional(&args, 1, "k", string),
        optional(&args, 2, "v", string),
    ) else {
        return Ok(None);
    };
    let mut items = Vec::with_capacity(object.len());
    for (name, value) in object {
        let mut item = Map::new();
        machine.charge(key.len() + content.len() + name.len())?;
        item.insert(key.to_owned(), Value::from(name.as_str()));
        item.insert(content.to_owned(), machine.own(Cow::Borrowed(value))?);
        items.push(Value::Object(item));
    }
    Ok(Some(Cow::Owned(Value::Array(items))))
}
