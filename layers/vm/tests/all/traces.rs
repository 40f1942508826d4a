//! What a collector of traces sees of a request and of the operation that it asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cairn_core::SystemClock;
use observe::logging::{LogFormat, subscriber};
use observe::metrics::Registry;
use observe::traces::{SpanCounters, TraceSettings, Traces};
use serde_json::json;
use tokio::sync::watch;
use web::{FrameOptions, HttpMetrics};

use crate::api_fixture::{Bench, config};
use crate::collector::{Collector, Seen};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn begin(collector: &Collector) -> Traces {
    // Another test may have chosen the provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = TraceSettings {
        collector: collector.address().parse().unwrap(),
        sampling_rate: 0.0,
        service_name: "metald".to_owned(),
        service_version: "0.1.0".to_owned(),
        service_namespace: "unkey".to_owned(),
        host_name: "here".to_owned(),
    };
    Traces::start(&settings, SpanCounters::register(&mut Registry::new())).unwrap()
}

fn by_name<'s>(seen: &'s [Seen], name: &str) -> &'s Seen {
    seen.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {seen:#?}"))
}

/// The caller's own trace is followed, though no other one is recorded.
#[tokio::test]
async fn a_request_and_its_operation_are_one_trace() {
    let collector = Collector::start(watch::channel(StatusCode::OK).1).await;
    let traces = begin(&collector);
    let clock = Arc::new(SystemClock);
    let lines = subscriber(LogFormat::Json, "off", std::io::sink, clock, Some(&traces)).unwrap();
    // Tokio's tests have one thread, and so has everything here.
    let _guard = tracing::subscriber::set_default(lines);
    let mut bench = Bench::start().await;
    let mut families = Registry::new();
    let options =
        FrameOptions { metrics: HttpMetrics::register(&mut families), tls: false, proxies: "".parse().unwrap() };
    bench.router = web::frame(bench.router.clone(), options);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let body = json!({"vm_id": "a", "config": config()});
    let ask = bench.post("/v1/vms").token(&bench.customer).header("traceparent", &parent).json(&body);
    assert_eq!(ask.await.status, 201);
    let ask = bench.post("/v1/vms/a/boot").token(&bench.customer).header("traceparent", &parent);
    assert_eq!(ask.send().await.status, 200);
    bench.host.refuse("pause", 1);
    let ask = bench.post("/v1/vms/a/pause").token(&bench.customer).header("traceparent", &parent);
    assert_eq!(ask.send().await.status, 500);
    assert_eq!(bench.get("/v1/vms/a").token(&bench.customer).send().await.status, 200, "nobody's trace");
    traces.stop(Duration::from_secs(60)).await;

    let seen = collector.wait(|spans| spans.iter().any(|span| span.name == "vm pause")).await;
    assert!(seen.iter().all(|span| span.trace == TRACE), "{seen:#?}");
    let request = by_name(&seen, "POST /v1/vms");
    assert_eq!((&*request.parent, request.kind, request.status), (CALLER, 2, 0));
    assert_eq!(request.attributes["http.route"], "/v1/vms");
    assert_eq!(
        (&*request.attributes["http.request.method"], &*request.attributes["http.response.status_code"]),
        ("POST", "201")
    );
    assert_eq!(by_name(&seen, "vm create").parent, request.id);
    assert_eq!(by_name(&seen, "step disks").parent, by_name(&seen, "vm create").id);

    let boot = by_name(&seen, "vm boot");
    assert_eq!(boot.parent, by_name(&seen, "POST /v1/vms/{id}/boot").id);
    assert_eq!((&*boot.attributes["vm_id"], &*boot.attributes["vm.state"]), ("a", "RUNNING"));
    for step in ["step jail", "step launch", "step start"] {
        assert_eq!(by_name(&seen, step).parent, boot.id, "{step}");
    }
    let (pause, step) = (by_name(&seen, "vm pause"), by_name(&seen, "step pause"));
    assert_eq!((pause.status, step.status, &step.parent), (2, 2, &pause.id));
    assert_eq!(by_name(&seen, "POST /v1/vms/{id}/pause").status, 2);
    assert_eq!(boot.resource["service.namespace"], "unkey");
    assert!(seen.iter().all(|span| !span.name.contains('a') || !span.name.ends_with("/a")), "no ids in names");
    assert!(!collector.has_seen(&bench.customer), "no token in a span");
}
