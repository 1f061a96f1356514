//! `cosmosDBTrigger`: a change feed processor.
//!
//! ```text
//! listen ── prepare: containers, leases created once, "from now" pinned
//!    │
//!    ├─ every acquire interval: list the leases, decide (balance), take some (store)
//!    │
//!    └─ per lease that is ours: a pump
//!          read a page (feed) ─► FeedSink::deliver ─► checkpoint (store) ─► …
//!          and beside it: renew every renew interval
//! ```
//!
//! * [`lease`]: the documents. * [`balance`]: who takes what. * [`store`]: conditional writes.
//! * [`feed`]: pages. * [`pump`]: one lease. * [`trouble`]: what is logged and shown of failures.
//!   This file: the life of the listener.
//!
//! What it promises:
//! * A position is written only after the sink said [`Delivery::Delivered`](crate::binding::Delivery);
//!   what was delivered but not recorded is delivered again.
//! * Without a starting point in the configuration the feed begins at the moment at which the
//!   leases are first created. That moment is written into the leases before the board says
//!   `Running`; a change accepted afterwards is delivered even if the host is killed before it has
//!   read anything. (.NET evaluates "now" when a host first polls.)
//! * Trouble of the service never ends a listener that is running; it is logged when it begins and
//!   when it ends. Only a missing container, or missing leases, do, since both may come back under
//!   other ids; the host starts the listener again.
//!
//! Local choices: an owner name may be fixed, and leases that bear it are taken back at once; a
//! bootstrap lock is broken when it stays the same for longer than its time to live, also where
//! the lease container does not expire items.
//!
//! Sources: `Azure/azure-cosmos-dotnet-v3: Microsoft.Azure.Cosmos/src/ChangeFeedProcessor`,
//! `Azure/azure-webjobs-sdk-extensions: src/WebJobs.Extensions.CosmosDB/Trigger`.

mod balance;
mod feed;
mod lease;
mod pump;
mod store;
mod trouble;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::time::OffsetDateTime;
use azure_data_cosmos::models::TimeToLive;
use azure_data_cosmos::options::ChangeFeedStartFrom;
use jiff::Timestamp;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::lease::{LOCK_TTL_SECONDS, LeaseDocument, LeaseIds};
use self::pump::{Pump, PumpEnd};
use self::store::{LeaseStore, Lock, OwnedLease, StoredLease, UpdateError};
use self::trouble::Trouble;
use super::backoff::Backoff;
use super::clients::{Container, ContainerAddress, CosmosClients, CreateContainer, bounded};
use super::error::Error;
use crate::binding::{
    BindingError, CosmosTrigger, FeedSink, FeedStart, LeaseStatus, ListenerBoard, ListenerContext,
    ListenerState,
};

/// First pause after a failed attempt to reach the service.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Longest pause between attempts to reach the service.
pub const RETRY_CAP: Duration = Duration::from_secs(15);

/// Pause between looks at a bootstrap lock that another host holds.
pub const LOCK_POLL: Duration = Duration::from_millis(500);

/// Longest time for giving one lease back at a stop; then it is left to expire.
pub const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Shortest interval that is honoured: an interval of 0 would keep a processor busy.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// A lock that has not changed for this long was left behind.
const LOCK_STALE: Duration = Duration::from_secs(LOCK_TTL_SECONDS as u64 + 5);

/// Partition key path of lease containers.
const LEASE_KEY_PATH: &str = "/id";

/// Listens until `stop`: acquires leases, delivers batches to `sink`, writes positions.
///
/// After `stop` is cancelled it waits for the deliveries that are under way (the sink bounds
/// them), writes what they reached, gives the leases back and returns `Ok`. Dropping the future
/// ends everything at once; the leases then stay taken until they expire.
///
/// # Errors
/// What waiting cannot cure: an unusable setting, a missing container, leases of another kind of
/// host. Also when container or leases disappear while listening.
pub async fn listen<S: FeedSink>(
    clients: &CosmosClients,
    trigger: &CosmosTrigger,
    context: &ListenerContext,
    sink: S,
    stop: CancellationToken,
) -> Result<(), BindingError> {
    let listener = Listener {
        clients: clients.clone(),
        trigger: trigger.clone(),
        function: context.function.clone(),
        me: context
            .owner
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string()),
        board: context.board.clone(),
        trouble: Trouble::new(&context.function, context.board.clone()),
        sink,
        stop,
    };
    listener.run().await.map_err(BindingError::from)
}

struct Listener<S> {
    clients: CosmosClients,
    trigger: CosmosTrigger,
    function: String,
    me: String,
    board: ListenerBoard,
    trouble: Trouble,
    sink: S,
    stop: CancellationToken,
}

