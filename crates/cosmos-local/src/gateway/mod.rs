//! The REST API of a region (Microsoft Learn: "Azure Cosmos DB REST API reference"), over HTTP/1.1 and cleartext HTTP/2.
//!
//! - [`listener`]: sockets, and taking a region offline,
//! - [`region`]: one region, and how it meets its clients,
//! - [`request`]: a request taken apart, once, at the door,
//! - [`reply`]: responses and errors as the service words them,
//! - [`account`]: the account document, databases, containers, partition key ranges,
//! - [`documents`]: the items of a container,
//! - [`batch`]: many operations in one request,
//! - [`conflicts`]: the conflict feed,
//! - [`feed`]: the change feed, [`versions`]: its mode of all versions and deletes,
//! - [`query`]: queries and query plans,
//! - [`scan`]: the items that a query looks at, [`conditions`]: which of them cannot matter to it.

mod account;
mod batch;
#[cfg(test)]
mod compatibility;
mod conditions;
mod conflicts;
mod documents;
mod feed;
mod listener;
mod query;
mod region;
mod reply;
mod request;
mod scan;
#[cfg(test)]
mod tests;
mod versions;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::{
    Availability, Operation, WriteMode,
    auth::{Caller, SignIn, SignInError, Signed},
    charge,
    container::Container,
    epk,
    membership::Membership,
    metadata::Metadata,
    partition_key::Named,
    query::Statements,
    ranges::Range,
    session,
};
pub(crate) use listener::{Listener, Socket};
pub(crate) use region::Region;
use reply::{ApiError, Reply};
use request::{Request, Target};

/// How long a request waits for a region to reach the state its session token names. It saves most needless fail-overs.
const SESSION_WAIT: Duration = Duration::from_millis(100);

/// When to come back after a failure that was asked for and says so.
const FAULT_RETRY: Duration = Duration::from_millis(10);

/// URL of the gateway on a port, as SDKs want it: with a slash at its end.
pub(crate) fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

/// Whom a listener speaks for.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// The account: the hub, or whichever region answers in its place.
    Account,
    /// One region.
    Region(Arc<Region>),
}

/// The regions of the account at one moment.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) membership: Membership,
    /// In account order.
    pub(crate) regions: Vec<Arc<Region>>,
}

impl Members {
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Region>> {
        self.regions.iter().find(|region| region.name == name)
    }
}

/// While it is there, no region takes writes.
pub(crate) struct Frozen<'a>(&'a AtomicBool);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// All gateways of an account; each listener says which region it speaks for.
pub(crate) struct Gateway {
    sign_in: SignIn,
    metadata: Metadata,
    statements: Statements,
    members: RwLock<Arc<Members>>,
    write_mode: WriteMode,
    /// Whether no region takes writes, because the hub is about to move.
    is_frozen: AtomicBool,
    /// Physical partitions of a new container.
    partitions: u32,
}

impl Gateway {
    /// A gateway that has no regions yet.
    pub(crate) fn new(
        sign_in: SignIn,
        metadata: Metadata,
        write_mode: WriteMode,
        partitions: u32,
    ) -> Self {
        Self {
            sign_in,
            metadata,
            statements: Statements::default(),
            members: RwLock::default(),
            write_mode,
            is_frozen: AtomicBool::new(false),
            partitions,
        }
    }

