//! The `traceparent` of W3C Trace Context: which trace something belongs to, in one line of text.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The name of the header, and of the member of an event.
const NAME: &str = "traceparent";

/// Reads one; `None` when the text is none.
pub(super) fn read(text: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(NAME.to_owned(), text.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context
        .has_active_span()
        .then(|| context.span().span_context().clone())
}

/// Writes one; `None` for a span that belongs to no trace.
pub(super) fn write(span: &SpanContext) -> Option<String> {
    let mut carrier = HashMap::new();
    let context = Context::new().with_remote_span_context(span.clone());
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(text).as_ref().and_then(write).as_deref(), Some(text));
    }

    #[test]
    fn what_is_none_is_no_error() {
        for text in [
            "",
            "x",
            "00-0-0-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(write(&SpanContext::NONE), None);
    }
}