/// What [`Listener::prepare`] found or made.
struct Prepared {
    monitored: Arc<Container>,
    store: Arc<LeaseStore>,
}

/// The leases this host reads, each by one task.
#[derive(Default)]
struct Pumps {
    tasks: JoinSet<PumpEnd>,
    /// Lease tokens by task.
    tokens: HashMap<Id, String>,
}

impl Pumps {
    fn holds(&self, token: &str) -> bool {
        self.tokens.values().any(|held| held == token)
    }

    /// The token of the next pump that ended, and why; never while there is none.
    async fn ended(&mut self) -> (String, PumpEnd) {
        let Some(joined) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, end) = match joined {
            Ok(ended) => ended,
            Err(error) => {
                // A panic must not take the other leases along; this one is acquired again.
                tracing::error!(%error, "the reader of a lease broke down");
                (error.id(), PumpEnd::Lost)
            }
        };
        (self.tokens.remove(&id).unwrap_or_default(), end)
    }
}

impl<S: FeedSink> Listener<S> {
    async fn run(self) -> Result<(), Error> {
        let Some(prepared) = self.prepare_with_patience().await? else {
            self.board.state(ListenerState::Stopped);
            return Ok(());
        };
        self.board.state(ListenerState::Running);
        tracing::info!(
            function = self.function,
            owner = self.me,
            "listening to the change feed"
        );

        // Ends this listener's pumps when it ends by itself; a stop from outside is passed on.
        let stop = self.stop.child_token();
        let mut pumps = Pumps::default();
        let result = self.balance(&prepared, &mut pumps, &stop).await;

        stop.cancel();
        while !pumps.tasks.is_empty() {
            pumps.ended().await;
        }
        self.board.leases(Vec::new());
        if result.is_ok() {
            self.board.state(ListenerState::Stopped);
        }
        result
    }

