//! Rows of a query: fold, sort, cut.
//!
//! A [`Collector`] takes the environment of each row and decides what becomes of it. Without
//! ORDER BY, and where documents come in its order ([`Supply::Sorted`]), rows pass straight through,
//! and reading stops as soon as enough are there. Otherwise ORDER BY has a heap that holds no more
//! rows than the page (or TOP, or OFFSET and LIMIT) needs. DISTINCT, GROUP BY and aggregates hold
//! one entry per distinct row or group. What is held is counted in bytes against
//! [`MAX_HELD_BYTES`].
//!
//! Where rows can be found without being made ([`Plan::Late`]), only the rows of the page are made.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::ControlFlow;

use serde_json::Value;

use super::MAX_HELD_BYTES;
use super::aggregate::Accumulator;
use super::ast::Direction;
use super::document::Document;
use super::error::{ErrorCode, QueryError, Result};
use super::eval::{Env, Machine};
use super::position::{Position, ResumeFilter, ordinal};
use super::program::{Grouping, Program, Projection};
use super::reads::{Members, Plan};
use super::value;

/// How much of a result to give out at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    /// Rows at most, but always one.
    pub(crate) rows: usize,
    /// Bytes at most, by an estimate of the values in memory; the first row always fits.
    pub(crate) bytes: usize,
}

impl PageLimits {
    /// Everything, within [`MAX_HELD_BYTES`].
    pub(crate) const NONE: Self = Self {
        rows: usize::MAX,
        bytes: usize::MAX,
    };
}

/// In which order the documents of an execution come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supply {
    /// Any order, but that a query without ORDER BY needs the order of the page before.
    AnyOrder,
    /// That of [`super::Query::sort_order`]. Reading stops when the page is full.
    Sorted,
}

/// One row of a result.
#[derive(Debug, PartialEq)]
pub(crate) enum Row<D> {
    /// A document as it is stored.
    Document(D),
    /// A value that the query has made.
    Value(Value),
}

impl<D: Document> Row<D> {
    /// The row as a value.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Document(document) => document.read(&Members::All),
            Self::Value(value) => value,
        }
    }
}

/// Part of a result.
#[derive(Debug)]
pub(crate) struct Page<D> {
    /// The rows, in order.
    pub(crate) rows: Vec<Row<D>>,
    /// Where to go on; `None` when these were the last rows.
    pub(crate) next: Option<Position>,
    /// The document that the last row came from; of an unsorted query, the one to go on with. `None` where rows are not
    /// those of single documents.
    pub(crate) last: Option<D>,
}

/// The rest of what an execution needs to know.
pub(super) struct Run<'r> {
    pub(super) supply: Supply,
    pub(super) limits: PageLimits,
    pub(super) after: Option<&'r Position>,
    pub(super) seek: Option<&'r ResumeFilter>,
}

/// See [`super::Query::most_rows`].
pub(super) fn most_rows(skip: u64, take: Option<u64>, limits: PageLimits) -> usize {
    let page = (limits.rows as u64).saturating_add(1);
    let page = take.map_or(page, |take| take.min(page));
    usize::try_from(skip.saturating_add(page)).unwrap_or(usize::MAX)
}

/// Runs the outermost query over documents.
pub(super) fn run<D: Document>(
    program: &Program,
    documents: &mut dyn Iterator<Item = D>,
    run: &Run<'_>,
) -> Result<Page<D>> {
    let Some(feed) = &program.feed else {
        return run_over(program, documents, run);
    };
    let whole = Run {
        supply: Supply::AnyOrder,
        limits: PageLimits::NONE,
        after: None,
        seek: None,
    };
    let fed = self::run(feed, documents, &whole)?.rows;
    let mut fed = fed.into_iter().map(Row::into_value);
    let page = run_over(program, &mut fed, run)?;
    let rows = page.rows.into_iter().map(Row::into_value);
    Ok(Page {
        rows: rows.map(Row::Value).collect(),
        next: page.next,
        last: None,
    })
}