    /// The regions of the account now.
    pub(crate) fn members(&self) -> Arc<Members> {
        // It is replaced whole, so a panic elsewhere has not left it half done.
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&members)
    }

    /// Changes which regions the account has, for all clients at once.
    pub(crate) fn set_members(&self, members: Members) {
        let mut current = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(members);
    }

    pub(crate) fn write_mode(&self) -> WriteMode {
        self.write_mode
    }

    /// Index of the region that takes the writes of a single-write account, and expires items in any.
    pub(crate) fn hub(&self) -> usize {
        self.metadata.hub()
    }

    /// The region with the index of the hub.
    pub(crate) fn hub_region(&self) -> Option<Arc<Region>> {
        let members = self.members();
        let mut regions = members.regions.iter();
        regions.find(|region| region.index == self.hub()).cloned()
    }

    /// The region behind the account's own endpoint: the hub, and while that does not answer, the first that does.
    fn front(&self) -> Option<Arc<Region>> {
        let members = self.members();
        let hub = self.hub_region().into_iter();
        let mut regions = hub.chain(members.regions.iter().cloned());
        regions.find(|region| region.is_answering())
    }

    /// Lets no region take writes as long as what is returned is there.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.is_frozen.store(true, Ordering::SeqCst);
        Frozen(&self.is_frozen)
    }

    /// Whether the account would have no region, or no write region, without this one.
    pub(crate) fn needs(&self, region: &Region) -> bool {
        match self.write_mode {
            WriteMode::Single => self.hub() == region.index,
            WriteMode::Multi => {
                let members = self.members();
                let mut regions = members.regions.iter();
                !regions.any(|other| other.index != region.index && other.is_listed())
            }
        }
    }

    /// Whether a region takes writes now.
    pub(crate) fn is_writable(&self, region: &Region) -> bool {
        match self.write_mode {
            WriteMode::Multi => true,
            WriteMode::Single => {
                region.index == self.hub() && !self.is_frozen.load(Ordering::SeqCst)
            }
        }
    }

    fn writable(&self, region: &Region) -> Result<(), ApiError> {
        if self.is_writable(region) {
            return Ok(());
        }
        Err(region.takes_no_writes())
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Answers one request to a listener.
    pub(crate) async fn answer(
        &self,
        door: Door,
        request: http::request::Parts,
        body: Bytes,
    ) -> http::Response<http_body_util::Full<Bytes>> {
        let activity = request::activity_id(&request.headers);
        let head = request.method == Method::HEAD;
        let is_logged = tracing::enabled!(tracing::Level::DEBUG);
        let line = is_logged.then(|| format!("{} {}", request.method, request.uri.path()));
        let reply = match Request::read(request, body) {
            Ok(request) => self.enter(&door, &request).await,
            Err(error) => Err(error),
        };
        let reply = reply.unwrap_or_else(ApiError::into_reply);
        if let Some(line) = line {
            tracing::debug!(?door, %activity, status = reply.status().as_u16(), substatus = reply.substatus(), "{line}");
        }
        reply.into_response(&activity, head)
    }

    async fn enter(&self, door: &Door, request: &Request) -> Result<Reply, ApiError> {
        match door {
            Door::Account => {
                let unavailable = |why| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why);
                // Which regions there are can be learnt whatever has happened to them.
                if request.target == Target::Account {
                    self.authorize(request)?;
                    let hub = self.hub_region();
                    let hub = hub.ok_or(unavailable("the account is not ready"))?;
                    return self.account_itself(request, &hub);
                }
                let region = self.front();
                let region = region.ok_or(unavailable("no region of the account answers"))?;
                self.route(&region, request).await
            }
            Door::Region(region) => match region.availability() {
                Availability::Online => self.route(region, request).await,
                // A request that came in right before the connections were dropped is not answered either.
                Availability::Silent | Availability::Refusing => std::future::pending().await,
                Availability::Withdrawn => Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    format!("the account is not in {}", region.name),
                )
                .substatus(1008)),
                Availability::Failing => Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the region is out of order",
                )),
            },
        }
    }

    fn account_itself(&self, request: &Request, region: &Region) -> Result<Reply, ApiError> {
        match request.method {
            Method::GET | Method::HEAD => Ok(self.account(region)),
            _ => Err(account::not_allowed(request)),
        }
    }

    async fn route(&self, region: &Region, request: &Request) -> Result<Reply, ApiError> {
        self.authorize(request)?;
        if request.operation() == Operation::Metadata {
            region.meet_fault(Operation::Metadata)?;
        }
        if request.changes_metadata() {
            self.writable(region)?;
        }
        is_session(request)?;
        match &request.target {
            Target::Account => self.account_itself(request, region),
            Target::Databases => self.databases(request),
            Target::Database(database) => self.database(request, database).await,
            Target::Containers(database) => self.containers(request, database),
            Target::Container(database, container) => {
                self.container_itself(request, database, container).await
            }
            Target::Ranges(database, container) => {
                let container = self.find_for(request, database, container)?;
                self.ranges(request, &container)
            }
            Target::Documents(database, container) => {
                let container = self.find_for(request, database, container)?;
                let reply = async { self.documents(region, request, &container).await };
                self.within_budget(region, request, &container, reply).await
            }
            Target::Document(database, container, id) => {
                let container = self.find_for(request, database, container)?;
                let reply = async { self.document(region, request, &container, id).await };
                self.within_budget(region, request, &container, reply).await
            }
            Target::Conflicts(database, container) => {
                let container = self.find_for(request, database, container)?;
                let reply = async { self.conflicts(region, request, &container) };
                self.within_budget(region, request, &container, reply).await
            }
            Target::Conflict(database, container, id) => {
                let container = self.find_for(request, database, container)?;
                let reply = async { self.conflict(region, request, &container, id).await };
                self.within_budget(region, request, &container, reply).await
            }
            Target::Offers => self.offers(request),
            Target::Offer(rid) => self.offer(request, rid),
            Target::Unsupported(what) => Err(ApiError::unsupported(what)),
        }
    }

    /// Carries out an operation on items, if the region's throughput allows it, and tells how far the region is then.
    async fn within_budget(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
        operation: impl Future<Output = Result<Reply, ApiError>>,
    ) -> Result<Reply, ApiError> {
        let budget = &region.budget;
        let reply = match budget.wait(Instant::now()) {
            Some(wait) => Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the region's throughput is used up; nothing was done",
            )
            .substatus(3200)
            .retry_after(wait)),
            None => {
                let reply = match region.meet_fault(request.operation()) {
                    Ok(()) => operation.await,
                    Err(fault) => Err(fault),
                };
                let cost = reply.as_ref().map_or(charge::LEAST, Reply::cost);
                budget.spend(cost, Instant::now());
                reply
            }
        };
        self.with_session(region, request, container, reply)
    }

    fn authorize(&self, request: &Request) -> Result<(), ApiError> {
        let (resource_type, links) = request.signed();
        let x_date = request.header("x-ms-date").unwrap_or_default();
        let date = request.header("date").filter(|_| x_date.is_empty());
        let signed = Signed {
            method: request.method.as_str(),
            resource_type,
            links,
            x_date,
            date: date.unwrap_or_default(),
        };
        let caller =
            self.sign_in
                .check(request.header("authorization"), &signed, Timestamp::now())?;
        // What is around the items is Azure's management plane's, for identities. (Microsoft Learn, "Connect to Azure
        // Cosmos DB for NoSQL using role-based access control".)
        let is_management =
            matches!(resource_type, "dbs" | "colls" | "offers") && request.method != Method::GET;
        if caller == Caller::Identity && is_management && !documents::is_query(request) {
            let message = format!(
                "the request {} {resource_type} cannot be authorized by an Entra token in the data plane; use the account key",
                request.method
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).substatus(5300));
        }
        Ok(())
    }

    fn find(&self, database: &str, container: &str) -> Result<Arc<Container>, ApiError> {
        let parent = |what: String| ApiError::new(StatusCode::NOT_FOUND, what).substatus(1003);
        let database = self
            .metadata
            .database(database)
            .ok_or_else(|| parent(format!("database {database:?} does not exist")))?;
        self.metadata
            .container(&database.id, container)
            .ok_or_else(|| {
                parent(format!(
                    "container {container:?} does not exist in database {:?}",
                    database.id
                ))
            })
    }

    /// The container of an item request, unless the client means one that was deleted and created again.
    fn find_for(
        &self,
        request: &Request,
        database: &str,
        container: &str,
    ) -> Result<Arc<Container>, ApiError> {
        let container = self.find(database, container)?;
        match request.header("x-ms-cosmos-intended-collection-rid") {
            Some(intended) if intended != container.rid() => Err(ApiError::bad_request(
                "the container was created again; refresh what you know of it",
            )
            .substatus(1024)),
            _ => Ok(container),
        }
    }

    /// Waits, for a while, until the region has reached what the request's session token names.
    async fn reach(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
    ) -> Result<(), ApiError> {
        let is_session = is_session(request)?;
        let Some(token) = request.header("x-ms-session-token").filter(|_| is_session) else {
            return Ok(());
        };
        // Whatever it finds may come from any range that it touches.
        let scope = documents::scope(request, container)?;
        let ranges = container.ranges().all().iter();
        let ranges: Vec<&Range> = ranges.filter(|range| scope.touches(range)).collect();
        let replica = &region.replica;
        let reached = async {
            let mut changes = replica.changes();
            loop {
                changes.borrow_and_update();
                let members = self.members();
                if session::is_satisfied(token, &replica.read(), &ranges, &members.membership)
                    .map_err(ApiError::bad_request)?
                {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err(ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the region is shutting down",
                    ));
                }
            }
        };
        timeout(SESSION_WAIT, reached).await.unwrap_or_else(|_| {
            let message = "this region has not yet reached the state that the session token names";
            Err(ApiError::new(StatusCode::NOT_FOUND, message).substatus(1002))
        })
    }

    /// Every answer about items, good or bad, tells how far the region is.
    fn with_session(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
        reply: Result<Reply, ApiError>,
    ) -> Result<Reply, ApiError> {
        let range = serving(request, container);
        let (token, applied) = {
            let members = self.members();
            let state = region.replica.read();
            let token = session::token(&state, range, &members.membership);
            (token, state.applied)
        };
        let reply = reply.unwrap_or_else(ApiError::into_reply);
        Ok(reply
            .header("x-ms-session-token", token)
            .header("lsn", applied.to_string())
            .header("x-ms-content-path", container.rid())
            .header("x-ms-alt-content-path", container.name_path())
            .header("x-ms-documentdb-partitionkeyrangeid", range.id.to_string()))
    }
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        let status = match &error {
            SignInError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            SignInError::NotNow { .. } => StatusCode::FORBIDDEN,
        };
        Self::new(status, error.to_string())
    }
}

