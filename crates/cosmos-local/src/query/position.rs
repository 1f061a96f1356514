//! Where a query stopped, so that the next page can go on: a place in the sort order and a
//! document, so that documents that come and go between two pages neither repeat nor hide the
//! others. Only where rows are folded of many documents is it a number of rows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::error::{ErrorCode, QueryError, Result};
use super::order::Place;

/// The last row given out. Of use to queries in the same order only; [`super::Query`] checks that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    /// The `_rid` of the document the row came from.
    pub(super) rid: String,
    /// How many rows that document has given out (more than one only with JOIN).
    pub(super) row: u64,
    /// How many rows the query has given out in all, for TOP and LIMIT.
    pub(super) taken: u64,
    /// The sort values of the row; empty without ORDER BY.
    pub(super) values: Vec<Option<Value>>,
}

impl Position {
    /// Of a query whose pages all start over, so that rows can only be counted.
    pub(super) fn behind(taken: u64) -> Self {
        Self {
            rid: String::new(),
            row: 0,
            taken,
            values: Vec::new(),
        }
    }

    /// The document the last row came from: a scan goes on here, this document included.
    #[cfg(test)]
    pub(crate) fn rid(&self) -> &str {
        &self.rid
    }

    /// The same place in the order of the query.
    pub(super) fn place(&self) -> Place {
        Place {
            values: self.values.clone(),
            ordinal: ordinal(&self.rid),
        }
    }

    /// The sort values of the last row, in the order of ORDER BY; `None` is undefined.
    pub(crate) fn values(&self) -> &[Option<Value>] {
        &self.values
    }

    pub(super) fn to_json(&self, order: &str) -> Value {
        let values: Vec<Value> = self
            .values
            .iter()
            .map(|value| Value::Array(value.iter().cloned().collect()))
            .collect();
        json!({"q": order, "rid": self.rid, "row": self.row, "n": self.taken, "v": values})
    }

    pub(super) fn from_json(token: &Value, order: &str, columns: usize) -> Result<Self> {
        let malformed = |what: &str| {
            QueryError::new(
                ErrorCode::Malformed,
                format!("The continuation token is invalid: {what}."),
            )
        };
        let field = |name| {
            token
                .get(name)
                .ok_or_else(|| malformed("a member is missing"))
        };
        if field("q")?.as_str() != Some(order) {
            return Err(malformed("it belongs to a query in another order"));
        }
        let number = |name| {
            field(name)?
                .as_u64()
                .ok_or_else(|| malformed("a count is not a number"))
        };
        let values =
            values(field("v")?).ok_or_else(|| malformed("the sort values are not a list"))?;
        if values.len() != columns {
            return Err(malformed("the number of sort values is wrong"));
        }
        Ok(Self {
            rid: field("rid")?
                .as_str()
                .ok_or_else(|| malformed("the document is not named"))?
                .to_owned(),
            row: number("row")?,
            taken: number("n")?,
            values,
        })
    }
}

/// Reads sort values: each in a list of its own, undefined as the empty list.
fn values(value: &Value) -> Option<Vec<Option<Value>>> {
    let read = |value: &Value| match value.as_array()?.as_slice() {
        [] => Some(None),
        [value] => Some(Some(value.clone())),
        _ => None,
    };
    value.as_array()?.iter().map(read).collect()
}

/// The seek of the Rust and .NET clients when they resume a sorted query: a member `resumeFilter`
/// beside the query text (`SqlQueryResumeFilter` of `Azure/azure-cosmos-dotnet-v3`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResumeFilter {
    pub(super) values: Vec<Option<Value>>,
    /// Rows equal to the values start with this document.
    pub(super) rid: Option<String>,
    /// Rows equal to the values (and the document, if there is one) are left out.
    pub(super) exclude: bool,
}

impl ResumeFilter {
    /// Where the first rows are that it lets through.
    pub(super) fn place(&self, is_descending: bool) -> Place {
        let ordinal = match &self.rid {
            Some(rid) => ordinal(rid),
            None if is_descending => u64::MAX,
            None => 0,
        };
        Place {
            values: self.values.clone(),
            ordinal,
        }
    }

    /// Reads `{"value":[…],"rid":"…","exclude":false}`, where `[]` stands for an undefined value.
    ///
    /// # Errors
    ///
    /// Anything else, among it the hashed form in which .NET sends arrays and objects.
    pub(super) fn from_json(filter: &Map<String, Value>, columns: usize) -> Result<Self> {
        let malformed = |what: &str| {
            QueryError::new(
                ErrorCode::Malformed,
                format!("The resumeFilter of the query is invalid: {what}."),
            )
        };
        let values = filter
            .get("value")
            .and_then(Value::as_array)
            .ok_or_else(|| malformed("'value' is not an array"))?
            .iter()
            .map(|value| match value {
                Value::Array(items) if items.is_empty() => Ok(None),
                Value::Array(_) | Value::Object(_) => Err(QueryError::new(
                    ErrorCode::Unsupported,
                    "A resumeFilter over array or object values is not supported.",
                )),
                value => Ok(Some(value.clone())),
            })
            .collect::<Result<Vec<_>>>()?;
        if values.len() != columns {
            return Err(malformed("'value' must have one item per ORDER BY column"));
        }
        let rid = match filter.get("rid") {
            None | Some(Value::Null) => None,
            Some(Value::String(rid)) => Some(rid.clone()),
            Some(_) => return Err(malformed("'rid' is not a string")),
        };
        let exclude = match filter.get("exclude") {
            None => false,
            Some(exclude) => exclude
                .as_bool()
                .ok_or_else(|| malformed("'exclude' is not a boolean"))?,
        };
        Ok(Self {
            values,
            rid,
            exclude,
        })
    }
}

/// The ordinal in a document's `_rid`: its last eight bytes, little-endian. Rows with equal sort
/// values run by it, and clients that merge pages rely on that (`ResourceId.cs` of
/// `Azure/azure-cosmos-dotnet-v3`). Zero for what is no document id.
pub(super) fn ordinal(rid: &str) -> u64 {
    let bytes = STANDARD.decode(rid.replace('-', "/")).unwrap_or_default();
    match bytes.last_chunk::<8>() {
        Some(ordinal) if bytes.len() >= 16 => u64::from_le_bytes(*ordinal),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_survives_its_token() {
        let position = Position {
            rid: "abcDAIiJkwUBAAAAAAAAAA==".into(),
            row: 2,
            taken: 40,
            values: vec![Some(json!([1])), None, Some(json!(null))],
        };
        let token = position.to_json("q1");
        assert_eq!(Position::from_json(&token, "q1", 3).unwrap(), position);
        for (query, columns) in [("q2", 3), ("q1", 2)] {
            let error = Position::from_json(&token, query, columns).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Malformed);
        }
        let error = Position::from_json(&json!({"q": "q1"}), "q1", 0).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Malformed);
    }

    #[test]
    fn ordinals_are_the_last_eight_bytes() {
        assert_eq!(ordinal("abcDAIiJkwUBAAAAAAAAAA=="), 1);
        assert_eq!(ordinal("abcDAIiJkwUAAQAAAAAAAA=="), 256);
        assert_eq!(ordinal("nonsense"), 0);
    }
}
