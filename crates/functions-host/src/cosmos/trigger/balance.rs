//! Which leases an instance should take now.
//!
//! Instances that share a prefix share its leases evenly without talking to each other: each one
//! reads all leases, counts the live owners, and takes what it lacks. The rules are those of
//! `Azure/azure-cosmos-dotnet-v3: .../ChangeFeedProcessor/LeaseManagement/EqualPartitionsBalancingStrategy.cs`.
//!
//! This module decides. It does not read, write or wait; the listener does that.

use std::collections::BTreeMap;

/// What the decision needs to know about one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseView<'a> {
    /// Document id.
    pub(crate) id: &'a str,
    /// Current owner, if any.
    pub(crate) owner: Option<&'a str>,
    /// Whether the owner has been silent for too long.
    pub(crate) expired: bool,
    /// Whether this process is reading the lease right now.
    pub(crate) held: bool,
}

/// The ids of the leases that `me` should take now, in the order of `leases`.
///
/// * A lease that names `me` as owner but is not held is always taken: it is left over from an
///   earlier life under the same name, or its reader ended.
/// * Free and expired leases are taken up to an even share (rounded up) among the live owners.
/// * With none of those left and the share not reached, one lease is taken from the owner with the
///   most, provided that owner has at least two more than `me`. One per round, and every one evens
///   the two out, so shares settle instead of swinging.
pub(crate) fn leases_to_take<'a>(me: &str, leases: &[LeaseView<'a>]) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::from([(me, 0)]);
    let mut mine = Vec::new();
    let mut available = Vec::new();
    for lease in leases {
        match lease.owner {
            _ if lease.held => *counts.entry(me).or_default() += 1,
            Some(owner) if owner == me => {
                *counts.entry(me).or_default() += 1;
                mine.push(lease.id);
            }
            Some(owner) if !lease.expired => *counts.entry(owner).or_default() += 1,
            _ => available.push(lease.id),
        }
    }

    let share = leases.len().div_ceil(counts.len()).max(1);
    let lacking = share.saturating_sub(counts[me]);
    let mut take = mine;
    if lacking == 0 {
        return take;
    }
    if !available.is_empty() {
        take.extend(available.into_iter().take(lacking));
        return take;
    }
    let richest = counts
        .iter()
        .filter(|(owner, count)| **owner != me && **count >= counts[me] + 2)
        .max_by_key(|(_, count)| **count);
    if let Some((richest, _)) = richest {
        take.extend(
            leases
                .iter()
                .find(|lease| !lease.held && lease.owner == Some(richest))
                .map(|lease| lease.id),
        );
    }
    take
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// One lease per letter: `-` free, `a` owned by `a`, `A` the same but expired,
    /// `m` named after me and not held, `M` held by me.
    fn take(state: &str) -> String {
        let ids: Vec<String> = (0..state.len()).map(|i| i.to_string()).collect();
        let owners: Vec<String> = state
            .chars()
            .map(|c| c.to_lowercase().to_string())
            .collect();
        let views: Vec<LeaseView<'_>> = state
            .chars()
            .enumerate()
            .map(|(i, c)| LeaseView {
                id: &ids[i],
                owner: match c {
                    '-' => None,
                    _ => Some(&owners[i]),
                },
                expired: c.is_uppercase() && c != 'M',
                held: c == 'M',
            })
            .collect();
        leases_to_take("m", &views).join(" ")
    }

    #[test]
    fn decisions() {
        for (state, expected) in [
            // alone: everything
            ("", ""),
            ("----", "0 1 2 3"),
            ("MM--", "2 3"),
            ("MMMM", ""),
            // leftovers under my own name come back at once
            ("mm", "0 1"),
            ("m-aa", "0 1"),
            // a share beside others, rounded up
            ("aa--", "2 3"),
            ("aaa-", "3"),
            ("a---", "1 2"),
            ("M-aa", "1"),
            ("MMaa", ""),
            // expired leases are free leases, and their owners do not count as alive
            ("AA", "0 1"),
            ("Aaaa", "0"),
            // steal one from whoever has more than an even share
            ("aaaa", "0"),
            ("Maaa", "1"),
            ("aabbb", "2"),
            ("aab", "0"),
            ("aabb", "2"),
            ("Maabb", ""),
            // never steal what would only move the imbalance
            ("a", ""),
            ("ab", ""),
            ("Maa", ""),
        ] {
            assert_eq!(take(state), expected, "state {state:?}");
        }
    }

    proptest! {
        /// From any state, instances that act in turn soon differ by at most one lease.
        #[test]
        fn instances_settle_on_even_shares(leases in 1usize..24, instances in 1usize..6, seed in any::<u64>()) {
            let names: Vec<String> = (0..instances).map(|i| format!("i{i}")).collect();
            let ids: Vec<String> = (0..leases).map(|i| i.to_string()).collect();
            let mut owners: Vec<Option<usize>> = (0..leases)
                .map(|i| {
                    let n = (seed.rotate_left(i as u32 * 7) % (instances as u64 + 1)) as usize;
                    (n < instances).then_some(n)
                })
                .collect();
            for _ in 0..leases * instances + 1 {
                for me in 0..instances {
                    let views: Vec<LeaseView<'_>> = owners
                        .iter()
                        .enumerate()
                        .map(|(i, owner)| LeaseView {
                            id: &ids[i],
                            owner: owner.map(|o| names[o].as_str()),
                            expired: false,
                            held: *owner == Some(me),
                        })
                        .collect();
                    let taken: Vec<usize> = leases_to_take(&names[me], &views)
                        .into_iter()
                        .map(|id| id.parse().unwrap())
                        .collect();
                    for i in taken {
                        owners[i] = Some(me);
                    }
                }
            }
            let mut counts: BTreeMap<usize, usize> = (0..instances).map(|i| (i, 0)).collect();
            for owner in owners {
                *counts.get_mut(&owner.unwrap()).unwrap() += 1;
            }
            let most = counts.values().max().unwrap();
            prop_assert!(*most <= leases.div_ceil(instances), "{counts:?}");
        }
    }
}
