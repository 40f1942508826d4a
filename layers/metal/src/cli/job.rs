//! `cairn metal job …`

use std::path::PathBuf;

use cairn_core::ErrorKind;
use clap::{Args, Subcommand, ValueEnum};
use cli::{Daemon, Output, read_text, segment, usage};
use reqwest::Method;
use serde_json::{Value, json};
use web::{Detail, Problem};

use super::watch::{Until, watch};
use crate::api::view::{JobList, JobView};
use crate::errors;

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Run a recipe on a server. Its disk is overwritten
    #[command(after_help = "Examples:
  cairn metal job create ABC123 --recipe debian.json --watch
  cairn metal job create ABC123 --recipe debian.json --dry-run")]
    Create(Create),
    /// List jobs, newest first
    List {
        /// Only those in this state
        #[arg(long)]
        status: Option<String>,
        /// Only those of this server
        #[arg(long, value_name = "SERIAL")]
        server: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show a job and its history
    Show {
        /// Job id
        job: String,
    },
    /// Follow a job until it is over; the exit code says how it went
    Watch {
        /// Job id
        job: String,
        /// What is waited for
        #[arg(long, value_enum, default_value = "first-boot")]
        until: UntilArg,
    },
    /// End a job: the machine is switched off, media are ejected
    Cancel {
        /// Job id
        job: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Serial number of the server
    serial: String,
    /// Recipe, a JSON file; '-' reads it from standard input
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// The same key brings the same job, however often it is sent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Check the recipe and say what would be done to the disk; do nothing
    #[arg(long)]
    dry_run: bool,
    /// Follow the job until it is over
    #[arg(long)]
    watch: bool,
    /// What is waited for with --watch
    #[arg(long, value_enum, default_value = "first-boot")]
    until: UntilArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum UntilArg {
    /// The machine was switched on from its own disk
    Complete,
    /// The installed system has reported from its own disk
    FirstBoot,
}

impl From<UntilArg> for Until {
    fn from(until: UntilArg) -> Self {
        match until {
            UntilArg::Complete => Self::Complete,
            UntilArg::FirstBoot => Self::FirstBoot,
        }
    }
}

pub(super) async fn run(command: JobCommand, client: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        JobCommand::Create(create) => self::create(&create, client, output).await,
        JobCommand::List { status, server, limit } => list(status, server, limit, client, output).await,
        JobCommand::Show { job } => {
            let view: JobView = client.get(&format!("/api/v1/jobs/{}", segment(&job))).await?;
            if output.json {
                output.json(&view)
            } else {
                show(&view, output)
            }
            Ok(())
        }
        JobCommand::Watch { job, until } => watch(&job, until.into(), client, output).await,
        JobCommand::Cancel { job } => {
            let path = format!("/api/v1/jobs/{}/cancel", segment(&job));
            let view: JobView = client.write(Method::POST, &path, &json!({})).await?;
            if output.json {
                output.json(&view);
            } else {
                output.line(format_args!("job {} is being cancelled", view.job_id));
            }
            Ok(())
        }
    }
}

async fn create(create: &Create, client: &Daemon, output: &Output) -> Result<(), Problem> {
    let text = match create.recipe.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin())
            .map_err(|error| usage(format!("cannot read standard input: {error}")))?,
        _ => read_text(&create.recipe)?,
    };
    let recipe: Value = serde_json::from_str(&text)
        .map_err(|error| usage(format!("{} is no JSON: {error}", create.recipe.display())))?;
    if create.dry_run {
        return dry_run(&create.serial, &recipe, client, output).await;
    }
    let body = json!({ "server_serial": create.serial, "recipe": recipe });
    let mut request = client.request(Method::POST, "/api/v1/jobs").json(&body);
    if let Some(key) = &create.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let view: JobView = client.read(request).await?;
    for warning in &view.warnings {
        output.note(format_args!("warning: {warning}"));
    }
    if create.watch {
        output.note(format_args!("job {} queued", view.job_id));
        return watch(&view.job_id.to_string(), create.until.into(), client, output).await;
    }
    if output.json {
        output.json(&view);
    } else {
        output.line(format_args!("job {} {}", view.job_id, view.status));
    }
    Ok(())
}

