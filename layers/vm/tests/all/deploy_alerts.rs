//! Prometheus takes the configuration, and each alert fires when it should and not otherwise.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::run;

use crate::deploy::{has, path, yaml};

/// Series of a minute each: name with labels, and values in promtool's notation.
type Series = &'static [(&'static str, &'static str)];

/// An alert, series with which it fires, its labels then, and series with which it does not.
struct Case {
    alert: &'static str,
    fires: Series,
    labels: &'static [(&'static str, &'static str)],
    quiet: &'static [Series],
}

macro_rules! buckets {
    ($name:literal, $labels:literal, $below:literal, $above:literal, $fast:literal, $all:literal) => {
        &[
            (concat!($name, "_bucket{job=\"metald\",instance=\"a:9464\",", $labels, ",le=\"", $below, "\"}"), $fast),
            (concat!($name, "_bucket{job=\"metald\",instance=\"a:9464\",", $labels, ",le=\"", $above, "\"}"), $all),
            (concat!($name, "_bucket{job=\"metald\",instance=\"a:9464\",", $labels, ",le=\"+Inf\"}"), $all),
        ]
    };
}

const HOST: (&str, &str) = ("instance", "a:9464");
const JOB: (&str, &str) = ("job", "metald");
const BACKEND: (&str, &str) = ("backend", "firecracker");
const CRITICAL: (&str, &str) = ("severity", "critical");
const WARNING: (&str, &str) = ("severity", "warning");

const CASES: [Case; 7] = [
    Case {
        alert: "MetaldDown",
        fires: &[("up{job=\"metald\",instance=\"a:9464\"}", "0x30")],
        labels: &[CRITICAL, HOST, JOB],
        quiet: &[
            &[("up{job=\"metald\",instance=\"a:9464\"}", "1x30")],
            // Away for 3 minutes so far.
            &[("up{job=\"metald\",instance=\"a:9464\"}", "1x21 0x8")],
            &[("up{job=\"other\",instance=\"a:9464\"}", "0x30")],
        ],
    },
    Case {
        alert: "HighVMBootLatency",
        fires: buckets!(
            "unkey_metald_vm_boot_duration_seconds",
            "backend=\"firecracker\"",
            "1",
            "1.5",
            "0+1x30",
            "0+2x30"
        ),
        labels: &[WARNING, HOST, BACKEND],
        quiet: &[
            buckets!(
                "unkey_metald_vm_boot_duration_seconds",
                "backend=\"firecracker\"",
                "1",
                "1.5",
                "0+2x30",
                "0+2x30"
            ),
            // Slow once, long ago: no rate, no alert.
            buckets!("unkey_metald_vm_boot_duration_seconds", "backend=\"firecracker\"", "1", "1.5", "5x30", "10x30"),
        ],
    },
    Case {
        alert: "BackendErrors",
        fires: &[(
            "unkey_metald_backend_errors_total{job=\"metald\",instance=\"a:9464\",backend=\"firecracker\",error_type=\"timeout\"}",
            "0+11x30",
        )],
        labels: &[WARNING, HOST, BACKEND],
        quiet: &[
            // The guide's 0.1 a second is 6 a minute; its table says 10.
            &[(
                "unkey_metald_backend_errors_total{job=\"metald\",instance=\"a:9464\",backend=\"firecracker\",error_type=\"timeout\"}",
                "0+9x30",
            )],
            &[(
                "unkey_metald_backend_errors_total{job=\"metald\",instance=\"a:9464\",backend=\"firecracker\",error_type=\"timeout\"}",
                "0x30",
            )],
        ],
    },
    Case {
        alert: "VMCapacity",
        // With customers as a label the sum counts.
        fires: &[
            ("unkey_metald_active_vms{job=\"metald\",instance=\"a:9464\",customer_id=\"x\"}", "500x30"),
            ("unkey_metald_active_vms{job=\"metald\",instance=\"a:9464\",customer_id=\"y\"}", "401x30"),
        ],
        labels: &[WARNING, HOST],
        quiet: &[
            &[("unkey_metald_active_vms{job=\"metald\",instance=\"a:9464\"}", "900x30")],
            // Two hosts are not one.
            &[
                ("unkey_metald_active_vms{job=\"metald\",instance=\"a:9464\"}", "500x30"),
                ("unkey_metald_active_vms{job=\"metald\",instance=\"b:9464\"}", "500x30"),
            ],
        ],
    },
    Case {
        alert: "HighAPILatency",
        fires: buckets!(
            "unkey_metald_api_request_duration_seconds",
            "method=\"GET\",route=\"/v1/vms\"",
            "0.1",
            "0.15",
            "0+50x30",
            "0+60x30"
        ),
        labels: &[WARNING, HOST],
        quiet: &[
            buckets!(
                "unkey_metald_api_request_duration_seconds",
                "method=\"GET\",route=\"/v1/vms\"",
                "0.1",
                "0.15",
                "0+60x30",
                "0+60x30"
            ),
            // Who waits for a guest is not served slowly.
            buckets!(
                "unkey_metald_api_request_duration_seconds",
                "method=\"GET\",route=\"/v1/vms/{id}/wait\"",
                "0.1",
                "0.15",
                "0+0x30",
                "0+60x30"
            ),
            buckets!(
                "unkey_metald_api_request_duration_seconds",
                "method=\"POST\",route=\"/v1/vms\"",
                "0.1",
                "0.15",
                "0+0x30",
                "0+60x30"
            ),
        ],
    },
    Case {
        alert: "HighMemory",
        fires: &[("process_resident_memory_bytes{job=\"metald\",instance=\"a:9464\"}", "4100000000x30")],
        labels: &[WARNING, HOST, JOB],
        quiet: &[
            &[("process_resident_memory_bytes{job=\"metald\",instance=\"a:9464\"}", "3900000000x30")],
            &[("process_resident_memory_bytes{job=\"prometheus\",instance=\"a:9464\"}", "9000000000x30")],
        ],
    },
    Case {
        alert: "TooManyTasks",
        fires: &[("go_goroutines{job=\"metald\",instance=\"a:9464\"}", "10001x30")],
        labels: &[WARNING, HOST, JOB],
        quiet: &[&[("go_goroutines{job=\"metald\",instance=\"a:9464\"}", "10000x30")]],
    },
];

