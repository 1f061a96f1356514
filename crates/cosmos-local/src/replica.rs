//! One region's copy of the data: items, the order in which changes were applied here, and the log that other regions
//! read from.
//!
//! `applied` counts every mutation applied here, own or replicated, and is the region's `_lsn` and position in its change
//! feed. What arrives late from afar gets the next number like any other, so no reader of the feed can miss it.
//! Number, feed entry and visibility change under one lock. With a data folder they are on disk too before that lock is
//! released: what can be seen is durable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    disk::{Disk, DiskError},
    metadata::Container,
    partition_key::PartitionKey,
    record::{ItemKey, Record, STAMP_COUNTER_BITS, context, merge, winner},
};

/// Mutations that are made durable together at the most.
const GROUP_COMMIT: usize = 512;

/// Mutations that may wait for the disk; writers beyond wait themselves.
const WRITE_QUEUE: usize = 4096;

/// A document that has been taken apart: no system properties, id checked.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) id: String,
    pub(crate) members: Map<String, Value>,
}

/// What a client asks to be done to one item.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create(Document),
    Upsert(Document),
    Replace(Document),
    Delete { id: String },
}

/// A change with everything needed to decide and apply it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) container: Arc<Container>,
    pub(crate) partition: PartitionKey,
    pub(crate) change: Change,
    /// `If-Match`
    pub(crate) if_match: Option<String>,
    /// `If-None-Match: *`
    pub(crate) only_if_missing: bool,
}

/// A change that was made.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) record: Arc<Record>,
    /// Whether the item was not there before.
    pub(crate) created: bool,
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("an item with this id exists already under this partition key")]
    Conflict,
    #[error("no item with this id exists under this partition key")]
    NotFound,
    #[error("the item has another etag than the precondition names")]
    PreconditionFailed,
    #[error("this region can no longer write to its data folder: {0}")]
    Disk(Arc<DiskError>),
    #[error("the region is shutting down")]
    Stopping,
}

/// An item and its place in the feed.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    siblings: Vec<Arc<Record>>,
    /// Where its visible state last changed.
    pub(crate) position: u64,
    /// What this region had seen, from each, after that change.
    pub(crate) seen: Arc<[u64]>,
    /// Origin and number of the record that made that change.
    pub(crate) cause: (usize, u64),
    /// When that change was applied here, in seconds since 1970.
    pub(crate) applied_at: i64,
}

impl Item {
    pub(crate) fn from_disk(
        siblings: Vec<Arc<Record>>,
        position: u64,
        seen: Arc<[u64]>,
        cause: (usize, u64),
        applied_at: i64,
    ) -> Self {
        Self {
            siblings,
            position,
            seen,
            cause,
            applied_at,
        }
    }

    pub(crate) fn siblings(&self) -> &[Arc<Record>] {
        &self.siblings
    }

    /// The version everybody sees; `None` when that is a delete.
    pub(crate) fn visible(&self) -> Option<&Arc<Record>> {
        winner(&self.siblings).filter(|record| record.body.is_some())
    }
}

/// The items of one container, and their order of change.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) items: BTreeMap<ItemKey, Item>,
    pub(crate) feed: BTreeMap<u64, ItemKey>,
}

/// Everything a region has.
#[derive(Debug)]
pub(crate) struct State {
    /// Mutations applied here, by the region that accepted them.
    pub(crate) seen: Vec<u64>,
    /// All mutations applied here.
    pub(crate) applied: u64,
    pub(crate) tables: HashMap<u32, Table>,
    /// Own mutations that other regions may still need, by number.
    pub(crate) log: BTreeMap<u64, Arc<Record>>,
    pub(crate) stamp: u64,
}

/// What a mutation has touched, for the disk.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) items: Vec<(u32, ItemKey)>,
    pub(crate) logged: Vec<u64>,
    pub(crate) trimmed: Vec<u64>,
}

impl State {
    pub(crate) fn empty(regions: usize) -> Self {
        Self {
            seen: vec![0; regions],
            applied: 0,
            tables: HashMap::new(),
            log: BTreeMap::new(),
            stamp: 0,
        }
    }

    fn next_stamp(&mut self) -> u64 {
        let now = (now_ms() << STAMP_COUNTER_BITS).max(self.stamp + 1);
        self.stamp = now;
        now
    }

