//! One job: reads its row, asks [`crate::plan`], does what it says, writes what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_core::Outcome;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::effects::{self, Bench};
use crate::context::Metal;
use crate::metrics::Metrics;
use crate::model::{Failure, FirstBoot, Job, JobId, JobOutcome, Level, Phase, Status};
use crate::plan::{Effect, Seen, step, taxonomy};
use crate::store::{Ending, Error};

/// Brings a job to `complete`.
pub(super) async fn look_after(metal: &Arc<Metal>, id: JobId, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut bench = Bench::default();
    // Stopping is like being killed, only that the BMC's session is closed: the next start takes the job up.
    let done = tokio::select! {
        done = steps(metal, id, &mut bench) => done,
        () = shutdown.cancelled() => Ok(()),
    };
    bench.close().await;
    done
}

async fn steps(metal: &Arc<Metal>, id: JobId, bench: &mut Bench) -> Result<(), Error> {
    let mut watch = metal.wake.watch(id);
    let mut seen = Seen::Nothing;
    let watching = Instant::now();
    let mut look_again: Option<tokio::time::Instant> = None;
    let mut entered: Option<(Phase, Instant)> = None;
    while let Some(job) = metal.store.job(id).await? {
        let span = |phase: Phase| {
            tracing::info_span!("job", job_id = %id, server_serial = %job.serial, step = taxonomy(phase), phase = %phase,
                worker_id = metal.worker_id, attempt = job.attempt)
        };
        // A report ends a phase from outside, so it is the row that tells.
        if entered.is_none_or(|(phase, _)| phase != job.phase)
            && let Some((left, since)) = entered.replace((job.phase, Instant::now()))
        {
            span(left).in_scope(|| leave(metal, left, since.elapsed()));
        }
        let span = span(job.phase);
        match step(&job, &seen, metal.clock.now(), watching.elapsed(), &metal.settings.limits) {
            Outcome::Go(next) => {
                enter(metal, &job, next).instrument(span).await?;
                (seen, look_again) = (Seen::Nothing, None);
            }
            Outcome::Do(effect) => {
                // A cancel cuts an effect short, at a point where nothing is lost. Only an order to switch on cannot be taken
                // back: until the machine is on, it reads Off, and clean-up would take it for switched off.
                seen = tokio::select! {
                    seen = carry_out(metal, &job, effect, bench).instrument(span) => seen?,
                    () = cancelled(metal, &job, &mut watch), if effect != Effect::SwitchOn => Seen::Nothing,
                };
            }
            Outcome::Stay { reason, retry_after } => {
                if job.status != Status::Provisioning || job.reason.is_empty() {
                    // Only news is told: this task hears itself too.
                    if metal.store.set_reason(id, &reason).await? {
                        metal.wake.job(id);
                    }
                }
                // What a machine tells on its way does not make its BMC be asked more often.
                let at = *look_again.get_or_insert_with(|| tokio::time::Instant::now() + retry_after);
                tokio::select! {
                    () = watch.changed() => {}
                    () = tokio::time::sleep_until(at) => {
                        look_again = None;
                        seen = Seen::Nothing;
                    }
                }
            }
            Outcome::Failed(failure) => {
                end(metal, &job, failure).instrument(span).await?;
                seen = Seen::Nothing;
            }
            Outcome::Done => return complete(metal, &job).instrument(span).await,
        }
    }
    Ok(())
}

/// Counts the time in a phase; of one that only waits no effect has told yet.
fn leave(metal: &Metal, phase: Phase, took: Duration) {
    Metrics::seconds(&metal.metrics.phase_duration.with([phase.as_str()]), took);
    if matches!(phase, Phase::AwaitReport | Phase::AwaitOff) {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(op = Effect::ObservePower.as_str(), duration_ms, "wait over");
    }
}

/// Returns when a provisioning job is to be cancelled. Clean-up is never cut short.
async fn cancelled(metal: &Metal, job: &Job, watch: &mut crate::context::Watch) {
    if job.status != Status::Provisioning {
        std::future::pending::<()>().await;
    }
    loop {
        watch.changed().await;
        match metal.store.job(job.id).await {
            Ok(Some(now)) if now.cancel_requested || now.status != Status::Provisioning => return,
            _ => {}
        }
    }
}

