//! The items that a query looks at, in the order of their keys or in its own, a few at a time: a query reads no more of them
//! than it needs, and holds no lock while it works.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use serde_json::Value;

use super::conditions::Conditions;
use crate::{
    container::Container,
    query::{Document, Members, Place, SortOrder, read_text, read_text_over},
    record::{ItemKey, Record},
    replica::{Item, Ordered, Replica, Table},
    scope::Scope,
    ttl::Lifetimes,
};

/// Items that are looked at under one lock. So few are soon gone through, and soon sorted.
const STEP: usize = 256;

/// Items that conditions leave of a scope at the most when an order is asked for them: they are put in the order of their
/// keys again for each page. Where more are left, pages are soon full when all items are gone through.
const MAX_CANDIDATES: usize = 4096;

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

/// Where items come from, and which of them are looked at.
pub(super) struct Source {
    replica: Arc<Replica>,
    container: u32,
    lifetimes: Lifetimes,
    conditions: Conditions,
    /// Where the conditions' items lie together.
    index: Option<SortOrder>,
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
            index: conditions.order(),
            conditions,
        }
    }

    /// Whether conditions may leave few items that are anywhere in an order.
    pub(super) fn is_scattered(&self, order: &SortOrder) -> bool {
        let index = self.index.as_ref();
        index.is_some_and(|index| !order.paths.begin_with(&index.paths))
    }
}

/// Whether no more items follow than are looked at under one lock.
fn has_few_left(scope: &Scope, table: &Table, from: Bound<&ItemKey>) -> bool {
    scope.items(table, from).nth(STEP).is_none()
}

/// How the items of a scope are found.
enum Way {
    /// All are gone through.
    All,
    /// They are among these, in order.
    Among(VecDeque<ItemKey>),
}

/// Goes through the visible items of scopes that meet conditions, in the order of their keys.
pub(super) struct Scan<'a> {
    source: &'a Source,
    /// Not yet gone through, in key order.
    scopes: VecDeque<Scope>,
    /// That of the first scope, once it is known.
    way: Option<Way>,
    from: Bound<ItemKey>,
    read: VecDeque<Stored>,
}

impl<'a> Scan<'a> {
    /// `scopes` are disjoint, and in key order.
    pub(super) fn new(source: &'a Source, scopes: Vec<Scope>, from: Bound<ItemKey>) -> Self {
        Self {
            source,
            scopes: scopes.into(),
            way: None,
            from,
            read: VecDeque::new(),
        }
    }

    /// Whether the conditions leave so few items of the first scope that these are sooner sorted than found in an order of
    /// the query; and are known without going through all.
    pub(super) fn is_narrow(&mut self) -> bool {
        while self.way.is_none() && !self.scopes.is_empty() {
            self.find_way(STEP);
        }
        let is_narrow = matches!(self.way, Some(Way::Among(_)));
        if !is_narrow {
            // More may still be worth it when there is no such order.
            self.way = None;
        }
        is_narrow
    }

