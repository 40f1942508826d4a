//! What machines report: the webhook, step reports and the first boot. A per-job token proves who speaks.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use cairn_core::ErrorKind;
use recipe::callback::{Progress, ProgressEvent, Report, ReportStatus};
use serde_json::{Value, json};
use web::{Json, Problem};

use super::{Shared, header, not_found};
use crate::context::Metal;
use crate::errors;
use crate::metrics::{FAILURE_STEPS, Metrics};
use crate::model::{Failure, FirstBoot, Job, JobId, JobOutcome, Level, Serial, Status};
use crate::store::{Delivery, Ending};
use crate::tokens::{Match, Purpose};

const SECRET_HEADER: &str = "x-webhook-secret";

/// `POST /api/v1/status-webhook/{serial}` (design 032). A report that comes late or twice is answered with 200 and changes
/// nothing, so that the sender stops.
pub(super) async fn webhook(
    State(metal): Shared,
    Path(serial): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let received = Instant::now();
    let body = body.map_err(|rejection| {
        Problem::new(ErrorKind::Invalid, web::codes::BODY_TOO_LARGE, "a report has at most 64 KiB")
            .status(rejection.status().as_u16())
    })?;
    let document: Option<Value> = serde_json::from_slice(&body).ok();
    let serial: Serial = serial.parse().map_err(|_| unauthorized(&metal))?;
    let named = document.as_ref().and_then(|document| document.get("job_id")?.as_str()?.parse::<JobId>().ok());
    let latest = metal.store.latest_job(&serial).await?;
    let job = match named {
        Some(id) => metal.store.job(id).await?,
        None => latest.clone(),
    };
    let matched = prove(&metal, &headers, job.as_ref()).ok_or_else(|| unauthorized(&metal))?;
    if matched == Match::Old {
        metal.metrics.webhook_old_secret.inc();
        tracing::warn!(server_serial = %serial, "a report was proved with the secret before the rotation");
    }
    let Some(job) = job else { return Err(not_found("job of server", &serial)) };
    if job.serial != serial {
        let detail = format!("job {} is not a job of server {serial}", job.id);
        return Err(Problem::new(ErrorKind::Conflict, errors::WEBHOOK_OTHER_JOB, detail));
    }
    let report = read(document)?;
    let ending = ending(&report);
    let duplicate = match metal.store.deliver(job.id, report.delivery_id.as_deref(), &ending, metal.clock.now()).await?
    {
        Delivery::Accepted => false,
        Delivery::Duplicate => true,
    };
    let status = match (duplicate, report.status) {
        (true, _) => "duplicate",
        (false, ReportStatus::Success) => "success",
        (false, ReportStatus::Failed) => "failed",
    };
    metal.metrics.webhooks.with([status]).inc();
    Metrics::seconds(&metal.metrics.webhook_duration, received.elapsed());
    tracing::info!(job_id = %job.id, server_serial = %serial, step = "webhook.wait", op = "webhook", status,
        failed_step = report.failed_step.as_deref(), worker_id = metal.worker_id,
        duration_ms = u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX), "report received");
    if duplicate {
        metal.metrics.webhook_duplicates.inc();
        return Ok(Json(json!({ "ok": true, "idempotent": true })));
    }
    metal.metrics.ended(&job, &ending, metal.clock.now());
    metal.wake.job(job.id);
    Ok(Json(json!({ "ok": true })))
}

