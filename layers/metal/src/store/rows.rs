//! Rows to values.

use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::Error;
use crate::model::{Event, Failure, Job, Server};
use crate::pull_registry::{Account, PullRegistry};

/// Reads the columns of one row of `table`.
struct Columns<'a> {
    table: &'static str,
    row: &'a SqliteRow,
}

impl Columns<'_> {
    fn get<'r, T>(&'r self, column: &'static str) -> Result<T, Error>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.row.try_get(column).map_err(|source| self.wrong(column, &source))
    }

    fn wrong(&self, column: &'static str, problem: &dyn std::fmt::Display) -> Error {
        Error::Row { table: self.table, column, problem: problem.to_string() }
    }

    fn word<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<T, Error> {
        self.get::<String>(column)?.parse().map_err(|problem| self.wrong(column, &problem))
    }

    fn optional_word<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<Option<T>, Error> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|problem| self.wrong(column, &problem))).transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, Error> {
        serde_json::from_str(&self.get::<String>(column)?).map_err(|problem| self.wrong(column, &problem))
    }

    fn optional_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, Error> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|problem| self.wrong(column, &problem))).transpose()
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, Error> {
        Timestamp::from_microsecond(self.get(column)?).map_err(|problem| self.wrong(column, &problem))
    }

    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, Error> {
        let micros: Option<i64> = self.get(column)?;
        micros.map(|micros| Timestamp::from_microsecond(micros).map_err(|p| self.wrong(column, &p))).transpose()
    }

    fn flag(&self, column: &'static str) -> Result<bool, Error> {
        Ok(self.get::<i64>(column)? != 0)
    }
}

pub(super) fn server(row: &SqliteRow) -> Result<Server, Error> {
    let columns = Columns { table: "servers", row };
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
    let columns = Columns { table: "jobs", row };
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
    let columns = Columns { table: "pull_registries", row };
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
    let columns = Columns { table: "job_events", row };
    Ok(Event {
        id: columns.get("seq")?,
        time: columns.time("time")?,
        level: columns.word("level")?,
        message: columns.get("message")?,
        step: columns.get("step")?,
    })
}