/// The range that an answer names: the one that serves the request, or the last of them.
fn serving<'a>(request: &Request, container: &'a Container) -> &'a Range {
    let ranges = container.ranges();
    let named = request
        .header("x-ms-documentdb-partitionkeyrangeid")
        .and_then(|id| ranges.get(id.rsplit(',').next()?));
    if let Some(range) = named {
        return range;
    }
    let key = request.partition_key(container);
    match (key, request.header("x-ms-start-epk")) {
        (Some(Ok(Named::Value(key))), _) => ranges.of(&key.epk),
        (Some(Ok(Named::Prefix(prefix))), _) => ranges.of(prefix),
        (_, Some(start)) => ranges.of(&start.to_ascii_uppercase()),
        (_, None) => ranges.of(epk::END),
    }
}

/// Whether a request wants to read its own writes. The account's consistency is Session; a request may want less.
fn is_session(request: &Request) -> Result<bool, ApiError> {
    let refused = |level: &str| {
        Err(ApiError::bad_request(format!(
            "the consistency {level:?} is stronger than the account's, which is Session, or none at all"
        )))
    };
    let level = match request.header("x-ms-consistency-level") {
        None | Some("Session") => true,
        Some("ConsistentPrefix" | "Eventual") => false,
        Some(other) => return refused(other),
    };
    match request.header("x-ms-cosmos-read-consistency-strategy") {
        None | Some("Default") => Ok(level),
        Some("Session") => Ok(true),
        Some("Eventual") => Ok(false),
        Some(other) => refused(other),
    }
}
