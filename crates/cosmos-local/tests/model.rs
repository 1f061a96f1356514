//! Random schedules against a naive model.
//!
//! Three regions write, patch and delete the same few items, alone and in batches; links carry when the schedule says so;
//! gateways go offline; regions are added, removed, and come back; partitions split and merge; the account restarts from its folder;
//! readers follow the change feed, and move to other regions; some accounts begin with one region. The model knows of each mutation only which others its region
//! had heard of. It says what every region has to show at any time:
//!
//! - regions show what the model shows, and all the same once links are open,
//! - a reader of the feed gets every version that is still there when it has read to the end,
//! - a reader of all versions and deletes knows exactly what its region shows,
//! - a region that is added has what any had accepted, and one is removed only when the others have what it had,
//! - nothing that was acknowledged is lost,
//! - what was deleted stays so, although deletes are forgotten; in the end none is remembered.
//!
//! In some schedules one item is often written with a time to live. Of that one the model knows only that regions agree in the
//! end, on a version that somebody wrote and that does not expire, or on none.
//!
//! `COSMOS_MODEL_SCHEDULES` is how many schedules to run, `COSMOS_MODEL_SEED` the first seed. A failure names its seed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use cosmos_local::{
    Account, Availability, ControlError, CosmosLocal, LinkQuality, LinkState, RegionConfig,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use support::{Answer, Container, Raw, key, settled};

/// Regions that an account may have, and how many of them it begins with.
const REGIONS: [&str; 4] = ["West US", "North Europe", "Southeast Asia", "Brazil South"];
const FIRST: usize = 3;

/// Schedules of a usual run.
const SCHEDULES: u64 = 2000;

/// Which schedules, of every hundred, have links that are open all the time, but bad.
const LIVE: Range<u64> = 0..20;

/// In which an item expires now and then.
const EXPIRING: Range<u64> = 94..96;

/// That begin with one region.
const GROWING: Range<u64> = 96..99;

/// That restart from a folder.
const RESTARTING: Range<u64> = 98..100;

/// The item that expires.
const FLEETING: usize = ITEMS - 1;

/// Schedules at the same time.
const WORKERS: usize = 8;

const STEPS: usize = 24;

/// So often that deletes are forgotten, and logs cut down, while schedules run.
const UPKEEP: Duration = Duration::from_millis(2);
const ITEMS: usize = 5;
const COUNT: usize = REGIONS.len();

/// What sort of schedule a seed stands for.
#[derive(Clone, Copy)]
struct Kind {
    /// Links are open and bad; otherwise they carry when the schedule says so.
    is_live: bool,
    restarts: bool,
    /// Regions to begin with.
    first: usize,
    expires: bool,
}

impl Kind {
    fn of(seed: u64) -> Self {
        let is = |schedules: Range<u64>| schedules.contains(&(seed % 100));
        Self {
            is_live: is(LIVE),
            restarts: is(RESTARTING),
            first: if is(GROWING) { 1 } else { FIRST },
            expires: is(EXPIRING),
        }
    }

    /// Whether the model can say what becomes of an item.
    fn is_sure(self, item: usize) -> bool {
        !(self.expires && item == FLEETING)
    }

    /// What the model can say something about.
    fn sure(self, state: &BTreeMap<usize, usize>) -> BTreeMap<usize, usize> {
        let items = state.iter().filter(|(item, _)| self.is_sure(**item));
        items.map(|(item, version)| (*item, *version)).collect()
    }
}

/// One accepted mutation of one item.
struct Op {
    region: usize,
    item: usize,
    /// What decides against others that have not heard of it; `None` is a delete.
    rank: Option<i64>,
    /// Mutations of the item that it replaces.
    past: BTreeSet<usize>,
}

/// What regions have accepted and heard of; the version of an item is the number of its mutation.
#[derive(Default)]
struct Model {
    ops: Vec<Op>,
    known: [BTreeSet<usize>; COUNT],
}

