//! Spans for a collector: OTLP over HTTP, in protobuf (OpenTelemetry protocol 1.x, "OTLP/HTTP").
//!
//! A span that ends goes into a bounded queue and from there, in the background, to the collector. Work never waits for
//! it: what has no place is counted and lost. What leaves the process has gone through [`crate::redaction`].

mod clean;
mod collector;
mod post;
mod queue;
mod sending;
mod span;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

pub use collector::{Collector, CollectorError};
pub use queue::SpanCounters;
pub use span::{Cause, failed, put};

use post::Post;
use queue::Queue;
use sending::Sending;

/// Name of the instrumentation in every span.
const SCOPE: &str = "cairn";

/// What is sent, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Who takes the spans.
    pub collector: Collector,
    /// Share of traces that are recorded, 0 to 1. A caller who has decided already is followed.
    pub sampling_rate: f64,
    /// `service.name`.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
    /// `service.namespace`.
    pub service_namespace: String,
    /// `host.name`.
    pub host_name: String,
}

/// How the sending goes about it.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Spans that wait at most; one takes about a kilobyte.
    queue: usize,
    /// Spans in one request at most.
    batch: usize,
    /// How long the first span of a request waits for others.
    delay: Duration,
    /// How long the collector has to answer.
    answer: Duration,
    /// First and longest pause before a request is made again.
    pauses: (Duration, Duration),
    /// How long a request is made again before its spans are given up.
    give_up: Duration,
    /// Between two log lines about a collector that does not take spans.
    tell: Duration,
}

const PACE: Pace = Pace {
    queue: 4096,
    batch: 512,
    delay: Duration::from_secs(2),
    answer: Duration::from_secs(10),
    pauses: (Duration::from_secs(1), Duration::from_secs(30)),
    give_up: Duration::from_secs(60),
    tell: Duration::from_secs(60),
};

/// Spans of this process on their way to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    stop: oneshot::Sender<Duration>,
    sending: JoinHandle<()>,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// There is no HTTP client.
    #[error("cannot set up the HTTP client for traces")]
    Client {
        /// What it lacks.
        source: reqwest::Error,
    },
}

impl Traces {
    /// Begins; the collector is not asked for before there is a span. To be called in a runtime. Spans come from the
    /// subscriber that [`crate::logging::init`] makes of this.
    ///
    /// # Errors
    /// There is no HTTP client to be had.
    pub fn start(settings: &TraceSettings, counters: SpanCounters) -> Result<Self, TracesError> {
        Self::at(settings, counters, PACE)
    }

    fn at(settings: &TraceSettings, counters: SpanCounters, pace: Pace) -> Result<Self, TracesError> {
        let resource = resource(settings);
        let post = Post::new(&settings.collector, &resource, pace.answer)?;
        let (sender, spans) = mpsc::channel(pace.queue);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sampling_rate))))
            .with_span_processor(Queue::new(sender, counters.clone()))
            .build();
        let (stop, stopped) = oneshot::channel();
        let sending =
            tokio::spawn(crate::tasks::named("traces", Sending::new(spans, post, pace, counters).run(stopped)));
        Ok(Self { provider, stop, sending })
    }

    /// What turns spans of `tracing` into those of OpenTelemetry: at `info` and above, with the warnings that they contain.
    /// The level of the log does not matter.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'l> LookupSpan<'l> + Send + Sync,
    {
        let wanted = |level: &Level, is_span: bool| *level <= if is_span { Level::INFO } else { Level::WARN };
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SCOPE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_error_events_to_status(false)
            .with_filter(filter_fn(move |metadata| wanted(metadata.level(), metadata.is_span())))
    }

    /// Sends what is still there and stops, after `limit` at the latest.
    pub async fn stop(self, limit: Duration) {
        // Who has ended already has nothing left to send.
        let _ = self.stop.send(limit);
        if let Err(error) = self.sending.await {
            tracing::error!(error = &error as &dyn std::error::Error, "traces were not sent to their end");
        }
    }
}

/// Who sends, in OpenTelemetry's words (semantic conventions, "Service").
fn resource(settings: &TraceSettings) -> Resource {
    let named = [
        ("service.name", &settings.service_name),
        ("service.version", &settings.service_version),
        ("service.namespace", &settings.service_namespace),
        ("host.name", &settings.host_name),
    ];
    let attributes = named.map(|(name, value)| KeyValue::new(name, value.clone()));
    Resource::builder_empty().with_attributes(attributes).build()
}

#[cfg(test)]
mod tests;
