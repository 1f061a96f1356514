//! Spans of attempts and outputs, by the OpenTelemetry API: a process without an OpenTelemetry SDK records none.
//!
//! The handler is told the `traceparent` of the attempt, as .NET's HTTP client does by itself in the real host. (W3C Trace
//! Context; attribute names: OpenTelemetry semantic conventions, "FaaS".)

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue, global};
use uuid::Uuid;

use crate::binding::{OutputBinding, Trigger};
use crate::function_json::FunctionDefinition;

/// The instrumentation scope.
const SCOPE: &str = "functions-host";

/// The trace that an HTTP caller is in.
pub(crate) fn of_caller(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Headers(headers))
    })
}

/// Begins the span of an attempt, under the caller's.
pub(crate) fn attempt(
    caller: &Context,
    function: &FunctionDefinition,
    host: &str,
    invocation: Uuid,
    retry: Option<u32>,
) -> Context {
    let (trigger, kind) = match function.trigger {
        Trigger::Http(_) => ("http", SpanKind::Server),
        Trigger::Cosmos(_) => ("datasource", SpanKind::Consumer),
    };
    let mut attributes = vec![
        KeyValue::new("faas.name", function.name.clone()),
        KeyValue::new("faas.trigger", trigger),
        KeyValue::new("faas.invocation_id", invocation.to_string()),
        KeyValue::new("faas.instance", host.to_owned()),
    ];
    if let Some(retry) = retry {
        attributes.push(KeyValue::new("functions_host.retry", i64::from(retry)));
    }
    begin(
        caller,
        format!("attempt {}", function.name),
        kind,
        attributes,
    )
}

/// Begins the span of an output, under its attempt.
pub(crate) fn output(attempt: &Context, output: &OutputBinding) -> Context {
    let kind = match output {
        OutputBinding::Http { .. } => SpanKind::Internal,
        OutputBinding::Cosmos(_) => SpanKind::Client,
        OutputBinding::SignalR(_) => SpanKind::Producer,
    };
    begin(
        attempt,
        format!("output {}", output.name()),
        kind,
        Vec::new(),
    )
}

fn begin(parent: &Context, name: String, kind: SpanKind, attributes: Vec<KeyValue>) -> Context {
    let span = SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_attributes(attributes)
        .start_with_context(&global::tracer(SCOPE), parent);
    parent.with_span(span)
}

/// Ends the span of an attempt or an output; `error` is why it failed.
pub(crate) fn end(context: &Context, error: Option<String>) {
    let span = context.span();
    if let Some(error) = error {
        span.set_status(Status::error(error));
    }
    span.end();
}

/// The headers that tell the handler which trace an attempt is in.
pub(crate) fn headers(attempt: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(attempt, &mut Written(&mut headers));
    });
    headers
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Written<'h>(&'h mut HeaderMap);

impl Injector for Written<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` says nothing.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}