impl Model {
    fn of_item(&self, region: usize, item: usize) -> impl Iterator<Item = usize> {
        let known = self.known[region].iter().copied();
        known.filter(move |op| self.ops[*op].item == item)
    }

    fn visible(&self, region: usize, item: usize) -> Option<usize> {
        let replaced: BTreeSet<usize> = self
            .of_item(region, item)
            .flat_map(|op| self.ops[op].past.iter().copied())
            .collect();
        let standing = self
            .of_item(region, item)
            .filter(|op| !replaced.contains(op));
        standing
            .max_by_key(|op| (self.ops[*op].rank.is_none(), self.ops[*op].rank))
            .filter(|op| self.ops[*op].rank.is_some())
    }

    fn accept(&mut self, region: usize, item: usize, rank: Option<i64>) -> usize {
        let mut past = BTreeSet::new();
        for op in self.of_item(region, item) {
            past.insert(op);
            past.extend(&self.ops[op].past);
        }
        self.ops.push(Op {
            region,
            item,
            rank,
            past,
        });
        self.known[region].insert(self.ops.len() - 1);
        self.ops.len() - 1
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let accepted = self.ops.iter().enumerate();
        let accepted: Vec<usize> = accepted
            .filter(|(_, op)| op.region == from)
            .map(|(number, _)| number)
            .collect();
        self.known[to].extend(accepted);
    }

    fn deliver_all(&mut self, members: &[usize]) {
        for from in members {
            for to in members {
                self.deliver(*from, *to);
            }
        }
    }

    /// A region starts with all that there is.
    fn seed(&mut self, region: usize) {
        self.known[region] = (0..self.ops.len()).collect();
    }

    /// Whether a region knows all that another has accepted.
    fn has_all_of(&self, from: usize, to: usize) -> bool {
        let mut accepted = self.ops.iter().enumerate();
        accepted.all(|(number, op)| op.region != from || self.known[to].contains(&number))
    }

    fn state(&self, region: usize) -> BTreeMap<usize, usize> {
        (0..ITEMS)
            .filter_map(|item| Some((item, self.visible(region, item)?)))
            .collect()
    }
}

/// A reader of the change feed.
#[derive(Default)]
struct Reader {
    region: usize,
    etag: Option<String>,
    /// Whether it has ever changed its region: then it need not see what its new region shows only for now.
    has_moved: bool,
    last: BTreeMap<usize, usize>,
}

/// A reader of all versions and deletes of one region.
struct Follower {
    region: usize,
    etag: String,
    state: BTreeMap<usize, usize>,
}

/// Items 0 to 2 are in one partition, the others in another.
fn partition(item: usize) -> &'static str {
    if item < 3 { "p" } else { "q" }
}

fn document(item: usize, version: usize, rank: i64) -> Value {
    json!({"id": item.to_string(), "k": partition(item), "v": version, "rank": rank})
}

/// Item and version of a row.
fn parse(row: &Value) -> (usize, usize) {
    let item = row["id"].as_str().unwrap().parse().unwrap();
    (item, usize::try_from(row["v"].as_u64().unwrap()).unwrap())
}

struct World {
    account: Account,
    /// A client of each region that there is.
    raw: BTreeMap<usize, Raw>,
    name: String,
}

impl World {
    fn new(account: Account, name: String) -> Self {
        let regions = account.regions().into_iter();
        let raw = regions.map(|status| {
            let number = REGIONS.iter().position(|name| *name == status.name);
            (number.unwrap(), Raw::new(&status.endpoint))
        });
        Self {
            raw: raw.collect(),
            account,
            name,
        }
    }

    fn members(&self) -> Vec<usize> {
        self.raw.keys().copied().collect()
    }

    fn items(&self, region: usize) -> Container {
        self.raw[&region].container(&self.name)
    }

    async fn start(data: Option<&Path>, members: &[usize]) -> Account {
        let members = members.iter();
        let builder = members.fold(CosmosLocal::builder(), |builder, region| {
            builder.region(RegionConfig::new(REGIONS[*region]))
        });
        let builder = builder.data_dir(data.map(Path::to_owned));
        builder.upkeep_interval(UPKEEP).start().await.unwrap()
    }

