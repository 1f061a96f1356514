//! The items of logical partitions, and of ranges of them, in the orders that queries have asked for.
//!
//! An order is made when it is first asked for, a few items at a time so that nobody waits long for the lock, and from then
//! on every change of an item takes part in it. So the newest 20 items of a device are 20 items to look at, whatever else
//! the device has sent. Which orders there are shows in nothing but the time that queries take.
//!
//! A range has orders of its own, and not parts of one order of the whole container: reading it passes over nothing,
//! however little of the container is in it.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use serde_json::Value;

use super::state::Table;
use crate::{
    query::{Place, SortOrder, SortPaths},
    record::{ItemKey, Record},
    scope::Scope,
};

/// Bytes that the orders of a container take at the most, by an estimate, but that those of one partition may be larger.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of one order of a range at the most: a larger one would push out most others. That is room for some 200,000 items.
const MAX_RANGE_BYTES: usize = MAX_BYTES / 2;

/// Ranges that have orders at the most, but those with orders that are being made: every change of an item looks through
/// them. The one with the smallest orders goes, as these are soon made again.
const MAX_RANGES: usize = 64;

/// Orders of ranges that are made at the same time; they stay until they are made, whatever room they take.
const MAX_RANGES_BEING_MADE: usize = 4;

/// Orders of a partition or range at the most, but those that are being made; the first ones go.
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
    /// There is no such order, as it would be too large, or too many are being made.
    TooLarge,
    /// Items, and the place of the last one where there may be more.
    Items(Vec<Arc<Record>>, Option<Place>),
}

/// The orders of a container's items.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By partition key value.
    partitions: HashMap<Arc<str>, Vec<Order>>,
    /// By scopes that are no partition; an item can be in several.
    ranges: HashMap<Scope, Vec<Order>>,
    bytes: usize,
}

/// Orders that stay, because somebody reads them or is about to.
enum InUse<'a> {
    /// All of a partition.
    Partition(&'a str),
    /// One of a range.
    Range(&'a Scope, &'a SortPaths),
}

/// The items of one logical partition or range in one order.
#[derive(Debug)]
struct Order {
    paths: SortPaths,
    items: BTreeMap<Place, Arc<Record>>,
    stage: Stage,
    bytes: usize,
    /// Bytes at the most.
    most: usize,
}

/// How far an order has come.
#[derive(Debug)]
enum Stage {
    /// Items up to this one are in it.
    Making(Option<ItemKey>),
    Made,
    /// It became too large, so that nothing is in it. After so many changes, as many as it had items, it can be tried again:
    /// what that costs is little for each change.
    TooLarge(usize),
}

impl Order {
    fn new(paths: SortPaths, most: usize) -> Self {
        Self {
            paths,
            items: BTreeMap::new(),
            stage: Stage::Making(None),
            bytes: ORDER_BYTES,
            most,
        }
    }

    /// Puts the next items of its scope into it, if some are missing.
    fn make(&mut self, table: &Table, scope: &Scope) {
        let Stage::Making(last) = &mut self.stage else {
            return;
        };
        let last = last.take();
        let mut items = scope.items(table, last.as_ref().map_or(Unbounded, Excluded));
        let (mut bytes, mut reached) = (0, None);
        for (key, item) in items.by_ref().take(STEP) {
            reached = Some(key);
            if let Some(record) = item.current() {
                self.add(record);
                bytes += record.body.as_ref().map_or(0, String::len);
            }
            if bytes > STEP_BYTES {
                break;
            }
        }
        self.stage = match items.next() {
            Some(_) => Stage::Making(reached.cloned()),
            None => Stage::Made,
        };
        self.check();
    }

    /// Takes note of what became of an item.
    fn change(&mut self, key: &ItemKey, old: Option<&Arc<Record>>, new: Option<&Arc<Record>>) {
        match &mut self.stage {
            Stage::Making(last) if last.as_ref().is_none_or(|last| key > last) => return,
            Stage::TooLarge(changes) => {
                *changes = changes.saturating_sub(1);
                return;
            }
            _ => {}
        }
        if let Some(old) = old {
            self.remove(old);
        }
        if let Some(new) = new {
            self.add(new);
        }
        self.check();
    }

    /// Gives up when it is too large.
    fn check(&mut self) {
        if self.bytes > self.most {
            self.stage = Stage::TooLarge(self.items.len());
            self.items = BTreeMap::new();
            self.bytes = ORDER_BYTES;
        }
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
        let (text, ordinal) = (record.body.as_deref()?, record.ordinal);
        Some(match self.paths.only_member() {
            // What a record says need not be looked for in its text.
            Some("id") => Place::of(Value::from(&*record.key.id), ordinal),
            Some("_ts") => Place::of(record.ts.into(), ordinal),
            _ => self.paths.place(text, ordinal).expect(IS_OBJECT),
        })
    }

