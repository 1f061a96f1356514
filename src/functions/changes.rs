//! `GET /api/changes[?continuation=…][&limit=N]`: every event this region has got after a continuation.
//!
//! Without `continuation` it begins with the oldest event; `continuation=now` answers only the continuation of the
//! present. `limit` is from 1 to [`MAX_LIMIT`], by default [`DEFAULT_LIMIT`]. The answer is
//! `{"region", "events", "continuation", "hasMore"}`.
//!
//! This function reads Cosmos DB itself, because no input binding reads a change feed.

use std::num::NonZeroU32;

use serde::Serialize;

use super::{App, InvokeError, refuse, respond};
use crate::{
    changes::{Continuation, DEFAULT_LIMIT, MAX_LIMIT, Start, StoreError},
    event::Event,
    invocation::{HttpRequest, Invocation, InvocationError},
    problem::{FieldError, Problem},
    telemetry::InvocationSpan,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    region: &'a str,
    events: &'a [Event<'a>],
    continuation: String,
    has_more: bool,
}

pub(super) async fn invoke(
    app: &App,
    body: &[u8],
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    let (from, limit) = match parameters(app, body)? {
        Ok(parameters) => parameters,
        Err(problem) => return refuse(&problem, span),
    };
    match app.store.changes(from, limit).await {
        Ok(changes) => respond(
            200,
            &Answer {
                region: app.settings.region.as_str(),
                events: &changes.events,
                continuation: changes.continuation.to_text()?,
                has_more: changes.has_more,
            },
        ),
        Err(error) => refuse(&unavailable(&error), span),
    }
}

type Parameters = (Start, NonZeroU32);

fn parameters(app: &App, body: &[u8]) -> Result<Result<Parameters, Problem>, InvocationError> {
    let invocation = Invocation::parse(body)?;
    let request = invocation
        .structured("req")
        .ok_or(InvocationError::Missing("req"))?;
    let request: HttpRequest<'_> = request.read()?;
    let mut errors = Vec::new();
    let from = match request.query("continuation").as_deref() {
        None | Some("") => Some(Start::Beginning),
        Some("now") => Some(Start::Now),
        Some(text) => match Continuation::parse(text, &app.settings.region) {
            Ok(continuation) => Some(Start::Continuation(continuation)),
            Err(error) => {
                errors.push(FieldError {
                    path: "continuation".to_owned(),
                    message: format!("{error}; {HOW_TO_START}").into(),
                });
                None
            }
        },
    };
    let limit = match request.query("limit") {
        None => NonZeroU32::new(DEFAULT_LIMIT),
        Some(text) => {
            let limit = text
                .parse()
                .ok()
                .filter(|limit: &NonZeroU32| limit.get() <= MAX_LIMIT);
            if limit.is_none() {
                errors.push(FieldError {
                    path: "limit".to_owned(),
                    message: format!("must be a whole number from 1 to {MAX_LIMIT}").into(),
                });
            }
            limit
        }
    };
    Ok(from.zip(limit).ok_or_else(|| {
        Problem::new(
            400,
            "Invalid parameter",
            "A query parameter cannot be used.",
        )
        .with_errors(errors)
    }))
}

const HOW_TO_START: &str = "call without `continuation` to read from the beginning, or with `continuation=now` to start at the present";

/// The causes are logged, and not told to the caller, who can do nothing about them.
fn unavailable(error: &StoreError) -> Problem {
    match error {
        StoreError::Continuation(cause) => {
            tracing::info!(%cause, "continuation refused by Cosmos DB");
            Problem::new(
                400,
                "Invalid parameter",
                "A query parameter cannot be used.",
            )
            .with_errors(vec![FieldError {
                path: "continuation".to_owned(),
                message: format!("is not known to Cosmos DB any more; {HOW_TO_START}").into(),
            }])
        }
        error => super::health::unavailable(error),
    }
}