    /// Finds the way through the first scope, among so many items at the most or through all; or helps to make the order
    /// that tells.
    fn find_way(&mut self, most: usize) {
        let Some(scope) = self.scopes.front() else {
            return;
        };
        // An item's own key is known from its partition key and id.
        let partition = scope.partition();
        let only = partition.and_then(|it| self.source.conditions.item(it));
        let keys: Option<Vec<ItemKey>> = match only {
            Some(only) => Some(vec![only]),
            None => match self.candidates(scope, most + 1) {
                Some(Ordered::Unfinished) => return,
                Some(Ordered::Items(records, _)) if records.len() <= most => {
                    Some(records.iter().map(|record| record.key.clone()).collect())
                }
                _ => None,
            },
        };
        let is_after = |key: &ItemKey| match &self.from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        };
        self.way = Some(match keys {
            Some(mut keys) => {
                keys.retain(|key| scope.contains(&key.partition) && is_after(key));
                keys.sort_unstable();
                Way::Among(keys.into())
            }
            None => Way::All,
        });
    }

    /// Items of a scope among which are all that meet the conditions, so many at the most. `None` when nothing tells, or when
    /// there are few to go through.
    fn candidates(&self, scope: &Scope, most: usize) -> Option<Ordered> {
        let index = self.source.index.as_ref()?;
        let state = self.source.replica.read();
        let table = state.tables.get(&self.source.container)?;
        let is_worth_it = !has_few_left(scope, table, self.from.as_ref());
        is_worth_it.then(|| table.ordered(scope, index, None, most))
    }

    /// Looks at the next items of the first scope, on the way that was found.
    fn read_on(&mut self) {
        let Source {
            replica,
            container,
            lifetimes,
            conditions,
            ..
        } = self.source;
        let (Some(scope), Some(way)) = (self.scopes.front(), &mut self.way) else {
            return;
        };
        let state = replica.read();
        let Some(table) = state.tables.get(container) else {
            self.scopes.clear();
            return;
        };
        let mut see = |item: &Item| {
            let record = item.visible(*lifetimes);
            let record = record.filter(|record| conditions.allow(record));
            self.read.extend(record.cloned().map(Stored));
        };
        let is_over = match way {
            Way::Among(keys) => {
                for key in keys.drain(..keys.len().min(STEP)) {
                    table.items.get(&key).into_iter().for_each(&mut see);
                }
                keys.is_empty()
            }
            Way::All => {
                let items = scope.items(table, self.from.as_ref()).take(STEP);
                let mut seen = 0;
                let mut last = None;
                for (key, item) in items {
                    see(item);
                    seen += 1;
                    last = Some(key);
                }
                if let Some(last) = last {
                    self.from = Bound::Excluded(last.clone());
                }
                seen < STEP
            }
        };
        if is_over {
            self.scopes.pop_front();
            self.way = None;
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Stored;

    fn next(&mut self) -> Option<Stored> {
        while self.read.is_empty() && !self.scopes.is_empty() {
            match self.way {
                None => self.find_way(MAX_CANDIDATES),
                Some(_) => self.read_on(),
            }
        }
        self.read.pop_front()
    }
}

/// Goes through the visible items of a scope that meet conditions, in an order.
pub(super) struct SortedScan<'a> {
    source: &'a Source,
    scope: Scope,
    order: SortOrder,
    /// The last one that was looked at.
    behind: Option<Place>,
    /// Items that are looked at next.
    step: usize,
    is_over: bool,
    /// Whether it came to an end because there is no such order.
    has_failed: bool,
    read: VecDeque<Stored>,
}

impl<'a> SortedScan<'a> {
    /// A reader that wants so many items if all of them suit it.
    pub(super) fn new(source: &'a Source, scope: Scope, order: SortOrder, most: usize) -> Self {
        Self {
            source,
            scope,
            order,
            behind: None,
            step: most.clamp(1, STEP),
            is_over: false,
            has_failed: false,
            read: VecDeque::new(),
        }
    }

    /// Whether there is no such order, or not any more: what was read says nothing of what there is.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Looks at the next items, or helps to put them in order.
    fn read_on(&mut self) {
        let Source {
            replica,
            container,
            lifetimes,
            conditions,
            ..
        } = self.source;
        let state = replica.read();
        let ordered = state.tables.get(container).map(|table| {
            let behind = self.behind.as_ref();
            table.ordered(&self.scope, &self.order, behind, self.step)
        });
        let (records, last) = match ordered {
            Some(Ordered::Unfinished) => {
                if self.behind.is_some() {
                    // It was let go between two steps, which must not happen again and again.
                    self.step = usize::MAX;
                }
                return;
            }
            Some(Ordered::TooLarge) => {
                (self.is_over, self.has_failed) = (true, true);
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

impl Iterator for SortedScan<'_> {
    type Item = Stored;

    fn next(&mut self) -> Option<Stored> {
        while self.read.is_empty() && !self.is_over {
            self.read_on();
        }
        self.read.pop_front()
    }
}