fn run_over<D: Document>(
    program: &Program,
    documents: &mut dyn Iterator<Item = D>,
    run: &Run<'_>,
) -> Result<Page<D>> {
    let machine = Machine::new();
    let compares = run.supply == Supply::AnyOrder || run.after.is_some() || run.seek.is_some();
    let plan = Plan::of(program, compares);
    let (reads, is_late) = match &plan {
        Plan::AtOnce { reads } => (reads, false),
        Plan::Late { finds, .. } => (finds, true),
    };
    let mut collector = Collector::outermost(program, &machine, run);
    collector.is_late = is_late;
    collector.compares = compares || !is_late;
    // Those that rows have come from, by the numbers that rows have of them.
    let mut kept: Vec<D> = Vec::new();
    if program.sources.is_empty() {
        let env = Env::empty();
        let _ = machine.each_row(program, &env, &mut |env| collector.add(env))?;
    } else if program.take != Some(0) {
        let mut value = Value::Null;
        for document in documents {
            document.read_over(reads, &mut value);
            machine.begin_document();
            collector.begin_document(&document, kept.len());
            let env = Env::document(&value);
            let flow = machine.each_row(program, &env, &mut |env| collector.add(env))?;
            if collector.document.is_kept {
                kept.push(document);
            }
            if flow.is_break() {
                break;
            }
        }
    }
    let found = collector.page(&Env::empty())?;
    let mut rows = Vec::with_capacity(found.rows.len());
    for row in found.rows {
        rows.push(match row {
            Found::Value(value) => Row::Value(value),
            Found::Document(number) => make(program, &plan, &machine, &kept[number])?,
        });
    }
    if program.is_blocking() {
        let next = found.last.map(|last| Position::behind(last.taken));
        return Ok(Page {
            rows,
            next,
            last: None,
        });
    }
    let Some(last) = found.last else {
        return Ok(Page {
            rows,
            next: None,
            last: None,
        });
    };
    let document = kept.swap_remove(last.number);
    let values = match &plan {
        Plan::Late { sorts, .. } if !compares => keys(program, sorts, &machine, &document)?,
        _ => last.keys,
    };
    let position = Position {
        rid: document.rid().to_owned(),
        row: last.row,
        taken: last.taken,
        values,
    };
    Ok(Page {
        rows,
        next: Some(position),
        last: Some(document),
    })
}

/// What the row of a document is sorted by.
fn keys<D: Document>(
    program: &Program,
    sorts: &Members,
    machine: &Machine,
    document: &D,
) -> Result<Vec<Option<Value>>> {
    machine.begin_document();
    let value = document.read(sorts);
    let env = Env::document(&value);
    let env = env.row(&value);
    let columns = program.order.iter();
    let keys = columns.map(|column| {
        machine
            .eval(&column.expr, &env)?
            .map(|it| machine.own(it))
            .transpose()
    });
    keys.collect()
}

/// The row of a document whose row was only found so far.
fn make<D: Document>(
    program: &Program,
    plan: &Plan,
    machine: &Machine,
    document: &D,
) -> Result<Row<D>> {
    let (Plan::Late { makes, .. }, Projection::Object(members)) = (plan, &program.projection)
    else {
        return Ok(Row::Document(document.clone()));
    };
    machine.begin_document();
    let value = document.read(makes);
    let env = Env::document(&value);
    let object = machine.object(members, &env.row(&value))?;
    Ok(Row::Value(Value::Object(object)))
}

/// A row, or the number of the document that it is to be made of.
enum Found {
    Value(Value),
    Document(usize),
}

/// The rows of a page before all of them are made.
struct FoundPage {
    rows: Vec<Found>,
    /// Where to go on, when there are more.
    last: Option<Last>,
}

