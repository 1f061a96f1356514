//! A region's data folder: one redb file with its items, its log and its counters.

use std::{path::Path, sync::Arc};

use redb::{Database, ReadableTable as _, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::{
    record::{ItemKey, Record},
    replica::{Delta, Item, State},
};

const ITEMS: TableDefinition<&str, &[u8]> = TableDefinition::new("items");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const COUNTERS: TableDefinition<&str, &[u8]> = TableDefinition::new("counters");

/// The one row of [`COUNTERS`].
const ROW: &str = "counters";

/// Why the data folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is not a good database, or the disk has failed.
    #[error("{0}")]
    Redb(#[from] redb::Error),
    /// A row is not what this version writes.
    #[error("a row of the data file cannot be read: {0}; was it written by another version?")]
    Row(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct ItemRow {
    container: u32,
    key: ItemKey,
    siblings: Vec<Arc<Record>>,
    position: u64,
    seen: Arc<[u64]>,
    heard: Vec<u64>,
    applied_at: i64,
}

#[derive(Serialize, Deserialize)]
struct CountersRow {
    seen: Vec<u64>,
    applied: u64,
    stamp: u64,
}

/// The open file of one region.
pub(crate) struct Disk {
    database: Database,
}

impl Disk {
    /// Opens or creates the file, and reads all of it.
    pub(crate) fn open(path: &Path, regions: usize) -> Result<(Self, State), DiskError> {
        Self::read(Database::create(path).map_err(redb::Error::from)?, regions)
    }

    /// Makes the file of a new region, with the state that it starts with; what an attempt before has left is replaced.
    pub(crate) fn create(path: &Path, state: &State) -> Result<Self, DiskError> {
        remove(path)?;
        let database = Database::create(path).map_err(redb::Error::from)?;
        let disk = Self { database };
        let transaction = disk.database.begin_write().map_err(redb::Error::from)?;
        {
            transaction.open_table(LOG).map_err(redb::Error::from)?;
            let mut items = transaction.open_table(ITEMS).map_err(redb::Error::from)?;
            for (container, table) in &state.tables {
                for (key, item) in &table.items {
                    put(&mut items, *container, key, item)?;
                }
            }
            put_counters(&transaction, &state.seen, state.applied, state.stamp)?;
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(disk)
    }

    fn read(database: Database, regions: usize) -> Result<(Self, State), DiskError> {
        let disk = Self { database };
        let state = disk.load(regions)?;
        Ok((disk, state))
    }

    fn load(&self, regions: usize) -> Result<State, DiskError> {
        let mut state = State::empty(regions);
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        {
            // Opened for writing so that a new file has all its tables.
            let counters = transaction
                .open_table(COUNTERS)
                .map_err(redb::Error::from)?;
            let log = transaction.open_table(LOG).map_err(redb::Error::from)?;
            let items = transaction.open_table(ITEMS).map_err(redb::Error::from)?;
            if let Some(row) = counters.get(ROW).map_err(redb::Error::from)? {
                let row: CountersRow = serde_json::from_slice(row.value())?;
                (state.seen, state.applied, state.stamp) = (row.seen, row.applied, row.stamp);
            }
            for entry in log.iter().map_err(redb::Error::from)? {
                let (number, row) = entry.map_err(redb::Error::from)?;
                state.log.insert(
                    number.value(),
                    Arc::new(serde_json::from_slice(row.value())?),
                );
            }
            for entry in items.iter().map_err(redb::Error::from)? {
                let (_, row) = entry.map_err(redb::Error::from)?;
                let row: ItemRow = serde_json::from_slice(row.value())?;
                let mut siblings = row.siblings;
                for record in &mut siblings {
                    Arc::make_mut(record).key = row.key.clone();
                }
                let item =
                    Item::from_disk(siblings, row.position, row.seen, row.heard, row.applied_at);
                let table = state.tables.entry(row.container).or_default();
                table.put(row.key, item);
            }
        }
        state.start();
        transaction.commit().map_err(redb::Error::from)?;
        Ok(state)
    }

    /// Writes changes in one transaction; they are durable when it returns.
    pub(crate) fn store(&mut self, delta: &Delta) -> Result<(), DiskError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut items = transaction.open_table(ITEMS).map_err(redb::Error::from)?;
            let touched = delta.items.iter();
            let touched = touched.flat_map(|(container, items)| {
                items.iter().map(move |(key, item)| (*container, key, item))
            });
            for (container, key, item) in touched {
                let Some(item) = item else {
                    items
                        .remove(row_key(container, key).as_str())
                        .map_err(redb::Error::from)?;
                    continue;
                };
                put(&mut items, container, key, item)?;
            }
            for container in &delta.dropped {
                // All keys of a container lie between these two.
                let (first, end) = (format!("{container}\u{1}"), format!("{container}\u{2}"));
                items
                    .retain_in(first.as_str()..end.as_str(), |_, _| false)
                    .map_err(redb::Error::from)?;
            }
            let mut log = transaction.open_table(LOG).map_err(redb::Error::from)?;
            for record in &delta.logged {
                let row = serde_json::to_vec(&**record)?;
                log.insert(record.number, row.as_slice())
                    .map_err(redb::Error::from)?;
            }
            for number in &delta.trimmed {
                log.remove(number).map_err(redb::Error::from)?;
            }
            put_counters(&transaction, &delta.seen, delta.applied, delta.stamp)?;
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }
}

/// Deletes the file of a region that is none of the account's, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(redb::Error::from(error).into())
        }
        _ => Ok(()),
    }
}

