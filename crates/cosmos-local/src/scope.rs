//! The part of a container that a query, a list or a reader of the change feed is limited to.

use std::ops::Bound;

use crate::{
    epk,
    partition_key::{Named, PartitionKey},
    ranges::Range,
    record::ItemKey,
    replica::{Item, Table},
};

/// A range of effective partition keys, or one partition key value in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The first effective partition key that is in.
    start: String,
    /// The first that is out.
    end: String,
    partition: Option<PartitionKey>,
}

impl Scope {
    /// Everything from `start` on, and before `end`.
    pub(crate) fn range(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
            partition: None,
        }
    }

    /// The whole container.
    pub(crate) fn everything() -> Self {
        Self::range(epk::FIRST, epk::END)
    }

    /// What is in this scope, and also between these.
    #[must_use]
    pub(crate) fn within(mut self, start: &str, end: &str) -> Self {
        if self.start.as_str() < start {
            start.clone_into(&mut self.start);
        }
        if self.end.as_str() > end {
            end.clone_into(&mut self.end);
        }
        self
    }

    /// What is in this scope, and also under these partition keys.
    #[must_use]
    pub(crate) fn named(self, named: Named) -> Self {
        match named {
            Named::Value(partition) => Self {
                partition: Some(partition),
                ..self
            },
            Named::Prefix(prefix) => self.within(&prefix, &format!("{prefix}{}", epk::END)),
        }
    }

    /// The one partition key value that this scope is limited to, if it is.
    pub(crate) fn partition(&self) -> Option<&PartitionKey> {
        self.partition.as_ref()
    }

    /// Whether anything in this scope may lie in a partition key range.
    pub(crate) fn touches(&self, range: &Range) -> bool {
        let overlaps = self.start < range.end && range.start < self.end;
        let holds = |only: &PartitionKey| *range.start <= *only.epk && *only.epk < *range.end;
        overlaps && self.partition.as_ref().is_none_or(holds)
    }

    fn contains_epk(&self, epk: &str) -> bool {
        self.start.as_str() <= epk && epk < self.end.as_str()
    }

    pub(crate) fn contains(&self, key: &PartitionKey) -> bool {
        self.contains_epk(&key.epk) && self.partition.as_ref().is_none_or(|only| only == key)
    }

    /// The items of a table that are in this scope, in key order, from a key on. Costs what it finds, whatever else the
    /// table holds.
    pub(crate) fn items<'a>(
        &self,
        table: &'a Table,
        from: Bound<&ItemKey>,
    ) -> impl Iterator<Item = (&'a ItemKey, &'a Item)> {
        let before = |partition| ItemKey {
            partition,
            id: "".into(),
        };
        let (first, end) = match &self.partition {
            Some(only) if self.contains_epk(&only.epk) => (only.clone(), only.successor()),
            Some(only) => (only.clone(), only.clone()),
            None => (
                PartitionKey::new(self.start.as_str(), ""),
                PartitionKey::new(self.end.as_str(), ""),
            ),
        };
        let (first, end) = (before(first), before(end));
        let start = match from {
            _ if first >= end => Bound::Included(&end),
            Bound::Included(key) | Bound::Excluded(key) if *key >= end => Bound::Included(&end),
            Bound::Included(key) if *key > first => Bound::Included(key),
            Bound::Excluded(key) if *key >= first => Bound::Excluded(key),
            _ => Bound::Included(&first),
        };
        // With both ends, no key in between is looked at.
        table
            .items
            .range::<ItemKey, _>((start, Bound::Excluded(&end)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn item_key() -> impl Strategy<Value = ItemKey> {
        ("0[0-3]{1,2}|FF", "\\[[0-1]{1,2}\\]", "[a-b]{0,2}").prop_map(|(epk, value, id)| ItemKey {
            partition: PartitionKey::new(epk, value),
            id: id.into(),
        })
    }

    proptest! {
        #[test]
        fn items_are_those_in_scope_from_a_key_on(
            keys in prop::collection::btree_set(item_key(), 0..30),
            from in item_key(),
            bound in 0..3,
            [start, end] in prop::array::uniform2("0[0-4]{0,2}|FF|"),
            only in prop::option::of(item_key()),
        ) {
            let mut table = Table::default();
            for key in &keys {
                let item = Item::from_disk(0, Vec::new(), 0, Arc::from([]), Vec::new(), 0);
                table.items.insert(key.clone(), item);
            }
            let mut scope = Scope::range(start, end);
            scope.partition = only.map(|key| key.partition);
            let (bound, is_after): (_, fn(&ItemKey, &ItemKey) -> bool) = match bound {
                0 => (Bound::Unbounded, |_, _| true),
                1 => (Bound::Included(&from), |key, from| key >= from),
                _ => (Bound::Excluded(&from), |key, from| key > from),
            };
            let found: Vec<&ItemKey> = scope.items(&table, bound).map(|(key, _)| key).collect();
            let expected: Vec<&ItemKey> = keys
                .iter()
                .filter(|key| scope.contains(&key.partition) && is_after(key, &from))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
