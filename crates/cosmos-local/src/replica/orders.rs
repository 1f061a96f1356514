//! The items of logical partitions in the orders that queries have asked for.
//!
//! An order is made when it is first asked for, a few items at a time so that nobody waits long for the lock, and from then
//! on every change of an item takes part in it. So the newest 20 items of a device are 20 items to look at, whatever else
//! the device has sent. Which orders there are shows in nothing but the time that queries take.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use super::state::Item;
use crate::{
    partition_key::PartitionKey,
    query::{Place, SortOrder, SortPaths},
    record::{ItemKey, Record},
};

/// Bytes that the orders of a container take at the most, by an estimate, but that those of one partition may be larger.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Orders of a partition at the most, but those that are being made; the first ones go.
const MAX_ORDERS: usize = 8;

/// Items that are put into an order at a time, or fewer when their texts have so many bytes.
const STEP: usize = 256;
const STEP_BYTES: usize = 1024 * 1024;

/// Bytes of an entry beside its place, and of an order beside its entries.
const ENTRY_BYTES: usize = 64;
const ORDER_BYTES: usize = 512;

const IS_OBJECT: &str = "the body of an item is a JSON object";

/// The next items of an order.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// The order is still being made: ask again, when others have had the lock.
    Unfinished,
    /// Items, and the place of the last one where there may be more.
    Items(Vec<Arc<Record>>, Option<Place>),
}

/// The orders of a container's items.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By partition key value.
    partitions: HashMap<Arc<str>, Vec<Order>>,
    bytes: usize,
}

/// The items of one logical partition in one order.
#[derive(Debug)]
struct Order {
    paths: SortPaths,
    items: BTreeMap<Place, Arc<Record>>,
    /// The key from which on items are not in it yet.
    missing: Option<ItemKey>,
    bytes: usize,
}

impl Order {
    fn new(paths: SortPaths, partition: PartitionKey) -> Self {
        let id = "".into();
        Self {
            paths,
            items: BTreeMap::new(),
            missing: Some(ItemKey { partition, id }),
            bytes: ORDER_BYTES,
        }
    }

    /// Puts the next items into it.
    fn make(&mut self, table: &BTreeMap<ItemKey, Item>) {
        let Some(first) = self.missing.take() else {
            return;
        };
        let end = ItemKey {
            partition: first.partition.successor(),
            id: "".into(),
        };
        let mut items = table.range(&first..&end);
        let mut bytes = 0;
        for (_, item) in items.by_ref().take(STEP) {
            if let Some(record) = item.current() {
                self.add(record);
                bytes += record.body.as_ref().map_or(0, String::len);
            }
            if bytes > STEP_BYTES {
                break;
            }
        }
        self.missing = items.next().map(|(key, _)| key.clone());
    }

    fn add(&mut self, record: &Arc<Record>) {
        if let Some(place) = self.place(record) {
            self.bytes += ENTRY_BYTES + place.size();
            self.items.insert(place, Arc::clone(record));
        }
    }

    fn remove(&mut self, record: &Record) {
        if let Some(place) = self.place(record) {
            self.bytes -= ENTRY_BYTES + place.size();
            self.items.remove(&place);
        }
    }

    fn place(&self, record: &Record) -> Option<Place> {
        let text = record.body.as_deref()?;
        Some(self.paths.place(text, record.ordinal).expect(IS_OBJECT))
    }

    /// So many items at the most, of those that are wanted, behind a place.
    fn read(&self, wanted: &SortOrder, behind: Option<&Place>, most: usize) -> Ordered {
        let (low, high) = (wanted.between.0.as_ref(), wanted.between.1.as_ref());
        let bounds = match (behind, wanted.is_descending) {
            (None, _) => (bound(low), bound(high)),
            (Some(behind), false) => (Excluded(behind), bound(high)),
            (Some(behind), true) => (bound(low), Excluded(behind)),
        };
        let is_empty = match bounds {
            (Included(low), Included(high)) => low > high,
            (Included(low) | Excluded(low), Included(high) | Excluded(high)) => low >= high,
            _ => false,
        };
        if is_empty {
            return Ordered::Items(Vec::new(), None);
        }
        let mut items = self.items.range::<Place, _>(bounds);
        let next = || match wanted.is_descending {
            true => items.next_back(),
            false => items.next(),
        };
        let mut records = Vec::with_capacity(most.min(self.items.len()));
        let mut last = None;
        for (place, record) in iter::from_fn(next).take(most) {
            records.push(Arc::clone(record));
            last = Some(place);
        }
        let last = last.filter(|_| records.len() == most);
        Ordered::Items(records, last.cloned())
    }
}

fn bound(place: Option<&Place>) -> Bound<&Place> {
    place.map_or(Unbounded, Included)
}

