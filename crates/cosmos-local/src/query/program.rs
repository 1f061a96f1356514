//! The bound form of a query: names are slots, parameters are values, functions are pointers.
//!
//! [`super::bind`] makes it, [`super::eval`] and [`super::execute`] run it.

use std::collections::HashSet;

use serde_json::Value;

use super::ast::{Aggregate, Binary, Direction, Unary};
use super::functions::Builtin;
use super::like::Like;

/// One bound SELECT.
#[derive(Debug)]
pub(super) struct Program {
    /// Set on the outermost SELECT only, when it reads the rows of a subquery that folds, sorts or
    /// cuts the whole collection, as in `SELECT VALUE COUNT(1) FROM (SELECT DISTINCT c.a FROM c)`:
    /// then those rows take the place of the documents.
    pub(super) feed: Option<Box<Program>>,
    /// Without any, the query has exactly one row to work on.
    pub(super) sources: Vec<Source>,
    pub(super) filter: Option<Expr>,
    pub(super) grouping: Option<Grouping>,
    pub(super) projection: Projection,
    pub(super) distinct: bool,
    pub(super) order: Vec<SortColumn>,
    /// Rows of the result to leave out at the start.
    pub(super) skip: u64,
    /// Rows of the result to give out at most.
    pub(super) take: Option<u64>,
}

impl Program {
    /// Whether all rows must be seen before the first can be given out.
    pub(super) fn is_blocking(&self) -> bool {
        self.distinct || self.grouping.is_some() || self.feed.is_some()
    }
}

/// One FROM source; its rows are one more frame of the environment.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) values: Values,
    /// One row per element of the value, which must be an array to have any.
    pub(super) each: bool,
}

/// Where a source's rows come from.
#[derive(Debug)]
pub(super) enum Values {
    /// One value, or no row when it is undefined.
    Path(Expr),
    /// The rows of a subquery.
    Rows(Box<Program>),
}

/// How rows are folded. After it, the environment of the projection is one frame: the keys, then
/// the results of the aggregates.
#[derive(Debug)]
pub(super) struct Grouping {
    /// Without any, all rows are one group, and there is a group even without rows.
    pub(super) keys: Vec<Expr>,
    pub(super) aggregates: Vec<(Aggregate, Expr)>,
}

/// What a row looks like. `SELECT *` is the value of its only source.
#[derive(Debug)]
pub(super) enum Projection {
    Value(Expr),
    Object(Vec<(String, Expr)>),
}

/// One ORDER BY column.
#[derive(Debug)]
pub(super) struct SortColumn {
    pub(super) expr: Expr,
    pub(super) direction: Direction,
}

/// A bound scalar expression.
#[derive(Debug)]
pub(super) enum Expr {
    Undefined,
    Constant(Value),
    /// A cell of an enclosing frame: `up` frames outwards.
    Slot {
        up: usize,
        cell: usize,
    },
    Member {
        base: Box<Expr>,
        name: String,
    },
    Index {
        base: Box<Expr>,
        index: Box<Expr>,
    },
    Unary {
        operator: Unary,
        operand: Box<Expr>,
    },
    Binary {
        operator: Binary,
        operands: Box<(Expr, Expr)>,
    },
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Conditional {
        parts: Box<(Expr, Expr, Expr)>,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    /// IN over constants: their encodings ([`super::value::encode`]).
    InSet {
        value: Box<Expr>,
        constants: Vec<Value>,
        encodings: HashSet<Vec<u8>>,
        negated: bool,
    },
    Between {
        parts: Box<(Expr, Expr, Expr)>,
        negated: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Pattern,
        negated: bool,
    },
    Call {
        builtin: &'static Builtin,
        args: Vec<Expr>,
    },
    Array(Vec<Expr>),
    Object(Vec<(String, Expr)>),
    Scalar(Box<Program>),
    Exists(Box<Program>),
    ArrayOf(Box<Program>),
}

/// The right side of LIKE.
#[derive(Debug)]
pub(super) enum Pattern {
    Fixed(Like),
    Computed {
        pattern: Box<Expr>,
        escape: Option<char>,
    },
}

impl Expr {
    /// Whether the value is known before any row is.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_) | Self::Undefined)
    }

    /// The known value; `None` for undefined and for whatever depends on rows.
    pub(super) fn constant(&self) -> Option<&Value> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
    }
}
