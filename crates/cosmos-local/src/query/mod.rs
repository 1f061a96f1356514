//! The query language: from text to rows, and to the plan that clients merge partitions by.
//!
//! [`Query::parse`] reads and checks a query, [`Query::execute`] runs it over documents,
//! [`Query::plan`] explains it to a client. The module knows no storage and no HTTP: documents
//! come in as the store has them ([`Document`]), and [`Query::key_set`], [`Query::equality_filters`]
//! and [`Query::range_filters`] tell the store which of them to bring.
//!
//! The way of a query: text → [`lexer`] → [`parser`] → tree ([`ast`]) → [`bind`] → [`program`] →
//! [`eval`] and [`execute`]. Beside it, [`plan`] rewrites trees and [`print`] writes them.
//!
//! # Grammar
//!
//! Keywords and function names come in any letter case, property names and aliases do not. White
//! space, `-- line` and `/* block */` comments may stand between tokens.
//!
//! ```text
//! query      = "SELECT" ["DISTINCT"] ["TOP" count] projection
//!              ["FROM" source {"JOIN" source}] ["WHERE" expr]
//!              ["GROUP" "BY" expr {"," expr}]
//!              ["ORDER" "BY" column {"," column}]
//!              ["OFFSET" count "LIMIT" count] ;
//! projection = "*" | "VALUE" expr | item {"," item} ;
//! item       = expr [["AS"] name] ;
//! source     = name "IN" collection | collection [["AS"] name] ;
//! collection = name {"." name | "[" (string | integer) "]"} | "(" query ")" ;
//! column     = expr ["ASC" | "DESC"] ;              (* expr: a path *)
//! count      = integer | parameter ;
//!
//! expr       = expr "?" expr ":" expr               (* loosest, to the right *)
//!            | expr "??" expr
//!            | expr "OR" expr
//!            | expr "AND" expr
//!            | "NOT" expr
//!            | expr ["NOT"] "IN" "(" expr {"," expr} ")"
//!            | expr ["NOT"] "BETWEEN" expr "AND" expr
//!            | expr ["NOT"] "LIKE" expr ["ESCAPE" string]
//!            | expr ("=" | "!=" | "<>") expr
//!            | expr ("<" | "<=" | ">" | ">=") expr
//!            | expr "|" expr
//!            | expr "^" expr
//!            | expr "&" expr
//!            | expr ("<<" | ">>" | ">>>") expr
//!            | expr "||" expr
//!            | expr ("+" | "-") expr
//!            | expr ("*" | "/" | "%") expr
//!            | ("-" | "+" | "~") expr
//!            | expr ("." name | "[" expr "]")       (* tightest *)
//!            | primary ;
//! primary    = number | string | "true" | "false" | "null" | "undefined"
//!            | parameter | name | name "(" [expr {"," expr}] ")"
//!            | "[" [expr {"," expr}] "]" | "{" [key ":" expr {"," key ":" expr}] "}"
//!            | "(" expr ")" | "(" query ")" | "EXISTS" "(" query ")" | "ARRAY" "(" query ")" ;
//! key        = string | name ;
//! parameter  = "@" name ;
//! ```
//!
//! # Semantics in short
//!
//! A missing property is *undefined*, which is not null: it compares to nothing, is left out of
//! projected objects and arrays, and makes AND, OR and NOT three-valued. `=` and `!=` are false
//! and true for defined values of different types, `<` and its kin undefined. ORDER BY, MIN and
//! MAX run over all types (see [`value::compare`]); ORDER BY keeps documents without the sort
//! property and returns them first. Equal rows run by the ordinal of `_rid`.
//!
//! # Refused by name
//!
//! `udf.` functions; ORDER BY with GROUP BY; ORDER BY RANK; subqueries in the select list of a
//! query with GROUP BY or aggregates; ALL, FIRST, LAST over subqueries; spatial, vector and
//! full-text functions and the others of [`functions::is_known_elsewhere`]; look-around and
//! back-references in RegexMatch.

mod aggregate;
mod ast;
mod bind;
mod document;
mod error;
mod eval;
mod execute;
mod filter;
mod functions;
mod lexer;
mod like;
mod order;
mod parser;
mod plan;
mod position;
mod print;
mod program;
mod reads;
mod statements;
mod value;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use ast::Direction;
pub(crate) use document::{Document, read_text, read_text_over};
pub(crate) use error::{ErrorCode, QueryError};
pub(crate) use execute::{Page, PageLimits, Row, Supply};
pub(crate) use filter::{KeySet, RangeFilter};
pub(crate) use order::{Place, SortOrder, SortPaths};
pub(crate) use position::Position;
pub(crate) use reads::Members;
pub(crate) use statements::Statements;

use error::Result;
use position::ResumeFilter;

/// Longest query text, in bytes (`maxSqlQueryInputLength` of the service's account document).
pub(crate) const MAX_QUERY_LENGTH: usize = 256 * 1024;

