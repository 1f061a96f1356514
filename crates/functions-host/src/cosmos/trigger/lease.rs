//! Lease documents: what is stored in the lease container, and under which ids.
//!
//! The shape is that of the .NET change feed processor
//! (`Azure/azure-cosmos-dotnet-v3: Microsoft.Azure.Cosmos/src/ChangeFeedProcessor/LeaseManagement`),
//! in its range-based form (`version` 1, lease token `<min>-<max>`): the Rust SDK names physical
//! partitions by the hash range they cover, not by the number the service gave them.
//!
//! One thing differs by necessity: `ContinuationToken` holds the text that the Rust SDK gives
//! (`c1.…`), where .NET stores the bare ETag of the feed. The two cannot be converted into each
//! other, so one lease prefix belongs to one kind of host; [`LeaseDocument::is_foreign`] tells.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `version` of a lease that covers a hash range rather than a numbered partition.
const RANGE_BASED: u8 = 1;

/// How every continuation of the Rust SDK begins (`azure_data_cosmos_driver`, `ContinuationToken`).
const SDK_TOKEN_PREFIX: &str = "c1.";

/// The only feed mode of the trigger: inserts and updates in their latest version.
const MODE: &str = "Incremental Feed";

/// Seconds after which the service may drop a forgotten bootstrap lock.
pub(crate) const LOCK_TTL_SECONDS: u32 = 30;

/// The ids of all documents that one trigger owns in the lease container.
///
/// Built from the lease prefix, the account's host name and the resource ids of the monitored
/// database and container; not from the function's name. So two functions that share a prefix
/// share the leases, and a container that was deleted and created again starts afresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseIds {
    prefix: String,
}

impl LeaseIds {
    /// `prefix` is the trigger's `leaseContainerPrefix`, empty when it has none.
    pub(crate) fn new(prefix: &str, host: &str, database_rid: &str, container_rid: &str) -> Self {
        Self {
            prefix: format!("{prefix}{host}_{database_rid}_{container_rid}"),
        }
    }

    /// Marks that all leases have been created once.
    pub(crate) fn initialised(&self) -> String {
        format!("{}.info", self.prefix)
    }

    /// Held by the one host that creates the leases.
    pub(crate) fn lock(&self) -> String {
        format!("{}.lock", self.prefix)
    }

    /// What the id of every lease, and of nothing else, begins with.
    pub(crate) fn leases(&self) -> String {
        format!("{}..", self.prefix)
    }

    /// The id of the lease of one range.
    pub(crate) fn lease(&self, range: &HashRange) -> String {
        format!("{}{}", self.leases(), range.token())
    }
}

/// A half-open range of effective partition keys, as upper-case hex text.
///
/// The whole container is `""` to `"FF"`. Bounds compare as text, as in all Cosmos DB SDKs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct HashRange {
    /// Inclusive lower bound.
    pub(crate) min: String,
    /// Exclusive upper bound.
    pub(crate) max: String,
}

impl HashRange {
    pub(crate) fn new(min: impl Into<String>, max: impl Into<String>) -> Self {
        Self {
            min: min.into(),
            max: max.into(),
        }
    }

    /// The lease token of this range: `<min>-<max>`.
    pub(crate) fn token(&self) -> String {
        format!("{}-{}", self.min, self.max)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.min < other.max && other.min < self.max
    }
}

/// The parts of `wanted` that no range in `covered` covers, in order.
///
/// Leases are created for exactly these: a bootstrap that was interrupted half-way, with a split in
/// between, still ends in leases that cover the whole container once.
pub(crate) fn uncovered(wanted: &HashRange, covered: &[HashRange]) -> Vec<HashRange> {
    let mut covered: Vec<&HashRange> = covered.iter().filter(|c| c.overlaps(wanted)).collect();
    covered.sort();
    let mut gaps = Vec::new();
    let mut reached = wanted.min.as_str();
    for range in covered {
        if range.min.as_str() > reached {
            gaps.push(HashRange::new(reached, &*range.min));
        }
        if range.max.as_str() > reached {
            reached = &range.max;
        }
    }
    if reached < wanted.max.as_str() {
        gaps.push(HashRange::new(reached, &*wanted.max));
    }
    gaps
}

/// `FeedRange` member of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedRangeMember {
    /// The range, by its bounds.
    #[serde(rename = "Range")]
    pub(crate) range: HashRange,
}

