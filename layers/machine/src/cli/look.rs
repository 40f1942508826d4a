//! What changes nothing: lists, probes, facts, history.

use cairn_core::{ErrorKind, chain};
use clap::Args;
use cli::Output;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use web::Problem;

use super::Place;
use super::site::{Site, fault_problem, several, store_problem};
use crate::activation::Remote;
use crate::facts::{self, Facts};
use crate::model::{MachineName, Running, StorePath};
use crate::plan::Fault;
use crate::ports::Host as _;

/// `cairn machine list`.
pub(super) async fn list(site: &Site, output: &Output) -> Result<(), Problem> {
    let mut rows = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for name in &site.chosen {
        let machine = site.machine(name).map_err(|fault| fault_problem(&fault))?;
        let configuration = site.inventory.configuration_of(machine);
        let history = site.store.history(Some(name), 1).await.map_err(|error| store_problem(&error))?;
        let last = history.first();
        let ending = match last {
            None => "",
            Some(last) => last.ending.map_or("running", |ending| ending.as_str()),
        };
        let labels = machine.labels();
        let address = machine.spec.address().unwrap_or_default();
        let of = configuration.map(|configuration| configuration.name_any()).unwrap_or_default();
        let reference = configuration.map(|configuration| configuration.spec.reference.clone()).unwrap_or_default();
        values.push(json!({
            "machine": name, "address": address, "port": machine.spec.ssh_port, "user": machine.spec.user(),
            "labels": labels, "configuration": of, "reference": reference, "last": last,
        }));
        let tags =
            labels.iter().map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") });
        rows.push([
            name.to_string(),
            address.to_owned(),
            of,
            reference,
            tags.collect::<Vec<_>>().join(","),
            ending.to_owned(),
        ]);
    }
    if output.json {
        output.json(&values);
    } else {
        output.table(["MACHINE", "ADDRESS", "CONFIGURATION", "REF", "LABELS", "LAST"], &rows);
    }
    Ok(())
}

/// What one machine answers, or why it does not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<T> {
    machine: MachineName,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    found: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// Asks all machines, so many at once.
async fn ask<T, F: Future<Output = Result<T, Fault>>>(site: &Site, one: impl Fn(MachineName) -> F) -> Vec<Answer<T>> {
    let runs = site.chosen.iter().map(|name| {
        let asked = one(name.clone());
        async move {
            match asked.await {
                Ok(found) => Answer { machine: name.clone(), found: Some(found), error: None },
                Err(fault) => Answer { machine: name.clone(), found: None, error: Some(fault_problem(&fault)) },
            }
        }
    });
    let mut all: Vec<_> = futures::stream::iter(runs).buffer_unordered(site.parallel).collect().await;
    all.sort_by(|one, other| one.machine.cmp(&other.machine));
    all
}

fn end<T>(answers: Vec<Answer<T>>) -> Result<(), Problem> {
    let count = answers.len();
    several(answers.into_iter().filter_map(|answer| Some((answer.machine, answer.error?))).collect(), count)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probed {
    host_key: Option<String>,
    fingerprint: Option<String>,
    /// Whether it runs something else than was last applied.
    drifted: bool,
    #[serde(flatten)]
    running: Running,
}

/// `cairn machine probe`.
pub(super) async fn probe(site: &Site, output: &Output) -> Result<(), Problem> {
    let answers = ask(site, |name| async move {
        let remote = Remote::new(site.ssh(&name).await?);
        let running = remote.running().await?;
        site.keep_key(&name, remote.shell()).await?;
        let last = site.store.last_applied(&name).await.map_err(|error| super::site::store_fault(&error))?;
        let applied = last.and_then(|last| last.progress.system);
        let key = remote.shell().host_key();
        Ok(Probed {
            fingerprint: key.as_ref().map(|key| key.fingerprint()),
            host_key: key.map(|key| key.to_string()),
            drifted: applied.is_some_and(|applied| !running.is(&applied)),
            running,
        })
    })
    .await;
    if output.json {
        output.json(&answers);
        return end(answers);
    }
    let rows: Vec<_> = answers
        .iter()
        .map(|answer| match (&answer.found, &answer.error) {
            (Some(found), _) => {
                let mut remarks = Vec::new();
                if found.drifted {
                    remarks.push("drifted".to_owned());
                }
                if found.running.reboot_required {
                    remarks.push("needs a restart".to_owned());
                }
                if !found.running.failed_units.is_empty() {
                    remarks.push(format!("failed: {}", found.running.failed_units.join(" ")));
                }
                let system = found.running.current.as_ref().map_or("no NixOS", StorePath::name).to_owned();
                [answer.machine.to_string(), "yes".to_owned(), system, remarks.join(", ")]
            }
            (None, Some(error)) => [
                answer.machine.to_string(),
                "no".to_owned(),
                String::new(),
                format!("{} ({})", error.detail, error.code),
            ],
            (None, None) => [answer.machine.to_string(), String::new(), String::new(), String::new()],
        })
        .collect();
    output.table(["MACHINE", "ANSWERS", "SYSTEM", "REMARKS"], &rows);
    end(answers)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    hardware_facts: serde_json::Map<String, Value>,
    hardware: crate::resources::Hardware,
}

/// `cairn machine facts`.
pub(super) async fn facts(site: &Site, output: &Output) -> Result<(), Problem> {
    let answers = ask(site, |name| async move {
        let ssh = site.ssh(&name).await?;
        let Facts { upstream, typed } = facts::ask(&ssh).await?;
        site.keep_key(&name, &ssh).await?;
        Ok(Told { hardware_facts: upstream, hardware: typed })
    })
    .await;
    if output.json {
        output.json(&answers);
        return end(answers);
    }
    let mut rows = Vec::new();
    for answer in &answers {
        if let Some(error) = &answer.error {
            output.note(format_args!("{}: {} ({})", answer.machine, error.detail, error.code));
        }
        for (name, value) in answer.found.iter().flat_map(|found| &found.hardware_facts) {
            match value {
                Value::Object(facts) => rows.extend(
                    facts
                        .iter()
                        .map(|(key, value)| [answer.machine.to_string(), format!("{name}.{key}"), shown(value)]),
                ),
                value => rows.push([answer.machine.to_string(), name.clone(), shown(value)]),
            }
        }
    }
    output.table(["MACHINE", "FACT", "VALUE"], &rows);
    end(answers)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    place: Place,
    /// So many of each machine
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

/// `cairn machine history`.
pub(super) async fn history(options: &History, output: &Output) -> Result<(), Problem> {
    let site = Site::open(&options.place).await?;
    let mut all = Vec::new();
    for name in &site.chosen {
        let history = site.store.history(Some(name), options.limit).await;
        all.extend(
            history.map_err(|error| Problem::new(ErrorKind::Failed, crate::errors::MACHINE_STATE, chain(&error)))?,
        );
    }
    if output.json {
        output.json(&all);
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|deployment| {
            let commit = deployment.progress.commit.as_ref().map(|commit| commit.as_str()[..12].to_owned());
            [
                deployment.machine.to_string(),
                format!("{:.0}", deployment.started_at),
                deployment.ending.map_or(deployment.progress.phase.as_str(), |ending| ending.as_str()).to_owned(),
                commit.unwrap_or_default(),
                deployment.progress.system.as_ref().map(|system| system.name().to_owned()).unwrap_or_default(),
                deployment.reason.clone(),
            ]
        })
        .collect();
    output.table(["MACHINE", "STARTED", "END", "COMMIT", "SYSTEM", "WHY"], &rows);
    Ok(())
}
