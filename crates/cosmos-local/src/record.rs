//! Replicated mutations, and which of several versions of an item everybody sees.
//!
//! Every accepted mutation is an immutable [`Record`]: who accepted it, as the how-manieth, and how far that region had seen
//! the others when it did (its context). An item keeps its *siblings*: the records that no other record has seen. That set
//! depends only on which records have arrived, never on their order, so all regions show the same winner. Keeping just the
//! newer of two would not: with three regions, pairwise comparison can end differently in each.

use std::{cmp::Ordering, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{partition_key::PartitionKey, vector};

/// One accepted mutation of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Index of the region that accepted it.
    pub(crate) origin: usize,
    /// Its number among all that region has accepted; the first is 1.
    pub(crate) number: u64,
    /// Per region, how many of its mutations of this item this one replaces: see [`context`].
    pub(crate) context: Vec<u64>,
    /// Number of the container in the account.
    pub(crate) container: u32,
    pub(crate) key: ItemKey,
    /// The document with its system properties, as JSON text; `None` is a delete.
    pub(crate) body: Option<String>,
    pub(crate) etag: String,
    /// Ordinal of the item's resource id.
    pub(crate) ordinal: u64,
    /// Seconds since 1970, as in `_ts`.
    pub(crate) ts: i64,
    /// Hybrid clock: milliseconds since 1970 × 2^16, plus a counter. Orders writes within a second.
    pub(crate) stamp: u64,
    /// The number at the container's conflict resolution path, or `_ts` where there is none.
    pub(crate) rank: f64,
    /// The item's own time to live, in seconds.
    pub(crate) ttl: Option<i64>,
    /// A delete because the time to live was over.
    pub(crate) is_expiry: bool,
    /// How many mutations of the same batch follow; they are carried and applied together.
    pub(crate) followers: u64,
    /// Values that are unique under the partition key, as [`crate::document::unique_values`] has them.
    pub(crate) unique: Vec<String>,
    /// The mutation that this one says again, to let go of another that had lost against it.
    pub(crate) repeats: Option<Box<Mutation>>,
}

/// Which mutation, in the order of hybrid clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Mutation {
    pub(crate) stamp: u64,
    pub(crate) origin: usize,
    pub(crate) number: u64,
}

/// Which item: its partition key value, then its id. The texts are shared by the item, its versions and its places in feeds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ItemKey {
    pub(crate) partition: PartitionKey,
    pub(crate) id: Arc<str>,
}

impl Record {
    /// Whether the writer of this record had seen `other`.
    fn covers(&self, other: &Self) -> bool {
        vector::at(&self.context, other.origin) >= other.number
    }

    /// Deletes win over puts. That an item has expired is no reason to lose what somebody wrote meanwhile.
    fn kind(&self) -> u8 {
        match (&self.body, self.is_expiry) {
            (None, false) => 2,
            (Some(_), _) => 1,
            (None, true) => 0,
        }
    }

    /// The order of conflict resolution: by kind, then last writer wins.
    fn precedence(&self, other: &Self) -> Ordering {
        self.kind()
            .cmp(&other.kind())
            .then(self.rank.total_cmp(&other.rank))
            .then(self.mutation().cmp(&other.mutation()))
            .then(self.origin.cmp(&other.origin))
            .then(self.number.cmp(&other.number))
    }

    /// The mutation that it is, or says again.
    pub(crate) fn mutation(&self) -> Mutation {
        let own = Mutation {
            stamp: self.stamp,
            origin: self.origin,
            number: self.number,
        };
        self.repeats.as_deref().copied().unwrap_or(own)
    }

    /// Whether the writer of this record had seen what another one says.
    fn knows(&self, other: &Self) -> bool {
        let Mutation { origin, number, .. } = other.mutation();
        vector::at(&self.context, origin) >= number
    }

    /// When it was accepted, in milliseconds since 1970.
    pub(crate) fn accepted_ms(&self) -> u64 {
        self.stamp >> STAMP_COUNTER_BITS
    }
}

/// Low bits of a stamp that count mutations within a millisecond.
pub(crate) const STAMP_COUNTER_BITS: u32 = 16;

/// The context of a new record of an item.
///
/// Records of third regions may still be on their way here although a sibling has seen them; who replaces that sibling
/// replaces what it had replaced, so its context counts too.
pub(crate) fn context<R: AsRef<Record>>(seen: &[u64], siblings: &[R]) -> Vec<u64> {
    let mut context = seen.to_vec();
    for sibling in siblings {
        vector::raise(&mut context, &sibling.as_ref().context);
    }
    context
}

