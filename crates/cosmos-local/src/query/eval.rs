//! The value of an expression over the current rows.
//!
//! Evaluation never panics and always ends: trees are of bounded height, and a [`Machine`] counts
//! the rows visited and the bytes copied for each document against a budget. Values are borrowed
//! from the document for as long as possible.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::ControlFlow;

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::ast::{Binary, Unary};
use super::error::{ErrorCode, QueryError, Result};
use super::execute::Collector;
use super::like::Like;
use super::program::{Expr, Pattern, Program, Source, Values};
use super::value::{self, Maybe};
use super::{MAX_BYTES_PER_DOCUMENT, MAX_CACHED_PATTERNS, MAX_ROWS_PER_DOCUMENT};

/// One frame of the environment and the way to those around it.
#[derive(Clone, Copy)]
pub(super) struct Env<'e> {
    cells: Cells<'e>,
    outer: Option<&'e Env<'e>>,
}

#[derive(Clone, Copy)]
enum Cells<'e> {
    None,
    /// A document, or a row of a source.
    One(&'e Value),
    /// The keys and aggregates of a group.
    Many(&'e [Option<Value>]),
}

impl<'e> Env<'e> {
    /// Nothing in sight; for expressions of constants.
    pub(super) fn empty() -> Self {
        Self {
            cells: Cells::None,
            outer: None,
        }
    }

    /// The outermost frame: one document.
    pub(super) fn document(document: &'e Value) -> Self {
        Self {
            cells: Cells::One(document),
            outer: None,
        }
    }

    /// One row of a source, in front of what surrounds it.
    pub(super) fn row(&'e self, row: &'e Value) -> Self {
        Self {
            cells: Cells::One(row),
            outer: Some(self),
        }
    }

    /// A group takes the place of the sources it was folded from.
    pub(super) fn group(&'e self, cells: &'e [Option<Value>]) -> Self {
        Self {
            cells: Cells::Many(cells),
            outer: Some(self),
        }
    }

    fn cell(&self, up: usize, cell: usize) -> Option<&'e Value> {
        let mut frame = *self;
        for _ in 0..up {
            frame = *frame.outer?;
        }
        match frame.cells {
            Cells::None => None,
            Cells::One(value) => Some(value),
            Cells::Many(cells) => cells.get(cell)?.as_ref(),
        }
    }
}

/// What an execution shares: its clock reading, its budget, its compiled patterns.
pub(super) struct Machine {
    now: Timestamp,
    rows: Cell<u64>,
    bytes: Cell<usize>,
    patterns: RefCell<HashMap<(String, String), Option<Regex>>>,
}

impl Machine {
    /// A machine whose current time is now, for all the rows it will see.
    pub(super) fn new() -> Self {
        Self {
            now: Timestamp::now(),
            rows: Cell::new(0),
            bytes: Cell::new(0),
            patterns: RefCell::default(),
        }
    }

    /// The time of this execution.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// A fresh budget, for the next document.
    pub(super) fn begin_document(&self) {
        self.rows.set(0);
        self.bytes.set(0);
    }

    /// Accounts for one row of a source.
    fn visit(&self) -> Result<()> {
        self.rows.set(self.rows.get() + 1);
        match self.rows.get() <= MAX_ROWS_PER_DOCUMENT {
            true => Ok(()),
            false => Err(QueryError::new(
                ErrorCode::LimitExceeded,
                format!(
                    "The query visits more than the maximum of {MAX_ROWS_PER_DOCUMENT} array elements for one document."
                ),
            )),
        }
    }

    /// Accounts for bytes about to be made.
    pub(super) fn charge(&self, bytes: usize) -> Result<()> {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        match self.bytes.get() <= MAX_BYTES_PER_DOCUMENT {
            true => Ok(()),
            false => Err(QueryError::new(
                ErrorCode::LimitExceeded,
                format!(
                    "The query builds more than the maximum of {MAX_BYTES_PER_DOCUMENT} bytes for one document."
                ),
            )),
        }
    }

