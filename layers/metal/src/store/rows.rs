//! Rows to values.

use sqlx::sqlite::SqliteRow;
use store::Columns;

use super::Error;
use crate::model::{Event, Failure, Job, Server};
use crate::pull_registry::{Account, PullRegistry};

pub(super) fn server(row: &SqliteRow) -> Result<Server, Error> {
    let columns = Columns::new("servers", row);
    Ok(Server {
        serial: columns.word("serial")?,
        spec: columns.json("spec")?,
        sealed_password: columns.get("sealed_password")?,
        labels: columns.json("labels")?,
        generation: columns.get("generation")?,
        detected_vendor: columns.get("detected_vendor")?,
        last_seen: columns.optional_time("last_seen")?,
        power: columns.get("power")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

pub(super) fn job(row: &SqliteRow) -> Result<Job, Error> {
    let columns = Columns::new("jobs", row);
    let failed_step: Option<String> = columns.get("failed_step")?;
    let failure = match failed_step {
        Some(step) => Some(Failure { step, code: columns.get("failed_code")?, detail: columns.get("failed_detail")? }),
        None => None,
    };
    let attempt: i64 = columns.get("attempt")?;
    Ok(Job {
        id: columns.word("id")?,
        serial: columns.word("server_serial")?,
        status: columns.word("status")?,
        phase: columns.word("phase")?,
        reason: columns.get("reason")?,
        attempt: u32::try_from(attempt).map_err(|problem| columns.wrong("attempt", &problem))?,
        outcome: columns.optional_word("outcome")?,
        failure,
        recipe_json: columns.get("recipe")?,
        task_target: columns.get("task_target")?,
        artifact: columns.optional_json("artifact")?,
        task_iso: columns.optional_json("task_iso")?,
        cancel_requested: columns.flag("cancel_requested")?,
        power_touched: columns.flag("power_touched")?,
        media_touched: columns.flag("media_touched")?,
        reported: columns.flag("reported")?,
        ended_at: columns.optional_time("ended_at")?,
        first_contact_at: columns.optional_time("first_contact_at")?,
        first_boot: columns.word("first_boot")?,
        first_boot_at: columns.optional_time("first_boot_at")?,
        first_boot_deadline: columns.optional_time("first_boot_deadline")?,
        power: columns.get("power")?,
        power_seen_at: columns.optional_time("power_seen_at")?,
        phase_started_at: columns.time("phase_started_at")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        picked_at: columns.optional_time("picked_at")?,
        worker_id: columns.get("worker_id")?,
    })
}

pub(super) fn pull_registry(row: &SqliteRow) -> Result<PullRegistry, Error> {
    let columns = Columns::new("pull_registries", row);
    let username: Option<String> = columns.get("username")?;
    let account = match username {
        Some(username) => Some(Account { username, sealed_password: columns.get("sealed_password")? }),
        None => None,
    };
    Ok(PullRegistry {
        host: columns.get("host")?,
        account,
        ca_pem: columns.get("ca_pem")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

pub(super) fn event(row: &SqliteRow) -> Result<Event, Error> {
    let columns = Columns::new("job_events", row);
    Ok(Event {
        id: columns.get("seq")?,
        time: columns.time("time")?,
        level: columns.word("level")?,
        message: columns.get("message")?,
        step: columns.get("step")?,
    })
}
