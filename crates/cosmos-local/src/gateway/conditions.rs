//! Conditions of a query that records meet or do not, whatever their texts say.

use serde_json::{Number, Value};

use crate::{
    partition_key::PartitionKey,
    query::{Query, SortOrder},
    record::{ItemKey, Record},
};

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

    /// The only item of a partition that can meet them, if they say which.
    pub(super) fn item(&self, partition: &PartitionKey) -> Option<ItemKey> {
        self.ids.first().map(|id| ItemKey {
            partition: partition.clone(),
            id: id.as_str().into(),
        })
    }

    /// An order in which items that meet them lie together: all that do are in it, and maybe some more.
    pub(super) fn order(&self) -> Option<SortOrder> {
        if let Some(id) = self.ids.first() {
            let id = Value::from(id.as_str());
            return Some(SortOrder::of_member("id", Some(id.clone()), Some(id)));
        }
        let bounds = |bounds: &[(f64, bool)], closer: fn(f64, f64) -> f64| {
            let closest = bounds.iter().map(|(bound, _)| *bound).reduce(closer);
            closest.and_then(Number::from_f64).map(Value::Number)
        };
        match (bounds(&self.from, f64::max), bounds(&self.to, f64::min)) {
            (None, None) => None,
            (from, to) => Some(SortOrder::of_member("_ts", from, to)),
        }
    }

    pub(super) fn allow(&self, record: &Record) -> bool {
        let ts = record.ts as f64;
        let is_above = |(bound, inclusive): &(f64, bool)| ts > *bound || *inclusive && ts == *bound;
        let is_below = |(bound, inclusive): &(f64, bool)| ts < *bound || *inclusive && ts == *bound;
        self.ids.iter().all(|id| **id == *record.key.id)
            && self.from.iter().all(is_above)
            && self.to.iter().all(is_below)
    }
}
