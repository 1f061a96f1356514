//! A region's data folder: one fjall database with its items, its log and its counters.
//!
//! Everything is in memory, so a commit only has to be found again after a start. fjall appends it to a journal, which is
//! one sequential write however many items it touches, and sorts it into files in the background.
//!
//! A mutation is written once, in the row of its item. It gets a row of the log when the item lets go of it before all
//! regions have it. So the log is what is in that part, and what of the items' own mutations is not trimmed yet.

use std::{collections::BTreeSet, io, path::Path, sync::Arc, time::Duration};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    record::Record,
    replica::{Delta, Item, State},
    vector,
};

/// What rows look like; whoever changes that counts on.
const FORMAT: u32 = 3;

/// Bytes of rows that wait in memory before they are sorted into a file.
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;

/// Memtables that wait to become files, and files that wait to be merged with others: beyond, writers wait. fjall lets them
/// wait at 4 and 20, and does not look whether its worker has failed meanwhile.
const MAX_MEMTABLES: usize = 3;
const MAX_FILES: usize = 16;

/// How often a writer that waits looks again.
const PATIENCE: Duration = Duration::from_millis(10);

/// Bytes of full journals, beyond which fjall hurries to get rid of the oldest; the least that it takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of files that are kept in memory; they are read at start, and where files are merged.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Bytes of items or log rows that are written at a time where all of a region or container are, by an estimate.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The one table of rows. Several would share the journal, and hold on to it for each other.
const ROWS: &str = "rows";

/// What keys of rows begin with.
const COUNTERS: &[u8] = b"c";
const FORMAT_KEY: &[u8] = b"f";
const ITEM: u8 = b'i';
const LOG: u8 = b'l';

/// By which fjall knows a folder of its own.
const MARKER: &str = "version";

/// Why the data folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error("another process uses it")]
    InUse,
    /// Its journal has a batch that is not as it was written. One that only does not come to its end, as after a crash, is
    /// none of these: nobody was told of it.
    #[error(
        "its journal is damaged ({0:?}), which a power failure can do; bring back a copy, or begin with an empty folder"
    )]
    Damaged(fjall::JournalRecoveryError),
    /// It is no good database, or the disk has failed.
    #[error("{0}")]
    Database(fjall::Error),
    /// It has failed before.
    #[error("a file of it could not be written before; the log says why")]
    Failed,
    /// The folder cannot be made or deleted.
    #[error("{0}")]
    Folder(#[from] io::Error),
    /// It is not there, but the account has data in it.
    #[error("it is not there; was it deleted, or written by another version?")]
    Missing,
    /// Rows look different.
    #[error("it was written by another version, in format {0} instead of {FORMAT}")]
    Format(u32),
    /// A row is where this version writes none.
    #[error("a row is where none should be")]
    Key,
    /// Other regions would never get what is missing.
    #[error("change {0} of this region is in none of its rows")]
    Log(u64),
    /// A row is not what this version writes.
    #[error("a row cannot be read: {0}")]
    Row(#[from] postcard::Error),
}

impl From<fjall::Error> for DiskError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse,
            fjall::Error::Poisoned => Self::Failed,
            fjall::Error::JournalRecovery(cause) => Self::Damaged(cause),
            other => Self::Database(other),
        }
    }
}

/// Where a replica makes its changes durable.
pub(crate) trait Storage: Send + 'static {
    /// Writes changes, all or none; they are durable when it returns.
    fn store(&mut self, delta: &Delta) -> Result<(), DiskError>;
}

#[derive(Deserialize)]
struct ItemRow {
    siblings: Vec<Arc<Record>>,
    position: u64,
    seen: Arc<[u64]>,
    heard: Vec<u64>,
    applied_at: i64,
}

/// The same, as it is written.
#[derive(Serialize)]
struct ItemRowRef<'a> {
    siblings: &'a [Arc<Record>],
    position: u64,
    seen: &'a [u64],
    heard: &'a [u64],
    applied_at: i64,
}

#[derive(Serialize, Deserialize)]
struct CountersRow {
    seen: Vec<u64>,
    applied: u64,
    stamp: u64,
    trimmed: u64,
}

