//! Dates and times: ISO 8601 text in UTC, written with seven digits of a second; timestamps in
//! milliseconds and ticks of 100 nanoseconds, both since 1970.
//!
//! "Current" is one moment for all rows of an execution, in the plain functions as in the
//! `…Static` ones.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{Span, Timestamp};

use super::{Args, Builtin, double, impure, integer, optional, pure, string};
use crate::query::error::Result;
use crate::query::eval::{Machine, numeric, text};
use crate::query::value::Maybe;

const NANOSECONDS_PER_TICK: i128 = 100;
const NANOSECONDS_PER_MILLISECOND: i128 = 1_000_000;

pub(super) const BUILTINS: &[Builtin] = &[
    impure("GETCURRENTDATETIME", 0, 0, current_text),
    impure("GETCURRENTDATETIMESTATIC", 0, 0, current_text),
    impure("GETCURRENTTIMESTAMP", 0, 0, current_milliseconds),
    impure("GETCURRENTTIMESTAMPSTATIC", 0, 0, current_milliseconds),
    impure("GETCURRENTTICKS", 0, 0, current_ticks),
    impure("GETCURRENTTICKSSTATIC", 0, 0, current_ticks),
    pure("DATETIMEADD", 3, 3, |_, args| Ok(add(&args))),
    pure("DATETIMEDIFF", 3, 3, |_, args| Ok(difference(&args))),
    pure("DATETIMEPART", 2, 2, |_, args| Ok(part(&args))),
    pure("DATETIMEBIN", 2, 4, |_, args| Ok(bin(&args))),
    pure("DATETIMEFROMPARTS", 3, 7, |_, args| Ok(from_parts(&args))),
    pure("DATETIMETOTIMESTAMP", 1, 1, |_, args| {
        Ok(moment(&args, 0).and_then(|at| whole(at.as_nanosecond(), NANOSECONDS_PER_MILLISECOND)))
    }),
    pure("DATETIMETOTICKS", 1, 1, |_, args| {
        Ok(moment(&args, 0).and_then(|at| whole(at.as_nanosecond(), NANOSECONDS_PER_TICK)))
    }),
    pure("TIMESTAMPTODATETIME", 1, 1, |_, args| {
        Ok(from_number(&args, NANOSECONDS_PER_MILLISECOND))
    }),
    pure("TICKSTODATETIME", 1, 1, |_, args| {
        Ok(from_number(&args, NANOSECONDS_PER_TICK))
    }),
];

/// A part of a date or time, by any of its names.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Year,
    Month,
    /// Days and everything shorter, in nanoseconds.
    Fixed(i128),
}

const NANOSECOND: Unit = Unit::Fixed(1);
const MICROSECOND: Unit = Unit::Fixed(1_000);
const MILLISECOND: Unit = Unit::Fixed(NANOSECONDS_PER_MILLISECOND);
const SECOND: Unit = Unit::Fixed(1_000_000_000);
const MINUTE: Unit = Unit::Fixed(60_000_000_000);
const HOUR: Unit = Unit::Fixed(3_600_000_000_000);
const DAY: Unit = Unit::Fixed(86_400_000_000_000);

fn unit(args: &Args<'_>, position: usize) -> Option<Unit> {
    Some(
        match string(args, position)?.to_ascii_lowercase().as_str() {
            "year" | "yyyy" | "yy" => Unit::Year,
            "month" | "mm" | "m" => Unit::Month,
            "day" | "dd" | "d" => DAY,
            "hour" | "hh" => HOUR,
            "minute" | "mi" | "n" => MINUTE,
            "second" | "ss" | "s" => SECOND,
            "millisecond" | "ms" => MILLISECOND,
            "microsecond" | "mcs" => MICROSECOND,
            "nanosecond" | "ns" => NANOSECOND,
            _ => return None,
        },
    )
}

/// Reads a date, or a date and time, with `Z`, with an offset, or without either as UTC.
fn moment(args: &Args<'_>, position: usize) -> Option<Timestamp> {
    let text = string(args, position)?;
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let with_offset = text.parse::<Timestamp>().ok();
    with_offset.or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        Offset::UTC.to_timestamp(civil).ok()
    })
}

fn utc(at: Timestamp) -> DateTime {
    Offset::UTC.to_datetime(at)
}

/// `2021-01-08T18:35:00.0000000Z`; years of four digits only.
fn written<'e>(at: Timestamp) -> Maybe<'e> {
    let date = utc(at);
    if !(1..=9999).contains(&date.year()) {
        return None;
    }
    text(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        i64::from(date.subsec_nanosecond()) / 100
    ))
}