/// `POST /api/v1/jobs/{job}/progress`: what a step says on its way. Losing one changes nothing.
pub(super) async fn progress(
    State(metal): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(progress): Json<Progress>,
) -> Result<StatusCode, Problem> {
    let job = proved_job(&metal, &id, &headers, Purpose::Webhook).await?;
    if job.status != Status::Provisioning {
        return Ok(StatusCode::NO_CONTENT);
    }
    let now = metal.clock.now();
    if metal.store.contact(job.id, now).await? {
        metal.store.append_event(job.id, now, Level::Info, "the maintenance OS was heard of", None).await?;
    }
    let unit = plain_line(&progress.unit);
    let told = plain_line(progress.message.as_deref().unwrap_or_default());
    let line = match progress.event {
        ProgressEvent::Started => Some((Level::Info, format!("{unit} started"))),
        ProgressEvent::Finished if told.is_empty() => Some((Level::Info, format!("{unit} finished"))),
        ProgressEvent::Finished => Some((Level::Info, format!("{unit} finished: {told}"))),
        ProgressEvent::Failed => Some((Level::Error, format!("{unit} failed: {told}"))),
        ProgressEvent::Running => None,
    };
    match line {
        Some((level, message)) => metal.store.append_event(job.id, now, level, &message, Some(&unit)).await?,
        None => {
            metal.store.set_reason(job.id, &running(&unit, &progress, &told)).await?;
        }
    }
    metal.wake.job(job.id);
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/jobs/{job}/first-boot`: the installed system has booted from its own disk.
pub(super) async fn first_boot(
    State(metal): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let job = proved_job(&metal, &id, &headers, Purpose::FirstBoot).await?;
    if metal.store.set_first_boot(job.id, FirstBoot::Reported, metal.clock.now()).await? {
        metal.metrics.first_boots.with(["reported"]).inc();
        tracing::info!(job_id = %job.id, server_serial = %job.serial, "first boot reported");
        metal.wake.job(job.id);
    }
    Ok(StatusCode::NO_CONTENT)
}

fn running(unit: &str, progress: &Progress, told: &str) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    match (progress.bytes_done, progress.bytes_total) {
        (Some(done), Some(total)) => format!("{unit}: {} of {} MiB", done / MEBIBYTE, total / MEBIBYTE),
        (Some(done), None) => format!("{unit}: {} MiB", done / MEBIBYTE),
        _ => format!("{unit}: {told}"),
    }
}

async fn proved_job(metal: &Metal, id: &str, headers: &HeaderMap, purpose: Purpose) -> Result<Job, Problem> {
    let id: JobId = id.parse().map_err(|_| unauthorized(metal))?;
    let job = metal.store.job(id).await?.ok_or_else(|| unauthorized(metal))?;
    let given = header(headers, SECRET_HEADER).unwrap_or_default();
    match metal.webhook.check_token(given, purpose, job.id, job.attempt) {
        Some(_) => Ok(job),
        None => Err(unauthorized(metal)),
    }
}

/// The job's own token, or the shared secret where an operator has set one (images may have been built with it).
fn prove(metal: &Metal, headers: &HeaderMap, job: Option<&Job>) -> Option<Match> {
    let given = header(headers, SECRET_HEADER).filter(|given| !given.is_empty())?;
    let token = job.and_then(|job| metal.webhook.check_token(given, Purpose::Webhook, job.id, job.attempt));
    token.or_else(|| metal.webhook.check_plain(given).filter(|_| metal.webhook_secret_is_shared))
}

fn unauthorized(metal: &Metal) -> Problem {
    metal.metrics.webhook_auth_failures.inc();
    tracing::warn!("a report came with a wrong secret or none");
    Problem::new(ErrorKind::Unauthorized, web::codes::UNAUTHORIZED, "X-Webhook-Secret is missing or wrong")
        .hint("the secret is the job's token from callback.json, or WEBHOOK_SECRET")
}

fn read(document: Option<Value>) -> Result<Report, Problem> {
    let invalid = |code, detail: String| Problem::new(ErrorKind::Invalid, code, detail);
    let mut document = document.ok_or_else(|| invalid(web::codes::INVALID_JSON, "the report is no JSON".to_owned()))?;
    if let Some(status) = document.get_mut("status")
        && let Some(text) = status.as_str()
    {
        *status = Value::String(text.trim().to_ascii_lowercase());
    }
    let report: Report = serde_json::from_value(document)
        .map_err(|problem| invalid(web::codes::INVALID_REQUEST, format!("the report is not readable: {problem}")))?;
    if report.status == ReportStatus::Failed && report.failed_step.as_deref().is_none_or(|step| step.trim().is_empty())
    {
        return Err(invalid(web::codes::INVALID_REQUEST, "a failed report names its failed_step".to_owned()));
    }
    if report.delivery_id.as_ref().is_some_and(|id| id.len() > 128) {
        return Err(invalid(web::codes::INVALID_REQUEST, "a delivery_id has at most 128 characters".to_owned()));
    }
    Ok(report)
}

fn ending(report: &Report) -> Ending {
    match report.status {
        ReportStatus::Success => Ending {
            outcome: JobOutcome::Succeeded,
            failure: None,
            reported: true,
            first_boot_reporter: report.first_boot_reporter.unwrap_or(true),
            event_step: "webhook-success".to_owned(),
        },
        ReportStatus::Failed => {
            let unit = plain_line(report.failed_step.as_deref().unwrap_or_default());
            let code =
                report.code.clone().filter(|code| is_code(code)).unwrap_or_else(|| errors::STEP_FAILED.to_owned());
            let detail = plain_line(report.message.as_deref().unwrap_or("the unit failed"));
            Ending {
                outcome: JobOutcome::Failed,
                failure: Some(Failure { step: workflow(&unit), code, detail }),
                reported: true,
                first_boot_reporter: false,
                event_step: unit,
            }
        }
    }
}

/// What a machine said, fit for a log and a terminal: one line, without control characters and without secrets.
fn plain_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    observe::redaction::redact_text(line.trim()).into_owned()
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Key of the taxonomy for a systemd unit (design 032): `X.service` is `workflow.X`.
fn workflow(unit: &str) -> String {
    let name = unit.trim().trim_end_matches(".service");
    let key = match name {
        "provision-dispatcher" => "workflow.dispatcher".to_owned(),
        name => format!("workflow.{name}"),
    };
    if FAILURE_STEPS.contains(&key.as_str()) { key } else { "workflow.unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_keys_of_the_taxonomy() {
        assert_eq!(workflow("bootloader-linux.service"), "workflow.bootloader-linux");
        assert_eq!(workflow("provision-dispatcher.service"), "workflow.dispatcher");
        assert_eq!(workflow("../../etc"), "workflow.unknown");
    }

    #[test]
    fn a_failed_report_names_its_step() {
        assert!(read(Some(json!({"status": " FAILED ", "failed_step": "partition.service", "x": 1}))).is_ok());
        for bad in [json!({"status": "failed"}), json!({"status": "done"}), json!({}), json!([])] {
            assert_eq!(read(Some(bad)).unwrap_err().code, web::codes::INVALID_REQUEST);
        }
        assert_eq!(read(None).unwrap_err().code, web::codes::INVALID_JSON);
    }
}
