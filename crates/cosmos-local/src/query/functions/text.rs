//! Strings.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{Args, Builtin, flag, integer, list, optional, pure, string};
use crate::query::error::{ErrorCode, QueryError, Result};
use crate::query::eval::{Machine, boolean, numeric, text};
use crate::query::value::{self, Maybe};

/// Longest result of REPLICATE, in code units ("REPLICATE", Microsoft Learn, Query language).
const MAX_REPLICATED: i64 = 10_000;

/// Most memory a compiled regular expression may take, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

pub(super) const BUILTINS: &[Builtin] = &[
    pure("CONTAINS", 2, 3, |_, args| {
        Ok(compare(&args, |text, part| text.contains(part)))
    }),
    pure("STARTSWITH", 2, 3, |_, args| {
        Ok(compare(&args, |text, part| text.starts_with(part)))
    }),
    pure("ENDSWITH", 2, 3, |_, args| {
        Ok(compare(&args, |text, part| text.ends_with(part)))
    }),
    pure("STRINGEQUALS", 2, 3, |_, args| {
        Ok(compare(&args, |left, right| left == right))
    }),
    pure("CONCAT", 2, usize::MAX, |machine, args| {
        let parts: Option<Vec<&str>> = (0..args.len()).map(|at| string(&args, at)).collect();
        let Some(parts) = parts else { return Ok(None) };
        machine.charge(parts.iter().map(|part| part.len()).sum())?;
        Ok(text(parts.concat()))
    }),
    pure("LOWER", 1, 1, |machine, args| {
        map(machine, &args, str::to_lowercase)
    }),
    pure("UPPER", 1, 1, |machine, args| {
        map(machine, &args, str::to_uppercase)
    }),
    pure("LENGTH", 1, 1, |_, args| {
        Ok(string(&args, 0).and_then(|text| count(units(text))))
    }),
    pure("TRIM", 1, 2, |_, args| Ok(trim(&args, true, true))),
    pure("LTRIM", 1, 2, |_, args| Ok(trim(&args, true, false))),
    pure("RTRIM", 1, 2, |_, args| Ok(trim(&args, false, true))),
    pure("SUBSTRING", 3, 3, |_, args| {
        Ok(cut(string(&args, 0), integer(&args, 1), integer(&args, 2)))
    }),
    pure("LEFT", 2, 2, |_, args| {
        Ok(cut(string(&args, 0), Some(0), integer(&args, 1)))
    }),
    pure("RIGHT", 2, 2, |_, args| Ok(right(&args))),
    pure("REVERSE", 1, 1, |machine, args| {
        map(machine, &args, |text| text.chars().rev().collect())
    }),
    pure("REPLACE", 3, 3, replace),
    pure("REPLICATE", 2, 2, |_, args| Ok(replicate(&args))),
    pure("INDEX_OF", 2, 3, |_, args| Ok(index_of(&args))),
    pure("STRINGSPLIT", 2, 2, split),
    pure("STRINGJOIN", 2, 2, join),
    pure("REGEXMATCH", 2, 3, regex_match),
];

/// The length in code units.
fn units(text: &str) -> usize {
    match text.is_ascii() {
        true => text.len(),
        false => text.encode_utf16().count(),
    }
}

fn count<'e>(count: usize) -> Maybe<'e> {
    #[expect(clippy::cast_precision_loss, reason = "a count of something in memory")]
    numeric(count as f64)
}

/// Compares two strings; the third argument says whether letter case is ignored.
fn compare<'e>(args: &Args<'_>, test: impl FnOnce(&str, &str) -> bool) -> Maybe<'e> {
    let (text, part) = (string(args, 0)?, string(args, 1)?);
    boolean(match optional(args, 2, false, flag)? {
        true => test(&text.to_lowercase(), &part.to_lowercase()),
        false => test(text, part),
    })
}

fn map<'e>(
    machine: &Machine,
    args: &Args<'_>,
    change: impl FnOnce(&str) -> String,
) -> Result<Maybe<'e>> {
    let Some(before) = string(args, 0) else {
        return Ok(None);
    };
    machine.charge(before.len())?;
    Ok(text(change(before)))
}

/// Trims white space, or the characters of the second argument.
fn trim<'e>(args: &Args<'_>, start: bool, end: bool) -> Maybe<'e> {
    let mut rest = string(args, 0)?;
    let set = optional(args, 1, None, |args, at| string(args, at).map(Some))?;
    let is_trimmed = |c: char| match set {
        Some(set) => set.contains(c),
        None => c.is_whitespace(),
    };
    if start {
        rest = rest.trim_start_matches(is_trimmed);
    }
    if end {
        rest = rest.trim_end_matches(is_trimmed);
    }
    text(rest)
}