/// The last row of a page.
struct Last {
    keys: Vec<Option<Value>>,
    /// As in [`Current`].
    number: usize,
    /// Position among the rows of its document, from 1.
    row: u64,
    /// Rows given out so far, by all pages.
    taken: u64,
}

/// One row that waits for its turn.
struct Waiting {
    keys: Vec<Option<Value>>,
    /// As in [`Current`].
    number: usize,
    ordinal: u64,
    /// Position among the rows of its document, from 1.
    row: u64,
    found: Found,
    /// As a row of the page.
    bytes: usize,
}

/// A row in a heap that gives up its last row first.
struct Held<'p> {
    row: Waiting,
    program: &'p Program,
}

impl Ord for Held<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rows = self.program.compare_keys(&self.row.keys, &other.row.keys);
        rows.then_with(|| {
            self.program
                .compare_ties(self.row.ordinal, other.row.ordinal)
        })
        .then_with(|| self.row.row.cmp(&other.row.row))
    }
}

impl PartialOrd for Held<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held<'_> {}

impl Program {
    fn compare_keys<L: Borrow<Value>, R: Borrow<Value>>(
        &self,
        left: &[Option<L>],
        right: &[Option<R>],
    ) -> Ordering {
        self.order
            .iter()
            .zip(left.iter().zip(right))
            .map(|(column, (left, right))| {
                let (left, right) = (left.as_ref(), right.as_ref());
                let ordering = value::compare(left.map(L::borrow), right.map(R::borrow));
                match column.direction {
                    Direction::Ascending => ordering,
                    Direction::Descending => ordering.reverse(),
                }
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Equal rows run by ordinal, in the direction of the first column.
    fn compare_ties(&self, left: u64, right: u64) -> Ordering {
        match self.order.first().map(|column| column.direction) {
            Some(Direction::Descending) => right.cmp(&left),
            _ => left.cmp(&right),
        }
    }
}

/// One group of GROUP BY.
struct Group {
    keys: Vec<Option<Value>>,
    accumulators: Vec<Accumulator>,
}

/// Takes rows and makes the result of them.
pub(super) struct Collector<'p, 'r> {
    program: &'p Program,
    machine: &'p Machine,
    run: Option<&'r Run<'r>>,
    /// The ordinal of the document that the page before ended with.
    after: u64,
    /// The ordinal of the document that the client's seek starts with.
    seek: u64,
    limits: PageLimits,
    /// Rows of the result still to leave out.
    skip: u64,
    /// Rows of the result still to give out, in this page and all others.
    take: u64,
    /// Rows given out by earlier pages.
    taken: u64,
    document: Current,
    /// Whether rows are only found, and made later.
    is_late: bool,
    /// Whether rows are compared by what they are sorted by.
    compares: bool,
    rows: Vec<Found>,
    /// The last row in `rows`.
    last: Option<Last>,
    /// A row was turned away because the page is full.
    has_more: bool,
    sorted: BinaryHeap<Held<'p>>,
    seen: HashSet<Vec<u8>>,
    groups: Vec<Group>,
    group_by_key: HashMap<Vec<u8>, usize>,
    /// Bytes in `rows`.
    page_bytes: usize,
    /// Bytes held in all.
    held: usize,
}

/// The document whose rows are coming.
#[derive(Default)]
struct Current {
    /// By which the execution knows it, if it keeps it.
    number: usize,
    /// Whether a row of it was kept.
    is_kept: bool,
    /// Its bytes as a row.
    bytes: usize,
    ordinal: u64,
    /// Its rows so far that passed the filter and are defined.
    rows: u64,
}

impl<'p, 'r> Collector<'p, 'r> {
    fn new(program: &'p Program, machine: &'p Machine) -> Self {
        Self {
            program,
            machine,
            run: None,
            after: 0,
            seek: 0,
            limits: PageLimits::NONE,
            skip: program.skip,
            take: program.take.unwrap_or(u64::MAX),
            taken: 0,
            document: Current::default(),
            is_late: false,
            compares: true,
            rows: Vec::new(),
            last: None,
            has_more: false,
            sorted: BinaryHeap::new(),
            seen: HashSet::new(),
            groups: Vec::new(),
            group_by_key: HashMap::new(),
            page_bytes: 0,
            held: 0,
        }
    }

    fn outermost(program: &'p Program, machine: &'p Machine, run: &'r Run<'r>) -> Self {
        let mut collector = Self::new(program, machine);
        collector.run = Some(run);
        collector.limits = run.limits;
        if let Some(rid) = run.seek.and_then(|seek| seek.rid.as_deref()) {
            collector.seek = ordinal(rid);
        }
        if let Some(after) = run.after {
            collector.after = ordinal(&after.rid);
            collector.skip = match program.is_blocking() {
                true => collector.skip.saturating_add(after.taken),
                false => 0,
            };
            collector.taken = after.taken;
            collector.take = collector.take.saturating_sub(after.taken);
        }
        collector
    }

    /// Collects a subquery, and stops after `limit` rows.
    pub(super) fn for_subquery(
        program: &'p Program,
        machine: &'p Machine,
        limit: Option<usize>,
    ) -> Self {
        let mut collector = Self::new(program, machine);
        if let Some(limit) = limit {
            collector.take = collector.take.min(limit as u64);
        }
        collector
    }

    fn begin_document<D: Document>(&mut self, document: &D, number: usize) {
        (self.document.number, self.document.bytes) = (number, document.size());
        self.document.is_kept = false;
        self.document.ordinal = document.ordinal();
        self.document.rows = 0;
    }

    /// Takes the row of this environment; breaks when no further row can change the result.
    pub(super) fn add(&mut self, env: &Env<'_>) -> Result<ControlFlow<()>> {
        if let Some(grouping) = &self.program.grouping {
            self.fold(grouping, env)?;
            return Ok(ControlFlow::Continue(()));
        }
        let (found, bytes) = if self.is_late {
            (Found::Document(self.document.number), self.document.bytes)
        } else {
            let Some(value) = self.project(env)? else {
                return Ok(ControlFlow::Continue(()));
            };
            let bytes = value::size(&value);
            (Found::Value(value), bytes)
        };
        self.document.rows += 1;
        if self.program.order.is_empty() || !self.compares {
            if self.is_given_out(&[]) {
                return Ok(ControlFlow::Continue(()));
            }
            return self.give_out(found, bytes, Vec::new());
        }
        let mut keys = Vec::with_capacity(self.program.order.len());
        for column in &self.program.order {
            keys.push(self.machine.eval(&column.expr, env)?);
        }
        let is_sorted = self.run.is_some_and(|run| run.supply == Supply::Sorted);
        if self.is_given_out(&keys) || !is_sorted && !self.has_room_for(&keys) {
            return Ok(ControlFlow::Continue(()));
        }
        let own = |key| self.machine.own(key);
        let keys = keys.into_iter().map(|key| key.map(own).transpose());
        let keys = keys.collect::<Result<_>>()?;
        if is_sorted {
            return self.give_out(found, bytes, keys);
        }
        self.hold(found, bytes, keys)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Whether this row can be among those that decide the page.
    fn has_room_for(&self, keys: &[Option<Cow<'_, Value>>]) -> bool {
        let is_full = self.sorted.len() >= self.most_held();
        let last = self.sorted.peek().filter(|_| is_full);
        last.is_none_or(|last| {
            let ordering = self.program.compare_keys(keys, &last.row.keys);
            let (own, other) = (self.document.ordinal, last.row.ordinal);
            ordering
                .then_with(|| self.program.compare_ties(own, other))
                .then_with(|| self.document.rows.cmp(&last.row.row))
                .is_lt()
        })
    }

    /// The row's value; undefined makes no row.
    fn project(&self, env: &Env<'_>) -> Result<Option<Value>> {
        match &self.program.projection {
            Projection::Value(expr) => {
                let value = self.machine.eval(expr, env)?;
                value.map(|value| self.machine.own(value)).transpose()
            }
            Projection::Object(members) => {
                let object = self.machine.object(members, env)?;
                Ok(Some(Value::Object(object)))
            }
        }
    }

    /// Whether an earlier page had this row, or the client's seek passes over it. Without ORDER BY there are no keys.
    fn is_given_out(&self, keys: &[Option<Cow<'_, Value>>]) -> bool {
        let run = self.run.filter(|_| !self.program.is_blocking());
        let Some(run) = run else { return false };
        let Current { ordinal, rows, .. } = self.document;
        let compared = |values: &[Option<Value>], other: u64| {
            let by_keys = self.program.compare_keys(keys, values);
            by_keys.then_with(|| self.program.compare_ties(ordinal, other))
        };
        let is_behind = run.after.is_some_and(|after| {
            let is_this_row = rows.cmp(&after.row);
            match self.program.order.is_empty() {
                true => ordinal == self.after && is_this_row.is_le(),
                false => compared(&after.values, self.after)
                    .then(is_this_row)
                    .is_le(),
            }
        });
        let is_before_seek = run.seek.is_some_and(|seek| {
            let ordering = match &seek.rid {
                Some(_) => compared(&seek.values, self.seek),
                None => self.program.compare_keys(keys, &seek.values),
            };
            ordering.is_lt() || (ordering.is_eq() && seek.exclude)
        });
        is_behind || is_before_seek
    }

    /// Puts the next row of the result into the page.
    fn give_out(
        &mut self,
        found: Found,
        bytes: usize,
        keys: Vec<Option<Value>>,
    ) -> Result<ControlFlow<()>> {
        if self.program.distinct
            && let Found::Value(value) = &found
        {
            let encoded = value::encoded(Some(value));
            let bytes = encoded.len();
            if !self.seen.insert(encoded) {
                return Ok(ControlFlow::Continue(()));
            }
            self.retain(bytes)?;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(ControlFlow::Continue(()));
        }
        if self.take == 0 {
            return Ok(ControlFlow::Break(()));
        }
        let is_over = self.rows.len() >= self.limits.rows
            || self.page_bytes.saturating_add(bytes) > self.limits.bytes;
        let is_full = is_over && !self.rows.is_empty();
        if is_full {
            self.has_more = true;
            return Ok(ControlFlow::Break(()));
        }
        if matches!(found, Found::Value(_)) {
            self.retain(bytes)?;
        }
        self.page_bytes = self.page_bytes.saturating_add(bytes);
        self.document.is_kept = true;
        self.rows.push(found);
        self.take -= 1;
        self.taken += 1;
        if self.limits.rows != usize::MAX || self.limits.bytes != usize::MAX {
            self.last = Some(Last {
                keys,
                number: self.document.number,
                row: self.document.rows,
                taken: self.taken,
            });
        }
        Ok(match self.take {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Keeps a row for sorting, in the place of the last one where there are as many as can be needed.
    fn hold(&mut self, found: Found, bytes: usize, keys: Vec<Option<Value>>) -> Result<()> {
        let row = Waiting {
            keys,
            number: self.document.number,
            ordinal: self.document.ordinal,
            row: self.document.rows,
            found,
            bytes,
        };
        let bytes = row.size();
        let held = Held {
            row,
            program: self.program,
        };
        self.document.is_kept = true;
        if self.sorted.len() >= self.most_held()
            && let Some(mut last) = self.sorted.peek_mut()
        {
            self.held = self.held.saturating_sub(last.row.size());
            *last = held;
        } else {
            self.sorted.push(held);
        }
        self.retain(bytes)
    }

    /// How many of the first rows decide the page.
    fn most_held(&self) -> usize {
        if self.program.distinct {
            return usize::MAX;
        }
        most_rows(self.skip, Some(self.take), self.limits)
    }

    fn fold(&mut self, grouping: &Grouping, env: &Env<'_>) -> Result<()> {
        let mut keys: Vec<Option<Cow<'_, Value>>> = Vec::with_capacity(grouping.keys.len());
        let mut encoded = Vec::new();
        for key in &grouping.keys {
            let key = self.machine.eval(key, env)?;
            value::encode(key.as_deref(), &mut encoded);
            keys.push(key);
        }
        let group = match self.group_by_key.get(&encoded) {
            Some(group) => *group,
            None => {
                let mut owned = Vec::with_capacity(keys.len());
                for key in keys {
                    owned.push(key.map(|key| self.machine.own(key)).transpose()?);
                }
                let bytes = 2 * encoded.len() + size_of::<Group>();
                self.retain(bytes + grouping.aggregates.len() * size_of::<Accumulator>())?;
                self.group_by_key.insert(encoded, self.groups.len());
                self.groups.push(Group::new(owned, grouping));
                self.groups.len() - 1
            }
        };
        for (index, (_, arg)) in grouping.aggregates.iter().enumerate() {
            let value = self.machine.eval(arg, env)?;
            let bytes = self.groups[group].accumulators[index].add(value.as_deref());
            self.retain(bytes)?;
        }
        Ok(())
    }

    fn retain(&mut self, bytes: usize) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        match self.held <= MAX_HELD_BYTES {
            true => Ok(()),
            false => Err(QueryError::new(
                ErrorCode::LimitExceeded,
                format!(
                    "The result of the query exceeds the maximum of {MAX_HELD_BYTES} bytes held in memory."
                ),
            )),
        }
    }

    /// The rows of a subquery; `env` is what surrounds it.
    pub(super) fn rows(self, env: &Env<'_>) -> Result<Vec<Value>> {
        let rows = self.page(env)?.rows.into_iter();
        let value = |found| match found {
            Found::Value(value) => Some(value),
            Found::Document(_) => None,
        };
        Ok(rows.filter_map(value).collect())
    }

    fn page(mut self, env: &Env<'_>) -> Result<FoundPage> {
        if let Some(grouping) = &self.program.grouping {
            self.unfold(grouping, env)?;
        }
        for held in std::mem::take(&mut self.sorted).into_sorted_vec() {
            let row = held.row;
            self.held = self.held.saturating_sub(row.size());
            self.document.rows = row.row;
            self.document.number = row.number;
            if self.give_out(row.found, row.bytes, row.keys)?.is_break() {
                break;
            }
        }
        Ok(FoundPage {
            rows: self.rows,
            last: self.last.filter(|_| self.has_more && self.take > 0),
        })
    }

    /// Makes a row of each group.
    fn unfold(&mut self, grouping: &Grouping, env: &Env<'_>) -> Result<()> {
        if grouping.keys.is_empty() && self.groups.is_empty() {
            self.groups.push(Group::new(Vec::new(), grouping));
        }
        for group in std::mem::take(&mut self.groups) {
            if self.run.is_some() {
                self.machine.begin_document();
            }
            let results = group.accumulators.into_iter().map(Accumulator::result);
            let cells: Vec<Option<Value>> = group.keys.into_iter().chain(results).collect();
            if let Some(value) = self.project(&env.group(&cells))? {
                let bytes = value::size(&value);
                if self
                    .give_out(Found::Value(value), bytes, Vec::new())?
                    .is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Waiting {
    fn size(&self) -> usize {
        let keys: usize = self.keys.iter().flatten().map(value::size).sum();
        let made = match &self.found {
            Found::Value(_) => self.bytes,
            Found::Document(_) => 0,
        };
        size_of::<Self>() + keys + made
    }
}

impl Group {
    fn new(keys: Vec<Option<Value>>, grouping: &Grouping) -> Self {
        Self {
            keys,
            accumulators: grouping
                .aggregates
                .iter()
                .map(|(aggregate, _)| Accumulator::new(*aggregate))
                .collect(),
        }
    }
}
