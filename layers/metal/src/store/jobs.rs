//! Jobs: made, found, listed; and their events.

use jiff::Timestamp;
use sqlx::QueryBuilder;

use super::{Error, MetalStore, doing, rows};
use crate::model::{ArtifactRef, Event, FirstBoot, Job, JobId, Level, Phase, Serial, Status};

/// A job to be queued.
#[derive(Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// The server.
    pub serial: Serial,
    /// The recipe as posted.
    pub recipe_json: String,
    /// Its target.
    pub task_target: String,
    /// What will be installed.
    pub artifact: Option<ArtifactRef>,
    /// The caller's key against doing it twice.
    pub idempotency_key: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// What became of a [`NewJob`].
#[derive(Debug)]
pub enum Inserted {
    /// It is queued.
    Created(Box<Job>),
    /// The same key brought this job earlier.
    Existing(Box<Job>),
    /// Another job of the server is not complete yet.
    Active(JobId),
}

/// Which jobs a list shows.
#[derive(Debug, Default)]
pub struct JobFilter {
    /// In this state.
    pub status: Option<Status>,
    /// Of this server.
    pub serial: Option<Serial>,
    /// Older than this job.
    pub cursor: Option<JobId>,
    /// At most so many.
    pub limit: u32,
}

/// Longest text of an event, in bytes (design 021).
const EVENT_LIMIT: usize = 2000;

/// Reason of a job that nothing but other jobs holds up.
pub const WAITS: &str = "waits for a worker";

