//! The commands against a daemon that says what it is told to: what they ask, what they print, and how they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use clap::{CommandFactory, Parser};
use cli::{Endpoint, Output};
use serde_json::{Value, json};
use vm::cli::{Access, Known, VmCommand};
use web::Problem;

#[derive(Parser)]
#[command(name = "cairn vm")]
struct Words {
    #[command(flatten)]
    endpoint: Box<Endpoint>,
    #[command(flatten)]
    access: Box<Access>,
    #[command(subcommand)]
    command: VmCommand,
}

type Answers = BTreeMap<&'static str, Response>;

#[derive(Clone, Default)]
struct Daemon {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
    url: String,
}

async fn answer(State(daemon): State<Daemon>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = format!("{method} {uri}");
    let body: String = String::from_utf8_lossy(&body).chars().take(200).collect();
    let token = headers.get("authorization").map(|value| value.to_str().unwrap()).unwrap_or("nobody");
    daemon.asked.lock().unwrap().push(format!("{asked} {body} [{token}]"));
    let found = daemon.answers.lock().unwrap().remove(asked.as_str());
    found.unwrap_or_else(|| (StatusCode::NOT_FOUND, asked).into_response())
}

impl Daemon {
    async fn start(answers: Vec<(&'static str, Value)>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let daemon = Self { url, ..Self::default() };
        for (asked, value) in answers {
            daemon.say(asked, axum::Json(value).into_response());
        }
        let app = axum::Router::new().fallback(answer).with_state(daemon.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        daemon
    }

    fn say(&self, asked: &'static str, response: Response) {
        self.answers.lock().unwrap().insert(asked, response);
    }

    /// Runs a command; what it printed, and how it ended.
    async fn run(&self, is_json: bool, words: &[&str]) -> (String, Result<(), Problem>) {
        let words = [&["cairn vm", "--url", &self.url], words].concat();
        let words = Words::try_parse_from(words).unwrap();
        let output = Output::into_text(is_json);
        let known = Known { token: Some("secret".into()), data_dirs: Vec::new() };
        let done = vm::cli::run(words.command, &words.endpoint, &words.access, &known, &output).await;
        (output.taken(), done)
    }

    async fn good(&self, words: &[&str]) -> String {
        let (text, done) = self.run(false, words).await;
        done.unwrap();
        text
    }

    async fn bad(&self, words: &[&str]) -> (u8, String, Option<String>) {
        let (_, done) = self.run(false, words).await;
        let problem = done.unwrap_err();
        (problem.kind().exit_code(), problem.code, problem.hint.map(String::from))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn web_1(state: &str) -> Value {
    json!({
        "vm_id": "web-1", "customer_id": "acme", "state": format!("VM_STATE_{state}"), "vcpu_count": 2,
        "memory_size_bytes": 536_870_912, "created_timestamp": 1_790_000_000, "modified_timestamp": 1_790_000_001,
        "metadata": {}, "reason": "", "backend": "firecracker", "restarts": 0, "generation": 3,
        "config": { "cpu": { "vcpu_count": 2 }, "memory": { "size_bytes": 536_870_912 } },
        "network_info": {
            "dns_servers": ["8.8.8.8"], "gateway": "", "ip_address": "10.100.0.2", "ipv6_address": "fd00::2",
            "port_mappings": [{ "guest_port": 80, "host_port": 8080, "protocol": "tcp" }],
        },
    })
}

#[test]
fn help() {
    fn write(command: &mut clap::Command, path: &str, text: &mut String) {
        let path = format!("{path}{}", command.get_name());
        text.push_str(&format!("# {path}\n\n{}\n", command.render_long_help()));
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            write(command, &format!("{path} "), text);
        }
    }
    let mut all = Words::command().term_width(100);
    all.build();
    let mut text = String::new();
    for command in all.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        write(command, "", &mut text);
    }
    // What every command has is in the help of the whole.
    let tidy: Vec<_> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(tidy.join("\n"));
}

#[tokio::test]
async fn a_vm_is_made_booted_and_waited_for() {
    let daemon = Daemon::start(vec![
        ("POST /v1/vms", web_1("CREATED")),
        ("POST /v1/vms/web-1/boot", web_1("RUNNING")),
        ("GET /v1/vms/web-1/wait?state=VM_STATE_RUNNING&timeout=30", web_1("RUNNING")),
    ])
    .await;
    assert_eq!(daemon.good(&["create", "web-1", "--memory", "512MiB", "--boot", "--wait"]).await, "web-1 is RUNNING\n");
    let asked = daemon.asked();
    let body = r#"{"config":{"cpu":{"vcpu_count":1},"memory":{"size_bytes":536870912}},"vm_id":"web-1"}"#;
    assert_eq!(asked[0], format!("POST /v1/vms {body} [Bearer secret]"));
    assert_eq!(asked.len(), 3);

    // The VM is there although the rest failed, and that is said.
    daemon.say("POST /v1/vms", (StatusCode::CREATED, axum::Json(web_1("CREATED"))).into_response());
    let missing = Problem::new(cairn_core::ErrorKind::Conflict, "asset_missing", "there is no kernel").hint("add it");
    daemon.say("POST /v1/vms/web-1/boot", missing.into_response());
    let (_, done) = daemon.run(false, &["create", "--boot"]).await;
    let problem = done.unwrap_err();
    assert_eq!(problem.detail, "web-1 was made, and then: there is no kernel");
    assert_eq!((problem.kind().exit_code(), problem.hint.as_deref()), (4, Some("add it")));
}

#[tokio::test]
async fn what_is_there_is_listed_and_shown() {
    let mut failed = web_1("FAILED");
    failed["failure"] = json!({ "code": "vm_panicked", "reason": "the guest's kernel panicked", "exit_code": 0,
        "console_tail": "VFS: Unable to mount root fs\r\nKernel panic - not syncing\u{1b}[2J\r\n" });
    failed["reason"] = json!("the guest's kernel panicked");
    let list = || json!({ "vms": [web_1("RUNNING")], "next_page_token": "x", "total_count": 7 });
    let daemon = Daemon::start(vec![
        ("GET /v1/vms?state_filter=VM_STATE_RUNNING&state_filter=VM_STATE_PAUSED&page_size=1", list()),
        ("GET /v1/vms", list()),
        ("GET /v1/vms/web-1", failed),
    ])
    .await;
    let words = ["list", "--state", "running", "--state", "VM_STATE_PAUSED", "--limit", "1"];
    insta::assert_snapshot!("list", daemon.good(&words).await);
    let (text, _) = daemon.run(true, &["list"]).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()[0]["config"]["cpu"]["vcpu_count"], 2);
    insta::assert_snapshot!("show", daemon.good(&["show", "web-1"]).await);
}

#[tokio::test]
async fn what_is_done_with_one() {
    let daemon = Daemon::start(vec![
        ("POST /v1/vms/web-1/shutdown", web_1("SHUTDOWN")),
        ("POST /v1/vms/web-1/pause", web_1("PAUSED")),
        ("POST /v1/vms/web-1/resume", web_1("RUNNING")),
        ("POST /v1/vms/web-1/reboot", web_1("RUNNING")),
        ("GET /v1/vms/web-1", web_1("RUNNING")),
    ])
    .await;
    assert_eq!(daemon.good(&["stop", "web-1", "--timeout", "1500ms"]).await, "web-1 is SHUTDOWN\n");
    for (verb, state) in [("pause", "PAUSED"), ("resume", "RUNNING"), ("reboot", "RUNNING")] {
        assert_eq!(daemon.good(&[verb, "web-1"]).await, format!("web-1 is {state}\n"));
    }
    insta::assert_snapshot!("dry_delete", daemon.good(&["delete", "web-1", "--dry-run"]).await);
    assert!(daemon.asked()[0].contains(r#"{"force":false,"timeout_seconds":2}"#));
    daemon.say("DELETE /v1/vms/web-1?force=true", StatusCode::NO_CONTENT.into_response());
    assert_eq!(daemon.good(&["delete", "web-1", "--force"]).await, "web-1 is gone\n");
}

#[tokio::test]
async fn how_it_ends() {
    let daemon = Daemon::start(vec![]).await;
    let problem = |kind, code: &str| Problem::new(kind, code, "no").into_response();
    use cairn_core::ErrorKind::{Conflict, Forbidden, NotFound, Unauthorized, Unavailable, Unreachable};
    for (kind, code, exit) in [
        (NotFound, "vm_not_found", 3),
        (Conflict, "vm_wrong_state", 4),
        (Unauthorized, "token", 5),
        (Forbidden, "token_denied", 5),
        (Unavailable, "maintenance", 6),
    ] {
        daemon.say("POST /v1/vms/x/boot", problem(kind, code));
        let (was, named, _) = daemon.bad(&["boot", "x"]).await;
        assert_eq!((was, named.as_str()), (exit, code));
    }
    // A wait that is over is a time-out, whichever status says so.
    for status in [408, 504] {
        let over = Problem::new(Unreachable, "vm_busy", "web-1 is still STARTING").status(status);
        daemon.say("GET /v1/vms/x/wait?state=VM_STATE_RUNNING&timeout=0", over.into_response());
        let (exit, code, hint) = daemon.bad(&["wait", "x", "--timeout", "0"]).await;
        assert_eq!((exit, code.as_str()), (6, "vm_busy"));
        assert_eq!(hint.as_deref(), Some("look at it: cairn vm show x"));
    }
    let words = Words::try_parse_from(["cairn vm", "--url", &daemon.url, "list"]).unwrap();
    daemon.say("GET /v1/vms", problem(Unauthorized, "token"));
    let output = Output::into_text(false);
    let done = vm::cli::run(words.command, &words.endpoint, &words.access, &Known::default(), &output).await;
    assert_eq!(
        done.unwrap_err().hint.as_deref(),
        Some(
            "say who you are: --token-file FILE, or CAIRN_TOKEN; on the daemon's own host --data-dir DIR, as it was started"
        )
    );
    assert!(daemon.asked().last().unwrap().ends_with("[nobody]"));
    for words in
        [&["list", "--state", "lost"][..], &["wait", "x", "--timeout", "soon"], &["token", "create"], &["network"]]
    {
        assert!(Words::try_parse_from(["cairn vm"].iter().chain(words)).is_err(), "{words:?}");
    }
}

#[tokio::test]
async fn consoles_and_events() {
    let daemon = Daemon::start(vec![(
        "GET /v1/events?after=0&limit=1000",
        json!({ "events": [{ "id": 1, "vm_id": "web-1", "time": "2026-09-21T12:53:20Z", "kind": "state",
            "state": "RUNNING", "message": "booted" }] }),
    )])
    .await;
    daemon.say("GET /v1/vms/web-1/logs?follow=false", "Linux\r\n\u{1b}[31mlogin: ".into_response());
    assert_eq!(daemon.good(&["logs", "web-1"]).await, "Linux\n\u{fffd}[31mlogin: \n");
    insta::assert_snapshot!("events", daemon.good(&["events"]).await);
}

#[tokio::test]
async fn assets_and_tokens() {
    let asset = || json!({ "name": "vmlinux", "kind": "kernel", "sha256": "ab".repeat(32), "size": 4, "created_at": "2026-09-21T12:53:20Z" });
    let token = || {
        json!({ "id": "3f2a", "name": "ci", "role": "customer", "customer_id": "acme",
        "created_at": "2026-09-21T12:53:20Z", "last_used_at": null })
    };
    let mut made = token();
    made["token"] = json!("cairn_3f2a_text");
    let daemon = Daemon::start(vec![
        ("PUT /v1/assets/vmlinux?kind=kernel", asset()),
        ("GET /v1/assets", json!({ "assets": [asset()] })),
        (
            "POST /v1/assets/gc?dry_run=true",
            json!({ "dry_run": true, "removed": [{ "sha256": "cd".repeat(32), "size": 2048 }] }),
        ),
        ("POST /v1/tokens", made),
        ("GET /v1/tokens", json!({ "tokens": [token()] })),
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kernel");
    std::fs::write(&file, "ELF!").unwrap();
    let file = file.to_str().unwrap();
    let said = daemon.good(&["asset", "add", "vmlinux", file, "--kind", "kernel"]).await;
    assert_eq!(said, format!("vmlinux is {} (4 B)\n", "ab".repeat(32)));
    assert!(daemon.asked()[0].contains("ELF!"));
    insta::assert_snapshot!("assets", daemon.good(&["asset", "list"]).await);
    insta::assert_snapshot!("asset_gc", daemon.good(&["asset", "gc", "--dry-run"]).await);
    let nothing = ["asset", "add", "x", directory.path().to_str().unwrap(), "--kind", "disk"];
    assert_eq!(daemon.bad(&nothing).await.0, 2);

    daemon.asked();
    let made = daemon.good(&["token", "create", "--customer", "acme", "--name", "ci"]).await;
    assert_eq!(made, "cairn_3f2a_text\n(beside) token 3f2a: it is not shown again\n");
    assert!(daemon.asked()[0].contains(r#"{"customer_id":"acme","name":"ci","role":"customer"}"#));
    insta::assert_snapshot!("tokens", daemon.good(&["token", "list"]).await);
    daemon.say("DELETE /v1/tokens/3f2a", StatusCode::NO_CONTENT.into_response());
    assert_eq!(daemon.good(&["token", "revoke", "3f2a"]).await, "token 3f2a is revoked\n");
}

#[tokio::test]
async fn the_host() {
    let stray = json!({ "kind": "namespace", "name": "ns_vm_gone" });
    let health = |on: bool| json!({ "status": "healthy", "maintenance": on, "active_vms": 3 });
    let findings = |verdict: &str| {
        json!({ "findings": [
        { "check": "kvm", "verdict": verdict, "detail": "/dev/kvm cannot be opened", "hint": "modprobe kvm_intel" },
        { "check": "kernel", "verdict": "ok", "detail": "6.12", "hint": null }] })
    };
    let daemon = Daemon::start(vec![
        ("GET /v1/strays", json!({ "strays": [stray] })),
        ("DELETE /v1/strays", json!({ "removed": [] })),
        ("GET /v1/vms/web-1/network", json!({ "address": "10.100.0.2", "rules": [{ "packets": 3, "to": "any" }] })),
        ("POST /admin/maintenance/enable", json!({ "maintenance": true })),
        ("GET /health", health(true)),
        ("GET /v1/doctor", findings("warn")),
    ])
    .await;
    assert_eq!(
        daemon.good(&["gc", "--dry-run"]).await,
        "KIND       NAME\nnamespace  ns_vm_gone\nwould be removed: 1\n"
    );
    assert_eq!(daemon.good(&["gc"]).await, "removed: 0\n");
    let network = daemon.good(&["network", "show", "web-1"]).await;
    assert_eq!(network, "address: 10.100.0.2\nrules:\n  - packets: 3\n    to: any\n");
    assert_eq!(daemon.good(&["maintenance", "on"]).await, "on: changes are refused; 3 VMs run\n");
    daemon.say("GET /health", axum::Json(health(false)).into_response());
    assert_eq!(daemon.good(&["maintenance"]).await, "off: changes are taken; 3 VMs run\n");
    insta::assert_snapshot!("doctor", daemon.good(&["doctor"]).await);
    daemon.say("GET /v1/doctor", axum::Json(findings("fail")).into_response());
    assert_eq!(daemon.bad(&["doctor"]).await, (1, "hypervisor_missing".to_owned(), None));
}