/// One lease: a range of the feed, who reads it, and how far it has been read.
///
/// Members that this type does not know are ignored, and dropped by the next write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseDocument {
    /// Document id, see [`LeaseIds::lease`].
    pub(crate) id: String,
    /// 1 for the range-based form; .NET writes 0 for leases by partition number.
    #[serde(default)]
    pub(crate) version: u8,
    /// Name of the slice, unique within the prefix.
    #[serde(rename = "LeaseToken", default)]
    pub(crate) lease_token: String,
    /// The slice itself.
    #[serde(rename = "FeedRange", default)]
    pub(crate) feed_range: Option<FeedRangeMember>,
    /// Instance that reads this slice; `None` = free.
    #[serde(rename = "Owner", default)]
    pub(crate) owner: Option<String>,
    /// Position after the last batch that was handled; `None` = nothing yet.
    #[serde(rename = "ContinuationToken", default)]
    pub(crate) continuation_token: Option<String>,
    /// Free for applications; written empty.
    #[serde(default)]
    pub(crate) properties: serde_json::Map<String, serde_json::Value>,
    /// Time of the last write by an owner, in the owner's clock; the lease expires relative to it.
    #[serde(with = "timestamp")]
    pub(crate) timestamp: Timestamp,
    /// Feed mode.
    #[serde(rename = "Mode", default)]
    pub(crate) mode: Option<String>,
}

impl LeaseDocument {
    /// A free lease for `range`, read up to `continuation`.
    pub(crate) fn unowned(
        ids: &LeaseIds,
        range: HashRange,
        continuation: Option<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: ids.lease(&range),
            version: RANGE_BASED,
            lease_token: range.token(),
            feed_range: Some(FeedRangeMember { range }),
            owner: None,
            continuation_token: continuation,
            properties: serde_json::Map::new(),
            timestamp: now,
            mode: Some(MODE.to_owned()),
        }
    }

    /// The range this lease stands for, if it is one of ours.
    pub(crate) fn range(&self) -> Option<&HashRange> {
        self.feed_range.as_ref().map(|member| &member.range)
    }

    /// Whether another kind of host wrote this lease, so that its position means nothing to us.
    pub(crate) fn is_foreign(&self) -> bool {
        self.version != RANGE_BASED
            || self.feed_range.is_none()
            || self.mode.as_deref().is_some_and(|mode| mode != MODE)
            || self
                .continuation_token
                .as_deref()
                .is_some_and(|token| !token.starts_with(SDK_TOKEN_PREFIX))
    }

    /// Whether the owner has been silent for longer than `expiration` at `now`.
    pub(crate) fn is_expired(&self, now: Timestamp, expiration: std::time::Duration) -> bool {
        let silent = now.duration_since(self.timestamp);
        silent.is_positive() && silent.unsigned_abs() > expiration
    }
}

/// The document that says "all leases of this prefix exist".
#[derive(Debug, Serialize)]
pub(crate) struct InitialisedDocument {
    pub(crate) id: String,
}

/// The document that keeps two hosts from creating the leases at the same time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LockDocument {
    pub(crate) id: String,
    /// Seconds to live, honoured where the lease container has TTL switched on.
    #[serde(default)]
    pub(crate) ttl: Option<u32>,
    /// Who holds it. Ours alone: lets a host recognise its own lock after an ambiguous answer.
    #[serde(rename = "Owner", default)]
    pub(crate) owner: Option<String>,
}

