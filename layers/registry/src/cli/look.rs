//! Commands that only look, and the switch.

use clap::Args;
use cli::{Daemon, size};
use reqwest::Method;
use url::form_urlencoded::Serializer;
use web::Problem;

use super::target::{Target, storage_problem};
use super::{Endpoint, Output, Place, Switch};
use crate::model::{
    AuditEntry, AuditPage, ReadOnlyView, RepositoryList, RepositoryView, RunView, StatusView, UsageReport, UsageView,
};
use crate::work::{self, RepositoryFilter};

/// Entries that one request asks for.
const PAGE: usize = 1000;

pub(super) async fn status(place: &Place, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    match Target::open(place, endpoint).await? {
        Target::Directory(storage) => {
            let usage = work::usage(&storage).await.map_err(|error| storage_problem(&error))?;
            if output.json {
                output.json(&usage);
            } else {
                print_usage(&usage, output);
            }
        }
        Target::Daemon(client) => {
            let status: StatusView = client.get("/api/v1/registry").await?;
            if output.json {
                output.json(&status);
            } else {
                print_status(&status, output);
            }
        }
    }
    Ok(())
}

fn print_usage(usage: &UsageView, output: &Output) {
    output.line(format_args!("stored      {} in {} blobs", size(usage.bytes), usage.blobs));
    output.line(format_args!("quarantine  {}", size(usage.quarantine_bytes)));
}

fn print_status(status: &StatusView, output: &Output) {
    print_usage(&status.usage, output);
    let disk = status.disk;
    let kept = size(disk.min_free);
    output.line(format_args!("disk        {} free of {}, {kept} are kept free", size(disk.free), size(disk.total)));
    output.line(format_args!("login       {}", status.login));
    output.line(format_args!("read-only   {}", if status.read_only { "on" } else { "off" }));
    if let Some(running) = &status.running {
        output.line(format_args!("under way   {running}"));
    }
    if let Some(saturation) = &status.saturation {
        output.line(format_args!("saturated   {} ({})", saturation.detail, saturation.reason));
    }
    for RunView { kind, ended, outcome, .. } in &status.last_runs {
        output.line(format_args!("last run    {kind} {outcome} {ended:.0}"));
    }
    if !status.uploads.is_empty() {
        let rows = status.uploads.iter().map(|upload| {
            [upload.repository.clone(), upload.user.clone(), size(upload.bytes), format!("{} s", upload.seconds)]
        });
        output.table(["UPLOAD TO", "USER", "BYTES", "FOR"], &rows.collect::<Vec<_>>());
    }
}

pub(super) async fn ls(
    prefix: Option<String>,
    place: &Place,
    endpoint: &Endpoint,
    output: &Output,
) -> Result<(), Problem> {
    let repositories = match Target::open(place, endpoint).await? {
        Target::Directory(storage) => {
            let filter = RepositoryFilter { prefix, after: None, most: usize::MAX };
            work::repositories(&storage, &filter).await.map_err(|error| storage_problem(&error))?.repositories
        }
        Target::Daemon(client) => all_repositories(&client, prefix.as_deref()).await?,
    };
    if output.json {
        output.json(&repositories);
        return Ok(());
    }
    let mut rows = Vec::new();
    for repository in repositories {
        if let Some(damage) = repository.damage {
            let hint = format!("(damaged: {damage}; see cairn registry fsck)");
            rows.push([repository.name.clone(), String::new(), hint]);
        } else if repository.tags.is_empty() {
            rows.push([repository.name.clone(), String::new(), "(no tags)".to_owned()]);
        }
        for tag in repository.tags {
            rows.push([format!("{}:{}", repository.name, tag.name), tag.digest, tag.media_type]);
        }
    }
    output.table(["NAME", "DIGEST", "TYPE"], &rows);
    Ok(())
}

async fn all_repositories(client: &Daemon, prefix: Option<&str>) -> Result<Vec<RepositoryView>, Problem> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let query =
            query(&[("limit", Some(PAGE.to_string())), ("prefix", prefix.map(str::to_owned)), ("cursor", cursor)]);
        let page: RepositoryList = client.get(&format!("/api/v1/registry/repositories?{query}")).await?;
        all.extend(page.repositories);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(all),
        }
    }
}

pub(super) async fn du(largest: usize, place: &Place, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let report: UsageReport = match Target::open(place, endpoint).await? {
        Target::Directory(storage) => {
            work::usage_report(&storage, largest).await.map_err(|error| storage_problem(&error))?
        }
        Target::Daemon(client) => client.get(&format!("/api/v1/registry/usage?largest={largest}")).await?,
    };
    if output.json {
        output.json(&report);
        return Ok(());
    }
    print_usage(&report.usage, output);
    let rows = report.repositories.into_iter().map(|row| [row.name, size(row.bytes), row.blobs.to_string()]);
    output.line("");
    output.table(["REPOSITORY", "SIZE", "BLOBS"], &rows.collect::<Vec<_>>());
    if !report.largest.is_empty() {
        let rows = report.largest.into_iter().map(|blob| {
            let referenced = if blob.referenced { "" } else { "nothing refers to it" };
            [blob.digest, size(blob.size), blob.repositories.join(", "), referenced.to_owned()]
        });
        output.line("");
        output.table(["LARGEST", "SIZE", "HELD BY", ""], &rows.collect::<Vec<_>>());
    }
    Ok(())
}

/// Flags of `audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// So many entries
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only of this repository
    #[arg(long)]
    repository: Option<String>,
    /// Only of this user
    #[arg(long, value_name = "USER")]
    by: Option<String>,
}

pub(super) async fn audit(audit: Audit, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let client = Daemon::new(endpoint)?;
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut cursor = None;
    while entries.len() < audit.limit {
        let limit = (audit.limit - entries.len()).min(PAGE).to_string();
        let (repository, user) = (audit.repository.clone(), audit.by.clone());
        let query = query(&[("limit", Some(limit)), ("repository", repository), ("user", user), ("cursor", cursor)]);
        let page: AuditPage = client.get(&format!("/api/v1/registry/audit?{query}")).await?;
        entries.extend(page.entries);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    if output.json {
        output.json(&entries);
        return Ok(());
    }
    let rows = entries.into_iter().map(|entry| {
        let what = match (entry.repository, entry.reference) {
            (Some(repository), Some(reference)) => format!("{repository} {reference}"),
            (repository, reference) => repository.or(reference).unwrap_or_default(),
        };
        [
            format!("{:.0}", entry.time),
            entry.user,
            entry.client,
            entry.action,
            what,
            entry.size.map(size).unwrap_or_default(),
        ]
    });
    output.table(["TIME", "USER", "CLIENT", "ACTION", "WHAT", "SIZE"], &rows.collect::<Vec<_>>());
    Ok(())
}

pub(super) async fn read_only(switch: Option<Switch>, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    const PATH: &str = "/api/v1/registry/read-only";
    let client = Daemon::new(endpoint)?;
    let view: ReadOnlyView = match switch {
        Some(switch) => client.write(Method::PUT, PATH, &ReadOnlyView { read_only: switch == Switch::On }).await?,
        None => client.get(PATH).await?,
    };
    if output.json {
        output.json(&view);
    } else {
        output.line(if view.read_only {
            "on: pushes and deletes are refused"
        } else {
            "off: pushes and deletes are taken"
        });
    }
    Ok(())
}

/// A query of those that have a value.
fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}