/// Adds a record to the siblings of its item. Returns those that are none any more, and the record where it is none.
pub(crate) fn merge<R: AsRef<Record>>(siblings: &mut Vec<R>, record: R) -> Vec<R> {
    let is_replaced = |sibling: &mut R| record.as_ref().covers(sibling.as_ref());
    let mut replaced: Vec<R> = siblings.extract_if(.., is_replaced).collect();
    let replaces = |sibling: &R| sibling.as_ref().covers(record.as_ref());
    match siblings.iter().any(replaces) {
        true => replaced.push(record),
        false => siblings.push(record),
    }
    replaced
}

/// The record that everybody sees.
pub(crate) fn winner<R: AsRef<Record>>(siblings: &[R]) -> Option<&R> {
    if let [only] = siblings {
        return Some(only);
    }
    let precedence = |a: &&R, b: &&R| a.as_ref().precedence(b.as_ref());
    let standing = siblings.iter().filter(|it| !is_outdated(*it, siblings));
    standing
        .max_by(precedence)
        .or_else(|| siblings.iter().max_by(precedence))
}

/// Whether a sibling only says again what another one was written in knowledge of. Whoever let go of a conflict did not mean
/// to undo what somebody else made of the item at the same time.
fn is_outdated<R: AsRef<Record>>(sibling: &R, siblings: &[R]) -> bool {
    let sibling = sibling.as_ref();
    let is_newer = |other: &Record| other.mutation() != sibling.mutation() && other.knows(sibling);
    sibling.repeats.is_some() && siblings.iter().any(|other| is_newer(other.as_ref()))
}

/// Siblings that have lost against the winner, and not because they are outdated or say what it says; in an order that does
/// not depend on which came first.
pub(crate) fn losers<R: AsRef<Record>>(siblings: &[R]) -> Vec<&R> {
    let said = |record: &R| record.as_ref().mutation();
    let winner = winner(siblings).map(said);
    let has_lost = |it: &&R| Some(said(it)) != winner && !is_outdated(*it, siblings);
    let mut losers: Vec<&R> = siblings.iter().filter(has_lost).collect();
    losers.sort_unstable_by_key(|record| (record.as_ref().origin, record.as_ref().number));
    losers
}

/// Why a version that has lost cannot be let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undismissed {
    /// It is not there, or has not lost.
    Missing,
    /// The same region has accepted another one before it, which has to go first: who knows of a mutation knows of those
    /// before it.
    Entangled,
}

/// A record that says again what the winner says, and replaces one of those that have lost, by its region and number, with
/// all that say the same; the others stay in conflict with it. Its context is this one, but for what would let go of the
/// others too.
pub(crate) fn dismissal<R: AsRef<Record>>(
    siblings: &[R],
    context: Vec<u64>,
    loser: (usize, u64),
) -> Result<Record, Undismissed> {
    let losers = losers(siblings);
    let mut records = losers.iter().map(|record| record.as_ref());
    let loser = records.find(|record| (record.origin, record.number) == loser);
    let (Some(loser), Some(winner)) = (loser, winner(siblings)) else {
        return Err(Undismissed::Missing);
    };
    let winner = winner.as_ref();
    let mut record = winner.clone();
    record.repeats = Some(Box::new(winner.mutation()));
    record.context = context;
    let others = losers.iter().map(|record| record.as_ref());
    // What the loser says was known to whoever wrote it, and has to be known to this one.
    for other in others.filter(|other| other.mutation() != loser.mutation()) {
        let said = other.mutation();
        for (origin, number) in [(other.origin, other.number), (said.origin, said.number)] {
            let known = vector::at(&record.context, origin).min(number - 1);
            vector::set(&mut record.context, origin, known);
        }
    }
    match record.covers(loser) {
        true => Ok(record),
        false => Err(Undismissed::Entangled),
    }
}

