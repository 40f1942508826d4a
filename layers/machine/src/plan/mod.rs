//! What is done next to bring a machine to a system. Pure: [`step`] decides, whoever calls it acts.
//!
//! ```text
//!  Resolve ─▶ Evaluate ─▶ Inspect ─▶ Build ─▶ Copy ─▶ Preview ─▶ Deliver ─▶ Activate ─▶ Check ─▶ Confirm ─▶ Verify ─▶ Applied
//!                 │          │                          │ dry run    │           │         │         │
//!                 │          │ runs it already          ▼            ▼           │         ▼         │ too late
//!                 │          └──────────▶ Deliver    Previewed   Unchanged       │      RollBack     │
//!                 ▼                                                              ▼         ▼         ▼
//!            Quarantined                                              host takes the old system back: RolledBack
//! ```
//!
//! Up to Deliver nothing on the machine changes but its store, and a deployment that dies there is forgotten. From
//! Activate on the host is the one that knows: every step asks it first, by the deployment's id, and so a second process
//! goes on where the first one was killed. Two things hold whatever is answered and whoever dies:
//!
//! * nothing is confirmed unless its health was seen to hold, on a connection made after the activation;
//! * a system that a machine took back is not tried there again until somebody asks for it.

mod fault;
#[cfg(test)]
mod tests;

use std::time::Duration;

use cairn_core::{ErrorKind, Outcome};
use serde::{Deserialize, Serialize};

pub use fault::{Failure, Fault};

use crate::errors;
use crate::model::{Activation, Commit, Preview, Running, StorePath, Underway};

/// Where a deployment is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// A reference becomes a commit.
    #[default]
    Resolve,
    /// The flake is evaluated: which system is wanted.
    Evaluate,
    /// The host is asked what it runs.
    Inspect,
    /// The system is built.
    Build,
    /// It goes into the host's store.
    Copy,
    /// The host says what would change.
    Preview,
    /// Files that must not be in a store go to the host.
    Deliver,
    /// The new system is activated, on trial.
    Activate,
    /// It is asked, on a new connection, whether it does what it should.
    Check,
    /// It becomes the one to stay.
    Confirm,
    /// The old one comes back.
    RollBack,
    /// The host is asked what it runs now.
    Verify,
    /// The end: the machine runs the new system.
    Applied,
    /// The end: the machine ran it before.
    Unchanged,
    /// The end of a dry run: what would change is known.
    Previewed,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Resolve,
        Self::Evaluate,
        Self::Inspect,
        Self::Build,
        Self::Copy,
        Self::Preview,
        Self::Deliver,
        Self::Activate,
        Self::Check,
        Self::Confirm,
        Self::RollBack,
        Self::Verify,
        Self::Applied,
        Self::Unchanged,
        Self::Previewed,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Evaluate => "evaluate",
            Self::Inspect => "inspect",
            Self::Build => "build",
            Self::Copy => "copy",
            Self::Preview => "preview",
            Self::Deliver => "deliver",
            Self::Activate => "activate",
            Self::Check => "check",
            Self::Confirm => "confirm",
            Self::RollBack => "roll-back",
            Self::Verify => "verify",
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Previewed => "previewed",
        }
    }

    /// Whether the host may have begun, so that only the host knows how far it is.
    pub fn is_on_the_host(self) -> bool {
        matches!(self, Self::Activate | Self::Check | Self::Confirm | Self::RollBack | Self::Verify)
    }

    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged | Self::Previewed)
    }
}

/// What is kept of a deployment, written before anything is done in its phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// What the reference meant.
    pub commit: Option<Commit>,
    /// What builds the system.
    pub derivation: Option<String>,
    /// The system.
    pub system: Option<StorePath>,
    /// What the host ran before.
    pub before: Option<Running>,
    /// The host has the system already: it ran it before, and goes back to it.
    pub resident: bool,
    /// The host may have been told to begin.
    pub begun: bool,
    /// What the activation would do, or did.
    pub preview: Option<Preview>,
    /// Why the old system is to come back.
    pub unhealthy: Option<String>,
    /// Whether the machine needs a restart for all of the new system.
    pub reboot_required: bool,
}

/// What the plan asks for. Each can be done again after it was cut off anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Find out which commit the reference means.
    Resolve,
    /// Evaluate the flake at the commit.
    Evaluate,
    /// Ask the host what it runs.
    Inspect,
    /// Build the derivation.
    Build,
    /// Copy the system to the host's store.
    Copy,
    /// Ask the host what would change.
    Preview,
    /// Put files onto the host.
    Deliver,
    /// Ask the host how far the activation is.
    Look,
    /// Begin the activation.
    Begin,
    /// Run the health checks on a new connection.
    CheckHealth,
    /// Tell the host to keep the system.
    Confirm,
    /// Tell the host to take the old system back.
    RollBack,
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The reference means this commit.
    Resolved(Commit),
    /// The flake wants this system.
    Evaluated {
        /// What builds it.
        derivation: String,
        /// Where it will be.
        system: StorePath,
    },
    /// The host runs this.
    Running(Running),
    /// Built, copied or delivered.
    Done,
    /// This would change.
    Previewed(Preview),
    /// The host says this of the deployment, and that it runs this.
    Host(Activation, Running),
    /// Every check holds.
    Healthy,
    /// A check does not hold.
    Unhealthy(String),
    /// It could not be done.
    Fault(Fault),
}

