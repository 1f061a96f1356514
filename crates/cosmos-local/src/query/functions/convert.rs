//! Between strings and other types.

use std::borrow::Cow;

use serde_json::Value;

use super::{Args, Builtin, pure, string, value};
use crate::query::error::Result;
use crate::query::eval::{Machine, text};
use crate::query::value::{self as values, Maybe};

pub(super) const BUILTINS: &[Builtin] = &[
    pure("TOSTRING", 1, 1, to_string),
    pure("STRINGTONUMBER", 1, 1, |machine, args| {
        let number = parsed(machine, &args, Value::is_number)?;
        let double = number.as_deref().and_then(values::as_double);
        Ok(double.and_then(values::number).map(Cow::Owned))
    }),
    pure("STRINGTOBOOLEAN", 1, 1, |machine, args| {
        parsed(machine, &args, Value::is_boolean)
    }),
    pure("STRINGTONULL", 1, 1, |machine, args| {
        parsed(machine, &args, Value::is_null)
    }),
    pure("STRINGTOARRAY", 1, 1, |machine, args| {
        parsed(machine, &args, Value::is_array)
    }),
    pure("STRINGTOOBJECT", 1, 1, |machine, args| {
        parsed(machine, &args, Value::is_object)
    }),
];

/// A string as it is, anything else as JSON text.
fn to_string<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let written = match value(&args, 0) {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        // A double without a fraction is written as the integer it is.
        Some(Value::Number(number)) => match values::number(values::double(number)) {
            Some(number) => number.to_string(),
            None => return Ok(None),
        },
        Some(value) => value.to_string(),
    };
    machine.charge(written.len())?;
    Ok(text(written))
}

/// The JSON value in a string, if it is of the wanted type; white space around it is fine.
fn parsed<'e>(
    machine: &Machine,
    args: &Args<'_>,
    is_wanted: impl FnOnce(&Value) -> bool,
) -> Result<Maybe<'e>> {
    let Some(text) = string(args, 0) else {
        return Ok(None);
    };
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Ok(None);
    };
    machine.charge(values::size(&value))?;
    Ok(is_wanted(&value).then_some(Cow::Owned(value)))
}