    fn is_being_made(&self) -> bool {
        matches!(self.stage, Stage::Making(_))
    }

    fn is_made(&self) -> bool {
        matches!(self.stage, Stage::Made)
    }

    /// Bytes that would have to be put in order again without it.
    fn worth(&self) -> usize {
        match self.stage {
            Stage::TooLarge(_) => self.most,
            _ => self.bytes,
        }
    }

    /// So many items at the most, of those that are wanted, behind a place.
    fn read(&self, wanted: &SortOrder, behind: Option<&Place>, most: usize) -> Ordered {
        match self.stage {
            Stage::Making(_) => return Ordered::Unfinished,
            Stage::TooLarge(_) => return Ordered::TooLarge,
            Stage::Made => {}
        }
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
        let partition = &key.partition;
        let own = self.partitions.get_mut(&partition.value);
        let ranges = self.ranges.iter_mut();
        let around = ranges.filter(|(scope, _)| scope.contains(partition));
        let before = self.bytes;
        for orders in own.into_iter().chain(around.map(|(_, orders)| orders)) {
            orders.retain_mut(|order| {
                self.bytes -= order.bytes;
                order.change(key, old, new);
                let stays = !matches!(order.stage, Stage::TooLarge(0));
                self.bytes += if stays { order.bytes } else { 0 };
                stays
            });
        }
        if self.bytes > before {
            self.make_room(&InUse::Partition(&partition.value));
        }
    }

    pub(super) fn is_made(&self, scope: &Scope, paths: &SortPaths) -> bool {
        let orders = match scope.partition() {
            Some(partition) => self.partitions.get(&partition.value),
            None => self.ranges.get(scope),
        };
        let mut orders = orders.into_iter().flatten();
        orders.any(|order| order.paths == *paths && order.is_made())
    }

    /// So many items of a scope at the most, in an order, behind a place.
    pub(super) fn read(
        &mut self,
        table: &Table,
        scope: &Scope,
        wanted: &SortOrder,
        behind: Option<&Place>,
        most: usize,
    ) -> Ordered {
        let (orders, most_bytes, in_use) = match scope.partition() {
            Some(partition) if !scope.contains(partition) => {
                return Ordered::Items(Vec::new(), None);
            }
            Some(partition) => {
                let value = &partition.value;
                let orders = self.partitions.entry(Arc::clone(value)).or_default();
                (orders, usize::MAX, InUse::Partition(value))
            }
            None => {
                if self.is_busy() && !self.is_known(scope, &wanted.paths) {
                    return Ordered::TooLarge;
                }
                self.make_place(scope);
                let orders = self.ranges.entry(scope.clone()).or_default();
                (orders, MAX_RANGE_BYTES, InUse::Range(scope, &wanted.paths))
            }
        };
        let known = orders.iter().position(|order| order.paths == wanted.paths);
        let number = known.unwrap_or_else(|| {
            if orders.len() >= MAX_ORDERS
                && let Some(first) = orders.iter().position(|order| !order.is_being_made())
            {
                self.bytes -= orders.remove(first).bytes;
            }
            orders.push(Order::new(wanted.paths.clone(), most_bytes));
            self.bytes += ORDER_BYTES;
            orders.len() - 1
        });
        let order = &mut orders[number];
        self.bytes -= order.bytes;
        order.make(table, scope);
        self.bytes += order.bytes;
        let answer = order.read(wanted, behind, most);
        self.make_room(&in_use);
        answer
    }

    /// Whether no more orders of ranges can be begun.
    fn is_busy(&self) -> bool {
        let orders = self.ranges.values().flatten();
        orders.filter(|it| it.is_being_made()).count() >= MAX_RANGES_BEING_MADE
    }

    /// Whether an order of a range is there, made or not.
    fn is_known(&self, range: &Scope, paths: &SortPaths) -> bool {
        let orders = self.ranges.get(range);
        orders.is_some_and(|orders| orders.iter().any(|order| order.paths == *paths))
    }