/// What the decision depends on beside the progress and what was seen.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Show what would change, and change nothing.
    pub dry_run: bool,
    /// Why the system must not be tried on this machine, unless that was just asked for.
    pub quarantined: Option<String>,
    /// Faults in this phase, without the one that was just seen.
    pub faults: u32,
    /// The last of them.
    pub fault: Option<Fault>,
    /// How long this process has been in this phase.
    pub waited: Duration,
    /// From arming to confirming, on the host.
    pub confirm: Duration,
}

/// What [`step`] decides.
pub type Step = Outcome<Progress, Effect, Failure>;

/// How often something that may pass is tried before the host has begun.
const TRIES: u32 = 3;
/// How much longer than the host's own time it is waited for a host that does not answer.
pub const GRACE: Duration = Duration::from_secs(60);
/// Pause between two questions to a host that is busy.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Decides what comes next. `seen` is what the last effect brought since the phase was entered, or nothing.
pub fn step(progress: &Progress, seen: Option<Seen>, ask: &Ask) -> Step {
    if !progress.phase.is_on_the_host()
        && progress.system.is_some()
        && let Some(reason) = &ask.quarantined
    {
        return Outcome::Failed(Failure::Quarantined { reason: reason.clone() });
    }
    match seen {
        Some(Seen::Fault(fault)) => on_fault(progress, fault, ask),
        seen if progress.phase.is_on_the_host() => on_the_host(progress, seen, ask),
        seen => before_the_host(progress, seen, ask),
    }
}

fn go(progress: &Progress, phase: Phase) -> Step {
    Outcome::Go(Progress { phase, ..progress.clone() })
}

fn on_fault(progress: &Progress, fault: Fault, ask: &Ask) -> Step {
    if !fault.may_pass && !progress.phase.is_on_the_host() {
        return Outcome::Failed(Failure::Fault(fault));
    }
    // What can be done about a trial that cannot be reached is done by the host: it is only waited for.
    let over =
        if progress.phase.is_on_the_host() { ask.waited >= ask.confirm + GRACE } else { ask.faults + 1 >= TRIES };
    match (over, progress.phase) {
        (false, _) => Outcome::Stay { reason: fault.to_string(), retry_after: backoff(ask.faults) },
        (true, phase) if phase.is_on_the_host() => Outcome::Failed(Failure::OutOfSight(fault)),
        (true, _) => Outcome::Failed(Failure::Fault(fault)),
    }
}

/// 1, 2, 4, then 5 seconds.
fn backoff(faults: u32) -> Duration {
    Duration::from_secs(1 << faults.min(3)).min(Duration::from_secs(5))
}

fn before_the_host(progress: &Progress, seen: Option<Seen>, ask: &Ask) -> Step {
    use Phase::*;
    let unchanged = match (&progress.before, &progress.system) {
        (Some(before), Some(system)) => before.is(system),
        _ => false,
    };
    match (progress.phase, seen) {
        (Resolve, Some(Seen::Resolved(commit))) => {
            Outcome::Go(Progress { phase: Evaluate, commit: Some(commit), ..progress.clone() })
        }
        (Resolve, _) => Outcome::Do(Effect::Resolve),
        (Evaluate, Some(Seen::Evaluated { derivation, system })) => Outcome::Go(Progress {
            phase: Inspect,
            derivation: Some(derivation),
            system: Some(system),
            ..progress.clone()
        }),
        (Evaluate, _) => Outcome::Do(Effect::Evaluate),
        (Inspect, Some(Seen::Running(running))) => {
            let reboot_required = running.reboot_required;
            let is_there = progress.system.as_ref().is_some_and(|system| running.is(system));
            let phase = match (is_there, ask.dry_run) {
                (true, true) => Previewed,
                (true, false) => Deliver,
                (false, _) if progress.resident => Preview,
                (false, _) => Build,
            };
            // A host that runs the system already would change nothing.
            let preview = is_there.then(|| crate::model::Preview { reboot_required, ..Default::default() });
            Outcome::Go(Progress { phase, before: Some(running), preview, reboot_required, ..progress.clone() })
        }
        (Inspect, _) => Outcome::Do(Effect::Inspect),
        (Build, Some(Seen::Done)) => go(progress, Copy),
        (Build, _) => Outcome::Do(Effect::Build),
        (Copy, Some(Seen::Done)) => go(progress, Preview),
        (Copy, _) => Outcome::Do(Effect::Copy),
        (Preview, Some(Seen::Previewed(preview))) => Outcome::Go(Progress {
            phase: if ask.dry_run { Previewed } else { Deliver },
            reboot_required: preview.reboot_required,
            preview: Some(preview),
            ..progress.clone()
        }),
        (Preview, _) => Outcome::Do(Effect::Preview),
        (Deliver, Some(Seen::Done)) => go(progress, if unchanged { Unchanged } else { Activate }),
        (Deliver, _) => Outcome::Do(Effect::Deliver),
        (_, _) => Outcome::Done,
    }
}

