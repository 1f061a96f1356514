//! What clients ask to be done to items of one logical partition: all of it, or nothing.

use std::sync::Arc;

use serde_json::Value;

use super::{MAX_REGIONS, WriteError, staging::Staged, state::Item};
use crate::{
    container::Container,
    document::{Document, unique_values, without_system_properties},
    partition_key::PartitionKey,
    patch::{Patch, PatchError},
    record::{ItemKey, Record, STAMP_COUNTER_BITS, Undismissed, context, dismissal},
    ttl::Lifetimes,
    vector,
};

/// Bytes of items that a transaction reads at the most.
const MAX_READ: usize = 4 * 1024 * 1024;

/// What is to be done to one item.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create(Document),
    Upsert(Document),
    Replace(Document),
    Patch {
        id: String,
        patch: Arc<Patch>,
    },
    Delete {
        id: String,
    },
    /// Looks at an item as the steps before have left it.
    Read {
        id: String,
    },
    /// Deletes an item that has expired.
    Expire {
        id: String,
    },
    /// Lets go of a version that has lost a conflict, by the region and number of its record.
    Dismiss {
        id: String,
        loser: (usize, u64),
    },
}

impl Change {
    fn id(&self) -> &str {
        match self {
            Self::Create(document) | Self::Upsert(document) | Self::Replace(document) => {
                &document.id
            }
            Self::Patch { id, .. }
            | Self::Delete { id }
            | Self::Read { id }
            | Self::Expire { id }
            | Self::Dismiss { id, .. } => id,
        }
    }
}

/// One change and its conditions.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) change: Change,
    /// `If-Match`
    pub(crate) if_match: Option<String>,
    /// `If-None-Match: *`
    pub(crate) only_if_missing: bool,
}

impl Step {
    pub(crate) fn new(change: Change) -> Self {
        Self {
            change,
            if_match: None,
            only_if_missing: false,
        }
    }
}

/// Steps that are taken one after the other, each on what those before have left; all or none.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) container: Arc<Container>,
    pub(crate) partition: PartitionKey,
    pub(crate) steps: Vec<Step>,
}

/// What became of a step.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) record: Arc<Record>,
    /// Whether the item was not there before.
    pub(crate) created: bool,
}

/// The step that could not be taken, and why.
#[derive(Debug, Clone)]
pub(crate) struct Rejected {
    pub(crate) step: usize,
    pub(crate) error: WriteError,
}

/// A step decided, but not yet applied.
enum Decision {
    Write { record: Arc<Record>, created: bool },
    Read(Arc<Record>),
}

/// Everything that the steps of a transaction have in common.
struct Context<'a> {
    region: usize,
    container: &'a Container,
    partition: &'a PartitionKey,
    lifetimes: Lifetimes,
    /// Mutations of the steps before, in order.
    pending: Vec<Arc<Record>>,
}