    fn write(
        &mut self,
        region: usize,
        write: Write,
        touched: &mut Touched,
    ) -> Result<Written, WriteError> {
        let Write {
            container,
            partition,
            change,
            if_match,
            only_if_missing,
        } = write;
        let id = match &change {
            Change::Create(document) | Change::Upsert(document) | Change::Replace(document) => {
                document.id.clone()
            }
            Change::Delete { id } => id.clone(),
        };
        let key = ItemKey { partition, id };
        let item = self
            .tables
            .get(&container.number)
            .and_then(|table| table.items.get(&key));
        let existing = item.and_then(Item::visible).cloned();
        let context = context(&self.seen, item.map(Item::siblings).unwrap_or_default());
        match (&change, &existing) {
            (Change::Create(_), Some(_)) => return Err(WriteError::Conflict),
            (Change::Replace(_) | Change::Delete { .. }, None) => return Err(WriteError::NotFound),
            (_, Some(_)) if only_if_missing => return Err(WriteError::PreconditionFailed),
            (_, Some(existing))
                if if_match
                    .as_ref()
                    .is_some_and(|etag| etag != "*" && *etag != existing.etag) =>
            {
                return Err(WriteError::PreconditionFailed);
            }
            _ => {}
        }
        let stamp = self.next_stamp();
        let ts = i64::try_from((stamp >> STAMP_COUNTER_BITS) / 1000).unwrap_or(i64::MAX);
        let number = self.seen[region] + 1;
        let ordinal = existing
            .as_ref()
            .map_or(number * MAX_REGIONS + region as u64, |existing| {
                existing.ordinal
            });
        let etag = format!("\"{:04x}-{number:x}-{:08x}\"", region, stamp & 0xffff_ffff);
        let (body, rank) = match change {
            Change::Delete { .. } => (None, ts as f64),
            Change::Create(document) | Change::Upsert(document) | Change::Replace(document) => {
                let rank = container
                    .conflict_rank(&document.members)
                    .unwrap_or(ts as f64);
                (
                    Some(container.render(document.members, ordinal, &etag, ts)),
                    rank,
                )
            }
        };
        let record = Arc::new(Record {
            origin: region,
            number,
            context,
            container: container.number,
            key,
            body,
            etag,
            ordinal,
            ts,
            stamp,
            rank,
        });
        self.log.insert(number, Arc::clone(&record));
        touched.logged.push(number);
        self.apply(Arc::clone(&record), touched);
        Ok(Written {
            record,
            created: existing.is_none(),
        })
    }

    /// Applies a mutation, once: one that was applied before changes nothing.
    pub(crate) fn apply(&mut self, record: Arc<Record>, touched: &mut Touched) {
        let seen = self.seen[record.origin];
        if record.number <= seen {
            return;
        }
        assert_eq!(
            record.number,
            seen + 1,
            "a link delivers the mutations of its origin in order"
        );
        self.seen[record.origin] = record.number;
        self.applied += 1;
        self.stamp = self.stamp.max(record.stamp);
        let key = record.key.clone();
        let container = record.container;
        let table = self.tables.entry(container).or_default();
        let cause = (record.origin, record.number);
        let before = table
            .items
            .get(&key)
            .and_then(|item| winner(&item.siblings))
            .map(|record| record.etag.clone());
        let item = table.items.entry(key.clone()).or_insert_with(|| Item {
            siblings: Vec::new(),
            position: 0,
            seen: Arc::from([]),
            cause,
            applied_at: 0,
        });
        merge(&mut item.siblings, record);
        if winner(&item.siblings).map(|record| &record.etag) != before.as_ref() {
            table.feed.remove(&item.position);
            item.position = self.applied;
            item.seen = Arc::from(self.seen.as_slice());
            item.cause = cause;
            item.applied_at = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
            if item.visible().is_some() {
                table.feed.insert(self.applied, key.clone());
            }
        }
        touched.items.push((container, key));
    }

    fn trim(&mut self, up_to: u64, touched: &mut Touched) {
        while let Some(entry) = self.log.first_entry()
            && *entry.key() <= up_to
        {
            touched.trimmed.push(*entry.key());
            entry.remove();
        }
    }
}

/// Regions of an account at the most: the low digits of resource ids tell them apart.
pub(crate) const MAX_REGIONS: u64 = 32;

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

enum Command {
    Write(Box<Write>, oneshot::Sender<Result<Written, WriteError>>),
    Apply(Vec<Arc<Record>>, oneshot::Sender<Result<(), WriteError>>),
    Trim(u64),
    Close(oneshot::Sender<()>),
}

/// A region's copy, shared by its gateway and the links.
pub(crate) struct Replica {
    pub(crate) index: usize,
    state: Arc<RwLock<State>>,
    /// Number of mutations applied, for those who wait for more.
    applied: watch::Sender<u64>,
    /// With a data folder, all mutations go through the one thread that owns it.
    writer: Option<mpsc::Sender<Command>>,
}

impl Replica {
    /// A replica in memory.
    pub(crate) fn in_memory(index: usize, regions: usize) -> Self {
        let state = Arc::new(RwLock::new(State::empty(regions)));
        Self {
            index,
            state,
            applied: watch::channel(0).0,
            writer: None,
        }
    }

