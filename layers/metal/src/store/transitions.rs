//! How jobs change. Each statement names the state it starts from.

use jiff::Timestamp;

use super::jobs::append;
use super::{Error, MetalStore, doing, rows};
use crate::model::{Failure, FirstBoot, Job, JobId, JobOutcome, Level, Phase, Status, TaskIso};

/// How a provisioning job ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Success, failure or cancel.
    pub outcome: JobOutcome,
    /// What failed; absent for success.
    pub failure: Option<Failure>,
    /// The maintenance OS itself said so, and is about to switch the machine off.
    pub reported: bool,
    /// Whether the installed system is able to report its first boot.
    pub first_boot_reporter: bool,
    /// Step of the event that tells of it; the unit's own name where a unit failed.
    pub event_step: String,
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It ended the job.
    Accepted,
    /// It, or another, came before.
    Duplicate,
}

/// What the history says of a report that came late or again.
const REPEATED: &str = "report received again, nothing changed";
/// Delivery ids kept per job (design 032).
const KEPT_DELIVERIES: i64 = 32;

impl MetalStore {
    /// Gives the oldest queued job to `worker`.
    pub async fn pick_job(&self, worker: &str, lease: Timestamp, now: Timestamp) -> Result<Option<Job>, Error> {
        let mut tx = self.store.begin().await?;
        let row = sqlx::query(
            "UPDATE jobs SET status = 'provisioning', phase = 'build-media', reason = 'taken by a worker', worker_id = $1,
                    lease_expires_at = $2, picked_at = COALESCE(picked_at, $3), phase_started_at = $3, updated_at = $3
             WHERE id = (SELECT id FROM jobs WHERE status = 'queued' ORDER BY id LIMIT 1) AND status = 'queued'
             RETURNING *",
        )
        .bind(worker)
        .bind(lease.as_microsecond())
        .bind(now.as_microsecond())
        .fetch_optional(&mut *tx)
        .await
        .map_err(doing("take a job"))?;
        let Some(row) = row else { return Ok(None) };
        let job = rows::job(&row)?;
        append(&mut tx, job.id, now, Level::Info, "taken by a worker", None).await?;
        tx.commit().await.map_err(doing("take a job"))?;
        Ok(Some(job))
    }

