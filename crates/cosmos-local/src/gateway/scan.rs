//! The items that a query looks at, in the order of their keys or in its own, a few at a time: a query reads no more of them
//! than it needs, and holds no lock while it works.

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use serde_json::Value;

use crate::{
    container::Container,
    partition_key::PartitionKey,
    query::{Document, Members, Place, Query, SortOrder, read_text, read_text_over},
    record::{ItemKey, Record},
    replica::{Ordered, Replica},
    scope::Scope,
    ttl::Lifetimes,
};

/// Items that are looked at under one lock.
const STEP: usize = 256;

/// A stored document; versions are immutable and shared.
#[derive(Debug, Clone)]
pub(super) struct Stored(pub(super) Arc<Record>);

impl Stored {
    /// Its JSON text.
    pub(super) fn text(&self) -> &str {
        self.0.body.as_deref().unwrap_or_default()
    }
}

const IS_OBJECT: &str = "a visible item's body is a JSON object that can be read";

impl Document for Stored {
    fn read(&self, members: &Members) -> Value {
        read_text(self.text(), members).expect(IS_OBJECT)
    }

    fn read_over(&self, members: &Members, value: &mut Value) {
        read_text_over(self.text(), members, value).expect(IS_OBJECT);
    }

    fn rid(&self) -> &str {
        // The service's own members come last, and among those behind this one are no others of this name.
        const NAME: &str = "\"_rid\":\"";
        let text = self.text();
        let rest = text.rfind(NAME).map(|at| &text[at + NAME.len()..]);
        rest.and_then(|rest| rest.split('"').next())
            .unwrap_or_default()
    }

    fn ordinal(&self) -> u64 {
        self.0.ordinal
    }

    fn size(&self) -> usize {
        self.text().len()
    }
}

/// What a record says without being taken apart: necessary conditions of a query.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    ids: Vec<String>,
    /// Bounds of `_ts`, with whether they belong to the range.
    from: Vec<(f64, bool)>,
    to: Vec<(f64, bool)>,
}

impl Conditions {
    pub(super) fn of(query: &Query) -> Self {
        let mut conditions = Self::default();
        for (path, value) in query.equality_filters() {
            match (path.as_str(), &value) {
                ("/id", Value::String(id)) => conditions.ids.push(id.clone()),
                ("/_ts", Value::Number(_)) => {
                    let bound = value.as_f64().map(|ts| (ts, true));
                    conditions.from.extend(bound);
                    conditions.to.extend(bound);
                }
                _ => {}
            }
        }
        let number = |bound: Option<(Value, bool)>| {
            bound.and_then(|(value, inclusive)| Some((value.as_f64()?, inclusive)))
        };
        for range in query.range_filters() {
            if range.path == "/_ts" {
                conditions.from.extend(number(range.lower));
                conditions.to.extend(number(range.upper));
            }
        }
        conditions
    }

    /// Whether only one item of a partition can meet them.
    pub(super) fn name_an_item(&self) -> bool {
        !self.ids.is_empty()
    }

    fn allow(&self, record: &Record) -> bool {
        let ts = record.ts as f64;
        let is_above = |(bound, inclusive): &(f64, bool)| ts > *bound || *inclusive && ts == *bound;
        let is_below = |(bound, inclusive): &(f64, bool)| ts < *bound || *inclusive && ts == *bound;
        self.ids.iter().all(|id| **id == *record.key.id)
            && self.from.iter().all(is_above)
            && self.to.iter().all(is_below)
    }
}

/// Where items come from, and which of them are looked at.
pub(super) struct Source {
    replica: Arc<Replica>,
    container: u32,
    lifetimes: Lifetimes,
    conditions: Conditions,
}

impl Source {
    pub(super) fn new(
        replica: Arc<Replica>,
        container: &Container,
        conditions: Conditions,
    ) -> Self {
        Self {
            replica,
            container: container.number,
            lifetimes: Lifetimes::now(container),
            conditions,
        }
    }
}

/// Goes through the visible items of scopes that meet conditions, in the order of their keys.
pub(super) struct Scan {
    source: Source,
    /// Not yet gone through, in key order.
    scopes: VecDeque<Scope>,
    from: Bound<ItemKey>,
    read: VecDeque<Stored>,
}

