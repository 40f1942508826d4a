//! What is wrong is said, with its place.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::api_fixture::{ASSET_LIMIT, Bench, MOST_VMS, config};

/// A configuration with something in it.
fn with(key: &str, value: Value) -> Value {
    let mut config = config();
    config[key] = value;
    config
}

#[tokio::test]
async fn wrong_wishes_are_refused_with_their_place() {
    let bench = Bench::start().await;
    for (config, code, path) in [
        (with("cpu", json!({ "vcpu_count": 0 })), "vm_invalid", "/cpu/vcpu_count"),
        (with("cpu", json!({ "vcpu_count": 33 })), "vm_invalid", "/cpu/vcpu_count"),
        (with("cpu", json!({ "vcpu_count": 3_000_000_000_u64 })), "invalid_request", "/config/cpu/vcpu_count"),
        (with("memory", json!({ "size_bytes": 0 })), "vm_invalid", "/memory/size_bytes"),
        (with("memory", json!({ "size_bytes": "lots" })), "invalid_request", "/config/memory/size_bytes"),
        (with("boot", json!({ "kernel_path": "/etc/shadow" })), "invalid_request", "/config/boot/kernel_path"),
        (with("boot", json!({ "kernel_path": "../vmlinux" })), "invalid_request", "/config/boot/kernel_path"),
        (with("storage", json!([{ "path": "a/../../b" }])), "invalid_request", "/config/storage/0/path"),
        (with("storage", json!([{}])), "vm_invalid", "/storage/0/path"),
        (with("network", json!([{}, {}])), "vm_invalid", "/network"),
        (with("console", json!({ "output": "/etc/cron.d/x" })), "vm_invalid", "/console"),
        (with("volumes", json!([])), "invalid_request", "/config/volumes"),
    ] {
        let reply = bench.post("/v1/vms").token(&bench.customer).json(&json!({ "config": config })).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{config}: {}", reply.text);
        assert_eq!(reply.value()["details"][0]["path"], path, "{config}");
    }
    assert_eq!(bench.get("/v1/vms").token(&bench.customer).send().await.value()["total_count"], 0);
}

#[tokio::test]
async fn what_was_probably_meant_is_said() {
    let bench = Bench::start().await;
    for (body, hint) in [
        (json!({ "confg": config() }), "did you mean `config`?"),
        (json!({ "config": with("cpu", json!({ "vcpus_count": 1 })) }), "did you mean `vcpu_count`?"),
        (with("restart_polcy", json!("always")), "did you mean `restart_policy`?"),
        (json!({ "config": with("restart_policy", json!("allways")) }), "did you mean `always`?"),
    ] {
        let reply = bench.post("/v1/vms").token(&bench.customer).json(&body).await;
        assert_eq!((reply.status, reply.value()["hint"].as_str()), (400, Some(hint)), "{}", reply.text);
    }
    let reply = bench.get("/v1/vms?state-filter=RUNNING").token(&bench.customer).send().await;
    assert_eq!((reply.status, reply.value()["hint"].as_str()), (400, Some("did you mean `state_filter`?")));
}

#[tokio::test]
async fn bodies_that_are_none() {
    let bench = Bench::start().await;
    let post = || bench.post("/v1/vms").token(&bench.customer);
    for (reply, status, code) in [
        (post().json(&json!([])).await, 400, "invalid_request"),
        (post().json(&json!({})).await, 400, "invalid_request"),
        (post().header("content-type", "application/json").body("{").await, 400, "invalid_json"),
        (post().header("content-type", "application/json").body("").await, 400, "invalid_json"),
        (post().header("content-type", "text/plain").body(config().to_string()).await, 415, "unsupported_media_type"),
        (post().json(&with("metadata", json!({ "a": "x".repeat(300 << 10) }))).await, 413, "body_too_large"),
    ] {
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text);
    }
    // The shell's way: no body at all, or an empty object.
    bench.vm("ud-1").await;
    let boot = bench.post("/v1/vms/ud-1/boot").token(&bench.customer);
    boot.header("content-type", "application/x-www-form-urlencoded").send().await.is(StatusCode::OK);
}