async fn enter(metal: &Metal, job: &Job, next: Phase) -> Result<(), Error> {
    if metal.store.enter_phase(job, next, metal.clock.now()).await? {
        tracing::debug!(next = %next, "phase entered");
        metal.wake.job(job.id);
    }
    Ok(())
}

async fn carry_out(metal: &Arc<Metal>, job: &Job, effect: Effect, bench: &mut Bench) -> Result<Seen, Error> {
    let begun = Instant::now();
    let seen = effects::carry_out(metal, job, effect, bench).await?;
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &seen {
        Seen::Failed(failure) => {
            tracing::warn!(
                op = effect.as_str(),
                code = failure.code,
                step = failure.step,
                detail = failure.detail,
                duration_ms,
                retried = job.status != Status::Provisioning || effect == Effect::ObservePower,
                "effect failed"
            );
            if job.status != Status::Provisioning && job.reason != failure.detail {
                let now = metal.clock.now();
                let message = format!("{}: {}", failure.code, failure.detail);
                metal.store.append_event(job.id, now, Level::Warn, &message, Some(&failure.step)).await?;
                metal.wake.job(job.id);
            }
        }
        _ if effect == Effect::ObservePower => {}
        _ => tracing::info!(op = effect.as_str(), duration_ms, "effect done"),
    }
    Ok(seen)
}

async fn end(metal: &Metal, job: &Job, failure: Failure) -> Result<(), Error> {
    let cancelled = failure.code == crate::errors::CANCELLED;
    tracing::warn!(code = failure.code, step = failure.step, detail = failure.detail, retried = false, "job failed");
    if failure.code == crate::errors::BMC_TIMEOUT {
        metal.metrics.bmc_poll_timeouts.inc();
    }
    let ending = Ending {
        outcome: if cancelled { JobOutcome::Cancelled } else { JobOutcome::Failed },
        event_step: failure.step.clone(),
        failure: Some(failure),
        reported: false,
        first_boot_reporter: false,
    };
    // Whoever was first, a report or this, has ended the job; the next look at the row goes on from there.
    if metal.store.end_job(job.id, &ending, metal.clock.now()).await? {
        metal.metrics.ended(job, &ending, metal.clock.now());
        metal.wake.job(job.id);
    }
    Ok(())
}

async fn complete(metal: &Metal, job: &Job) -> Result<(), Error> {
    if job.status == Status::Complete {
        return Ok(());
    }
    let now = metal.clock.now();
    let left_off = job.phase != Phase::Finished;
    if left_off {
        let message = "the clean-up took too long and was given up: look at the BMC's virtual media and power";
        metal.store.append_event(job.id, now, Level::Warn, message, Some("cleanup.reset")).await?;
        tracing::warn!("clean-up given up");
    }
    let (first_boot, deadline) = match job.outcome {
        Some(JobOutcome::Succeeded) if left_off => {
            metal.metrics.first_boots.with(["overdue"]).inc();
            (FirstBoot::Overdue, None)
        }
        Some(JobOutcome::Succeeded) => {
            let wait =
                SignedDuration::try_from(metal.settings.limits.first_boot).unwrap_or(SignedDuration::from_mins(30));
            (FirstBoot::Awaited, Some(now + wait))
        }
        _ => (FirstBoot::NotStarted, None),
    };
    if job.outcome != Some(JobOutcome::Succeeded) && job.power_touched && !left_off {
        let message = "the machine was left switched off: its disk may be half installed";
        metal.store.append_event(job.id, now, Level::Warn, message, Some("cleanup.reset")).await?;
    }
    if metal.store.complete_job(job, first_boot, deadline, now).await? {
        metal.metrics.transition(Some(job.status), Status::Complete);
        if let Some(ended) = job.ended_at {
            let took = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
            Metrics::seconds(&metal.metrics.cleanup_duration, took);
        }
        tracing::info!(outcome = job.outcome.map(JobOutcome::as_str), "job complete");
        effects::forget_media(metal, job);
        metal.wake.job(job.id);
    }
    Ok(())
}