    /// Makes a value our own. The one place where values are copied.
    pub(super) fn own(&self, value: Cow<'_, Value>) -> Result<Value> {
        match value {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                self.charge(value::size(value))?;
                Ok(value.clone())
            }
        }
    }

    /// The compiled form of a regular expression, or nothing if it is not one.
    pub(super) fn pattern(
        &self,
        pattern: &str,
        flags: &str,
        compile: impl FnOnce() -> Option<Regex>,
    ) -> Option<Regex> {
        let key = (pattern.to_owned(), flags.to_owned());
        let mut patterns = self.patterns.borrow_mut();
        if let Some(known) = patterns.get(&key) {
            return known.clone();
        }
        if patterns.len() == MAX_CACHED_PATTERNS {
            patterns.clear();
        }
        patterns.entry(key).or_insert_with(compile).clone()
    }

    /// The value of `expr`, or undefined.
    pub(super) fn eval<'e>(&self, expr: &'e Expr, env: &Env<'e>) -> Result<Maybe<'e>> {
        match expr {
            Expr::Undefined => Ok(None),
            Expr::Constant(value) => Ok(Some(Cow::Borrowed(value))),
            Expr::Slot { up, cell } => Ok(env.cell(*up, *cell).map(Cow::Borrowed)),
            Expr::Member { base, name } => Ok(member(self.eval(base, env)?, name)),
            Expr::Index { base, index } => self.index(base, index, env),
            Expr::Unary { operator, operand } => Ok(unary(*operator, self.eval(operand, env)?)),
            Expr::Binary { operator, operands } => self.binary(*operator, operands, env),
            Expr::All(terms) => self.logical(terms, false, env),
            Expr::Any(terms) => self.logical(terms, true, env),
            Expr::Conditional { parts } => match self.truth(&parts.0, env)? {
                Some(true) => self.eval(&parts.1, env),
                _ => self.eval(&parts.2, env),
            },
            Expr::In {
                value,
                list,
                negated,
            } => self.within(value, list, *negated, env),
            Expr::InSet {
                value,
                encodings,
                negated,
                ..
            } => Ok(self.eval(value, env)?.and_then(|value| {
                let found = encodings.contains(&value::encoded(Some(&value)));
                boolean(found != *negated)
            })),
            Expr::Between { parts, negated } => self.between(parts, *negated, env),
            Expr::Like {
                value,
                pattern,
                negated,
            } => self.like(value, pattern, *negated, env),
            Expr::Call { builtin, args } => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.eval(arg, env)?);
                }
                (builtin.apply)(self, values)
            }
            Expr::Array(items) => self.array(items, env),
            Expr::Object(members) => {
                let object = self.object(members, env)?;
                Ok(Some(Cow::Owned(Value::Object(object))))
            }
            Expr::Scalar(program) => self.scalar(program, env),
            Expr::Exists(program) => {
                let rows = self.rows(program, env, Some(1))?;
                Ok(boolean(!rows.is_empty()))
            }
            Expr::ArrayOf(program) => {
                let rows = self.rows(program, env, None)?;
                Ok(Some(Cow::Owned(Value::Array(rows))))
            }
        }
    }

    /// Three-valued: `None` is undefined, which anything but a boolean counts as.
    pub(super) fn truth(&self, expr: &Expr, env: &Env<'_>) -> Result<Option<bool>> {
        Ok(self.eval(expr, env)?.and_then(|value| value.as_bool()))
    }

    /// The members of an object; undefined ones are left out, of equal names the last one counts.
    pub(super) fn object(
        &self,
        members: &[(String, Expr)],
        env: &Env<'_>,
    ) -> Result<Map<String, Value>> {
        let mut object = Map::with_capacity(members.len());
        for (name, expr) in members {
            if let Some(value) = self.eval(expr, env)? {
                self.charge(name.len())?;
                object.insert(name.clone(), self.own(value)?);
            }
        }
        Ok(object)
    }

    fn array<'e>(&self, items: &[Expr], env: &Env<'_>) -> Result<Maybe<'e>> {
        let mut array = Vec::with_capacity(items.len());
        for item in items {
            if let Some(value) = self.eval(item, env)? {
                array.push(self.own(value)?);
            }
        }
        Ok(Some(Cow::Owned(Value::Array(array))))
    }

    fn index<'e>(&self, base: &'e Expr, index: &'e Expr, env: &Env<'e>) -> Result<Maybe<'e>> {
        let base = self.eval(base, env)?;
        Ok(match self.eval(index, env)?.as_deref() {
            Some(Value::String(name)) => member(base, name),
            Some(index) => value::as_integer(index)
                .and_then(|position| usize::try_from(position).ok())
                .and_then(|position| element(base?, position)),
            None => None,
        })
    }

    fn binary<'e>(
        &self,
        operator: Binary,
        operands: &'e (Expr, Expr),
        env: &Env<'e>,
    ) -> Result<Maybe<'e>> {
        let left = self.eval(&operands.0, env)?;
        if operator == Binary::Coalesce {
            return match left {
                Some(left) => Ok(Some(left)),
                None => self.eval(&operands.1, env),
            };
        }
        let (Some(left), Some(right)) = (left, self.eval(&operands.1, env)?) else {
            return Ok(None);
        };
        if operator == Binary::Concat {
            let (Value::String(left), Value::String(right)) = (&*left, &*right) else {
                return Ok(None);
            };
            self.charge(left.len() + right.len())?;
            return Ok(text(format!("{left}{right}")));
        }
        Ok(compared(operator, &left, &right).or_else(|| computed(operator, &left, &right)))
    }

    fn logical<'e>(&self, terms: &[Expr], decisive: bool, env: &Env<'_>) -> Result<Maybe<'e>> {
        let mut is_undefined = false;
        for term in terms {
            match self.truth(term, env)? {
                Some(truth) if truth == decisive => return Ok(boolean(decisive)),
                Some(_) => {}
                None => is_undefined = true,
            }
        }
        Ok(match is_undefined {
            true => None,
            false => boolean(!decisive),
        })
    }

    fn within<'e>(
        &self,
        value: &Expr,
        list: &[Expr],
        negated: bool,
        env: &Env<'_>,
    ) -> Result<Maybe<'e>> {
        let Some(value) = self.eval(value, env)? else {
            return Ok(None);
        };
        let mut is_undefined = false;
        for item in list {
            match self.eval(item, env)? {
                Some(item) if value::equal(&value, &item) => return Ok(boolean(!negated)),
                Some(_) => {}
                None => is_undefined = true,
            }
        }
        Ok(match is_undefined {
            true => None,
            false => boolean(negated),
        })
    }

    fn between<'e>(
        &self,
        parts: &(Expr, Expr, Expr),
        negated: bool,
        env: &Env<'_>,
    ) -> Result<Maybe<'e>> {
        let value = self.eval(&parts.0, env)?;
        let (low, high) = (self.eval(&parts.1, env)?, self.eval(&parts.2, env)?);
        let reaches = |operator, bound: Maybe<'_>| {
            let held = compared(operator, value.as_deref()?, bound.as_deref()?)?;
            held.as_bool()
        };
        let above = reaches(Binary::GreaterOrEqual, low);
        let below = reaches(Binary::LessOrEqual, high);
        Ok(match (above, below) {
            (Some(false), _) | (_, Some(false)) => boolean(negated),
            (Some(true), Some(true)) => boolean(!negated),
            _ => None,
        })
    }

    fn like<'e>(
        &self,
        value: &Expr,
        pattern: &Pattern,
        negated: bool,
        env: &Env<'_>,
    ) -> Result<Maybe<'e>> {
        let value = self.eval(value, env)?;
        let Some(Value::String(value)) = value.as_deref() else {
            return Ok(None);
        };
        let matches = match pattern {
            Pattern::Fixed(like) => like.matches(value),
            Pattern::Computed { pattern, escape } => {
                let pattern = self.eval(pattern, env)?;
                let Some(Value::String(pattern)) = pattern.as_deref() else {
                    return Ok(None);
                };
                Like::new(pattern, *escape).matches(value)
            }
        };
        Ok(boolean(matches != negated))
    }

    fn scalar<'e>(&self, program: &Program, env: &Env<'_>) -> Result<Maybe<'e>> {
        let mut rows = self.rows(program, env, Some(2))?;
        let value = rows.pop();
        match rows.is_empty() {
            true => Ok(value.map(Cow::Owned)),
            false => Err(QueryError::new(
                ErrorCode::Unsupported,
                "A scalar subquery returned more than one value. Use ARRAY, EXISTS or JOIN.",
            )),
        }
    }

    /// The rows of a subquery, at most `limit` of them.
    fn rows(&self, program: &Program, env: &Env<'_>, limit: Option<usize>) -> Result<Vec<Value>> {
        let mut collector = Collector::for_subquery(program, self, limit);
        let _ = self.each_row(program, env, &mut |env| collector.add(env))?;
        collector.rows(env)
    }

    /// Calls `visit` with the environment of each row that the filter lets through.
    pub(super) fn each_row(
        &self,
        program: &Program,
        env: &Env<'_>,
        visit: &mut dyn FnMut(&Env<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        self.joined(&program.sources, program.filter.as_ref(), env, visit)
    }

    fn joined(
        &self,
        sources: &[Source],
        filter: Option<&Expr>,
        env: &Env<'_>,
        visit: &mut dyn FnMut(&Env<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let Some((source, rest)) = sources.split_first() else {
            return match filter {
                Some(filter) if self.truth(filter, env)? != Some(true) => {
                    Ok(ControlFlow::Continue(()))
                }
                _ => visit(env),
            };
        };
        let mut on_value = |value: &Value| {
            let rows = match (source.each, value) {
                (false, value) => std::slice::from_ref(value),
                (true, Value::Array(items)) => items.as_slice(),
                (true, _) => &[],
            };
            for row in rows {
                self.visit()?;
                if self.joined(rest, filter, &env.row(row), visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        match &source.values {
            Values::Path(path) => match self.eval(path, env)? {
                Some(value) => on_value(&value),
                None => Ok(ControlFlow::Continue(())),
            },
            Values::Rows(program) => {
                for value in self.rows(program, env, None)? {
                    if on_value(&value)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }
}

/// A defined boolean.
pub(super) fn boolean<'e>(value: bool) -> Maybe<'e> {
    Some(Cow::Owned(Value::Bool(value)))
}

/// A defined string.
pub(super) fn text<'e>(value: impl Into<String>) -> Maybe<'e> {
    Some(Cow::Owned(Value::String(value.into())))
}

/// A number, or undefined if JSON cannot hold it.
pub(super) fn numeric<'e>(value: f64) -> Maybe<'e> {
    value::number(value).map(Cow::Owned)
}

fn member<'e>(base: Maybe<'e>, name: &str) -> Maybe<'e> {
    match base? {
        Cow::Borrowed(Value::Object(object)) => find(object, name).map(Cow::Borrowed),
        Cow::Owned(Value::Object(mut object)) => object.remove(name).map(Cow::Owned),
        _ => None,
    }
}

/// Members up to which comparing them all is quicker than hashing a name.
const FEW: usize = 8;

fn find<'e>(object: &'e Map<String, Value>, name: &str) -> Option<&'e Value> {
    if object.len() > FEW {
        return object.get(name);
    }
    let mut members = object.iter();
    members.find_map(|(known, value)| (known == name).then_some(value))
}

fn element(base: Cow<'_, Value>, position: usize) -> Maybe<'_> {
    match base {
        Cow::Borrowed(Value::Array(items)) => items.get(position).map(Cow::Borrowed),
        Cow::Owned(Value::Array(items)) => items.into_iter().nth(position).map(Cow::Owned),
        _ => None,
    }
}

fn unary<'e>(operator: Unary, operand: Maybe<'_>) -> Maybe<'e> {
    let operand = operand?;
    match operator {
        Unary::Not => boolean(!operand.as_bool()?),
        Unary::Minus => numeric(-value::as_double(&operand)?),
        Unary::Plus => numeric(value::as_double(&operand)?),
        Unary::BitNot => numeric(f64::from(!int32(value::as_double(&operand)?))),
    }
}

/// Comparison operators; undefined for all others, and for pairs that have no order.
fn compared<'e>(operator: Binary, left: &Value, right: &Value) -> Maybe<'e> {
    let ordering = match operator {
        Binary::Equal => return boolean(value::equal(left, right)),
        Binary::NotEqual => return boolean(!value::equal(left, right)),
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual
            if value::is_orderable_pair(left, right) =>
        {
            value::compare(Some(left), Some(right))
        }
        _ => return None,
    };
    boolean(match operator {
        Binary::Less => ordering.is_lt(),
        Binary::LessOrEqual => ordering.is_le(),
        Binary::Greater => ordering.is_gt(),
        _ => ordering.is_ge(),
    })
}

/// Arithmetic and bit operators; undefined for all others and for anything but numbers.
fn computed<'e>(operator: Binary, left: &Value, right: &Value) -> Maybe<'e> {
    let (left, right) = (value::as_double(left)?, value::as_double(right)?);
    let (bits, shift) = (int32(left), int32(right).cast_unsigned() & 31);
    numeric(match operator {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide => left / right,
        Binary::Remainder => left % right,
        Binary::BitAnd => f64::from(bits & int32(right)),
        Binary::BitOr => f64::from(bits | int32(right)),
        Binary::BitXor => f64::from(bits ^ int32(right)),
        Binary::ShiftLeft => f64::from(bits << shift),
        Binary::ShiftRight => f64::from(bits >> shift),
        Binary::ShiftRightZeroFill => f64::from(bits.cast_unsigned() >> shift),
        _ => return None,
    })
}

/// The 32-bit integer that bit operators work on, as in JavaScript: the fraction is cut off and
/// the rest taken modulo 2³².
fn int32(value: f64) -> i32 {
    const MODULUS: f64 = 4_294_967_296.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the remainder is in 0..2³²"
    )]
    let bits = value.trunc().rem_euclid(MODULUS) as u32;
    bits.cast_signed()
}
