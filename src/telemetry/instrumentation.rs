//! What the functions tell of themselves: a span per invocation, a span per event of a feed batch, and the metrics.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    metrics::{Counter, Histogram},
    trace::{Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _},
};

use super::traceparent;
use crate::{event::Event, functions::Function, settings::RegionName};

/// The name of tracer and meter: the instrumentation scope.
const SCOPE: &str = "geo-events";

/// Upper bounds of the buckets of a duration in seconds: 5 ms, what a push takes here, to a minute, what a cut takes.
const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// How the functions are observed; [`Default`] is not at all.
#[derive(Debug, Default)]
pub struct Instrumentation(Option<Instruments>);

#[derive(Debug)]
struct Instruments {
    tracer: BoxedTracer,
    region: KeyValue,
    duration: Histogram<f64>,
    accepted: Counter<u64>,
    refused: Counter<u64>,
    delivered: Counter<u64>,
    lag: Histogram<f64>,
    pushed: Counter<u64>,
    materialized: Counter<u64>,
    quarantined: Counter<u64>,
}

impl Instrumentation {
    /// Observes the functions of a region, for the [`Telemetry`](super::Telemetry) that has been started.
    pub fn of(region: &RegionName) -> Self {
        let meter = global::meter(SCOPE);
        let seconds = |name, description| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(SECONDS.to_vec())
                .build()
        };
        let count = |name, unit, description| {
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(description)
                .build()
        };
        Self(Some(Instruments {
            tracer: global::tracer(SCOPE),
            region: KeyValue::new("cloud.region", region.as_str().to_owned()),
            duration: seconds(
                "faas.invoke_duration",
                "Time that the handler took for an invocation",
            ),
            accepted: count(
                "geo_events.events.accepted",
                "{event}",
                "Events that WriteEvent accepted",
            ),
            refused: count(
                "geo_events.writes.refused",
                "{request}",
                "Requests that WriteEvent refused",
            ),
            delivered: count(
                "geo_events.feed.events",
                "{event}",
                "Events that the change feed delivered, again ones included",
            ),
            lag: seconds(
                "geo_events.feed.lag",
                "Age of the newest event of a change feed batch",
            ),
            pushed: count(
                "geo_events.events.pushed",
                "{event}",
                "Events handed to SignalR",
            ),
            materialized: count(
                "geo_events.documents.materialized",
                "{document}",
                "Maxima handed to the container `materialized`",
            ),
            quarantined: count(
                "geo_events.documents.quarantined",
                "{document}",
                "Documents put into quarantine",
            ),
        }))
    }

    /// An invocation that begins, in a region. `traceparent` is the one of the host's request.
    pub fn invocation<'i>(
        &'i self,
        region: &'i RegionName,
        function: Function,
        id: &'i str,
        traceparent: Option<&str>,
    ) -> InvocationSpan<'i> {
        InvocationSpan {
            region: region.as_str(),
            function: function.name(),
            id,
            log: None,
            observed: self.0.as_ref().map(|instruments| Begun {
                instruments,
                function,
                id,
                began: SystemTime::now(),
                parent: traceparent.and_then(traceparent::read),
                span: None,
            }),
        }
    }
}

/// One invocation, as it is observed and logged. Where nothing is observed, all methods but [`log`](Self::log) do nothing,
/// and `None` is all they give.
///
/// - A write is a span under the caller's, and gives its `traceparent` to every event that it accepts.
/// - A feed batch is a span of its own, linked to the write of every event in it.
/// - What becomes of an event in a batch is a span under the event's write, linked to the batch.
#[derive(Debug)]
pub struct InvocationSpan<'i> {
    region: &'i str,
    function: &'static str,
    id: &'i str,
    /// Made for the first line that is logged: most invocations log none, and making it is a tenth of their work.
    log: Option<tracing::Span>,
    observed: Option<Begun<'i>>,
}

#[derive(Debug)]
struct Begun<'i> {
    instruments: &'i Instruments,
    function: Function,
    id: &'i str,
    began: SystemTime,
    parent: Option<SpanContext>,
    /// Started when it is needed, because its parent may be known only after the invocation has been read.
    span: Option<BoxedSpan>,
}

