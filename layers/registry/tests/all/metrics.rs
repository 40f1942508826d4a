//! What is counted.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::fixture::{Setup, can_run, push_image};

/// Names that the runbook fixes although promtool would have them otherwise.
const TOLERATED: &[&str] = &["registry_blob_count"];

#[tokio::test]
async fn the_manual_s_names_are_there_and_count() {
    let server = Setup::default().start().await;
    let before = server.metrics.render(None).1;
    for line in [
        "registry_upload_bytes_total 0",
        "registry_download_bytes_total 0",
        "registry_inflight_uploads 0",
        "registry_blob_count 0",
        "registry_storage_bytes 0",
        "registry_quarantine_bytes 0",
        "registry_upload_errors_total 0",
        "registry_audit_lost_total 0",
        "registry_read_only 0",
        "registry_gc_runs_total{kind=\"collect\",result=\"done\"} 0",
        "registry_request_duration_seconds_count{route=\"blob\",code=\"200\"} 0",
    ] {
        assert!(before.lines().any(|seen| seen == line), "{line} is missing in\n{before}");
    }
    push_image(&server.client(None), "a", "1", b"layer").await;
    server.order("", "POST", "/api/v1/registry/gc", serde_json::json!({})).await;
    let after = server.metrics.render(None).1;
    for line in ["registry_blob_count 3", "registry_gc_runs_total{kind=\"collect\",result=\"done\"} 1"] {
        assert!(after.lines().any(|seen| seen == line), "{line} is missing in\n{after}");
    }
    assert!(!after.contains("registry_free_bytes 0\n") && !after.contains("registry_upload_bytes_total 0\n"));
}

#[tokio::test]
async fn promtool_finds_nothing_else() {
    if !can_run("promtool_finds_nothing_else", &["promtool"]) {
        return;
    }
    let mut registry = observe::metrics::Registry::new();
    registry::metrics::RegistryMetrics::register(&mut registry);
    let mut promtool = Command::new("promtool");
    let promtool =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(registry.render(None).1.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let wrong: Vec<_> =
        said.lines().filter(|line| !line.is_empty() && !TOLERATED.iter().any(|name| line.starts_with(name))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
