//! One region's copy of the data, as its gateway and the links share it.
//!
//! - [`state`]: items, change order and log,
//! - [`transaction`]: what clients ask to be done, decided.
//!
//! `applied` counts every mutation applied here, own or replicated, and is the region's `_lsn` and position in its change
//! feed. What arrives late from afar gets the next number like any other, so no reader of the feed can miss it.
//! Number, feed entry and visibility change under one lock. With a data folder they are on disk too before that lock is
//! released: what can be seen is durable.

mod state;
mod transaction;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    disk::{Disk, DiskError},
    document::DocumentError,
    record::Record,
};
pub(crate) use state::{Item, State, Table, Touched};
pub(crate) use transaction::{Change, Outcome, Rejected, Step, Transaction};

/// Transactions that are made durable together at the most.
const GROUP_COMMIT: usize = 512;

/// Transactions that may wait for the disk; writers beyond wait themselves.
const WRITE_QUEUE: usize = 4096;

/// Regions of an account at the most: the low digits of resource ids tell them apart.
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
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Document(#[from] DocumentError),
    #[error("this region can no longer write to its data folder: {0}")]
    Disk(Arc<DiskError>),
    #[error("the region is shutting down")]
    Stopping,
}

type Reply = oneshot::Sender<Result<Vec<Outcome>, Rejected>>;

enum Command {
    Transact(Box<Transaction>, Reply),
    Apply(Vec<Arc<Record>>, oneshot::Sender<Result<(), WriteError>>),
    Trim(u64),
    Forget(u32),
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

    /// Makes all changes of a transaction, or says why none was made; returns when they are as durable as this replica is.
    pub(crate) async fn transact(
        &self,
        transaction: Transaction,
    ) -> Result<Vec<Outcome>, Rejected> {
        let Some(writer) = &self.writer else {
            let mut state = write(&self.state);
            let outcome = state.transact(self.index, transaction, &mut Touched::default());
            self.applied.send_replace(state.applied);
            return outcome;
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
    pub(crate) async fn forget(&self, container: u32) {
        match &self.writer {
            None => write(&self.state).forget(container, &mut Touched::default()),
            // The writer is only gone when the account is; then the next start forgets.
            Some(writer) => drop(writer.send(Command::Forget(container)).await),
        }
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
                Command::Transact(_, reply) if failed.is_some() => {
                    written.push((reply, Ok(Vec::new())))
                }
                Command::Transact(transaction, reply) => {
                    written.push((reply, state.transact(index, *transaction, &mut touched)))
                }
                Command::Apply(_, reply) if failed.is_some() => applied.push(reply),
                Command::Apply(records, reply) => {
                    for record in records {
                        state.apply(record, &mut touched);
                    }
                    applied.push(reply);
                }
                Command::Trim(up_to) => state.trim(up_to, &mut touched),
                Command::Forget(container) => state.forget(container, &mut touched),
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
    closed
}

/// Every step leaves the state whole, but for the assertion of [`State::apply`], which comes before the first change.
fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}
