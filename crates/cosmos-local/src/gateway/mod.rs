//! The REST API of a region (Microsoft Learn: "Azure Cosmos DB REST API reference"), over HTTP/1.1 and cleartext HTTP/2.
//!
//! - [`listener`]: sockets, and taking a region offline,
//! - [`request`]: a request taken apart, once, at the door,
//! - [`reply`]: responses and errors as the service words them,
//! - [`account`]: the account document, databases, containers, partition key ranges,
//! - [`documents`]: the items of a container,
//! - [`feed`]: the change feed,
//! - [`query`]: queries and query plans,
//! - [`scan`]: the items that a query looks at.

mod account;
mod documents;
mod feed;
mod listener;
mod query;
mod reply;
mod request;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::timeout;

use crate::{
    RegionConfig,
    auth::{MasterKey, Signed},
    metadata::{Container, Metadata},
    replica::Replica,
    session,
};
pub(crate) use listener::Listener;
use reply::{ApiError, Reply};
use request::{Request, Target};

/// How long a request waits for a region to reach the state its session token names. It saves most needless fail-overs.
const SESSION_WAIT: Duration = Duration::from_millis(100);

/// URL of the gateway on a port, as SDKs want it: with a slash at its end.
pub(crate) fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

struct Region {
    name: String,
    port: AtomicU16,
    replica: Arc<Replica>,
}

/// All gateways of an account; each listener says which region it speaks for.
pub(crate) struct Gateway {
    key: MasterKey,
    metadata: Metadata,
    regions: Vec<Region>,
}

impl Gateway {
    pub(crate) fn new(
        key: MasterKey,
        metadata: Metadata,
        regions: &[RegionConfig],
        replicas: Vec<Arc<Replica>>,
    ) -> Self {
        let region = |(config, replica): (&RegionConfig, Arc<Replica>)| Region {
            name: config.name.clone(),
            port: AtomicU16::new(config.port),
            replica,
        };
        Self {
            key,
            metadata,
            regions: regions.iter().zip(replicas).map(region).collect(),
        }
    }

    pub(crate) fn set_endpoint(&self, region: usize, port: u16) {
        self.regions[region].port.store(port, Ordering::Relaxed);
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn replica(&self, region: usize) -> &Arc<Replica> {
        &self.regions[region].replica
    }

    /// Answers one request to the gateway of `region`.
    pub(crate) async fn answer(
        &self,
        region: usize,
        request: http::request::Parts,
        body: Bytes,
    ) -> http::Response<http_body_util::Full<Bytes>> {
        let activity = request::activity_id(&request.headers);
        let head = request.method == Method::HEAD;
        let reply = match Request::read(request, body) {
            Ok(request) => self
                .route(region, &request)
                .await
                .unwrap_or_else(ApiError::into_reply),
            Err(error) => error.into_reply(),
        };
        reply.into_response(&activity, head)
    }

    async fn route(&self, region: usize, request: &Request) -> Result<Reply, ApiError> {
        self.authorize(request)?;
        match &request.target {
            Target::Account => Ok(self.account(region)),
            Target::Databases => self.databases(request),
            Target::Database(database) => self.database(request, database),
            Target::Containers(database) => self.containers(request, database),
            Target::Container(database, container) => {
                self.container_itself(request, database, container)
            }
            Target::Ranges(database, container) => {
                let container = self.find(database, container)?;
                self.ranges(request, &container)
            }
            Target::Documents(database, container) => {
                let container = self.find_for(request, database, container)?;
                let reply = self.documents(region, request, &container).await;
                self.with_session(region, &container, reply)
            }
            Target::Document(database, container, id) => {
                let container = self.find_for(request, database, container)?;
                let reply = self.document(region, request, &container, id).await;
                self.with_session(region, &container, reply)
            }
            Target::Offers => account::offers(request),
            Target::Unsupported(what) => Err(ApiError::unsupported(what)),
        }
    }

    fn authorize(&self, request: &Request) -> Result<(), ApiError> {
        let (resource_type, links) = request.signed();
        let signed = Signed {
            method: request.method.as_str(),
            resource_type,
            links,
            date: request
                .header("x-ms-date")
                .or(request.header("date"))
                .unwrap_or_default(),
        };
        self.key
            .check(request.header("authorization"), &signed)
            .map_err(|message| ApiError::new(StatusCode::UNAUTHORIZED, message))
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
    async fn reach(&self, region: usize, request: &Request) -> Result<(), ApiError> {
        let Some(token) = request.header("x-ms-session-token") else {
            return Ok(());
        };
        let replica = self.replica(region);
        let reached = async {
            let mut changes = replica.changes();
            loop {
                changes.borrow_and_update();
                if session::is_satisfied(token, &replica.read()).map_err(ApiError::bad_request)? {
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
        region: usize,
        container: &Container,
        reply: Result<Reply, ApiError>,
    ) -> Result<Reply, ApiError> {
        let token = {
            let state = self.replica(region).read();
            (session::token(&state), state.applied)
        };
        let reply = reply.unwrap_or_else(ApiError::into_reply);
        Ok(reply
            .header("x-ms-session-token", token.0)
            .header("lsn", token.1.to_string())
            .header("x-ms-content-path", container.rid())
            .header("x-ms-alt-content-path", container.name_path())
            .header(
                "x-ms-documentdb-partitionkeyrangeid",
                crate::metadata::RANGE_ID,
            ))
    }
}
