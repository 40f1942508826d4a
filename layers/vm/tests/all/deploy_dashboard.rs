//! The Grafana dashboard: it can be imported, and Prometheus understands what it asks.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::run;

use crate::deploy::{has, repository, text, yaml};

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/metald.json")).unwrap()
}

/// Panels that show something, with the title of each.
fn panels(dashboard: &Value) -> Vec<(&str, &Value)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| (panel["title"].as_str().unwrap(), panel)).collect()
}

/// What all panels ask, with the title of each.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let of = |(title, panel): (&str, &Value)| {
        let targets = panel["targets"].as_array().unwrap().clone();
        let title = title.to_owned();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels(dashboard).into_iter().flat_map(of).collect()
}

/// With values in the place of Grafana's variables.
fn filled(expression: &str) -> String {
    let filled = [("$job", "metald"), ("$instance", ".+"), ("$__rate_interval", "5m")]
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!filled.contains('$'), "{filled}");
    filled
}

#[test]
fn it_is_the_model_that_an_import_takes() {
    let dashboard = dashboard();
    // The guide's example wraps it for the API; an import of a file does not take that.
    assert!(dashboard["dashboard"].is_null() && dashboard["id"].is_null());
    assert_eq!(
        (dashboard["title"].as_str(), dashboard["uid"].as_str()),
        (Some("Metald Operations"), Some("metald-operations"))
    );
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    for (title, panel) in panels(&dashboard) {
        assert_eq!(panel["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("w") > 0 && place("h") > 0 && place("x") + place("w") <= 24, "{title}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let place = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let all: Vec<&Value> = dashboard["panels"].as_array().unwrap().iter().collect();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let meet = |from: &str, size: &str| {
                let (a, b) = (place(one, from), place(other, from));
                a < b + place(other, size) && b < a + place(one, size)
            };
            assert!(!(meet("x", "w") && meet("y", "h")), "{} and {}", one["title"], other["title"]);
        }
    }
}

#[test]
fn the_guides_panels_are_there() {
    let dashboard = dashboard();
    for (title, metric) in
        [("Active VMs by Customer", "sum(unkey_metald_active_vms"), ("VM Boot Performance", "histogram_quantile(0.99")]
    {
        let (_, panel) = panels(&dashboard).into_iter().find(|(name, _)| *name == title).unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(targets.iter().any(|target| target["expr"].as_str().unwrap().starts_with(metric)), "{title}");
    }
}

#[test]
fn prometheus_understands_every_expression() {
    if !has("prometheus_understands_every_expression", &["promtool"]) {
        return;
    }
    let dashboard = dashboard();
    let rules: Vec<Value> = expressions(&dashboard)
        .iter()
        .enumerate()
        .map(|(number, (_, expression))| json!({"record": format!("panel:{number}"), "expr": filled(expression)}))
        .collect();
    assert!(rules.len() > 20, "{}", rules.len());
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("panels.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    let said = run(Command::new("promtool").args(["check", "rules"]).arg(&file)).unwrap();
    assert!(said.contains(&format!("{} rules found", rules.len())), "{said}");
}

/// Names of metrics in an expression, without the suffixes of histograms.
fn metrics(expression: &str) -> BTreeSet<String> {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let ours = ["unkey_metald_", "metald_", "process_", "go_"];
    let names =
        expression.split(|character| !word(character)).filter(|name| ours.iter().any(|ours| name.starts_with(ours)));
    let plain = |name: &str| {
        ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    names.map(plain).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let golden = std::fs::read_to_string(repository().join("api/metrics.txt")).unwrap();
    let known: BTreeSet<&str> = golden.lines().filter_map(|line| line.split(' ').next()).collect();
    let alerts = yaml("prometheus/alerts.yml");
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    let alerts = rules
        .iter()
        .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned()));
    for (title, expression) in expressions(&dashboard()).into_iter().chain(alerts) {
        for metric in metrics(&expression) {
            assert!(known.contains(metric.as_str()), "{title}: there is no {metric}");
        }
    }
}