/// The host is asked first, in every phase; its answer decides.
fn on_the_host(progress: &Progress, seen: Option<Seen>, ask: &Ask) -> Step {
    match seen {
        None => Outcome::Do(Effect::Look),
        Some(Seen::Host(activation, running)) => answered(progress, activation, &running, ask),
        Some(Seen::Healthy) if progress.phase == Phase::Check => go(progress, Phase::Confirm),
        Some(Seen::Unhealthy(reason)) if progress.phase == Phase::Check => {
            Outcome::Go(Progress { phase: Phase::RollBack, unhealthy: Some(reason), ..progress.clone() })
        }
        Some(_) => Outcome::Do(Effect::Look),
    }
}

fn answered(progress: &Progress, activation: Activation, running: &Running, ask: &Ask) -> Step {
    use Phase::*;
    let phase = progress.phase;
    match activation {
        Activation::NotBegun { reason } => {
            Outcome::Failed(Failure::Fault(Fault::lasting(ErrorKind::Failed, errors::MACHINE_HOST, reason)))
        }
        Activation::Held { holder, age } => Outcome::Failed(Failure::Conflict { holder, age }),
        Activation::RolledBack { reason, log } => {
            let reason = progress.unhealthy.clone().unwrap_or(reason);
            Outcome::Failed(Failure::RolledBack { reason, log })
        }
        Activation::RollbackFailed { reason, log } => Outcome::Failed(Failure::RollbackFailed { reason, log }),
        Activation::Underway(underway) => {
            if ask.waited >= ask.confirm * 2 + GRACE {
                return Outcome::Failed(Failure::Hanging { doing: underway });
            }
            let reason = format!("the host is {}", said(underway));
            Outcome::Stay { reason, retry_after: ASK_AGAIN }
        }
        Activation::Confirmed if phase == Verify => verified(progress, running),
        Activation::Confirmed => go(progress, Verify),
        Activation::OnTrial => match phase {
            Activate => go(progress, Check),
            Check => Outcome::Do(Effect::CheckHealth),
            RollBack => Outcome::Do(Effect::RollBack),
            _ => Outcome::Do(Effect::Confirm),
        },
        Activation::Absent => absent(progress, running, ask),
    }
}

/// The host does not know the deployment: it was never begun, or the host has started anew since.
fn absent(progress: &Progress, running: &Running, ask: &Ask) -> Step {
    let is_new = progress.system.as_ref().is_some_and(|system| running.is(system));
    let same_start = progress.before.as_ref().is_some_and(|before| before.boot_id == running.boot_id);
    match progress.phase {
        Phase::Verify => verified(progress, running),
        // It was confirmed, and the host started with it before anybody asked.
        _ if is_new && !same_start => go(progress, Phase::Verify),
        // Not even asked for: a host that started anew is looked at again from the beginning.
        Phase::Activate if !progress.begun && !same_start => {
            Outcome::Go(Progress { phase: Phase::Inspect, before: None, ..progress.clone() })
        }
        Phase::Activate if !progress.begun => Outcome::Go(Progress { begun: true, ..progress.clone() }),
        Phase::Activate if same_start => match (&ask.quarantined, &ask.fault) {
            (Some(reason), _) => Outcome::Failed(Failure::Quarantined { reason: reason.clone() }),
            // The host answers, and does not begin.
            (None, Some(fault)) if ask.faults >= TRIES || !fault.may_pass => {
                Outcome::Failed(Failure::Fault(fault.clone()))
            }
            (None, _) => Outcome::Do(Effect::Begin),
        },
        _ => Outcome::Failed(Failure::RolledBack {
            reason: "the host started anew before the system was confirmed".to_owned(),
            log: String::new(),
        }),
    }
}

fn verified(progress: &Progress, running: &Running) -> Step {
    let Some(system) = &progress.system else { return Outcome::Do(Effect::Look) };
    if running.is(system) {
        let reboot_required = running.reboot_required;
        return Outcome::Go(Progress { phase: Phase::Applied, reboot_required, ..progress.clone() });
    }
    Outcome::Failed(Failure::Other { current: running.current.clone(), profile: running.profile.clone() })
}

fn said(underway: Underway) -> &'static str {
    match underway {
        Underway::Arming => "arming its way back",
        Underway::Testing => "activating the new system",
        Underway::Confirming => "confirming the new system",
        Underway::RollingBack => "taking the old system back",
    }
}
