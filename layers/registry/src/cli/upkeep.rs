//! `gc`, `fsck`, `retention`: the same report from a daemon and from a directory.

use std::sync::{Arc, Mutex, PoisonError};

use cairn_core::ErrorKind;
use clap::Args;
use cli::size;
use oci_registry::storage::StorageError;
use serde::Serialize;
use serde_json::Value;
use web::Problem;

use super::target::{Target, storage_problem};
use super::{Endpoint, Output, Place};
use crate::errors;
use crate::model::{CheckOrder, DryRun, RestoreOrder};
use crate::settings::RegistrySettings;
use crate::work;

/// Flags of `gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// Say what would be collected, and collect nothing
    #[arg(long)]
    dry_run: bool,
    /// Bring back what is in quarantine: of this run, or of all
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with = "dry_run")]
    restore: Option<Option<u64>>,
    #[command(flatten)]
    place: Place,
}

/// Flags of `fsck`.
#[derive(Debug, Args)]
pub struct Fsck {
    /// Mend what can be mended; damaged content goes to quarantine
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    place: Place,
}

/// Flags of `retention`.
#[derive(Debug, Args)]
pub struct RetentionArgs {
    /// Say which tags would go, and remove none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) async fn gc(
    gc: &Gc,
    endpoint: &Endpoint,
    settings: &RegistrySettings,
    output: &Output,
) -> Result<(), Problem> {
    if let Some(run) = gc.restore {
        return restore(run, &gc.place, endpoint, output).await;
    }
    let target = Target::open(&gc.place, endpoint).await?;
    let watch = Watch::start(output, "collecting");
    let report = match target {
        Target::Directory(storage) => value(work::collect(&storage, &settings.upkeep, gc.dry_run, Vec::new()).await)?,
        Target::Daemon(client) => client.work("/api/v1/registry/gc", &DryRun { dry_run: gc.dry_run }).await?,
    };
    watch.end();
    if output.json {
        output.json(&report);
        return Ok(());
    }
    let rows: Vec<_> = list(&report, "quarantined")
        .map(|one| {
            let bytes = one["size"].as_u64().map(size).unwrap_or_default();
            [text(&one["kind"]), text(&one["repository"]), text(&one["digest"]), bytes]
        })
        .collect();
    if !rows.is_empty() {
        output.table(["KIND", "REPOSITORY", "DIGEST", "SIZE"], &rows);
    }
    for one in list(&report, "skipped") {
        output.note(format_args!("warning: {} is left alone: {}", text(&one["repository"]), text(&one["reason"])));
    }
    let [manifests, holds, blobs, bytes, quarantine] =
        ["manifests", "holds", "blobs", "bytes", "quarantine_bytes"].map(|name| report[name].as_u64().unwrap_or(0));
    let words = if gc.dry_run { "would be collected" } else { "collected" };
    output.line(format_args!("{words}: {manifests} manifests, {holds} holds, {blobs} blobs ({})", size(bytes)));
    if let Some(run) = report["run"].as_u64().filter(|_| !gc.dry_run) {
        output.line(format_args!("cairn registry gc --restore {run} brings it back"));
    }
    let expired = list(&report, "expired_runs").count();
    if expired > 0 {
        output.line(format_args!("{expired} earlier runs were removed for good"));
    }
    output.line(format_args!("{} in quarantine", size(quarantine)));
    Ok(())
}

async fn restore(run: Option<u64>, place: &Place, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let target = Target::open(place, endpoint).await?;
    let watch = Watch::start(output, "restoring");
    let report = match target {
        Target::Directory(storage) => value(storage.restore(run).await)?,
        Target::Daemon(client) => client.work("/api/v1/registry/restore", &RestoreOrder { run }).await?,
    };
    watch.end();
    if output.json {
        output.json(&report);
        return Ok(());
    }
    let [manifests, holds, blobs, bytes] =
        ["manifests", "holds", "blobs", "bytes"].map(|name| report[name].as_u64().unwrap_or(0));
    output.line(format_args!("back: {manifests} manifests, {holds} holds, {blobs} blobs ({})", size(bytes)));
    for digest in list(&report, "left") {
        output.note(format_args!("warning: {} stays in quarantine: it is damaged or not whole", text(digest)));
    }
    Ok(())
}

