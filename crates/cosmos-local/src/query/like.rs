//! LIKE patterns: `%` any run, `_` any character, `[a-f]` and `[^a-f]` one of a set, and an escape
//! character of the query's choosing ("LIKE", Microsoft Learn, Query language).

/// A pattern ready to match.
#[derive(Debug)]
pub(super) struct Like {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Run,
    One,
    Char(char),
    Set {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Part {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Run => false,
            Self::One => true,
            Self::Char(expected) => *expected == c,
            Self::Set { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

impl Like {
    /// Reads a pattern. Every text is a pattern: a `[` that is never closed stands for itself.
    pub(super) fn new(pattern: &str, escape: Option<char>) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            let part = match c {
                c if Some(c) == escape => Part::Char(rest.next().unwrap_or(c)),
                '%' => Part::Run,
                '_' => Part::One,
                '[' => match set(rest.as_str(), escape) {
                    Some((part, length)) => {
                        rest = rest.as_str()[length..].chars();
                        part
                    }
                    None => Part::Char('['),
                },
                c => Part::Char(c),
            };
            if !(part == Part::Run && parts.last() == Some(&Part::Run)) {
                parts.push(part);
            }
        }
        Self { parts }
    }

    /// Whether the whole text fits. Takes at most |text| × |pattern| steps: only the last run is
    /// ever tried again.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if let Some(Part::Run) = self.parts.get(at) {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            match (rest.next(), self.parts.get(at)) {
                (None, None) => return true,
                (Some(c), Some(part)) if part.accepts(c) => at += 1,
                (None, Some(_)) => return false,
                (Some(_), _) => {
                    let Some((after_run, from)) = retry.as_mut() else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    at = *after_run;
                    rest = from.clone();
                }
            }
        }
    }

    /// The only text that fits, for a pattern without wildcards.
    pub(super) fn exact(&self) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Char(c) => Some(*c),
                _ => None,
            })
            .collect()
    }
}

/// Reads a set behind its `[`: the part and the bytes it took, or nothing when it is not closed.
fn set(text: &str, escape: Option<char>) -> Option<(Part, usize)> {
    let mut rest = text.chars();
    let negated = text.starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = match rest.next()? {
            ']' if !ranges.is_empty() => break,
            c if Some(c) == escape => rest.next()?,
            c => c,
        };
        let mut ahead = rest.clone();
        let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|high| high != ']');
        let high = match is_range {
            true => {
                rest.next();
                match rest.next()? {
                    c if Some(c) == escape => rest.next()?,
                    c => c,
                }
            }
            false => low,
        };
        ranges.push((low, high));
    }
    let length = text.len() - rest.as_str().len();
    Some((Part::Set { ranges, negated }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, escape, text, expected) in [
            ("%fruit%", None, "a fruit salad", true),
            ("fruit%", None, "a fruit", false),
            ("_est", None, "test", true),
            ("_est", None, "est", false),
            ("", None, "", true),
            ("%", None, "", true),
            ("%%a%%", None, "bab", true),
            ("a%b%c", None, "a-b-b-c", true),
            ("a%b%c", None, "a-c-b", false),
            ("[a-c]x", None, "bx", true),
            ("[^a-c]x", None, "bx", false),
            ("[^a-c]x", None, "zx", true),
            ("[]]", None, "]", true),
            ("[a-]", None, "-", true),
            ("[ab", None, "[ab", true),
            ("20!%", Some('!'), "20%", true),
            ("20!%", Some('!'), "200", false),
            ("a!", Some('!'), "a!", true),
            ("_", None, "é", true),
            ("_", None, "🚀", true),
        ] {
            assert_eq!(
                Like::new(pattern, escape).matches(text),
                expected,
                "{text} LIKE {pattern}"
            );
        }
    }

    #[test]
    fn many_runs_stay_cheap() {
        let pattern = "%a".repeat(2_000) + "b";
        assert!(!Like::new(&pattern, None).matches(&"a".repeat(20_000)));
    }

    #[test]
    fn a_pattern_without_wildcards_is_a_text() {
        assert_eq!(Like::new("a!%", Some('!')).exact().as_deref(), Some("a%"));
        assert_eq!(Like::new("a%", None).exact(), None);
    }
}
