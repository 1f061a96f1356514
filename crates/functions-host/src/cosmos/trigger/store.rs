//! Reading and writing lease documents, always conditionally.
//!
//! Every change of a lease is a replace with `If-Match`. When somebody else was faster (412) the
//! lease is read again and the change repeated if its premise still holds; otherwise the lease is
//! lost. That is all that keeps two hosts apart, as in
//! `Azure/azure-cosmos-dotnet-v3: .../ChangeFeedProcessor/LeaseManagement/DocumentServiceLeaseUpdaterCosmos.cs`.

use std::sync::Arc;

use azure_core::http::Etag;
use azure_data_cosmos::options::{ItemWriteOptions, Precondition};
use azure_data_cosmos::{FeedScope, Query};
use futures::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::lease::{InitialisedDocument, LOCK_TTL_SECONDS, LeaseDocument, LeaseIds, LockDocument};
use crate::cosmos::clients::{Container, bounded};
use crate::cosmos::error::Error;

/// How often a lease write is repeated after others were faster.
const UPDATE_ATTEMPTS: usize = 5;

/// A lease as it was last seen in the container.
#[derive(Clone, Debug)]
pub(crate) struct StoredLease {
    pub(crate) document: LeaseDocument,
    etag: Etag,
}

/// Why a lease was not written.
#[derive(Debug)]
pub(crate) enum UpdateError {
    /// It belongs to somebody else now, or is gone.
    Lost,
    /// The write failed; the lease may still be ours.
    Failed(Error),
}

impl From<Error> for UpdateError {
    fn from(error: Error) -> Self {
        if error.is_not_found() {
            Self::Lost
        } else {
            Self::Failed(error)
        }
    }
}

/// Who holds the bootstrap lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// This host; the tag releases it.
    Mine(Etag),
    /// Another host; the tag tells whether it is still the same lock later.
    Other(Etag),
    /// It was released between two looks.
    Gone,
}

/// The leases of one trigger in their container.
#[derive(Debug)]
pub(crate) struct LeaseStore {
    container: Arc<Container>,
    ids: LeaseIds,
}

/// A lease document beside the tag it was read with.
#[derive(Deserialize)]
struct Tagged<T> {
    #[serde(rename = "_etag")]
    etag: String,
    #[serde(flatten)]
    document: T,
}

impl LeaseStore {
    pub(crate) fn new(container: Arc<Container>, ids: LeaseIds) -> Self {
        Self { container, ids }
    }

    pub(crate) fn ids(&self) -> &LeaseIds {
        &self.ids
    }

    /// Every lease of this trigger, whoever owns it, in the order of their ranges.
    pub(crate) async fn list(&self) -> Result<Vec<StoredLease>, Error> {
        let action = || "listing leases".to_owned();
        let query = Query::from("SELECT * FROM c WHERE STARTSWITH(c.id, @prefix)")
            .with_parameter("@prefix", self.ids.leases())
            .map_err(Error::service(action()))?;
        let items = bounded(
            action,
            self.container
                .client
                .query_items::<Value>(query, FeedScope::full_container(), None),
        )
        .await?;
        let mut pages = Box::pin(items.into_pages());
        let mut leases = Vec::new();
        while let Some(page) = bounded(action, async { pages.next().await.transpose() }).await? {
            for item in page.into_items() {
                leases.push(parse(item)?);
            }
        }
        leases.sort_by(|a: &StoredLease, b| a.document.range().cmp(&b.document.range()));
        Ok(leases)
    }

    /// Writes a lease that does not exist yet; one that exists stays as it is.
    pub(crate) async fn create(&self, lease: &LeaseDocument) -> Result<(), Error> {
        self.create_or_exists(&lease.id, lease).await
    }

    /// Whether all leases have been created once.
    pub(crate) async fn is_initialised(&self) -> Result<bool, Error> {
        Ok(self.read::<Value>(&self.ids.initialised()).await?.is_some())
    }

    /// Notes that all leases have been created.
    pub(crate) async fn mark_initialised(&self) -> Result<(), Error> {
        let id = self.ids.initialised();
        self.create_or_exists(&id, &InitialisedDocument { id: id.clone() })
            .await
    }

    /// Tries to take the bootstrap lock for `me`.
    pub(crate) async fn lock(&self, me: &str) -> Result<Lock, Error> {
        let id = self.ids.lock();
        let document = LockDocument {
            id: id.clone(),
            ttl: Some(LOCK_TTL_SECONDS),
            owner: Some(me.to_owned()),
        };
        self.create_or_exists(&id, &document).await?;
        Ok(match self.read::<LockDocument>(&id).await? {
            None => Lock::Gone,
            Some((lock, etag)) if lock.owner.as_deref() == Some(me) => Lock::Mine(etag),
            Some((_, etag)) => Lock::Other(etag),
        })
    }

