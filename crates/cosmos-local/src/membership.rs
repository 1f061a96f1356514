//! Which regions the account has, and had.
//!
//! A region has a number, by which mutations, etags, resource ids and continuations name it. The number is never another
//! region's, and a region that comes back gets its own again: so what was named once never means something else.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{file, replica::MAX_REGIONS};

/// Why a region cannot be one of the account's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegionError {
    /// It is one already; withdrawn regions are, too. Names are the same when they differ only in case and spaces.
    #[error("the account has a region {0:?} already")]
    Exists(String),
    /// It has no name.
    #[error("every region of an account has a name of its own")]
    Nameless,
    /// The account has had too many. Regions that were removed count, unless they come back.
    #[error(
        "an account has at most {MAX_REGIONS} regions in its life, those that were removed included"
    )]
    TooMany,
}

/// What is known of one region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slot {
    /// Azure display name.
    name: String,
    is_member: bool,
    /// The last position of its feed when it was removed; 0 when it never was.
    last_position: u64,
}

/// The regions of an account. A region's number is its place here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Grows with every change; session tokens tell it.
    version: u64,
    slots: Vec<Slot>,
}

/// What makes two names the same to clients.
pub(crate) fn plain(name: &str) -> String {
    name.to_lowercase().replace(' ', "")
}

impl Membership {
    /// Of a new account.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, RegionError> {
        let mut membership = Self::default();
        for name in names {
            membership.join(name)?;
        }
        membership.version = 1;
        Ok(membership)
    }

    /// Continues from a file; `None` when there is none.
    pub(crate) fn open(file: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file, at once and for good.
    pub(crate) fn store(&self, file: &Path) -> io::Result<()> {
        file::replace(file, self)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Numbers and names of the regions that the account has, in account order.
    pub(crate) fn members(&self) -> impl Iterator<Item = (usize, &str)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.is_member)
            .map(|(index, slot)| (index, slot.name.as_str()))
    }

    /// The number of a member.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        let mut members = self.members();
        members.find_map(|(index, known)| (plain(known) == plain(name)).then_some(index))
    }

    pub(crate) fn is_member(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| slot.is_member)
    }

    /// Regions that the account has and had: greater than any region's number.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// The position after which a region's feed starts when it joins.
    pub(crate) fn start_of_feed(&self, index: usize) -> u64 {
        self.slots.get(index).map_or(0, |slot| slot.last_position)
    }

    /// Makes a region one of the account's; returns its number.
    pub(crate) fn join(&mut self, name: &str) -> Result<usize, RegionError> {
        if plain(name).is_empty() {
            return Err(RegionError::Nameless);
        }
        let mut slots = self.slots.iter();
        let index = match slots.position(|slot| plain(&slot.name) == plain(name)) {
            Some(index) if self.slots[index].is_member => {
                return Err(RegionError::Exists(name.to_owned()));
            }
            Some(index) => {
                let slot = &mut self.slots[index];
                slot.is_member = true;
                slot.name = name.to_owned();
                index
            }
            None if self.slots.len() as u64 >= MAX_REGIONS => return Err(RegionError::TooMany),
            None => {
                self.slots.push(Slot {
                    name: name.to_owned(),
                    is_member: true,
                    last_position: 0,
                });
                self.slots.len() - 1
            }
        };
        self.version += 1;
        Ok(index)
    }

    /// Ends a region, whose feed has come so far.
    pub(crate) fn leave(&mut self, index: usize, last_position: u64) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.is_member = false;
            slot.last_position = last_position;
            self.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_that_of_another_region() {
        let mut membership = Membership::new(["West US", "North Europe"]).expect("two names");
        assert_eq!(membership.version(), 1);
        assert_eq!(
            membership.join("west us"),
            Err(RegionError::Exists("west us".into()))
        );
        assert_eq!(membership.join(" "), Err(RegionError::Nameless));
        membership.leave(1, 40);
        assert!(!membership.is_member(1) && membership.version() == 2);
        assert_eq!(membership.join("Southeast Asia"), Ok(2));
        assert_eq!(membership.join("North Europe"), Ok(1));
        let (of_new, of_old) = (membership.start_of_feed(2), membership.start_of_feed(1));
        assert_eq!((of_new, of_old, membership.version()), (0, 40, 4));
        for number in 3..MAX_REGIONS {
            assert!(membership.join(&number.to_string()).is_ok());
        }
        assert_eq!(membership.join("one more"), Err(RegionError::TooMany));
    }
}