    /// Prepares; tries again as long as the service cannot be reached. `None` = stopped.
    async fn prepare_with_patience(&self) -> Result<Option<Prepared>, Error> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            let mut preparing = Box::pin(self.prepare());
            let prepared = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    // It may hold the bootstrap lock; let it come to an end if that is near.
                    if tokio::time::timeout(RELEASE_LIMIT, preparing).await.is_err() {
                        tracing::debug!(function = self.function, "stopped in the middle of starting");
                    }
                    return Ok(None);
                }
                prepared = &mut preparing => prepared,
            };
            match prepared {
                Ok(prepared) => {
                    self.trouble.over("start");
                    return Ok(Some(prepared));
                }
                Err(error) if error.is_transient() => {
                    self.trouble.is("start", &error);
                    if !self.pause(backoff.failed()).await {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn prepare(&self) -> Result<Prepared, Error> {
        let trigger = &self.trigger;
        let monitored_at = ContainerAddress {
            connection: trigger.connection.clone(),
            preferred_locations: trigger.preferred_locations.clone(),
            database: trigger.database.clone(),
            container: trigger.container.clone(),
        };
        let leases_at = ContainerAddress {
            connection: trigger.lease_connection.clone(),
            preferred_locations: trigger.preferred_locations.clone(),
            database: trigger.lease_database.clone(),
            container: trigger.lease_container.clone(),
        };
        let host = self.clients.account_host(&monitored_at.connection)?;
        let lease_host = self.clients.account_host(&leases_at.connection)?;
        if host == lease_host && monitored_at.path() == leases_at.path() {
            return Err(Error::SameContainer(monitored_at.path()));
        }

        // What an earlier life of this listener knew may be gone by now.
        self.clients.forget(&monitored_at);
        self.clients.forget(&leases_at);
        let monitored = match self.clients.container(&monitored_at).await {
            Err(error) if error.is_not_found() => return Err(self.monitored_missing()),
            other => other?,
        };
        let leases = self.lease_container(&leases_at).await?;
        let ids = LeaseIds::new(
            &trigger.lease_prefix,
            &host,
            &self.database_rid(&monitored_at).await?,
            monitored
                .properties
                .system_properties
                .resource_id
                .as_deref()
                .ok_or(Error::Incomplete("the resource id of the container"))?,
        );
        let store = Arc::new(LeaseStore::new(leases, ids));
        self.bootstrap(&store, &monitored).await?;
        if let Some(foreign) = store.list().await?.iter().find(|l| l.document.is_foreign()) {
            return Err(Error::ForeignLease {
                id: foreign.document.id.clone(),
            });
        }
        Ok(Prepared { monitored, store })
    }

    async fn database_rid(&self, address: &ContainerAddress) -> Result<String, Error> {
        let action = || format!("reading database {}", address.database);
        let database = self.clients.database(address).await?;
        let properties = bounded(action, database.read(None)).await?;
        properties
            .into_model()
            .map_err(Error::service(action()))?
            .system_properties
            .resource_id
            .ok_or(Error::Incomplete("the resource id of the database"))
    }

    async fn lease_container(&self, at: &ContainerAddress) -> Result<Arc<Container>, Error> {
        let container = match self.clients.container(at).await {
            Err(error) if error.is_not_found() => {
                if !self.trigger.create_lease_container {
                    return Err(Error::LeaseContainerMissing {
                        database: at.database.clone(),
                        container: at.container.clone(),
                    });
                }
                let create = CreateContainer {
                    partition_key_path: LEASE_KEY_PATH.to_owned(),
                    throughput: self.trigger.lease_container_throughput.map(u64::from),
                };
                // TTL on, without a default: the bootstrap lock may expire, leases never do.
                self.clients
                    .create(at, &create, TimeToLive::NoDefault)
                    .await?;
                self.clients.container(at).await?
            }
            other => other?,
        };
        let paths = container.partition_key_paths();
        if paths != [LEASE_KEY_PATH] {
            return Err(Error::LeaseContainerKey {
                container: at.container.clone(),
                found: paths.join(", "),
            });
        }
        Ok(container)
    }

    /// Sees to it that the leases exist: creates them, or waits for the host that does.
    async fn bootstrap(
        &self,
        store: &Arc<LeaseStore>,
        monitored: &Arc<Container>,
    ) -> Result<(), Error> {
        let mut seen: Option<(azure_core::http::Etag, Instant)> = None;
        while !store.is_initialised().await? && !self.stop.is_cancelled() {
            match store.lock(&self.me).await? {
                Lock::Mine(lock) => {
                    // The host before us may have finished between our two looks.
                    let created = if store.is_initialised().await? {
                        Ok(())
                    } else {
                        self.create_leases(store, monitored).await
                    };
                    store.unlock(lock).await?;
                    created?;
                }
                Lock::Gone => {}
                Lock::Other(lock) => match &seen {
                    Some((known, since)) if *known == lock => {
                        if since.elapsed() > LOCK_STALE {
                            tracing::warn!(
                                function = self.function,
                                "removing a bootstrap lock that was left behind"
                            );
                            store.unlock(lock).await?;
                        } else {
                            self.pause(LOCK_POLL).await;
                        }
                    }
                    _ => seen = Some((lock, Instant::now())),
                },
            }
        }
        Ok(())
    }

    /// Creates a lease for every part of the container that has none.
    async fn create_leases(
        &self,
        store: &Arc<LeaseStore>,
        monitored: &Arc<Container>,
    ) -> Result<(), Error> {
        let existing = store.list().await?;
        let covered: Vec<_> = existing
            .iter()
            .filter_map(|lease| lease.document.range().cloned())
            .collect();
        for partition in feed::partitions(monitored).await? {
            for range in lease::uncovered(&partition, &covered) {
                let position = match self.trigger.start {
                    FeedStart::Now => Some(feed::position_of_now(monitored.clone(), &range).await?),
                    FeedStart::Beginning | FeedStart::Time(_) => None,
                };
                let lease = LeaseDocument::unowned(store.ids(), range, position, Timestamp::now());
                store.create(&lease).await?;
            }
        }
        store.mark_initialised().await
    }

    /// Takes leases as others leave them, until stopped.
    async fn balance(
        &self,
        prepared: &Prepared,
        pumps: &mut Pumps,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut round = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                (token, end) = pumps.ended() => {
                    self.trouble.over(&token);
                    self.board.update_leases(|leases| leases.retain(|l| l.lease != token));
                    if end == PumpEnd::ContainerGone {
                        return Err(self.monitored_missing());
                    }
                    continue;
                }
                () = tokio::time::sleep_until(round) => {}
            }
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.release_unread(&prepared.store, pumps).await;
                    return Ok(());
                }
                taken = self.take_leases(&prepared.store, pumps) => taken,
            };
            let pause = match taken {
                Ok(taken) => {
                    backoff.succeeded();
                    self.trouble.over("leases");
                    for lease in taken {
                        self.start_pump(prepared, pumps, lease, stop)?;
                    }
                    self.trigger.lease_acquire_interval.max(MIN_INTERVAL)
                }
                Err(error) if error.is_not_found() || matches!(error, Error::LeasesGone) => {
                    return Err(error);
                }
                Err(error) => {
                    self.trouble.is("leases", &error);
                    backoff.failed().min(self.trigger.lease_acquire_interval)
                }
            };
            round = tokio::time::Instant::now() + pause;
        }
    }

    /// One round: looks at all leases and takes those that are due.
    ///
    /// Cancelling it may leave a lease taken that nobody reads, see [`Self::release_unread`].
    async fn take_leases(
        &self,
        store: &Arc<LeaseStore>,
        pumps: &Pumps,
    ) -> Result<Vec<StoredLease>, Error> {
        let now = Timestamp::now();
        let mut leases = store.list().await?;
        if leases.is_empty() {
            return Err(Error::LeasesGone);
        }
        leases.retain(|lease| !lease.document.is_foreign());
        let views: Vec<_> = leases
            .iter()
            .map(|lease| balance::LeaseView {
                id: &lease.document.id,
                owner: lease.document.owner.as_deref(),
                expired: lease
                    .document
                    .is_expired(now, self.trigger.lease_expiration_interval),
                held: pumps.holds(&lease.document.lease_token),
            })
            .collect();
        let mut taken = Vec::new();
        for id in balance::leases_to_take(&self.me, &views) {
            let Some(lease) = leases.iter().find(|lease| lease.document.id == id) else {
                continue;
            };
            match store.acquire(lease, &self.me).await {
                Ok(lease) => taken.push(lease),
                Err(UpdateError::Lost) => {
                    tracing::debug!(
                        function = self.function,
                        lease = id,
                        "another host was faster"
                    );
                }
                // What was taken so far must get its pump; the rest is for the next round.
                Err(UpdateError::Failed(error)) if !taken.is_empty() => {
                    tracing::debug!(function = self.function, lease = id, %error, "not acquired");
                    break;
                }
                Err(UpdateError::Failed(error)) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Gives back leases that were taken by a round that a stop interrupted.
    async fn release_unread(&self, store: &Arc<LeaseStore>, pumps: &Pumps) {
        let release = async {
            for lease in store.list().await? {
                let document = &lease.document;
                if document.owner.as_deref() == Some(&self.me)
                    && !pumps.holds(&document.lease_token)
                {
                    let lease = OwnedLease::new(store.clone(), &self.me, lease);
                    if let Err(UpdateError::Failed(error)) = lease.release().await {
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        match tokio::time::timeout(RELEASE_LIMIT, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(function = self.function, %error, "leases were not checked at the stop");
            }
            Err(_) => {
                tracing::debug!(
                    function = self.function,
                    "leases were not checked in time at the stop"
                );
            }
        }
    }

    fn start_pump(
        &self,
        prepared: &Prepared,
        pumps: &mut Pumps,
        lease: StoredLease,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let document = &lease.document;
        let token = document.lease_token.clone();
        let range = document.range().ok_or_else(|| Error::ForeignLease {
            id: document.id.clone(),
        })?;
        tracing::info!(function = self.function, lease = token, "acquired a lease");
        let reader = feed::FeedReader::new(
            prepared.monitored.clone(),
            range,
            start_from(self.trigger.start)?,
            self.trigger.max_items.and_then(NonZeroU32::new),
            document.continuation_token.clone(),
        )?;
        self.board.update_leases(|leases| {
            leases.push(LeaseStatus {
                lease: token.clone(),
                owner: self.me.clone(),
                checkpointed_at: None,
            });
        });
        let pump = Pump {
            function: self.function.clone(),
            name: token.clone(),
            poll_delay: self.trigger.feed_poll_delay.max(MIN_INTERVAL),
            renew_interval: self.trigger.lease_renew_interval.max(MIN_INTERVAL),
            lease: OwnedLease::new(prepared.store.clone(), &self.me, lease),
            sink: self.sink.clone(),
            trouble: self.trouble.clone(),
            board: self.board.clone(),
            stop: stop.clone(),
        };
        let task = pumps.tasks.spawn(pump.run(reader));
        pumps.tokens.insert(task.id(), token);
        Ok(())
    }

    fn monitored_missing(&self) -> Error {
        Error::MonitoredMissing {
            database: self.trigger.database.clone(),
            container: self.trigger.container.clone(),
        }
    }

    /// Waits; false when stopped meanwhile.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Where the SDK begins while a lease has no position.
fn start_from(start: FeedStart) -> Result<ChangeFeedStartFrom, Error> {
    Ok(match start {
        FeedStart::Now => ChangeFeedStartFrom::Now,
        FeedStart::Beginning => ChangeFeedStartFrom::Beginning,
        FeedStart::Time(time) => ChangeFeedStartFrom::PointInTime(
            OffsetDateTime::from_unix_timestamp_nanos(time.as_nanosecond())
                .map_err(|_| Error::StartTime(time))?,
        ),
    })
}
