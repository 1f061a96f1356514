//! What a region holds: items, the order in which changes were applied here, and the log that other regions read from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    orders::{Ordered, Orders},
    staging::Delta,
};
use crate::{
    query::{Place, SortOrder, SortPaths},
    record::{ItemKey, Record, is_forgettable, losers, merge, winner},
    scope::Scope,
    ttl::Lifetimes,
    vector,
};

/// An item and its place in the feed.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its number on disk: the position at which it became known here. So rows are written mostly in their order.
    pub(crate) row: u64,
    siblings: Vec<Arc<Record>>,
    /// Where its visible state last changed.
    pub(crate) position: u64,
    /// What this region had seen, from each, after that change.
    pub(crate) seen: Arc<[u64]>,
    /// Per region, the number of its last mutation of this item that was applied here, whether it won or lost.
    pub(crate) heard: Vec<u64>,
    /// When that change was applied here, in seconds since 1970.
    pub(crate) applied_at: i64,
}

impl Item {
    /// An item of which nothing is known yet.
    pub(super) fn new(row: u64) -> Self {
        Self::from_disk(row, Vec::new(), 0, Arc::from([]), Vec::new(), 0)
    }

    /// The item with its place in a feed whose positions are so much greater.
    fn shifted(&self, by: u64) -> Self {
        let mut item = self.clone();
        item.position += by;
        item.row += by;
        item
    }

    /// Adds a record; when that changes what everybody sees, the item moves to a position in the feed. Returns the records
    /// that are none of the item's any more.
    pub(super) fn add(
        &mut self,
        record: Arc<Record>,
        position: u64,
        seen: &[u64],
    ) -> Vec<Arc<Record>> {
        vector::set(&mut self.heard, record.origin, record.number);
        let before = self.winner().map(|record| record.etag.clone());
        let replaced = merge(&mut self.siblings, record);
        if self.winner().map(|record| &record.etag) != before.as_ref() {
            self.position = position;
            self.seen = Arc::from(seen);
            self.applied_at = now_s();
        }
        replaced
    }

    pub(crate) fn from_disk(
        row: u64,
        siblings: Vec<Arc<Record>>,
        position: u64,
        seen: Arc<[u64]>,
        heard: Vec<u64>,
        applied_at: i64,
    ) -> Self {
        Self {
            row,
            siblings,
            position,
            seen,
            heard,
            applied_at,
        }
    }

    pub(crate) fn siblings(&self) -> &[Arc<Record>] {
        &self.siblings
    }

    /// What has just become visible, after a version that became visible at `previous`; `None` when there was nothing to
    /// see, and is not now.
    pub(super) fn version(&self, previous: Option<u64>) -> Option<Version> {
        let record = self.winner()?;
        (previous.is_some() || record.body.is_some()).then(|| Version {
            record: Arc::clone(record),
            previous,
            applied_at: self.applied_at,
        })
    }

    pub(super) fn is_forgettable(&self, known: &[u64], keeps_conflicts: bool) -> bool {
        is_forgettable(&self.siblings, known, keeps_conflicts)
    }

    /// The record that has won, a delete or not.
    pub(crate) fn winner(&self) -> Option<&Arc<Record>> {
        winner(&self.siblings)
    }

    /// Records that nobody has replaced, and that have lost against the winner.
    pub(crate) fn losers(&self) -> Vec<&Arc<Record>> {
        losers(&self.siblings)
    }

    /// The version that stands; `None` when that is a delete.
    pub(crate) fn current(&self) -> Option<&Arc<Record>> {
        self.winner().filter(|record| record.body.is_some())
    }

    /// The version everybody sees: the one that stands, as long as it lives.
    pub(crate) fn visible(&self, lifetimes: Lifetimes) -> Option<&Arc<Record>> {
        self.current().filter(|record| !lifetimes.is_over(record))
    }
}

/// Versions of a container that are kept for those who read all of them; older ones are forgotten.
const MAX_HISTORY: usize = 10_000;

