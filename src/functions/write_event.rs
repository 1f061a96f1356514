//! `POST /api/WriteEvent`: accepts one event, or an array of up to [`MAX_BATCH`](crate::event::MAX_BATCH).
//!
//! Each event gets an id if the device gave none, and the region and time of its acceptance; then all go to the Cosmos
//! DB output binding `events`, and the caller gets 201 with what was stored. The host sends that answer only after the
//! binding has stored everything. A batch with anything wrong in it is answered 400 and stored not at all.
//!
//! A device may send an event again when it got no answer: the same id is the same event.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{App, InvokeError, refuse};
use crate::{
    event::{
        Draft, Event,
        draft::{Drafts, Faults, read_drafts},
        time_to_live,
    },
    invocation::{HttpRequest, HttpResponse, Invocation, InvocationError, Reply},
    problem::{MAX_FIELD_ERRORS, Problem},
    telemetry::InvocationSpan,
};

/// Most bytes of a request body: what [`MAX_BATCH`](crate::event::MAX_BATCH) events take if every character is escaped.
pub const MAX_BODY: usize = 1024 * 1024;

#[derive(Serialize)]
struct Outputs {
    res: HttpResponse,
    events: Vec<Box<RawValue>>,
}

pub(super) fn invoke(
    app: &App,
    body: &[u8],
    span: &mut InvocationSpan<'_>,
) -> Result<Vec<u8>, InvokeError> {
    let invocation = Invocation::parse(body)?;
    let request = invocation
        .structured("req")
        .ok_or(InvocationError::Missing("req"))?;
    let request: HttpRequest<'_> = request.read()?;
    span.called_by(|| request.header("traceparent"));
    let refuse = |problem: &Problem, span: &mut InvocationSpan<'_>| {
        span.refused(problem.status());
        refuse(problem, span)
    };
    let json = match body_of(&request) {
        Ok(json) => json,
        Err(problem) => return refuse(&problem, span),
    };
    let drafts = match read_drafts(&json) {
        Ok(drafts) => drafts,
        Err(faults) => return refuse(&invalid(faults), span),
    };

    let acceptance = Acceptance {
        app,
        time: format!("{:.3}", (app.source.now)()),
        traceparent: span.traceparent(),
    };
    let (events, res) = match drafts {
        Drafts::One(draft) => {
            let event = acceptance.accept(draft)?;
            let res = HttpResponse::json(201, &event)?;
            (vec![event], res)
        }
        Drafts::Many(drafts) => {
            let events = drafts
                .into_iter()
                .map(|draft| acceptance.accept(draft))
                .collect::<Result<Vec<_>, _>>()?;
            let res = HttpResponse::json(201, &events)?;
            (events, res)
        }
    };
    tracing::debug!(parent: span.log(), events = events.len(), "accepted");
    span.accepted(events.len());
    Ok(Reply::new(Outputs { res, events }).into_json()?)
}

/// What all events of one request have in common.
struct Acceptance<'a> {
    app: &'a App,
    time: String,
    traceparent: Option<String>,
}

impl Acceptance<'_> {
    /// The document of the container `events`. It is written as JSON once, for the binding and for the caller.
    fn accept(&self, draft: Draft<'_>) -> Result<Box<RawValue>, serde_json::Error> {
        let event = Event {
            id: draft
                .id
                .unwrap_or_else(|| Cow::Owned((self.app.source.id)().to_string())),
            device_id: draft.device_id,
            region: Cow::Borrowed(self.app.settings.region.as_str()),
            value: draft.value,
            time: Cow::Borrowed(&self.time),
            traceparent: self.traceparent.as_deref().map(Cow::Borrowed),
        };
        match time_to_live(&event.device_id) {
            None => to_raw_value(&event),
            Some(ttl) => to_raw_value(&Mortal { event, ttl }),
        }
    }
}

/// An event that is stored for a while only.
#[derive(Serialize)]
struct Mortal<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    ttl: u32,
}

fn body_of<'a>(request: &'a HttpRequest<'_>) -> Result<Cow<'a, str>, Problem> {
    // Bodies of these types come as base64, see `src/WebJobs.Script/Extensions/HttpRequestExtensions.cs` of the host.
    let media_type = request
        .header("Content-Type")
        .unwrap_or_default()
        .to_ascii_lowercase();
    if media_type.starts_with("application/octet-stream") || media_type.contains("multipart/") {
        return Err(Problem::new(
            415,
            "Unsupported media type",
            "Send the event as JSON, with `Content-Type: application/json`.",
        ));
    }
    let body = request.body().filter(|body| !body.trim_ascii().is_empty()).ok_or_else(|| {
        Problem::new(
            400,
            "No event",
            "Send an event, or an array of events, as the JSON body of the request, with a `Content-Length` \
             (chunked bodies do not reach a function).",
        )
    })?;
    if body.len() > MAX_BODY {
        return Err(Problem::new(
            413,
            "Too large",
            format!(
                "The body has {} bytes; the most is {MAX_BODY}. Send several requests.",
                body.len()
            ),
        ));
    }
    Ok(body)
}

fn invalid(faults: Faults) -> Problem {
    let detail = match faults.total {
        1 => "One field is wrong; nothing was stored.".to_owned(),
        n if n <= MAX_FIELD_ERRORS => format!("{n} fields are wrong; nothing was stored."),
        n => format!(
            "{n} fields are wrong, of which the first {MAX_FIELD_ERRORS} are listed; nothing was stored."
        ),
    };
    Problem::new(400, "Invalid event", detail).with_errors(faults.errors)
}
