//! A container: what its creator said, and what requests need of that.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    document::Document, metadata::MetadataError, partition_key::PartitionKeyDefinition,
    ranges::Ranges, ttl,
};

/// Unique keys of a container, and paths of one, at the most.
const MAX_UNIQUE_KEYS: usize = 10;
const MAX_UNIQUE_PATHS: usize = 16;

/// What the creator of a container decides for ever.
const FIXED: [&str; 3] = ["id", "partitionKey", "conflictResolutionPolicy"];

/// A container as it was created, and the parts of it that every request needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "StoredContainer", into = "StoredContainer")]
pub(crate) struct Container {
    stored: StoredContainer,
    /// What answers and items repeat of it.
    names: Names,
    /// Unique in the account, never used again.
    pub(crate) number: u32,
    pub(crate) partition_key: PartitionKeyDefinition,
    /// Members on the way to the number that decides conflicts; empty for `/_ts`.
    conflict_path: Vec<String>,
    /// Whether versions that lose a conflict are kept for somebody to look at.
    pub(crate) keeps_conflicts: bool,
    /// Seconds that an item lives when it says nothing; `None` is no expiry at all.
    pub(crate) default_ttl: Option<i64>,
    /// Per unique key, the paths to its values.
    pub(crate) unique_keys: Vec<Vec<Vec<String>>>,
}

/// A container as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredContainer {
    id: String,
    database: String,
    database_number: u32,
    number: u32,
    version: u64,
    ts: i64,
    properties: Map<String, Value>,
    ranges: Ranges,
}

/// The ways to name a container.
#[derive(Debug, Clone)]
struct Names {
    rid: String,
    /// By resource ids.
    self_link: String,
    /// By names.
    path: String,
}

impl Names {
    fn of(stored: &StoredContainer) -> Self {
        let rid = rid(&stored.rid_bytes());
        Self {
            self_link: format!(
                "dbs/{}/colls/{rid}/",
                self::rid(&stored.database_number.to_be_bytes())
            ),
            rid,
            path: format!("dbs/{}/colls/{}", stored.database, stored.id),
        }
    }
}

impl StoredContainer {
    fn rid_bytes(&self) -> Vec<u8> {
        [
            self.database_number.to_be_bytes(),
            (self.number | 0x8000_0000).to_be_bytes(),
        ]
        .concat()
    }
}

/// Where a new container belongs.
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) database: String,
    pub(crate) database_number: u32,
    pub(crate) number: u32,
    pub(crate) ts: i64,
    /// Physical partitions to begin with.
    pub(crate) partitions: u32,
}

impl From<Container> for StoredContainer {
    fn from(container: Container) -> Self {
        container.stored
    }
}

impl TryFrom<StoredContainer> for Container {
    type Error = MetadataError;

    fn try_from(stored: StoredContainer) -> Result<Self, MetadataError> {
        let bad = MetadataError::BadRequest;
        let properties = &stored.properties;
        let definition = properties.get("partitionKey").unwrap_or(&Value::Null);
        let partition_key = PartitionKeyDefinition::parse(definition).map_err(bad)?;
        let (conflict_path, keeps_conflicts) = conflict_policy(properties)?;
        let default_ttl = properties
            .get("defaultTtl")
            .filter(|ttl| !ttl.is_null())
            .map(ttl::parse)
            .transpose()
            .map_err(bad)?;
        let unique_keys = unique_keys(properties)?;
        Ok(Self {
            number: stored.number,
            partition_key,
            conflict_path,
            keeps_conflicts,
            default_ttl,
            unique_keys,
            names: Names::of(&stored),
            stored,
        })
    }
}

fn conflict_policy(properties: &Map<String, Value>) -> Result<(Vec<String>, bool), MetadataError> {
    let Some(policy) = properties.get("conflictResolutionPolicy") else {
        return Ok((Vec::new(), false));
    };
    let text = |name: &str| policy.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("mode") {
        "" | "LastWriterWins" => {
            let path = text("conflictResolutionPath");
            let names = if path == "/_ts" {
                Vec::new()
            } else {
                names(path)
            };
            Ok((names, false))
        }
        "Custom" => {
            if !text("conflictResolutionProcedure").is_empty() {
                tracing::warn!(
                    procedure = text("conflictResolutionProcedure"),
                    "cosmos-local runs no merge procedures; versions that lose a conflict go to the conflict feed"
                );
            }
            Ok((Vec::new(), true))
        }
        other => Err(MetadataError::BadRequest(format!(
            "the conflict resolution mode {other:?} is none of LastWriterWins and Custom"
        ))),
    }
}

