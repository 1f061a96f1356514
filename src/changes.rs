//! Reading the change feed of `events` on demand, so that a client misses nothing.
//!
//! SignalR delivers at most once. A client that asks for the changes since its last continuation after each (re)connect
//! fills every gap. This is also where the app learns whether, and in which region, Cosmos DB answers.
//!
//! A [`Continuation`] is opaque to clients. It wraps the continuation of the SDK and is bound to the container and to the
//! region of the app: positions in the change feed of one region say nothing about another's.

mod continuation;

use std::{fmt, num::NonZeroU32, time::Duration};

use azure_data_cosmos::{
    CosmosError, FeedScope,
    clients::ContainerClient,
    feed::ChangeFeedPageIterator,
    models::ChangeFeedItem,
    options::{ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint, ReadFeedRangesOptions},
};
use futures::TryStreamExt as _;
use serde_json::Value;
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};

pub use self::continuation::{Continuation, ContinuationError};
use crate::{
    cosmos::{self, ConnectError, Connection},
    event::{
        Event,
        feed::{Document, classify},
    },
    names::{DATABASE, EVENTS},
    settings::{RegionName, Settings},
};

/// Events in one answer when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 100;

/// Most events in one answer.
pub const MAX_LIMIT: u32 = 1000;

/// Longest time for one answer, connecting included.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Longest time for one look at the health of Cosmos DB. Front Door gives up on a probe after 30 seconds.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Id of the item that a look at the health reads; normally there is none.
const PROBED_ITEM: &str = "health";

/// Pages of strangers and probes that one answer skips before it is given without events.
const MAX_PAGES: u32 = 64;

/// How often the start position is pinned again when the container splits meanwhile.
const MAX_PIN_ROUNDS: u32 = 4;

/// Where to start reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The oldest event.
    Beginning,
    /// Events that are accepted or arrive from now on; the answer has none, only the continuation.
    Now,
    /// After an earlier answer.
    Continuation(Continuation),
}

/// One answer.
#[derive(Debug)]
pub struct Changes {
    /// The events, in the order in which this region got them.
    pub events: Vec<Event<'static>>,
    /// Where to go on.
    pub continuation: Continuation,
    /// Whether there was more to read when the answer was full.
    pub has_more: bool,
}