impl InvocationSpan<'_> {
    /// A span that nobody sees.
    pub const fn unobserved() -> Self {
        Self {
            region: "",
            function: "",
            id: "",
            log: Some(tracing::Span::none()),
            observed: None,
        }
    }

    /// The parent of every line of the log that this invocation writes: it says which one it is.
    pub(crate) fn log(&mut self) -> &tracing::Span {
        let Self {
            region,
            function,
            id,
            log,
            observed,
        } = self;
        log.get_or_insert_with(|| {
            let trace_id = tracing::field::Empty;
            let span = tracing::info_span!("invocation", region, function, id, trace_id);
            if let Some(begun) = observed {
                // So that the lines can be found from the trace.
                let trace_id = begun.started().span_context().trace_id();
                span.record("trace_id", tracing::field::display(trace_id));
            }
            span
        })
    }

    /// Says what `traceparent` the caller of an HTTP function sent. It counts when the host gave none of its own.
    pub(crate) fn called_by(&mut self, traceparent: impl FnOnce() -> Option<String>) {
        if let Some(begun) = &mut self.observed
            && begun.parent.is_none()
        {
            begun.parent = traceparent().as_deref().and_then(traceparent::read);
        }
    }

    /// The `traceparent` for what comes of this invocation.
    pub(crate) fn traceparent(&mut self) -> Option<String> {
        traceparent::write(self.observed.as_mut()?.started().span_context())
    }

    /// `WriteEvent` has accepted events.
    pub(crate) fn accepted(&mut self, events: usize) {
        self.count(events, |instruments| &instruments.accepted);
        self.attribute("geo_events.events", events);
    }

    /// `WriteEvent` has refused a request.
    pub(crate) fn refused(&mut self, status: u16) {
        if let Some(begun) = &mut self.observed {
            let status = KeyValue::new("http.response.status_code", i64::from(status));
            let region = begun.instruments.region.clone();
            begun.instruments.refused.add(1, &[region, status.clone()]);
            begun.started().set_attribute(status);
        }
    }

    /// A batch of the change feed has come; `lag_ms` is the age of its newest event.
    pub(crate) fn delivered(&mut self, events: &[Event<'_>], lag_ms: i64) {
        let Some(begun) = &mut self.observed else {
            return;
        };
        let attributes = begun.attributes();
        begun
            .instruments
            .delivered
            .add(events.len() as u64, &attributes);
        let lag = lag_ms as f64 / 1000.0;
        begun.instruments.lag.record(lag, &attributes);
        let span = begun.started();
        for event in events {
            if let Some(write) = event.write_span() {
                span.add_link(write, Vec::new());
            }
        }
        self.attribute("geo_events.events", events.len());
    }

    /// Something has become of an event of the batch: a span named `<verb> event` in the trace of the event, as long as
    /// this invocation has taken. Gives the `traceparent` of it.
    pub(crate) fn event(&mut self, verb: &'static str, event: &Event<'_>) -> Option<String> {
        let begun = self.observed.as_mut()?;
        let write = event.write_span()?;
        let batch = begun.started().span_context().clone();
        let span = SpanBuilder::from_name(format!("{verb} event"))
            .with_kind(SpanKind::Consumer)
            .with_start_time(begun.began)
            .with_attributes([
                begun.instruments.region.clone(),
                KeyValue::new("faas.invoked_name", begun.function.name()),
                KeyValue::new("geo_events.event.id", event.id.to_string()),
                KeyValue::new("geo_events.event.region", event.region.to_string()),
            ])
            .with_links(vec![Link::with_context(batch)])
            .start_with_context(
                &begun.instruments.tracer,
                &Context::new().with_remote_span_context(write),
            );
        traceparent::write(span.span_context())
    }

    /// Events were handed to SignalR.
    pub(crate) fn pushed(&mut self, events: usize) {
        self.count(events, |instruments| &instruments.pushed);
    }

    /// Maxima were handed to their container, and documents that are no events to quarantine.
    pub(crate) fn materialized(&mut self, maxima: usize, quarantined: usize) {
        self.count(maxima, |instruments| &instruments.materialized);
        self.count(quarantined, |instruments| &instruments.quarantined);
    }

    /// The invocation has ended; `error` is why it failed.
    pub(crate) fn ended(mut self, error: Option<&str>) {
        let Some(begun) = &mut self.observed else {
            return;
        };
        let mut attributes = begun.attributes().to_vec();
        if error.is_some() {
            attributes.push(KeyValue::new("error.type", "invocation"));
        }
        let seconds = begun.began.elapsed().unwrap_or_default().as_secs_f64();
        begun.instruments.duration.record(seconds, &attributes);
        let span = begun.started();
        if let Some(error) = error {
            span.set_status(Status::error(error.to_owned()));
        }
        span.end();
    }

    fn count(&self, n: usize, counter: impl FnOnce(&Instruments) -> &Counter<u64>) {
        if let Some(begun) = &self.observed
            && n > 0
        {
            let region = begun.instruments.region.clone();
            counter(begun.instruments).add(n as u64, &[region]);
        }
    }

    fn attribute(&mut self, name: &'static str, value: usize) {
        if let Some(begun) = &mut self.observed {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            begun.started().set_attribute(KeyValue::new(name, value));
        }
    }
}

impl Begun<'_> {
    /// What tells the metrics of an invocation apart.
    fn attributes(&self) -> [KeyValue; 2] {
        [
            self.instruments.region.clone(),
            KeyValue::new("faas.invoked_name", self.function.name()),
        ]
    }

    fn started(&mut self) -> &mut BoxedSpan {
        let Self {
            instruments,
            function,
            id,
            began,
            parent,
            span,
        } = self;
        span.get_or_insert_with(|| {
            let parent = match parent.take() {
                Some(parent) => Context::new().with_remote_span_context(parent),
                None => Context::new(),
            };
            SpanBuilder::from_name(function.name())
                .with_kind(SpanKind::Server)
                .with_start_time(*began)
                .with_attributes([
                    instruments.region.clone(),
                    KeyValue::new("faas.invoked_name", function.name()),
                    KeyValue::new("faas.invocation_id", id.to_owned()),
                ])
                .start_with_context(&instruments.tracer, &parent)
        })
    }
}

impl Event<'_> {
    /// The span of the write that brought this event.
    fn write_span(&self) -> Option<SpanContext> {
        self.traceparent.as_deref().and_then(traceparent::read)
    }
}
