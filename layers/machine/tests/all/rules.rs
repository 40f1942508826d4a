//! Each alert fires when it should and only then, with a leader and a standby; the dashboard asks for what there is.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::{exists, run};

use crate::manifests::{objects, path};

/// A series, and its values from one minute to the next in promtool's notation.
type Series = &'static [(&'static str, &'static str)];

/// An alert, series with which it fires after so many minutes, its labels then, and series with which it does not.
struct Case {
    alert: &'static str,
    minutes: u32,
    fires: &'static [Series],
    labels: &'static [(&'static str, &'static str)],
    quiet: &'static [Series],
}

const CRITICAL: (&str, &str) = ("severity", "critical");
const WARNING: (&str, &str) = ("severity", "warning");
const INFO: (&str, &str) = ("severity", "info");
const TEAM: (&str, &str) = ("namespace", "team-a");

/// Labels of the replica that leads, and of the one that waits.
macro_rules! leader {
    ($rest:literal) => {
        concat!($rest, "job=\"nixos-operator-metrics\",pod=\"leader\"}")
    };
}
macro_rules! standby {
    ($rest:literal) => {
        concat!($rest, "job=\"nixos-operator-metrics\",pod=\"standby\"}")
    };
}
/// A histogram of the leader: what stays below its bound, and all.
macro_rules! histogram {
    ($name:literal, $labels:literal, $below:literal, $above:literal, $fast:literal, $all:literal) => {
        &[
            (leader_bucket!($name, $labels, $below), $fast),
            (leader_bucket!($name, $labels, $above), $all),
            (leader_bucket!($name, $labels, "+Inf"), $all),
        ]
    };
}
macro_rules! leader_bucket {
    ($name:literal, $labels:literal, $bound:literal) => {
        concat!($name, "_bucket{", $labels, ",pod=\"leader\",le=\"", $bound, "\"}")
    };
}