/// Why the store did not answer.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no connection in the settings.
    #[error(
        "this app has no connection to Cosmos DB: set CosmosDBConnection, or CosmosDBConnection__accountEndpoint"
    )]
    NotConfigured,
    /// The account cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The container does not exist, or not yet.
    #[error(
        "the container {EVENTS} of the database {DATABASE} does not exist: create it, for an emulator with `geo-events provision`"
    )]
    NoContainer,
    /// The service takes the continuation for none of its own.
    #[error("the continuation is not known to Cosmos DB any more: {0}")]
    Continuation(#[source] Box<CosmosError>),
    /// Any other failure.
    #[error("Cosmos DB failed: {0}")]
    Cosmos(#[source] Box<CosmosError>),
    /// The container is being split into more partitions at this very moment.
    #[error("the container {EVENTS} is being split into more partitions; try again")]
    Splitting,
    /// No answer in time.
    #[error("Cosmos DB did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// The container `events`, opened at the first use and then kept.
pub struct EventStore {
    connection: Option<Connection>,
    preferred: Vec<RegionName>,
    region: RegionName,
    /// Held while connecting, so that many callers connect once. Never held while reading.
    container: Mutex<Option<ContainerClient>>,
}

impl fmt::Debug for EventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStore")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl EventStore {
    /// A store that is not connected yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            connection: settings.cosmos.clone(),
            preferred: settings.preferred_locations.clone(),
            region: settings.region.clone(),
            container: Mutex::new(None),
        }
    }

    /// At most `limit` events after `from`. Probes and strangers are left out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn changes(&self, from: Start, limit: NonZeroU32) -> Result<Changes, StoreError> {
        timeout(DEADLINE, async {
            match self.ask(from.clone(), limit).await {
                // Forgotten by now, so the second try opens what is there.
                Err(StoreError::Cosmos(error)) if is_stale(&error) => self.ask(from, limit).await,
                answer => answer,
            }
        })
        .await
        .unwrap_or(Err(StoreError::Timeout(DEADLINE)))
    }

    async fn ask(&self, from: Start, limit: NonZeroU32) -> Result<Changes, StoreError> {
        let container = self.container().await?;
        let resumed = matches!(from, Start::Continuation(_));
        let answer = match from {
            Start::Now => self.pin_now(&container).await,
            from => self.read(&container, from, limit).await.map(Some),
        };
        match answer {
            Ok(Some(changes)) => Ok(changes),
            Ok(None) => Err(StoreError::Splitting),
            Err(error) if resumed && error.status().is_bad_request() => {
                Err(StoreError::Continuation(Box::new(error)))
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Reads from the store at the cost of about one request unit, and says which region of the account answered.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn probe(&self) -> Result<String, StoreError> {
        timeout(PROBE_DEADLINE, async {
            let container = self.container().await?;
            // Whether the item exists does not matter: the answer comes from the partition either way.
            let diagnostics = match container.read_item(PROBED_ITEM, PROBED_ITEM, None).await {
                Ok(response) => response.diagnostics(),
                Err(error) if is_absent_item(&error) => match error.diagnostics() {
                    Some(diagnostics) => diagnostics,
                    None => return Err(StoreError::Cosmos(Box::new(error))),
                },
                Err(error) => return Err(self.failed(error).await),
            };
            let region = diagnostics
                .regions_contacted()
                .last()
                .map(|region| region.display_name().to_owned());
            Ok(region.unwrap_or_else(|| "unknown".to_owned()))
        })
        .await
        .unwrap_or(Err(StoreError::Timeout(PROBE_DEADLINE)))
    }

    async fn container(&self) -> Result<ContainerClient, StoreError> {
        let mut container = self.container.lock().await;
        if let Some(container) = &*container {
            return Ok(container.clone());
        }
        let connection = self.connection.as_ref().ok_or(StoreError::NotConfigured)?;
        let cosmos =
            cosmos::connect_to(connection, self.preferred.iter().map(RegionName::as_str)).await?;
        let opened = cosmos.container(DATABASE, EVENTS).await.map_err(|error| {
            if error.status().is_not_found() {
                StoreError::NoContainer
            } else {
                StoreError::Cosmos(Box::new(error))
            }
        })?;
        Ok(container.insert(opened).clone())
    }

    /// Forgets the container when it seems to have been replaced by another of the same name.
    async fn failed(&self, error: CosmosError) -> StoreError {
        let status = error.status();
        if status.is_not_found() || is_stale(&error) {
            *self.container.lock().await = None;
        }
        if status.is_not_found() {
            StoreError::NoContainer
        } else {
            StoreError::Cosmos(Box::new(error))
        }
    }

    async fn read(
        &self,
        container: &ContainerClient,
        from: Start,
        limit: NonZeroU32,
    ) -> Result<Changes, CosmosError> {
        let ranges = range_count(container, false).await?;
        // Each page comes from the next physical partition in turn. A page of this size lets every partition speak in
        // every answer, and the last page never carries more than fits.
        let page_size = NonZeroU32::new(limit.get() / ranges).unwrap_or(NonZeroU32::MIN);
        let mut pages = open(container, from, page_size).await?;
        let mut events = Vec::new();
        let mut read = 0;
        let mut empty_in_a_row = 0;
        let mut has_more = true;
        for _ in 0..MAX_PAGES.max(2 * ranges) {
            let Some(page) = pages.try_next().await? else {
                break;
            };
            if page.items().is_empty() {
                empty_in_a_row += 1;
                if empty_in_a_row >= ranges {
                    has_more = false;
                    break;
                }
                continue;
            }
            empty_in_a_row = 0;
            events.extend(page.into_items().iter().filter_map(event));
            read = events.len();
            if read + page_size.get() as usize > limit.get() as usize {
                break;
            }
        }
        tracing::debug!(events = read, has_more, "changes read");
        Ok(Changes {
            events,
            continuation: self.continuation(&pages)?,
            has_more,
        })
    }

    /// A continuation at the present end of every partition.
    ///
    /// Until a partition has been asked once, "now" would mean the time of the next request. So all of them are asked,
    /// and if the container was split meanwhile, "now" is a moment later. `None` if that happens again and again.
    async fn pin_now(&self, container: &ContainerClient) -> Result<Option<Changes>, CosmosError> {
        let mut ranges = range_count(container, false).await?;
        for _ in 0..MAX_PIN_ROUNDS {
            let mut pages = open(container, Start::Now, NonZeroU32::MIN).await?;
            let mut pinned = true;
            for _ in 0..ranges {
                // A first look from "now" finds nothing. Something means that a partition was asked twice, and that
                // another one may not have been asked at all.
                pinned &= pages
                    .try_next()
                    .await?
                    .is_some_and(|page| page.items().is_empty());
            }
            let ranges_now = range_count(container, true).await?;
            if pinned && ranges == ranges_now {
                let continuation = self.continuation(&pages)?;
                return Ok(Some(Changes {
                    events: Vec::new(),
                    continuation,
                    has_more: false,
                }));
            }
            ranges = ranges_now;
        }
        Ok(None)
    }

    fn continuation(&self, pages: &Pages) -> Result<Continuation, CosmosError> {
        Ok(Continuation::new(
            &self.region,
            pages.to_continuation_token()?.as_str(),
        ))
    }
}

type Pages = ChangeFeedPageIterator<ChangeFeedItem<Value>>;

async fn open(
    container: &ContainerClient,
    from: Start,
    page_size: NonZeroU32,
) -> Result<Pages, CosmosError> {
    let mut options =
        ChangeFeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(page_size));
    let start = match from {
        Start::Beginning => ChangeFeedStartFrom::Beginning,
        Start::Now => ChangeFeedStartFrom::Now,
        Start::Continuation(continuation) => {
            options = options.with_continuation_token(continuation.into_sdk());
            // Not looked at: the token knows its own start.
            ChangeFeedStartFrom::Beginning
        }
    };
    container
        .query_change_feed(FeedScope::full_container(), start, Some(options))
        .await
}

/// How many physical partitions the container has.
async fn range_count(container: &ContainerClient, refresh: bool) -> Result<u32, CosmosError> {
    let options = ReadFeedRangesOptions::default().with_force_refresh(refresh);
    let ranges = container.read_feed_ranges(Some(options)).await?.len();
    Ok(u32::try_from(ranges).unwrap_or(u32::MAX).max(1))
}

fn event(item: &ChangeFeedItem<Value>) -> Option<Event<'static>> {
    match classify(&item.current()?.to_string()) {
        Ok(Document::Event(event)) => Some(event.into_owned()),
        Ok(Document::Probe | Document::Stranger(_)) => None,
        Err(error) => {
            // Cannot happen: the text was written by a JSON library a moment ago.
            tracing::error!(%error, "a document of the feed is not JSON");
            None
        }
    }
}

/// Whether the client remembers a container that is not there any more. The SDK reports with 500 that it cannot learn the
/// partitions of such a container.
fn is_stale(error: &CosmosError) -> bool {
    let status = error.status();
    status.is_gone() || status.is_bad_request() || u16::from(status.status_code()) == 500
}

/// Whether it is the item that is not there, rather than its container (substatus 1003) or its session (1002).
fn is_absent_item(error: &CosmosError) -> bool {
    let status = error.status();
    status.is_not_found() && status.sub_status().is_none_or(|sub| sub.value() == 0)
}
