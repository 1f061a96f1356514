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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let partition = self
            .partition
            .clone()
            .unwrap_or_else(|| PartitionKey::new(self.start.as_str(), ""));
        let first = ItemKey {
            partition,
            id: "".into(),
        };
        let start = match from {
            Bound::Included(key) if *key > first => Bound::Included(key),
            Bound::Excluded(key) if *key >= first => Bound::Excluded(key),
            _ => Bound::Included(&first),
        };
        table
            .items
            .range::<ItemKey, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| self.contains(&key.partition))
    }
}