    /// Removes the bootstrap lock, if it is still the one with this tag.
    pub(crate) async fn unlock(&self, etag: Etag) -> Result<(), Error> {
        let id = self.ids.lock();
        let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
        let removed = bounded(
            || "removing the bootstrap lock".to_owned(),
            self.container
                .client
                .delete_item(id.clone(), &id, Some(options)),
        )
        .await;
        match removed {
            Err(error) if error.is_not_found() || error.is_precondition_failed() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Makes `me` the owner of `lease`, if it is as it was seen.
    pub(crate) async fn acquire(
        &self,
        lease: &StoredLease,
        me: &str,
    ) -> Result<StoredLease, UpdateError> {
        let seen = &lease.document;
        // A renewal since then means that the owner lives after all.
        let unchanged = |now: &LeaseDocument| {
            now.owner.as_deref() == Some(me)
                || (now.owner == seen.owner && now.timestamp == seen.timestamp)
        };
        self.update(lease, unchanged, |lease| lease.owner = Some(me.to_owned()))
            .await
    }

    /// Writes a lease that `me` owns.
    async fn update_owned(
        &self,
        lease: &StoredLease,
        me: &str,
        change: impl Fn(&mut LeaseDocument),
    ) -> Result<StoredLease, UpdateError> {
        self.update(lease, |now| now.owner.as_deref() == Some(me), change)
            .await
    }

    async fn update(
        &self,
        lease: &StoredLease,
        premise: impl Fn(&LeaseDocument) -> bool,
        change: impl Fn(&mut LeaseDocument),
    ) -> Result<StoredLease, UpdateError> {
        let id = &lease.document.id;
        let mut current = lease.clone();
        for _ in 0..UPDATE_ATTEMPTS {
            change(&mut current.document);
            current.document.timestamp = Timestamp::now();
            let condition = Precondition::if_match(current.etag.clone());
            let options = ItemWriteOptions::default().with_precondition(condition);
            let written = bounded(
                || format!("writing lease {id}"),
                self.container.client.replace_item(
                    id.clone(),
                    id,
                    &current.document,
                    Some(options),
                ),
            )
            .await;
            match written {
                Ok(response) => {
                    current.etag = response
                        .headers()
                        .etag()
                        .cloned()
                        .ok_or(Error::Incomplete("the tag of a lease it wrote"))?;
                    return Ok(current);
                }
                Err(error) if error.is_precondition_failed() => {
                    let (document, etag) = self
                        .read::<LeaseDocument>(id)
                        .await?
                        .ok_or(UpdateError::Lost)?;
                    if !premise(&document) {
                        return Err(UpdateError::Lost);
                    }
                    current = StoredLease { document, etag };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(UpdateError::Failed(Error::Contended { id: id.clone() }))
    }

    async fn create_or_exists<T: Serialize + Sync>(&self, id: &str, item: &T) -> Result<(), Error> {
        let created = bounded(
            || format!("creating {id}"),
            self.container
                .client
                .create_item(id.to_owned(), id, item, None),
        )
        .await;
        match created {
            Err(error) if error.is_conflict() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        id: &str,
    ) -> Result<Option<(T, Etag)>, Error> {
        let action = || format!("reading {id}");
        let read = bounded(
            action,
            self.container.client.read_item(id.to_owned(), id, None),
        );
        match read.await {
            Ok(response) => {
                let Tagged { etag, document } =
                    response.into_model().map_err(Error::service(action()))?;
                Ok(Some((document, Etag::from(etag))))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse(item: Value) -> Result<StoredLease, Error> {
    let id = item["id"].as_str().unwrap_or_default().to_owned();
    let Tagged { etag, document } =
        serde_json::from_value(item).map_err(|_| Error::ForeignLease { id })?;
    Ok(StoredLease {
        document,
        etag: Etag::from(etag),
    })
}

/// A lease that this host owns, until [`OwnedLease::lost`] says otherwise.
///
/// Renewals and checkpoints of one lease take turns, so they never fight over the tag. A position
/// that could not be written stays here and goes out with the next write, the release included.
#[derive(Debug)]
pub(crate) struct OwnedLease {
    store: Arc<LeaseStore>,
    me: String,
    lost: CancellationToken,
    // Held across the write, which is the point of it.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    stored: StoredLease,
    position: Option<String>,
}

impl OwnedLease {
    pub(crate) fn new(store: Arc<LeaseStore>, me: &str, lease: StoredLease) -> Self {
        Self {
            store,
            me: me.to_owned(),
            lost: CancellationToken::new(),
            held: Mutex::new(Held {
                position: lease.document.continuation_token.clone(),
                stored: lease,
            }),
        }
    }

    /// Cancelled once the lease belongs to somebody else.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Tells the others that the owner lives.
    pub(crate) async fn renew(&self) -> Result<(), UpdateError> {
        self.write(None, false).await
    }

    /// Records that everything up to `position` has been handled.
    pub(crate) async fn checkpoint(&self, position: &str) -> Result<(), UpdateError> {
        self.write(Some(position), false).await
    }

    /// Gives the lease back.
    pub(crate) async fn release(&self) -> Result<(), UpdateError> {
        self.write(None, true).await
    }

    async fn write(&self, position: Option<&str>, release: bool) -> Result<(), UpdateError> {
        let mut held = self.held.lock().await;
        if self.lost.is_cancelled() {
            return Err(UpdateError::Lost);
        }
        if let Some(position) = position {
            held.position = Some(position.to_owned());
        }
        let change = |lease: &mut LeaseDocument| {
            lease.continuation_token.clone_from(&held.position);
            if release {
                lease.owner = None;
            }
        };
        match self
            .store
            .update_owned(&held.stored, &self.me, change)
            .await
        {
            Ok(stored) => {
                held.stored = stored;
                Ok(())
            }
            Err(error) => {
                if matches!(error, UpdateError::Lost) {
                    self.lost.cancel();
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_lease_keeps_its_tag_and_unreadable_ones_are_foreign() {
        let lease = parse(json!({
            "id": "p..-FF", "version": 1, "LeaseToken": "-FF",
            "FeedRange": { "Range": { "min": "", "max": "FF" } },
            "timestamp": "2026-08-06T10:00:00Z", "_etag": "\"0000-90\""
        }))
        .unwrap();
        assert_eq!(lease.etag, Etag::from("\"0000-90\""));
        assert_eq!(lease.document.owner, None);
        let error = parse(json!({"id": "p..x", "_etag": "e"})).unwrap_err();
        assert!(matches!(error, Error::ForeignLease { id } if id == "p..x"));
    }
}