const CASES: &[Case] = &[
    Case {
        alert: "NixOSOperatorDown",
        minutes: 10,
        fires: &[
            &[(leader!("up{"), "0x20"), (standby!("up{"), "0x20")],
            // Nothing is scraped at all.
            &[("up{job=\"other\"}", "1x20")],
        ],
        labels: &[CRITICAL],
        quiet: &[&[(leader!("up{"), "1x20"), (standby!("up{"), "0x20")], &[(leader!("up{"), "1x7 0x13")]],
    },
    Case {
        alert: "NixOSOperatorNotReady",
        minutes: 15,
        fires: &[
            &[
                (leader!("nio_leader{"), "0x20"),
                (standby!("nio_leader{"), "0x20"),
                (leader!("nio_operator_info{version=\"1\","), "1x20"),
            ],
            &[("up{job=\"other\"}", "1x20")],
        ],
        labels: &[WARNING],
        quiet: &[&[
            (leader!("nio_leader{"), "1x20"),
            (standby!("nio_leader{"), "0x20"),
            (leader!("nio_operator_info{version=\"1\","), "1x20"),
        ]],
    },
    Case {
        alert: "HighReconciliationFailureRate",
        minutes: 45,
        fires: &[
            &[
                (leader!("nio_configurations_failed_total{namespace=\"team-a\",machine=\"m\",reason=\"a\","), "0+2x60"),
                (leader!("nio_configurations_failed_total{namespace=\"team-a\",machine=\"m\",reason=\"b\","), "0+1x60"),
                (leader!("nio_configurations_applied_total{namespace=\"team-a\",machine=\"m\","), "0+2x60"),
                (standby!("nio_configurations_applied_total{namespace=\"team-a\",machine=\"m\","), "0x60"),
            ],
            // Nothing was ever applied.
            &[(leader!("nio_configurations_failed_total{namespace=\"team-a\",machine=\"m\",reason=\"a\","), "0+1x60")],
        ],
        labels: &[WARNING, TEAM],
        quiet: &[
            &[
                (leader!("nio_configurations_failed_total{namespace=\"team-a\",machine=\"m\",reason=\"a\","), "0+2x60"),
                (leader!("nio_configurations_applied_total{namespace=\"team-a\",machine=\"m\","), "0+3x60"),
            ],
            &[
                (leader!("nio_configurations_failed_total{namespace=\"team-a\",machine=\"m\",reason=\"a\","), "5x60"),
                (leader!("nio_configurations_applied_total{namespace=\"team-a\",machine=\"m\","), "5x60"),
            ],
        ],
    },
    Case {
        alert: "ReconciliationStuck",
        minutes: 150,
        fires: &[&[
            (
                leader!("nio_reconcile_last_success_timestamp_seconds{namespace=\"team-a\",configuration=\"c\","),
                "0x160",
            ),
            (
                leader!("nio_reconcile_last_success_timestamp_seconds{namespace=\"team-a\",configuration=\"d\","),
                "0+60x160",
            ),
        ]],
        labels: &[CRITICAL, TEAM, ("configuration", "c")],
        quiet: &[
            // The one that led before stands still; the one that leads now does not.
            &[
                (
                    standby!("nio_reconcile_last_success_timestamp_seconds{namespace=\"team-a\",configuration=\"c\","),
                    "0x160",
                ),
                (
                    leader!("nio_reconcile_last_success_timestamp_seconds{namespace=\"team-a\",configuration=\"c\","),
                    "0+60x160",
                ),
            ],
            // What grows is no time.
            &[(leader!("nio_reconcile_duration_seconds_sum{namespace=\"team-a\",configuration=\"c\","), "0+1x160")],
        ],
    },
    Case {
        alert: "SlowReconciliation",
        minutes: 180,
        // One in 40 minutes.
        fires: &[histogram!(
            "nio_reconcile_duration_seconds",
            "namespace=\"team-a\",configuration=\"c\"",
            "1800",
            "3600",
            "0x200",
            "0x39 1x40 2x40 3x40 4x40"
        )],
        labels: &[WARNING, TEAM, ("configuration", "c")],
        quiet: &[histogram!(
            "nio_reconcile_duration_seconds",
            "namespace=\"team-a\",configuration=\"c\"",
            "1800",
            "3600",
            "0+1x200",
            "0+1x200"
        )],
    },
    Case {
        alert: "HighSSHConnectionFailureRate",
        minutes: 20,
        fires: &[&[
            (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+4x30"),
            (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"n\",result=\"success\","), "0+6x30"),
            (leader!("nio_machines_total{namespace=\"team-a\","), "10x30"),
            (leader!("nio_machines_discoverable{namespace=\"team-a\","), "6x30"),
            (standby!("nio_machines_discoverable{namespace=\"team-a\","), "0x30"),
        ]],
        labels: &[WARNING, TEAM],
        quiet: &[
            // One of ten is away; the others are connected and need no new connection.
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+4x30"),
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"success\","), "0x30"),
                (leader!("nio_machines_total{namespace=\"team-a\","), "10x30"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "9x30"),
            ],
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+2x30"),
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"success\","), "0+8x30"),
                (leader!("nio_machines_total{namespace=\"team-a\","), "10x30"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "5x30"),
            ],
        ],
    },
    Case {
        alert: "SSHConnectionsCompletelyFailing",
        minutes: 30,
        fires: &[
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+1x40"),
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"success\","), "7x40"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "0x40"),
            ],
            // There never was a success.
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+1x40"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "0x40"),
            ],
        ],
        labels: &[CRITICAL, TEAM],
        quiet: &[
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+1x40"),
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"n\",result=\"success\","), "0+1x40"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "0x40"),
            ],
            // Kept connections live.
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-a\",machine=\"m\",result=\"failure\","), "0+1x40"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "9x40"),
            ],
            // Failures of one namespace are not those of another.
            &[
                (leader!("nio_ssh_connections_total{namespace=\"team-b\",machine=\"m\",result=\"failure\","), "0x40"),
                (leader!("nio_machines_discoverable{namespace=\"team-b\","), "0x40"),
            ],
        ],
    },
    Case {
        alert: "SlowSSHConnections",
        minutes: 60,
        fires: &[histogram!(
            "nio_ssh_connection_duration_seconds",
            "namespace=\"team-a\",machine=\"m\"",
            "10",
            "30",
            "0x70",
            "0+1x70"
        )],
        labels: &[WARNING, TEAM, ("machine", "m")],
        quiet: &[histogram!(
            "nio_ssh_connection_duration_seconds",
            "namespace=\"team-a\",machine=\"m\"",
            "10",
            "30",
            "0+1x70",
            "0+1x70"
        )],
    },
    Case {
        alert: "HighGitCloneFailureRate",
        minutes: 40,
        fires: &[&[
            (leader!("nio_git_clones_total{namespace=\"team-a\",repository=\"r\",result=\"failure\","), "0+1x50"),
            (leader!("nio_git_clones_total{namespace=\"team-a\",repository=\"r\",result=\"success\","), "0+1x50"),
            (leader!("nio_git_clones_total{namespace=\"team-a\",repository=\"s\",result=\"success\","), "0+9x50"),
        ]],
        labels: &[WARNING, TEAM, ("repository", "r")],
        quiet: &[&[
            (leader!("nio_git_clones_total{namespace=\"team-a\",repository=\"r\",result=\"failure\","), "0+1x50"),
            (leader!("nio_git_clones_total{namespace=\"team-a\",repository=\"r\",result=\"success\","), "0+4x50"),
        ]],
    },
    Case {
        alert: "HighNixOSBuildFailureRate",
        minutes: 60,
        fires: &[&[
            (
                leader!(
                    "nio_nixos_builds_total{namespace=\"team-a\",machine=\"m\",build_type=\"Local\",result=\"failure\","
                ),
                "0+1x70",
            ),
            (
                leader!(
                    "nio_nixos_builds_total{namespace=\"team-a\",machine=\"m\",build_type=\"Local\",result=\"success\","
                ),
                "0+1x70",
            ),
        ]],
        labels: &[WARNING, TEAM],
        quiet: &[&[
            (
                leader!(
                    "nio_nixos_builds_total{namespace=\"team-a\",machine=\"m\",build_type=\"Local\",result=\"failure\","
                ),
                "0+1x70",
            ),
            (
                leader!(
                    "nio_nixos_builds_total{namespace=\"team-a\",machine=\"m\",build_type=\"Local\",result=\"success\","
                ),
                "0+2x70",
            ),
        ]],
    },
    Case {
        alert: "SlowNixOSBuilds",
        minutes: 300,
        // One in 100 minutes.
        fires: &[histogram!(
            "nio_nixos_build_duration_seconds",
            "namespace=\"team-a\",machine=\"m\",build_type=\"Local\"",
            "3600",
            "7200",
            "0x320",
            "0x99 1x100 2x100 3x20"
        )],
        labels: &[INFO, TEAM, ("machine", "m"), ("build_type", "Local")],
        quiet: &[histogram!(
            "nio_nixos_build_duration_seconds",
            "namespace=\"team-a\",machine=\"m\",build_type=\"Local\"",
            "3600",
            "7200",
            "0+1x320",
            "0+1x320"
        )],
    },
    Case {
        alert: "MachinesNotDiscoverable",
        minutes: 40,
        fires: &[&[
            (leader!("nio_machines_total{namespace=\"team-a\","), "10x50"),
            (leader!("nio_machines_discoverable{namespace=\"team-a\","), "9x50"),
        ]],
        labels: &[WARNING, TEAM],
        quiet: &[
            &[
                (leader!("nio_machines_total{namespace=\"team-a\","), "10x50"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "10x50"),
                // One that led before, at another time.
                (standby!("nio_machines_total{namespace=\"team-a\","), "8x50"),
                (standby!("nio_machines_discoverable{namespace=\"team-a\","), "8x50"),
            ],
            &[
                (leader!("nio_machines_total{namespace=\"team-a\","), "10x50"),
                (leader!("nio_machines_discoverable{namespace=\"team-a\","), "10x50"),
                (standby!("nio_machines_total{namespace=\"team-a\","), "0x50"),
                (standby!("nio_machines_discoverable{namespace=\"team-a\","), "0x50"),
            ],
        ],
    },
    Case {
        alert: "NoMachinesWithConfiguration",
        minutes: 70,
        fires: &[&[
            (leader!("nio_machines_total{namespace=\"team-a\","), "3x80"),
            (leader!("nio_machines_with_configuration{namespace=\"team-a\","), "0x80"),
            (leader!("nio_machines_total{namespace=\"team-b\","), "3x80"),
            (leader!("nio_machines_with_configuration{namespace=\"team-b\","), "1x80"),
        ]],
        labels: &[WARNING, TEAM],
        quiet: &[&[
            (leader!("nio_machines_total{namespace=\"team-a\","), "3x80"),
            (leader!("nio_machines_with_configuration{namespace=\"team-a\","), "1x80"),
            (standby!("nio_machines_total{namespace=\"team-a\","), "0x80"),
            (standby!("nio_machines_with_configuration{namespace=\"team-a\","), "0x80"),
        ]],
    },
    Case {
        alert: "HighErrorRate",
        minutes: 20,
        // 66 a minute, of both replicas together.
        fires: &[&[
            (leader!("nio_errors_total{error_type=\"t\",component=\"git\","), "0+40x30"),
            (standby!("nio_errors_total{error_type=\"t\",component=\"git\","), "0+26x30"),
        ]],
        labels: &[WARNING, ("part", "git")],
        quiet: &[&[
            (leader!("nio_errors_total{error_type=\"t\",component=\"git\","), "0+50x30"),
            (leader!("nio_errors_total{error_type=\"t\",component=\"ssh\","), "0+50x30"),
        ]],
    },
    Case {
        alert: "HighValidationErrorRate",
        minutes: 25,
        fires: &[&[
            (leader!("nio_validation_errors_total{validation_type=\"v\",field=\"spec.flake\","), "0+31x40"),
            (standby!("nio_validation_errors_total{validation_type=\"v\",field=\"spec.flake\","), "0x40"),
        ]],
        labels: &[INFO, ("validation_type", "v"), ("field", "spec.flake")],
        quiet: &[&[(leader!("nio_validation_errors_total{validation_type=\"v\",field=\"spec.flake\","), "0+29x40")]],
    },
    Case {
        alert: "HighRetryExhaustionRate",
        minutes: 25,
        fires: &[&[
            (leader!("nio_retries_exhausted_total{operation=\"git\","), "0+7x40"),
            (standby!("nio_retries_exhausted_total{operation=\"git\","), "0x40"),
        ]],
        labels: &[WARNING, ("operation", "git")],
        quiet: &[&[(leader!("nio_retries_exhausted_total{operation=\"git\","), "0+5x40")]],
    },
    Case {
        alert: "ReconciliationErrorsIncreasing",
        minutes: 60,
        // Every other minute, as often as a configuration is looked at.
        fires: &[&[
            (
                leader!("nio_reconcile_errors_total{namespace=\"team-a\",configuration=\"c\",error_type=\"t\","),
                "0+0.5x70",
            ),
            (standby!("nio_reconcile_errors_total{namespace=\"team-a\",configuration=\"c\",error_type=\"t\","), "0x70"),
        ]],
        labels: &[INFO, TEAM, ("configuration", "c"), ("error_type", "t")],
        quiet: &[&[(
            leader!("nio_reconcile_errors_total{namespace=\"team-a\",configuration=\"c\",error_type=\"t\","),
            "0+0.1x70",
        )]],
    },
    Case {
        alert: "OperatorHealthCheckFailing",
        minutes: 10,
        fires: &[&[("probe_success{job=\"nixos-operator-health\",instance=\"a\"}", "0x20")]],
        labels: &[CRITICAL],
        quiet: &[
            &[("probe_success{job=\"nixos-operator-health\",instance=\"a\"}", "1x20")],
            // Nobody probes.
            &[("up{job=\"other\"}", "1x20")],
        ],
    },
    Case {
        alert: "OperatorReadinessCheckFailing",
        minutes: 15,
        fires: &[&[("probe_success{job=\"nixos-operator-readiness\",instance=\"a\"}", "0x20")]],
        labels: &[WARNING],
        quiet: &[
            &[("probe_success{job=\"nixos-operator-readiness\",instance=\"a\"}", "1x20")],
            &[("probe_success{job=\"nixos-operator-health\",instance=\"a\"}", "0x20")],
        ],
    },
];

