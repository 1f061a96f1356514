//! Changes on top of what a region shows, worked out before anybody can see them.

use std::{collections::BTreeMap, sync::Arc};

use super::state::{Item, State, Tombstones, Version, now_ms};
use crate::{
    record::{ItemKey, Record, STAMP_COUNTER_BITS},
    vector,
};

/// What is to change in a [`State`], all at once.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) seen: Vec<u64>,
    pub(crate) applied: u64,
    pub(crate) stamp: u64,
    pub(crate) is_sealed: bool,
    /// The items that were touched, as they become; `None` when nothing is known of one any more.
    pub(crate) items: BTreeMap<u32, BTreeMap<ItemKey, Option<Item>>>,
    /// Rows of items of which nothing is known any more, by container.
    pub(crate) forgotten: Vec<(u32, u64)>,
    /// What becomes visible, by container and position.
    pub(crate) history: Vec<(u32, u64, Version)>,
    /// Own mutations, in order.
    pub(crate) logged: Vec<Arc<Record>>,
    /// Records that are none of their items' any more, and may be in the log.
    pub(crate) displaced: Vec<Arc<Record>>,
    /// Of the documents that were written, at the least.
    pub(crate) bytes: usize,
    /// Own mutations up to this number are needed by nobody any more.
    pub(crate) trimmed: u64,
    /// Containers that were deleted.
    pub(crate) dropped: Vec<u32>,
}

/// A state with changes that are not published yet.
pub(super) struct Staged<'a> {
    pub(super) base: &'a State,
    pub(super) delta: Delta,
}

impl<'a> Staged<'a> {
    pub(super) fn new(base: &'a State) -> Self {
        Self {
            base,
            delta: Delta {
                seen: base.seen.clone(),
                applied: base.applied,
                stamp: base.stamp,
                is_sealed: base.is_sealed,
                items: BTreeMap::new(),
                forgotten: Vec::new(),
                history: Vec::new(),
                logged: Vec::new(),
                displaced: Vec::new(),
                bytes: 0,
                trimmed: 0,
                dropped: Vec::new(),
            },
        }
    }

    pub(super) fn item(&self, container: u32, key: &ItemKey) -> Option<&Item> {
        let staged = self.delta.items.get(&container);
        match staged.and_then(|items| items.get(key)) {
            Some(staged) => staged.as_ref(),
            None => self.base.item(container, key),
        }
    }

    pub(super) fn next_stamp(&mut self) -> u64 {
        let now = (now_ms() << STAMP_COUNTER_BITS).max(self.delta.stamp + 1);
        self.delta.stamp = now;
        now
    }

    /// Ids of items that may have this unique value: those that have it, and those that are about to change.
    pub(super) fn possible_holders(
        &self,
        container: u32,
        partition: &str,
        value: &str,
    ) -> impl Iterator<Item = &Arc<str>> {
        let table = self.base.tables.get(&container);
        let shown = table
            .into_iter()
            .flat_map(move |table| table.holders(partition, value));
        let staged = self.delta.items.get(&container).into_iter().flatten();
        shown.chain(staged.map(|(key, _)| &key.id))
    }

    /// Adds an own mutation. It is logged also where there is no other region, because one may join.
    pub(super) fn accept(&mut self, record: Arc<Record>) {
        self.delta.logged.push(Arc::clone(&record));
        self.apply(record);
    }

    /// Applies a mutation, once: one that was applied before changes nothing.
    pub(super) fn apply(&mut self, record: Arc<Record>) {
        let seen = vector::at(&self.delta.seen, record.origin);
        if record.number <= seen {
            return;
        }
        assert_eq!(
            record.number,
            seen + 1,
            "a link delivers the mutations of its origin in order"
        );
        let container = record.container;
        vector::set(&mut self.delta.seen, record.origin, record.number);
        self.delta.applied += 1;
        self.delta.stamp = self.delta.stamp.max(record.stamp);
        if self.base.is_dropped(container) || self.delta.dropped.contains(&container) {
            self.delta.displaced.push(record);
            return;
        }
        self.delta.bytes += record.body.as_ref().map_or(0, String::len);
        let key = record.key.clone();
        let mut item = self
            .item(container, &key)
            .cloned()
            .unwrap_or_else(|| Item::new(self.delta.applied));
        let before = (item.position, item.current().map(|_| item.position));
        let displaced = item.add(record, self.delta.applied, &self.delta.seen);
        self.delta.displaced.extend(displaced);
        if item.position != before.0
            && let Some(version) = item.version(before.1)
        {
            let entry = (container, item.position, version);
            self.delta.history.push(entry);
        }
        self.delta
            .items
            .entry(container)
            .or_default()
            .insert(key, Some(item));
    }

    /// Forgets items that were deleted, unless something has become of them since somebody looked.
    pub(super) fn collect(&mut self, tombstones: Tombstones) {
        for (container, key, keeps_conflicts) in tombstones.items {
            let item = self.item(container, &key);
            let is_forgettable =
                |item: &&Item| item.is_forgettable(&tombstones.known, keeps_conflicts);
            if let Some(item) = item.filter(is_forgettable).cloned() {
                self.delta.forgotten.push((container, item.row));
                self.delta.displaced.extend_from_slice(item.siblings());
                let items = self.delta.items.entry(container).or_default();
                items.insert(key, None);
            }
        }
    }

    pub(super) fn trim(&mut self, up_to: u64) {
        self.delta.trimmed = self.delta.trimmed.max(up_to);
    }

    pub(super) fn forget(&mut self, container: u32) {
        self.delta.items.remove(&container);
        self.delta.history.retain(|(of, _, _)| *of != container);
        let logged = self.base.log.values().chain(&self.delta.logged);
        let displaced = logged.filter(|record| record.container == container);
        self.delta.displaced.extend(displaced.cloned());
        self.delta.dropped.push(container);
    }
}
