//! What is said about spans besides their fields. Where no traces are sent, all of it does nothing.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::Status;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Headers that say which trace a request is a part of (W3C Trace Context). Baggage is not taken: callers are not believed.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// What a span is there for: another one, of this process or of a caller. It does not keep that one open.
#[derive(Debug, Clone, Default)]
pub struct Cause(Context);

impl Cause {
    /// The span that is entered.
    pub fn here() -> Self {
        Self(Span::current().context())
    }

    /// What the headers of a request name; nothing where they name nothing or something malformed.
    pub fn of_request<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Self {
        let named = HEADERS.into_iter().filter_map(|name| Some((name.to_owned(), header(name)?.to_owned())));
        let headers: HashMap<String, String> = named.collect();
        Self(TraceContextPropagator::new().extract_with_context(&Context::new(), &headers))
    }

    /// Makes `span`, which nobody has entered yet, a part of it.
    pub fn lead(&self, span: &Span) {
        // Without a collector there is nothing to be a part of.
        let _ = span.set_parent(self.0.clone());
    }
}

/// Adds an attribute that is for the collector alone, and no field of log lines.
pub fn put(span: &Span, name: &'static str, value: impl Into<Value>) {
    span.set_attribute(name, value);
}

/// The span's work did not come off; `code` is stable and says why.
pub fn failed(span: &Span, code: &str) {
    span.set_attribute("error.type", code.to_owned());
    span.set_status(Status::error(code.to_owned()));
}
