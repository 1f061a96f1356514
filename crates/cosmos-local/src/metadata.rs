//! Databases and containers. They belong to the account: a change is visible in every region at once, and survives
//! with the data folder, resource ids included.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    container::{Container, Place, rid},
    file,
    offer::{Offer, Throughput},
};

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
    #[error("{0}")]
    Forbidden(String),
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

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Account {
    next_number: u32,
    /// Index of the region that takes the writes, where only one does.
    #[serde(default)]
    hub: usize,
    databases: BTreeMap<String, Database>,
    containers: BTreeMap<String, BTreeMap<String, Arc<Container>>>,
    #[serde(default)]
    offers: Vec<Offer>,
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
        // What is not in the file is not in memory either.
        let mut changed = account.clone();
        let result = change(&mut changed)?;
        if let Some(file) = &self.file {
            file::replace(file, &changed)?;
        }
        *account = changed;
        Ok(result)
    }

    fn read<T>(&self, read: impl FnOnce(&Account) -> T) -> T {
        read(&self.account.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Index of the region that takes the writes, where only one does.
    pub(crate) fn hub(&self) -> usize {
        self.read(|account| account.hub)
    }

    pub(crate) fn set_hub(&self, region: usize) -> Result<(), MetadataError> {
        self.change(|account| {
            account.hub = region;
            Ok(())
        })
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
        throughput: Option<Throughput>,
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
            let rid = database.rid();
            account.add_offer(format!("dbs/{rid}/"), rid, throughput);
            Ok(database)
        })
    }

    /// Deletes a database; returns the numbers of the containers that went with it.
    pub(crate) fn delete_database(&self, id: &str) -> Result<Vec<u32>, MetadataError> {
        self.change(|account| {
            let database = account
                .databases
                .remove(id)
                .ok_or_else(|| MetadataError::NotFound(format!("database {id:?}")))?;
            let containers = account.containers.remove(id).unwrap_or_default();
            let mut gone: Vec<String> = containers
                .values()
                .map(|container| container.rid().to_owned())
                .collect();
            gone.push(database.rid());
            account
                .offers
                .retain(|offer| !gone.contains(&offer.resource_id));
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

    /// Every container of the account.
    pub(crate) fn all_containers(&self) -> Vec<Arc<Container>> {
        self.read(|account| {
            let containers = account.containers.values();
            containers.flat_map(BTreeMap::values).cloned().collect()
        })
    }

    /// Numbers that no container has any more, nor ever will have.
    pub(crate) fn gone(&self) -> Vec<u32> {
        self.read(|account| {
            let containers = account.containers.values().flat_map(BTreeMap::values);
            let there: BTreeSet<u32> = containers.map(|container| container.number).collect();
            let given = 1..=account.next_number;
            given.filter(|number| !there.contains(number)).collect()
        })
    }

    pub(crate) fn create_container(
        &self,
        database: &str,
        body: Map<String, Value>,
        partitions: u32,
        throughput: Option<Throughput>,
    ) -> Result<Arc<Container>, MetadataError> {
        let id = name_of(&body)?;
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
            let place = Place {
                id: id.clone(),
                database: database.to_owned(),
                database_number,
                number,
                ts: now(),
                partitions,
            };
            let container = Arc::new(Container::new(place, body)?);
            containers.insert(id, Arc::clone(&container));
            account.next_number = number;
            let shared = rid(&database_number.to_be_bytes());
            let shares = account
                .offers
                .iter()
                .any(|offer| offer.resource_id == shared);
            account.add_offer(
                container.self_link().to_owned(),
                container.rid().to_owned(),
                throughput.or((!shares).then_some(Throughput::LEAST)),
            );
            Ok(container)
        })
    }

    /// Replaces the changeable properties of a container.
    pub(crate) fn replace_container(
        &self,
        container: &Container,
        body: Map<String, Value>,
    ) -> Result<Arc<Container>, MetadataError> {
        self.change(|account| {
            let current = account.current(container)?;
            let replaced = Arc::new(current.replaced(body, now())?);
            *current = Arc::clone(&replaced);
            Ok(replaced)
        })
    }

    /// Divides a partition key range of a container; returns the ids of the halves.
    pub(crate) fn split_range(
        &self,
        container: &Container,
        range: &str,
    ) -> Result<[u32; 2], MetadataError> {
        self.change(|account| {
            let current = account.current(container)?;
            let (split, halves) = current.split(range)?;
            *current = Arc::new(split);
            Ok(halves)
        })
    }

    /// Makes one of two partition key ranges of a container; returns its id.
    pub(crate) fn merge_ranges(
        &self,
        container: &Container,
        ranges: [&str; 2],
    ) -> Result<u32, MetadataError> {
        self.change(|account| {
            let current = account.current(container)?;
            let (merged, id) = current.merge(ranges)?;
            *current = Arc::new(merged);
            Ok(id)
        })
    }

    pub(crate) fn delete_container(&self, container: &Container) -> Result<(), MetadataError> {
        self.change(|account| {
            account.current(container)?;
            let rid = container.rid();
            account.offers.retain(|offer| offer.resource_id != rid);
            account
                .containers
                .entry(container.database().to_owned())
                .or_default()
                .remove(container.id());
            Ok(())
        })
    }
}

impl Metadata {
    pub(crate) fn offers(&self) -> Vec<Offer> {
        self.read(|account| account.offers.clone())
    }

    /// Changes the throughput of an offer.
    pub(crate) fn replace_offer(
        &self,
        rid: &str,
        body: &Map<String, Value>,
    ) -> Result<Offer, MetadataError> {
        self.change(|account| {
            let mut offers = account.offers.iter_mut();
            let offer = offers
                .find(|offer| offer.rid() == rid)
                .ok_or_else(|| MetadataError::NotFound(format!("offer {rid:?}")))?;
            offer
                .replace(body, now())
                .map_err(MetadataError::BadRequest)?;
            Ok(offer.clone())
        })
    }
}

impl Account {
    fn add_offer(&mut self, resource: String, rid: String, throughput: Option<Throughput>) {
        if let Some(throughput) = throughput {
            self.next_number += 1;
            let offer = Offer::new(self.next_number, resource, rid, throughput, now());
            self.offers.push(offer);
        }
    }

    /// A container as it is now, unless it was deleted meanwhile, or even made anew.
    fn current(&mut self, container: &Container) -> Result<&mut Arc<Container>, MetadataError> {
        self.containers
            .get_mut(container.database())
            .and_then(|containers| containers.get_mut(container.id()))
            .filter(|current| current.number == container.number)
            .ok_or_else(|| MetadataError::NotFound(format!("container {:?}", container.id())))
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