/// The names that the guide and its operator have.
const ALERTS: [&str; 19] = [
    "NixOSOperatorDown",
    "NixOSOperatorNotReady",
    "HighReconciliationFailureRate",
    "ReconciliationStuck",
    "SlowReconciliation",
    "HighSSHConnectionFailureRate",
    "SSHConnectionsCompletelyFailing",
    "SlowSSHConnections",
    "HighGitCloneFailureRate",
    "HighNixOSBuildFailureRate",
    "SlowNixOSBuilds",
    "MachinesNotDiscoverable",
    "NoMachinesWithConfiguration",
    "HighErrorRate",
    "HighValidationErrorRate",
    "HighRetryExhaustionRate",
    "ReconciliationErrorsIncreasing",
    "OperatorHealthCheckFailing",
    "OperatorReadinessCheckFailing",
];

fn groups() -> Value {
    objects("monitoring/prometheus-rules.yaml").remove(0)["spec"].take()
}

fn rules() -> Vec<Value> {
    groups()["groups"][0]["rules"].as_array().unwrap().clone()
}

fn has_promtool(test: &str) -> bool {
    let there = exists("promtool");
    if !there {
        eprintln!("NOT RUN: {test}: promtool is missing");
    }
    there
}

#[test]
fn all_nineteen_alerts_are_there_and_tested() {
    let rules = rules();
    assert_eq!(rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect::<Vec<_>>(), ALERTS);
    assert_eq!(CASES.iter().map(|case| case.alert).collect::<Vec<_>>(), ALERTS);
    for rule in &rules {
        assert_eq!(rule["labels"]["component"], "operator", "{rule}");
        assert!(["critical", "warning", "info"].iter().any(|word| rule["labels"]["severity"] == *word), "{rule}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{rule}");
        }
        assert!(rule["annotations"]["runbook_url"].is_null() && rule["for"].is_string(), "{rule}");
    }
    let groups = groups();
    assert_eq!(
        (&groups["groups"][0]["name"], &groups["groups"][0]["interval"]),
        (&json!("nixos-operator.rules"), &json!("30s"))
    );
}

