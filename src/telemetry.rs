//! Traces and metrics, sent as OTLP (HTTP, protobuf) to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names. Without
//! it nothing is measured and nothing is sent.
//!
//! One event is one trace: the document of an event carries the `traceparent` of the write, and every function that the
//! change feed delivers it to, in whichever region, adds a span to that trace. See [`InvocationSpan`].
//!
//! All variables are those of the OpenTelemetry specification ("OpenTelemetry Protocol Exporter", "Environment Variable
//! Specification"); the SDK reads most of them by itself:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | URL of the collector, such as `http://127.0.0.1:4318` | off |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `…_METRICS_ENDPOINT` | the full URL of one of the two | |
//! | `OTEL_EXPORTER_OTLP_HEADERS` | headers for the collector, such as its key | none |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who sends | `geo-events`, `geo-events-up` |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which traces are kept | all, or as the caller decided |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds between two exports of metrics | 60000 |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` | spans that wait at most (more are dropped), and how long, in ms | 2048, 5000 |
//! | `OTEL_SDK_DISABLED` | `true`: off all the same | |

mod instrumentation;
mod traceparent;

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter};
use opentelemetry_sdk::{
    Resource, error::OTelSdkError, metrics::SdkMeterProvider, propagation::TraceContextPropagator,
    trace::SdkTracerProvider,
};
use thiserror::Error;

pub use self::instrumentation::{Instrumentation, InvocationSpan};

/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// Why telemetry cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// Another protocol is asked for.
    #[error(
        "the setting {name} cannot be `{value}`: telemetry is sent as {PROTOCOL}; point the endpoint to the \
         collector's HTTP port, which is usually 4318"
    )]
    Protocol {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// An exporter cannot be built, mostly for an endpoint that is no URL.
    #[error("telemetry cannot be sent as the settings OTEL_EXPORTER_OTLP_… say: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// What is sent, by whom; ends with [`Telemetry::stop`].
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Starts sending, if the environment names a collector. `service` is the `service.name` unless the environment has
    /// another; `attributes` describe this process beyond it.
    ///
    /// A collector that cannot be reached is no error: it is logged when something could not be sent.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub fn start(
        service: &'static str,
        attributes: impl IntoIterator<Item = KeyValue>,
    ) -> Result<Option<Self>, TelemetryError> {
        let traces = is_wanted("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let metrics = is_wanted("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
        if !traces && !metrics {
            return Ok(None);
        }
        for name in [
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        ] {
            match variable(name) {
                Some(value) if value != PROTOCOL => {
                    return Err(TelemetryError::Protocol { name, value });
                }
                _ => {}
            }
        }
        let resource = resource(service, attributes);
        let telemetry = Self {
            traces: traces
                .then(|| tracer_provider(resource.clone()))
                .transpose()?,
            metrics: metrics.then(|| meter_provider(resource)).transpose()?,
        };
        global::set_text_map_propagator(TraceContextPropagator::new());
        if let Some(traces) = &telemetry.traces {
            global::set_tracer_provider(traces.clone());
        }
        if let Some(metrics) = &telemetry.metrics {
            global::set_meter_provider(metrics.clone());
        }
        Ok(Some(telemetry))
    }

    /// Sends what has not been sent, for at most five seconds each, and ends. It blocks, and must not be called on a
    /// thread of an async runtime.
    pub fn stop(self) {
        let outcomes = [
            ("traces", self.traces.map(|traces| traces.shutdown())),
            ("metrics", self.metrics.map(|metrics| metrics.shutdown())),
        ];
        for (signal, outcome) in outcomes {
            match outcome {
                None | Some(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
                Some(Err(error)) => tracing::warn!(%error, signal, "the last telemetry was lost"),
            }
        }
    }
}

fn tracer_provider(resource: Resource) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

fn meter_provider(resource: Resource) -> Result<SdkMeterProvider, ExporterBuildError> {
    let exporter = MetricExporter::builder().with_http().build()?;
    Ok(SdkMeterProvider::builder()
        .with_periodic_exporter(exporter)
        .with_resource(resource)
        .build())
}

fn resource(service: &'static str, attributes: impl IntoIterator<Item = KeyValue>) -> Resource {
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(
            "service.instance.id",
            uuid::Uuid::new_v4().to_string(),
        ))
        .with_attributes(attributes);
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| list.contains("service.name="));
    if !is_named {
        resource = resource.with_service_name(service);
    }
    resource.build()
}

/// Whether the environment names a collector for a signal, in the signal's own variable or in the one for all.
fn is_wanted(signal_endpoint: &'static str) -> bool {
    let is_disabled =
        variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let is_named =
        |name| variable(name).is_some_and(|endpoint: String| !endpoint.trim().is_empty());
    !is_disabled && (is_named("OTEL_EXPORTER_OTLP_ENDPOINT") || is_named(signal_endpoint))
}

/// A variable of the environment; an empty one is absent.
fn variable(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
