//! The layer's daemon: takes jobs from the queue, gives each a task of its own, and looks after what an earlier process left.

mod effects;
mod job;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use oci_registry::server::Saturation;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Metal;
use crate::model::{FirstBoot, JobId, Status};
use crate::plan::taxonomy;
use crate::store::{Error, WAITS};

/// A worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A job's task panicked. The process ends: what the panic left behind is not known, and a restart reconciles.
    #[error("the task of a job panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Between two looks for media that are not needed any more.
const SWEEP: Duration = Duration::from_hours(1);
/// How long the queue is left alone when nothing wakes the worker: only a safety net.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Pause after the database has refused, which is mostly a full disk: others still fetch their media from this process.
const RECOVER: Duration = Duration::from_secs(5);

/// Runs until `shutdown`; jobs under way stop where they are and are taken up again by the next start.
pub async fn run(metal: Arc<Metal>, shutdown: CancellationToken) -> Result<(), RunError> {
    let slots = Arc::new(Semaphore::new(metal.settings.worker_concurrency));
    let mut tasks = JoinSet::new();
    persist(&shutdown, || metal.store.end_leases()).await;
    let mut sweep = tokio::time::interval(SWEEP);
    let mut heartbeat = tokio::time::interval((metal.settings.lease / 3).max(Duration::from_secs(1)));
    while !shutdown.is_cancelled() {
        let done = pick(&metal, &slots, &mut tasks, &shutdown).await.and(publish_gauges(&metal).await);
        let again = if done.is_err() { RECOVER } else { LOOK_AGAIN };
        refused(done);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = metal.wake.queued() => {}
            _ = sweep.tick() => refused(sweep::sweep(&metal).await),
            () = tokio::time::sleep(again) => {}
            _ = heartbeat.tick() => refused(metal.store.extend_leases(&metal.worker_id, lease_end(&metal)).await),
            Some(ended) = tasks.join_next() => ended.map_err(RunError::Panicked)?,
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(RunError::Panicked)?;
    }
    Ok(())
}

/// Says that the database refused; what was to be done is done later.
fn refused<T>(done: Result<T, Error>) {
    if let Err(error) = done {
        tracing::error!(error = &error as &dyn std::error::Error, "the database refuses; trying again");
    }
}

/// Does something until the database takes it, or until `shutdown`.
async fn persist<T, F: Future<Output = Result<T, Error>>>(shutdown: &CancellationToken, run: impl Fn() -> F) {
    while let Err(error) = run().await {
        refused::<()>(Err(error));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RECOVER) => {}
        }
    }
}

type Tasks = JoinSet<()>;
type Slot = Option<tokio::sync::OwnedSemaphorePermit>;

/// Takes over what nobody holds, then queued jobs while there are slots.
async fn pick(
    metal: &Arc<Metal>,
    slots: &Arc<Semaphore>,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    for job in metal.store.unfinished_jobs().await? {
        if metal.store.adopt_job(job.id, &metal.worker_id, lease_end(metal), metal.clock.now()).await? {
            tracing::info!(job_id = %job.id, server_serial = %job.serial, step = taxonomy(job.phase), phase = %job.phase,
                worker_id = metal.worker_id, "job taken over");
            // Already begun, or cancelled before: it does not wait for a slot, but holds one when there is one.
            start(metal, tasks, job.id, Arc::clone(slots).try_acquire_owned().ok(), shutdown);
        }
    }
    let held_up = metal.registry.as_ref().and_then(|registry| registry.saturation()).map(held_up);
    for id in metal.store.set_queued_reason(held_up.as_deref().unwrap_or(WAITS)).await? {
        tracing::info!(job_id = %id, reason = held_up, "queued job waits");
        metal.wake.job(id);
    }
    if held_up.is_some() {
        return Ok(());
    }
    while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        let now = metal.clock.now();
        let Some(job) = metal.store.pick_job(&metal.worker_id, lease_end(metal), now).await? else { break };
        metal.metrics.transition(Some(Status::Queued), Status::Provisioning);
        metal.wake.job(job.id);
        start(metal, tasks, job.id, Some(slot), shutdown);
    }
    Ok(())
}

/// Why jobs are not begun while the registry has more to do than it can (runbook 7.3), for people.
fn held_up(saturation: Saturation) -> String {
    match saturation {
        Saturation::NearlyFull { free, min_free } => {
            format!("the registry's disk is nearly full: {} MiB free, {} MiB are to stay", free >> 20, min_free >> 20)
        }
        Saturation::UploadsWaiting { count } => format!("{count} uploads wait for the registry"),
        Saturation::SlowWrites { latency } => {
            format!("the registry's disk is slow: {} ms for 512 KiB", latency.as_millis())
        }
    }
}

fn start(metal: &Arc<Metal>, tasks: &mut Tasks, id: JobId, slot: Slot, shutdown: &CancellationToken) {
    let metal = Arc::clone(metal);
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        persist(&shutdown, || job::look_after(&metal, id, &shutdown)).await;
        drop(slot);
        metal.wake.queue();
        tokio::select! {
            () = persist(&shutdown, || await_first_boot(&metal, id)) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

/// Watches over condition `FirstBoot` of a complete job until it is reported or overdue.
async fn await_first_boot(metal: &Metal, id: JobId) -> Result<(), Error> {
    let mut watch = metal.wake.watch(id);
    loop {
        let Some(job) = metal.store.job(id).await? else { return Ok(()) };
        let (FirstBoot::Awaited, Some(deadline)) = (job.first_boot, job.first_boot_deadline) else { return Ok(()) };
        let deadline = deadline.max(heard_from(metal));
        let now = metal.clock.now();
        if now >= deadline {
            if metal.store.set_first_boot(id, FirstBoot::Overdue, now).await? {
                metal.metrics.first_boots.with(["overdue"]).inc();
                tracing::warn!(job_id = %id, server_serial = %job.serial, "first boot overdue");
                metal.wake.job(id);
            }
            return Ok(());
        }
        let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// A machine that has booted while nobody listened tells it again within this time of the controller's start.
fn heard_from(metal: &Metal) -> Timestamp {
    const TELLS_AGAIN: Duration = Duration::from_mins(2);
    let time = TELLS_AGAIN.min(metal.settings.limits.first_boot);
    metal.started_at + SignedDuration::try_from(time).unwrap_or(SignedDuration::ZERO)
}

async fn publish_gauges(metal: &Metal) -> Result<(), Error> {
    for (status, count) in metal.store.job_counts().await? {
        if status != Status::Complete {
            metal.metrics.active.with([status.as_str()]).set(count);
        }
    }
    // The alert's limit (runbook 3): two hours for Linux.
    let before = metal.clock.now() - SignedDuration::from_hours(2);
    let target = "install-linux.target";
    metal.metrics.stuck.with([target]).set(metal.store.stuck_jobs(target, before).await?);
    Ok(())
}

fn lease_end(metal: &Metal) -> Timestamp {
    let lease = SignedDuration::try_from(metal.settings.lease).unwrap_or(SignedDuration::from_mins(10));
    metal.clock.now() + lease
}