/// The open database of one region.
pub(crate) struct Disk {
    /// Of the region.
    index: usize,
    database: Database,
    rows: Keyspace,
    /// Own mutations up to this number are in the log no more.
    trimmed: u64,
    /// Own mutations up to this number are on disk.
    accepted: u64,
    /// Own mutations that have a row of the log.
    displaced: BTreeSet<u64>,
    /// Bytes written since rows were last left to be sorted into a file.
    unsorted: usize,
}

impl Disk {
    /// Opens a region's folder, and reads all of it.
    pub(crate) fn open(
        path: &Path,
        index: usize,
        regions: usize,
    ) -> Result<(Self, State), DiskError> {
        if !path.join(MARKER).is_file() {
            return Err(DiskError::Missing);
        }
        let exists = |database: &Database| match database.keyspace_exists(ROWS) {
            true => Ok(()),
            false => Err(DiskError::Missing),
        };
        let mut disk = Self::database(path, index, exists)?;
        let format = disk.rows.get(FORMAT_KEY)?;
        match format.map(|row| read(&row)).transpose()? {
            Some(FORMAT) => {}
            Some(other) => return Err(DiskError::Format(other)),
            None => return Err(DiskError::Missing),
        }
        let state = disk.load(regions)?;
        Ok((disk, state))
    }

    /// Makes the folder of a new region, with the state that it starts with, which has nothing in its log; what an attempt
    /// before has left is replaced.
    pub(crate) fn create(path: &Path, index: usize, state: &State) -> Result<Self, DiskError> {
        remove(path)?;
        let mut disk = Self::database(path, index, |_| Ok(()))?;
        (disk.trimmed, disk.accepted) = (state.seen_of(index), state.seen_of(index));
        let mut batch = disk.batch();
        for (container, table) in &state.tables {
            for item in table.items.values() {
                batch.put_item(*container, item)?;
                if batch.bytes > BATCH_BYTES {
                    let full = std::mem::replace(&mut batch, disk.batch());
                    disk.commit(full, None)?;
                }
            }
        }
        batch.put_counters(&state.seen, state.applied, state.stamp, disk.trimmed)?;
        // The last row of all says that none is missing.
        batch.put(FORMAT_KEY.to_vec(), write(&FORMAT, 8)?);
        disk.commit(batch, Some(PersistMode::SyncAll))?;
        Ok(disk)
    }

    /// The database, if it passes a check before anything is made in it.
    fn database(
        path: &Path,
        index: usize,
        check: impl FnOnce(&Database) -> Result<(), DiskError>,
    ) -> Result<Self, DiskError> {
        let database = Database::builder(path)
            .worker_threads(1)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        check(&database)?;
        // With a limit of its own fjall asks its worker for a new memtable after every commit beyond it, and when a worker
        // has enough of these to do it blocks itself for ever (https://github.com/fjall-rs/fjall/pull/323).
        let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        Ok(Self {
            index,
            trimmed: 0,
            accepted: 0,
            displaced: BTreeSet::new(),
            rows: database.keyspace(ROWS, options)?,
            // What a journal from before had.
            unsorted: usize::try_from(database.write_buffer_size()).unwrap_or(usize::MAX),
            database,
        })
    }

    fn load(&mut self, regions: usize) -> Result<State, DiskError> {
        let mut state = State::empty(regions);
        if let Some(row) = self.rows.get(COUNTERS)? {
            let row: CountersRow = read(&row)?;
            (state.seen, state.applied, state.stamp) = (row.seen, row.applied, row.stamp);
            self.trimmed = row.trimmed;
        }
        for entry in self.rows.prefix([LOG]) {
            let record: Record = read(&entry.value()?)?;
            self.displaced.insert(record.number);
            state.log.insert(record.number, Arc::new(record));
        }
        for entry in self.rows.prefix([ITEM]) {
            let (key, row) = entry.into_inner()?;
            let (container, number) = item_of(&key)?;
            let row: ItemRow = read(&row)?;
            let mut siblings = row.siblings;
            let key = siblings.first().ok_or(DiskError::Key)?.key.clone();
            for record in &mut siblings {
                Arc::make_mut(record).key = key.clone();
                if self.is_logged(record) {
                    state.log.insert(record.number, Arc::clone(record));
                }
            }
            let item = Item::from_disk(
                number,
                siblings,
                row.position,
                row.seen,
                row.heard,
                row.applied_at,
            );
            let table = state.tables.entry(container).or_default();
            table.put(key, item);
        }
        self.accepted = state.seen_of(self.index);
        let numbers = self.trimmed + 1..=self.accepted;
        if let Some(missing) = numbers.into_iter().find(|it| !state.log.contains_key(it)) {
            return Err(DiskError::Log(missing));
        }
        state.start();
        Ok(state)
    }

