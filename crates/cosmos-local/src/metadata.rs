//! Databases and containers. They belong to the account: a change is visible in every region at once, and survives
//! with the data folder, resource ids included.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::partition_key::PartitionKeyDefinition;

/// Databases of an account, and containers of a database, at the most.
const MAX_DATABASES: usize = 100;
const MAX_CONTAINERS: usize = 500;

/// Longest name of a database or container, in characters.
const MAX_NAME: usize = 255;

/// Why metadata was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0} exists already")]
    Conflict(String),
    #[error("{0} does not exist")]
    NotFound(String),
    #[error("the data folder cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// A database, without its containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Database {
    pub(crate) id: String,
    number: u32,
    ts: i64,
}

impl Database {
    pub(crate) fn rid(&self) -> String {
        rid(&self.number.to_be_bytes())
    }

    pub(crate) fn view(&self) -> Value {
        let rid = self.rid();
        json!({
            "id": self.id, "_rid": rid, "_self": format!("dbs/{rid}/"), "_etag": format!("\"d-{}\"", self.number),
            "_colls": "colls/", "_users": "users/", "_ts": self.ts,
        })
    }
}

/// A container as it was created, and the parts of it that every request needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "StoredContainer", into = "StoredContainer")]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) database: String,
    database_number: u32,
    /// Unique in the account, never used again.
    pub(crate) number: u32,
    version: u64,
    ts: i64,
    properties: Map<String, Value>,
    pub(crate) partition_key: PartitionKeyDefinition,
    /// Members on the way to the number that decides conflicts; empty for `/_ts`.
    conflict_path: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredContainer {
    id: String,
    database: String,
    database_number: u32,
    number: u32,
    version: u64,
    ts: i64,
    properties: Map<String, Value>,
}

impl From<Container> for StoredContainer {
    fn from(container: Container) -> Self {
        let Container {
            id,
            database,
            database_number,
            number,
            version,
            ts,
            properties,
            ..
        } = container;
        Self {
            id,
            database,
            database_number,
            number,
            version,
            ts,
            properties,
        }
    }
}

