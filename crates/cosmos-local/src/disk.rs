//! A region's data folder: one fjall database with its items, its log and its counters.
//!
//! Everything is in memory, so a commit only has to be found again after a start. fjall appends it to a journal, which is
//! one sequential write however many items it touches, and sorts it into files in the background.

use std::{io, path::Path, sync::Arc};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    record::{ItemKey, Record},
    replica::{Delta, Item, State},
};

/// What rows look like; whoever changes that counts on.
const FORMAT: u32 = 1;

/// Bytes of items, and of the log, that wait in memory before they are sorted into a file.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of journals, which have all that waits; the least that fjall takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of files that are kept in memory; they are read at start, and where files are merged.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Items that are written at a time where all of a region are.
const ITEMS_AT_ONCE: usize = 1024;

/// Key of the [`CountersRow`].
const COUNTERS: &str = "counters";

/// Key of the [`FORMAT`].
const FORMAT_KEY: &str = "format";

/// Why the data folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error("another process uses it")]
    InUse,
    /// It is no good database, or the disk has failed.
    #[error("{0}")]
    Database(fjall::Error),
    /// The folder cannot be made or deleted.
    #[error("{0}")]
    Folder(#[from] io::Error),
    /// It is not there, but the account has data in it.
    #[error("it is not there; was it deleted, or written by another version?")]
    Missing,
    /// Rows look different.
    #[error("it was written by another version, in format {0} instead of {FORMAT}")]
    Format(u32),
    /// A row is not what this version writes.
    #[error("a row cannot be read: {0}")]
    Row(#[from] postcard::Error),
}

impl From<fjall::Error> for DiskError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse,
            other => Self::Database(other),
        }
    }
}

/// Where a replica makes its changes durable.
pub(crate) trait Storage: Send + 'static {
    /// Writes changes, all or none; they are durable when it returns.
    fn store(&mut self, delta: &Delta) -> Result<(), DiskError>;
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

/// The open database of one region.
pub(crate) struct Disk {
    database: Database,
    items: Keyspace,
    log: Keyspace,
    counters: Keyspace,
}

impl Disk {
    /// Opens the folder, and reads all of it.
    pub(crate) fn open(path: &Path, regions: usize) -> Result<(Self, State), DiskError> {
        if !path.is_dir() {
            return Err(DiskError::Missing);
        }
        let disk = Self::database(path)?;
        let format = disk.counters.get(FORMAT_KEY)?;
        match format.map(|row| read(&row)).transpose()? {
            Some(FORMAT) => {}
            other => return Err(DiskError::Format(other.unwrap_or_default())),
        }
        let state = disk.load(regions)?;
        Ok((disk, state))
    }

    /// Makes the folder of a new region, with the state that it starts with; what an attempt before has left is replaced.
    pub(crate) fn create(path: &Path, state: &State) -> Result<Self, DiskError> {
        remove(path)?;
        let disk = Self::database(path)?;
        let tables = state.tables.iter();
        let all: Vec<(u32, &ItemKey, &Item)> = tables
            .flat_map(|(container, table)| {
                let items = table.items.iter();
                items.map(|(key, item)| (*container, key, item))
            })
            .collect();
        for some in all.chunks(ITEMS_AT_ONCE) {
            let mut batch = disk.database.batch();
            for (container, key, item) in some {
                disk.put(&mut batch, *container, key, item)?;
            }
            batch.commit()?;
        }
        let mut batch = disk.database.batch();
        batch.insert(&disk.counters, FORMAT_KEY, write(&FORMAT)?);
        disk.put_counters(&mut batch, &state.seen, state.applied, state.stamp)?;
        batch.durability(Some(PersistMode::SyncAll)).commit()?;
        Ok(disk)
    }

    fn database(path: &Path) -> Result<Self, DiskError> {
        let database = Database::builder(path)
            .worker_threads(1)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        Ok(Self {
            items: database.keyspace("items", options)?,
            log: database.keyspace("log", options)?,
            counters: database.keyspace("counters", options)?,
            database,
        })
    }

    fn load(&self, regions: usize) -> Result<State, DiskError> {
        let mut state = State::empty(regions);
        if let Some(row) = self.counters.get(COUNTERS)? {
            let row: CountersRow = read(&row)?;
            (state.seen, state.applied, state.stamp) = (row.seen, row.applied, row.stamp);
        }
        for entry in self.log.iter() {
            let record: Record = read(&entry.value()?)?;
            state.log.insert(record.number, Arc::new(record));
        }
        for entry in self.items.iter() {
            let row: ItemRow = read(&entry.value()?)?;
            let mut siblings = row.siblings;
            for record in &mut siblings {
                Arc::make_mut(record).key = row.key.clone();
            }
            let item = Item::from_disk(siblings, row.position, row.seen, row.heard, row.applied_at);
            let table = state.tables.entry(row.container).or_default();
            table.put(row.key, item);
        }
        state.start();
        Ok(state)
    }

    fn put(
        &self,
        batch: &mut OwnedWriteBatch,
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
        batch.insert(&self.items, row_key(container, key), write(&row)?);
        Ok(())
    }

    fn put_counters(
        &self,
        batch: &mut OwnedWriteBatch,
        seen: &[u64],
        applied: u64,
        stamp: u64,
    ) -> Result<(), DiskError> {
        let row = CountersRow {
            seen: seen.to_vec(),
            applied,
            stamp,
        };
        batch.insert(&self.counters, COUNTERS, write(&row)?);
        Ok(())
    }
}

impl Storage for Disk {
    fn store(&mut self, delta: &Delta) -> Result<(), DiskError> {
        let batch = self.database.batch();
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for (container, items) in &delta.items {
            for (key, item) in items {
                match item {
                    Some(item) => self.put(&mut batch, *container, key, item)?,
                    None => batch.remove(&self.items, row_key(*container, key)),
                }
            }
        }
        for container in &delta.dropped {
            for entry in self.items.prefix(container.to_be_bytes()) {
                batch.remove(&self.items, entry.key()?);
            }
        }
        for record in &delta.logged {
            batch.insert(&self.log, record.number.to_be_bytes(), write(&**record)?);
        }
        for number in &delta.trimmed {
            batch.remove(&self.log, number.to_be_bytes());
        }
        self.put_counters(&mut batch, &delta.seen, delta.applied, delta.stamp)?;
        Ok(batch.commit()?)
    }
}

/// Deletes the folder of a region that is none of the account's, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(row: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(row)
}

fn write<T: Serialize>(row: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(row)
}

/// Unique per item, and with those of the container: partition values are JSON text, which holds no raw control character.
fn row_key(container: u32, key: &ItemKey) -> Vec<u8> {
    let partition = key.partition.value.as_bytes();
    [
        &container.to_be_bytes(),
        partition,
        b"\x01",
        key.id.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A storage that keeps nothing, and fails when it is told to.
    pub(crate) struct Failing(pub(crate) Arc<AtomicBool>);

    impl Storage for Failing {
        fn store(&mut self, _: &Delta) -> Result<(), DiskError> {
            if self.0.load(Ordering::SeqCst) {
                return Err(io::Error::other("the disk is full").into());
            }
            Ok(())
        }
    }
}