/// `length` code units from `start` on. Half of a surrogate pair becomes U+FFFD.
fn cut<'e>(source: Option<&str>, start: Option<i64>, length: Option<i64>) -> Maybe<'e> {
    let (source, start, length) = (source?, start?, length?);
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else {
        return text("");
    };
    if source.is_ascii() {
        let end = start.saturating_add(length).min(source.len());
        return text(source.get(start..end).unwrap_or(""));
    }
    let units: Vec<u16> = source.encode_utf16().skip(start).take(length).collect();
    text(String::from_utf16_lossy(&units))
}

fn right<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (source, length) = (string(args, 0)?, integer(args, 1)?);
    let total = i64::try_from(units(source)).ok()?;
    let length = length.clamp(0, total);
    cut(Some(source), Some(total - length), Some(length))
}

fn replace<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let (Some(source), Some(find), Some(with)) =
        (string(&args, 0), string(&args, 1), string(&args, 2))
    else {
        return Ok(None);
    };
    if find.is_empty() {
        return Ok(text(source));
    }
    let growth = source.matches(find).count().saturating_mul(with.len());
    machine.charge(source.len().saturating_add(growth))?;
    Ok(text(source.replace(find, with)))
}

fn replicate<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (source, times) = (string(args, 0)?, integer(args, 1)?);
    let length = i64::try_from(units(source)).ok()?.checked_mul(times)?;
    let times = usize::try_from(times).ok()?;
    // Repeating nothing is cheap however often it is asked for.
    match source.is_empty() {
        true => text(""),
        false => (length <= MAX_REPLICATED)
            .then(|| source.repeat(times))
            .and_then(text),
    }
}

fn index_of<'e>(args: &Args<'_>) -> Maybe<'e> {
    let (source, part) = (string(args, 0)?, string(args, 1)?);
    let start = usize::try_from(optional(args, 2, 0, integer)?).ok()?;
    // The byte where the start-th code unit lies.
    let mut unit = 0;
    let start = source
        .char_indices()
        .find(|(_, c)| {
            let is_there = unit >= start;
            unit += c.len_utf16();
            is_there
        })
        .map_or(source.len(), |(at, _)| at);
    match source[start..].find(part) {
        Some(at) => count(units(&source[..start + at])),
        None => numeric(-1.0),
    }
}

fn split<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let (Some(source), Some(delimiter)) = (string(&args, 0), string(&args, 1)) else {
        return Ok(None);
    };
    let parts: Vec<Value> = match delimiter.is_empty() {
        true => vec![Value::from(source)],
        false => source.split(delimiter).map(Value::from).collect(),
    };
    machine.charge(parts.iter().map(value::size).sum())?;
    Ok(Some(std::borrow::Cow::Owned(Value::Array(parts))))
}

fn join<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let (Some(parts), Some(delimiter)) = (list(&args, 0), string(&args, 1)) else {
        return Ok(None);
    };
    let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
    let Some(parts) = parts else { return Ok(None) };
    let bytes: usize = parts.iter().map(|part| part.len() + delimiter.len()).sum();
    machine.charge(bytes)?;
    Ok(text(parts.join(delimiter)))
}

/// RegexMatch with the flags `m`, `s`, `i`, `x`. The engine is a linear-time one: look-around and
/// back-references, which it cannot have, are refused.
fn regex_match<'e>(machine: &Machine, args: Args<'e>) -> Result<Maybe<'e>> {
    let (Some(source), Some(pattern), Some(flags)) = (
        string(&args, 0),
        string(&args, 1),
        optional(&args, 2, "", string),
    ) else {
        return Ok(None);
    };
    if !flags.chars().all(|flag| "msix".contains(flag)) {
        return Ok(None);
    }
    match machine.pattern(pattern, flags, || compile(pattern, flags)) {
        Some(regex) => Ok(boolean(regex.is_match(source))),
        None => Err(QueryError::new(
            ErrorCode::Unsupported,
            format!(
                "RegexMatch: the pattern '{pattern}' is invalid, too large, or uses look-around or back-references, which are not supported."
            ),
        )),
    }
}

fn compile(pattern: &str, flags: &str) -> Option<Regex> {
    RegexBuilder::new(pattern)
        .multi_line(flags.contains('m'))
        .dot_matches_new_line(flags.contains('s'))
        .case_insensitive(flags.contains('i'))
        .ignore_whitespace(flags.contains('x'))
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .ok()
}
