//! The calls of the original, as its clients make them.

use serde_json::{Value, json};

use super::api_fixture::{Bench, Reply};

async fn call(bench: &Bench, name: &str, body: &Value) -> Reply {
    let path = format!("/vmprovisioner.v1.VmService/{name}");
    bench.post(&path).token(&bench.customer).header("connect-protocol-version", "1").json(body).await
}

#[tokio::test]
async fn the_nine_calls() {
    let bench = Bench::start().await;
    let config = json!({
        "cpu": { "vcpuCount": 1 },
        "memory": { "sizeBytes": "134217728" },
        "network": [{ "rxRateLimit": { "bandwidth": "1000000" } }],
        "metadata": { "my_key": "x" },
    });
    let made = call(&bench, "CreateVm", &json!({ "vmId": "ud-1", "config": config })).await;
    assert_eq!(made.value(), json!({ "vmId": "ud-1", "state": "VM_STATE_CREATED" }));
    let id = json!({ "vmId": "ud-1" });
    for (name, body, state) in [
        ("BootVm", &id, "VM_STATE_RUNNING"),
        ("PauseVm", &id, "VM_STATE_PAUSED"),
        ("ResumeVm", &id, "VM_STATE_RUNNING"),
        ("RebootVm", &json!({ "vm_id": "ud-1", "force": true }), "VM_STATE_RUNNING"),
        ("ShutdownVm", &json!({ "vmId": "ud-1", "force": true, "timeoutSeconds": 3 }), "VM_STATE_SHUTDOWN"),
    ] {
        let reply = call(&bench, name, body).await;
        assert_eq!((reply.status, reply.value()), (200, json!({ "success": true, "state": state })), "{name}");
    }
    insta::assert_json_snapshot!("connect_info", call(&bench, "GetVmInfo", &id).await.value());
    insta::assert_json_snapshot!("connect_list", call(&bench, "ListVms", &json!({})).await.value());
    let filtered = call(&bench, "ListVms", &json!({ "stateFilter": ["VM_STATE_RUNNING", 4], "pageSize": 1 })).await;
    assert_eq!(filtered.value()["totalCount"], 1);
    let none = call(&bench, "ListVms", &json!({ "state_filter": [1] })).await;
    assert_eq!(none.value()["vms"], json!([]));
    assert_eq!(call(&bench, "DeleteVm", &id).await.value(), json!({ "success": true }));
    let later = bench.post("/metal.vmprovisioner.v1.VmService/GetVmInfo").token(&bench.customer).json(&id).await;
    assert_eq!((later.status, later.code().as_str()), (404, "not_found"));
    assert!(bench.audit().iter().all(|entry| entry.vm_id.as_ref().is_some_and(|id| id.as_str() == "ud-1")));
}

#[tokio::test]
async fn errors_are_connects() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let id = json!({ "vmId": "ud-1" });
    for (name, body, status, code) in [
        ("GetVmInfo", json!({ "vmId": "ud-2" }), 404, "not_found"),
        ("GetVmInfo", json!({ "vmId": "../x" }), 404, "not_found"),
        ("GetVmInfo", json!({}), 400, "invalid_argument"),
        ("BootVm", json!({ "vmid": "ud-1" }), 400, "invalid_argument"),
        ("PauseVm", id.clone(), 400, "failed_precondition"),
        ("CreateVm", json!({}), 400, "invalid_argument"),
        ("CreateVm", json!({ "config": {} }), 400, "invalid_argument"),
        (
            "CreateVm",
            json!({ "config": super::api_fixture::config(), "customerId": "other" }),
            403,
            "permission_denied",
        ),
        ("CreateVm", json!({ "config": super::api_fixture::config(), "vmId": "ud-1" }), 409, "already_exists"),
        ("ListVms", json!({ "stateFilter": ["VM_STATE_LOST"] }), 400, "invalid_argument"),
        ("MigrateVm", json!({}), 501, "unimplemented"),
    ] {
        let reply = call(&bench, name, &body).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{name} {body}: {}", reply.text);
        let value = reply.value();
        let keys: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message"], "{name} {body}");
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    let said = call(&bench, "BootVm", &json!({ "vmid": "ud-1" })).await.value();
    assert!(said["message"].as_str().unwrap().ends_with("(did you mean `vm_id`?)"), "{said}");
    let path = "/vmprovisioner.v1.VmService/GetVmInfo";
    let nobody = bench.post(path).json(&id).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (401, "unauthenticated"));
    for media_type in ["application/proto", "application/grpc", "application/connect+json"] {
        let binary = bench.post(path).token(&bench.customer).header("content-type", media_type).body("x").await;
        let expected = if media_type.ends_with("+json") { 400 } else { 415 };
        assert_eq!(binary.status, expected, "{media_type}: {}", binary.text);
        if binary.status == 415 {
            assert_eq!(
                (binary.code().as_str(), &binary.headers["accept-post"]),
                ("unimplemented", &"application/json".parse().unwrap())
            );
            assert!(binary.text.contains("only Connect's unary JSON"), "{}", binary.text);
        }
    }
}