    /// Ends all leases: called by the process that has just taken hold of the data directory, so their holders are gone.
    pub async fn end_leases(&self) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET lease_expires_at = 0 WHERE lease_expires_at > 0")
            .execute(self.store.writer())
            .await
            .map_err(doing("end leases"))?;
        Ok(())
    }

    /// Takes over an unfinished job that nobody holds, or whose holder, another than `worker`, let the lease run out.
    pub async fn adopt_job(&self, id: JobId, worker: &str, lease: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE jobs SET worker_id = $2, lease_expires_at = $3
             WHERE id = $1 AND (worker_id IS NULL OR worker_id <> $2)
                   AND (lease_expires_at IS NULL OR lease_expires_at < $4)",
        )
        .bind(id.to_string())
        .bind(worker)
        .bind(lease.as_microsecond())
        .bind(now.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("take a job over"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Heartbeat: all leases of `worker` hold until `lease`. `updated_at` stays, so that a stuck job shows.
    pub async fn extend_leases(&self, worker: &str, lease: Timestamp) -> Result<u64, Error> {
        let done = sqlx::query("UPDATE jobs SET lease_expires_at = $2 WHERE worker_id = $1 AND (status <> 'complete' OR first_boot = 'awaited')")
            .bind(worker)
            .bind(lease.as_microsecond())
            .execute(self.store.writer())
            .await
            .map_err(doing("extend leases"))?;
        Ok(done.rows_affected())
    }

    /// Moves a job to another phase of the state it is in.
    pub async fn enter_phase(&self, job: &Job, next: Phase, now: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE jobs SET phase = $4, reason = '', phase_started_at = $5, updated_at = $5
             WHERE id = $1 AND status = $2 AND phase = $3",
        )
        .bind(job.id.to_string())
        .bind(job.status.as_str())
        .bind(job.phase.as_str())
        .bind(next.as_str())
        .bind(now.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("enter a phase"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Says why a job stands where it stands; `true` when that is news.
    pub async fn set_reason(&self, id: JobId, reason: &str) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE jobs SET reason = $2 WHERE id = $1 AND reason <> $2")
            .bind(id.to_string())
            .bind(reason)
            .execute(self.store.writer())
            .await
            .map_err(doing("note a reason"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Keeps the task ISO of a job.
    pub async fn set_task_iso(&self, id: JobId, iso: &TaskIso) -> Result<(), Error> {
        let text = serde_json::to_string(iso).map_err(|problem| Error::Row {
            table: "jobs",
            column: "task_iso",
            problem: problem.to_string(),
        })?;
        sqlx::query("UPDATE jobs SET task_iso = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(text)
            .execute(self.store.writer())
            .await
            .map_err(doing("keep a task ISO"))?;
        Ok(())
    }

    /// Notes, before it happens, that media of this job may be in the BMC.
    pub async fn touch_media(&self, id: JobId) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET media_touched = 1 WHERE id = $1")
            .bind(id.to_string())
            .execute(self.store.writer())
            .await
            .map_err(doing("note that media are inserted"))?;
        Ok(())
    }

    /// Notes, before it happens, that this job switches the machine.
    pub async fn touch_power(&self, id: JobId) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET power_touched = 1 WHERE id = $1")
            .bind(id.to_string())
            .execute(self.store.writer())
            .await
            .map_err(doing("note that the machine is switched"))?;
        Ok(())
    }

    /// Notes the power state that a BMC told.
    pub async fn power_seen(&self, id: JobId, power: &str, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET power = $2, power_seen_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(power)
            .bind(now.as_microsecond())
            .execute(self.store.writer())
            .await
            .map_err(doing("note a power state"))?;
        Ok(())
    }

    /// Notes that the maintenance OS of a provisioning job was heard of.
    pub async fn contact(&self, id: JobId, now: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE jobs SET first_contact_at = $2 WHERE id = $1 AND status = 'provisioning' AND first_contact_at IS NULL",
        )
        .bind(id.to_string())
        .bind(now.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("note a contact"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a provisioning job. `false`: somebody else ended it first.
    pub async fn end_job(&self, id: JobId, ending: &Ending, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.store.begin().await?;
        let ended = end(&mut tx, id, Status::Provisioning, ending, now).await?;
        tx.commit().await.map_err(doing("end a job"))?;
        Ok(ended)
    }

    /// Takes a webhook in: kept against doubles and acted on in one transaction.
    pub async fn deliver(
        &self,
        id: JobId,
        delivery: Option<&str>,
        ending: &Ending,
        now: Timestamp,
    ) -> Result<Delivery, Error> {
        let mut tx = self.store.begin().await?;
        if let Some(delivery) = delivery {
            let new = sqlx::query(
                "INSERT INTO webhook_deliveries (job_id, delivery_id, received_at) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
            )
            .bind(id.to_string())
            .bind(delivery)
            .bind(now.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(doing("keep a delivery id"))?;
            if new.rows_affected() == 0 {
                append(&mut tx, id, now, Level::Info, REPEATED, Some("webhook-duplicate")).await?;
                tx.commit().await.map_err(doing("take a webhook in"))?;
                return Ok(Delivery::Duplicate);
            }
            {
                sqlx::query(
                    "DELETE FROM webhook_deliveries WHERE job_id = $1 AND delivery_id NOT IN
                     (SELECT delivery_id FROM webhook_deliveries WHERE job_id = $1
                      ORDER BY received_at DESC, delivery_id LIMIT $2)",
                )
                .bind(id.to_string())
                .bind(KEPT_DELIVERIES)
                .execute(&mut *tx)
                .await
                .map_err(doing("forget old delivery ids"))?;
            }
        }
        let accepted = end(&mut tx, id, Status::Provisioning, ending, now).await?;
        if !accepted {
            append(&mut tx, id, now, Level::Info, REPEATED, Some("webhook-duplicate")).await?;
        }
        tx.commit().await.map_err(doing("take a webhook in"))?;
        Ok(if accepted { Delivery::Accepted } else { Delivery::Duplicate })
    }

    /// Cancels a job: a queued one at once, a provisioning one as soon as its worker looks. `None`: it is neither.
    pub async fn cancel_job(&self, id: JobId, now: Timestamp) -> Result<Option<Status>, Error> {
        let mut tx = self.store.begin().await?;
        let ending = Ending {
            outcome: JobOutcome::Cancelled,
            failure: Some(Failure {
                step: "validation.server".to_owned(),
                code: "cancelled".to_owned(),
                detail: "cancelled by an operator before it began".to_owned(),
            }),
            reported: false,
            first_boot_reporter: false,
            event_step: "cancel".to_owned(),
        };
        append(&mut tx, id, now, Level::Warn, "cancel requested", Some("cancel")).await?;
        let was = if end(&mut tx, id, Status::Queued, &ending, now).await? {
            Some(Status::Queued)
        } else {
            let done = sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = $1 AND status = 'provisioning'")
                .bind(id.to_string())
                .execute(&mut *tx)
                .await
                .map_err(doing("cancel a job"))?;
            (done.rows_affected() == 1).then_some(Status::Provisioning)
        };
        if was.is_none() {
            return Ok(None);
        }
        tx.commit().await.map_err(doing("cancel a job"))?;
        Ok(was)
    }

    /// Moves a cleaned-up job to `complete`; outcome and failed step stay.
    pub async fn complete_job(
        &self,
        job: &Job,
        first_boot: FirstBoot,
        deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.store.begin().await?;
        let done = sqlx::query(
            "UPDATE jobs SET status = 'complete', phase = 'finished', reason = '', phase_started_at = $3, updated_at = $3,
                    first_boot = CASE WHEN first_boot = 'not-started' THEN $4 ELSE first_boot END,
                    first_boot_at = CASE WHEN first_boot = 'not-started' THEN $3 ELSE first_boot_at END,
                    first_boot_deadline = $5
             WHERE id = $1 AND status = $2",
        )
        .bind(job.id.to_string())
        .bind(job.status.as_str())
        .bind(now.as_microsecond())
        .bind(first_boot.as_str())
        .bind(deadline.map(Timestamp::as_microsecond))
        .execute(&mut *tx)
        .await
        .map_err(doing("complete a job"))?;
        if done.rows_affected() == 1 {
            append(&mut tx, job.id, now, Level::Info, "complete", None).await?;
        }
        tx.commit().await.map_err(doing("complete a job"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Changes condition `FirstBoot` from a state that waits for it.
    pub async fn set_first_boot(&self, id: JobId, to: FirstBoot, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.store.begin().await?;
        // A report may overtake `complete`, and a late one is still the truth.
        let from = match to {
            FirstBoot::Reported => {
                "first_boot IN ('not-started', 'awaited', 'overdue', 'unsupported') AND outcome = 'succeeded'"
            }
            _ => "first_boot = 'awaited'",
        };
        let mut query = sqlx::QueryBuilder::new("UPDATE jobs SET first_boot = ");
        query.push_bind(to.as_str()).push(", first_boot_at = ").push_bind(now.as_microsecond());
        query.push(" WHERE id = ").push_bind(id.to_string()).push(" AND ").push(from);
        let done = query.build().execute(&mut *tx).await.map_err(doing("change condition FirstBoot"))?;
        if done.rows_affected() == 1 {
            let (level, message) = match to {
                FirstBoot::Reported => (Level::Info, "the installed system reported from its own disk"),
                _ => (Level::Warn, "the installed system has not reported in time"),
            };
            append(&mut tx, id, now, level, message, Some("first-boot")).await?;
        }
        tx.commit().await.map_err(doing("change condition FirstBoot"))?;
        Ok(done.rows_affected() == 1)
    }
}

/// A machine can only report what it was switched on for: an earlier report is not this job's.
async fn end(
    tx: &mut sqlx::SqliteConnection,
    id: JobId,
    from: Status,
    ending: &Ending,
    now: Timestamp,
) -> Result<bool, Error> {
    let to = if ending.outcome == JobOutcome::Succeeded { Status::Succeeded } else { Status::Failed };
    let first_boot = if ending.outcome == JobOutcome::Succeeded && !ending.first_boot_reporter {
        FirstBoot::Unsupported
    } else {
        FirstBoot::NotStarted
    };
    let failure = ending.failure.as_ref();
    let done = sqlx::query(
        "UPDATE jobs SET status = $3, outcome = $4, failed_step = $5, failed_code = $6, failed_detail = $7, reported = $8,
                first_boot = $9, phase = 'await-off', reason = '', ended_at = $10, phase_started_at = $10, updated_at = $10,
                first_contact_at = CASE WHEN $8 = 1 THEN COALESCE(first_contact_at, $10) ELSE first_contact_at END
         WHERE id = $1 AND status = $2 AND ($8 = 0 OR phase IN ('power-on', 'await-report'))",
    )
    .bind(id.to_string())
    .bind(from.as_str())
    .bind(to.as_str())
    .bind(ending.outcome.as_str())
    .bind(failure.map(|failure| failure.step.as_str()))
    .bind(failure.map(|failure| failure.code.as_str()))
    .bind(failure.map(|failure| failure.detail.as_str()))
    .bind(i64::from(ending.reported))
    .bind(first_boot.as_str())
    .bind(now.as_microsecond())
    .execute(&mut *tx)
    .await
    .map_err(doing("end a job"))?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let (level, message) = match failure {
        None => (Level::Info, "the machine reported success".to_owned()),
        Some(failure) => (Level::Error, format!("{}: {}", failure.code, failure.detail)),
    };
    append(tx, id, now, level, &message, Some(&ending.event_step)).await?;
    Ok(true)
}
