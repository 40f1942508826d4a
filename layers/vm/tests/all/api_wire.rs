//! What goes over the wire, as the guide and the original have it.

use std::process::Stdio;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::api_fixture::{Bench, config};

#[tokio::test]
async fn a_vm_is_made_shown_and_listed() {
    let bench = Bench::start().await;
    let body = json!({ "config": config(), "vm_id": "ud-1" });
    let made = bench.post("/v1/vms").token(&bench.customer).json(&body).await;
    made.is(StatusCode::CREATED);
    assert_eq!(made.headers["location"], "/v1/vms/ud-1");
    insta::assert_json_snapshot!("created", made.value());
    let listed = bench.get("/v1/vms").token(&bench.customer).send().await;
    assert!(!listed.text.contains('\\'), "{}", listed.text);
    insta::assert_json_snapshot!("listed", listed.value());
    // Whose it is stands in what an operator saves, so that it can be made again for the same customer.
    let listed = bench.get("/v1/vms").token(&bench.operator).send().await.value();
    assert_eq!(listed["vms"][0]["config"]["customer_id"], "acme");
    let shown = bench.get("/v1/vms/ud-1").token(&bench.customer).send().await.value();
    assert_eq!(shown["config"], config());
}

#[tokio::test]
async fn a_failed_vm_says_why_and_a_list_of_it_survives_a_shell() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let id: vm::model::VmId = "ud-1".parse().unwrap();
    bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await.is(StatusCode::OK);
    let console = bench.api.service.console_path(&id);
    std::fs::write(&console, "it said \"no\"\nKernel panic - not syncing: no init\n").unwrap();
    bench.host.end(&id, vm::ports::Exit::Code(3));
    let failed = bench.get("/v1/vms/ud-1/wait?state=FAILED").token(&bench.customer).send().await;
    let failure = &failed.is(StatusCode::OK).value()["failure"];
    assert_eq!((&failure["code"], &failure["exit_code"]), (&json!("vm_panicked"), &json!(3)));
    assert!(failure["console_tail"].as_str().unwrap().contains("said \"no\"\n"), "{failure}");
    let listed = bench.get("/v1/vms").token(&bench.customer).send().await;
    assert!(!listed.text.contains('\\'), "{}", listed.text);
    assert_eq!(listed.value()["vms"][0]["failure"]["console_tail"], Value::Null);
}

#[tokio::test]
async fn pages_and_filters() {
    let bench = Bench::start().await;
    for id in ["ud-1", "ud-2", "ud-3"] {
        bench.vm(id).await;
    }
    bench.post("/v1/vms/ud-2/boot").token(&bench.customer).send().await.is(StatusCode::OK);
    let ids = async |query: &str| -> (Vec<String>, String, u64) {
        let path = format!("/v1/vms{query}");
        let list = bench.get(&path).token(&bench.customer).send().await;
        list.is(StatusCode::OK);
        let list = list.value();
        let ids = list["vms"].as_array().unwrap().iter().map(|vm| vm["vm_id"].as_str().unwrap().to_owned());
        let token = list["next_page_token"].as_str().unwrap().to_owned();
        (ids.collect(), token, list["total_count"].as_u64().unwrap())
    };
    let texts = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(ids("").await, (texts(&["ud-1", "ud-2", "ud-3"]), String::new(), 3));
    assert_eq!(ids("?page_size=2").await, (texts(&["ud-1", "ud-2"]), "ud-2".to_owned(), 3));
    assert_eq!(ids("?page_size=2&page_token=ud-2").await, (texts(&["ud-3"]), String::new(), 3));
    assert_eq!(ids("?page_size=3").await, (texts(&["ud-1", "ud-2", "ud-3"]), String::new(), 3));
    assert_eq!(ids("?state_filter=VM_STATE_RUNNING").await, (texts(&["ud-2"]), String::new(), 1));
    assert_eq!(ids("?state_filter=running&state_filter=created").await.0.len(), 3);
}

#[tokio::test]
async fn the_way_of_a_vm() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let doing = async |what: &str, body: Option<Value>| {
        let path = format!("/v1/vms/ud-1/{what}");
        let ask = bench.post(&path).token(&bench.customer);
        let reply = match body {
            Some(body) => ask.json(&body).await,
            None => ask.send().await,
        };
        let value = reply.value();
        value["state"].as_str().map_or_else(|| format!("{} {}", reply.status, reply.code()), str::to_owned)
    };
    assert_eq!(doing("pause", None).await, "409 vm_wrong_state");
    assert_eq!(doing("boot", None).await, "VM_STATE_RUNNING");
    assert_eq!(doing("boot", None).await, "409 vm_wrong_state");
    assert_eq!(doing("pause", Some(json!({}))).await, "VM_STATE_PAUSED");
    assert_eq!(doing("resume", None).await, "VM_STATE_RUNNING");
    assert_eq!(doing("reboot", Some(json!({ "timeout_seconds": 5 }))).await, "VM_STATE_RUNNING");
    assert_eq!(doing("shutdown", Some(json!({ "force": true, "timeoutSeconds": 5 }))).await, "VM_STATE_SHUTDOWN");
    assert_eq!(doing("shutdown", Some(json!({ "forced": true }))).await, "400 invalid_request");
    assert_eq!(
        bench.get("/v1/vms/ud-1").token(&bench.customer).send().await.value()["reason"],
        "stop is done; ended by force"
    );
    let gone = bench.ask("DELETE", "/v1/vms/ud-1?force=true").token(&bench.customer).send().await;
    gone.is(StatusCode::NO_CONTENT);
    bench.get("/v1/vms/ud-1").token(&bench.customer).send().await.is(StatusCode::NOT_FOUND);
    let audited: Vec<_> =
        bench.audit().into_iter().map(|entry| format!("{} {}", entry.action, entry.outcome)).collect();
    assert_eq!(
        audited,
        [
            "vm.create done",
            "vm.pause vm_wrong_state",
            "vm.boot done",
            "vm.boot vm_wrong_state",
            "vm.pause done",
            "vm.resume done",
            "vm.reboot done",
            "vm.shutdown done",
            "vm.shutdown invalid_request",
            "vm.delete done",
        ]
    );
    assert!(bench.audit().iter().all(|entry| entry.vm_id.as_ref().is_some_and(|id| id.as_str() == "ud-1")));
    assert!(bench.audit().iter().all(|entry| entry.client == Some([127, 0, 0, 1].into())));
}

