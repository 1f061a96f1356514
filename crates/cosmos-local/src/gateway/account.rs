//! The account document, databases, containers and partition key ranges.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Gateway, Region,
    documents::is_query,
    endpoint,
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    WriteMode, container::Container, membership::plain, metadata::MetadataError, offer::Throughput,
};

impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> Self {
        let status = match &error {
            MetadataError::BadRequest(_) => StatusCode::BAD_REQUEST,
            MetadataError::Conflict(_) => StatusCode::CONFLICT,
            MetadataError::NotFound(_) => StatusCode::NOT_FOUND,
            MetadataError::Forbidden(_) => StatusCode::FORBIDDEN,
            MetadataError::Io(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

pub(super) fn not_allowed(request: &Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} is not an operation of this resource", request.method),
    )
}

/// The throughput that a create asks for.
fn throughput(request: &Request) -> Result<Option<Throughput>, ApiError> {
    Throughput::of_headers(
        request.header("x-ms-offer-throughput"),
        request.header("x-ms-cosmos-offer-autopilot-settings"),
    )
    .map_err(ApiError::bad_request)
}

fn list(rid: &str, name: &str, items: Vec<Value>) -> Reply {
    let count = items.len();
    Reply::json(
        StatusCode::OK,
        &json!({"_rid": rid, name: items, "_count": count}),
    )
    .header("x-ms-item-count", count.to_string())
}

impl Gateway {
    pub(super) fn account(&self, region: &Region) -> Reply {
        let location = |region: &Arc<Region>| json!({"name": region.name, "databaseAccountEndpoint": endpoint(region.port)});
        let members = self.members();
        let listed = members.regions.iter().filter(|region| region.is_listed());
        let locations: Vec<Value> = listed.map(location).collect();
        let (multi, writable) = match self.write_mode {
            WriteMode::Multi => (true, locations.clone()),
            WriteMode::Single => (false, self.hub_region().iter().map(location).collect()),
        };
        let consistency = json!({"defaultConsistencyLevel": "Session"});
        let replication =
            json!({"asyncReplication": false, "minReplicaSetSize": 3, "maxReplicasetSize": 4});
        // SDKs that plan queries themselves refuse what is switched off here.
        let engine = json!({
            "maxSqlQueryInputLength": 262_144, "maxJoinsPerSqlQuery": 10, "maxLogicalAndPerSqlQuery": 2000,
            "maxLogicalOrPerSqlQuery": 2000, "maxUdfRefPerSqlQuery": 10, "maxInExpressionItemsCount": 16_000,
            "queryMaxInMemorySortDocumentCount": 500, "maxQueryRequestTimeoutFraction": 0.9,
            "sqlAllowNonFiniteNumbers": false, "sqlAllowAggregateFunctions": true, "sqlAllowGroupByClause": true,
            "sqlAllowSubQuery": true, "sqlAllowScalarSubQuery": true, "allowNewKeywords": true, "sqlAllowLike": true,
            "sqlAllowTop": true, "sqlDisableOptimizationFlags": 0, "enableSpatialIndexing": true,
            "maxSpatialQueryCells": 12, "spatialMaxGeometryPointCount": 256,
        });
        let body = json!({
            "_self": "",
            // JavaScript's SDK ignores all locations of an account that is called localhost.
            "id": "cosmoslocal",
            "_rid": format!("cosmoslocal-{}.documents.local", plain(&region.name)),
            "media": "//media/",
            "addresses": "//addresses/",
            "_dbs": "//dbs/",
            "writableLocations": writable,
            "readableLocations": locations,
            "enableMultipleWriteLocations": multi,
            "continuousBackupEnabled": false,
            "enableNRegionSynchronousCommit": false,
            "enablePerPartitionFailoverBehavior": false,
            "userReplicationPolicy": replication,
            "userConsistencyPolicy": consistency,
            "systemReplicationPolicy": {"minReplicaSetSize": 3, "maxReplicasetSize": 4},
            "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
            "queryEngineConfiguration": engine.to_string(),
        });
        Reply::json(StatusCode::OK, &body)
    }

    pub(super) fn databases(&self, request: &Request) -> Result<Reply, ApiError> {
        match request.method {
            Method::GET | Method::HEAD => Ok(list(
                "",
                "Databases",
                self.metadata
                    .databases()
                    .iter()
                    .map(|database| database.view())
                    .collect(),
            )),
            Method::POST if is_query(request) => {
                let databases = self.metadata.databases();
                let views = databases.iter().map(|database| database.view());
                Ok(list("", "Databases", self.parse(request)?.execute(views)?))
            }
            Method::POST => {
                let database = self
                    .metadata
                    .create_database(&request.object()?, throughput(request)?)?;
                Ok(Reply::json(StatusCode::CREATED, &database.view()))
            }
            _ => Err(not_allowed(request)),
        }
    }

    pub(super) async fn database(&self, request: &Request, name: &str) -> Result<Reply, ApiError> {
        let database = self.metadata.database(name).ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("database {name:?} does not exist"),
            )
        })?;
        match request.method {
            Method::GET | Method::HEAD => Ok(Reply::json(StatusCode::OK, &database.view())),
            Method::DELETE => {
                for container in self.metadata.delete_database(&database.id)? {
                    self.forget(container).await;
                }
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(not_allowed(request)),
        }
    }

    pub(super) fn containers(&self, request: &Request, database: &str) -> Result<Reply, ApiError> {
        let database = self.metadata.database(database).ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("database {database:?} does not exist"),
            )
            .substatus(1003)
        })?;
        match request.method {
            Method::GET | Method::HEAD => {
                let containers = self.metadata.containers(&database.id);
                Ok(list(
                    &database.rid(),
                    "DocumentCollections",
                    containers
                        .iter()
                        .map(|container| container.view())
                        .collect(),
                ))
            }
            Method::POST if is_query(request) => {
                let containers = self.metadata.containers(&database.id);
                let views = containers.iter().map(|container| container.view());
                let found = self.parse(request)?.execute(views)?;
                Ok(list(&database.rid(), "DocumentCollections", found))
            }
            Method::POST => {
                let container = self.metadata.create_container(
                    &database.id,
                    request.object()?,
                    self.partitions,
                    throughput(request)?,
                )?;
                Ok(Reply::json(StatusCode::CREATED, &container.view())
                    .header("etag", container.etag()))
            }
            _ => Err(not_allowed(request)),
        }
    }

    pub(super) async fn container_itself(
        &self,
        request: &Request,
        database: &str,
        name: &str,
    ) -> Result<Reply, ApiError> {
        let container = self
            .metadata
            .database(database)
            .and_then(|database| self.metadata.container(&database.id, name));
        let container = container.ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("container {name:?} does not exist"),
            )
        })?;
        match request.method {
            Method::GET | Method::HEAD => Ok(Reply::json(StatusCode::OK, &container.view())
                .header("etag", container.etag())
                .header(
                    "x-ms-alt-content-path",
                    format!("dbs/{}", container.database()),
                )
                .header("x-ms-content-path", container.rid())),
            Method::PUT => {
                let container = self
                    .metadata
                    .replace_container(&container, request.object()?)?;
                Ok(Reply::json(StatusCode::OK, &container.view()).header("etag", container.etag()))
            }
            Method::DELETE => {
                self.metadata.delete_container(&container)?;
                self.forget(container.number).await;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(not_allowed(request)),
        }
    }

    /// `/offers`
    pub(super) fn offers(&self, request: &Request) -> Result<Reply, ApiError> {
        let offers = self.metadata.offers();
        let views = offers.iter().map(|offer| offer.view());
        match request.method {
            Method::GET | Method::HEAD => Ok(list("", "Offers", views.collect())),
            Method::POST => Ok(list("", "Offers", self.parse(request)?.execute(views)?)),
            _ => Err(not_allowed(request)),
        }
    }

    /// `/offers/{rid}`
    pub(super) fn offer(&self, request: &Request, rid: &str) -> Result<Reply, ApiError> {
        let offer = match request.method {
            Method::GET | Method::HEAD => self
                .metadata
                .offers()
                .into_iter()
                .find(|offer| offer.rid() == rid)
                .ok_or_else(|| MetadataError::NotFound(format!("offer {rid:?}")))?,
            Method::PUT => self.metadata.replace_offer(rid, &request.object()?)?,
            _ => return Err(not_allowed(request)),
        };
        Ok(
            Reply::json(StatusCode::OK, &offer.view())
                .header("x-ms-offer-replace-pending", "false"),
        )
    }

    async fn forget(&self, container: u32) {
        for region in &self.members().regions {
            region.replica.forget(container).await;
        }
    }

    /// The partition key ranges; clients poll with the etag until they are told that nothing is new.
    pub(super) fn ranges(
        &self,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(not_allowed(request));
        }
        let etag = container.ranges_etag();
        let reply = if request.header("if-none-match") == Some(etag.as_str()) {
            Reply::empty(StatusCode::NOT_MODIFIED).header("x-ms-item-count", "0")
        } else {
            list(
                container.rid(),
                "PartitionKeyRanges",
                container.range_views(),
            )
        };
        Ok(reply.header("etag", etag))
    }
}