impl From<StoredContainer> for Container {
    fn from(stored: StoredContainer) -> Self {
        let StoredContainer {
            id,
            database,
            database_number,
            number,
            version,
            ts,
            properties,
        } = stored;
        let definition = properties.get("partitionKey").cloned().unwrap_or_default();
        let partition_key = PartitionKeyDefinition::parse(&definition).unwrap_or_default();
        let conflict_path = properties
            .get("conflictResolutionPolicy")
            .and_then(|policy| policy.get("conflictResolutionPath"))
            .and_then(Value::as_str)
            .filter(|path| *path != "/_ts")
            .map(|path| {
                path.split('/')
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        Self {
            id,
            database,
            database_number,
            number,
            version,
            ts,
            properties,
            partition_key,
            conflict_path,
        }
    }
}

impl Container {
    pub(crate) fn rid(&self) -> String {
        rid(&self.rid_bytes())
    }

    fn rid_bytes(&self) -> Vec<u8> {
        [
            self.database_number.to_be_bytes(),
            (self.number | 0x8000_0000).to_be_bytes(),
        ]
        .concat()
    }

    pub(crate) fn self_link(&self) -> String {
        format!(
            "dbs/{}/colls/{}/",
            rid(&self.database_number.to_be_bytes()),
            self.rid()
        )
    }

    pub(crate) fn name_path(&self) -> String {
        format!("dbs/{}/colls/{}", self.database, self.id)
    }

    /// The resource id of the item with this ordinal. The top four bits, zero, say that it is an item.
    pub(crate) fn item_rid(&self, ordinal: u64) -> String {
        rid(&[
            self.rid_bytes().as_slice(),
            &(ordinal & 0x0fff_ffff_ffff_ffff).to_le_bytes(),
        ]
        .concat())
    }

    /// The number that decides conflicts, where the document has one.
    pub(crate) fn conflict_rank(&self, members: &Map<String, Value>) -> Option<f64> {
        let (first, rest) = self.conflict_path.split_first()?;
        let value = rest
            .iter()
            .try_fold(members.get(first)?, |value, part| value.get(part))?;
        value.as_f64()
    }

    /// The document as text, with its system properties.
    pub(crate) fn render(
        &self,
        mut members: Map<String, Value>,
        ordinal: u64,
        etag: &str,
        ts: i64,
    ) -> String {
        let rid = self.item_rid(ordinal);
        members.insert(
            "_self".into(),
            format!("{}docs/{rid}/", self.self_link()).into(),
        );
        members.insert("_rid".into(), rid.into());
        members.insert("_etag".into(), etag.into());
        members.insert("_attachments".into(), "attachments/".into());
        members.insert("_ts".into(), ts.into());
        Value::Object(members).to_string()
    }

    pub(crate) fn etag(&self) -> String {
        format!("\"c-{}-{}\"", self.number, self.version)
    }

    pub(crate) fn view(&self) -> Value {
        let mut view = self.properties.clone();
        for (name, value) in [
            ("_rid", self.rid()),
            ("_self", self.self_link()),
            ("_etag", self.etag()),
            ("_docs", "docs/".to_owned()),
            ("_sprocs", "sprocs/".to_owned()),
            ("_triggers", "triggers/".to_owned()),
            ("_udfs", "udfs/".to_owned()),
            ("_conflicts", "conflicts/".to_owned()),
        ] {
            view.insert(name.into(), value.into());
        }
        view.insert("_ts".into(), self.ts.into());
        Value::Object(view)
    }

    /// The one physical partition of the container.
    pub(crate) fn range_view(&self) -> Value {
        // Type nibble 5 in the top bits says that it is a partition key range.
        let rid = rid(&[self.rid_bytes().as_slice(), &[0, 0, 0, 0, 0, 0, 0, 0x50]].concat());
        json!({
            "id": RANGE_ID, "minInclusive": "", "maxExclusive": "FF", "parents": [], "status": "online",
            "throughputFraction": 1, "ridPrefix": 0, "_rid": rid, "_self": format!("{}pkranges/{rid}/", self.self_link()),
            "_etag": self.ranges_etag(), "_ts": self.ts, "_lsn": 1,
        })
    }

    pub(crate) fn ranges_etag(&self) -> String {
        format!("\"r-{}\"", self.number)
    }
}

/// Id of the only partition key range of every container.
pub(crate) const RANGE_ID: &str = "0";

/// Base64 of the bytes, with `-` for `/`.
fn rid(bytes: &[u8]) -> String {
    STANDARD.encode(bytes).replace('/', "-")
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    next_number: u32,
    databases: BTreeMap<String, Database>,
    containers: BTreeMap<String, BTreeMap<String, Arc<Container>>>,
}

/// All databases and containers of the account.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    account: RwLock<Account>,
    /// Where it is kept; `None` in memory.
    file: Option<PathBuf>,
}

impl Metadata {
    /// Continues from a file, or starts one.
    pub(crate) fn open(file: PathBuf) -> std::io::Result<Self> {
        let account = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Account::default(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            account: RwLock::new(account),
            file: Some(file),
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Account) -> Result<T, MetadataError>,
    ) -> Result<T, MetadataError> {
        let mut account = self.account.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut account)?;
        if let Some(file) = &self.file {
            let new = file.with_extension("new");
            std::fs::write(
                &new,
                serde_json::to_vec_pretty(&*account).map_err(std::io::Error::from)?,
            )?;
            std::fs::File::open(&new)?.sync_all()?;
            std::fs::rename(&new, file)?;
        }
        Ok(result)
    }