/// Whether nothing but a delete is left of an item, which may be forgotten when that is so of all mutations up to `known`:
/// see [`crate::tombstones`]. Where conflicts are kept for their users, versions that have lost are left of it too.
pub(crate) fn is_forgettable<R: AsRef<Record>>(
    siblings: &[R],
    known: &[u64],
    keeps_conflicts: bool,
) -> bool {
    let mut records = siblings.iter().map(AsRef::as_ref);
    winner(siblings).is_some_and(|winner| winner.as_ref().body.is_none())
        && (!keeps_conflicts || losers(siblings).is_empty())
        && records.all(|record| vector::at(known, record.origin) >= record.number)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn record(
        origin: usize,
        number: u64,
        context: [u64; 3],
        rank: f64,
        put: bool,
    ) -> Arc<Record> {
        Arc::new(Record {
            origin,
            number,
            context: context.to_vec(),
            container: 1,
            key: ItemKey {
                partition: PartitionKey::new("", "[]"),
                id: "x".into(),
            },
            body: put.then(String::new),
            etag: format!("{origin}-{number}"),
            ordinal: 1,
            ts: 0,
            stamp: 0,
            rank,
            ttl: None,
            is_expiry: false,
            followers: 0,
            unique: Vec::new(),
            repeats: None,
        })
    }

    fn seen(records: impl IntoIterator<Item = Arc<Record>>) -> String {
        let mut siblings = Vec::new();
        for record in records {
            merge(&mut siblings, record);
        }
        winner(&siblings).expect("at least one").etag.clone()
    }

    #[test]
    fn three_regions_agree_where_pairs_would_not() {
        // C was written after A was read, and with a smaller rank; B knows neither.
        let a = record(0, 1, [0, 0, 0], 3.0, true);
        let b = record(1, 1, [0, 0, 0], 2.0, true);
        let c = record(2, 1, [1, 0, 0], 1.0, true);
        for order in [
            [&a, &b, &c],
            [&b, &a, &c],
            [&c, &b, &a],
            [&c, &a, &b],
            [&a, &c, &b],
            [&b, &c, &a],
        ] {
            assert_eq!(seen(order.map(Arc::clone)), b.etag);
        }
    }

    #[test]
    fn a_delete_beats_a_concurrent_update_and_not_a_later_one() {
        let delete = record(0, 1, [0, 0, 0], 0.0, false);
        let update = record(1, 1, [0, 0, 0], 9.0, true);
        let again = record(2, 1, [1, 1, 0], 1.0, true);
        assert_eq!(seen([update.clone(), delete.clone()]), delete.etag);
        assert_eq!(seen([again.clone(), update, delete]), again.etag);
    }

    #[test]
    fn an_expiry_loses_against_whatever_was_written_meanwhile() {
        let mut expiry = record(0, 1, [0, 0, 0], 9.0, false);
        Arc::make_mut(&mut expiry).is_expiry = true;
        let update = record(1, 1, [0, 0, 0], 0.0, true);
        let delete = record(2, 1, [0, 0, 0], 0.0, false);
        assert_eq!(seen([expiry.clone(), update.clone()]), update.etag);
        assert_eq!(seen([update, expiry, delete.clone()]), delete.etag);
    }

    #[test]
    fn who_lets_go_of_a_conflict_undoes_nothing() {
        for puts in [[true, true], [false, true], [true, false]] {
            // One region lets go of the loser, while another writes the item in knowledge of both.
            let loser = record(0, 1, [0, 0, 0], 1.0, true);
            let winner = record(1, 1, [0, 0, 0], 2.0, puts[0]);
            let both = [loser, Arc::clone(&winner)];
            let mut let_go = dismissal(&both, vec![1, 1, 0], (0, 1)).expect("a loser");
            (let_go.origin, let_go.number, let_go.stamp) = (0, 2, 9);
            let let_go = Arc::new(let_go);
            let later = record(2, 1, [1, 1, 0], 2.0, puts[1]);
            for order in [[&let_go, &later], [&later, &let_go]] {
                let mut siblings = both.to_vec();
                for record in order {
                    merge(&mut siblings, Arc::clone(record));
                }
                assert_eq!(super::winner(&siblings), Some(&later), "{puts:?}");
                assert_eq!(losers(&siblings), Vec::<&Arc<Record>>::new());
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A region accepts a write, or a delete.
        Accept { region: usize, rank: u8, put: bool },
        /// A region lets go of one of the versions that have lost, if there are any.
        Dismiss { region: usize, which: usize },
        /// A link carries the next record of its source.
        Carry { from: usize, to: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let accept = (0usize..3, 0u8..3, any::<bool>())
            .prop_map(|(region, rank, put)| Step::Accept { region, rank, put });
        let dismiss =
            (0usize..3, 0usize..2).prop_map(|(region, which)| Step::Dismiss { region, which });
        let carry = (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Carry { from, to });
        prop::collection::vec(prop_oneof![2 => accept, 1 => dismiss, 3 => carry], 1..60)
    }

    #[derive(Default)]
    struct Region {
        seen: [u64; 3],
        siblings: Vec<Arc<Record>>,
        log: Vec<Arc<Record>>,
    }

    fn carry(regions: &mut [Region; 3], from: usize, to: usize) -> bool {
        let next = usize::try_from(regions[to].seen[from]).expect("few");
        let Some(record) = regions[from].log.get(next).cloned().filter(|_| from != to) else {
            return false;
        };
        regions[to].seen[from] += 1;
        merge(&mut regions[to].siblings, record);
        true
    }

    #[test]
    fn of_a_region_what_was_accepted_first_is_let_go_of_first() {
        let winner = record(0, 1, [0; 3], 9.0, true);
        let first = record(1, 1, [0; 3], 1.0, true);
        // The region has let go of something else, and not of what it had accepted before.
        let mut second = record(1, 2, [0, 0, 1], 2.0, true);
        Arc::make_mut(&mut second).repeats = Some(Box::new(Mutation {
            stamp: 0,
            origin: 2,
            number: 1,
        }));
        let mut siblings = vec![winner, first, second];
        let seen = || vec![1, 2, 1];
        let entangled = dismissal(&siblings, seen(), (1, 2));
        assert_eq!(entangled, Err(Undismissed::Entangled));
        for number in 1..=2 {
            assert_eq!(losers(&siblings).len(), 3 - number);
            let let_go = dismissal(&siblings, seen(), (1, number as u64));
            let mut let_go = let_go.expect("the first one");
            let_go.number = 1 + number as u64;
            merge(&mut siblings, Arc::new(let_go));
        }
        assert!(losers(&siblings).is_empty());
        let gone = dismissal(&siblings, seen(), (1, 2));
        assert_eq!(gone, Err(Undismissed::Missing));
    }

    /// Two regions let go of the same conflict, hear of each other and of a version that wins over both, and let go again.
    fn let_go_twice() -> Vec<Arc<Record>> {
        let let_go = |siblings: &[Arc<Record>], seen: [u64; 4], loser, (origin, number)| {
            let mut record = dismissal(siblings, seen.to_vec(), loser).expect("a loser");
            (record.origin, record.number) = (origin, number);
            Arc::new(record)
        };
        let first = record(0, 1, [0; 3], 1.0, true);
        let second = record(2, 1, [0; 3], 2.0, true);
        let third = record(3, 1, [0; 3], 3.0, true);
        let both = [Arc::clone(&first), Arc::clone(&second)];
        let one = let_go(&both, [1, 0, 1, 0], (0, 1), (0, 2));
        let other = let_go(&both, [1, 0, 1, 0], (0, 1), (1, 1));
        let all = [&one, &other, &third].map(Arc::clone);
        let again = let_go(&all, [2, 1, 1, 1], (0, 2), (0, 3));
        let too = let_go(&all, [2, 1, 1, 1], (1, 1), (1, 2));
        [first, second, third, one, other, again, too].into()
    }

    proptest! {
        #[test]
        fn what_was_let_go_of_twice_is_gone_whatever_comes_when(
            records in Just(let_go_twice()).prop_shuffle(),
        ) {
            let mut siblings = Vec::new();
            for record in records {
                merge(&mut siblings, record);
            }
            prop_assert_eq!(winner(&siblings).map(|it| it.rank), Some(3.0));
            prop_assert!(losers(&siblings).is_empty(), "{:?}", siblings);
        }

        /// Three regions write one item and hear of each other in any order: in the end all show the same.
        #[test]
        fn regions_converge_whatever_arrives_when(steps in steps()) {
            let mut regions: [Region; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Accept { region: index, rank, put } => {
                        let region = &mut regions[index];
                        let context = context(&region.seen, &region.siblings);
                        region.seen[index] += 1;
                        let context = context.try_into().expect("three regions");
                        let record = record(index, region.seen[index], context, f64::from(rank), put);
                        region.log.push(Arc::clone(&record));
                        merge(&mut region.siblings, record);
                        prop_assert_eq!(region.siblings.len(), 1, "a region's own write replaces all it knows");
                    }
                    Step::Dismiss { region: index, which } => {
                        let region = &mut regions[index];
                        let losers = losers(&region.siblings);
                        let Some(loser) = losers.get(which) else { continue };
                        let others = losers.iter().filter(|it| it.mutation() != loser.mutation());
                        let left = others.count();
                        let seen = context(&region.seen, &region.siblings);
                        let name = (loser.origin, loser.number);
                        let mut record = match dismissal(&region.siblings, seen, name) {
                            Ok(record) => record,
                            Err(why) => {
                                prop_assert_eq!(why, Undismissed::Entangled);
                                continue;
                            }
                        };
                        region.seen[index] += 1;
                        (record.origin, record.number) = (index, region.seen[index]);
                        let shown = winner(&region.siblings).map(|it| it.etag.clone());
                        let record = Arc::new(record);
                        region.log.push(Arc::clone(&record));
                        merge(&mut region.siblings, record);
                        prop_assert_eq!(winner(&region.siblings).map(|it| it.etag.clone()), shown);
                        prop_assert_eq!(super::losers(&region.siblings).len(), left);
                    }
                    Step::Carry { from, to } => {
                        carry(&mut regions, from, to);
                    }
                }
            }
            for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                while carry(&mut regions, from, to) {}
            }
            let etag = |record: &Arc<Record>| record.etag.clone();
            let shown = regions.each_ref().map(|region| {
                let losers = losers(&region.siblings).into_iter();
                (winner(&region.siblings).map(etag), losers.map(etag).collect::<Vec<_>>())
            });
            prop_assert_eq!(&shown[0], &shown[1]);
            prop_assert_eq!(&shown[0], &shown[2]);
        }
    }
}
