//! What is wrong with a query, in the service's own words.
//!
//! Codes and the `errors` structure are those of the service (`Azure/azure-cosmos-dotnet-v3`:
//! `QueryPlanBaselineTests.*.xml`). Conditions that the service has no published code for carry a
//! name instead of an `SC` number, so that nobody mistakes them for a fact of the service.

use serde_json::{Value, json};

use super::ast::Span;

/// Outcome of everything in this module.
pub(crate) type Result<T> = std::result::Result<T, QueryError>;

/// Which rule a query broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// The text is not of the grammar.
    Syntax,
    /// The text ends where more was due.
    UnexpectedEnd,
    /// A name that is no alias in scope, or a parameter that was not supplied.
    Unresolved,
    /// No built-in function has this name.
    UnknownFunction,
    /// `SELECT *` together with GROUP BY.
    StarWithGroupBy,
    /// A function was given too few or too many arguments.
    ArgumentCount,
    /// The count after TOP is not acceptable.
    TopValue,
    /// The count after LIMIT is not acceptable.
    LimitValue,
    /// The count after OFFSET is not acceptable.
    OffsetValue,
    /// An aggregate over an aggregate or a subquery, or in a place without rows to aggregate.
    AggregateNesting,
    /// A select list member that is neither grouped nor aggregated.
    NotGrouped,
    /// ORDER BY by something else than a document path.
    OrderBy,
    /// Part of the service's language that is refused here, by name.
    Unsupported,
    /// A documented limit of [`crate::query`] was exceeded.
    LimitExceeded,
    /// The request around the query is malformed (a position, a resume filter).
    Malformed,
}

impl ErrorCode {
    /// The code as it stands in the error body: text for most, a number for one.
    fn wire(self) -> Value {
        match self {
            Self::Syntax => json!("SC1001"),
            Self::UnexpectedEnd => json!("SC1002"),
            Self::Unresolved => json!("SC2001"),
            Self::UnknownFunction => json!("SC2005"),
            Self::StarWithGroupBy => json!("SC2041"),
            Self::ArgumentCount => json!("SC2050"),
            Self::TopValue => json!("SC2060"),
            Self::LimitValue => json!("SC2061"),
            Self::OffsetValue => json!("SC2062"),
            Self::AggregateNesting => json!("SC2101"),
            Self::NotGrouped => json!("SC2102"),
            Self::OrderBy => json!(2206),
            Self::Unsupported => json!("Unsupported"),
            Self::LimitExceeded => json!("LimitExceeded"),
            Self::Malformed => json!("Malformed"),
        }
    }
}

/// A query that is refused. Always the caller's to mend: HTTP 400.
///
/// The content is boxed because results travel through every evaluation step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct QueryError(Box<Content>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    code: ErrorCode,
    message: String,
    /// Half-open range of characters in the query text.
    location: Option<(usize, usize)>,
    /// Half-open range of bytes, until the text is at hand to count characters.
    span: Option<Span>,
}

impl QueryError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Content {
            code,
            message: message.into(),
            location: None,
            span: None,
        }))
    }

    pub(super) fn at(span: Span, code: ErrorCode, message: impl Into<String>) -> Self {
        let mut error = Self::new(code, message);
        error.0.span = Some(span);
        error
    }

    /// Turns the byte span into the character range that the wire wants.
    pub(super) fn located_in(mut self, text: &str) -> Self {
        if let Some(span) = self.0.span.take() {
            let characters = |end: usize| text.get(..end).map_or(0, |head| head.chars().count());
            self.0.location = Some((characters(span.start), characters(span.end)));
        }
        self
    }

    /// Which rule was broken.
    #[cfg(test)]
    pub(crate) fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The half-open range of characters the error is about, where it is about a place.
    #[cfg(test)]
    pub(crate) fn location(&self) -> Option<(usize, usize)> {
        self.0.location
    }

    /// The structure the service puts into the error message:
    /// `{"errors":[{"severity":"Error","location":{"start":14,"end":22},"code":"SC1001","message":"…"}]}`.
    pub(crate) fn to_json(&self) -> Value {
        let mut entry = serde_json::Map::new();
        entry.insert("severity".into(), json!("Error"));
        if let Some((start, end)) = self.0.location {
            entry.insert("location".into(), json!({"start": start, "end": end}));
        }
        entry.insert("code".into(), self.0.code.wire());
        entry.insert("message".into(), json!(self.0.message));
        json!({ "errors": [entry] })
    }
}
