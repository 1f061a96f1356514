//! Problem details (RFC 9457): how the HTTP functions say no.

use std::borrow::Cow;

use serde::Serialize;

/// Most field errors that one answer lists. A batch with more of them says so in its `detail`.
pub const MAX_FIELD_ERRORS: usize = 20;

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json; charset=utf-8";

/// An `application/problem+json` document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// What is wrong with one field of a request body, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON path of the field, such as `$[3].value`.
    pub path: String,
    /// One clear sentence.
    pub message: Cow<'static, str>,
}

impl Problem {
    /// A problem with one clear sentence of `detail`, for the reader who has to act.
    pub fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank",
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// Adds what is wrong field by field; at most [`MAX_FIELD_ERRORS`] are kept.
    #[must_use]
    pub fn with_errors(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_FIELD_ERRORS);
        self.errors = errors;
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The sentence for the reader who has to act.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong field by field.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}