    /// Whether it is one that other regions may still need.
    fn is_logged(&self, record: &Record) -> bool {
        record.origin == self.index && record.number > self.trimmed
    }

    fn batch(&self) -> Batch {
        Batch {
            rows: self.rows.clone(),
            changes: self.database.batch(),
            bytes: 0,
        }
    }

    /// Gives rows of the log to records that their items let go of. A container that is deleted can let go of very many, so
    /// this is begun before all else: until the items' rows are gone, the log is what is in either.
    fn displace(&mut self, delta: &Delta) -> Result<Batch, DiskError> {
        let mut batch = self.batch();
        for record in &delta.displaced {
            if !self.is_logged(record) || !self.displaced.insert(record.number) {
                continue;
            }
            batch.put(log_key(record.number), write(&**record, room(record))?);
            // One that is accepted only now is not to be there without what else is.
            if batch.bytes > BATCH_BYTES && self.displaced.last() <= Some(&self.accepted) {
                let full = std::mem::replace(&mut batch, self.batch());
                self.commit(full, None)?;
            }
        }
        Ok(batch)
    }

    fn commit(&mut self, batch: Batch, durability: Option<PersistMode>) -> Result<(), DiskError> {
        self.unsorted += batch.bytes;
        batch.changes.durability(durability).commit()?;
        if self.unsorted > MEMTABLE_BYTES {
            let has_room = || {
                self.rows.sealed_memtable_count() < MAX_MEMTABLES
                    && self.rows.l0_table_count() < MAX_FILES
            };
            while !has_room() {
                // An error when the worker has failed.
                self.database.persist(PersistMode::Buffer)?;
                std::thread::sleep(PATIENCE);
            }
            self.rows.rotate_memtable()?;
            self.unsorted = 0;
        }
        Ok(())
    }
}

/// Changes of rows that are made together.
struct Batch {
    rows: Keyspace,
    changes: OwnedWriteBatch,
    bytes: usize,
}

impl Batch {
    fn put(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.bytes += key.len() + row.len();
        self.changes.insert(&self.rows, key, row);
    }

    fn remove(&mut self, key: impl Into<fjall::Slice>) {
        let key = key.into();
        self.bytes += key.len();
        self.changes.remove(&self.rows, key);
    }

    fn put_item(&mut self, container: u32, item: &Item) -> Result<(), DiskError> {
        let row = ItemRowRef {
            siblings: item.siblings(),
            position: item.position,
            seen: &item.seen,
            heard: &item.heard,
            applied_at: item.applied_at,
        };
        let bytes = item.siblings().iter().map(|record| room(record)).sum();
        self.put(item_key(container, item.row), write(&row, bytes)?);
        Ok(())
    }

    fn put_counters(
        &mut self,
        seen: &[u64],
        applied: u64,
        stamp: u64,
        trimmed: u64,
    ) -> Result<(), DiskError> {
        let row = CountersRow {
            seen: seen.to_vec(),
            applied,
            stamp,
            trimmed,
        };
        self.put(COUNTERS.to_vec(), write(&row, 64)?);
        Ok(())
    }
}

