//! What happens next to a job, decided from plain data.
//!
//! ```text
//!  queued
//!    │ a worker takes it
//!    ▼
//!  provisioning
//!    build-media ─▶ discover ─▶ mount ─▶ boot-override ─▶ power-off ─▶ power-on ─▶ await-report
//!    │ any failure, deadline or cancel                                                │ webhook
//!    ▼                                                                     success ◀──┴──▶ failed
//!  failed ──────────────┐                                                     │              │
//!                       ▼                                                     ▼              │
//!                   await-off ─▶ eject ─▶ clear-override ─▶ restart (succeeded only)  ◀──────┘
//!                                                              │
//!                                                              ▼
//!                                                           complete, then condition FirstBoot
//! ```
//!
//! Why a kill at any instruction is safe: the phase is stored before its effect runs, and every effect first looks at
//! what is already so. Switching off can be repeated because switching on is a later phase; switching on does nothing to a
//! machine that is on, and is not done again once the maintenance OS has been heard of. Whatever the machine does a second
//! time for the same job, its steps resume by their stamps.

use std::time::Duration;

use cairn_core::Outcome;
use jiff::{SignedDuration, Timestamp};

use crate::errors;
use crate::model::{Failure, Job, JobOutcome, Phase, Status};

/// Something to be done outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Write the task ISO.
    BuildMedia,
    /// Log in to the BMC, find system and slots, see that the machine is the one that is meant.
    Discover,
    /// Insert the media.
    Mount,
    /// Boot once from CD.
    SetBootOverride,
    /// Off, politely first.
    SwitchOff,
    /// On, if it is off.
    SwitchOn,
    /// Read the power state.
    ObservePower,
    /// Off, at once.
    ForceOff,
    /// Eject the media.
    Eject,
    /// No override any more.
    ClearOverride,
}

impl Effect {
    /// Its name in logs (runbook 2.2, `op`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildMedia => "iso.build",
            Self::Discover => "discover",
            Self::Mount => "mount",
            Self::SetBootOverride => "boot.override",
            Self::SwitchOff => "power.off",
            Self::SwitchOn => "power.on",
            Self::ObservePower => "power.observe",
            Self::ForceOff => "power.force-off",
            Self::Eject => "eject",
            Self::ClearOverride => "boot.override.clear",
        }
    }
}

/// What the last effect brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing was tried since the phase was entered, or since the controller started.
    Nothing,
    /// It worked.
    Done(Effect),
    /// The power state, and for how long it has been seen so without a break.
    Power { on: bool, lasting: Duration },
    /// It did not work.
    Failed(Failure),
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From switching on to the terminal report (design 028: 120 min).
    pub report: Duration,
    /// From the report to power off before it is forced.
    pub off_after_report: Duration,
    /// How long a machine may be off while its report is awaited.
    pub off_without_report: Duration,
    /// For the whole clean-up (design 028: 10 min).
    pub cleanup: Duration,
    /// From being taken by a worker to the end, whatever the phase (`JOB_STUCK_TIMEOUT`).
    pub stuck: Duration,
    /// Between two looks at the power state. BMCs send no event that could replace it everywhere.
    pub power_poll: Duration,
    /// From `complete` to the first-boot report.
    pub first_boot: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            report: Duration::from_mins(120),
            off_after_report: Duration::from_mins(3),
            off_without_report: Duration::from_mins(2),
            cleanup: Duration::from_mins(10),
            stuck: Duration::from_hours(4),
            power_poll: Duration::from_secs(5),
            first_boot: Duration::from_mins(30),
        }
    }
}

/// A machine repeats its report for so long at least when nobody answers.
const RETRIES: Duration = Duration::from_mins(10);

type Decision = Outcome<Phase, Effect, Failure>;

/// What happens next to `job`, which this process has watched for `watched`: time that went by while nobody listened does
/// not count against a machine. `Failed` moves a provisioning job to `failed`; `Done` moves a cleaned-up one to `complete`.
pub fn step(job: &Job, seen: &Seen, now: Timestamp, watched: Duration, limits: &Limits) -> Decision {
    match job.status {
        Status::Queued => stay("waits for a worker", limits.power_poll),
        Status::Provisioning => provision(job, seen, now, watched, limits),
        Status::Succeeded | Status::Failed => clean_up(job, seen, now, limits),
        Status::Complete => Outcome::Done,
    }
}

fn provision(job: &Job, seen: &Seen, now: Timestamp, watched: Duration, limits: &Limits) -> Decision {
    if job.cancel_requested {
        return failed(job.phase, errors::CANCELLED, "cancelled by an operator");
    }
    let listened = watched >= limits.stuck.min(RETRIES);
    if listened && job.picked_at.is_some_and(|picked| passed(picked, limits.stuck, now)) {
        return failed(job.phase, errors::JOB_STUCK, format!("not done {} after it was taken", words(limits.stuck)));
    }
    if let Seen::Failed(failure) = seen
        && job.phase != Phase::AwaitReport
    {
        return Outcome::Failed(failure.clone());
    }
    match job.phase {
        Phase::Waiting => Outcome::Go(Phase::BuildMedia),
        Phase::BuildMedia => once(seen, Effect::BuildMedia, Phase::Discover),
        Phase::Discover => once(seen, Effect::Discover, Phase::Mount),
        Phase::Mount => once(seen, Effect::Mount, Phase::BootOverride),
        Phase::BootOverride => once(seen, Effect::SetBootOverride, Phase::PowerOff),
        Phase::PowerOff => once(seen, Effect::SwitchOff, Phase::PowerOn),
        Phase::PowerOn if job.first_contact_at.is_some() => Outcome::Go(Phase::AwaitReport),
        Phase::PowerOn => once(seen, Effect::SwitchOn, Phase::AwaitReport),
        _ => await_report(job, seen, now, watched, limits),
    }
}

