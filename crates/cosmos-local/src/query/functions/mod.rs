//! The built-in functions, by subject: one table per module, one entry per function.
//!
//! Common rules ("System functions", Microsoft Learn, Query language): an argument of a type the
//! function does not work on makes the result undefined, never an error; names come in any letter
//! case; strings are counted and cut in UTF-16 code units.
//!
//! What the service has and this module has not is listed in [`is_known_elsewhere`], so that it
//! is refused by name.

mod array;
mod convert;
mod math;
mod text;
mod time;
mod types;

use serde_json::Value;

use super::error::Result;
use super::eval::Machine;
use super::value::{self, Maybe};

/// The values of a call's arguments, in order.
pub(super) type Args<'e> = Vec<Maybe<'e>>;

/// How a function computes its result.
pub(super) type Apply = for<'e> fn(&Machine, Args<'e>) -> Result<Maybe<'e>>;

/// One function.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    /// Arguments at least.
    pub(super) least: usize,
    /// Arguments at most.
    pub(super) most: usize,
    pub(super) apply: Apply,
    /// The result depends on the arguments alone, so that it may be computed once.
    pub(super) is_pure: bool,
}

impl std::fmt::Debug for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn pure(name: &'static str, least: usize, most: usize, apply: Apply) -> Builtin {
    Builtin {
        name,
        least,
        most,
        apply,
        is_pure: true,
    }
}

const fn impure(name: &'static str, least: usize, most: usize, apply: Apply) -> Builtin {
    Builtin {
        name,
        least,
        most,
        apply,
        is_pure: false,
    }
}

static TABLES: [&[Builtin]; 6] = [
    types::BUILTINS,
    text::BUILTINS,
    array::BUILTINS,
    math::BUILTINS,
    convert::BUILTINS,
    time::BUILTINS,
];

/// The function of this name, in any letter case.
pub(super) fn find(name: &str) -> Option<&'static Builtin> {
    TABLES
        .iter()
        .copied()
        .flatten()
        .find(|builtin| builtin.name.eq_ignore_ascii_case(name))
}

/// Functions of the service that are not implemented here.
pub(super) fn is_known_elsewhere(name: &str) -> bool {
    REFUSED.iter().any(|known| known.eq_ignore_ascii_case(name))
}

const REFUSED: [&str; 36] = [
    "AGO",
    "ALL",
    "ARRAY_AVG",
    "ARRAY_MAX",
    "ARRAY_MEDIAN",
    "ARRAY_MIN",
    "ARRAY_SUM",
    "CONTAINS_ALL_CI",
    "CONTAINS_ALL_CS",
    "CONTAINS_ANY_CI",
    "CONTAINS_ANY_CS",
    "DATETIMEFORMAT",
    "DAY",
    "FIRST",
    "FULLTEXTCONTAINS",
    "FULLTEXTCONTAINSALL",
    "FULLTEXTCONTAINSANY",
    "FULLTEXTSCORE",
    "HOUR",
    "IS_DATETIME",
    "LAST",
    "LASTINDEXOF",
    "LASTSUBSTRINGAFTER",
    "LASTSUBSTRINGBEFORE",
    "MINUTE",
    "MONTH",
    "RRF",
    "ST_AREA",
    "ST_DISTANCE",
    "ST_INTERSECTS",
    "ST_ISVALID",
    "ST_ISVALIDDETAILED",
    "ST_WITHIN",
    "SUBSTRINGAFTER",
    "SUBSTRINGBEFORE",
    "VECTORDISTANCE",
];

/// All functions, in alphabetical order.
#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = TABLES
        .iter()
        .copied()
        .flatten()
        .map(|builtin| builtin.name)
        .collect();
    names.sort_unstable_by_key(|name| name.to_uppercase());
    names
}

/// See [`is_known_elsewhere`].
#[cfg(test)]
pub(super) fn refused_names() -> &'static [&'static str] {
    &REFUSED
}

/// The argument at `position`, if it was given and is defined.
fn value<'a>(args: &'a Args<'_>, position: usize) -> Option<&'a Value> {
    args.get(position)?.as_deref()
}

fn string<'a>(args: &'a Args<'_>, position: usize) -> Option<&'a str> {
    value(args, position)?.as_str()
}

fn double(args: &Args<'_>, position: usize) -> Option<f64> {
    value::as_double(value(args, position)?)
}

fn integer(args: &Args<'_>, position: usize) -> Option<i64> {
    value::as_integer(value(args, position)?)
}

fn list<'a>(args: &'a Args<'_>, position: usize) -> Option<&'a Vec<Value>> {
    value(args, position)?.as_array()
}

/// An argument that may be left out, in which case it is `default`.
fn optional<'a, 'e, T>(
    args: &'a Args<'e>,
    position: usize,
    default: T,
    read: impl FnOnce(&'a Args<'e>, usize) -> Option<T>,
) -> Option<T> {
    match position < args.len() {
        true => read(args, position),
        false => Some(default),
    }
}

fn flag(args: &Args<'_>, position: usize) -> Option<bool> {
    value(args, position)?.as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_not_refused_at_once() {
        let mut seen = HashSet::new();
        for builtin in TABLES.iter().copied().flatten() {
            let name = builtin.name.to_ascii_uppercase();
            assert!(
                !is_known_elsewhere(&name),
                "{name} is implemented and refused"
            );
            assert!(builtin.least <= builtin.most, "{name}");
            assert!(seen.insert(name), "{} stands twice", builtin.name);
        }
    }
}
