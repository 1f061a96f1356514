//! Random schedules against a naive model.
//!
//! Three regions write, patch and delete the same few items, alone and in batches; links carry when the schedule says so;
//! gateways go offline; regions are added, removed, and come back; partitions split and merge; the account restarts from its
//! folder, and links may carry nothing for a while after that; readers follow the change feed, as a whole or range by range,
//! and move to other regions; some accounts begin with one region. The model knows of each mutation only which others its
//! region had heard of. It says what every region has to show at any time:
//!
//! - regions show what the model shows, and all the same once links are open,
//! - a reader of the feed gets every version that is still there when it has read to the end; in one region it gets changes in
//!   their order, and none twice, whatever becomes of the ranges,
//! - a reader of all versions and deletes knows exactly what its region shows,
//! - a region that is added has what any had accepted, and one is removed only when the others have what it had,
//! - nothing that was acknowledged is lost,
//! - what was deleted stays so, although deletes are forgotten; in the end none is remembered,
//! - where conflicts are left to the users, versions that nobody has replaced and that are not shown are in the conflict feed.
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
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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

/// That restart from a folder, once at least.
const RESTARTING: Range<u64> = 18..25;

/// That begin with one region.
const GROWING: Range<u64> = 21..23;

/// In which conflicts are left to the users.
const CONFLICTING: Range<u64> = 23..33;

/// In which an item expires now and then.
const EXPIRING: Range<u64> = 94..96;

/// The item that expires.
const FLEETING: usize = ITEMS - 1;

/// Schedules at the same time.
const WORKERS: usize = 8;

const STEPS: usize = 24;

/// The first number of those that stand for a restart.
const RESTART: u32 = 98;

/// So often that deletes are forgotten, and logs cut down, while schedules run.
const UPKEEP: Duration = Duration::from_millis(2);

/// The lag of links that carry nothing as long as a test runs.
const NEVER: Duration = Duration::from_secs(3600);

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
    /// Whether there is a conflict feed, and later writes win.
    keeps_conflicts: bool,
    expires: bool,
}