impl Orders {
    /// Takes note of what became of an item.
    pub(super) fn change(
        &mut self,
        key: &ItemKey,
        old: Option<&Arc<Record>>,
        new: Option<&Arc<Record>>,
    ) {
        let Some(orders) = self.partitions.get_mut(&key.partition.value) else {
            return;
        };
        for order in orders {
            if order.missing.as_ref().is_some_and(|missing| key >= missing) {
                continue;
            }
            self.bytes -= order.bytes;
            if let Some(old) = old {
                order.remove(old);
            }
            if let Some(new) = new {
                order.add(new);
            }
            self.bytes += order.bytes;
        }
        self.make_room(&key.partition.value);
    }

    /// So many items of a partition at the most, in an order, behind a place.
    pub(super) fn read(
        &mut self,
        table: &BTreeMap<ItemKey, Item>,
        partition: &PartitionKey,
        wanted: &SortOrder,
        behind: Option<&Place>,
        most: usize,
    ) -> Ordered {
        let value = Arc::clone(&partition.value);
        let orders = self.partitions.entry(value).or_default();
        let known = orders.iter().position(|order| order.paths == wanted.paths);
        let number = known.unwrap_or_else(|| {
            let is_made = |order: &Order| order.missing.is_none();
            if orders.len() >= MAX_ORDERS
                && let Some(first) = orders.iter().position(is_made)
            {
                self.bytes -= orders.remove(first).bytes;
            }
            orders.push(Order::new(wanted.paths.clone(), partition.clone()));
            self.bytes += ORDER_BYTES;
            orders.len() - 1
        });
        let order = &mut orders[number];
        if order.missing.is_some() {
            self.bytes -= order.bytes;
            order.make(table);
            self.bytes += order.bytes;
        }
        let answer = match order.missing {
            None => order.read(wanted, behind, most),
            Some(_) => Ordered::Unfinished,
        };
        self.make_room(&partition.value);
        answer
    }