impl Scan {
    /// `scopes` are disjoint, and in key order.
    pub(super) fn new(source: Source, scopes: Vec<Scope>, from: Bound<ItemKey>) -> Self {
        Self {
            source,
            scopes: scopes.into(),
            from,
            read: VecDeque::new(),
        }
    }

    /// Looks at the next items; nothing is read when there are none left.
    fn read_on(&mut self) {
        let Source {
            replica,
            container,
            lifetimes,
            conditions,
        } = &self.source;
        let state = replica.read();
        let Some(table) = state.tables.get(container) else {
            self.scopes.clear();
            return;
        };
        let mut seen = 0;
        while seen < STEP
            && let Some(scope) = self.scopes.front()
        {
            // An item's own key is known from its partition key and id.
            let only = scope
                .partition()
                .zip(conditions.ids.first())
                .map(|(partition, id)| ItemKey {
                    partition: partition.clone(),
                    id: id.as_str().into(),
                });
            let is_after = |key: &ItemKey| match &self.from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            let mut last = None;
            if let Some(key) = only {
                let item = table.items.get(&key).filter(|_| is_after(&key));
                let record = item.and_then(|item| item.visible(*lifetimes));
                let record = record.filter(|record| {
                    scope.contains(&record.key.partition) && conditions.allow(record)
                });
                self.read.extend(record.cloned().map(Stored));
                seen += 1;
            } else {
                for (key, item) in scope.items(table, self.from.as_ref()) {
                    seen += 1;
                    let record = item.visible(*lifetimes);
                    let record = record.filter(|record| conditions.allow(record));
                    self.read.extend(record.cloned().map(Stored));
                    if seen == STEP {
                        last = Some(key.clone());
                        break;
                    }
                }
            }
            match last {
                Some(last) => self.from = Bound::Excluded(last),
                None => drop(self.scopes.pop_front()),
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Stored;

    fn next(&mut self) -> Option<Stored> {
        while self.read.is_empty() && !self.scopes.is_empty() {
            self.read_on();
        }
        self.read.pop_front()
    }
}

/// Goes through the visible items of a partition that meet conditions, in an order.
pub(super) struct SortedScan {
    source: Source,
    partition: PartitionKey,
    order: SortOrder,
    /// The last one that was looked at.
    behind: Option<Place>,
    /// Items that are looked at next.
    step: usize,
    is_over: bool,
    read: VecDeque<Stored>,
}

impl SortedScan {
    /// A reader that wants so many items if all of them suit it.
    pub(super) fn new(
        source: Source,
        partition: PartitionKey,
        order: SortOrder,
        most: usize,
    ) -> Self {
        Self {
            source,
            partition,
            order,
            behind: None,
            step: most.clamp(1, STEP),
            is_over: false,
            read: VecDeque::new(),
        }
    }

    /// Looks at the next items, or helps to put them in order.
    fn read_on(&mut self) {
        let Source {
            replica,
            container,
            lifetimes,
            conditions,
        } = &self.source;
        let state = replica.read();
        let ordered = state.tables.get(container).map(|table| {
            let behind = self.behind.as_ref();
            table.ordered(&self.partition, &self.order, behind, self.step)
        });
        let (records, last) = match ordered {
            Some(Ordered::Unfinished) => {
                if self.behind.is_some() {
                    // It was let go between two steps, which must not happen again and again.
                    self.step = usize::MAX;
                }
                return;
            }
            Some(Ordered::Items(records, last)) => (records, last),
            None => (Vec::new(), None),
        };
        drop(state);
        let is_seen = |it: &Arc<Record>| !lifetimes.is_over(it) && conditions.allow(it);
        self.read
            .extend(records.into_iter().filter(is_seen).map(Stored));
        self.is_over = last.is_none();
        self.behind = last;
        self.step = STEP;
    }
}

impl Iterator for SortedScan {
    type Item = Stored;

    fn next(&mut self) -> Option<Stored> {
        while self.read.is_empty() && !self.is_over {
            self.read_on();
        }
        self.read.pop_front()
    }
}