#[tokio::test]
async fn a_wait_ends_with_the_state_or_with_the_time() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let late = bench.get("/v1/vms/ud-1/wait?state=RUNNING&timeout=0").token(&bench.customer).send().await;
    late.is(StatusCode::GATEWAY_TIMEOUT);
    let waits = bench.get("/v1/vms/ud-1/wait?state=VM_STATE_RUNNING&state=failed&timeout=60s").token(&bench.customer);
    let boot = bench.post("/v1/vms/ud-1/boot").token(&bench.customer);
    let (waited, _) = tokio::join!(waits.send(), boot.send());
    assert_eq!(waited.is(StatusCode::OK).value()["state"], "VM_STATE_RUNNING");
    bench.get("/v1/vms/ud-1/wait").token(&bench.customer).send().await.is(StatusCode::BAD_REQUEST);
    bench.get("/v1/vms/ud-1/wait?state=lost").token(&bench.customer).send().await.is(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_key_makes_one_vm_of_two_requests() {
    let bench = Bench::start().await;
    let make = async |key: &str, body: &Value| {
        bench.post("/v1/vms").token(&bench.customer).header("idempotency-key", key).json(body).await
    };
    let body = json!({ "config": config() });
    let first = make("k", &body).await.value()["vm_id"].clone();
    assert_eq!(make("k", &body).await.value()["vm_id"], first);
    assert_ne!(make("l", &body).await.value()["vm_id"], first);
    let mut other = config();
    other["cpu"]["vcpu_count"] = json!(2);
    let refused = make("k", &json!({ "config": other })).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "idempotency_key"));
    assert_eq!(make(&"k".repeat(256), &body).await.status, 400);
}

/// The guide's lines, section "VM Recovery" and before it, run by a shell against a listener.
#[tokio::test]
async fn a_saved_list_is_made_again_as_the_guide_does_it() {
    for program in ["bash", "curl", "jq"] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).status().await.is_err() {
            eprintln!("NOT RUN: a_saved_list_is_made_again_as_the_guide_does_it: {program} is missing");
            return;
        }
    }
    let bench = Bench::start().await;
    let rich = json!({
        "cpu": { "vcpu_count": 2 },
        "memory": { "size_bytes": 268435456 },
        "network": [{ "egress_internet": false, "ports": [{ "guest_port": 80 }] }],
        "metadata": { "name": "a web server" },
    });
    bench.vm("ud-1").await;
    bench.post("/v1/vms").token(&bench.foreign).json(&json!({ "config": rich, "vm_id": "ud-2" })).await;
    bench.post("/v1/vms/ud-2/boot").token(&bench.foreign).send().await.is(StatusCode::OK);
    let listener = web::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let options = web::ServeOptions::new(stop.clone());
    let server = tokio::spawn(web::serve(listener, bench.router.clone(), options));
    let script = r#"
        set -eu -o pipefail
        curl -sf -H "Authorization: Bearer $TOKEN" \
          http://localhost:8080/v1/vms > vms-20240118.json
        jq -r '.vms[] | @json' vms-20240118.json | while read vm; do
          echo "$vm" | jq -r '.config' | \
            curl -sf -X POST http://localhost:8080/v1/vms \
              -H "Authorization: Bearer $TOKEN" \
              -H "Content-Type: application/json" \
              -d @-
        done
        "#
    .replace("localhost:8080", &address.to_string());
    let done = Command::new("bash")
        .args(["-c", &script])
        .current_dir(bench.directory.path())
        .env("TOKEN", &bench.operator)
        .env("NO_PROXY", "*")
        .output()
        .await
        .unwrap();
    stop.cancel();
    server.await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let list = bench.get("/v1/vms").token(&bench.operator).send().await.value();
    let mut seen: Vec<(String, String)> = list["vms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| (vm["customer_id"].to_string(), vm["config"].to_string()))
        .collect();
    seen.sort();
    assert_eq!(seen.len(), 4);
    assert_eq!((&seen[0], &seen[2]), (&seen[1], &seen[3]), "each is there twice, with its owner");
}
