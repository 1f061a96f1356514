//! Route templates as ASP.NET Core reads them: `devices/{id:int}/{view?}`, `{*rest}`, `{p=default}`.
//!
//! Matching ignores case; a failed constraint is a non-match. Routes are tried in function order and the first match wins,
//! there is no "most specific". Sources: Microsoft Learn, "Routing in ASP.NET Core" and "Azure Functions HTTP trigger";
//! `Azure/azure-functions-host: src/WebJobs.Script.WebHost/WebScriptHostHttpRoutesManager.cs`.
//!
//! Local choice: a segment that mixes text and parameters (`{name}.{extension}`) is refused at load.

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};

/// Routes that begin so are the host's own.
const RESERVED: [&str; 2] = ["admin", "runtime"];

/// Largest regular expression of a constraint, compiled, in bytes.
const REGEX_LIMIT: usize = 64 * 1024;

/// Route values by name, in template order; `None` = an optional parameter that was not given.
pub(crate) type RouteValues = Vec<(String, Option<String>)>;

/// A route template.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Prefix and template, without leading slash, as written.
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone)]
enum Segment {
    Literal(String),
    Parameter(Parameter),
}

#[derive(Debug, Clone)]
struct Parameter {
    name: String,
    catch_all: bool,
    optional: bool,
    default: Option<String>,
    constraints: Vec<Constraint>,
}

#[derive(Debug, Clone)]
enum Constraint {
    Int,
    Bool,
    DateTime,
    Decimal,
    Guid,
    Long,
    Alpha,
    Required,
    Length(usize, usize),
    Range(i64, i64),
    Regex(Regex),
}

impl Route {
    /// Reads `route` below `prefix`.
    ///
    /// # Errors
    /// One sentence: reserved start, malformed or unsupported template.
    pub(crate) fn parse(prefix: &str, route: &str) -> Result<Self, String> {
        let route = route.trim_matches('/');
        for reserved in RESERVED {
            if route
                .get(..reserved.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(reserved))
            {
                return Err(format!(
                    "route {route:?} starts with `{reserved}`, which is reserved for the host"
                ));
            }
        }
        let prefix = prefix.trim_matches('/');
        let text = match (prefix.is_empty(), route.is_empty()) {
            (true, _) => route.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}/{route}"),
        };
        let problem = |reason: String| format!("route {route:?}: {reason}");
        let mut segments: Vec<Segment> = prefix
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| Segment::Literal(segment.to_owned()))
            .collect();
        let parts: Vec<_> = split_outside_braces(route).map_err(problem)?;
        for (index, part) in parts.iter().enumerate() {
            let segment = Segment::parse(part).map_err(problem)?;
            if let Segment::Parameter(parameter) = &segment {
                let last = index + 1 == parts.len();
                if parameter.catch_all && !last {
                    return Err(problem(format!(
                        "`{{*{}}}` must be the last segment",
                        parameter.name
                    )));
                }
                if parameter.optional && !last {
                    return Err(problem(format!(
                        "optional `{{{}?}}` must be the last segment",
                        parameter.name
                    )));
                }
                if segments.iter().any(|known| {
                    matches!(known, Segment::Parameter(other) if other.name.eq_ignore_ascii_case(&parameter.name))
                }) {
                    return Err(problem(format!("parameter `{}` appears twice", parameter.name)));
                }
            }
            segments.push(segment);
        }
        Ok(Self { text, segments })
    }

    /// Prefix and template, without leading slash, as written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The route values when the (still escaped) path matches.
    pub(crate) fn matches(&self, path: &str) -> Option<RouteValues> {
        let parts: Vec<&str> = match path.trim_matches('/') {
            "" => Vec::new(),
            trimmed => trimmed.split('/').collect(),
        };
        let mut values = RouteValues::new();
        let mut rest = parts.as_slice();
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => {
                    let (first, others) = rest.split_first()?;
                    if !decoded(first).eq_ignore_ascii_case(literal) {
                        return None;
                    }
                    rest = others;
                }
                Segment::Parameter(parameter) => {
                    let given = if parameter.catch_all {
                        let joined = rest.join("/");
                        rest = &[];
                        (!joined.is_empty()).then(|| decoded(&joined))
                    } else {
                        match rest.split_first() {
                            Some((first, others)) => {
                                rest = others;
                                (!first.is_empty()).then(|| decoded(first))
                            }
                            None => None,
                        }
                    };
                    let value = given.or_else(|| parameter.default.clone());
                    match &value {
                        Some(text) if !parameter.constraints.iter().all(|c| c.accepts(text)) => {
                            return None;
                        }
                        None if !parameter.optional && !parameter.catch_all => return None,
                        _ => {}
                    }
                    values.push((parameter.name.clone(), value));
                }
            }
        }
        rest.is_empty().then_some(values)
    }
}

/// Undoes percent-encoding, except of `/`, which would become a separator.
fn decoded(segment: &str) -> String {
    let kept = segment.replace("%2F", "%252F").replace("%2f", "%252f");
    percent_decode_str(&kept).decode_utf8_lossy().into_owned()
}

