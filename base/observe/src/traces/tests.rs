//! Collectors that are away or do not answer: work does not notice.

use std::sync::Arc;

use cairn_core::SystemClock;
use tokio::net::TcpListener;

use super::*;
use crate::logging::{LogFormat, subscriber};
use crate::metrics::Registry;

/// As if nothing but the stop ever ended anything.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(60);

fn traces(collector: &str, pace: Pace) -> (Traces, SpanCounters) {
    // The second test finds the provider chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = TraceSettings {
        collector: collector.parse().unwrap(),
        sampling_rate: 1.0,
        service_name: "x".to_owned(),
        service_version: "x".to_owned(),
        service_namespace: "x".to_owned(),
        host_name: "x".to_owned(),
    };
    let counters = SpanCounters::register(&mut Registry::new());
    (Traces::at(&settings, counters.clone(), pace).unwrap(), counters)
}

fn spans(traces: &Traces, many: usize) {
    let subscriber = subscriber(LogFormat::Json, "off", std::io::sink, Arc::new(SystemClock), Some(traces)).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        (0..many).for_each(|_| drop(tracing::info_span!("one of many")));
    });
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pace = Pace { queue: 8, batch: 4, delay: Duration::ZERO, answer: NEVER, give_up: NEVER, ..PACE };
    let (traces, counters) = traces(&hung.local_addr().unwrap().to_string(), pace);
    spans(&traces, 3);
    // It takes the request, and no more.
    let connection = tokio::time::timeout(PATIENCE, hung.accept()).await.unwrap().unwrap();
    spans(&traces, 100);
    assert!(counters.dropped.get() >= 91, "what has no place is counted: {}", counters.dropped.get());
    let stopped = tokio::time::timeout(PATIENCE, traces.stop(Duration::from_millis(50))).await;
    assert!(stopped.is_ok(), "the stop waits for its limit, not for the collector");
    assert_eq!((counters.dropped.get(), counters.sent.get()), (103, 0));
    drop(connection);
}

#[tokio::test]
async fn one_that_is_away_is_given_up_in_the_end() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pauses = (Duration::from_millis(1), Duration::from_millis(1));
    let pace = Pace { delay: Duration::ZERO, pauses, give_up: Duration::ZERO, ..PACE };
    let (traces, counters) = traces(&away.to_string(), pace);
    spans(&traces, 1);
    let lost = async {
        while counters.dropped.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    traces.stop(NEVER).await;
    assert_eq!(counters.dropped.get(), 1);
}
