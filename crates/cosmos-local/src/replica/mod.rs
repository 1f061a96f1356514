//! One region's copy of the data, as its gateway and the links share it.
//!
//! - [`state`]: items, change order and log,
//! - [`staging`]: changes before they are seen,
//! - [`seed`]: what a new region starts with,
//! - [`transaction`]: what clients ask to be done, decided.
//!
//! `applied` counts every mutation applied here, own or replicated, and is the region's `_lsn` and position in its change
//! feed. What arrives late from afar gets the next number like any other, so no reader of the feed can miss it.
//! Number, feed entry and visibility change under one lock. With a data folder, one thread works out what many writers
//! want, puts all of it on disk, and only then takes that lock: what can be seen is durable, writers share the wait for
//! the disk, and readers do not wait for it.

mod orders;
mod seed;
mod staging;
mod state;
mod transaction;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    disk::{DiskError, Storage},
    document::DocumentError,
    record::Record,
};
pub(crate) use orders::Ordered;
pub(crate) use seed::seed;
pub(crate) use staging::Delta;
use staging::Staged;
pub(crate) use state::{Item, State, Table, Tombstones, Version};
use transaction::Rejected;
pub(crate) use transaction::{Change, Outcome, Step, Transaction};

/// Commands that are made durable together at the most; fewer when what they write has so many bytes, or a little more.
const GROUP_COMMIT: usize = 512;
const GROUP_COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// Transactions that may wait for the disk; writers beyond wait themselves.
const WRITE_QUEUE: usize = 4096;

/// Regions of an account in its life at the most: the low digits of resource ids tell them apart.
pub(crate) const MAX_REGIONS: u64 = 32;

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("an item with this id exists already under this partition key")]
    Conflict,
    #[error(
        "another item under this partition key has the same values at the paths of a unique key"
    )]
    NotUnique,
    #[error("no item with this id exists under this partition key")]
    NotFound,
    #[error("the item does not meet the precondition")]
    PreconditionFailed,
    #[error("the item does not meet the patch's condition")]
    ConditionFalse,
    #[error(
        "the same region has accepted another version of this item before, which is in conflict too; let go of that one first, or write the item"
    )]
    Entangled,
    #[error("the items that a batch reads have more than 4 MB; read fewer at a time")]
    TooMuchRead,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Document(#[from] DocumentError),
    #[error("this region can no longer write to its data folder: {0}")]
    Disk(Arc<DiskError>),
    #[error("the region is shutting down")]
    Stopping,
    #[error("the region is being removed from the account")]
    Sealed,
}

impl WriteError {
    /// Whether it tells of the region, and not of what was to be done.
    pub(crate) fn is_of_the_region(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Stopping | Self::Sealed)
    }
}

type Reply = oneshot::Sender<Result<Vec<Outcome>, Rejected>>;

enum Command {
    Transact(Box<Transaction>, Reply),
    Apply(Vec<Arc<Record>>, oneshot::Sender<Result<(), WriteError>>),
    Trim(u64),
    Collect(Tombstones),
    Forget(u32),
    Seal(bool, oneshot::Sender<()>),
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
    pub(crate) fn in_memory(index: usize, state: State) -> Self {
        let applied = watch::channel(state.applied).0;
        Self {
            index,
            state: Arc::new(RwLock::new(state)),
            applied,
            writer: None,
        }
    }