impl Kind {
    fn of(seed: u64) -> Self {
        let is = |schedules: Range<u64>| schedules.contains(&(seed % 100));
        Self {
            is_live: is(LIVE),
            restarts: is(RESTARTING),
            first: if is(GROWING) { 1 } else { FIRST },
            keeps_conflicts: is(CONFLICTING),
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

    /// Mutations that a region knows to be replaced.
    fn replaced(&self, region: usize, item: usize) -> BTreeSet<usize> {
        self.of_item(region, item)
            .flat_map(|op| self.ops[op].past.iter().copied())
            .collect()
    }

    /// Mutations that a region does not know to be replaced; the last wins.
    fn standing(&self, region: usize, item: usize) -> Vec<usize> {
        let replaced = self.replaced(region, item);
        let standing = self
            .of_item(region, item)
            .filter(|op| !replaced.contains(op));
        let mut standing: Vec<usize> = standing.collect();
        standing.sort_by_key(|op| self.precedence(*op));
        standing
    }

    /// Deletes win over everything.
    fn precedence(&self, op: usize) -> (bool, Option<i64>) {
        (self.ops[op].rank.is_none(), self.ops[op].rank)
    }

    /// The version of an item, unless it is a delete.
    fn version(&self, op: usize) -> Option<usize> {
        self.ops[op].rank.map(|_| op)
    }

    fn visible(&self, region: usize, item: usize) -> Option<usize> {
        let standing = self.standing(region, item);
        self.version(*standing.last()?)
    }

    /// Versions and deletes of a region's items that have lost a conflict.
    fn losers(&self, region: usize) -> Vec<(usize, Option<usize>)> {
        let mut losers = Vec::new();
        for item in 0..ITEMS {
            let standing = self.standing(region, item);
            let lost = standing.iter().rev().skip(1);
            losers.extend(lost.map(|op| (item, self.version(*op))));
        }
        losers.sort_unstable();
        losers
    }

    /// Items that are deleted, while there are versions that lost against that.
    fn disputed_deletes(&self, region: usize) -> u64 {
        let is_disputed = |item: &usize| {
            let count = self.standing(region, *item).len();
            count > 1 && self.visible(region, *item).is_none()
        };
        (0..ITEMS).filter(is_disputed).count() as u64
    }

    /// Whether a region may have shown a version twice: another had won over it, until that was replaced by one that had not
    /// heard of it.
    fn may_come_back(&self, region: usize, version: usize) -> bool {
        let item = self.ops[version].item;
        self.replaced(region, item).into_iter().any(|other| {
            self.precedence(other) > self.precedence(version)
                && !self.ops[other].past.contains(&version)
                && !self.ops[version].past.contains(&other)
        })
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

/// How far a reader of the change feed is, with some of the keys.
#[derive(Clone)]
struct Part {
    /// Effective partition keys: the first one, and the first that is not among them.
    keys: [String; 2],
    /// The partition key range that they are in; not named by who reads a container as a whole.
    range: Option<String>,
    etag: Option<String>,
    /// Of the last change.
    position: u64,
}

/// A reader of the change feed.
struct Reader {
    region: usize,
    /// Whether it reads each partition key range on its own.
    is_by_range: bool,
    parts: Vec<Part>,
    /// Whether it has ever changed its region: then it need not see what its new region shows only for now, and may be given
    /// again what it has.
    has_moved: bool,
    last: BTreeMap<usize, usize>,
    given: BTreeSet<(usize, usize)>,
    /// What it was given twice.
    again: Vec<(usize, usize)>,
}

impl Reader {
    fn new(region: usize, is_by_range: bool) -> Self {
        let all = Part {
            keys: [String::new(), "FF".to_owned()],
            range: None,
            etag: None,
            position: 0,
        };
        Self {
            region,
            is_by_range,
            parts: vec![all],
            has_moved: false,
            last: BTreeMap::new(),
            given: BTreeSet::new(),
            again: Vec::new(),
        }
    }

    fn move_to(&mut self, region: usize) {
        self.has_moved |= self.region != region;
        self.region = region;
    }

    fn take(&mut self, part: &mut Part, row: &Value) {
        let position = row["_lsn"].as_u64().unwrap();
        assert!(
            position > part.position || self.has_moved,
            "after {}: {row}",
            part.position
        );
        part.position = position;
        let (item, version) = parse(row);
        self.last.insert(item, version);
        if !self.given.insert((item, version)) && !self.has_moved {
            self.again.push((item, version));
        }
    }

    /// Whether it was given again only what its region may have shown again.
    fn check_again(&mut self, model: &Model, kind: Kind) -> Result<(), String> {
        // Who shows what when links carry all the time is not known.
        let again = self.again.drain(..).filter(|_| !kind.is_live);
        for (item, version) in again.filter(|(item, _)| kind.is_sure(*item)) {
            check(model.may_come_back(self.region, version), || {
                format!(
                    "a reader in {} was given version {version} of {item} twice",
                    self.region
                )
            })?;
        }
        Ok(())
    }
}

/// A reader of all versions and deletes of one region.
struct Follower {
    region: usize,
    etag: String,
    /// Of the last change.
    position: u64,
    state: BTreeMap<usize, usize>,
}

/// Items 0 to 2 are in one partition, the others in another: one in each half of the effective partition keys.
fn partition(item: usize) -> &'static str {
    if item < 3 { "p" } else { "s" }
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

    async fn start(data: Option<&Path>, members: &[usize], lag: Duration) -> Account {
        let members = members.iter();
        // With two ranges there is something to merge from the beginning.
        let builder = CosmosLocal::builder().lag(lag).partitions(2);
        let builder = members.fold(builder, |builder, region| {
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

    /// Changes how a region meets its clients. When it comes back, somebody else may have its port for a moment.
    async fn set_availability(&self, region: usize, availability: Availability) {
        support::eventually("the region has its port", async || {
            let set = self.account.set_availability(REGIONS[region], availability);
            match set.await {
                Ok(()) => true,
                Err(ControlError::Listen { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
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

    /// Cuts all links, which then carry at once when they are opened.
    fn cut_all(&self) {
        for link in self.account.links() {
            let lag = Some(Duration::ZERO);
            self.account
                .set_link(&link.from, &link.to, LinkState::Cut, lag)
                .unwrap();
        }
    }

    /// Opens all links, which then are slow and lose things.
    fn open_badly(&self, rng: &mut StdRng) {
        for link in self.account.links() {
            let quality = LinkQuality {
                lag: Duration::from_micros(rng.random_range(0..3000)),
                jitter: Duration::from_micros(rng.random_range(0..3000)),
                loss: rng.random_range(0.0..0.5),
            };
            self.account
                .set_link(&link.from, &link.to, LinkState::Open, None)
                .unwrap();
            self.account
                .set_link_quality(&link.from, &link.to, quality)
                .unwrap();
        }
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
            position: 0,
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
                let position = row["metadata"]["lsn"].as_u64().unwrap();
                assert!(
                    position > follower.position,
                    "after {}: {row}",
                    follower.position
                );
                follower.position = position;
                if row["metadata"]["operationType"] == "delete" {
                    let item = row["metadata"]["id"].as_str().unwrap().parse().unwrap();
                    let before = follower.state.remove(&item);
                    assert!(before.is_some() || !kind.is_sure(item), "{row}");
                } else {
                    let (item, version) = parse(&row["current"]);
                    let before = follower.state.insert(item, version);
                    assert_ne!(before, Some(version), "nothing has changed: {row}");
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

    /// Reads a feed to its end, and finds the ranges that it is divided in.
    async fn poll(&self, reader: &mut Reader, page: usize) {
        let mut parts = std::mem::take(&mut reader.parts);
        while let Some(mut part) = parts.pop() {
            let is_of_no_range = reader.is_by_range && part.range.is_none();
            if !is_of_no_range && self.read_on(reader, &mut part, page).await {
                reader.parts.push(part);
            } else {
                parts.extend(self.divide(reader.region, &part).await);
            }
        }
    }

    /// Reads a part of a feed to its end; `false` when its range is none any more.
    async fn read_on(&self, reader: &mut Reader, part: &mut Part, page: usize) -> bool {
        let items = self.items(reader.region);
        let size = page.to_string();
        let mut headers = vec![("x-ms-max-item-count", size.as_str())];
        let (range, [start, end]) = (part.range.clone(), part.keys.clone());
        if let Some(range) = &range {
            headers.extend([
                ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
                ("x-ms-start-epk", &start),
                ("x-ms-end-epk", &end),
                ("x-ms-read-key-type", "EffectivePartitionKeyRange"),
            ]);
        }
        loop {
            let answer = items.changes(part.etag.as_deref(), &headers).await;
            if answer.codes() == (410, 1002) {
                return false;
            }
            for row in answer.documents() {
                reader.take(part, row);
            }
            part.etag = Some(answer.header("etag").to_owned());
            match answer.status {
                200 => {}
                304 => return true,
                _ => panic!("{answer:?}"),
            }
        }
    }

    /// The same keys by the ranges that they are in now.
    async fn divide(&self, region: usize, part: &Part) -> Vec<Part> {
        let items = self.items(region);
        let answer = items.send("GET", "pkranges", "", &[], None).await;
        let ranges = answer.body["PartitionKeyRanges"].as_array().unwrap();
        let divided = ranges.iter().map(|range| {
            let text = |name: &str| range[name].as_str().unwrap().to_owned();
            let [start, end] = part.keys.clone();
            Part {
                keys: [
                    start.max(text("minInclusive")),
                    end.min(text("maxExclusive")),
                ],
                range: Some(text("id")),
                ..part.clone()
            }
        });
        divided.filter(|part| part.keys[0] < part.keys[1]).collect()
    }

    /// What a region's conflict feed has.
    async fn conflicts(&self, region: usize) -> Vec<(usize, Option<usize>)> {
        let items = self.items(region);
        let answer = items.send("GET", "conflicts", "", &[], None).await;
        let conflicts = answer.body["Conflicts"].as_array().unwrap().iter();
        let conflicts = conflicts.map(|conflict| {
            let text = |name: &str| conflict[name].as_str().unwrap();
            if text("operationType") == "delete" {
                let item = text("id").rsplit('-').next().unwrap();
                return (item.parse().unwrap(), None);
            }
            let (item, version) = parse(&serde_json::from_str(text("content")).unwrap());
            (item, Some(version))
        });
        let mut conflicts: Vec<_> = conflicts.collect();
        conflicts.sort_unstable();
        conflicts
    }

    async fn check_conflicts(&self, model: &Model, region: usize) -> Result<(), String> {
        let (conflicts, losers) = (self.conflicts(region).await, model.losers(region));
        check(conflicts == losers, || {
            format!("in conflict in {region} are {conflicts:?}, and not {losers:?}")
        })
    }
}

/// Waits until the clock shows another millisecond, so that what is written next is later than all before in any region.
async fn next_millisecond() {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis()
    };
    let start = now();
    while now() == start {
        tokio::task::yield_now().await;
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
    if kind.keeps_conflicts {
        definition["conflictResolutionPolicy"] = json!({"mode": "Custom"});
    }
    if kind.expires {
        definition["defaultTtl"] = json!(-1);
    }
    let created = world.raw[&0].create(definition).await;
    assert_eq!(created.status, 201, "{created:?}");
    let mut model = Model::default();
    let mut online = [true; COUNT];
    // One of them reads each range on its own.
    let mut readers: [Reader; FIRST] =
        std::array::from_fn(|reader| Reader::new(reader % kind.first, reader == 0));
    let mut follower = world.follow(seed as usize % kind.first).await;
    if is_live {
        world.open_badly(&mut rng);
    } else {
        world.cut_all();
    }

    let restart = rng.random_range(0..STEPS);
    for step in 0..STEPS {
        let members = world.members();
        let region = members[rng.random_range(0..members.len())];
        let item = rng.random_range(0..ITEMS);
        let k = key(partition(item));
        let next = model.ops.len() as i64;
        let rank = if kind.keeps_conflicts {
            next_millisecond().await;
            next
        } else {
            rng.random_range(-1000..1000) * 1000 + next
        };
        let what = if kind.restarts && step == restart {
            RESTART
        } else if members.len() == 1 && rng.random_range(0..6) == 0 {
            // One region is not alone for long.
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
                    reader.check_again(&model, kind)?;
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
                readers[rng.random_range(0..FIRST)].move_to(region);
            }
            87..90 => {
                online[region] = !online[region];
                let availability = match (online[region], rng.random_range(0..2)) {
                    (true, _) => Availability::Online,
                    (false, 0) => Availability::Refusing,
                    (false, _) => Availability::Failing,
                };
                world.set_availability(region, availability).await;
            }
            90..93 => {
                let missing: Vec<usize> = (0..COUNT).filter(|it| !members.contains(it)).collect();
                if let Some(new) = missing.first() {
                    world.add(*new).await;
                    model.seed(*new);
                    online[*new] = true;
                    if is_live {
                        world.open_badly(&mut rng);
                    } else {
                        world.cut_all();
                        let mut reader = Reader::new(*new, false);
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
                            reader.move_to(others[0]);
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
            RESTART..100 if data.is_some() => {
                world.account.shutdown().await;
                // A region may be new to the folder.
                let mut named = members;
                let missing = (0..COUNT).find(|it| !named.contains(it));
                if let Some(new) = missing.filter(|_| rng.random_range(0..3) == 0) {
                    named.insert(rng.random_range(0..=named.len()), new);
                    model.seed(new);
                }
                // Links are open after a start; now and then they carry nothing before they are cut again.
                let is_held = is_live || rng.random();
                let lag = if is_held { NEVER } else { Duration::ZERO };
                let account = World::start(data, &named, lag).await;
                *world = World::new(account, world.name.clone());
                online = [true; COUNT];
                if !is_held {
                    settled(&world.account).await;
                    model.deliver_all(&world.members());
                }
                world.cut_all();
                // What a region has shown before its start is not kept.
                follower = world.follow(follower.region).await;
                if is_live {
                    world.open_badly(&mut rng);
                }
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
                if kind.keeps_conflicts {
                    world.check_conflicts(&model, region).await?;
                }
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
    let mut remembered = 0;
    if kind.keeps_conflicts {
        for region in &members {
            world.check_conflicts(&model, *region).await?;
        }
        remembered = model.disputed_deletes(members[0]);
    }
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
        reader.check_again(&model, kind)?;
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
        left.values().all(|count| *count == remembered)
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
        world.set_availability(region, Availability::Online).await;
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
    let account = World::start(None, &first(FIRST), Duration::ZERO).await;
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
            let account = World::start(data, &first(kind.first), Duration::ZERO).await;
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
