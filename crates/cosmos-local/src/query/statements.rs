//! Queries that were read before: clients send the same text again and again, with other parameters.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Query, ast::Select, error::Result, parser};

/// Bytes of the texts that are remembered. Their trees take some ten times as much.
const MAX_BYTES: usize = 64 * 1024;

/// Bytes of the longest text that is remembered.
const MAX_TEXT: usize = 2 * 1024;

/// Queries as trees, by their texts.
#[derive(Debug, Default)]
pub(crate) struct Statements(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    trees: HashMap<String, Arc<Select>>,
    bytes: usize,
}

impl Statements {
    /// Reads a query, as [`Query::parse`] does.
    ///
    /// # Errors
    ///
    /// As [`Query::parse`].
    pub(crate) fn parse(
        &self,
        sql: &str,
        parameters: &[(String, serde_json::Value)],
    ) -> Result<Query> {
        let read = || Query::bind(self.tree(sql)?, parameters);
        read().map_err(|error| error.located_in(sql))
    }

    fn tree(&self, sql: &str) -> Result<Arc<Select>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = known.trees.get(sql) {
            return Ok(Arc::clone(tree));
        }
        drop(known);
        let tree = Arc::new(parser::parse(sql)?);
        if sql.len() <= MAX_TEXT {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if known.bytes + sql.len() > MAX_BYTES {
                // Those that matter are soon here again.
                *known = Known::default();
            }
            if known
                .trees
                .insert(sql.to_owned(), Arc::clone(&tree))
                .is_none()
            {
                known.bytes += sql.len();
            }
        }
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_remembered_within_limits_and_parameters_are_not() {
        let statements = Statements::default();
        let held = |statements: &Statements| {
            let known = statements.0.read().expect("no panics");
            let bytes: usize = known.trees.keys().map(String::len).sum();
            assert_eq!(known.bytes, bytes);
            (known.trees.len(), bytes)
        };
        for value in [1, 2] {
            let query = statements.parse("SELECT VALUE @v", &[("@v".into(), json!(value))]);
            let rows =
                query.and_then(|query| query.execute(std::iter::empty::<serde_json::Value>()));
            assert_eq!(rows.expect("a row"), [json!(value)]);
            assert_eq!(held(&statements).0, 1);
        }
        let wrong = |sql| {
            statements
                .parse(sql, &[])
                .map(drop)
                .map_err(|error| error.to_json())
        };
        assert_eq!(
            wrong("SELECT"),
            Query::parse("SELECT", &[])
                .map(drop)
                .map_err(|error| error.to_json())
        );
        assert_eq!(
            wrong("SELECT @v"),
            Query::parse("SELECT @v", &[])
                .map(drop)
                .map_err(|error| error.to_json())
        );
        for number in 0..200 {
            let sql = format!("SELECT VALUE '{}{number}'", "x".repeat(MAX_TEXT - 20));
            statements.parse(&sql, &[]).expect("valid");
            assert!(held(&statements).1 <= MAX_BYTES);
        }
        let before = held(&statements);
        let long = format!("SELECT VALUE '{}'", "x".repeat(MAX_TEXT));
        statements.parse(&long, &[]).expect("valid");
        assert_eq!(held(&statements), before);
    }
}