/// ISO 8601 in UTC with seven digits, as .NET writes it; any RFC 3339 text is read.
mod timestamp {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        value: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&value.strftime("%Y-%m-%dT%H:%M:%S%.7fZ"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn ids() -> LeaseIds {
        LeaseIds::new(
            "Notifications-West US",
            "127.0.0.1",
            "abcDAA==",
            "abcDAIiJkwU=",
        )
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ids_carry_prefix_account_database_and_container() {
        let base = "Notifications-West US127.0.0.1_abcDAA==_abcDAIiJkwU=";
        assert_eq!(ids().initialised(), format!("{base}.info"));
        assert_eq!(ids().lock(), format!("{base}.lock"));
        assert_eq!(
            ids().lease(&HashRange::new("", "FF")),
            format!("{base}..-FF")
        );
    }

    #[test]
    fn a_fresh_lease_is_written_in_the_shape_of_the_net_processor() {
        let lease = LeaseDocument::unowned(
            &ids(),
            HashRange::new("", "1FFF"),
            None,
            at("2026-03-01T10:00:00.1234567Z"),
        );
        assert_eq!(
            serde_json::to_value(&lease).unwrap(),
            json!({
                "id": "Notifications-West US127.0.0.1_abcDAA==_abcDAIiJkwU=..-1FFF",
                "version": 1,
                "LeaseToken": "-1FFF",
                "FeedRange": { "Range": { "min": "", "max": "1FFF" } },
                "Owner": null,
                "ContinuationToken": null,
                "properties": {},
                "timestamp": "2026-03-01T10:00:00.1234567Z",
                "Mode": "Incremental Feed"
            })
        );
        assert!(!lease.is_foreign());
    }

    #[test]
    fn a_lease_read_back_with_system_members_round_trips() {
        let text = json!({
            "id": "p..-FF", "version": 1, "LeaseToken": "-FF",
            "FeedRange": { "Range": { "min": "", "max": "FF" } },
            "Owner": "host-1", "ContinuationToken": "c1.e30", "properties": {},
            "timestamp": "2026-08-06T10:00:00.0000000Z", "Mode": "Incremental Feed",
            "_etag": "\"0000-90\"", "_ts": 1786010400, "_rid": "x", "somethingNew": [1]
        });
        let lease: LeaseDocument = serde_json::from_value(text).unwrap();
        assert_eq!(lease.owner.as_deref(), Some("host-1"));
        assert_eq!(lease.range(), Some(&HashRange::new("", "FF")));
        assert_eq!(lease.timestamp, at("2026-08-06T10:00:00Z"));
        assert!(!lease.is_foreign());
    }

    #[test]
    fn leases_of_the_net_host_are_recognised_as_foreign() {
        let by_number = json!({
            "id": "p..0", "version": 0, "LeaseToken": "0",
            "FeedRange": { "Range": { "min": "", "max": "FF" } },
            "Owner": null, "ContinuationToken": null, "properties": {},
            "timestamp": "2026-08-06T10:00:00Z", "Mode": "Incremental Feed"
        });
        let by_range_with_etag = json!({
            "id": "p..-FF", "version": 1, "LeaseToken": "-FF",
            "FeedRange": { "Range": { "min": "", "max": "FF" } },
            "Owner": null, "ContinuationToken": "\"128\"",
            "timestamp": "2026-08-06T10:00:00Z", "Mode": "Incremental Feed"
        });
        let full_fidelity = json!({
            "id": "p..-FF", "version": 1, "LeaseToken": "-FF",
            "FeedRange": { "Range": { "min": "", "max": "FF" } },
            "timestamp": "2026-08-06T10:00:00Z", "Mode": "Full-Fidelity Feed"
        });
        for text in [by_number, by_range_with_etag, full_fidelity] {
            let lease: LeaseDocument = serde_json::from_value(text.clone()).unwrap();
            assert!(lease.is_foreign(), "{text}");
        }
    }

    #[test]
    fn a_lease_expires_after_the_interval_and_never_because_a_clock_is_behind() {
        let lease = LeaseDocument::unowned(
            &ids(),
            HashRange::new("", "FF"),
            None,
            at("2026-03-01T10:00:00Z"),
        );
        let minute = Duration::from_secs(60);
        assert!(!lease.is_expired(at("2026-03-01T10:01:00Z"), minute));
        assert!(lease.is_expired(at("2026-03-01T10:01:00.001Z"), minute));
        assert!(!lease.is_expired(at("2026-03-01T08:00:00Z"), minute));
    }

    #[test]
    fn uncovered_parts_are_found_whatever_the_cover() {
        let r = HashRange::new;
        let whole = r("", "FF");
        type Case = (Vec<HashRange>, Vec<HashRange>);
        let cases: [Case; 6] = [
            (vec![], vec![r("", "FF")]),
            (vec![r("", "FF")], vec![]),
            (vec![r("", "7F")], vec![r("7F", "FF")]),
            (vec![r("7F", "FF"), r("", "3F")], vec![r("3F", "7F")]),
            (vec![r("3F", "7F")], vec![r("", "3F"), r("7F", "FF")]),
            (vec![r("", "7F"), r("", "3F"), r("5F", "FF")], vec![]),
        ];
        for (covered, gaps) in cases {
            assert_eq!(uncovered(&whole, &covered), gaps, "{covered:?}");
        }
        assert_eq!(
            uncovered(&r("3F", "7F"), &[r("", "4F"), r("6F", "FF")]),
            vec![r("4F", "6F")]
        );
    }
}