impl MetalStore {
    /// Queues a job, unless the server has an active one or the key was used before.
    pub async fn insert_job(&self, new: &NewJob) -> Result<Inserted, Error> {
        let mut tx = self.store.begin().await?;
        if let Some(key) = &new.idempotency_key
            && let Some(job) = by_key(&mut *tx, &new.serial, key).await?
        {
            return Ok(Inserted::Existing(Box::new(job)));
        }
        let artifact = new.artifact.as_ref().map(serde_json::to_string).transpose().map_err(|problem| Error::Row {
            table: "jobs",
            column: "artifact",
            problem: problem.to_string(),
        })?;
        let inserted = sqlx::query(
            "INSERT INTO jobs (id, server_serial, status, phase, reason, attempt, recipe, task_target, artifact,
                               first_boot, phase_started_at, created_at, updated_at, idempotency_key)
             VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10, $10, $10, $11)
             ON CONFLICT DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.serial.as_str())
        .bind(Status::Queued.as_str())
        .bind(Phase::Waiting.as_str())
        .bind(WAITS)
        .bind(&new.recipe_json)
        .bind(&new.task_target)
        .bind(artifact)
        .bind(FirstBoot::NotStarted.as_str())
        .bind(new.now.as_microsecond())
        .bind(&new.idempotency_key)
        .execute(&mut *tx)
        .await
        .map_err(doing("queue a job"))?;
        if inserted.rows_affected() == 0 {
            let active = sqlx::query("SELECT * FROM jobs WHERE server_serial = $1 AND status <> 'complete'")
                .bind(new.serial.as_str())
                .fetch_one(&mut *tx)
                .await
                .map_err(doing("find a server's active job"))?;
            return Ok(Inserted::Active(rows::job(&active)?.id));
        }
        append(&mut tx, new.id, new.now, Level::Info, "queued", Some("validation.schema")).await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1")
            .bind(new.id.to_string())
            .fetch_one(&mut *tx)
            .await
            .map_err(doing("read a job"))?;
        tx.commit().await.map_err(doing("queue a job"))?;
        Ok(Inserted::Created(Box::new(rows::job(&row)?)))
    }

    /// A job by its id.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read a job"))?;
        row.as_ref().map(rows::job).transpose()
    }

    /// Artifacts of the controller's own registry that jobs which are not complete install.
    pub async fn artifacts_in_use(&self) -> Result<Vec<ArtifactRef>, Error> {
        let rows = sqlx::query("SELECT * FROM jobs WHERE status <> 'complete' AND artifact IS NOT NULL")
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("find the artifacts in use"))?;
        let jobs = rows.iter().map(rows::job).collect::<Result<Vec<_>, _>>()?;
        Ok(jobs.into_iter().filter_map(|job| job.artifact).filter(|artifact| artifact.registry.is_none()).collect())
    }

    /// Tells on every queued job why none is begun; gives back those that said something else before.
    pub async fn set_queued_reason(&self, reason: &str) -> Result<Vec<JobId>, Error> {
        let rows = sqlx::query("UPDATE jobs SET reason = $1 WHERE status = 'queued' AND reason <> $1 RETURNING *")
            .bind(reason)
            .fetch_all(self.store.writer())
            .await
            .map_err(doing("tell why jobs wait"))?;
        rows.iter().map(|row| rows::job(row).map(|job| job.id)).collect()
    }

    /// The job that a key against doing it twice has brought.
    pub async fn job_by_key(&self, serial: &Serial, key: &str) -> Result<Option<Job>, Error> {
        by_key(self.store.reader(), serial, key).await
    }

    /// The job of a server that a report can be about: the active one, otherwise the newest.
    pub async fn latest_job(&self, serial: &Serial) -> Result<Option<Job>, Error> {
        let row = sqlx::query(
            "SELECT * FROM jobs WHERE server_serial = $1
             ORDER BY CASE WHEN status <> 'complete' THEN 0 ELSE 1 END, id DESC LIMIT 1",
        )
        .bind(serial.as_str())
        .fetch_optional(self.store.reader())
        .await
        .map_err(doing("read a server's newest job"))?;
        row.as_ref().map(rows::job).transpose()
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, Error> {
        let mut query = QueryBuilder::new("SELECT * FROM jobs WHERE 1 = 1");
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(serial) = &filter.serial {
            query.push(" AND server_serial = ").push_bind(serial.as_str());
        }
        if let Some(cursor) = filter.cursor {
            query.push(" AND id < ").push_bind(cursor.to_string());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
        let rows = query.build().fetch_all(self.store.reader()).await.map_err(doing("list jobs"))?;
        rows.iter().map(rows::job).collect()
    }

    /// Every job that is not queued and not complete, or whose first boot is awaited: what a worker has to look after.
    pub async fn unfinished_jobs(&self) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM jobs WHERE status IN ('provisioning', 'succeeded', 'failed') OR first_boot = 'awaited'
             ORDER BY id",
        )
        .fetch_all(self.store.reader())
        .await
        .map_err(doing("list unfinished jobs"))?;
        // One row that cannot be read must not keep the others from being looked after.
        let read = |row| {
            rows::job(row).inspect_err(|error| tracing::error!(error = &cairn_core::chain(error), "a job is skipped"))
        };
        Ok(rows.iter().filter_map(|row| read(row).ok()).collect())
    }

    /// How many jobs are in each state.
    pub async fn job_counts(&self) -> Result<Vec<(Status, i64)>, Error> {
        let mut counts = Vec::with_capacity(Status::ALL.len());
        for status in Status::ALL {
            let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE status = $1")
                .bind(status.as_str())
                .fetch_one(self.store.reader())
                .await
                .map_err(doing("count jobs"))?;
            counts.push((status, count));
        }
        Ok(counts)
    }

    /// How many jobs of this target have been provisioning without a change since `before`.
    pub async fn stuck_jobs(&self, target: &str, before: Timestamp) -> Result<i64, Error> {
        sqlx::query_scalar(
            "SELECT COUNT(*) FROM jobs WHERE status = 'provisioning' AND task_target = $1 AND updated_at < $2",
        )
        .bind(target)
        .bind(before.as_microsecond())
        .fetch_one(self.store.reader())
        .await
        .map_err(doing("count stuck jobs"))
    }

    /// Adds a line to a job's history; a text over 2,000 bytes is cut.
    pub async fn append_event(
        &self,
        id: JobId,
        now: Timestamp,
        level: Level,
        message: &str,
        step: Option<&str>,
    ) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        append(&mut tx, id, now, level, message, step).await?;
        tx.commit().await.map_err(doing("add an event"))
    }

    /// A job's history after event `after`, oldest first.
    pub async fn events(&self, id: JobId, after: i64) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query("SELECT * FROM job_events WHERE job_id = $1 AND seq > $2 ORDER BY seq")
            .bind(id.to_string())
            .bind(after)
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("read events"))?;
        rows.iter().map(rows::event).collect()
    }
}

async fn by_key<'e>(
    executor: impl sqlx::Executor<'e, Database = sqlx::Sqlite>,
    serial: &Serial,
    key: &str,
) -> Result<Option<Job>, Error> {
    let row = sqlx::query("SELECT * FROM jobs WHERE server_serial = $1 AND idempotency_key = $2")
        .bind(serial.as_str())
        .bind(key)
        .fetch_optional(executor)
        .await
        .map_err(doing("look an idempotency key up"))?;
    row.as_ref().map(rows::job).transpose()
}

pub(super) async fn append(
    tx: &mut sqlx::SqliteConnection,
    id: JobId,
    now: Timestamp,
    level: Level,
    message: &str,
    step: Option<&str>,
) -> Result<(), Error> {
    let end = message.floor_char_boundary(EVENT_LIMIT);
    sqlx::query(
        "INSERT INTO job_events (job_id, seq, time, level, message, step)
         SELECT $1, COALESCE(MAX(seq), 0) + 1, $2, $3, $4, $5 FROM job_events WHERE job_id = $1",
    )
    .bind(id.to_string())
    .bind(now.as_microsecond())
    .bind(level.as_str())
    .bind(&message[..end])
    .bind(step)
    .execute(tx)
    .await
    .map_err(doing("add an event"))?;
    Ok(())
}