fn put(
    items: &mut Table<'_, &str, &[u8]>,
    container: u32,
    key: &ItemKey,
    item: &Item,
) -> Result<(), DiskError> {
    let row = ItemRow {
        container,
        key: key.clone(),
        siblings: item.siblings().to_vec(),
        position: item.position,
        seen: Arc::clone(&item.seen),
        heard: item.heard.clone(),
        applied_at: item.applied_at,
    };
    let row = serde_json::to_vec(&row)?;
    items
        .insert(row_key(container, key).as_str(), row.as_slice())
        .map_err(redb::Error::from)?;
    Ok(())
}

fn put_counters(
    transaction: &WriteTransaction,
    seen: &[u64],
    applied: u64,
    stamp: u64,
) -> Result<(), DiskError> {
    let mut counters = transaction
        .open_table(COUNTERS)
        .map_err(redb::Error::from)?;
    let row = CountersRow {
        seen: seen.to_vec(),
        applied,
        stamp,
    };
    counters
        .insert(ROW, serde_json::to_vec(&row)?.as_slice())
        .map_err(redb::Error::from)?;
    Ok(())
}

/// Unique per item: partition values are JSON text, which holds no raw control character.
fn row_key(container: u32, key: &ItemKey) -> String {
    format!("{container}\u{1}{}\u{1}{}", key.partition.value, key.id)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::{StorageBackend, backends::InMemoryBackend};

    use super::*;

    /// A disk that fails when it is told to.
    #[derive(Debug)]
    struct Failing {
        memory: InMemoryBackend,
        fails: Arc<AtomicBool>,
    }

    impl Failing {
        fn check(&self) -> io::Result<()> {
            if self.fails.load(Ordering::SeqCst) {
                return Err(io::Error::other("the disk is full"));
            }
            Ok(())
        }
    }

    impl StorageBackend for Failing {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.memory.write(offset, data)
        }
    }

    /// An empty disk, and the switch that breaks it.
    pub(crate) fn failing(regions: usize) -> (Disk, State, Arc<AtomicBool>) {
        let fails = Arc::new(AtomicBool::new(false));
        let backend = Failing {
            memory: InMemoryBackend::new(),
            fails: Arc::clone(&fails),
        };
        let database = Database::builder()
            .create_with_backend(backend)
            .expect("an empty database");
        let (disk, state) = Disk::read(database, regions).expect("nothing to read");
        (disk, state, fails)
    }
}
