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
            .then(self.stamp.cmp(&other.stamp))
            .then(self.origin.cmp(&other.origin))
            .then(self.number.cmp(&other.number))
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

/// Adds a record to the siblings of its item. Returns those that are none any more, or the record where it is none.
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
    siblings
        .iter()
        .max_by(|a, b| a.as_ref().precedence(b.as_ref()))
}

/// Whether nothing but a delete is left of an item, which may be forgotten when that is so of all mutations up to `known`:
/// see [`crate::tombstones`]. Where conflicts are kept for their users, versions that have lost are left of it too.
pub(crate) fn is_forgettable<R: AsRef<Record>>(
    siblings: &[R],
    known: &[u64],
    keeps_conflicts: bool,
) -> bool {
    let Some(winner) = winner(siblings).map(AsRef::as_ref) else {
        return false;
    };
    let mut records = siblings.iter().map(AsRef::as_ref);
    winner.body.is_none()
        && (!keeps_conflicts || records.clone().all(|record| record.etag == winner.etag))
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

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A region accepts a write, or a delete.
        Accept { region: usize, rank: u8, put: bool },
        /// A link carries the next record of its source.
        Carry { from: usize, to: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let accept = (0usize..3, 0u8..3, any::<bool>())
            .prop_map(|(region, rank, put)| Step::Accept { region, rank, put });
        let carry = (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Carry { from, to });
        prop::collection::vec(prop_oneof![accept, carry], 1..40)
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

    proptest! {
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
                    Step::Carry { from, to } => {
                        carry(&mut regions, from, to);
                    }
                }
            }
            for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                while carry(&mut regions, from, to) {}
            }
            let shown = regions.each_ref().map(|region| winner(&region.siblings).map(|record| record.etag.clone()));
            prop_assert_eq!(&shown[0], &shown[1]);
            prop_assert_eq!(&shown[0], &shown[2]);
        }
    }
}