/// Deepest nesting of a query, and greatest height of an expression in it. What recursion over
/// it takes fits the stack of any thread, also in an unoptimised build.
pub(crate) const MAX_DEPTH: usize = 64;

/// Most JOIN clauses of one SELECT (`maxJoinsPerSqlQuery`).
pub(crate) const MAX_JOINS: usize = 10;

/// Most operators in one chain of AND or OR (`maxLogicalAndPerSqlQuery`).
pub(crate) const MAX_LOGICAL_TERMS: usize = 2_000;

/// Most items of any list in the text (`maxInExpressionItemsCount`).
pub(crate) const MAX_LIST_ITEMS: usize = 16_000;

/// Most partition keys a [`KeySet`] names before it becomes wider.
pub(crate) const MAX_KEYS: usize = 1_000;

/// Most rows that FROM and JOIN, also in subqueries, may visit for one document.
pub(crate) const MAX_ROWS_PER_DOCUMENT: u64 = 4_000_000;

/// Most bytes that expressions may build for one document.
pub(crate) const MAX_BYTES_PER_DOCUMENT: usize = 64 << 20;

/// Most bytes that rows, groups and sort values of one execution may hold.
pub(crate) const MAX_HELD_BYTES: usize = 256 << 20;

/// Most compiled regular expressions that one execution keeps.
pub(crate) const MAX_CACHED_PATTERNS: usize = 16;

/// A query, parsed and checked, with its parameters.
#[derive(Debug)]
pub(crate) struct Query {
    select: Arc<ast::Select>,
    program: program::Program,
    top: Option<u64>,
    window: Option<(u64, u64)>,
    seek: Option<ResumeFilter>,
}

impl Query {
    /// Reads a query. Parameters are pairs of name, with its `@`, and value; they are bound as
    /// values and never become text.
    ///
    /// # Errors
    ///
    /// Whatever the service would refuse, and what this module refuses; see [`ErrorCode`].
    pub(crate) fn parse(sql: &str, parameters: &[(String, Value)]) -> Result<Self> {
        let read = || Self::bind(Arc::new(parser::parse(sql)?), parameters);
        read().map_err(|error| error.located_in(sql))
    }

    fn bind(select: Arc<ast::Select>, parameters: &[(String, Value)]) -> Result<Self> {
        let program = bind::bind(&select, parameters)?;
        let count = |count: &Option<ast::Count>, code| {
            let count = count.as_ref();
            count
                .map(|count| bind::count(count, parameters, code))
                .transpose()
        };
        let top = count(&select.top, ErrorCode::TopValue)?;
        let window = match program.take {
            Some(limit) if select.window.is_some() => Some((program.skip, limit)),
            _ => None,
        };
        Ok(Self {
            select,
            program,
            top,
            window,
            seek: None,
        })
    }

    /// Lets the query start at a place in its sort order, from the `resumeFilter` member beside
    /// the query text.
    ///
    /// # Errors
    ///
    /// When the query is not sorted, or the filter does not fit its sort columns.
    pub(crate) fn with_resume_filter(mut self, filter: &Map<String, Value>) -> Result<Self> {
        if self.program.order.is_empty() || self.program.is_blocking() {
            return Err(QueryError::new(
                ErrorCode::Malformed,
                "A resumeFilter needs a query with ORDER BY and without DISTINCT, GROUP BY or aggregates.",
            ));
        }
        self.seek = Some(ResumeFilter::from_json(filter, self.program.order.len())?);
        Ok(self)
    }

    /// The query for documents that all have these values, none of them an array or object, at these paths, such as
    /// `/deviceId`: it does not look whether they have.
    pub(crate) fn knowing(mut self, known: &[(&str, Value)]) -> Self {
        if self.program.feed.is_none() {
            filter::assume(&mut self.program, known);
        }
        self
    }

    /// Equalities that hold for the document of every row, such as `("/deviceId", "d1")`.
    pub(crate) fn equality_filters(&self) -> Vec<(String, Value)> {
        filter::equalities(&self.program)
    }

    /// Bounds that hold for the document of every row, such as `/_ts` at least 5.
    pub(crate) fn range_filters(&self) -> Vec<RangeFilter> {
        filter::ranges(&self.program)
    }

    /// The order in which documents can come so that no row has to wait for others, from a position on. `None` when there is
    /// none: without ORDER BY, and where it is not about paths of the document, or in both directions.
    pub(crate) fn sort_order(&self, after: Option<&Position>) -> Option<SortOrder> {
        let mut order = filter::sort_order(&self.program)?;
        let start = match (after, &self.seek) {
            (Some(after), _) => Some(after.place()),
            (None, Some(seek)) => Some(seek.place(order.is_descending)),
            (None, None) => None,
        };
        if let Some(start) = start {
            order.start_with(start);
        }
        Some(order)
    }

    /// How many rows a page takes at the most, and those that OFFSET leaves out; one more than it holds, to know of more.
    pub(crate) fn most_rows(&self, limits: PageLimits) -> usize {
        execute::most_rows(self.program.skip, self.program.take, limits)
    }