impl Storage for Disk {
    fn store(&mut self, delta: &Delta) -> Result<(), DiskError> {
        self.trimmed = self.trimmed.max(delta.trimmed);
        let mut batch = self.displace(delta)?;
        for (container, items) in &delta.items {
            for item in items.values().flatten() {
                batch.put_item(*container, item)?;
            }
        }
        for (container, row) in &delta.forgotten {
            batch.remove(item_key(*container, *row));
        }
        for container in &delta.dropped {
            for entry in self.rows.prefix(items_of(*container)) {
                batch.remove(entry.key()?);
            }
        }
        let kept = self.displaced.split_off(&(self.trimmed + 1));
        for number in std::mem::replace(&mut self.displaced, kept) {
            batch.remove(log_key(number));
        }
        batch.put_counters(&delta.seen, delta.applied, delta.stamp, self.trimmed)?;
        self.accepted = vector::at(&delta.seen, self.index);
        self.commit(batch, Some(PersistMode::SyncData))
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

/// Writes a row that takes about so many bytes.
fn write<T: Serialize>(row: &T, bytes: usize) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(row, Vec::with_capacity(bytes))
}

/// About the bytes that a record takes in a row.
fn room(record: &Record) -> usize {
    512 + record.body.as_ref().map_or(0, String::len)
}

/// What keys of a container's items begin with.
fn items_of(container: u32) -> Vec<u8> {
    [&[ITEM], container.to_be_bytes().as_slice()].concat()
}

fn item_key(container: u32, row: u64) -> Vec<u8> {
    [items_of(container).as_slice(), &row.to_be_bytes()].concat()
}

/// The container and the number of an item's row.
fn item_of(key: &[u8]) -> Result<(u32, u64), DiskError> {
    let read = || {
        let (container, row) = key.strip_prefix(&[ITEM])?.split_first_chunk()?;
        let container = u32::from_be_bytes(*container);
        Some((container, u64::from_be_bytes(row.try_into().ok()?)))
    };
    read().ok_or(DiskError::Key)
}

/// In the order of numbers.
fn log_key(number: u64) -> Vec<u8> {
    [&[LOG], number.to_be_bytes().as_slice()].concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::record::tests::record;

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

    /// One item more, with so long a text.
    fn delta(number: u64, bytes: usize) -> Delta {
        let mut record = record(0, number, [0; 3], 0.0, true);
        let changed = Arc::make_mut(&mut record);
        changed.body = Some("x".repeat(bytes));
        changed.key.id = number.to_string().into();
        let (key, seen) = (record.key.clone(), Arc::from([number]));
        let siblings = vec![Arc::clone(&record)];
        let item = Item::from_disk(number, siblings, number, seen, vec![number], 0);
        Delta {
            seen: vec![number],
            applied: number,
            stamp: number,
            is_sealed: false,
            items: BTreeMap::from([(1, BTreeMap::from([(key, Some(item))]))]),
            forgotten: Vec::new(),
            history: Vec::new(),
            logged: vec![record],
            trimmed: number.saturating_sub(10),
            displaced: Vec::new(),
            bytes,
            dropped: Vec::new(),
        }
    }

    #[test]
    fn what_was_sorted_into_files_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("a new folder");
        let count = 5 * MEMTABLE_BYTES as u64 / (1 << 20);
        for number in 1..=count {
            disk.store(&delta(number, 1 << 20)).expect("room");
        }
        drop(disk);
        let (_, state) = Disk::open(&path, 0, 1).expect("what was written");
        assert_eq!((state.applied, state.seen), (count, vec![count]));
        let numbers = state.log.keys().copied();
        assert!(numbers.eq(count - 9..=count), "{:?}", state.log.keys());
        let table = &state.tables[&1];
        assert_eq!(table.items.len() as u64, count);
        let whole =
            |item: &Item| item.siblings()[0].body.as_ref().map(String::len) == Some(1 << 20);
        assert!(table.items.values().all(whole));
    }