    fn read<T>(&self, read: impl FnOnce(&Account) -> T) -> T {
        read(&self.account.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn databases(&self) -> Vec<Database> {
        self.read(|account| account.databases.values().cloned().collect())
    }

    /// A database by name or resource id.
    pub(crate) fn database(&self, name: &str) -> Option<Database> {
        self.read(|account| {
            account
                .databases
                .get(name)
                .or_else(|| account.databases.values().find(|db| db.rid() == name))
                .cloned()
        })
    }

    pub(crate) fn create_database(
        &self,
        body: &Map<String, Value>,
    ) -> Result<Database, MetadataError> {
        let id = name_of(body)?;
        self.change(|account| {
            if account.databases.contains_key(&id) {
                return Err(MetadataError::Conflict(format!("database {id:?}")));
            }
            if account.databases.len() >= MAX_DATABASES {
                return Err(MetadataError::BadRequest(format!(
                    "an account has at most {MAX_DATABASES} databases"
                )));
            }
            account.next_number += 1;
            let database = Database {
                id: id.clone(),
                number: account.next_number,
                ts: now(),
            };
            account.containers.insert(id.clone(), BTreeMap::new());
            account.databases.insert(id, database.clone());
            Ok(database)
        })
    }

    /// Deletes a database; returns the numbers of the containers that went with it.
    pub(crate) fn delete_database(&self, id: &str) -> Result<Vec<u32>, MetadataError> {
        self.change(|account| {
            account
                .databases
                .remove(id)
                .ok_or_else(|| MetadataError::NotFound(format!("database {id:?}")))?;
            let containers = account.containers.remove(id).unwrap_or_default();
            Ok(containers
                .values()
                .map(|container| container.number)
                .collect())
        })
    }

    pub(crate) fn containers(&self, database: &str) -> Vec<Arc<Container>> {
        self.read(|account| {
            account
                .containers
                .get(database)
                .into_iter()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect()
        })
    }

    /// A container by name or resource id.
    pub(crate) fn container(&self, database: &str, name: &str) -> Option<Arc<Container>> {
        self.read(|account| {
            let containers = account.containers.get(database)?;
            containers
                .get(name)
                .or_else(|| {
                    containers
                        .values()
                        .find(|container| container.rid() == name)
                })
                .cloned()
        })
    }

    pub(crate) fn create_container(
        &self,
        database: &str,
        mut body: Map<String, Value>,
    ) -> Result<Arc<Container>, MetadataError> {
        let id = name_of(&body)?;
        let definition = body.get("partitionKey").cloned().ok_or_else(|| {
            MetadataError::BadRequest(
                "partitionKey is missing; give it as {\"paths\":[\"/id\"],\"kind\":\"Hash\"}"
                    .into(),
            )
        })?;
        PartitionKeyDefinition::parse(&definition).map_err(MetadataError::BadRequest)?;
        if let Some(keys) = body
            .get("uniqueKeyPolicy")
            .and_then(|policy| policy.get("uniqueKeys"))
            .and_then(Value::as_array)
            && !keys.is_empty()
        {
            return Err(MetadataError::BadRequest(
                "unique keys are not supported by cosmos-local yet; leave uniqueKeyPolicy out"
                    .into(),
            ));
        }
        let policy = body
            .entry("conflictResolutionPolicy")
            .or_insert_with(|| json!({"mode": "LastWriterWins", "conflictResolutionPath": "/_ts", "conflictResolutionProcedure": ""}));
        if policy
            .get("mode")
            .and_then(Value::as_str)
            .is_some_and(|mode| mode != "LastWriterWins")
        {
            return Err(MetadataError::BadRequest(
                "only the conflict resolution mode LastWriterWins is supported by cosmos-local yet"
                    .into(),
            ));
        }
        body.entry("indexingPolicy").or_insert_with(|| {
            json!({"indexingMode": "consistent", "automatic": true, "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/\"_etag\"/?"}]})
        });
        self.change(|account| {
            let database_number = account
                .databases
                .get(database)
                .ok_or_else(|| MetadataError::NotFound(format!("database {database:?}")))?
                .number;
            let number = account.next_number + 1;
            let containers = account.containers.entry(database.to_owned()).or_default();
            if containers.contains_key(&id) {
                return Err(MetadataError::Conflict(format!("container {id:?}")));
            }
            if containers.len() >= MAX_CONTAINERS {
                return Err(MetadataError::BadRequest(format!(
                    "a database has at most {MAX_CONTAINERS} containers"
                )));
            }
            let stored = StoredContainer {
                id: id.clone(),
                database: database.to_owned(),
                database_number,
                number,
                version: 1,
                ts: now(),
                properties: body,
            };
            let container = Arc::new(Container::from(stored));
            containers.insert(id, Arc::clone(&container));
            account.next_number = number;
            Ok(container)
        })
    }

    /// Replaces the changeable properties of a container.
    pub(crate) fn replace_container(
        &self,
        old: &Container,
        body: Map<String, Value>,
    ) -> Result<Arc<Container>, MetadataError> {
        for fixed in ["id", "partitionKey", "conflictResolutionPolicy"] {
            if body
                .get(fixed)
                .is_some_and(|new| old.properties.get(fixed) != Some(new))
            {
                return Err(MetadataError::BadRequest(format!(
                    "{fixed} of a container cannot be changed"
                )));
            }
        }
        self.change(|account| {
            let containers = account.containers.entry(old.database.clone()).or_default();
            let mut properties = old.properties.clone();
            properties.extend(body.into_iter().filter(|(name, _)| !name.starts_with('_')));
            let stored = StoredContainer {
                version: old.version + 1,
                ts: now(),
                properties,
                ..StoredContainer::from(old.clone())
            };
            let container = Arc::new(Container::from(stored));
            containers.insert(old.id.clone(), Arc::clone(&container));
            Ok(container)
        })
    }

    pub(crate) fn delete_container(&self, container: &Container) -> Result<(), MetadataError> {
        self.change(|account| {
            account
                .containers
                .entry(container.database.clone())
                .or_default()
                .remove(&container.id);
            Ok(())
        })
    }
}

fn name_of(body: &Map<String, Value>) -> Result<String, MetadataError> {
    let id = body.get("id").and_then(Value::as_str).unwrap_or_default();
    if id.is_empty() || id.chars().count() > MAX_NAME || id.contains(['/', '\\', '#', '?']) {
        return Err(MetadataError::BadRequest(format!(
            "id has to be 1 to {MAX_NAME} characters, none of / \\ # ?"
        )));
    }
    Ok(id.to_owned())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