    /// A replica that continues from what is on disk.
    pub(crate) fn on_disk(index: usize, state: State, mut disk: impl Storage) -> Self {
        let applied = watch::channel(state.applied).0;
        let state = Arc::new(RwLock::new(state));
        let (writer, mut commands) = mpsc::channel(WRITE_QUEUE);
        let (shared, published) = (Arc::clone(&state), applied.clone());
        std::thread::spawn(move || {
            let mut batch = Vec::new();
            let mut failed: Option<Arc<DiskError>> = None;
            while commands.blocking_recv_many(&mut batch, GROUP_COMMIT) > 0 {
                let mut group = batch.drain(..).peekable();
                while group.peek().is_some() {
                    let closed = commit(index, &shared, &mut disk, &mut failed, &mut group);
                    published.send_replace(read(&shared).applied);
                    if let Some(closed) = closed {
                        drop((disk, group, commands));
                        // Nobody waits for the disk when the account was dropped meanwhile.
                        let _ = closed.send(());
                        return;
                    }
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

    /// Changes a replica that has no disk.
    fn change<T>(&self, change: impl FnOnce(&mut Staged<'_>) -> T) -> T {
        let mut state = write(&self.state);
        let mut staged = Staged::new(&state);
        let result = change(&mut staged);
        let delta = staged.delta;
        state.publish(delta);
        self.applied.send_replace(state.applied);
        result
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Makes all changes of a transaction, or says why none was made; returns when they are as durable as this replica is.
    pub(crate) async fn transact(
        &self,
        transaction: Transaction,
    ) -> Result<Vec<Outcome>, Rejected> {
        let Some(writer) = &self.writer else {
            return self.change(|staged| staged.transact(self.index, transaction));
        };
        let stopping = || Rejected {
            step: 0,
            error: WriteError::Stopping,
        };
        let (reply, outcome) = oneshot::channel();
        writer
            .send(Command::Transact(Box::new(transaction), reply))
            .await
            .map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }

    /// Applies what another region has accepted, in its order.
    pub(crate) async fn apply(&self, records: Vec<Arc<Record>>) -> Result<(), WriteError> {
        let Some(writer) = &self.writer else {
            self.change(|staged| records.into_iter().for_each(|record| staged.apply(record)));
            return Ok(());
        };
        let (reply, outcome) = oneshot::channel();
        writer
            .send(Command::Apply(records, reply))
            .await
            .map_err(|_| WriteError::Stopping)?;
        outcome.await.map_err(|_| WriteError::Stopping)?
    }

    /// Lets clients change nothing any more, or again; not even those that were let in before. What others have accepted is
    /// applied all the same. When this returns, everything that was or will be accepted before it is in the log.
    pub(crate) async fn seal(&self, sealed: bool) {
        let Some(writer) = &self.writer else {
            return self.change(|staged| staged.delta.is_sealed = sealed);
        };
        let (done, is_done) = oneshot::channel();
        if writer.send(Command::Seal(sealed, done)).await.is_ok() {
            // An error means that the writer is gone already, and accepts nothing either.
            let _ = is_done.await;
        }
    }

    /// Closes the data folder, if there is one; it takes no more writes.
    pub(crate) async fn close(&self) {
        let Some(writer) = &self.writer else { return };
        let (closed, done) = oneshot::channel();
        if writer.send(Command::Close(closed)).await.is_ok() {
            // An error means that the writer is gone already, and the folder with it.
            let _ = done.await;
        }
    }

    /// Forgets own mutations that every region has applied.
    pub(crate) fn trim(&self, up_to: u64) {
        match &self.writer {
            None => self.change(|staged| staged.trim(up_to)),
            // When the queue is full, the next call trims these too.
            Some(writer) => drop(writer.try_send(Command::Trim(up_to))),
        }
    }

    /// Forgets items that were deleted.
    pub(crate) fn collect(&self, tombstones: Tombstones) {
        match &self.writer {
            None => self.change(|staged| staged.collect(tombstones)),
            // When the queue is full, the next call forgets these too.
            Some(writer) => drop(writer.try_send(Command::Collect(tombstones))),
        }
    }

    /// Forgets a container that was deleted.
    pub(crate) async fn forget(&self, container: u32) {
        match &self.writer {
            None => self.change(|staged| staged.forget(container)),
            // The writer is only gone when the account is; then the next start forgets.
            Some(writer) => drop(writer.send(Command::Forget(container)).await),
        }
    }
}

/// Works out the next commands of a batch, puts what they change on disk and makes it visible, in this order; answers when
/// all is done. Returns who asked to close the folder. Once the disk has failed, nothing changes any more.
fn commit(
    index: usize,
    state: &RwLock<State>,
    disk: &mut impl Storage,
    failed: &mut Option<Arc<DiskError>>,
    batch: &mut impl Iterator<Item = Command>,
) -> Option<oneshot::Sender<()>> {
    let mut closed = None;
    let mut written = Vec::new();
    let mut applied = Vec::new();
    let mut sealed = Vec::new();
    // Nobody else changes the state, so what is worked out on it still holds when it is published.
    let delta = {
        let state = read(state);
        let mut staged = Staged::new(&state);
        while staged.delta.bytes < GROUP_COMMIT_BYTES
            && closed.is_none()
            && let Some(command) = batch.next()
        {
            match command {
                Command::Transact(_, reply) if failed.is_some() => {
                    written.push((reply, Ok(Vec::new())))
                }
                Command::Transact(transaction, reply) => {
                    written.push((reply, staged.transact(index, *transaction)))
                }
                Command::Apply(_, reply) if failed.is_some() => applied.push(reply),
                Command::Apply(records, reply) => {
                    records.into_iter().for_each(|record| staged.apply(record));
                    applied.push(reply);
                }
                Command::Trim(up_to) => staged.trim(up_to),
                Command::Collect(tombstones) => staged.collect(tombstones),
                Command::Forget(container) => staged.forget(container),
                Command::Seal(is_sealed, reply) => {
                    staged.delta.is_sealed = is_sealed;
                    sealed.push(reply);
                }
                Command::Close(reply) => closed = Some(reply),
            }
        }
        staged.delta
    };
    if failed.is_none() {
        match disk.store(&delta) {
            Ok(()) => write(state).publish(delta),
            Err(cause) => {
                tracing::error!(error = %cause, "the data folder cannot be written; this region takes no more writes");
                *failed = Some(Arc::new(cause));
            }
        }
    }
    for (reply, outcome) in written {
        let outcome = match failed {
            Some(cause) => Err(Rejected {
                step: 0,
                error: WriteError::Disk(Arc::clone(cause)),
            }),
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
    for reply in sealed {
        let _ = reply.send(());
    }
    closed
}

/// A state is only changed by publishing what was worked out before, which leaves it whole.
fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        container::{Container, sample},
        disk::{Disk, tests::Failing},
        document::Document,
        record::{ItemKey, tests::record},
        ttl::Lifetimes,
    };

    fn creation(container: &Arc<Container>, id: &str) -> Transaction {
        let members = json!({"id": id, "k": "t"});
        let members = members.as_object().expect("an object").clone();
        let document = Document::new(members).expect("valid");
        Transaction {
            container: Arc::clone(container),
            partition: container
                .partition_key
                .value(vec![json!("t")])
                .expect("valid"),
            steps: vec![Step::new(Change::Create(document))],
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Action {
        Upsert(u8),
        Delete(u8),
        /// The other region's next mutation arrives; it knows this region's up to a part of them.
        Arrive(u8, f64),
        /// The other region has this part of all mutations.
        Trim(f64),
        /// Lets go of a version that has lost.
        Dismiss(u8),
        /// Forgets what was deleted.
        Collect,
        Forget,
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Action>>> {
        let id = || 0..3_u8;
        let action = prop_oneof![
            6 => id().prop_map(Action::Upsert),
            3 => id().prop_map(Action::Delete),
            3 => (id(), 0.0..1.0).prop_map(|(id, part)| Action::Arrive(id, part)),
            2 => (0.0..1.0).prop_map(Action::Trim),
            3 => id().prop_map(Action::Dismiss),
            1 => Just(Action::Collect),
            1 => Just(Action::Forget),
        ];
        prop::collection::vec(prop::collection::vec(action, 1..5), 1..12)
    }

    fn take(staged: &mut Staged<'_>, container: &Arc<Container>, action: Action) {
        let own = staged.delta.seen[0];
        let part = |part: f64, of: u64| (part * (of + 1) as f64) as u64;
        let mut one = |id: u8, change: Option<Change>| {
            let mut transaction = creation(container, &id.to_string());
            if let Some(change) = change {
                transaction.steps = vec![Step::new(change)];
            } else if let Change::Create(document) = transaction.steps[0].change.clone() {
                transaction.steps = vec![Step::new(Change::Upsert(document))];
            }
            // That there is nothing to delete is no matter here.
            let _ = staged.transact(0, transaction);
        };
        match action {
            Action::Upsert(id) => one(id, None),
            Action::Delete(id) => one(id, Some(Change::Delete { id: id.to_string() })),
            Action::Arrive(id, known) => {
                let number = staged.delta.seen[1] + 1;
                let context = [part(known, own), number - 1, 0];
                let mut arrived = record(1, number, context, 0.0, true);
                let changed = Arc::make_mut(&mut arrived);
                changed.container = container.number;
                changed.key.partition = creation(container, "0").partition;
                changed.key.id = id.to_string().into();
                staged.apply(arrived);
            }
            Action::Dismiss(id) => {
                let mut transaction = creation(container, &id.to_string());
                let (partition, id) = (transaction.partition.clone(), id.to_string());
                let key = ItemKey {
                    partition,
                    id: id.as_str().into(),
                };
                let item = staged.item(container.number, &key);
                let losers = item.map(Item::losers).unwrap_or_default();
                if let Some(loser) = losers.first().map(|it| (it.origin, it.number)) {
                    transaction.steps = vec![Step::new(Change::Dismiss { id, loser })];
                    // It may be that it cannot be told apart.
                    let _ = staged.transact(0, transaction);
                }
            }
            Action::Collect => {
                let ids = (0..3_u8).map(|id| creation(container, &id.to_string()));
                let keys = ids.enumerate().map(|(id, transaction)| ItemKey {
                    partition: transaction.partition,
                    id: id.to_string().into(),
                });
                let items = keys.map(|key| (container.number, key, true)).collect();
                let known = staged.delta.seen.clone();
                staged.collect(Tombstones { known, items });
            }
            Action::Trim(known) => staged.trim(part(known, staged.base.seen[0])),
            Action::Forget => staged.forget(container.number),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The log has no rows of its own for what is in its item's; whatever happens to items, all of it is found again.
        #[test]
        fn what_others_need_is_found_again_on_disk(groups in groups()) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("region");
            let container = sample();
            let mut state = State::empty(2);
            let mut disk = Disk::create(&path, 0, &state).expect("a new folder");
            for group in groups {
                let mut staged = Staged::new(&state);
                group.into_iter().for_each(|action| take(&mut staged, &container, action));
                let delta = staged.delta;
                disk.store(&delta).expect("room");
                state.publish(delta);
                drop(disk);
                let (again, found) = Disk::open(&path, 0, 2).expect("what was written");
                disk = again;
                prop_assert_eq!(&found.log, &state.log);
                prop_assert_eq!((&found.seen, found.applied), (&state.seen, state.applied));
                let items = |state: &State| {
                    let items = state.tables.values().flat_map(|table| table.items.clone());
                    items.map(|(key, item)| (key, item.siblings().to_vec())).collect::<Vec<_>>()
                };
                prop_assert_eq!(items(&found), items(&state));
            }
        }
    }

    #[test]
    fn groups_are_bounded_in_bytes() {
        let container = sample();
        let state = RwLock::new(State::empty(2));
        let mut disk = Failing(Arc::default());
        let large = |id: u64| {
            let mut transaction = creation(&container, &id.to_string());
            let members = json!({"id": id.to_string(), "k": "t", "text": "x".repeat(GROUP_COMMIT_BYTES / 10)});
            let members = members.as_object().expect("an object").clone();
            let document = Document::new(members).expect("valid");
            transaction.steps = vec![Step::new(Change::Create(document))];
            Command::Transact(Box::new(transaction), oneshot::channel().0)
        };
        let mut batch = (0..12).map(large);
        let mut commit = || {
            commit(0, &state, &mut disk, &mut None, &mut batch);
            read(&state).applied
        };
        assert_eq!([commit(), commit()], [10, 12]);
    }

    fn ids(replica: &Replica, container: &Container) -> Vec<String> {
        let state = replica.read();
        let items = state
            .tables
            .get(&container.number)
            .into_iter()
            .flat_map(|table| &table.items);
        items
            .filter(|(_, item)| item.visible(Lifetimes::now(container)).is_some())
            .map(|(key, _)| key.id.to_string())
            .collect()
    }

    #[tokio::test]
    async fn what_is_not_on_disk_is_neither_acknowledged_nor_seen() {
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Failing(Arc::clone(&fails));
        let replica = Replica::on_disk(0, State::empty(2), disk);
        let container = sample();
        replica
            .transact(creation(&container, "a"))
            .await
            .expect("the disk is good");
        fails.store(true, Ordering::SeqCst);
        let refused = replica.transact(creation(&container, "b")).await;
        assert!(
            matches!(
                &refused,
                Err(Rejected {
                    error: WriteError::Disk(_),
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(
            (ids(&replica, &container), replica.read().applied),
            (vec!["a".into()], 1)
        );
        assert_eq!(replica.read().log.len(), 1, "and it goes nowhere");
        fails.store(false, Ordering::SeqCst);
        assert!(
            replica.transact(creation(&container, "c")).await.is_err(),
            "once is enough"
        );
        replica.close().await;
    }
}
