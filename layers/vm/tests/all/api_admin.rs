//! Health, maintenance, and what an operator looks at.

use axum::http::StatusCode;
use serde_json::json;
use vm::api::table::{self, Door};

use super::api_fixture::{Bench, config};

#[tokio::test]
async fn health_tells_a_bad_backend_from_a_dead_api() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await;
    let health = bench.get("/health").from("192.0.2.1").send().await;
    health.is(StatusCode::OK);
    assert_eq!(health.headers["cache-control"], "no-cache, no-store, must-revalidate");
    let mut value = health.value();
    assert!(value["system"]["memory"]["total_bytes"].as_u64() > Some(0));
    assert!(value["checks"]["backend_ping"]["duration_ms"].is_u64());
    value["system"] = "[this machine]".into();
    value["checks"]["backend_ping"]["duration_ms"] = "[ms]".into();
    insta::assert_json_snapshot!("health", value);

    let bench = Bench::with(false, false).await;
    let health = bench.get("/health").send().await;
    let value = health.is(StatusCode::OK).value();
    assert_eq!((&value["status"], &value["backend"]["status"]), (&json!("unhealthy"), &json!("unhealthy")));
    assert_eq!(value["backend"]["error"], "firecracker is not there");
}

#[tokio::test]
async fn maintenance_refuses_every_change_and_no_look() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let on = bench.post("/admin/maintenance/enable").send().await;
    assert_eq!(on.is(StatusCode::OK).value(), json!({ "maintenance": true }));
    for route in table::all().filter(|route| matches!(route.door, Door::Customer | Door::Operator)) {
        let query = if route.path.ends_with("/wait") { "?state=CREATED" } else { "" };
        let path = route.path.replace("{id}", "ud-1").replace("{name}", "gc") + query;
        let body = if route.path.contains("VmService") { json!({ "vmId": "ud-1" }) } else { json!({}) };
        let reply = bench.ask(route.method, &path).token(&bench.operator).json(&body).await;
        assert_eq!(reply.status == 503, route.waits_for_maintenance, "{route:?}: {}", reply.text);
        if reply.status == 503 {
            assert!(reply.headers.contains_key("retry-after"), "{route:?}");
            let code = if route.path.contains("VmService") { "unavailable" } else { "maintenance" };
            assert_eq!(reply.code(), code);
        }
    }
    assert_eq!(bench.get("/health").send().await.value()["maintenance"], true);
    let refused = bench.audit().into_iter().find(|entry| entry.action == "vm.boot").unwrap();
    assert_eq!(refused.outcome, "maintenance");
    bench.post("/admin/maintenance/disable").send().await.is(StatusCode::OK);
    let made = bench.post("/v1/vms").token(&bench.customer).json(&config()).await;
    made.is(StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_for_this_machine_is_not_for_pages_and_proxies() {
    let bench = Bench::start().await;
    for (path, method) in [("/admin/maintenance/enable", "POST"), ("/debug/pprof/heap", "GET")] {
        for (name, value) in
            [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("x-real-ip", "127.0.0.1")]
        {
            let reply = bench.ask(method, path).header(name, value).send().await;
            assert_eq!((reply.status, reply.code().as_str()), (403, "loopback_only"), "{path} {name}");
        }
    }
    assert!(!bench.api.service.maintenance());
}

#[tokio::test]
async fn tasks_and_memory_are_told_as_text() {
    let bench = Bench::start().await;
    let tasks = bench.get("/debug/pprof/goroutine").send().await;
    assert!(tasks.is(StatusCode::OK).text.starts_with("tasks: ") && tasks.text.contains("\nthreads: "));
    let memory = bench.get("/debug/pprof/heap").send().await;
    assert!(memory.is(StatusCode::OK).text.contains("VmRSS:"));
}

#[tokio::test]
async fn operators_look_at_the_host() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let look = async |path: &str| bench.get(path).token(&bench.operator).send().await.is(StatusCode::OK).value();
    assert_eq!(look("/v1/strays").await, json!({ "strays": [] }));
    let lost = bench.directory.path().join("vms/ud-lost");
    std::fs::create_dir_all(lost.join("disks")).unwrap();
    assert_eq!(look("/v1/strays").await["strays"][0]["name"], "ud-lost");
    let counted = bench.metrics.render(None).1;
    assert!(counted.contains("unkey_metald_strays{kind=\"disks\"} 1"), "{counted}");
    assert!(look("/v1/doctor").await["findings"].as_array().unwrap().iter().all(|found| found["verdict"].is_string()));
    assert_eq!(look("/v1/network").await, json!({}));
    assert_eq!(look("/v1/vms/ud-1/network").await, json!({}));
    let missing = bench.get("/v1/vms/ud-9/network").token(&bench.operator).send().await;
    missing.is(StatusCode::NOT_FOUND);
    let removed = bench.ask("DELETE", "/v1/strays").token(&bench.operator).send().await;
    assert_eq!(removed.is(StatusCode::OK).value()["removed"][0]["name"], "ud-lost");
    assert!(!lost.exists());
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let bench = Bench::start().await;
    bench.get("/v1/vms/ud-7").token(&bench.customer).send().await;
    bench.get("/v1/vms/ud-8").token(&bench.customer).send().await;
    bench.get("/v1/vms").send().await;
    let text = bench.metrics.render(None).1;
    let name = "unkey_metald_api_request_duration_seconds_count";
    for line in [
        format!("{name}{{route=\"/v1/vms/{{id}}\",method=\"GET\",code=\"404\"}} 2"),
        format!("{name}{{route=\"/v1/vms\",method=\"GET\",code=\"401\"}} 1"),
        format!("{name}{{route=\"/v1/vms/{{id}}/boot\",method=\"POST\",code=\"200\"}} 0"),
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("ud-7"));
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let bench = Bench::start().await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (api, token) = (std::sync::Arc::clone(&bench.api), shutdown.clone());
    let gauges = tokio::spawn(async move { api.keep_gauges(&token).await });
    bench.vm("ud-1").await;
    bench.host.refuse("start", 1);
    let failed = bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await;
    assert_eq!((failed.status, failed.code().as_str()), (500, "hypervisor"));
    bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await.is(StatusCode::OK);
    let wanted = [
        "unkey_metald_vm_create_success_total{backend=\"none\"} 1",
        "unkey_metald_vm_boot_requests_total 2",
        "unkey_metald_vm_boot_success_total{backend=\"qemu\"} 1",
        "unkey_metald_vm_boot_failures_total{backend=\"qemu\",error_type=\"hypervisor\"} 1",
        "unkey_metald_vm_boot_duration_seconds_count{backend=\"qemu\"} 1",
        "unkey_metald_backend_errors_total{backend=\"qemu\",error_type=\"hypervisor\"} 1",
        "unkey_metald_jailer_start_success_total{backend=\"qemu\"} 2",
        "unkey_metald_process_create_requests_total{backend=\"qemu\"} 2",
        "unkey_metald_active_vms 1",
        "unkey_metald_vms{state=\"RUNNING\"} 1",
        "unkey_metald_vm_limit 20",
        "metald_bridge_vm_count 1.0",
    ];
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let text = bench.metrics.render(None).1;
        let missing: Vec<_> = wanted.iter().filter(|line| !text.lines().any(|seen| seen == **line)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{missing:?} are missing in\n{text}");
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    gauges.await.unwrap();
}

#[tokio::test]
async fn a_caller_who_leaves_ends_nothing_and_is_taken_down() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    bench.host.stop_at(Some(vm::adapters::fake::Stop::Before(2)));
    let (router, token) = (bench.router.clone(), bench.customer.clone());
    let request = tokio::spawn(async move {
        let request = axum::http::Request::post("/v1/vms/ud-1/boot").header("authorization", format!("Bearer {token}"));
        tower::ServiceExt::oneshot(router, request.body(axum::body::Body::empty()).unwrap()).await
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::task::yield_now().await;
        }
    };
    until("the boot does not begin", &|| bench.host.changes() > 2).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    until("nobody took it down", &|| bench.audit().iter().any(|entry| entry.action == "vm.boot")).await;
    let entry = bench.audit().into_iter().find(|entry| entry.action == "vm.boot").unwrap();
    assert_eq!((entry.outcome.as_str(), entry.vm_id), (vm::audit::CALLER_LEFT, "ud-1".parse().ok()));
    let state = bench.get("/v1/vms/ud-1").token(&bench.customer).send().await.value()["state"].clone();
    assert_eq!(state, "VM_STATE_STARTING");
}