/// Splits at slashes that are not inside braces.
fn split_outside_braces(route: &str) -> Result<Vec<&str>, String> {
    if route.is_empty() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (index, character) in route.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            '/' if depth == 0 => {
                parts.push(&route[start..index]);
                start = index + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return Err("a `}` without `{`".into());
        }
    }
    if depth != 0 {
        return Err("a `{` that is never closed".into());
    }
    parts.push(&route[start..]);
    if parts.iter().any(|part| part.is_empty()) {
        return Err("an empty segment (`//`)".into());
    }
    Ok(parts)
}

impl Segment {
    fn parse(part: &str) -> Result<Self, String> {
        if !part.contains(['{', '}']) {
            return Ok(Self::Literal(part.to_owned()));
        }
        let inner = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
            .filter(|_| closes_at_end(part))
            .ok_or_else(|| {
                format!(
                    "segment {part:?} mixes text and parameters, which this host does not support"
                )
            })?;
        Parameter::parse(inner).map(Self::Parameter)
    }
}

/// Whether the brace that opens `part` closes at its very end.
fn closes_at_end(part: &str) -> bool {
    let mut depth = 0;
    for (index, character) in part.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1 == part.len();
        }
    }
    false
}

impl Parameter {
    /// `name`, `*name`, `name?`, `name=default`, `name:constraint:constraint`, in combination.
    fn parse(inner: &str) -> Result<Self, String> {
        let (catch_all, inner) = match inner.strip_prefix('*') {
            Some(rest) => (true, rest.strip_prefix('*').unwrap_or(rest)),
            None => (false, inner),
        };
        let name_end = inner.find([':', '=', '?']).unwrap_or(inner.len());
        let (name, mut rest) = inner.split_at(name_end);
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        {
            return Err(format!("`{{{inner}}}` has no valid parameter name"));
        }
        let mut parameter = Self {
            name: name.to_owned(),
            catch_all,
            optional: false,
            default: None,
            constraints: Vec::new(),
        };
        while let Some(constraint) = rest.strip_prefix(':') {
            let end = constraint_end(constraint);
            let (text, after) = constraint.split_at(end);
            parameter.constraints.push(Constraint::parse(text)?);
            rest = after;
        }
        if let Some(default) = rest.strip_prefix('=') {
            parameter.default = Some(default.to_owned());
        } else if rest == "?" {
            parameter.optional = true;
        } else if !rest.is_empty() {
            return Err(format!("`{{{inner}}}` is not a valid parameter"));
        }
        Ok(parameter)
    }
}