    #[test]
    fn what_a_deleted_container_lets_go_of_is_in_the_log_whenever_it_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("a new folder");
        let mut last = delta(1, 1);
        for number in 1..=12 {
            last = delta(number, 1 << 20);
            disk.store(&last).expect("room");
        }
        let reopen = |disk: Disk| {
            drop(disk);
            let (disk, state) = Disk::open(&path, 0, 1).expect("what was written");
            let items = state.tables.values().map(|table| table.items.len());
            let counts = (items.sum::<usize>(), state.log.len());
            (disk, state, counts)
        };
        let (mut disk, state, counts) = reopen(disk);
        assert_eq!(counts, (12, 10));
        last.items.clear();
        last.displaced = state.log.into_values().collect();
        last.dropped = vec![1];
        let unfinished = disk.displace(&last).expect("room");
        assert!(
            unfinished.bytes < BATCH_BYTES,
            "the rest is written already"
        );
        drop(unfinished);
        let (mut disk, _, counts) = reopen(disk);
        assert_eq!(counts, (12, 10), "as if it had not begun");
        disk.store(&last).expect("room");
        assert_eq!(reopen(disk).2, (0, 10));
    }

    #[test]
    fn what_waits_to_be_sorted_is_counted_over_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("a new folder");
        for number in 1..=4 {
            disk.store(&delta(number, 1 << 20)).expect("room");
        }
        let unsorted = disk.unsorted;
        drop(disk);
        let (disk, _) = Disk::open(&path, 0, 1).expect("what was written");
        assert!(disk.unsorted >= unsorted, "{} of {unsorted}", disk.unsorted);
    }

    #[test]
    fn of_a_journal_that_is_cut_off_what_is_whole_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("a new folder");
        for number in 1..=4 {
            disk.store(&delta(number, 100)).expect("room");
        }
        drop(disk);
        let is_journal = |file: &std::path::PathBuf| file.extension() == Some("jnl".as_ref());
        let files = std::fs::read_dir(&path).expect("there");
        let mut files = files.map(|file| file.expect("readable").path());
        let journal = files.find(is_journal).expect("a journal");
        let whole = std::fs::read(&journal).expect("readable");
        let written = whole.iter().rposition(|byte| *byte != 0).expect("batches") + 1;
        let mut found = BTreeSet::new();
        for length in (0..=written).rev().step_by(13) {
            std::fs::write(&journal, &whole[..length]).expect("room");
            match Disk::open(&path, 0, 1) {
                Ok((_, state)) => {
                    let items = state.tables.get(&1).map_or(0, |table| table.items.len());
                    assert_eq!(items as u64, state.applied, "at {length}");
                    found.insert(state.applied);
                }
                // What is written first is part of making the folder.
                Err(DiskError::Missing) => assert!(found.contains(&0), "at {length}"),
                Err(error) => panic!("at {length}: {error}"),
            }
        }
        assert!(found.into_iter().eq(0..=4));
        let mut damaged = whole;
        damaged[written - 50] ^= 1;
        std::fs::write(&journal, damaged).expect("room");
        let opened = Disk::open(&path, 0, 1).map(drop);
        assert!(matches!(opened, Err(DiskError::Damaged(_))), "{opened:?}");
    }

    #[test]
    fn files_that_cannot_be_written_are_no_reason_to_wait_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("a new folder");
        // The journal stays open, so that commits go on until fjall knows.
        std::fs::remove_dir_all(path.join("keyspaces")).expect("a folder of files");
        let most = 2 * (MAX_MEMTABLES + 2) * MEMTABLE_BYTES / (1 << 20);
        let outcomes = (1..most as u64).map(|number| disk.store(&delta(number, 1 << 20)));
        let failed: Vec<DiskError> = outcomes.filter_map(Result::err).collect();
        assert!(
            matches!(failed.first(), Some(DiskError::Failed)),
            "{failed:?}"
        );
    }

    #[test]
    fn what_is_not_whole_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("region");
        let missing = |path: &Path| matches!(Disk::open(path, 0, 1), Err(DiskError::Missing));
        assert!(missing(&path));
        std::fs::create_dir(&path).expect("a folder");
        assert!(missing(&path), "nobody's folder");
        assert_eq!(std::fs::read_dir(&path).expect("there").count(), 0);

        let unfinished = Disk::database(&path, 0, |_| Ok(())).expect("a database");
        drop(unfinished);
        assert!(missing(&path), "an attempt that did not come to its end");
        let mut disk = Disk::create(&path, 0, &State::empty(1)).expect("another one");
        let mut batch = disk.batch();
        batch.put(
            FORMAT_KEY.to_vec(),
            write(&(FORMAT + 1), 8).expect("a number"),
        );
        disk.commit(batch, None).expect("room");
        assert!(matches!(Disk::open(&path, 0, 1), Err(DiskError::InUse)));
        drop(disk);
        let later = Disk::open(&path, 0, 1).map(drop);
        assert!(
            matches!(later, Err(DiskError::Format(format)) if format == FORMAT + 1),
            "{later:?}"
        );
    }
}
