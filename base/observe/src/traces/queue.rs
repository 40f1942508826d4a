//! Where spans wait. Putting one there never waits itself.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::metrics::{Counter, Counters, Registry};

/// `trace_spans_total`: what became of spans that were recorded.
#[derive(Debug, Clone)]
pub struct SpanCounters {
    pub(super) sent: Counter,
    pub(super) dropped: Counter,
}

impl SpanCounters {
    /// Registers the family.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Spans that the collector took, and that were lost on the way to it";
        let spans: Counters<1> = registry.counters("trace_spans_total", help, ["result"], &[["dropped"], ["sent"]]);
        Self { sent: spans.with(["sent"]), dropped: spans.with(["dropped"]) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counters: SpanCounters,
}

impl Queue {
    pub(super) fn new(spans: mpsc::Sender<SpanData>, counters: SpanCounters) -> Self {
        Self { spans, counters }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    /// Called in the middle of whatever ends the span: no log line either, for it would be one about this span.
    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.counters.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The end is [`super::Traces::stop`]'s affair: the subscriber holds this for ever.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