    async fn add(&mut self, region: usize) {
        let config = RegionConfig::new(REGIONS[region]);
        let status = self.account.add_region(config).await.unwrap();
        let raw = self.raw.values().next().unwrap().at(&status.endpoint);
        self.raw.insert(region, raw);
    }

    /// Whether the others had got all that the region had accepted.
    async fn remove(&mut self, region: usize) -> bool {
        match self.account.remove_region(REGIONS[region]).await {
            Ok(()) => {
                self.raw.remove(&region);
                true
            }
            Err(ControlError::Unreplicated { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The regions that the account began with, and no other.
    async fn restore(&mut self) {
        for region in 0..COUNT {
            match (region < FIRST, self.raw.contains_key(&region)) {
                (true, false) => self.add(region).await,
                (false, true) => assert!(self.remove(region).await, "all is carried"),
                _ => {}
            }
        }
    }

    fn cut_all(&self) {
        support::set_links(&self.account, LinkState::Cut);
    }

    /// Opens one link until everything has arrived.
    async fn carry(&self, from: usize, to: usize) {
        let set = |state| {
            self.account
                .set_link(REGIONS[from], REGIONS[to], state, None)
                .unwrap();
        };
        set(LinkState::Open);
        let deadline = Instant::now() + support::DEADLINE;
        let is_pending = || {
            let links = self.account.links();
            let mut links = links.iter();
            links.any(|link| {
                link.from == REGIONS[from] && link.to == REGIONS[to] && link.pending > 0
            })
        };
        while is_pending() {
            assert!(Instant::now() < deadline, "an open link carries everything");
            tokio::task::yield_now().await;
        }
        set(LinkState::Cut);
    }

    /// Deletes that each region remembers.
    fn tombstones(&self) -> BTreeMap<usize, u64> {
        let count = |region: usize| {
            let count = self
                .account
                .tombstone_count(REGIONS[region], "db", &self.name);
            (region, count.unwrap())
        };
        self.members().into_iter().map(count).collect()
    }

    async fn shown(&self, region: usize) -> BTreeMap<usize, usize> {
        let list = self.items(region).send("GET", "docs", "", &[], None).await;
        assert_eq!(list.status, 200, "{list:?}");
        list.documents().iter().map(parse).collect()
    }

    /// Waits until nothing is left that expires.
    async fn check_fleeting(&self, model: &Model) -> Result<(), String> {
        let mut last = Vec::new();
        support::eventually("nothing is left that expires", async || {
            last.clear();
            for region in self.members() {
                let id = FLEETING.to_string();
                let read = self
                    .items(region)
                    .read(&key(partition(FLEETING)), &id)
                    .await;
                assert!(matches!(read.status, 200 | 404), "{read:?}");
                last.push((read.status == 200).then_some(read.body));
            }
            settled(&self.account).await;
            !last.iter().flatten().any(|item| item.get("ttl").is_some())
        })
        .await;
        check(last.iter().all(|item| *item == last[0]), || {
            format!("regions show {last:?}")
        })?;
        let Some(item) = &last[0] else {
            return Ok(());
        };
        let (_, version) = parse(item);
        let op = model.ops.get(version);
        let is_known = op.is_some_and(|op| op.item == FLEETING && op.rank.is_some());
        check(is_known, || format!("nobody wrote {item}"))
    }

    /// A follower that starts with what a region shows now.
    async fn follow(&self, region: usize) -> Follower {
        let now = self.versions(region, "*").await;
        assert_eq!(now.status, 304, "{now:?}");
        Follower {
            region,
            etag: now.header("etag").to_owned(),
            state: self.shown(region).await,
        }
    }

    async fn versions(&self, region: usize, after: &str) -> Answer {
        let headers = [
            ("a-im", "Full-Fidelity Feed"),
            ("x-ms-max-item-count", "3"),
            ("if-none-match", after),
        ];
        let items = self.items(region);
        items.send("GET", "docs", "", &headers, None).await
    }

    async fn catch_up(&self, follower: &mut Follower, kind: Kind) {
        loop {
            let page = self.versions(follower.region, &follower.etag).await;
            follower.etag = page.header("etag").to_owned();
            for row in page.documents() {
                if row["metadata"]["operationType"] == "delete" {
                    let item = row["metadata"]["id"].as_str().unwrap().parse().unwrap();
                    let before = follower.state.remove(&item);
                    assert!(before.is_some() || !kind.is_sure(item), "{row}");
                } else {
                    let (item, version) = parse(&row["current"]);
                    let before = follower.state.insert(item, version);
                    let is_new = row["metadata"]["operationType"] == "create";
                    assert!(before.is_none() == is_new || !kind.is_sure(item), "{row}");
                }
            }
            match page.status {
                200 => {}
                304 => return,
                _ => panic!("{page:?}"),
            }
        }
    }

    async fn poll(&self, reader: &mut Reader, page: usize) {
        let items = self.items(reader.region);
        let size = page.to_string();
        loop {
            let headers = [("x-ms-max-item-count", size.as_str())];
            let answer = items.changes(reader.etag.as_deref(), &headers).await;
            reader.last.extend(answer.documents().iter().map(parse));
            reader.etag = Some(answer.header("etag").to_owned());
            match answer.status {
                200 => {}
                304 => return,
                _ => panic!("{answer:?}"),
            }
        }
    }
}

/// One schedule; the error says what went wrong.
async fn run(world: &mut World, seed: u64, data: Option<&Path>) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let kind = Kind::of(seed);
    let is_live = kind.is_live;
    let mut definition = json!({
        "id": world.name, "partitionKey": {"paths": ["/k"], "kind": "Hash", "version": 2},
        "conflictResolutionPolicy": {"mode": "LastWriterWins", "conflictResolutionPath": "/rank"},
    });
    if kind.expires {
        definition["defaultTtl"] = json!(-1);
    }
    let created = world.raw[&0].create(definition).await;
    assert_eq!(created.status, 201, "{created:?}");
    let mut model = Model::default();
    let mut online = [true; COUNT];
    let mut readers: [Reader; FIRST] = std::array::from_fn(|reader| Reader {
        region: reader % kind.first,
        ..Reader::default()
    });
    let mut follower = world.follow(seed as usize % kind.first).await;
    if is_live {
        for link in world.account.links() {
            let quality = LinkQuality {
                lag: Duration::from_micros(rng.random_range(0..3000)),
                jitter: Duration::from_micros(rng.random_range(0..3000)),
                loss: rng.random_range(0.0..0.5),
            };
            world
                .account
                .set_link(&link.from, &link.to, LinkState::Open, None)
                .unwrap();
            world
                .account
                .set_link_quality(&link.from, &link.to, quality)
                .unwrap();
        }
    } else {
        world.cut_all();
    }

    for _ in 0..STEPS {
        let members = world.members();
        let region = members[rng.random_range(0..members.len())];
        let item = rng.random_range(0..ITEMS);
        let k = key(partition(item));
        let rank = rng.random_range(-1000..1000) * 1000 + model.ops.len() as i64;
        // One region is not alone for long.
        let what = if members.len() == 1 && rng.random_range(0..6) == 0 {
            90
        } else {
            rng.random_range(0..100)
        };
        match what {
            0..30 if online[region] => {
                let mut body = document(item, model.ops.len(), rank);
                if !kind.is_sure(item) && rng.random_range(0..2) == 0 {
                    body["ttl"] = json!(1);
                }
                let answer = world.items(region).upsert(&k, &body).await;
                if !is_live && kind.is_sure(item) {
                    let expected = if model.visible(region, item).is_some() {
                        200
                    } else {
                        201
                    };
                    check(answer.status == expected, || format!("upsert: {answer:?}"))?;
                }
                check(answer.status < 300, || format!("upsert: {answer:?}"))?;
                model.accept(region, item, Some(rank));
            }
            30..42 if online[region] => {
                let answer = world.items(region).delete(&k, &item.to_string()).await;
                let exists = model.visible(region, item).is_some();
                if !is_live && kind.is_sure(item) {
                    let expected = if exists { 204 } else { 404 };
                    check(answer.status == expected, || format!("delete: {answer:?}"))?;
                }
                if answer.status == 204 {
                    model.accept(region, item, None);
                }
            }
            42..48 if online[region] => {
                let operations = json!([
                    {"op": "set", "path": "/v", "value": model.ops.len()},
                    {"op": "set", "path": "/rank", "value": rank},
                ]);
                let answer = world
                    .items(region)
                    .patch(&k, &item.to_string(), operations)
                    .await;
                if !is_live && kind.is_sure(item) {
                    let expected = if model.visible(region, item).is_some() {
                        200
                    } else {
                        404
                    };
                    check(answer.status == expected, || format!("patch: {answer:?}"))?;
                }
                if answer.status == 200 {
                    model.accept(region, item, Some(rank));
                }
            }
            48..56 if online[region] => {
                let fails = rng.random_range(0..3) == 0;
                let mut operations: Vec<Value> = (0..3)
                    .map(|item| {
                        let version = model.ops.len() + item;
                        let body = document(item, version, rank + item as i64);
                        json!({"operationType": "Upsert", "resourceBody": body})
                    })
                    .collect();
                if fails {
                    operations.push(json!({"operationType": "Delete", "id": "never"}));
                }
                let answer = world
                    .items(region)
                    .batch(&key("p"), json!(operations))
                    .await;
                let expected = if fails { 207 } else { 200 };
                check(answer.status == expected, || format!("batch: {answer:?}"))?;
                if !fails {
                    for item in 0..3 {
                        model.accept(region, item, Some(rank + item as i64));
                    }
                }
            }
            56..74 => {
                let to = members[rng.random_range(0..members.len())];
                if to == region {
                    continue;
                }
                if is_live {
                    let state = [LinkState::Open, LinkState::Cut][rng.random_range(0..2)];
                    world
                        .account
                        .set_link(REGIONS[region], REGIONS[to], state, None)
                        .unwrap();
                } else {
                    world.carry(region, to).await;
                    model.deliver(region, to);
                }
            }
            74..84 => {
                let reader = &mut readers[rng.random_range(0..FIRST)];
                if online[reader.region] {
                    world.poll(reader, rng.random_range(1..4)).await;
                    if !is_live && !reader.has_moved {
                        for (item, version) in kind.sure(&model.state(reader.region)) {
                            check(reader.last.get(&item) == Some(&version), || {
                                format!(
                                    "the reader in {} was not given version {version} of {item}: {:?}",
                                    reader.region, reader.last
                                )
                            })?;
                        }
                    }
                }
            }
            84..87 => {
                let reader = &mut readers[rng.random_range(0..FIRST)];
                reader.region = region;
                reader.has_moved = true;
            }
            87..90 => {
                online[region] = !online[region];
                let availability = match (online[region], rng.random_range(0..2)) {
                    (true, _) => Availability::Online,
                    (false, 0) => Availability::Refusing,
                    (false, _) => Availability::Failing,
                };
                world
                    .account
                    .set_availability(REGIONS[region], availability)
                    .await
                    .unwrap();
            }
            90..93 => {
                let missing: Vec<usize> = (0..COUNT).filter(|it| !members.contains(it)).collect();
                if let Some(new) = missing.first() {
                    world.add(*new).await;
                    model.seed(*new);
                    online[*new] = true;
                    if !is_live {
                        world.cut_all();
                        let mut reader = Reader {
                            region: *new,
                            ..Reader::default()
                        };
                        world.poll(&mut reader, 2).await;
                        let all = kind.sure(&model.state(*new));
                        check(kind.sure(&reader.last) == all, || {
                            format!("{new} starts with {:?}, and not {all:?}", reader.last)
                        })?;
                    }
                }
                // Now and then one goes right after. Who follows a region while links carry cannot say where it starts in
                // another.
                let may_go = members.len() > 1 && !(is_live && follower.region == region);
                if may_go && (missing.is_empty() || rng.random_range(0..2) == 0) {
                    let others: Vec<usize> =
                        members.iter().copied().filter(|it| *it != region).collect();
                    if !is_live && rng.random_range(0..2) == 0 {
                        for to in world.members().into_iter().filter(|to| *to != region) {
                            world.carry(region, to).await;
                            model.deliver(region, to);
                        }
                    }
                    let is_needless = others.iter().all(|to| model.has_all_of(region, *to));
                    let is_removed = world.remove(region).await;
                    // The deletion of what has expired may be on its way besides.
                    let is_right = is_removed == is_needless || (kind.expires && !is_removed);
                    check(is_live || is_right, || {
                        format!("{region} was removed: {is_removed}, and not {is_needless}")
                    })?;
                    if is_removed {
                        let readers = readers.iter_mut();
                        for reader in readers.filter(|reader| reader.region == region) {
                            (reader.region, reader.has_moved) = (others[0], true);
                        }
                        if follower.region == region {
                            set_online(world, &mut online, others[0]).await;
                            follower = world.follow(others[0]).await;
                        }
                    }
                }
            }
            93..96 => {
                let (account, name) = (&world.account, &world.name);
                let ranges = account.partitions("db", name).unwrap();
                let at = rng.random_range(0..ranges.len());
                if at > 0 && rng.random_range(0..2) == 0 {
                    let pair = [ranges[at - 1].as_str(), &ranges[at]];
                    account.merge_partitions("db", name, pair).unwrap();
                } else {
                    account.split_partition("db", name, &ranges[at]).unwrap();
                }
            }
            96..100 if data.is_some() => {
                world.account.shutdown().await;
                // A region may be new to the folder.
                let mut named = members;
                let missing = (0..COUNT).find(|it| !named.contains(it));
                if let Some(new) = missing.filter(|_| rng.random_range(0..3) == 0) {
                    named.insert(rng.random_range(0..=named.len()), new);
                    model.seed(new);
                }
                let account = World::start(data, &named).await;
                *world = World::new(account, world.name.clone());
                online = [true; COUNT];
                // Links are open after a start.
                settled(&world.account).await;
                world.cut_all();
                model.deliver_all(&world.members());
                // What a region has shown before its start is not kept.
                follower = world.follow(follower.region).await;
            }
            _ if !is_live && online[region] => {
                let shown = world.shown(region).await;
                if region == follower.region {
                    world.catch_up(&mut follower, kind).await;
                    check(kind.sure(&follower.state) == kind.sure(&shown), || {
                        format!(
                            "who follows {region} knows {:?}, and it shows {shown:?}",
                            follower.state
                        )
                    })?;
                }
                check(kind.sure(&shown) == kind.sure(&model.state(region)), || {
                    format!(
                        "{region} shows {shown:?}, and not {:?}",
                        model.state(region)
                    )
                })?;
            }
            _ => {}
        }
    }

    for region in world.members() {
        set_online(world, &mut online, region).await;
    }
    support::set_links(&world.account, LinkState::Open);
    settled(&world.account).await;
    let members = world.members();
    model.deliver_all(&members);
    if kind.expires {
        world.check_fleeting(&model).await?;
    }
    let shown = world.shown(members[0]).await;
    for region in &members[1..] {
        let other = world.shown(*region).await;
        check(other == shown, || {
            format!("one shows {shown:?}, and {region} shows {other:?}")
        })?;
    }
    if is_live {
        check_live(&model, &shown)?;
    } else {
        let expected = kind.sure(&model.state(members[0]));
        check(kind.sure(&shown) == expected, || {
            format!("all show {shown:?}, and not {expected:?}")
        })?;
    }
    world.catch_up(&mut follower, kind).await;
    check(kind.sure(&follower.state) == kind.sure(&shown), || {
        format!(
            "who follows {} knows {:?}, and it shows {shown:?}",
            follower.region, follower.state
        )
    })?;
    for reader in &mut readers {
        world.poll(reader, 2).await;
        for (item, version) in &shown {
            check(reader.last.get(item) == Some(version), || {
                format!(
                    "a reader was not given version {version} of {item}: {:?}",
                    reader.last
                )
            })?;
        }
    }
    let mut left = world.tombstones();
    support::eventually("deletes are forgotten", async || {
        let now = world.tombstones();
        let grows = now.iter().any(|(region, count)| *count > left[region]);
        assert!(!grows, "nobody deletes: {left:?}, {now:?}");
        left = now;
        left.values().all(|count| *count == 0)
    })
    .await;
    for region in world.members() {
        let after = world.shown(region).await;
        check(after == shown, || {
            format!("{region} shows {after:?}, and showed {shown:?}")
        })?;
    }
    let path = format!("dbs/db/colls/{}", world.name);
    let deleted = world.raw[&members[0]]
        .send("DELETE", &path, &[], None)
        .await;
    check(deleted.status == 204, || format!("{deleted:?}"))
}

async fn set_online(world: &World, online: &mut [bool; COUNT], region: usize) {
    if !online[region] {
        let set = world
            .account
            .set_availability(REGIONS[region], Availability::Online);
        set.await.unwrap();
        online[region] = true;
    }
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Nobody knows what had arrived where. But what a region wrote last of an item can only be gone if another region has
/// written it too; and what it wrote before is gone.
fn check_live(model: &Model, shown: &BTreeMap<usize, usize>) -> Result<(), String> {
    for item in 0..ITEMS {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, op) in model.ops.iter().enumerate() {
            if op.item == item {
                last.insert(op.region, number);
            }
        }
        let has_deletes = last.values().any(|op| model.ops[*op].rank.is_none());
        match shown.get(&item) {
            Some(version) => check(last.values().any(|op| op == version), || {
                format!("version {version} of {item} was replaced, and is shown")
            })?,
            None => check(last.is_empty() || has_deletes, || {
                format!("{item} is gone, and nobody has deleted it")
            })?,
        }
    }
    Ok(())
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

/// Says how to repeat a schedule that fails, wherever in it something panics.
struct NamesTheSeed(u64);

impl Drop for NamesTheSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("COSMOS_MODEL_SEED={} COSMOS_MODEL_SCHEDULES=1", self.0);
        }
    }
}

async fn run_or_panic(world: &mut World, seed: u64, data: Option<&Path>) {
    if let Err(what) = run(world, seed, data).await {
        panic!("{what}");
    }
}

/// Takes seeds until there are no more, on a runtime of its own.
#[tokio::main(flavor = "current_thread")]
async fn work(next: &AtomicU64, end: u64) {
    let first = |count: usize| (0..count).collect::<Vec<_>>();
    let account = World::start(None, &first(FIRST)).await;
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return account.shutdown().await;
        }
        let _names_the_seed = NamesTheSeed(seed);
        let (kind, name) = (Kind::of(seed), format!("schedule-{seed}"));
        if kind.restarts || kind.first != FIRST {
            let folder = tempfile::tempdir().unwrap();
            let data = kind.restarts.then(|| folder.path());
            let account = World::start(data, &first(kind.first)).await;
            let mut world = World::new(account, name);
            run_or_panic(&mut world, seed, data).await;
            world.account.shutdown().await;
        } else {
            let mut world = World::new(account.clone(), name);
            run_or_panic(&mut world, seed, None).await;
            world.restore().await;
            for link in world.account.links() {
                let good = LinkQuality::default();
                world
                    .account
                    .set_link_quality(&link.from, &link.to, good)
                    .unwrap();
            }
        }
    }
}

#[test]
fn whatever_happens_regions_converge_and_nothing_is_lost() {
    let first = number("COSMOS_MODEL_SEED", 0);
    let end = first + number("COSMOS_MODEL_SCHEDULES", SCHEDULES);
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&next, end));
        }
    });
}
