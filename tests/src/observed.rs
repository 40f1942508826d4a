//! What operators see: metrics from the first scrape on, and a log line for each phase of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::wait;

use crate::scripted::bmc::{Bmc, SYSTEMS};
use crate::scripted::floor::{Floor, maintenance_iso};
use crate::scripted::guest::Guest;
use crate::scripted::metrics::Metrics;

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso", "promtool"];

/// Runbook 2.1, and what its sections 2.4 and 3 imply. Histograms are named without their suffixes.
const FAMILIES: [(&str, &str); 39] = [
    ("job_total", "counter"),
    ("job_duration_seconds", "histogram"),
    ("job_transitions_total", "counter"),
    ("redfish_request_duration_seconds", "histogram"),
    ("redfish_requests_total", "counter"),
    ("redfish_retries_total", "counter"),
    ("webhook_received_total", "counter"),
    ("webhook_processing_duration_seconds", "histogram"),
    ("webhook_auth_failures_total", "counter"),
    ("iso_build_duration_seconds", "histogram"),
    ("iso_size_bytes", "gauge"),
    ("media_requests_total", "counter"),
    ("registry_upload_bytes_total", "counter"),
    ("registry_download_bytes_total", "counter"),
    ("registry_inflight_uploads", "gauge"),
    ("registry_blob_count", "gauge"),
    ("registry_storage_bytes", "gauge"),
    ("registry_request_duration_seconds", "histogram"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_threads", "gauge"),
    ("process_open_fds", "gauge"),
    ("open_fds", "gauge"),
    ("disk_free_bytes", "gauge"),
    ("disk_total_bytes", "gauge"),
    ("http_requests_total", "counter"),
    ("http_request_duration_seconds", "histogram"),
    ("jobs_provisioning_stuck", "gauge"),
    ("redfish_poll_timeout_total", "counter"),
    ("media_signed_url_validation_failures_total", "counter"),
    ("iso_build_failures_total", "counter"),
    ("login_auth_failures_total", "counter"),
    ("jobs_active", "gauge"),
    ("job_failures_total", "counter"),
    ("webhook_duplicates_total", "counter"),
    ("redfish_ready_duration_seconds", "histogram"),
    ("provisioning_phase_duration_seconds", "histogram"),
    ("cleanup_duration_seconds", "histogram"),
    ("first_boot_total", "counter"),
];

/// What `promtool check metrics` may say: the manual fixes these names.
const TOLERATED: [&str; 1] =
    ["registry_blob_count non-histogram and non-summary metrics should not have \"_count\" suffix"];

const PHASES: [&str; 11] = [
    "build-media",
    "discover",
    "mount",
    "boot-override",
    "power-off",
    "power-on",
    "await-report",
    "await-off",
    "eject",
    "clear-override",
    "restart",
];

/// Before the first job, and after it.
pub(crate) fn metrics(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let floor = Floor::start(work, &iso, &[])?;
    let fresh = floor.metrics()?;
    present(&fresh)?;
    promtool(&fresh)?;
    floor.add_server("M-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    let job = floor.order("M-1")?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    guest.pull()?;
    guest.install("d")?;
    guest.power_off(&bmc)?;
    floor.wait_complete(&job)?;
    ensure!(guest.first_boot()?.status == 204, "first boot");
    // Gauges of the storage are brought up to date now and then.
    let after =
        wait::until("the registry counts its blobs", Duration::from_secs(60), Duration::from_millis(200), || {
            let metrics = floor.metrics()?;
            Ok(metrics.sum("registry_blob_count", &[]).is_some_and(|count| count > 0.0).then_some(metrics))
        })?;
    present(&after)?;
    promtool(&after)?;
    counted(&fresh, &after)?;
    logged(&floor, &job)
}

fn present(metrics: &Metrics) -> Result<()> {
    let (families, sampled) = (metrics.families(), metrics.sampled());
    for (name, kind) in FAMILIES {
        ensure!(families.get(name) == Some(&kind), "{name} is {:?}, not a {kind}", families.get(name));
        ensure!(sampled.contains(name), "{name} has no sample");
    }
    let bounds = metrics.bounds("job_duration_seconds");
    for bound in ["5400", "6600", "9000"] {
        let there = bounds.iter().any(|text| text.trim_end_matches(".0") == bound);
        ensure!(there, "job_duration_seconds has no bound {bound}: {bounds:?}");
    }
    let known: &[(&str, &[(&str, &str)])] = &[
        ("job_total", &[("status", "complete")]),
        ("job_duration_seconds_count", &[("outcome", "failed"), ("task_target", "install-linux.target")]),
        ("job_transitions_total", &[("from", "provisioning"), ("to", "failed")]),
        ("job_failures_total", &[("step", "redfish.discover"), ("task_target", "install-linux.target")]),
        ("webhook_received_total", &[("status", "duplicate")]),
        ("media_requests_total", &[("code", "403")]),
        ("jobs_provisioning_stuck", &[("task_target", "install-linux.target")]),
        ("disk_free_bytes", &[("path", "/var/lib/shoal/tasks")]),
        ("disk_free_bytes", &[("path", "/var/lib/shoal/oci")]),
        ("first_boot_total", &[("result", "overdue")]),
    ];
    for (name, labels) in known {
        ensure!(metrics.sum(name, labels).is_some(), "{name} {labels:?} is missing");
    }
    for phase in PHASES {
        let count = metrics.sum("provisioning_phase_duration_seconds_count", &[("phase", phase)]);
        ensure!(count.is_some(), "provisioning_phase_duration_seconds has no phase {phase}");
    }
    Ok(())
}

/// Nothing but what is tolerated, and nothing tolerated that is not said.
fn promtool(metrics: &Metrics) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start promtool")?;
    child.stdin.take().context("stdin of promtool")?.write_all(metrics.0.as_bytes())?;
    let output = child.wait_with_output().context("wait for promtool")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let said: BTreeSet<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tolerated: BTreeSet<&str> = TOLERATED.into();
    ensure!(said == tolerated, "promtool said {said:?} and not {tolerated:?}");
    // 3: parsed well, and lint has something to say.
    ensure!(output.status.code() == Some(3), "promtool ended with {}", output.status);
    Ok(())
}

/// A metric, its labels and by how much it grows.
type Change<'a> = (&'a str, Vec<(&'a str, &'a str)>, f64);