    /// Lets go of partitions other than this one until what is left fits, a quarter of them at a time. Which, is left to
    /// chance: whoever reads more than fit in turn would find that the one used least recently is always the next to be
    /// read. Orders that are being made stay, so that those who make them come to an end.
    fn make_room(&mut self, kept: &str) {
        while self.bytes > MAX_BYTES {
            let is_kept = |value: &str, orders: &[Order]| {
                value == kept || orders.iter().any(|order| order.missing.is_some())
            };
            let mut could_go = false;
            self.partitions.retain(|value, orders| {
                let is_kept = is_kept(value, orders);
                could_go |= !is_kept;
                let goes = !is_kept && rand::random_ratio(1, 4);
                if goes {
                    self.bytes -= orders.iter().map(|order| order.bytes).sum::<usize>();
                }
                !goes
            });
            if !could_go {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{query::Query, record::tests::record, replica::Table};

    fn partition(name: &str) -> PartitionKey {
        PartitionKey::new(name, name)
    }

    /// An item's `number`-th version, with a value to sort by; a delete without.
    fn put(table: &mut Table, partition: PartitionKey, id: u64, value: Option<&serde_json::Value>) {
        let mut item = Item::new(id);
        let mut record = record(0, 1, [0; 3], 0.0, value.is_some());
        let changed = Arc::make_mut(&mut record);
        changed.key = ItemKey {
            partition,
            id: format!("{id:04}").into(),
        };
        changed.ordinal = id;
        changed.body = value.map(|value| json!({"a": value, "id": id}).to_string());
        let key = record.key.clone();
        item.add(record, 1, &[1]);
        table.put(key, item);
    }

    fn order(sql: &str) -> SortOrder {
        let query = Query::parse(sql, &[]).expect("valid");
        query.sort_order(None).expect("an order")
    }

    /// The bodies of all that an order has, and how often it was not finished; `meanwhile` happens each time.
    fn all(
        table: &mut Table,
        partition: &PartitionKey,
        order: &SortOrder,
        mut meanwhile: impl FnMut(&mut Table),
    ) -> (Vec<String>, usize) {
        let (mut bodies, mut times, mut behind) = (Vec::new(), 0, None);
        loop {
            match table.ordered(partition, order, behind.as_ref(), 3) {
                Ordered::Unfinished => {
                    times += 1;
                    meanwhile(table);
                }
                Ordered::Items(records, last) => {
                    bodies.extend(records.iter().map(|it| it.body.clone().expect("a body")));
                    behind = last;
                    if behind.is_none() {
                        return (bodies, times);
                    }
                }
            }
        }
    }

    /// The same by sorting what the table holds.
    fn sorted(table: &Table, partition: &PartitionKey, order: &SortOrder) -> Vec<String> {
        let items = table.items.iter();
        let items = items.filter(|(key, _)| key.partition == *partition);
        let records = items.filter_map(|(_, item)| item.current());
        let body = |record: &Arc<Record>| record.body.clone().expect("a body");
        let mut found: Vec<(Place, String)> = records
            .map(|it| {
                (
                    order.paths.place(&body(it), it.ordinal).expect(IS_OBJECT),
                    body(it),
                )
            })
            .collect();
        let (low, high) = &order.between;
        found.retain(|(place, _)| low.as_ref().is_none_or(|low| low <= place));
        found.retain(|(place, _)| high.as_ref().is_none_or(|high| place <= high));
        found.sort();
        if order.is_descending {
            found.reverse();
        }
        found.into_iter().map(|(_, body)| body).collect()
    }

    #[test]
    fn what_changes_while_an_order_is_made_is_in_it() {
        let (own, other) = (partition("b"), partition("a"));
        let order = order("SELECT * FROM c ORDER BY c.a");
        let mut table = Table::default();
        for id in 0..700 {
            put(&mut table, own.clone(), id, Some(&json!(id * 7919 % 700)));
            put(&mut table, other.clone(), id, Some(&json!(id)));
        }
        let mut round = 0;
        let (found, unfinished) = all(&mut table, &own, &order, |table| {
            round += 1;
            for id in [round, 300 + round, 600 + round] {
                put(table, own.clone(), id, Some(&json!(-1000)));
                put(table, own.clone(), 50 + id, None);
                put(table, own.clone(), 1000 + id, Some(&json!([id])));
            }
        });
        assert_eq!(unfinished, 2, "so many steps before the last one");
        assert_eq!(found, sorted(&table, &own, &order));
        assert_eq!(found.len(), 700);
        let (again, unfinished) = all(&mut table, &own, &order, |_| {});
        assert_eq!((again, unfinished), (found, 0));
    }

    #[test]
    fn orders_take_no_more_room_than_they_may() {
        let mut table = Table::default();
        let value = json!("x".repeat(MAX_BYTES / 8));
        let order = order("SELECT * FROM c ORDER BY c.a");
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(partition);
        let bytes = |table: &mut Table| {
            let orders = table.orders_mut();
            let all = orders.partitions.values().flatten();
            assert_eq!(orders.bytes, all.map(|order| order.bytes).sum::<usize>());
            orders.bytes
        };
        for name in &names {
            put(&mut table, name.clone(), 1, Some(&value));
            assert_eq!(all(&mut table, name, &order, |_| {}).0.len(), 1);
            assert!(bytes(&mut table) <= MAX_BYTES);
        }
        assert!((2..8).contains(&table.orders_mut().partitions.len()));
        assert!(table.orders_mut().partitions.contains_key("j"));
        // Those of the partition in use may grow, and then are alone.
        for id in 2..10 {
            put(&mut table, names[9].clone(), id, Some(&value));
        }
        assert_eq!(table.orders_mut().partitions.len(), 1);
        assert_eq!(all(&mut table, &names[9], &order, |_| {}).0.len(), 9);
        assert_eq!(all(&mut table, &names[8], &order, |_| {}).0.len(), 1);
        assert!(bytes(&mut table) <= MAX_BYTES);
        for number in 0..2 * MAX_ORDERS {
            let other = self::order(&format!("SELECT * FROM c ORDER BY c.a.b{number}"));
            all(&mut table, &names[8], &other, |_| {});
            assert!(bytes(&mut table) <= MAX_BYTES);
        }
        assert_eq!(table.orders_mut().partitions["i"].len(), MAX_ORDERS);
        // Nothing takes room too.
        let nobody = |number: usize| partition(&format!("{number:0>1000}"));
        for number in 0..2 * MAX_BYTES / ORDER_BYTES {
            all(&mut table, &nobody(number), &order, |_| {});
        }
        assert!(bytes(&mut table) <= MAX_BYTES);
    }

    proptest! {
        #[test]
        fn an_order_is_what_sorting_gives(
            changes in prop::collection::vec((0..2_usize, 0..8_u64, prop::option::of(0..6_usize)), 0..60),
            sql in prop::sample::select(vec![
                "SELECT * FROM c ORDER BY c.a",
                "SELECT * FROM c ORDER BY c.a DESC",
                "SELECT * FROM c ORDER BY c.a, c.id",
                "SELECT * FROM c ORDER BY c.a.b DESC, c.id DESC",
                "SELECT * FROM c WHERE c.a >= 1 AND c.a < 2 ORDER BY c.a",
                "SELECT * FROM c WHERE c.a > 1 ORDER BY c.a DESC, c.id DESC",
                "SELECT * FROM c WHERE c.a > 2 AND c.a < 1 ORDER BY c.a DESC",
            ]),
            read in any::<bool>(),
        ) {
            let values = [json!(1), json!(1.5), json!(2), json!("x"), json!({"b": 1}), json!({"b": [2]})];
            let names = [partition("a"), partition("b")];
            let order = order(sql);
            let mut table = Table::default();
            for (name, id, value) in changes {
                put(&mut table, names[name].clone(), id, value.map(|number| &values[number]));
                if read {
                    let (found, _) = all(&mut table, &names[1], &order, |_| {});
                    prop_assert_eq!(found, sorted(&table, &names[1], &order));
                }
            }
            for name in &names {
                let (found, _) = all(&mut table, name, &order, |_| {});
                prop_assert_eq!(found, sorted(&table, name, &order));
            }
        }
    }
}