/// Bytes of their texts, at the most: items can be large, and a version may be all that holds on to its text.
const MAX_HISTORY_BYTES: usize = 64 * 1024 * 1024;

/// A version that became visible, or a delete.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) record: Arc<Record>,
    /// Where the version before it became visible, if there was one.
    pub(crate) previous: Option<u64>,
    /// Seconds since 1970.
    pub(crate) applied_at: i64,
}

impl Version {
    fn bytes(&self) -> usize {
        self.record.body.as_ref().map_or(0, String::len)
    }
}

/// The items of one container, and their order of change.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) items: BTreeMap<ItemKey, Item>,
    pub(crate) feed: BTreeMap<u64, ItemKey>,
    /// Items that were deleted.
    tombstones: BTreeSet<ItemKey>,
    /// Who has a value that must be unique: by partition key value and that value, ids.
    unique: BTreeMap<(Arc<str>, String), BTreeSet<Arc<str>>>,
    /// Readers make these, which hold on to the state to read it.
    orders: Mutex<Orders>,
    /// What became visible at each position.
    history: BTreeMap<u64, Version>,
    /// Of the texts in it.
    history_bytes: usize,
    /// The last position of which the history was forgotten since the region started.
    history_start: u64,
}

impl Table {
    pub(crate) fn history(&self) -> &BTreeMap<u64, Version> {
        &self.history
    }

    fn remember(&mut self, position: u64, version: Version) {
        self.history_bytes += version.bytes();
        self.history.insert(position, version);
        while (self.history.len() > MAX_HISTORY || self.history_bytes > MAX_HISTORY_BYTES)
            && let Some((position, oldest)) = self.history.pop_first()
        {
            self.history_bytes -= oldest.bytes();
            self.history_start = position;
        }
    }

    /// Adds an item, or what has become of it.
    pub(crate) fn put(&mut self, key: ItemKey, item: Item) {
        let (shown, position) = (item.current().cloned(), item.position);
        let old = self.items.insert(key.clone(), item);
        self.reorder(&key, old.as_ref(), shown.as_ref());
        if let Some(old) = old {
            self.forget(&key, &old);
        }
        match shown {
            Some(record) => {
                self.claim(&record);
                self.feed.insert(position, record.key.clone());
            }
            None => {
                self.tombstones.insert(key);
            }
        }
    }

    /// Knows no more of an item.
    fn remove(&mut self, key: &ItemKey) {
        if let Some(old) = self.items.remove(key) {
            self.reorder(key, Some(&old), None);
            self.forget(key, &old);
        }
    }

    fn reorder(&mut self, key: &ItemKey, old: Option<&Item>, shown: Option<&Arc<Record>>) {
        let old = old.and_then(Item::current);
        self.orders_mut().change(key, old, shown);
    }

    pub(super) fn orders_mut(&mut self) -> &mut Orders {
        let orders = self.orders.get_mut();
        orders.unwrap_or_else(PoisonError::into_inner)
    }

    /// So many items of a scope at the most, in an order, behind a place; they may have expired.
    pub(crate) fn ordered(
        &self,
        scope: &Scope,
        order: &SortOrder,
        behind: Option<&Place>,
        most: usize,
    ) -> Ordered {
        let orders = self.orders.lock();
        let mut orders = orders.unwrap_or_else(PoisonError::into_inner);
        orders.read(self, scope, order, behind, most)
    }

    /// Whether the items of a scope are in such an order already.
    pub(crate) fn has_order(&self, scope: &Scope, paths: &SortPaths) -> bool {
        let orders = self.orders.lock();
        let orders = orders.unwrap_or_else(PoisonError::into_inner);
        orders.is_made(scope, paths)
    }

