//! Which items of a container expire, and when, so that nobody has to look at all of them again and again.
//!
//! It reads the region's own change feed: every version that is visible is in there once, under the position at which it
//! became so. What was replaced or deleted since stays noted until its time has come, and is then seen to be no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    record::ItemKey,
    replica::{Item, Replica},
    ttl::Lifetimes,
};

/// Changes that are looked at under one lock.
const STEP: usize = 1000;

/// Notes of a container, at the most, beside two for each of its items; with more, they are made anew.
const MAX_STALE: usize = 10_000;

/// What is noted of one container in one region.
pub(crate) struct Expiry {
    replica: Arc<Replica>,
    container: u32,
    /// The container's lifetimes by which the times were worked out.
    lifetimes: Lifetimes,
    /// The last change of the feed that was looked at.
    position: u64,
    /// Items, by the second from which on they are over.
    due: BTreeMap<i64, BTreeSet<ItemKey>>,
    /// How many there are in `due`.
    noted: usize,
}

impl Expiry {
    pub(crate) fn new(replica: Arc<Replica>, container: u32, lifetimes: Lifetimes) -> Self {
        Self {
            replica,
            container,
            lifetimes,
            position: 0,
            due: BTreeMap::new(),
            noted: 0,
        }
    }

    /// Whether what is noted is about this copy, and these lifetimes.
    pub(crate) fn is_of(&self, replica: &Arc<Replica>, lifetimes: Lifetimes) -> bool {
        Arc::ptr_eq(&self.replica, replica) && self.lifetimes.are_like(lifetimes)
    }

    /// So many items, at the most, that have expired and are not deleted.
    pub(crate) fn over(&mut self, lifetimes: Lifetimes, most: usize) -> BTreeSet<ItemKey> {
        // What is written meanwhile has time until the next go.
        let end = self.replica.read().applied;
        while self.position < end {
            self.read_on(end);
        }
        let mut over = BTreeSet::new();
        let later = self.due.split_off(&(lifetimes.moment() + 1));
        let mut past = std::mem::replace(&mut self.due, later);
        if past.is_empty() {
            return over;
        }
        let state = self.replica.read();
        let table = state.tables.get(&self.container);
        let is_over = |key: &ItemKey| {
            let item = table.and_then(|table| table.items.get(key));
            let record = item.and_then(Item::current);
            record.is_some_and(|record| lifetimes.is_over(record))
        };
        // Those that are over stay noted until they are seen to be deleted.
        for keys in past.values_mut() {
            let before = keys.len();
            keys.retain(|key| {
                if over.len() >= most {
                    return true;
                }
                let is_over = is_over(key);
                if is_over {
                    over.insert(key.clone());
                }
                is_over
            });
            self.noted -= before - keys.len();
        }
        let left = past.into_iter().filter(|(_, keys)| !keys.is_empty());
        self.due.extend(left);
        over
    }

