//! The order of ORDER BY, as a store can keep its documents in it.

use std::cmp::Ordering;

use serde_json::Value;

use super::document::read_text;
use super::reads::Members;
use super::value;

/// ORDER BY over paths of the document, all in one direction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SortOrder {
    pub(crate) paths: SortPaths,
    pub(crate) is_descending: bool,
    /// The places between which documents can give rows, both included; in the ascending order.
    pub(crate) between: (Option<Place>, Option<Place>),
}

impl SortOrder {
    /// The documents whose member of this name lies between these values, both included, in its order.
    pub(crate) fn of_member(name: &str, low: Option<Value>, high: Option<Value>) -> Self {
        Self {
            paths: SortPaths(vec![vec![name.to_owned()]]),
            is_descending: false,
            between: (low.map(Place::before), high.map(Place::behind)),
        }
    }

    /// Leaves out what comes before a place, in the direction of the order.
    pub(crate) fn start_with(&mut self, place: Place) {
        match self.is_descending {
            true => self.between.1 = Some(place),
            false => self.between.0 = Some(place),
        }
    }
}

/// Paths into documents, each by the names on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortPaths(Vec<Vec<String>>);

impl SortPaths {
    pub(super) fn new(paths: Vec<Vec<String>>) -> Self {
        Self(paths)
    }

    /// The member by which alone documents are sorted, if that is so.
    pub(crate) fn only_member(&self) -> Option<&str> {
        match self.0.as_slice() {
            [path] => match path.as_slice() {
                [name] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a document's place by these is, first of all, its place by the others.
    pub(crate) fn begin_with(&self, others: &Self) -> bool {
        self.0.starts_with(&others.0)
    }

    /// Where a document is in the ascending order; its ordinal is that of its `_rid`.
    ///
    /// # Errors
    ///
    /// When its text is no JSON object.
    pub(crate) fn place(&self, text: &str, ordinal: u64) -> serde_json::Result<Place> {
        let mut names: Vec<String> = Vec::with_capacity(self.0.len());
        for name in self.0.iter().filter_map(|path| path.first()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let document = read_text(text, &Members::Named(names))?;
        let value = |path: &Vec<String>| {
            let mut names = path.iter();
            names.try_fold(&document, |value, name| value.get(name))
        };
        let values = self.0.iter().map(|path| value(path).cloned()).collect();
        Ok(Place { values, ordinal })
    }
}

/// A place in an ascending order: the values at its paths, and among equal ones an ordinal. Missing values at the end are
/// equal to any.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(super) values: Vec<Option<Value>>,
    pub(super) ordinal: u64,
}

impl Place {
    /// Of a document with this value at the only path.
    pub(crate) fn of(value: Value, ordinal: u64) -> Self {
        Self {
            values: vec![Some(value)],
            ordinal,
        }
    }

    /// Before all documents with this value at the first path.
    pub(super) fn before(value: Value) -> Self {
        Self::of(value, 0)
    }

    /// Behind all documents with this value at the first path.
    pub(super) fn behind(value: Value) -> Self {
        Self::of(value, u64::MAX)
    }

    /// Roughly its bytes in memory.
    pub(crate) fn size(&self) -> usize {
        let values = self.values.iter().flatten();
        size_of::<Self>() + values.map(value::size).sum::<usize>()
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let mut values = self.values.iter().zip(&other.values);
        let first = values.find_map(|(left, right)| {
            let ordering = value::compare(left.as_ref(), right.as_ref());
            ordering.is_ne().then_some(ordering)
        });
        first.unwrap_or_else(|| self.ordinal.cmp(&other.ordinal))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Place {}