    /// Takes what is not there any more out of the indexes.
    fn forget(&mut self, key: &ItemKey, old: &Item) {
        match old.current() {
            Some(record) => {
                self.feed.remove(&old.position);
                self.release(record);
            }
            None => {
                self.tombstones.remove(key);
            }
        }
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Ids of the items that have this unique value.
    pub(super) fn holders(&self, partition: &str, value: &str) -> impl Iterator<Item = &Arc<str>> {
        self.unique
            .get(&(partition.into(), value.to_owned()))
            .into_iter()
            .flatten()
    }

    fn claim(&mut self, record: &Record) {
        let key = &record.key;
        for value in &record.unique {
            self.unique
                .entry((key.partition.value.clone(), value.clone()))
                .or_default()
                .insert(key.id.clone());
        }
    }

    fn release(&mut self, record: &Record) {
        let key = &record.key;
        for value in &record.unique {
            let entry = (key.partition.value.clone(), value.clone());
            if let Some(ids) = self.unique.get_mut(&entry) {
                ids.remove(&key.id);
                if ids.is_empty() {
                    self.unique.remove(&entry);
                }
            }
        }
    }
}

/// Deleted items that can be forgotten.
#[derive(Debug)]
pub(crate) struct Tombstones {
    /// Per region, up to which of its mutations a delete can be.
    pub(super) known: Vec<u64>,
    /// Containers, items in them, and whether the container keeps conflicts.
    pub(super) items: Vec<(u32, ItemKey, bool)>,
}

/// Everything a region has.
#[derive(Debug)]
pub(crate) struct State {
    /// Mutations applied here, by the region that accepted them.
    pub(crate) seen: Vec<u64>,
    /// All mutations applied here.
    pub(crate) applied: u64,
    pub(crate) tables: HashMap<u32, Table>,
    /// Own mutations that other regions may still need, by number.
    pub(crate) log: BTreeMap<u64, Arc<Record>>,
    pub(crate) stamp: u64,
    /// Whether the region accepts nothing any more, because it is being removed or has handed over the writes.
    pub(super) is_sealed: bool,
    /// Containers that were deleted; mutations of theirs that are still on their way only count.
    dropped: HashSet<u32>,
    /// The position at which this copy was read from disk or from another region: what became visible before is not known.
    pub(super) start: u64,
}

impl State {
    pub(crate) fn empty(regions: usize) -> Self {
        Self {
            seen: vec![0; regions],
            applied: 0,
            tables: HashMap::new(),
            log: BTreeMap::new(),
            stamp: 0,
            is_sealed: false,
            dropped: HashSet::new(),
            start: 0,
        }
    }

    /// What was read from a data folder is all there is to know.
    pub(crate) fn start(&mut self) {
        self.start = self.applied;
    }

    /// The position after which the history of a container is complete.
    pub(crate) fn history_start(&self, container: u32) -> u64 {
        let table = self.tables.get(&container);
        table.map_or(self.start, |table| table.history_start.max(self.start))
    }

    /// How many mutations of a region were applied here.
    pub(crate) fn seen_of(&self, region: usize) -> u64 {
        vector::at(&self.seen, region)
    }

    /// A copy for another region, which has accepted nothing that this one has not seen. Its feed is in this one's order,
    /// at positions that are so much greater.
    pub(super) fn copy(&self, shift: u64) -> Self {
        let copy = |table: &Table| {
            let mut copy = Table::default();
            for (key, item) in &table.items {
                copy.put(key.clone(), item.shifted(shift));
            }
            copy
        };
        let tables = self.tables.iter();
        Self {
            seen: self.seen.clone(),
            applied: self.applied + shift,
            tables: tables
                .map(|(container, table)| (*container, copy(table)))
                .collect(),
            log: BTreeMap::new(),
            stamp: self.stamp,
            is_sealed: false,
            dropped: self.dropped.clone(),
            start: self.applied + shift,
        }
    }

    pub(crate) fn item(&self, container: u32, key: &ItemKey) -> Option<&Item> {
        self.tables.get(&container)?.items.get(key)
    }