fn await_report(job: &Job, seen: &Seen, now: Timestamp, watched: Duration, limits: &Limits) -> Decision {
    let listened = watched >= limits.report.min(RETRIES);
    if listened && passed(job.phase_started_at, limits.report, now) {
        let heard = match job.first_contact_at {
            Some(_) => "the maintenance OS was heard of, but sent no report",
            None => "the maintenance OS was never heard of",
        };
        return failed(job.phase, errors::WEBHOOK_TIMEOUT, format!("{heard} within {}", words(limits.report)));
    }
    match seen {
        Seen::Power { on: false, lasting } if *lasting >= limits.off_without_report => failed(
            job.phase,
            errors::GUEST_POWERED_OFF,
            format!("the machine has been off for {} and sent no report", words(*lasting)),
        ),
        Seen::Power { .. } | Seen::Failed(_) => {
            let reason = match job.first_contact_at {
                Some(_) => "the maintenance OS is at work",
                None => "the machine boots the maintenance OS",
            };
            stay(reason, limits.power_poll)
        }
        Seen::Nothing | Seen::Done(_) => Outcome::Do(Effect::ObservePower),
    }
}

fn clean_up(job: &Job, seen: &Seen, now: Timestamp, limits: &Limits) -> Decision {
    let spent = job.ended_at.is_some_and(|ended| passed(ended, limits.cleanup, now));
    // Given up only after a failure that was seen: after a long stop of the controller everything is tried once more.
    if job.phase == Phase::Finished || (spent && matches!(seen, Seen::Failed(_))) {
        return Outcome::Done;
    }
    match job.phase {
        Phase::AwaitOff if !job.power_touched => Outcome::Go(Phase::Eject),
        Phase::AwaitOff => await_off(job, seen, now, limits),
        Phase::Eject if !job.media_touched => Outcome::Go(Phase::Restart),
        Phase::Eject => retried(seen, Effect::Eject, Phase::ClearOverride, limits),
        // With the media gone, an override that stays does no harm: it falls through to the disk.
        Phase::ClearOverride if matches!(seen, Seen::Failed(_)) => Outcome::Go(Phase::Restart),
        Phase::ClearOverride => once(seen, Effect::ClearOverride, Phase::Restart),
        // A machine whose installation failed stays off: nothing on its disk is fit to be started.
        Phase::Restart if job.outcome != Some(JobOutcome::Succeeded) => Outcome::Go(Phase::Finished),
        Phase::Restart => retried(seen, Effect::SwitchOn, Phase::Finished, limits),
        _ => Outcome::Go(Phase::AwaitOff),
    }
}

fn await_off(job: &Job, seen: &Seen, now: Timestamp, limits: &Limits) -> Decision {
    // Only a guest that reported is known to be about to switch itself off.
    let patience = if job.reported { limits.off_after_report } else { Duration::ZERO };
    match seen {
        Seen::Power { on: false, .. } | Seen::Done(Effect::ForceOff) => Outcome::Go(Phase::Eject),
        _ if passed(job.phase_started_at, patience, now) && !matches!(seen, Seen::Failed(_)) => {
            Outcome::Do(Effect::ForceOff)
        }
        Seen::Nothing | Seen::Done(_) => Outcome::Do(Effect::ObservePower),
        Seen::Power { .. } => stay("waits for the maintenance OS to switch the machine off", limits.power_poll),
        Seen::Failed(failure) => stay(&failure.detail, limits.power_poll),
    }
}

fn once(seen: &Seen, effect: Effect, next: Phase) -> Decision {
    if *seen == Seen::Done(effect) { Outcome::Go(next) } else { Outcome::Do(effect) }
}

/// Like [`once`], but a failure is tried again until the budget of the clean-up is spent.
fn retried(seen: &Seen, effect: Effect, next: Phase, limits: &Limits) -> Decision {
    match seen {
        Seen::Failed(failure) => stay(&failure.detail, limits.power_poll),
        _ => once(seen, effect, next),
    }
}

/// Key of the taxonomy for a failure in this phase.
pub fn taxonomy(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "validation.server",
        Phase::BuildMedia => "iso.build",
        Phase::Discover => "redfish.discover",
        Phase::Mount => "redfish.mount.maintenance",
        Phase::BootOverride => "redfish.boot-override",
        Phase::PowerOff | Phase::PowerOn => "redfish.reset",
        Phase::AwaitReport => "webhook.wait",
        Phase::AwaitOff | Phase::Eject | Phase::ClearOverride => "cleanup.unmount",
        Phase::Restart | Phase::Finished => "cleanup.reset",
    }
}

fn failed(phase: Phase, code: &str, detail: impl Into<String>) -> Decision {
    Outcome::Failed(Failure { step: taxonomy(phase).to_owned(), code: code.to_owned(), detail: detail.into() })
}

fn stay(reason: &str, retry_after: Duration) -> Decision {
    Outcome::Stay { reason: reason.to_owned(), retry_after }
}

fn passed(since: Timestamp, limit: Duration, now: Timestamp) -> bool {
    now.duration_since(since) >= SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX)
}

fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
