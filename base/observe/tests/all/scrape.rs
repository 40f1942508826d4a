use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use observe::metrics::{Disk, Registry};

/// What `promtool check metrics` may say: names that the Shoal manual fixes, and nothing else.
const TOLERATED: &[&str] =
    &["registry_blob_count non-histogram and non-summary metrics should not have \"_count\" suffix"];

fn everything() -> Registry {
    let mut registry = Registry::new();
    registry.process();
    let directory = std::env::temp_dir();
    registry.disks(vec![
        Disk { path: "/var/lib/shoal/tasks".into(), directory: directory.clone() },
        Disk { path: "/var/lib/shoal/gone".into(), directory: directory.join("no/such/directory") },
    ]);
    registry
        .counters("redfish_requests_total", "Requests", ["op", "code"], &[["ping", "200"]])
        .with(["a\"b\\", "c\nd"])
        .inc();
    registry.histograms("http_request_duration_seconds", "Requests", ["route"], &[0.1, 1.0], &[["unmatched"]]);
    registry.gauge("registry_blob_count", "Blobs");
    registry
}

#[test]
fn process_and_disk_metrics_have_values() {
    let (_, text) = everything().render(None);
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        line.and_then(|line| line.rsplit(' ').next())
            .unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
            .parse()
            .unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e5);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("open_fds") >= 3.0);
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_start_time_seconds") > 1.6e9);
    assert!(value("process_cpu_seconds_total") >= 0.0);
    assert!(
        value("disk_total_bytes{path=\"/var/lib/shoal/tasks\"}")
            >= value("disk_free_bytes{path=\"/var/lib/shoal/tasks\"}")
    );
    assert!(!text.contains("/var/lib/shoal/gone"));
}

#[test]
fn every_described_family_is_in_the_scrape() {
    let registry = everything();
    let (_, text) = registry.render(None);
    for family in registry.described() {
        assert!(
            text.contains(&format!("# TYPE {} {}\n", family.name, family.kind)),
            "{family:?} is missing in\n{text}"
        );
    }
}

#[test]
fn promtool_accepts_the_scrape() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT RUN: promtool_accepts_the_scrape: promtool is missing");
            return;
        }
        Err(error) => panic!("promtool did not start: {error}"),
    };
    let (_, text) = everything().render(None);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let complaints: BTreeSet<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(complaints, TOLERATED.iter().copied().collect(), "in\n{text}");
}