pub(super) async fn retention(
    arguments: &RetentionArgs,
    endpoint: &Endpoint,
    settings: &RegistrySettings,
    output: &Output,
) -> Result<(), Problem> {
    let dry_run = arguments.dry_run;
    let report = match Target::open(&arguments.place, endpoint).await? {
        Target::Directory(storage) => value(work::retain(&storage, &settings.upkeep, dry_run, &[]).await)?,
        Target::Daemon(client) => client.work("/api/v1/registry/retention", &DryRun { dry_run }).await?,
    };
    if output.json {
        output.json(&report);
        return Ok(());
    }
    let rows: Vec<_> = list(&report, "removed")
        .map(|one| [format!("{}:{}", text(&one["repository"]), text(&one["tag"])), text(&one["digest"])])
        .collect();
    if !rows.is_empty() {
        output.table(["TAG", "DIGEST"], &rows);
    }
    let words = if dry_run { "would be removed" } else { "removed" };
    output.line(format_args!("{words}: {} tags", rows.len()));
    Ok(())
}

pub(super) async fn fsck(fsck: &Fsck, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let target = Target::open(&fsck.place, endpoint).await?;
    let watch = Watch::start(output, "checking");
    let report = match target {
        Target::Directory(storage) => {
            let bar = watch.bar();
            let progress = move |progress: oci_registry::storage::maintenance::CheckProgress| {
                let bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
                bar.set_message(format!("checking: {} of {}", size(progress.bytes), size(progress.bytes_total)));
            };
            value(work::check(&storage, fsck.repair, progress).await)?
        }
        Target::Daemon(client) => client.work("/api/v1/registry/check", &CheckOrder { repair: fsck.repair }).await?,
    };
    watch.end();
    let findings: Vec<&Value> = list(&report, "findings").collect();
    let mended = findings.iter().filter(|finding| finding["repaired"].as_bool() == Some(true)).count();
    if output.json {
        output.json(&report);
    } else {
        let rows: Vec<_> = findings
            .iter()
            .map(|one| {
                let mended = if one["repaired"].as_bool() == Some(true) { "mended" } else { "" };
                [text(&one["kind"]), text(&one["repository"]), text(&one["path"]), mended.to_owned()]
            })
            .collect();
        if !rows.is_empty() {
            output.table(["FINDING", "REPOSITORY", "PATH", ""], &rows);
        }
        let [blobs, bytes] = ["blobs", "bytes"].map(|name| report[name].as_u64().unwrap_or(0));
        output.line(format_args!("{blobs} blobs ({}) read, {} findings, {mended} mended", size(bytes), findings.len()));
    }
    verdict(findings.len(), mended, fsck.repair)
}

/// Damage that stays is bad news, whoever asked for it.
fn verdict(findings: usize, mended: usize, repair: bool) -> Result<(), Problem> {
    let left = findings - mended;
    if left == 0 {
        return Ok(());
    }
    let detail = format!("{left} findings are not mended");
    let problem = Problem::new(ErrorKind::Failed, errors::REGISTRY_DAMAGED, detail);
    Err(if repair {
        problem.hint("push that content again, or delete what names it")
    } else {
        problem.hint("cairn registry fsck --repair mends what can be mended")
    })
}

fn value<T: Serialize>(report: Result<T, StorageError>) -> Result<Value, Problem> {
    let report = report.map_err(|error| storage_problem(&error))?;
    serde_json::to_value(report).map_err(|error| Problem::internal(&error))
}

fn list<'a>(report: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    report[name].as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A sign of life while something takes its time.
struct Watch {
    bar: Arc<Mutex<indicatif::ProgressBar>>,
}

impl Watch {
    fn start(output: &Output, message: &'static str) -> Self {
        let bar = indicatif::ProgressBar::new_spinner().with_message(message);
        if output.is_watched() {
            bar.enable_steady_tick(std::time::Duration::from_millis(200));
        }
        Self { bar: Arc::new(Mutex::new(bar)) }
    }

    fn bar(&self) -> Arc<Mutex<indicatif::ProgressBar>> {
        Arc::clone(&self.bar)
    }

    fn end(self) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}