/// One job, counted once everywhere.
fn counted(fresh: &Metrics, after: &Metrics) -> Result<()> {
    let mut wanted: Vec<Change<'_>> = vec![
        ("webhook_received_total", vec![("status", "success")], 1.0),
        ("job_duration_seconds_count", vec![("outcome", "succeeded")], 1.0),
        ("job_duration_seconds_count", vec![("outcome", "failed")], 0.0),
        ("iso_build_duration_seconds_count", vec![], 1.0),
        ("cleanup_duration_seconds_count", vec![], 1.0),
        ("webhook_processing_duration_seconds_count", vec![], 1.0),
        ("first_boot_total", vec![("result", "reported")], 1.0),
        ("job_failures_total", vec![], 0.0),
        ("redfish_requests_total", vec![("code", "error")], 0.0),
    ];
    wanted.extend(
        ["queued", "provisioning", "succeeded", "complete"].map(|status| ("job_total", vec![("status", status)], 1.0)),
    );
    wanted.extend(PHASES.map(|phase| ("provisioning_phase_duration_seconds_count", vec![("phase", phase)], 1.0)));
    for (name, labels, value) in wanted {
        let before = fresh.sum(name, &labels).unwrap_or_default();
        let now = after.sum(name, &labels).with_context(|| format!("no {name} {labels:?}"))?;
        ensure!(now - before == value, "{name} {labels:?} went from {before} to {now}, not by {value}");
    }
    for (name, labels) in [
        ("redfish_requests_total", vec![("vendor", "sushy_emulator"), ("code", "204")]),
        ("redfish_request_duration_seconds_count", vec![("vendor", "sushy_emulator")]),
        ("redfish_ready_duration_seconds_count", vec![]),
        ("media_requests_total", vec![("code", "200")]),
        ("registry_download_bytes_total", vec![]),
        ("registry_upload_bytes_total", vec![]),
        ("registry_blob_count", vec![]),
        ("iso_size_bytes", vec![]),
        ("http_requests_total", vec![("route", "/api/v1/jobs"), ("code", "202")]),
    ] {
        ensure!(after.sum(name, &labels).is_some_and(|value| value > 0.0), "{name} {labels:?} is not above 0");
    }
    Ok(())
}

/// The lines of one job, each time the same but for ids, times and sizes.
fn logged(floor: &Floor, job: &str) -> Result<()> {
    let lines: Vec<Value> = floor.controller.events()?.into_iter().filter(|line| line["job_id"] == job).collect();
    let phases: BTreeSet<&str> = lines.iter().filter_map(|line| line["phase"].as_str()).collect();
    ensure!(PHASES.iter().all(|phase| phases.contains(phase)), "phases without a line: only {phases:?}");
    for line in lines.iter().filter(|line| !line["duration_ms"].is_null()) {
        for key in ["time", "level", "job_id", "server_serial", "step", "worker_id", "op", "duration_ms", "message"] {
            ensure!(!line[key].is_null(), "{key} is missing: {line}");
        }
        ensure!(line["duration_ms"].is_u64() && line["server_serial"] == "M-1", "{line}");
    }
    // What requests bring first, then the worker's: between the two the order is not fixed.
    let (worker, requests): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| !line["phase"].is_null());
    let text: String = requests.into_iter().chain(worker).map(normal).collect();
    let golden = include_str!("../golden/job-log.txt");
    ensure!(text == golden, "the log is not tests/golden/job-log.txt:\n{text}");
    Ok(())
}

/// A line with its keys in order, and words in the place of what differs from run to run.
fn normal(line: &Value) -> String {
    let fixed =
        ["level", "message", "step", "phase", "op", "outcome", "status", "server_serial", "attempt", "schema_id"];
    let keys: BTreeMap<&String, &Value> = line.as_object().into_iter().flatten().collect();
    let shown = |(key, value): (&&String, &&Value)| match fixed.contains(&key.as_str()) {
        true => format!("{key}={value}"),
        false => format!("{key}=*"),
    };
    let words: Vec<String> = keys.iter().map(shown).collect();
    words.join(" ") + "\n"
}