impl Staged<'_> {
    /// Takes all steps, or none.
    pub(super) fn transact(
        &mut self,
        region: usize,
        transaction: Transaction,
    ) -> Result<Vec<Outcome>, Rejected> {
        let Transaction {
            container,
            partition,
            steps,
        } = transaction;
        if self.delta.is_sealed {
            return Err(Rejected {
                step: 0,
                error: WriteError::Sealed,
            });
        }
        let mut context = Context {
            region,
            container: &container,
            partition: &partition,
            lifetimes: Lifetimes::now(&container),
            pending: Vec::new(),
        };
        // Of each step, what it read, or which of the pending records it wrote.
        let mut decided: Vec<Result<Arc<Record>, (usize, bool)>> = Vec::with_capacity(steps.len());
        let mut read = 0;
        for (number, step) in steps.into_iter().enumerate() {
            if let Some(over) = self.expiry_before(&context, &step.change) {
                context.pending.push(over);
            }
            match self.decide(&context, step) {
                Ok(Decision::Read(record)) => {
                    read += record.body.as_ref().map_or(0, String::len);
                    if read > MAX_READ {
                        return Err(Rejected {
                            step: number,
                            error: WriteError::TooMuchRead,
                        });
                    }
                    decided.push(Ok(record));
                }
                Ok(Decision::Write { record, created }) => {
                    decided.push(Err((context.pending.len(), created)));
                    context.pending.push(record);
                }
                Err(error) => {
                    return Err(Rejected {
                        step: number,
                        error,
                    });
                }
            }
        }
        let total = context.pending.len();
        let records: Vec<Arc<Record>> = context
            .pending
            .into_iter()
            .enumerate()
            .map(|(at, mut record)| {
                Arc::make_mut(&mut record).followers = (total - at - 1) as u64;
                record
            })
            .collect();
        for record in &records {
            self.accept(Arc::clone(record));
        }
        let outcome = |step| match step {
            Ok(record) => Outcome {
                record,
                created: false,
            },
            Err((at, created)) => Outcome {
                record: Arc::clone(&records[at]),
                created,
            },
        };
        Ok(decided.into_iter().map(outcome).collect())
    }

    /// The end of an item that is to be there again after its time was over: readers of all versions see both.
    fn expiry_before(&mut self, context: &Context<'_>, change: &Change) -> Option<Arc<Record>> {
        let (Change::Create(document) | Change::Upsert(document)) = change else {
            return None;
        };
        if !context.lifetimes.are_limited() {
            return None;
        }
        let id = document.id.clone();
        // An error says that it is not over, or not there.
        match self.decide(context, Step::new(Change::Expire { id })) {
            Ok(Decision::Write { record, .. }) => Some(record),
            _ => None,
        }
    }

    fn decide(&mut self, context: &Context<'_>, step: Step) -> Result<Decision, WriteError> {
        let Step {
            change,
            if_match,
            only_if_missing,
        } = step;
        let key = ItemKey {
            partition: context.partition.clone(),
            id: change.id().into(),
        };
        let item = self.item(context.container.number, &key);
        let replaces = self.context(context, item);
        let existing = pending(context, &key).or_else(|| item?.current().cloned());
        let visible = existing
            .clone()
            .filter(|record| record.body.is_some() && !context.lifetimes.is_over(record));
        match (&change, &visible) {
            (Change::Create(_), Some(_)) => return Err(WriteError::Conflict),
            (Change::Upsert(_), Some(_)) if only_if_missing => {
                return Err(WriteError::PreconditionFailed);
            }
            (Change::Create(_) | Change::Upsert(_), _) => {}
            (Change::Expire { .. }, _) => {
                // Something newer may have come since the clock was looked at.
                let over = existing.as_ref().is_some_and(|record| {
                    record.body.is_some() && context.lifetimes.is_over(record)
                });
                if !over {
                    return Err(WriteError::NotFound);
                }
            }
            (Change::Dismiss { .. }, _) => {}
            (_, None) => return Err(WriteError::NotFound),
            (_, Some(_)) => {}
        }
        if let Some(visible) = &visible
            && if_match
                .as_ref()
                .is_some_and(|etag| etag != "*" && *etag != visible.etag)
        {
            return Err(WriteError::PreconditionFailed);
        }
        let document = match change {
            Change::Create(document) | Change::Upsert(document) | Change::Replace(document) => {
                Some(document)
            }
            Change::Patch { patch, .. } => {
                let existing = visible.as_deref().ok_or(WriteError::NotFound)?;
                Some(patched(&patch, existing)?)
            }
            Change::Delete { .. } | Change::Expire { .. } => None,
            Change::Read { .. } => {
                return visible.map(Decision::Read).ok_or(WriteError::NotFound);
            }
            Change::Dismiss { loser, .. } => {
                return Ok(Decision::Write {
                    record: Arc::new(self.dismissal(context, &key, loser)?),
                    created: false,
                });
            }
        };
        let is_expiry = document.is_none() && visible.is_none();
        let stamp = self.next_stamp();
        let ts = match context.pending.first() {
            Some(first) => first.ts,
            None => i64::try_from((stamp >> STAMP_COUNTER_BITS) / 1000).unwrap_or(i64::MAX),
        };
        let number = self.next_number(context);
        let ordinal = visible
            .as_ref()
            .map_or(number * MAX_REGIONS + context.region as u64, |existing| {
                existing.ordinal
            });
        let etag = format!(
            "\"{:04x}-{number:x}-{:08x}\"",
            context.region,
            stamp & 0xffff_ffff
        );
        let mut record = Record {
            origin: context.region,
            number,
            context: replaces,
            container: context.container.number,
            // Its versions share their texts.
            key: existing.map_or(key, |existing| existing.key.clone()),
            body: None,
            etag,
            ordinal,
            ts,
            stamp,
            rank: ts as f64,
            ttl: None,
            is_expiry,
            followers: 0,
            unique: Vec::new(),
            repeats: None,
        };
        if let Some(document) = document {
            record.unique = unique_values(context.container, &document.members);
            self.check_unique(context, &record)?;
            if let Some(rank) = context.container.conflict_rank(&document.members) {
                record.rank = rank;
            }
            record.ttl = document.ttl;
            let body = context
                .container
                .render(&document, ordinal, &record.etag, ts);
            record.body = Some(body);
        }
        Ok(Decision::Write {
            record: Arc::new(record),
            created: visible.is_none(),
        })
    }

    /// The record that stands of an item, after the steps before.
    fn existing(&self, context: &Context<'_>, key: &ItemKey) -> Option<Arc<Record>> {
        pending(context, key).or_else(|| {
            let item = self.item(context.container.number, key)?;
            item.current().cloned()
        })
    }

    fn next_number(&self, context: &Context<'_>) -> u64 {
        vector::at(&self.delta.seen, context.region) + 1 + context.pending.len() as u64
    }

    /// What a new record of an item replaces.
    fn context(&self, transaction: &Context<'_>, item: Option<&Item>) -> Vec<u64> {
        let siblings = item.map(Item::siblings).unwrap_or_default();
        let mut context = context(&self.delta.seen, siblings);
        let own = vector::at(&context, transaction.region) + transaction.pending.len() as u64;
        vector::set(&mut context, transaction.region, own);
        context
    }

    fn check_unique(&self, context: &Context<'_>, record: &Record) -> Result<(), WriteError> {
        let partition = &context.partition.value;
        for value in &record.unique {
            let known = self.possible_holders(context.container.number, partition, value);
            let pending = context.pending.iter().map(|pending| &pending.key.id);
            for id in known.chain(pending) {
                if *id == record.key.id {
                    continue;
                }
                let key = ItemKey {
                    partition: context.partition.clone(),
                    id: id.clone(),
                };
                let holder = self.existing(context, &key).filter(|holder| {
                    holder.body.is_some()
                        && !context.lifetimes.is_over(holder)
                        && holder.unique.contains(value)
                });
                if holder.is_some() {
                    return Err(WriteError::NotUnique);
                }
            }
        }
        Ok(())
    }

    /// A record that says of an item what is said already, and replaces one of the versions that have lost; the others
    /// stay in conflict with it.
    fn dismissal(
        &mut self,
        context: &Context<'_>,
        key: &ItemKey,
        loser: (usize, u64),
    ) -> Result<Record, WriteError> {
        let item = self
            .item(context.container.number, key)
            .ok_or(WriteError::NotFound)?;
        let seen = self.context(context, Some(item));
        let mut record = dismissal(item.siblings(), seen, loser).map_err(|why| match why {
            Undismissed::Missing => WriteError::NotFound,
            Undismissed::Entangled => WriteError::Entangled,
        })?;
        record.origin = context.region;
        record.number = self.next_number(context);
        record.followers = 0;
        record.stamp = self.next_stamp();
        Ok(record)
    }
}

/// What an earlier step has made of an item.
fn pending(context: &Context<'_>, key: &ItemKey) -> Option<Arc<Record>> {
    let mut latest = context.pending.iter().rev();
    latest.find(|record| record.key == *key).cloned()
}

fn patched(patch: &Patch, existing: &Record) -> Result<Document, WriteError> {
    let body = existing.body.as_deref().ok_or(WriteError::NotFound)?;
    let item: Value = serde_json::from_str(body)
        .map_err(|error| WriteError::Invalid(format!("the stored item is not JSON: {error}")))?;
    let members = item.as_object().cloned().unwrap_or_default();
    let members = patch
        .apply(&item, without_system_properties(members))
        .map_err(|error| match error {
            PatchError::ConditionFalse => WriteError::ConditionFalse,
            PatchError::Invalid(message) => WriteError::Invalid(message),
        })?;
    Ok(Document::new(members)?)
}
