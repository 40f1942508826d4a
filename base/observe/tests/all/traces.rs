use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cairn_core::SystemClock;
use observe::logging::{LogFormat, subscriber};
use observe::metrics::Registry;
use observe::traces::{Cause, SpanCounters, TraceSettings, Traces, failed, put};
use tokio::sync::watch;
use tracing::subscriber::DefaultGuard;

use crate::collector::Collector;

fn settings(collector: &str, sampling_rate: f64) -> TraceSettings {
    TraceSettings {
        collector: collector.parse().unwrap(),
        sampling_rate,
        service_name: "metald".to_owned(),
        service_version: "0.1.0".to_owned(),
        service_namespace: "unkey".to_owned(),
        host_name: "here".to_owned(),
    }
}

/// Traces of this thread, which a test of tokio has alone; the log is at its quietest.
fn started(collector: &str, sampling_rate: f64) -> (Traces, Registry, DefaultGuard) {
    // The second test finds the provider chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut registry = Registry::new();
    let counters = SpanCounters::register(&mut registry);
    let traces = Traces::start(&settings(collector, sampling_rate), counters).unwrap();
    let clock = Arc::new(SystemClock);
    let subscriber = subscriber(LogFormat::Json, "error", std::io::sink, clock, Some(&traces)).unwrap();
    (traces, registry, tracing::subscriber::set_default(subscriber))
}

fn counted(registry: &Registry, result: &str) -> u64 {
    let (_, text) = registry.render(None);
    let name = format!("trace_spans_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
}

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn spans_arrive_with_their_parents_and_who_sent_them() {
    let collector = Collector::start(watch::channel(StatusCode::OK).1).await;
    let (traces, registry, _guard) = started(&collector.address(), 1.0);
    {
        let outer = tracing::info_span!("outer", otel.name = "vm boot", otel.kind = "server", vm_id = "a");
        put(&outer, "http.response.status_code", 503_i64);
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner");
        failed(&inner, "vm_keeper");
        drop(tracing::debug_span!("of no interest"));
    }
    traces.stop(LIMIT).await;
    let seen = collector.wait(|spans| spans.len() >= 2).await;
    let [inner, outer] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((outer.name.as_str(), outer.kind, outer.parent.as_str(), outer.status), ("vm boot", 2, "", 0));
    assert_eq!((&inner.trace, &inner.parent, inner.status), (&outer.trace, &outer.id, 2));
    assert_eq!(inner.attributes["error.type"], "vm_keeper");
    assert_eq!((&*outer.attributes["vm_id"], &*outer.attributes["http.response.status_code"]), ("a", "503"));
    for (name, value) in [("name", "metald"), ("version", "0.1.0"), ("namespace", "unkey")] {
        assert_eq!(outer.resource[&format!("service.{name}")], value);
    }
    assert_eq!((counted(&registry, "sent"), counted(&registry, "dropped")), (2, 0));
}

#[tokio::test]
async fn no_secret_is_in_a_span() {
    let collector = Collector::start(watch::channel(StatusCode::OK).1).await;
    let (traces, _registry, _guard) = started(&collector.address(), 1.0);
    {
        let span = tracing::info_span!("call", otel.name = "GET http://me:hunter2@bmc/", password = "hunter2");
        put(&span, "url", "http://me:hunter2@bmc/?sig=hunter2".to_owned());
        failed(&span, "Bearer hunter2hunter2 was refused");
        let _span = span.enter();
        tracing::warn!(token = "hunter2", reason = "Authorization: hunter2", "password=hunter2 is wrong");
    }
    traces.stop(LIMIT).await;
    let seen = collector.wait(|spans| !spans.is_empty()).await;
    assert_eq!(seen[0].name, "GET http://[redacted]@bmc/");
    assert!(collector.has_seen("[redacted] is wrong"), "what is not secret arrives");
    assert!(!collector.has_seen("hunter2"));
}

#[tokio::test]
async fn a_caller_decides_and_otherwise_the_rate_does() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start(watch::channel(StatusCode::OK).1).await;
    let (traces, _registry, _guard) = started(&collector.address(), 0.0);
    let sampled = format!("00-{TRACE}-b7ad6b7169203331-01");
    let unsampled = format!("00-{TRACE}-b7ad6b7169203331-00");
    for (name, header) in [("led", sampled.as_str()), ("not", &unsampled), ("wrong", "00-x-y-01"), ("by the rate", "")]
    {
        let span = tracing::info_span!("request", otel.name = name);
        Cause::of_request(|wanted| (wanted == "traceparent").then_some(header)).lead(&span);
        let cause = span.in_scope(Cause::here);
        drop(span);
        // What goes on after its cause is over is still a part of it.
        let after = tracing::info_span!(parent: None, "after", otel.name = format!("after {name}"));
        cause.lead(&after);
    }
    traces.stop(LIMIT).await;
    let seen = collector.wait(|spans| spans.len() >= 2).await;
    let [led, after] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&*led.name, &*led.trace, &*led.parent), ("led", TRACE, "b7ad6b7169203331"));
    assert_eq!((&*after.name, &*after.trace, &after.parent), ("after led", TRACE, &led.id));
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_waited_and_one_that_refuses_does_not() {
    let (answers, answered) = watch::channel(StatusCode::SERVICE_UNAVAILABLE);
    let collector = Collector::start(answered).await;
    let (traces, registry, _guard) = started(&collector.address(), 1.0);
    drop(tracing::info_span!("waits"));
    while !collector.has_seen("waits") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answers.send_replace(StatusCode::OK);
    collector.wait(|spans| !spans.is_empty()).await;
    answers.send_replace(StatusCode::BAD_REQUEST);
    drop(tracing::info_span!("refused"));
    traces.stop(LIMIT).await;
    assert_eq!((counted(&registry, "sent"), counted(&registry, "dropped")), (1, 1));
}