#[test]
fn prometheus_takes_the_rules() {
    if !has_promtool("prometheus_takes_the_rules") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("rules.yml");
    // JSON is YAML.
    std::fs::write(&file, groups().to_string()).unwrap();
    let said = run(Command::new("promtool").args(["check", "rules"]).arg(&file)).unwrap();
    assert!(said.contains("SUCCESS: 19 rules found"), "{said}");
}

fn case(series: Series, alert: &str, minutes: u32, expected: &[Value]) -> Value {
    let series: Vec<Value> = series.iter().map(|(name, values)| json!({"series": name, "values": values})).collect();
    json!({
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": format!("{minutes}m"), "alertname": alert, "exp_alerts": expected}],
    })
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    if !has_promtool("alerts_fire_when_they_should_and_only_then") {
        return;
    }
    let directory = TempDir::new().unwrap();
    // What an alert says is in the rules; here it is whether it does. Texts would only be copies.
    let mut silent = rules();
    silent.iter_mut().for_each(|rule| rule["annotations"] = json!({}));
    let file = directory.path().join("rules.yml");
    std::fs::write(&file, json!({"groups": [{"name": "nixos-operator.rules", "rules": silent}]}).to_string()).unwrap();
    let mut tests = Vec::new();
    for Case { alert, minutes, fires, labels, quiet } in CASES {
        let labels = labels.iter().chain(&[("component", "operator")]);
        let labels: serde_json::Map<String, Value> =
            labels.map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        assert!(!fires.is_empty() && !quiet.is_empty(), "{alert}");
        tests.extend(fires.iter().map(|series| case(series, alert, *minutes, &[json!({"exp_labels": labels})])));
        tests.extend(quiet.iter().map(|series| case(series, alert, *minutes, &[])));
    }
    println!("{} cases of {} alerts", tests.len(), CASES.len());
    let test = directory.path().join("test.yml");
    let content = json!({"rule_files": [file], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(&test, content.to_string()).unwrap();
    run(Command::new("promtool").args(["test", "rules"]).arg(&test)).unwrap();
}

/// Metrics of the operator, in the form that expressions use.
const METRICS: [&str; 23] = [
    "nio_leader",
    "nio_operator_info",
    "nio_machines_total",
    "nio_machines_discoverable",
    "nio_machines_with_configuration",
    "nio_configurations_total",
    "nio_configurations_applied_total",
    "nio_configurations_failed_total",
    "nio_reconcile_last_success_timestamp_seconds",
    "nio_reconcile_duration_seconds_bucket",
    "nio_reconcile_errors_total",
    "nio_ssh_connections_total",
    "nio_ssh_connection_duration_seconds_bucket",
    "nio_git_clones_total",
    "nio_git_clone_duration_seconds_bucket",
    "nio_nixos_builds_total",
    "nio_nixos_build_duration_seconds_bucket",
    "nio_retries_total",
    "nio_retries_exhausted_total",
    "nio_errors_total",
    "nio_validation_errors_total",
    "up",
    "probe_success",
];

fn dashboard() -> Value {
    let text = std::fs::read_to_string(path("monitoring/grafana/nio-operator-dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_dashboard_is_the_one_that_the_guide_imports() {
    let dashboard = dashboard();
    assert_eq!(
        ["uid", "title", "refresh"].map(|key| dashboard[key].as_str().unwrap()),
        ["nio-operator", "NixOS Infrastructure Operator", "30s"]
    );
    assert_eq!((&dashboard["schemaVersion"], &dashboard["time"]["from"]), (&json!(38), &json!("now-1h")));
    assert_eq!(dashboard["tags"], json!(["nixos", "operator", "infrastructure"]));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.len() == 1 && variables[0]["name"] == "datasource" && dashboard["id"].is_null());
    let panels = dashboard["panels"].as_array().unwrap();
    let (rows, shown): (Vec<_>, Vec<_>) = panels.iter().partition(|panel| panel["type"] == "row");
    assert_eq!(
        rows.iter().map(|row| row["title"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Overview", "Reconciliation Performance", "SSH & Git Operations", "NixOS Builds", "Errors & Retries"]
    );
    assert_eq!(shown.len(), 18);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in &shown {
        assert_eq!(panel["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}));
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()));
    }
    let place = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    for (index, one) in panels.iter().enumerate() {
        assert!(place(one, "x") + place(one, "w") <= 24);
        for other in &panels[index + 1..] {
            let meet = |from: &str, size: &str| {
                let (a, b) = (place(one, from), place(other, from));
                a < b + place(other, size) && b < a + place(one, size)
            };
            assert!(!(meet("x", "w") && meet("y", "h")), "{} and {}", one["title"], other["title"]);
        }
    }
}

#[test]
fn prometheus_understands_what_the_dashboard_asks() {
    if !has_promtool("prometheus_understands_what_the_dashboard_asks") {
        return;
    }
    let rules: Vec<Value> = expressions()
        .iter()
        .enumerate()
        .map(|(number, expression)| json!({"record": format!("panel:{number}"), "expr": expression}))
        .collect();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("panels.yml");
    std::fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    let said = run(Command::new("promtool").args(["check", "rules"]).arg(&file)).unwrap();
    assert!(said.contains("SUCCESS: 18 rules found"), "{said}");
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_the_guide_has() {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let alerts = rules().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    for expression in alerts.chain(expressions()) {
        let names = expression.split(|character| !word(character));
        for name in names.filter(|name| name.starts_with("nio_") || *name == "up" || name.starts_with("probe_")) {
            assert!(METRICS.contains(&name), "there is no {name}: {expression}");
        }
    }
}
