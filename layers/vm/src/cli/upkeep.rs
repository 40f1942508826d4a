//! `gc`, `doctor`, `network`, `maintenance`: the host.

use cairn_core::ErrorKind;
use clap::Args;
use cli::{Daemon, Output, segment};
use reqwest::Method;
use serde_json::{Value, json};
use web::Problem;

use super::view::{list, text};
use super::{Switch, tree};
use crate::errors;

/// Flags of `gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn gc(gc: &Gc, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let (method, name) = if gc.dry_run { (Method::GET, "strays") } else { (Method::DELETE, "removed") };
    let answer: Value = daemon.read(daemon.patient(method, "/v1/strays")).await?;
    let strays = list(&answer, name);
    if output.json {
        output.json(&json!({ "dry_run": gc.dry_run, "strays": strays }));
        return Ok(());
    }
    let rows: Vec<_> = strays.iter().map(|stray| [text(&stray["kind"]), text(&stray["name"])]).collect();
    if !rows.is_empty() {
        output.table(["KIND", "NAME"], &rows);
    }
    let words = if gc.dry_run { "would be removed" } else { "removed" };
    output.line(format_args!("{words}: {}", rows.len()));
    Ok(())
}

pub(super) async fn network(id: Option<&str>, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let path = match id {
        Some(id) => format!("/v1/vms/{}/network", segment(id)),
        None => "/v1/network".to_owned(),
    };
    let answer: Value = daemon.get(&path).await?;
    if output.json {
        output.json(&answer);
        return Ok(());
    }
    for line in tree::lines(&answer) {
        output.line(line);
    }
    Ok(())
}

pub(super) async fn doctor(daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer: Value = daemon.get("/v1/doctor").await?;
    let findings = list(&answer, "findings");
    if output.json {
        output.json(&findings);
    } else {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| [text(&finding["verdict"]), text(&finding["check"]), text(&finding["detail"])])
            .collect();
        output.table(["VERDICT", "CHECK", "FOUND"], &rows);
        for finding in findings.iter().filter(|finding| text(&finding["verdict"]) != "ok") {
            let hint = text(&finding["hint"]);
            if !hint.is_empty() {
                output.line(format_args!("{}: {hint}", text(&finding["check"])));
            }
        }
    }
    let failing: Vec<_> = findings.iter().filter(|finding| text(&finding["verdict"]) == "fail").collect();
    match failing.as_slice() {
        [] => Ok(()),
        failing => {
            let names: Vec<_> = failing.iter().map(|finding| text(&finding["check"])).collect();
            let detail = format!("this host lacks what VMs need: {}", names.join(", "));
            Err(Problem::new(ErrorKind::Failed, errors::HYPERVISOR_MISSING, detail))
        }
    }
}

pub(super) async fn maintenance(switch: Switch, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let verb = match switch {
        Switch::On => Some("enable"),
        Switch::Off => Some("disable"),
        Switch::Show => None,
    };
    if let Some(verb) = verb {
        daemon.send(daemon.request(Method::POST, &format!("/admin/maintenance/{verb}"))).await?;
    }
    let health: Value = daemon.get("/health").await?;
    let on = health["maintenance"].as_bool() == Some(true);
    if output.json {
        output.json(&json!({ "maintenance": on, "active_vms": health["active_vms"] }));
        return Ok(());
    }
    let words = if on { "on: changes are refused" } else { "off: changes are taken" };
    output.line(format_args!("{words}; {} VMs run", super::view::number(&health["active_vms"]).unwrap_or(0)));
    Ok(())
}
