//! Session tokens: `{range}:{version}#{applied}#{region}={seen}…`, with every region of the account.

use crate::{ranges::Range, replica::State};

/// Membership of the account has not changed since it was created.
const VERSION: u64 = 1;

/// The token of what a region has applied.
pub(crate) fn token(state: &State, range: &Range) -> String {
    let mut token = format!("{}:{VERSION}#{}", range.id, state.applied);
    for (region, seen) in state.seen.iter().enumerate() {
        token += &format!("#{}={seen}", region + 1);
    }
    token
}

/// Whether a region has applied everything that a client's token names for a range, or for those it was split from.
/// Entries of other ranges do not count; text that is not a token is an error for the client.
pub(crate) fn is_satisfied(token: &str, state: &State, serving: &Range) -> Result<bool, String> {
    for entry in token
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let invalid = || format!("the session token {entry:?} is not valid");
        let (range, rest) = entry.split_once(':').ok_or_else(invalid)?;
        let is_serving = range
            .parse()
            .is_ok_and(|id: u32| id == serving.id || serving.parents.contains(&id));
        if !is_serving {
            continue;
        }
        let mut parts = rest.split('#');
        let version: i64 = parts
            .next()
            .and_then(|text| text.parse().ok())
            .ok_or_else(invalid)?;
        let Some(global) = parts.next() else {
            // An old client's token is a bare position.
            if state.applied < u64::try_from(version).unwrap_or_default() {
                return Ok(false);
            }
            continue;
        };
        let global: u64 = global.parse().map_err(|_| invalid())?;
        if version > VERSION.cast_signed() {
            return Ok(false);
        }
        let mut regional = false;
        for part in parts {
            regional = true;
            let (region, needed) = part.split_once('=').ok_or_else(invalid)?;
            let region: usize = region.parse().map_err(|_| invalid())?;
            let needed: i64 = needed.parse().map_err(|_| invalid())?;
            let seen = region
                .checked_sub(1)
                .and_then(|index| state.seen.get(index));
            if seen.is_some_and(|seen| seen.cast_signed() < needed) {
                return Ok(false);
            }
        }
        // With regional parts the global one is the maximum of several regions, and compares with none of them.
        if !regional && state.applied < global {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_serves_what_it_has_reached() {
        let mut state = State::empty(2);
        let range = Range {
            id: 0,
            start: String::new(),
            end: "FF".into(),
            parents: vec![5],
        };
        (state.applied, state.seen) = (57, vec![40, 17]);
        assert_eq!(token(&state, &range), "0:1#57#1=40#2=17");
        for (text, expected) in [
            ("0:1#57#1=40#2=17", Ok(true)),
            ("0:1#99#1=40#2=1", Ok(true)),
            ("0:1#1#1=41#2=0", Ok(false)),
            ("0:1#58", Ok(false)),
            ("7:1#999#1=999,0:1#1#1=1", Ok(true)),
            ("0:1#1#9=999", Ok(true)),
            ("0:2#1#1=1", Ok(false)),
            ("0:-1#57", Ok(true)),
            ("5:1#1#1=41", Ok(false)),
        ] {
            assert_eq!(is_satisfied(text, &state, &range), expected, "{text}");
        }
        assert!(is_satisfied("nonsense", &state, &range).is_err());
    }
}
