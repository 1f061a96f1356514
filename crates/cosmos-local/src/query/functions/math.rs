//! Numbers.

use std::borrow::Cow;

use serde_json::Value;

use super::{Args, Builtin, double, impure, integer, optional, pure};
use crate::query::eval::numeric;
use crate::query::value::Maybe;

pub(super) const BUILTINS: &[Builtin] = &[
    pure("ABS", 1, 1, |_, args| Ok(one(&args, f64::abs))),
    pure("ACOS", 1, 1, |_, args| Ok(one(&args, f64::acos))),
    pure("ASIN", 1, 1, |_, args| Ok(one(&args, f64::asin))),
    pure("ATAN", 1, 1, |_, args| Ok(one(&args, f64::atan))),
    pure("ATN2", 2, 2, |_, args| Ok(two(&args, f64::atan2))),
    pure("CEILING", 1, 1, |_, args| Ok(one(&args, f64::ceil))),
    pure("COS", 1, 1, |_, args| Ok(one(&args, f64::cos))),
    pure("COT", 1, 1, |_, args| Ok(one(&args, |x| x.tan().recip()))),
    pure("DEGREES", 1, 1, |_, args| Ok(one(&args, f64::to_degrees))),
    pure("EXP", 1, 1, |_, args| Ok(one(&args, f64::exp))),
    pure("FLOOR", 1, 1, |_, args| Ok(one(&args, f64::floor))),
    pure("LOG", 1, 2, |_, args| {
        Ok(match args.len() {
            1 => one(&args, f64::ln),
            _ => two(&args, f64::log),
        })
    }),
    pure("LOG10", 1, 1, |_, args| Ok(one(&args, f64::log10))),
    pure("PI", 0, 0, |_, _| Ok(numeric(std::f64::consts::PI))),
    pure("POWER", 2, 2, |_, args| Ok(two(&args, f64::powf))),
    pure("RADIANS", 1, 1, |_, args| Ok(one(&args, f64::to_radians))),
    impure("RAND", 0, 0, |_, _| Ok(numeric(rand::random::<f64>()))),
    // Halves go away from zero, as f64::round does.
    pure("ROUND", 1, 1, |_, args| Ok(one(&args, f64::round))),
    pure("SIGN", 1, 1, |_, args| {
        Ok(one(&args, |x| if x == 0.0 { 0.0 } else { x.signum() }))
    }),
    pure("SIN", 1, 1, |_, args| Ok(one(&args, f64::sin))),
    pure("SQRT", 1, 1, |_, args| Ok(one(&args, f64::sqrt))),
    pure("SQUARE", 1, 1, |_, args| Ok(one(&args, |x| x * x))),
    pure("TAN", 1, 1, |_, args| Ok(one(&args, f64::tan))),
    pure("TRUNC", 1, 1, |_, args| Ok(one(&args, f64::trunc))),
    pure("NUMBERBIN", 1, 2, |_, args| {
        let bin = optional(&args, 1, 1.0, double);
        Ok(double(&args, 0)
            .zip(bin)
            .and_then(|(x, bin)| numeric((x / bin).floor() * bin)))
    }),
    pure("INTADD", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x.wrapping_add(y))))
    }),
    pure("INTSUB", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x.wrapping_sub(y))))
    }),
    pure("INTMUL", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x.wrapping_mul(y))))
    }),
    pure("INTDIV", 2, 2, |_, args| {
        Ok(integers(&args, i64::checked_div))
    }),
    pure("INTMOD", 2, 2, |_, args| {
        Ok(integers(&args, i64::checked_rem))
    }),
    pure("INTBITAND", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x & y)))
    }),
    pure("INTBITOR", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x | y)))
    }),
    pure("INTBITXOR", 2, 2, |_, args| {
        Ok(integers(&args, |x, y| Some(x ^ y)))
    }),
    pure("INTBITNOT", 1, 1, |_, args| {
        Ok(integer(&args, 0).map(|x| Cow::Owned(Value::from(!x))))
    }),
    pure("INTBITLEFTSHIFT", 2, 2, |_, args| {
        Ok(integers(&args, |x, by| shift(x, by, i64::checked_shl)))
    }),
    pure("INTBITRIGHTSHIFT", 2, 2, |_, args| {
        Ok(integers(&args, |x, by| shift(x, by, i64::checked_shr)))
    }),
];

fn one<'e>(args: &Args<'_>, compute: impl FnOnce(f64) -> f64) -> Maybe<'e> {
    numeric(compute(double(args, 0)?))
}

fn two<'e>(args: &Args<'_>, compute: impl FnOnce(f64, f64) -> f64) -> Maybe<'e> {
    numeric(compute(double(args, 0)?, double(args, 1)?))
}

/// Works in 64-bit integers; a number with a fraction makes the result undefined.
fn integers<'e>(args: &Args<'_>, compute: impl FnOnce(i64, i64) -> Option<i64>) -> Maybe<'e> {
    let result = compute(integer(args, 0)?, integer(args, 1)?)?;
    Some(Cow::Owned(Value::from(result)))
}

fn shift(x: i64, by: i64, shift: impl FnOnce(i64, u32) -> Option<i64>) -> Option<i64> {
    shift(x, u32::try_from(by).ok()?)
}
