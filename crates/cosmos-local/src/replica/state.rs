//! What a region holds: items, the order in which changes were applied here, and the log that other regions read from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    record::{ItemKey, Record, STAMP_COUNTER_BITS, merge, winner},
    ttl::Lifetimes,
};

/// An item and its place in the feed.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    siblings: Vec<Arc<Record>>,
    /// Where its visible state last changed.
    pub(crate) position: u64,
    /// What this region had seen, from each, after that change.
    pub(crate) seen: Arc<[u64]>,
    /// Origin and number of the record that made that change.
    pub(crate) cause: (usize, u64),
    /// When that change was applied here, in seconds since 1970.
    pub(crate) applied_at: i64,
}

impl Item {
    pub(crate) fn from_disk(
        siblings: Vec<Arc<Record>>,
        position: u64,
        seen: Arc<[u64]>,
        cause: (usize, u64),
        applied_at: i64,
    ) -> Self {
        Self {
            siblings,
            position,
            seen,
            cause,
            applied_at,
        }
    }

    pub(crate) fn siblings(&self) -> &[Arc<Record>] {
        &self.siblings
    }

    /// The record that has won, a delete or not.
    pub(crate) fn winner(&self) -> Option<&Arc<Record>> {
        winner(&self.siblings)
    }

    /// Records that nobody has replaced, and that have lost against the winner; in an order that does not depend on which
    /// came first.
    pub(crate) fn losers(&self) -> Vec<&Arc<Record>> {
        let name = |record: &Arc<Record>| (record.origin, record.number);
        let winner = self.winner().map(name);
        let mut losers: Vec<&Arc<Record>> = self
            .siblings
            .iter()
            .filter(|record| Some(name(record)) != winner)
            .collect();
        losers.sort_unstable_by_key(|record| name(record));
        losers
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

/// The items of one container, and their order of change.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) items: BTreeMap<ItemKey, Item>,
    pub(crate) feed: BTreeMap<u64, ItemKey>,
    /// Who has a value that must be unique: by partition key value and that value, ids.
    unique: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Table {
    /// Adds an item that was stored earlier.
    pub(crate) fn restore(&mut self, key: ItemKey, item: Item) {
        if let Some(current) = item.current().cloned() {
            self.feed.insert(item.position, key.clone());
            self.claim(&key, &current);
        }
        self.items.insert(key, item);
    }

    /// Ids of the items that have this unique value.
    pub(super) fn holders(&self, partition: &str, value: &str) -> impl Iterator<Item = &String> {
        self.unique
            .get(&(partition.to_owned(), value.to_owned()))
            .into_iter()
            .flatten()
    }

    fn claim(&mut self, key: &ItemKey, record: &Record) {
        for value in &record.unique {
            self.unique
                .entry((key.partition.value.clone(), value.clone()))
                .or_default()
                .insert(key.id.clone());
        }
    }

    fn release(&mut self, key: &ItemKey, record: &Record) {
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
    /// Containers that were deleted; mutations of theirs that are still on their way only count.
    dropped: HashSet<u32>,
}

/// What a mutation has touched, for the disk.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) items: Vec<(u32, ItemKey)>,
    pub(crate) logged: Vec<u64>,
    pub(crate) trimmed: Vec<u64>,
    pub(crate) dropped: Vec<u32>,
}

impl State {
    pub(crate) fn empty(regions: usize) -> Self {
        Self {
            seen: vec![0; regions],
            applied: 0,
            tables: HashMap::new(),
            log: BTreeMap::new(),
            stamp: 0,
            dropped: HashSet::new(),
        }
    }

    pub(super) fn next_stamp(&mut self) -> u64 {
        let now = (now_ms() << STAMP_COUNTER_BITS).max(self.stamp + 1);
        self.stamp = now;
        now
    }

    pub(crate) fn item(&self, container: u32, key: &ItemKey) -> Option<&Item> {
        self.tables.get(&container)?.items.get(key)
    }

    /// Applies a mutation, once: one that was applied before changes nothing.
    pub(crate) fn apply(&mut self, record: Arc<Record>, touched: &mut Touched) {
        let seen = self.seen[record.origin];
        if record.number <= seen {
            return;
        }
        assert_eq!(
            record.number,
            seen + 1,
            "a link delivers the mutations of its origin in order"
        );
        self.seen[record.origin] = record.number;
        self.applied += 1;
        self.stamp = self.stamp.max(record.stamp);
        if self.dropped.contains(&record.container) {
            return;
        }
        let key = record.key.clone();
        let container = record.container;
        let table = self.tables.entry(container).or_default();
        let cause = (record.origin, record.number);
        let item = table.items.entry(key.clone()).or_insert_with(|| Item {
            siblings: Vec::new(),
            position: 0,
            seen: Arc::from([]),
            cause,
            applied_at: 0,
        });
        let before = winner(&item.siblings).cloned();
        merge(&mut item.siblings, record);
        let after = winner(&item.siblings).cloned();
        if after.as_ref().map(|record| &record.etag) != before.as_ref().map(|record| &record.etag) {
            table.feed.remove(&item.position);
            item.position = self.applied;
            item.seen = Arc::from(self.seen.as_slice());
            item.cause = cause;
            item.applied_at = now_s();
            if let Some(before) = &before {
                table.release(&key, before);
            }
            if let Some(after) = after.filter(|record| record.body.is_some()) {
                table.feed.insert(self.applied, key.clone());
                table.claim(&key, &after);
            }
        }
        touched.items.push((container, key));
    }

    pub(super) fn trim(&mut self, up_to: u64, touched: &mut Touched) {
        while let Some(entry) = self.log.first_entry()
            && *entry.key() <= up_to
        {
            touched.trimmed.push(*entry.key());
            entry.remove();
        }
    }

    pub(super) fn forget(&mut self, container: u32, touched: &mut Touched) {
        self.dropped.insert(container);
        self.tables.remove(&container);
        touched.dropped.push(container);
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