    /// A replica that continues from what is on disk.
    pub(crate) fn on_disk(index: usize, state: State, mut disk: Disk) -> Self {
        let applied = watch::channel(state.applied).0;
        let state = Arc::new(RwLock::new(state));
        let (writer, mut commands) = mpsc::channel(WRITE_QUEUE);
        let (shared, published) = (Arc::clone(&state), applied.clone());
        std::thread::spawn(move || {
            let mut batch = Vec::new();
            let mut failed: Option<Arc<DiskError>> = None;
            while commands.blocking_recv_many(&mut batch, GROUP_COMMIT) > 0 {
                let closed = commit(index, &shared, &mut disk, &mut failed, batch.drain(..));
                published.send_replace(read(&shared).applied);
                if let Some(closed) = closed {
                    drop((disk, commands));
                    // Nobody waits for the file when the account was dropped meanwhile.
                    let _ = closed.send(());
                    return;
                }
            }
        });
        Self {
            index,
            state,
            applied,
            writer: Some(writer),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Makes a change, or says why not; returns when it is as durable as this replica is.
    pub(crate) async fn write(&self, change: Write) -> Result<Written, WriteError> {
        let Some(writer) = &self.writer else {
            let mut state = write(&self.state);
            let written = state.write(self.index, change, &mut Touched::default());
            self.applied.send_replace(state.applied);
            return written;
        };
        let (reply, outcome) = oneshot::channel();
        writer
            .send(Command::Write(Box::new(change), reply))
            .await
            .map_err(|_| WriteError::Stopping)?;
        outcome.await.map_err(|_| WriteError::Stopping)?
    }

    /// Applies what another region has accepted, in its order.
    pub(crate) async fn apply(&self, records: Vec<Arc<Record>>) -> Result<(), WriteError> {
        let Some(writer) = &self.writer else {
            let mut state = write(&self.state);
            for record in records {
                state.apply(record, &mut Touched::default());
            }
            self.applied.send_replace(state.applied);
            return Ok(());
        };
        let (reply, outcome) = oneshot::channel();
        writer
            .send(Command::Apply(records, reply))
            .await
            .map_err(|_| WriteError::Stopping)?;
        outcome.await.map_err(|_| WriteError::Stopping)?
    }

    /// Closes the data file, if there is one; it takes no more writes.
    pub(crate) async fn close(&self) {
        let Some(writer) = &self.writer else { return };
        let (closed, done) = oneshot::channel();
        if writer.send(Command::Close(closed)).await.is_ok() {
            // An error means that the writer is gone already, and the file with it.
            let _ = done.await;
        }
    }

    /// Forgets own mutations that every region has applied.
    pub(crate) fn trim(&self, up_to: u64) {
        match &self.writer {
            None => write(&self.state).trim(up_to, &mut Touched::default()),
            // When the queue is full, the next call trims these too.
            Some(writer) => drop(writer.try_send(Command::Trim(up_to))),
        }
    }

    /// Forgets a container that was deleted.
    pub(crate) fn forget(&self, container: u32) {
        write(&self.state).tables.remove(&container);
    }
}

/// Applies a batch and puts it on disk under one lock; answers when both are done. Returns who asked to close the file.
fn commit(
    index: usize,
    state: &RwLock<State>,
    disk: &mut Disk,
    failed: &mut Option<Arc<DiskError>>,
    batch: impl Iterator<Item = Command>,
) -> Option<oneshot::Sender<()>> {
    let mut closed = None;
    let mut written = Vec::new();
    let mut applied = Vec::new();
    {
        let mut state = write(state);
        let mut touched = Touched::default();
        for command in batch {
            match command {
                Command::Write(_, reply) if failed.is_some() => {
                    written.push((reply, Err(WriteError::Stopping)))
                }
                Command::Write(change, reply) => {
                    written.push((reply, state.write(index, *change, &mut touched)))
                }
                Command::Apply(_, reply) if failed.is_some() => applied.push(reply),
                Command::Apply(records, reply) => {
                    for record in records {
                        state.apply(record, &mut touched);
                    }
                    applied.push(reply);
                }
                Command::Trim(up_to) => state.trim(up_to, &mut touched),
                Command::Close(reply) => closed = Some(reply),
            }
        }
        if failed.is_none()
            && let Err(cause) = disk.store(&state, &touched)
        {
            tracing::error!(error = %cause, "the data folder cannot be written; this region takes no more writes");
            *failed = Some(Arc::new(cause));
        }
    }
    for (reply, outcome) in written {
        let outcome = match failed {
            Some(cause) => Err(WriteError::Disk(Arc::clone(cause))),
            None => outcome,
        };
        // A client that has gone needs no answer.
        let _ = reply.send(outcome);
    }
    for reply in applied {
        let outcome = match failed {
            Some(cause) => Err(WriteError::Disk(Arc::clone(cause))),
            None => Ok(()),
        };
        let _ = reply.send(outcome);
    }
    closed
}

/// Every step leaves the state whole, but for the assertion of [`State::apply`], which comes before the first change.
fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}