    /// The partition keys that rows can come from, for a container with these key paths.
    pub(crate) fn key_set(&self, key_paths: &[&str]) -> KeySet {
        filter::key_set(&self.program, key_paths)
    }

    /// Whether it does so little for a document that the number of documents says how long it takes.
    pub(crate) fn is_light(&self) -> bool {
        reads::is_light(&self.program)
    }

    /// Whether each document gives a row, but for those that TOP, OFFSET or LIMIT leave out.
    pub(crate) fn takes_all(&self) -> bool {
        reads::takes_all(&self.program)
    }

    /// Whether a client must plan and merge when rows come from more than one partition.
    pub(crate) fn needs_plan(&self) -> bool {
        plan::is_needed(&self.select) || self.program.feed.is_some()
    }

    /// Whether every page looks at all documents from the first on, and leaves out the rows of the pages before (DISTINCT,
    /// GROUP BY, aggregates).
    pub(crate) fn starts_over(&self) -> bool {
        self.program.is_blocking()
    }

    /// All rows, over documents in any order.
    ///
    /// # Errors
    ///
    /// When a limit is exceeded, or a document leads to something that is refused.
    pub(crate) fn execute<D: Document>(
        &self,
        documents: impl Iterator<Item = D>,
    ) -> Result<Vec<Value>> {
        let page = self.execute_page(documents, Supply::AnyOrder, PageLimits::NONE, None)?;
        Ok(page.rows.into_iter().map(Row::into_value).collect())
    }

    /// The rows after a position, as many as fit a page. Reads no more documents than it needs. Documents have different
    /// ordinals.
    ///
    /// Without ORDER BY the documents must come in the same order for each page, and with a
    /// position from its document on (or from the one behind it, if it is gone), unless the query
    /// [starts over](Self::starts_over).
    ///
    /// # Errors
    ///
    /// As [`Query::execute`].
    pub(crate) fn execute_page<D: Document>(
        &self,
        mut documents: impl Iterator<Item = D>,
        supply: Supply,
        limits: PageLimits,
        after: Option<&Position>,
    ) -> Result<Page<D>> {
        let run = execute::Run {
            supply,
            limits,
            after,
            seek: self.seek.as_ref(),
        };
        execute::run(&self.program, &mut documents, &run)
    }

    /// A position as JSON, for use in a continuation token.
    pub(crate) fn position_to_json(&self, position: &Position) -> Value {
        position.to_json(&self.fingerprint())
    }

    /// Reads a position back.
    ///
    /// # Errors
    ///
    /// When it is malformed, or of a query in another order.
    pub(crate) fn position_from_json(&self, token: &Value) -> Result<Position> {
        let columns = match self.starts_over() {
            true => 0,
            false => self.program.order.len(),
        };
        Position::from_json(token, &self.fingerprint(), columns)
    }

    /// Tells sort orders apart; short, as tokens are to be.
    ///
    /// Nothing else of a query takes part: clients that resume a sorted query put where they stopped into its filter, and
    /// send the old token along. A place in an order means the same whatever rows a filter leaves. A number of rows does
    /// not.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        if self.starts_over() {
            hash.update(self.select.to_string());
        }
        for item in &self.select.order_by {
            hash.update(item.expr.to_string());
            hash.update(match item.direction {
                Some(Direction::Descending) => [1],
                _ => [0],
            });
        }
        hash.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The body of a query plan response, for a client with these features (the value of
    /// `x-ms-cosmos-supported-query-features`) and a container with these key paths. `ranges` are
    /// the `queryRanges` that the store makes of [`Query::key_set`].
    ///
    /// # Errors
    ///
    /// When the client lacks a feature that the query needs, or no client could merge it.
    pub(crate) fn plan(&self, features: &str, key_paths: &[&str], ranges: Value) -> Result<Value> {
        let is_one_partition = match self.key_set(key_paths) {
            KeySet::Everything => false,
            KeySet::Keys(keys) => matches!(keys.as_slice(), [key] if key.len() == key_paths.len()),
        };
        let facts = plan::Facts {
            folds_in_from: self.program.feed.is_some(),
            top: self.top,
            window: self.window,
            is_one_partition,
            features: features
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect(),
        };
        Ok(json!({
            "partitionedQueryExecutionInfoVersion": 2,
            "queryInfo": plan::query_info(&self.select, &facts)?,
            "queryRanges": ranges,
        }))
    }
}

/// The names of functions, for the page that lists them.
#[cfg(test)]
pub(crate) struct FunctionNames {
    pub(crate) implemented: Vec<&'static str>,
    pub(crate) aggregates: Vec<&'static str>,
    pub(crate) refused: Vec<&'static str>,
}

#[cfg(test)]
pub(crate) fn function_names() -> FunctionNames {
    FunctionNames {
        implemented: functions::names(),
        aggregates: ast::Aggregate::ALL.map(ast::Aggregate::sql_name).to_vec(),
        refused: functions::refused_names().to_vec(),
    }
}