fn rules() -> Vec<Value> {
    let alerts = yaml("prometheus/alerts.yml");
    let groups = alerts["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// A test of promtool: what an alert says after 25 minutes.
fn case(series: Series, alert: &str, expected: &[Value]) -> Value {
    let series: Vec<Value> = series.iter().map(|(name, values)| json!({"series": name, "values": values})).collect();
    json!({
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": "25m", "alertname": alert, "exp_alerts": expected}],
    })
}

#[test]
fn prometheus_takes_configuration_and_rules() {
    if !has("prometheus_takes_configuration_and_rules", &["promtool"]) {
        return;
    }
    run(Command::new("promtool").args(["check", "config"]).arg(path("prometheus/prometheus.yml"))).unwrap();
    let said = run(Command::new("promtool").args(["check", "rules"]).arg(path("prometheus/alerts.yml"))).unwrap();
    assert!(said.contains("SUCCESS: 7 rules found"), "{said}");
}

#[test]
fn what_is_dropped_is_not_what_alerts_ask_for() {
    let configuration = yaml("prometheus/prometheus.yml");
    let scrape = &configuration["scrape_configs"][0];
    assert_eq!(scrape["job_name"], "metald");
    assert_eq!(scrape["static_configs"][0]["targets"], json!(["metald:9464"]));
    let dropped = json!([{"source_labels": ["vm_id"], "regex": ".+", "action": "drop"}]);
    assert_eq!(scrape["metric_relabel_configs"], dropped);
}

#[test]
fn every_rule_is_told_and_tested() {
    let names: BTreeSet<&str> = CASES.iter().map(|case| case.alert).collect();
    let rules = rules();
    assert_eq!(rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect::<BTreeSet<_>>(), names);
    for rule in &rules {
        let expression = rule["expr"].as_str().unwrap();
        assert!(rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string(), "{rule}");
        let quantile = expression.contains("histogram_quantile");
        assert!(!quantile || (expression.contains(", le)") && expression.contains("rate(")), "{expression}");
    }
    assert!(CASES.iter().all(|case| !case.quiet.is_empty()));
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    if !has("alerts_fire_when_they_should_and_only_then", &["promtool"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    // What an alert says is in the rules; here it is whether it does. Texts would only be copies.
    let mut silent = rules();
    silent.iter_mut().for_each(|rule| rule["annotations"] = json!({}));
    let file = directory.path().join("alerts.yml");
    std::fs::write(&file, json!({"groups": [{"name": "metald", "rules": silent}]}).to_string()).unwrap();
    let mut tests = Vec::new();
    for Case { alert, fires, labels, quiet } in &CASES {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        tests.push(case(fires, alert, &[json!({"exp_labels": labels})]));
        tests.extend(quiet.iter().map(|series| case(series, alert, &[])));
    }
    println!("{} cases of {} alerts", tests.len(), CASES.len());
    let test = directory.path().join("test.yml");
    let content = json!({"rule_files": [file], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(&test, content.to_string()).unwrap();
    run(Command::new("promtool").args(["test", "rules"]).arg(&test)).unwrap();
}