    /// So many items of containers, at the most, that were deleted and can be forgotten; containers come with whether they
    /// keep conflicts. `None` when there are none.
    pub(crate) fn forgettable(
        &self,
        containers: &[(u32, bool)],
        known: &[u64],
        most: usize,
    ) -> Option<Tombstones> {
        let mut items = Vec::new();
        for (container, keeps_conflicts) in containers {
            let Some(table) = self.tables.get(container) else {
                continue;
            };
            let is_forgettable = |key: &&ItemKey| {
                let item = table.items.get(key);
                item.is_some_and(|item| item.is_forgettable(known, *keeps_conflicts))
            };
            let found = table.tombstones.iter().filter(is_forgettable);
            let found = found.map(|key| (*container, key.clone(), *keeps_conflicts));
            items.extend(found.take(most - items.len()));
        }
        let known = known.to_vec();
        (!items.is_empty()).then_some(Tombstones { known, items })
    }

    pub(crate) fn is_dropped(&self, container: u32) -> bool {
        self.dropped.contains(&container)
    }

    /// Makes changes visible, all at once.
    pub(super) fn publish(&mut self, delta: Delta) {
        self.seen = delta.seen;
        self.applied = delta.applied;
        self.stamp = delta.stamp;
        self.is_sealed = delta.is_sealed;
        for (container, items) in delta.items {
            let table = self.tables.entry(container).or_default();
            for (key, item) in items {
                match item {
                    Some(item) => table.put(key, item),
                    None => table.remove(&key),
                }
            }
        }
        for (container, position, version) in delta.history {
            let table = self.tables.entry(container).or_default();
            table.remember(position, version);
        }
        self.log = self.log.split_off(&(delta.trimmed + 1));
        for record in delta.logged {
            self.log.insert(record.number, record);
        }
        for container in delta.dropped {
            self.dropped.insert(container);
            self.tables.remove(&container);
        }
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn now_s() -> i64 {
    i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn regions_may_let_go_of_a_conflict_at_the_same_time() {
        let winner = record(1, 1, [0; 3], 2.0, false);
        let mut item = Item::new(1);
        item.add(record(0, 1, [0; 3], 1.0, true), 1, &[1, 0, 0]);
        item.add(Arc::clone(&winner), 2, &[1, 1, 0]);
        assert_eq!(item.losers().len(), 1);
        assert!(!item.is_forgettable(&[9; 3], true));
        for region in 0..2 {
            let mut dismissal = record(region, 2, [1, 1, 0], 2.0, false);
            Arc::make_mut(&mut dismissal).repeats = Some(Box::new(winner.mutation()));
            Arc::make_mut(&mut dismissal).etag = winner.etag.clone();
            item.add(dismissal, 3, &[2, 2, 0]);
            assert!(item.losers().is_empty());
        }
        assert_eq!((item.siblings().len(), item.position), (2, 2));
        assert!(item.is_forgettable(&[9; 3], true));
    }

    #[test]
    fn versions_are_kept_as_long_as_there_is_room_for_their_number_and_their_texts() {
        let version = |bytes: usize| {
            let mut record = record(0, 1, [0; 3], 0.0, true);
            Arc::make_mut(&mut record).body = Some("x".repeat(bytes));
            Version {
                record,
                previous: None,
                applied_at: 0,
            }
        };
        let (small, large) = (version(1), version(MAX_HISTORY_BYTES / 4));
        let mut table = Table::default();
        for position in 1..=4 {
            table.remember(position, large.clone());
        }
        assert_eq!((table.history.len(), table.history_start), (4, 0));
        table.remember(5, small.clone());
        assert_eq!((table.history.len(), table.history_start), (4, 1));
        let positions = 6..6 + MAX_HISTORY as u64;
        for position in positions {
            table.remember(position, small.clone());
        }
        assert_eq!((table.history.len(), table.history_start), (MAX_HISTORY, 5));
        assert_eq!(table.history_bytes, MAX_HISTORY);
    }
}