    /// Notes a few changes more.
    fn read_on(&mut self, end: u64) {
        let state = self.replica.read();
        let Some(table) = state.tables.get(&self.container) else {
            self.position = end;
            return;
        };
        if self.noted > MAX_STALE + 2 * table.feed.len() {
            self.due.clear();
            (self.noted, self.position) = (0, 0);
        }
        let changes = table.feed.range(self.position + 1..=end).take(STEP);
        let mut last = None;
        for (position, key) in changes {
            last = Some(*position);
            let record = table.items.get(key).and_then(Item::current);
            if let Some(due) = record.and_then(|record| self.lifetimes.end(record))
                && self.due.entry(due).or_default().insert(key.clone())
            {
                self.noted += 1;
            }
        }
        self.position = last.unwrap_or(end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        container::sample,
        document::Document,
        replica::{Change, State, Step, Transaction},
    };

    #[derive(Debug, Clone, Copy)]
    enum Action {
        Put {
            item: u8,
            ttl: Option<i64>,
        },
        Delete {
            item: u8,
        },
        /// Looks after so many seconds, with this default.
        Look {
            after: i64,
            default: i64,
        },
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let ttl = prop_oneof![Just(None), Just(Some(-1)), (1i64..5).prop_map(Some)];
        let put = (0u8..4, ttl).prop_map(|(item, ttl)| Action::Put { item, ttl });
        let delete = (0u8..4).prop_map(|item| Action::Delete { item });
        let default = prop_oneof![3 => Just(3i64), 1 => Just(-1i64)];
        let look = (0i64..7, default).prop_map(|(after, default)| Action::Look { after, default });
        prop::collection::vec(prop_oneof![3 => put, 1 => delete, 3 => look], 1..40)
    }

    proptest! {
        /// It finds what somebody finds who looks at all items.
        #[test]
        fn what_is_over_is_found(actions in actions()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let container = sample();
            let replica = Arc::new(Replica::in_memory(0, State::empty(1)));
            let start = jiff::Timestamp::now().as_second();
            let first = Lifetimes::at(Some(3), start);
            let mut expiry = Expiry::new(Arc::clone(&replica), 2, first);
            let change = |change| {
                let partition = container.partition_key.value(vec![json!("t")]).expect("valid");
                let steps = vec![Step::new(change)];
                let transaction = Transaction { container: Arc::clone(&container), partition, steps };
                // Deleting what is not there changes nothing.
                let _ = runtime.block_on(replica.transact(transaction));
            };
            for action in actions {
                match action {
                    Action::Put { item, ttl } => {
                        let mut members = json!({"id": item.to_string(), "k": "t"});
                        if let Some(ttl) = ttl {
                            members["ttl"] = ttl.into();
                        }
                        let members = members.as_object().expect("an object").clone();
                        change(Change::Upsert(Document::new(members).expect("valid")));
                    }
                    Action::Delete { item } => change(Change::Delete { id: item.to_string() }),
                    Action::Look { after, default } => {
                        let lifetimes = Lifetimes::at(Some(default), start + after);
                        if !expiry.is_of(&replica, lifetimes) {
                            expiry = Expiry::new(Arc::clone(&replica), 2, lifetimes);
                        }
                        let state = replica.read();
                        let items = state.tables.get(&2).into_iter().flat_map(|table| &table.items);
                        let over = items.filter(|(_, item)| {
                            item.current().is_some_and(|record| lifetimes.is_over(record))
                        });
                        let expected: BTreeSet<ItemKey> = over.map(|(key, _)| key.clone()).collect();
                        drop(state);
                        prop_assert_eq!(expiry.over(lifetimes, usize::MAX), expected.clone());
                        prop_assert!(expiry.over(lifetimes, 1).len() <= 1);
                        prop_assert_eq!(expiry.over(lifetimes, usize::MAX), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn notes_do_not_pile_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let container = sample();
        let replica = Arc::new(Replica::in_memory(0, State::empty(1)));
        let lifetimes = Lifetimes::at(Some(-1), jiff::Timestamp::now().as_second());
        let mut expiry = Expiry::new(Arc::clone(&replica), 2, lifetimes);
        for n in 0..i64::try_from(MAX_STALE).expect("small") + 100 {
            // One item, which lives longer each time.
            let members = json!({"id": "x", "k": "t", "ttl": 1000 + 2 * n});
            let members = members.as_object().expect("an object").clone();
            let partition = container.partition_key.value(vec![json!("t")]);
            let transaction = Transaction {
                container: Arc::clone(&container),
                partition: partition.expect("valid"),
                steps: vec![Step::new(Change::Upsert(
                    Document::new(members).expect("valid"),
                ))],
            };
            runtime
                .block_on(replica.transact(transaction))
                .expect("it is written");
            assert!(expiry.over(lifetimes, 10).is_empty());
        }
        assert!(expiry.noted < 200, "{}", expiry.noted);
    }
}