/// How many whole `size`s, down to the earlier one.
fn whole<'e>(nanoseconds: i128, size: i128) -> Maybe<'e> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "all numbers of the language are doubles"
    )]
    numeric(nanoseconds.div_euclid(size) as f64)
}

fn current_text<'e>(machine: &Machine, _: Args<'e>) -> Result<Maybe<'e>> {
    Ok(written(machine.now()))
}

fn current_milliseconds<'e>(machine: &Machine, _: Args<'e>) -> Result<Maybe<'e>> {
    Ok(whole(
        machine.now().as_nanosecond(),
        NANOSECONDS_PER_MILLISECOND,
    ))
}

fn current_ticks<'e>(machine: &Machine, _: Args<'e>) -> Result<Maybe<'e>> {
    Ok(whole(machine.now().as_nanosecond(), NANOSECONDS_PER_TICK))
}

fn from_number<'e>(args: &Args<'_>, size: i128) -> Maybe<'e> {
    let number = double(args, 0)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and is out of range then"
    )]
    let nanoseconds = (number.trunc() as i128).checked_mul(size)?;
    written(Timestamp::from_nanosecond(nanoseconds).ok()?)
}

fn add<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (unit, count, start) = (unit(args, 0)?, integer(args, 1)?, moment(args, 2)?);
    let span = match unit {
        Unit::Year => Span::new().try_years(count),
        Unit::Month => Span::new().try_months(count),
        Unit::Fixed(size) => {
            let sum = i128::from(count)
                .checked_mul(size)?
                .checked_add(start.as_nanosecond())?;
            return written(Timestamp::from_nanosecond(sum).ok()?);
        }
    };
    let end = utc(start).checked_add(span.ok()?).ok()?;
    written(Offset::UTC.to_timestamp(end).ok()?)
}

/// How many boundaries of the unit lie between; negative when the end is earlier.
fn difference<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (unit, start, end) = (unit(args, 0)?, moment(args, 1)?, moment(args, 2)?);
    let index = |at: Timestamp| {
        let date = utc(at);
        match unit {
            Unit::Year => i128::from(date.year()),
            Unit::Month => i128::from(date.year()) * 12 + i128::from(date.month()),
            Unit::Fixed(size) => at.as_nanosecond().div_euclid(size),
        }
    };
    whole(index(end) - index(start), 1)
}

fn part<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (unit, at) = (unit(args, 0)?, moment(args, 1)?);
    let date = utc(at);
    numeric(match unit {
        Unit::Year => f64::from(date.year()),
        Unit::Month => f64::from(date.month()),
        DAY => f64::from(date.day()),
        HOUR => f64::from(date.hour()),
        MINUTE => f64::from(date.minute()),
        SECOND => f64::from(date.second()),
        MILLISECOND => f64::from(date.subsec_nanosecond() / 1_000_000),
        MICROSECOND => f64::from(date.subsec_nanosecond() / 1_000),
        Unit::Fixed(_) => f64::from(date.subsec_nanosecond()),
    })
}

/// The start of the bin that holds the time. Bins are days or shorter, of a positive whole size,
/// counted from 1970 or from the fourth argument.
fn bin<'e>(args: &Args<'_>) -> Maybe<'e> {
    let at = moment(args, 0)?;
    let Unit::Fixed(unit) = unit(args, 1)? else {
        return None;
    };
    let size =
        i128::from(optional(args, 2, 1, integer).filter(|size| *size > 0)?).checked_mul(unit)?;
    let origin = optional(args, 3, Timestamp::UNIX_EPOCH, moment)?.as_nanosecond();
    let bins = (at.as_nanosecond() - origin).div_euclid(size);
    written(Timestamp::from_nanosecond(origin + bins * size).ok()?)
}

/// Year, month, day, and from there on what is given; the last is ticks of 100 nanoseconds.
fn from_parts<'e>(args: &Args<'_>) -> Maybe<'e> {
    let part = |position| optional(args, position, 0, integer);
    let small = |position| i8::try_from(part(position)?).ok();
    let ticks = i32::try_from(part(6)?)
        .ok()
        .filter(|ticks| (0..10_000_000).contains(ticks))?;
    let civil = DateTime::new(
        i16::try_from(part(0)?).ok()?,
        small(1)?,
        small(2)?,
        small(3)?,
        small(4)?,
        small(5)?,
        ticks * 100,
    );
    written(Offset::UTC.to_timestamp(civil.ok()?).ok()?)
}