/// Where a constraint ends: at `:`, `=` or `?` outside parentheses.
fn constraint_end(text: &str) -> usize {
    let mut depth = 0_i32;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ':' | '=' | '?' if depth <= 0 => return index,
            _ => {}
        }
    }
    text.len()
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once('(') {
            Some((name, rest)) => (
                name,
                Some(
                    rest.strip_suffix(')')
                        .ok_or_else(|| format!("constraint `{text}` has no closing parenthesis"))?,
                ),
            ),
            None => (text, None),
        };
        let wrong = || format!("constraint `{text}` has wrong arguments");
        let number = |text: &str| text.trim().parse::<i64>().map_err(|_| wrong());
        let length = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let pair = |text: &str| -> Result<(String, String), String> {
            text.split_once(',')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .ok_or_else(wrong)
        };
        Ok(match (name.to_ascii_lowercase().as_str(), argument) {
            ("int", None) => Self::Int,
            ("bool", None) => Self::Bool,
            ("datetime", None) => Self::DateTime,
            ("decimal" | "double" | "float", None) => Self::Decimal,
            ("guid", None) => Self::Guid,
            ("long", None) => Self::Long,
            ("alpha", None) => Self::Alpha,
            ("required", None) => Self::Required,
            ("minlength", Some(min)) => Self::Length(length(min)?, usize::MAX),
            ("maxlength", Some(max)) => Self::Length(0, length(max)?),
            ("length", Some(arguments)) if arguments.contains(',') => {
                let (min, max) = pair(arguments)?;
                Self::Length(length(&min)?, length(&max)?)
            }
            ("length", Some(exact)) => Self::Length(length(exact)?, length(exact)?),
            ("min", Some(min)) => Self::Range(number(min)?, i64::MAX),
            ("max", Some(max)) => Self::Range(i64::MIN, number(max)?),
            ("range", Some(arguments)) => {
                let (min, max) = pair(arguments)?;
                Self::Range(number(&min)?, number(&max)?)
            }
            ("regex", Some(pattern)) => {
                // Braces and brackets are doubled in a template.
                let pattern = pattern
                    .replace("{{", "{")
                    .replace("}}", "}")
                    .replace("[[", "[")
                    .replace("]]", "]");
                Self::Regex(
                    RegexBuilder::new(&pattern)
                        .case_insensitive(true)
                        .size_limit(REGEX_LIMIT)
                        .build()
                        .map_err(|error| {
                            format!("constraint `{text}` is not supported: {error}")
                        })?,
                )
            }
            _ => return Err(format!("constraint `{text}` is not supported by this host")),
        })
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Int => value.parse::<i32>().is_ok(),
            Self::Long => value.parse::<i64>().is_ok(),
            Self::Bool => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Self::DateTime => {
                value.parse::<jiff::Timestamp>().is_ok()
                    || value.parse::<jiff::civil::DateTime>().is_ok()
                    || value.parse::<jiff::civil::Date>().is_ok()
            }
            Self::Decimal => value.parse::<f64>().is_ok_and(f64::is_finite),
            Self::Guid => uuid::Uuid::parse_str(value).is_ok(),
            Self::Alpha => value.chars().all(|c| c.is_ascii_alphabetic()),
            Self::Required => !value.is_empty(),
            Self::Length(min, max) => (*min..=*max).contains(&value.chars().count()),
            Self::Range(min, max) => value
                .parse::<i64>()
                .is_ok_and(|number| (*min..=*max).contains(&number)),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Values as `name=value`, a missing optional as `name`; `None` = no match.
    fn matched(route: &str, path: &str) -> Option<String> {
        let values = Route::parse("api", route).unwrap().matches(path)?;
        let shown: Vec<_> = values
            .into_iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name,
            })
            .collect();
        Some(shown.join(" "))
    }

    #[test]
    fn matches_like_asp_net() {
        for (route, path, expected) in [
            ("WriteEvent", "/api/WriteEvent", Some("")),
            ("WriteEvent", "/API/writeevent/", Some("")),
            ("WriteEvent", "/api/WriteEvent/x", None),
            ("WriteEvent", "/WriteEvent", None),
            (
                "ReadAPI/{deviceId}",
                "/api/readapi/dev-7",
                Some("deviceId=dev-7"),
            ),
            (
                "ReadAPI/{deviceId}",
                "/api/readapi/a%20b%2Fc",
                Some("deviceId=a b%2Fc"),
            ),
            ("ReadAPI/{deviceId}", "/api/readapi/", None),
            ("a/{b?}", "/api/a", Some("b")),
            ("a/{b=5}", "/api/a", Some("b=5")),
            ("a/{b=5}", "/api/a/6", Some("b=6")),
            ("a/{*rest}", "/api/a/b/c", Some("rest=b/c")),
            ("a/{*rest}", "/api/a", Some("rest")),
            ("{n:int}", "/api/5", Some("n=5")),
            ("{n:int}", "/api/x", None),
            ("{n:int?}", "/api", Some("n")),
            ("{n:int:range(1,3)}", "/api/3", Some("n=3")),
            ("{n:int:range(1,3)}", "/api/4", None),
            ("{n:length(2,3)}", "/api/abcd", None),
            ("{n:length(2)}", "/api/ab", Some("n=ab")),
            ("{n:alpha:minlength(2)}", "/api/a", None),
            ("{n:bool}", "/api/TRUE", Some("n=TRUE")),
            (
                "{n:guid}",
                "/api/6d7e8f90-1111-4222-8333-444455556666",
                Some("n=6d7e8f90-1111-4222-8333-444455556666"),
            ),
            ("{n:datetime}", "/api/2026-03-01", Some("n=2026-03-01")),
            ("{n:double}", "/api/1.5", Some("n=1.5")),
            ("{n:regex(^d:[[0-9]]{{2}}$)}", "/api/D:12", Some("n=D:12")),
            ("{n:regex(^d:[[0-9]]{{2}}$)}", "/api/d:1", None),
        ] {
            assert_eq!(matched(route, path).as_deref(), expected, "{route} {path}");
        }
    }

    #[test]
    fn an_empty_prefix_and_an_empty_route_are_fine() {
        assert!(Route::parse("", "x").unwrap().matches("/x").is_some());
        assert!(Route::parse("", "{*all}").unwrap().matches("/").is_some());
        assert_eq!(Route::parse("/api/", "x/{y}").unwrap().text(), "api/x/{y}");
    }

    #[test]
    fn what_cannot_be_matched_is_refused_by_name() {
        for (route, named) in [
            ("admin", "admin"),
            ("Administer", "admin"),
            ("runtime/x", "runtime"),
            ("{a}.{b}", "mixes"),
            ("x{a}", "mixes"),
            ("{a", "never closed"),
            ("a}", "without"),
            ("{}", "parameter name"),
            ("{a}/{A}", "twice"),
            ("{*a}/b", "last"),
            ("{a?}/b", "last"),
            ("{a:even}", "even"),
            ("{a:min(x)}", "min"),
            ("{a:regex((?<!x)y)}", "regex"),
            ("a//b", "empty"),
        ] {
            let message = Route::parse("api", route).unwrap_err();
            assert!(message.contains(named), "{route}: {message}");
        }
    }
}