#[tokio::test]
async fn ids_limits_and_what_is_missing() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let make = async |body: Value| {
        let reply = bench.post("/v1/vms").token(&bench.customer).json(&body).await;
        (reply.status, if reply.status < 400 { String::new() } else { reply.code() })
    };
    assert_eq!(make(json!({ "config": config(), "vm_id": "ud-1" })).await, (409, "vm_exists".to_owned()));
    assert_eq!(make(json!({ "config": config(), "vm_id": "../x" })).await, (400, "invalid_request".to_owned()));
    let missing = with("boot", json!({ "kernel_path": "vmlinux" }));
    assert_eq!(make(json!({ "config": missing })).await.1, "asset_missing");
    for path in ["/v1/vms/nothing", "/v1/vms/a%2Fb", "/v1/vms/..%2f..%2fetc"] {
        let reply = bench.get(path).token(&bench.customer).send().await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "vm_not_found"), "{path}");
    }
    for _ in 1..MOST_VMS {
        assert_eq!(make(json!({ "config": config() })).await.0, 201);
    }
    assert_eq!(make(json!({ "config": config() })).await, (429, "vm_limit".to_owned()));
}

#[tokio::test]
async fn assets_are_added_up_to_a_limit_and_never_by_a_path() {
    let bench = Bench::start().await;
    let put = async |path: &str, size: u64| {
        let body = vec![b'x'; usize::try_from(size).unwrap()];
        let reply = bench.ask("PUT", path).token(&bench.operator).body(body).await;
        (reply.status, if reply.status < 400 { reply.value()["size"].to_string() } else { reply.code() })
    };
    assert_eq!(put("/v1/assets/vmlinux?kind=kernel", ASSET_LIMIT).await, (201, ASSET_LIMIT.to_string()));
    assert_eq!(put("/v1/assets/big?kind=disk", ASSET_LIMIT + 1).await, (413, "body_too_large".to_owned()));
    assert_eq!(put("/v1/assets/x", 1).await, (400, "invalid_request".to_owned()));
    assert_eq!(put("/v1/assets/x?kind=floppy", 1).await, (400, "invalid_request".to_owned()));
    for name in ["..%2Fx", "%2Fetc%2Fshadow", ".hidden", "-x"] {
        let path = format!("/v1/assets/{name}?kind=kernel");
        assert_eq!(put(&path, 1).await, (400, "invalid_request".to_owned()), "{name}");
    }
    // A body whose length nobody announced.
    let pieces = futures::stream::iter((0..30).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 10_000])));
    let ask = bench.ask("PUT", "/v1/assets/stream?kind=disk").token(&bench.operator);
    let reply = ask.body(axum::body::Body::from_stream(pieces)).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    assert_eq!(put("/v1/assets/gc?kind=disk", 1).await.0, 201);
    let listed = bench.get("/v1/assets").token(&bench.operator).send().await.value();
    let names: Vec<_> = listed["assets"].as_array().unwrap().iter().map(|asset| asset["name"].clone()).collect();
    assert_eq!(names, ["disk", "gc", "kernel", "vmlinux"]);
    let gc = async |query: &str| {
        let path = format!("/v1/assets/gc{query}");
        bench.post(&path).token(&bench.operator).send().await.value()
    };
    let remove = async || bench.ask("DELETE", "/v1/assets/vmlinux").token(&bench.operator).send().await;
    remove().await.is(StatusCode::NO_CONTENT);
    let removed = gc("?dry_run=true").await;
    assert_eq!(
        (removed["removed"].as_array().unwrap().len(), &removed["removed"][0]["size"]),
        (1, &ASSET_LIMIT.into())
    );
    assert_eq!(gc("").await["removed"].as_array().unwrap().len(), 1);
    assert_eq!(gc("").await["removed"].as_array().unwrap().len(), 0);
    let gone = remove().await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "asset_missing"));
    bench.post("/v1/assets/vmlinux").token(&bench.operator).send().await.is(StatusCode::METHOD_NOT_ALLOWED);
}