/// What the controller would check, without its artifact and its queue.
async fn dry_run(serial: &str, recipe: &Value, client: &Daemon, output: &Output) -> Result<(), Problem> {
    let parsed = recipe::parse(recipe).map_err(|violations| {
        let details: Vec<_> =
            violations.into_iter().map(|fault| Detail::at(&fault.path, fault.code, fault.message)).collect();
        Problem::new(ErrorKind::Invalid, errors::VALIDATION, format!("the recipe has {} fault(s)", details.len()))
            .detail_list(details)
    })?;
    if !parsed.task_target.can_run() {
        let detail = format!("{} cannot be run by this version", parsed.task_target);
        return Err(Problem::new(ErrorKind::Invalid, errors::TARGET_NOT_SUPPORTED, detail));
    }
    let _: Value = client.get(&format!("/api/v1/servers/{}", segment(serial))).await?;
    let lints = recipe::lints(&parsed);
    if output.json {
        output.json(&json!({ "server_serial": serial, "recipe": parsed, "lints": lints }));
        return Ok(());
    }
    let disk = match &parsed.target_disk {
        Some(disk) => serde_json::to_string(disk).unwrap_or_default(),
        None => "no disk".to_owned(),
    };
    output.line(format_args!("would run {} on server {serial} and overwrite {disk}", parsed.task_target));
    for (number, partition) in parsed.partition_layout.iter().enumerate() {
        let format = serde_json::to_value(partition).unwrap_or_default();
        output.line(format_args!("  partition {}: {format}", number + 1));
    }
    output.line("  not looked at: whether the artifact is there, and whether the server has an active job");
    for lint in lints {
        output.line(format_args!("  warning: {}: {}", lint.code, lint.message));
    }
    Ok(())
}

async fn list(
    status: Option<String>,
    server: Option<String>,
    limit: u32,
    client: &Daemon,
    output: &Output,
) -> Result<(), Problem> {
    let mut path = format!("/api/v1/jobs?limit={limit}");
    for (name, value) in [("status", status), ("serial", server)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(&value)));
        }
    }
    let page: JobList = client.get(&path).await?;
    if output.json {
        output.json(&page.jobs);
        return Ok(());
    }
    let rows: Vec<_> = page
        .jobs
        .iter()
        .map(|job| {
            [
                job.job_id.to_string(),
                job.server_serial.clone(),
                job.status.to_string(),
                job.outcome.clone().unwrap_or_else(|| job.phase.to_string()),
                job.failed_step.clone().unwrap_or_default(),
                first_boot(job),
                format!("{:.0}", job.created_at),
            ]
        })
        .collect();
    output.table(["JOB", "SERVER", "STATUS", "OUTCOME/PHASE", "FAILED STEP", "FIRST BOOT", "CREATED"], &rows);
    Ok(())
}

fn first_boot(job: &JobView) -> String {
    job.condition("FirstBoot").map(|condition| condition.reason.clone()).unwrap_or_default()
}

fn show(job: &JobView, output: &Output) {
    output.line(format_args!("job         {}", job.job_id));
    output.line(format_args!("server      {}", job.server_serial));
    output.line(format_args!("target      {} (attempt {})", job.task_target, job.attempt));
    if let Some(artifact) = &job.artifact {
        output.line(format_args!("artifact    {} = {}", artifact.requested, artifact.digest));
    }
    output.line(format_args!("status      {} ({})", job.status, job.phase));
    if !job.reason.is_empty() {
        output.line(format_args!("reason      {}", job.reason));
    }
    if let Some(outcome) = &job.outcome {
        output.line(format_args!("outcome     {outcome}"));
    }
    if let (Some(step), Some(code)) = (&job.failed_step, &job.failed_code) {
        output.line(format_args!("failed      {step}: {code}: {}", job.failed_detail.as_deref().unwrap_or_default()));
    }
    output.line(format_args!("first boot  {}", first_boot(job)));
    if let (Some(power), Some(seen)) = (&job.power, job.power_seen_at) {
        output.line(format_args!("power       {power} (seen {seen:.0})"));
    }
    output.line(format_args!("created     {:.0}", job.created_at));
    output.line(format_args!("changed     {:.0}", job.last_update));
    for event in &job.events {
        output.line(super::watch::event_line(event));
    }
}