    /// Lets go of the orders of another range, if there are too many to have this one too.
    fn make_place(&mut self, scope: &Scope) {
        if self.ranges.len() < MAX_RANGES || self.ranges.contains_key(scope) {
            return;
        }
        let could_go = |orders: &[Order]| !orders.iter().any(Order::is_being_made);
        let ranges = self.ranges.iter().filter(|(_, orders)| could_go(orders));
        let worth = |orders: &[Order]| orders.iter().map(Order::worth).sum::<usize>();
        let least = ranges.min_by_key(|(_, orders)| worth(orders));
        if let Some(least) = least.map(|(scope, _)| scope.clone())
            && let Some(orders) = self.ranges.remove(&least)
        {
            self.bytes -= orders.iter().map(|order| order.bytes).sum::<usize>();
        }
    }

    /// Lets go of other partitions, and of other orders of ranges, until what is left fits, a quarter of them at a time.
    /// Which, is left to chance: whoever reads more than fit in turn would find that the one used least recently is always
    /// the next to be read. Orders that are being made stay, so that those who make them come to an end.
    fn make_room(&mut self, in_use: &InUse<'_>) {
        while self.bytes > MAX_BYTES {
            let mut could_go = false;
            let mut goes = |is_kept: bool| {
                could_go |= !is_kept;
                !is_kept && rand::random_ratio(1, 4)
            };
            self.partitions.retain(|value, orders| {
                let is_in_use = matches!(in_use, InUse::Partition(kept) if **kept == **value);
                let goes = goes(is_in_use || orders.iter().any(Order::is_being_made));
                if goes {
                    self.bytes -= orders.iter().map(|order| order.bytes).sum::<usize>();
                }
                !goes
            });
            self.ranges.retain(|scope, orders| {
                orders.retain(|order| {
                    let is_in_use = matches!(in_use, InUse::Range(kept, paths) if *kept == scope && **paths == order.paths);
                    let goes = goes(is_in_use || !order.is_made());
                    if goes {
                        self.bytes -= order.bytes;
                    }
                    !goes
                });
                !orders.is_empty()
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
    use crate::{
        partition_key::{Named, PartitionKey},
        query::Query,
        record::tests::record,
        replica::Item,
    };

    fn partition(name: &str) -> PartitionKey {
        PartitionKey::new(name, name)
    }

    /// The scope of one partition.
    fn only(partition: &PartitionKey) -> Scope {
        Scope::everything().named(Named::Value(partition.clone()))
    }

    /// A version of an item, with a value to sort by; a delete without.
    fn put(table: &mut Table, partition: PartitionKey, id: u64, value: Option<&serde_json::Value>) {
        let mut item = Item::new(id);
        let mut record = record(0, 1, [0; 3], 0.0, value.is_some());
        let changed = Arc::make_mut(&mut record);
        changed.key = ItemKey {
            partition,
            id: format!("{id:04}").into(),
        };
        changed.ordinal = id;
        changed.ts = value.map_or(0, |value| value.to_string().len() as i64);
        let (id, ts) = (&changed.key.id, changed.ts);
        changed.body = value.map(|value| json!({"a": value, "id": id, "_ts": ts}).to_string());
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
        scope: &Scope,
        order: &SortOrder,
        mut meanwhile: impl FnMut(&mut Table),
    ) -> (Vec<String>, usize) {
        let (mut bodies, mut times, mut behind) = (Vec::new(), 0, None);
        loop {
            match table.ordered(scope, order, behind.as_ref(), 3) {
                Ordered::Unfinished => {
                    times += 1;
                    meanwhile(table);
                }
                Ordered::TooLarge => panic!("it is small"),
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
    fn sorted(table: &Table, scope: &Scope, order: &SortOrder) -> Vec<String> {
        let items = table.items.iter();
        let items = items.filter(|(key, _)| scope.contains(&key.partition));
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
        let (own, other) = (partition("1"), partition("0"));
        for scope in [only(&own), Scope::range("05", "2")] {
            let order = order("SELECT * FROM c ORDER BY c.a");
            let mut table = Table::default();
            for id in 0..700 {
                put(&mut table, own.clone(), id, Some(&json!(id * 7919 % 700)));
                put(&mut table, other.clone(), id, Some(&json!(id)));
            }
            let mut round = 0;
            let (found, unfinished) = all(&mut table, &scope, &order, |table| {
                round += 1;
                for id in [round, 300 + round, 600 + round] {
                    put(table, own.clone(), id, Some(&json!(-1000)));
                    put(table, own.clone(), 50 + id, None);
                    put(table, own.clone(), 1000 + id, Some(&json!([id])));
                }
            });
            assert_eq!(unfinished, 2, "so many steps before the last one");
            assert_eq!(found, sorted(&table, &scope, &order));
            assert_eq!(found.len(), 700);
            let (again, unfinished) = all(&mut table, &scope, &order, |_| {});
            assert_eq!((again, unfinished), (found, 0));
        }
    }

    #[test]
    fn few_orders_of_ranges_are_made_at_the_same_time() {
        let (mut table, all) = (Table::default(), Scope::everything());
        for id in 0..=STEP as u64 {
            put(&mut table, partition("0"), id, Some(&json!(id)));
        }
        let order = |number: usize| order(&format!("SELECT * FROM c ORDER BY c.a{number}"));
        let read = |number, scope: &Scope| table.ordered(scope, &order(number), None, 1);
        let is_begun = |number, scope: &Scope| matches!(read(number, scope), Ordered::Unfinished);
        for number in 0..MAX_RANGES_BEING_MADE {
            assert!(is_begun(number, &all), "{number}");
        }
        let next = MAX_RANGES_BEING_MADE;
        assert!(matches!(read(next, &all), Ordered::TooLarge));
        assert!(is_begun(next, &only(&partition("0"))));
        assert!(matches!(read(0, &all), Ordered::Items(..)), "made");
        assert!(is_begun(next, &all));
    }

    #[test]
    fn orders_take_no_more_room_than_they_may() {
        let mut table = Table::default();
        let value = json!("x".repeat(MAX_BYTES / 8));
        let order = order("SELECT * FROM c ORDER BY c.a");
        let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(partition);
        let bytes = |table: &mut Table| {
            let orders = table.orders_mut();
            let all = orders.partitions.values().chain(orders.ranges.values());
            let all = all.flatten();
            assert_eq!(orders.bytes, all.map(|order| order.bytes).sum::<usize>());
            orders.bytes
        };
        for name in &names {
            put(&mut table, name.clone(), 1, Some(&value));
            assert_eq!(all(&mut table, &only(name), &order, |_| {}).0.len(), 1);
            assert!(bytes(&mut table) <= MAX_BYTES);
        }
        assert!((2..8).contains(&table.orders_mut().partitions.len()));
        assert!(table.orders_mut().partitions.contains_key("9"));
        // Those of the partition in use may grow, and then are alone.
        for id in 2..10 {
            put(&mut table, names[9].clone(), id, Some(&value));
        }
        assert_eq!(table.orders_mut().partitions.len(), 1);
        assert_eq!(all(&mut table, &only(&names[9]), &order, |_| {}).0.len(), 9);
        assert_eq!(all(&mut table, &only(&names[8]), &order, |_| {}).0.len(), 1);
        assert!(bytes(&mut table) <= MAX_BYTES);
        for number in 0..2 * MAX_ORDERS {
            let other = self::order(&format!("SELECT * FROM c ORDER BY c.a.b{number}"));
            all(&mut table, &only(&names[8]), &other, |_| {});
            assert!(bytes(&mut table) <= MAX_BYTES);
        }
        assert_eq!(table.orders_mut().partitions["8"].len(), MAX_ORDERS);
        // Nothing takes room too.
        let nobody = |number: usize| partition(&format!("{number:0>1000}"));
        for number in 0..2 * MAX_BYTES / ORDER_BYTES {
            all(&mut table, &only(&nobody(number)), &order, |_| {});
        }
        assert!(bytes(&mut table) <= MAX_BYTES);
    }

    #[test]
    fn an_order_of_a_range_that_is_too_large_is_not_tried_again_at_once() {
        let value = json!("x".repeat(MAX_BYTES / 32));
        let order = order("SELECT * FROM c ORDER BY c.a");
        let everything = Scope::everything();
        let mut table = Table::default();
        let steps = |table: &mut Table| {
            let mut steps = 1;
            loop {
                match table.ordered(&everything, &order, None, 1) {
                    Ordered::Unfinished => steps += 1,
                    Ordered::TooLarge => return (steps, false),
                    Ordered::Items(..) => return (steps, true),
                }
            }
        };
        for id in 0..15 {
            put(&mut table, partition("0"), id, Some(&value));
        }
        assert_eq!(
            steps(&mut table),
            (15, true),
            "one by one, as they are large"
        );
        // It grows too large, and takes no more room.
        put(&mut table, partition("1"), 100, Some(&value));
        assert_eq!(steps(&mut table), (1, false));
        assert_eq!(table.orders_mut().bytes, ORDER_BYTES);
        // Small ones are made beside it.
        let other = self::order("SELECT * FROM c ORDER BY c._ts DESC");
        assert_eq!(all(&mut table, &everything, &other, |_| {}).0.len(), 16);
        for id in 0..15 {
            put(&mut table, partition("0"), id, Some(&json!(id)));
            assert_eq!(steps(&mut table), (1, false));
        }
        put(&mut table, partition("1"), 100, Some(&json!(0)));
        assert_eq!(steps(&mut table), (1, true), "after as many changes");
        // One that is too large when it is made is given up too.
        for id in 100..117 {
            put(&mut table, partition("1"), id, Some(&value));
        }
        table.orders_mut().ranges.clear();
        table.orders_mut().bytes = 0;
        assert_eq!(steps(&mut table), (16, false));
        assert_eq!(steps(&mut table), (1, false));
        // Of a partition, where others need not go for it, it is made all the same.
        let partition = only(&partition("1"));
        assert_eq!(all(&mut table, &partition, &order, |_| {}).0.len(), 17);
    }

    #[test]
    fn orders_of_ranges_are_bounded_in_number_and_go_one_by_one() {
        let value = json!("x".repeat(MAX_BYTES / 5));
        let mut table = Table::default();
        for (id, name) in ["00", "01", "02"].into_iter().enumerate() {
            put(&mut table, partition(name), id as u64, Some(&value));
        }
        let order = order("SELECT * FROM c ORDER BY c.a");
        let large = Scope::range("00", "02");
        assert_eq!(all(&mut table, &large, &order, |_| {}).0.len(), 2);
        for number in 0..2 * MAX_RANGES {
            let narrow = Scope::range(format!("1{number:04}"), "2");
            all(&mut table, &narrow, &order, |_| {});
        }
        let orders = table.orders_mut();
        assert_eq!(orders.ranges.len(), MAX_RANGES);
        assert!(orders.ranges.contains_key(&large), "the small ones go");
        // More than fit of one range: the one that is read is there, and not all others go.
        let kinds: Vec<SortOrder> = ["c.a, c.id", "c.a, c._ts", "c.a, c.b", "c.a, c.d"]
            .map(|paths| self::order(&format!("SELECT * FROM c ORDER BY {paths}")))
            .into();
        for (number, order) in kinds.iter().cycle().take(40).enumerate() {
            assert_eq!(all(&mut table, &large, order, |_| {}).0.len(), 2);
            let orders = table.orders_mut();
            let own = &orders.ranges[&large];
            assert!(own.iter().any(|it| it.paths == order.paths));
            assert!(orders.bytes <= MAX_BYTES);
            let id = 10 + number as u64 % 3;
            put(&mut table, partition("02"), id, Some(&json!(id)));
        }
    }

    proptest! {
        #[test]
        fn an_order_is_what_sorting_gives(
            changes in prop::collection::vec((0..3_usize, 0..8_u64, prop::option::of(0..6_usize)), 0..60),
            sql in prop::sample::select(vec![
                "SELECT * FROM c ORDER BY c.a",
                "SELECT * FROM c ORDER BY c.a DESC",
                "SELECT * FROM c ORDER BY c.a, c.id",
                "SELECT * FROM c ORDER BY c.a.b DESC, c.id DESC",
                "SELECT * FROM c WHERE c.a >= 1 AND c.a < 2 ORDER BY c.a",
                "SELECT * FROM c WHERE c.a > 1 ORDER BY c.a DESC, c.id DESC",
                "SELECT * FROM c WHERE c.a > 2 AND c.a < 1 ORDER BY c.a DESC",
                "SELECT * FROM c WHERE c.a = 1 ORDER BY c.a DESC, c.id DESC",
                "SELECT * FROM c WHERE c._ts > 1 AND c._ts <= 3 ORDER BY c._ts DESC",
                "SELECT * FROM c WHERE c.id >= '0003' ORDER BY c.id",
            ]),
            read in any::<bool>(),
        ) {
            let values = [json!(1), json!(1.5), json!(2), json!("x"), json!({"b": 1}), json!({"b": [2]})];
            let names = ["0", "1", "12"].map(partition);
            let scopes = names.each_ref().map(only).into_iter();
            let ranges = [Scope::everything(), Scope::range("1", "2"), Scope::range("0", "12"), Scope::range("2", "3")];
            let scopes: Vec<Scope> = scopes.chain(ranges).collect();
            let order = order(sql);
            let mut table = Table::default();
            for (name, id, value) in changes {
                // Ordinals are those of items.
                let ordinal = id + 10 * name as u64;
                put(&mut table, names[name].clone(), ordinal, value.map(|number| &values[number]));
                for scope in scopes.iter().filter(|_| read) {
                    let (found, _) = all(&mut table, scope, &order, |_| {});
                    prop_assert_eq!(found, sorted(&table, scope, &order));
                }
            }
            for scope in &scopes {
                let (found, _) = all(&mut table, scope, &order, |_| {});
                prop_assert_eq!(found, sorted(&table, scope, &order));
            }
        }
    }
}