fn unique_keys(properties: &Map<String, Value>) -> Result<Vec<Vec<Vec<String>>>, MetadataError> {
    let keys = properties
        .get("uniqueKeyPolicy")
        .and_then(|policy| policy.get("uniqueKeys"))
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let paths = |key: &Value| -> Option<Vec<Vec<String>>> {
        let paths = key.get("paths")?.as_array()?;
        let paths = paths.iter().map(|path| {
            path.as_str()
                .filter(|path| path.starts_with('/') && path.len() > 1)
                .map(names)
        });
        paths
            .collect::<Option<Vec<_>>>()
            .filter(|paths| (1..=MAX_UNIQUE_PATHS).contains(&paths.len()))
    };
    keys.iter()
        .map(paths)
        .collect::<Option<Vec<_>>>()
        .filter(|keys| keys.len() <= MAX_UNIQUE_KEYS)
        .ok_or_else(|| {
            MetadataError::BadRequest(format!(
                "uniqueKeyPolicy.uniqueKeys are at most {MAX_UNIQUE_KEYS} objects such as {{\"paths\":[\"/email\"]}}, each with 1 to {MAX_UNIQUE_PATHS} paths"
            ))
        })
}

/// The names of a path such as `/a/b`.
fn names(path: &str) -> Vec<String> {
    path.split('/')
        .map(|name| name.trim_matches('"'))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Container {
    /// A new container, with what its creator left out.
    pub(crate) fn new(
        place: Place,
        mut properties: Map<String, Value>,
    ) -> Result<Self, MetadataError> {
        properties.entry("partitionKey").or_insert_with(
            || json!({"paths": ["/_partitionKey"], "kind": "Hash", "version": 2, "systemKey": true}),
        );
        properties
            .entry("conflictResolutionPolicy")
            .or_insert_with(|| json!({"mode": "LastWriterWins", "conflictResolutionPath": "/_ts", "conflictResolutionProcedure": ""}));
        fill_in(&mut properties);
        fill_in_indexing(&mut properties);
        let definition = &properties["partitionKey"];
        let hashing = PartitionKeyDefinition::parse(definition)
            .map_err(MetadataError::BadRequest)?
            .hashing();
        StoredContainer {
            id: place.id,
            database: place.database,
            database_number: place.database_number,
            number: place.number,
            version: 1,
            ts: place.ts,
            properties,
            ranges: Ranges::even(place.partitions, hashing),
        }
        .try_into()
    }

    /// The container with other properties.
    pub(crate) fn replaced(
        &self,
        mut body: Map<String, Value>,
        ts: i64,
    ) -> Result<Self, MetadataError> {
        fill_in(&mut body);
        let old = &self.stored.properties;
        for fixed in FIXED {
            if body
                .get(fixed)
                .is_some_and(|new| old.get(fixed) != Some(new))
            {
                return Err(MetadataError::BadRequest(format!(
                    "{fixed} of a container cannot be changed"
                )));
            }
        }
        let unique = "uniqueKeyPolicy";
        let keys = |properties: &Map<String, Value>| {
            let keys = properties
                .get(unique)
                .and_then(|policy| policy.get("uniqueKeys"));
            keys.cloned().unwrap_or_else(|| json!([]))
        };
        if body.contains_key(unique) && keys(&body) != keys(old) {
            return Err(MetadataError::Forbidden(
                "the unique keys of a container cannot be changed".into(),
            ));
        }
        let mut properties: Map<String, Value> = body
            .into_iter()
            .filter(|(name, _)| !name.starts_with('_'))
            .collect();
        for kept in FIXED.into_iter().chain([unique]) {
            if let Some(value) = old.get(kept) {
                properties.entry(kept).or_insert_with(|| value.clone());
            }
        }
        fill_in_indexing(&mut properties);
        StoredContainer {
            version: self.stored.version + 1,
            ts,
            properties,
            ..self.stored.clone()
        }
        .try_into()
    }

    /// The container with one of its ranges divided; the ids of the halves.
    pub(crate) fn split(&self, range: &str) -> Result<(Self, [u32; 2]), MetadataError> {
        let mut split = self.clone();
        let halves = split
            .stored
            .ranges
            .split(range, self.partition_key.hashing())
            .map_err(MetadataError::BadRequest)?;
        Ok((split, halves))
    }

    /// The container with two of its ranges merged; the id of what they become.
    pub(crate) fn merge(&self, ranges: [&str; 2]) -> Result<(Self, u32), MetadataError> {
        let mut merged = self.clone();
        let id = merged.stored.ranges.merge(ranges);
        Ok((merged, id.map_err(MetadataError::BadRequest)?))
    }

    pub(crate) fn id(&self) -> &str {
        &self.stored.id
    }

    pub(crate) fn database(&self) -> &str {
        &self.stored.database
    }

    pub(crate) fn ranges(&self) -> &Ranges {
        &self.stored.ranges
    }

    pub(crate) fn rid(&self) -> &str {
        &self.names.rid
    }

    pub(crate) fn self_link(&self) -> &str {
        &self.names.self_link
    }

    pub(crate) fn name_path(&self) -> &str {
        &self.names.path
    }

    /// The resource id of something in the container; the top four bits say of which kind.
    fn child_rid(&self, kind: u8, ordinal: u64) -> String {
        let ordinal = ordinal & 0x0fff_ffff_ffff_ffff | u64::from(kind) << 60;
        rid(&[self.stored.rid_bytes().as_slice(), &ordinal.to_le_bytes()].concat())
    }

    /// The resource id of the item with this ordinal.
    pub(crate) fn item_rid(&self, ordinal: u64) -> String {
        self.child_rid(0, ordinal)
    }

    /// The resource id of a conflict.
    pub(crate) fn conflict_rid(&self, ordinal: u64) -> String {
        self.child_rid(4, ordinal)
    }

    /// The number that decides conflicts, where the document has one.
    pub(crate) fn conflict_rank(&self, members: &Map<String, Value>) -> Option<f64> {
        let (first, rest) = self.conflict_path.split_first()?;
        let value = rest
            .iter()
            .try_fold(members.get(first)?, |value, part| value.get(part))?;
        value.as_f64()
    }

    /// The document as text, with its system properties, and no more memory than that takes: stored items are kept in it.
    pub(crate) fn render(&self, document: &Document, ordinal: u64, etag: &str, ts: i64) -> String {
        let rid = self.item_rid(ordinal);
        let system = format!(
            ",\"_self\":\"{}docs/{rid}/\",\"_rid\":\"{rid}\",\"_etag\":{},\"_attachments\":\"attachments/\",\"_ts\":{ts}}}",
            self.self_link(),
            Value::from(etag),
        );
        // It has an id at least, so a member can always follow.
        let open = document.text.strip_suffix('}').unwrap_or(&document.text);
        [open, &system].concat()
    }

    pub(crate) fn etag(&self) -> String {
        format!("\"c-{}-{}\"", self.number, self.stored.version)
    }

    pub(crate) fn view(&self) -> Value {
        let mut view = self.stored.properties.clone();
        for (name, value) in [
            ("_rid", self.rid().to_owned()),
            ("_self", self.self_link().to_owned()),
            ("_etag", self.etag()),
            ("_docs", "docs/".to_owned()),
            ("_sprocs", "sprocs/".to_owned()),
            ("_triggers", "triggers/".to_owned()),
            ("_udfs", "udfs/".to_owned()),
            ("_conflicts", "conflicts/".to_owned()),
        ] {
            view.insert(name.into(), value.into());
        }
        view.insert("_ts".into(), self.stored.ts.into());
        Value::Object(view)
    }

    /// The partition key ranges as clients read them.
    pub(crate) fn range_views(&self) -> Vec<Value> {
        let ranges = self.ranges().all();
        let share = 1.0 / ranges.len() as f64;
        let view = |range: &crate::ranges::Range| {
            let rid = self.child_rid(5, range.id.into());
            let parents: Vec<String> = range.parents.iter().map(u32::to_string).collect();
            json!({
                "id": range.id.to_string(), "minInclusive": range.start, "maxExclusive": range.end, "parents": parents,
                "status": "online", "throughputFraction": share, "ridPrefix": range.id, "_rid": rid,
                "_self": format!("{}pkranges/{rid}/", self.self_link()), "_etag": self.ranges_etag(),
                "_ts": self.stored.ts, "_lsn": 1,
            })
        };
        ranges.iter().map(view).collect()
    }

    /// Changes with every split and merge.
    pub(crate) fn ranges_etag(&self) -> String {
        format!("\"r-{}-{}\"", self.number, self.ranges().version())
    }
}

/// What is meant by definitions that do not say it.
fn fill_in(properties: &mut Map<String, Value>) {
    if let Some(Value::Object(definition)) = properties.get_mut("partitionKey") {
        definition.entry("kind").or_insert_with(|| json!("Hash"));
    }
    if let Some(Value::Object(policy)) = properties.get_mut("conflictResolutionPolicy") {
        let mode = policy
            .entry("mode")
            .or_insert_with(|| json!("LastWriterWins"));
        if mode == "LastWriterWins" {
            let path = policy.entry("conflictResolutionPath");
            let path = path.or_insert(Value::Null);
            if path.as_str().is_none_or(str::is_empty) {
                *path = json!("/_ts");
            }
        }
        let procedure = policy.entry("conflictResolutionProcedure");
        let procedure = procedure.or_insert(Value::Null);
        if procedure.is_null() {
            *procedure = json!("");
        }
    }
}

fn fill_in_indexing(properties: &mut Map<String, Value>) {
    properties.entry("indexingPolicy").or_insert_with(|| {
        json!({"indexingMode": "consistent", "automatic": true, "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/\"_etag\"/?"}]})
    });
}

/// Base64 of the bytes, with `-` for `/`.
pub(crate) fn rid(bytes: &[u8]) -> String {
    STANDARD.encode(bytes).replace('/', "-")
}

/// A container with the partition key `/k`, for tests.
#[cfg(test)]
pub(crate) fn sample() -> std::sync::Arc<Container> {
    let place = Place {
        id: "c".into(),
        database: "db".into(),
        database_number: 1,
        number: 2,
        ts: 0,
        partitions: 1,
    };
    let properties =
        serde_json::json!({"id": "c", "partitionKey": {"paths": ["/k"], "kind": "Hash"}});
    let properties = properties.as_object().expect("an object").clone();
    std::sync::Arc::new(Container::new(place, properties).expect("valid"))
}
