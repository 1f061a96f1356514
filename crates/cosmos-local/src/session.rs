//! Session tokens: `{range}:{version}#{applied}#{region}={seen}…`, with every region of the account.
//!
//! The version is that of the account's membership: clients that merge tokens take the higher one, and those of the same
//! version have to name the same regions.

use crate::{membership::Membership, ranges::Range, replica::State};

/// The token of what a region has applied.
pub(crate) fn token(state: &State, range: &Range, membership: &Membership) -> String {
    let mut token = format!("{}:{}#{}", range.id, membership.version(), state.applied);
    for (region, _) in membership.members() {
        token += &format!("#{}={}", region + 1, state.seen_of(region));
    }
    token
}

/// Whether a region has applied everything that a client's token names for some ranges, or for those they were made of.
/// Entries of other ranges do not count, nor do regions that have left: before they left, all others got what they had.
/// Text that is not a token is an error for the client.
pub(crate) fn is_satisfied(
    token: &str,
    state: &State,
    serving: &[&Range],
    membership: &Membership,
) -> Result<bool, String> {
    for entry in token
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let invalid = || format!("the session token {entry:?} is not valid");
        let (range, rest) = entry.split_once(':').ok_or_else(invalid)?;
        let is_serving = |id: u32| {
            let mut serving = serving.iter();
            serving.any(|range| range.id == id || range.parents.contains(&id))
        };
        if !range.parse().is_ok_and(is_serving) {
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
        if version > membership.version().cast_signed() {
            return Ok(false);
        }
        let mut regional = false;
        for part in parts {
            regional = true;
            let (region, needed) = part.split_once('=').ok_or_else(invalid)?;
            let region: usize = region.parse().map_err(|_| invalid())?;
            let needed: i64 = needed.parse().map_err(|_| invalid())?;
            let member = region
                .checked_sub(1)
                .filter(|index| membership.is_member(*index));
            if member.is_some_and(|index| state.seen_of(index).cast_signed() < needed) {
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
        let mut membership = Membership::new(["West US", "North Europe"]).expect("two names");
        let mut state = State::empty(2);
        let range = Range {
            id: 0,
            start: String::new(),
            end: "FF".into(),
            parents: vec![5],
        };
        (state.applied, state.seen) = (57, vec![40, 17]);
        assert_eq!(token(&state, &range, &membership), "0:1#57#1=40#2=17");
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
            let satisfied = is_satisfied(text, &state, &[&range], &membership);
            assert_eq!(satisfied, expected, "{text}");
        }
        assert!(is_satisfied("nonsense", &state, &[&range], &membership).is_err());
        let other = Range {
            id: 7,
            ..range.clone()
        };
        let both = [&range, &other];
        let satisfied = |text| is_satisfied(text, &state, &both, &membership);
        assert_eq!(satisfied("0:1#1#1=1,7:1#1#1=1"), Ok(true));
        assert_eq!(satisfied("0:1#1#1=1,7:1#999#1=999"), Ok(false));
        assert_eq!(satisfied("0:1#999#1=999,7:1#1#1=1"), Ok(false));
        membership.join("Southeast Asia").expect("a new name");
        membership.leave(1, 57);
        assert_eq!(token(&state, &range, &membership), "0:3#57#1=40#3=0");
        for (text, expected) in [
            ("0:1#1#1=40#2=99", Ok(true)),
            ("0:3#1#1=40#3=1", Ok(false)),
            ("0:4#1#1=1#3=0", Ok(false)),
        ] {
            let satisfied = is_satisfied(text, &state, &[&range], &membership);
            assert_eq!(satisfied, expected, "{text}");
        }
    }
}
