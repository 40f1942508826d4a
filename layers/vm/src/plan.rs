//! What may be asked of a VM in which state, and in which steps it is done. Pure.
//!
//! ```text
//!             create                 boot                      (guest)
//!  (nothing) ────────▶ CREATING ─▶ CREATED ────▶ STARTING ─▶ RUNNING ◀──▶ PAUSED
//!                                     ▲ boot         │ fails   │ stop, ends │
//!                                     │              ▼         ▼            │
//!                       SHUTDOWN ◀────┼─────────── FAILED ◀─ STOPPING ◀─────┘
//!                          └──────────┘  delete, from any state that is at rest: DELETING ─▶ (nothing)
//! ```
//!
//! Every operation is a list of [`Step`]s. The row holds which one is being done, written before it is begun, so that a
//! process that dies anywhere leaves a row from which the next one goes on: a step looks first at what is already so.
//! A step of an operation that can be given up has a step that undoes it; the others are tried until they succeed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Failure, Operation, Options, Phase, RestartPolicy, State};

/// What is done with a VM, one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Disks and network.
    Create,
    /// From at rest to running.
    Boot,
    /// From running to at rest.
    Stop,
    /// Down and up again.
    Reboot,
    /// Processors stand still.
    Pause,
    /// Processors run again.
    Resume,
    /// The guest ended by itself: what is left of it is cleared away.
    Ended,
    /// Until nothing is left.
    Delete,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Create, Self::Boot, Self::Stop, Self::Reboot, Self::Pause, Self::Resume, Self::Ended, Self::Delete];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Boot => "boot",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Ended => "ended",
            Self::Delete => "delete",
        }
    }
}

/// One effect. Each can be done again after it was cut off anywhere, or done already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The VM's own copies of its disks are there.
    Disks,
    /// Its namespace, links, addresses and rules are there.
    Network,
    /// The hypervisor's files are where it will see them.
    Jail,
    /// A keeper and a hypervisor run, and the hypervisor answers.
    Launch,
    /// The guest's processors run.
    Start,
    /// The guest is told to end.
    Ask,
    /// The hypervisor has ended, or the guest's time is over.
    Wait,
    /// How the hypervisor ended is known.
    Collect,
    /// No process and no file of the last run is left.
    Reap,
    /// The processors stand still.
    Pause,
    /// The processors run again.
    Resume,
    /// Nothing of the network is left.
    DropNetwork,
    /// Nothing of the disks is left.
    DropDisks,
}

impl Step {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Network => "network",
            Self::Jail => "jail",
            Self::Launch => "launch",
            Self::Start => "start",
            Self::Ask => "ask",
            Self::Wait => "wait",
            Self::Collect => "collect",
            Self::Reap => "reap",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::DropNetwork => "drop-network",
            Self::DropDisks => "drop-disks",
        }
    }
}

/// The steps of an operation, in order.
pub fn steps(kind: Kind) -> &'static [Step] {
    use Step::*;
    match kind {
        Kind::Create => &[Disks, Network],
        Kind::Boot => &[Reap, Network, Jail, Launch, Start],
        Kind::Stop => &[Ask, Wait, Collect, Reap],
        Kind::Reboot => &[Ask, Wait, Reap, Network, Jail, Launch, Start],
        Kind::Pause => &[Pause],
        Kind::Resume => &[Resume],
        Kind::Ended => &[Collect, Reap],
        Kind::Delete => &[Ask, Wait, Reap, DropNetwork, DropDisks],
    }
}

/// What takes a step back; nothing for steps that leave nothing, or whose operation is never given up.
pub fn undo(kind: Kind, step: Step) -> Option<Step> {
    match (kind, step) {
        (Kind::Create, Step::Disks) => Some(Step::DropDisks),
        (Kind::Create, Step::Network) => Some(Step::DropNetwork),
        (Kind::Boot | Kind::Reboot, Step::Jail | Step::Launch | Step::Start) => Some(Step::Reap),
        _ => None,
    }
}

/// Whether a step that fails makes its operation go back; otherwise it is tried again until it succeeds.
pub fn can_fail(kind: Kind, step: Step) -> bool {
    match kind {
        Kind::Create | Kind::Pause | Kind::Resume => true,
        Kind::Boot | Kind::Reboot => matches!(step, Step::Network | Step::Jail | Step::Launch | Step::Start),
        Kind::Stop | Kind::Ended | Kind::Delete => false,
    }
}

/// What is said when somebody asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Begin,
    /// It is so already.
    Already,
    /// Not in this state.
    WrongState,
}

/// Whether an operation may begin in a state in which nothing else is under way.
pub fn may(kind: Kind, state: State) -> Answer {
    use State::*;
    match (kind, state) {
        (Kind::Boot, Created | Shutdown | Failed) => Answer::Begin,
        (Kind::Stop | Kind::Reboot, Running | Paused) => Answer::Begin,
        (Kind::Stop, Shutdown) => Answer::Already,
        (Kind::Pause, Running) => Answer::Begin,
        (Kind::Pause, Paused) | (Kind::Resume, Running) => Answer::Already,
        (Kind::Resume, Paused) => Answer::Begin,
        (Kind::Ended, Running | Paused) => Answer::Begin,
        (Kind::Delete, Created | Running | Paused | Shutdown | Failed) => Answer::Begin,
        _ => Answer::WrongState,
    }
}

/// The state that is shown while a step of an operation is done.
pub fn state_during(kind: Kind, step: usize, before: State) -> State {
    match kind {
        Kind::Create => State::Creating,
        Kind::Boot => State::Starting,
        Kind::Stop | Kind::Ended => State::Stopping,
        Kind::Reboot if step < 3 => State::Stopping,
        Kind::Reboot => State::Starting,
        Kind::Pause | Kind::Resume => before,
        Kind::Delete => State::Deleting,
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// This step.
    Do(Step),
    /// Nothing: the operation is over and the VM is in this state.
    Settle(State, Option<Failure>),
    /// Nothing: the operation is over and there is no VM any more. Its creation failed for this reason, or it was deleted.
    Gone(Option<Failure>),
}

/// What an operation asks for now.
pub fn turn(operation: &Operation) -> Turn {
    let steps = steps(operation.kind);
    match operation.phase {
        Phase::Forward => match steps.get(operation.step) {
            Some(step) => Turn::Do(*step),
            None => settled(operation),
        },
        Phase::Back => {
            // So many steps are still to be undone, the last one first; neighbours with one undoing share it.
            let left = steps.iter().take(operation.step).rev().find_map(|step| undo(operation.kind, *step));
            left.map_or_else(|| given_up(operation), Turn::Do)
        }
    }
}

fn settled(operation: &Operation) -> Turn {
    let failure = operation.failure.clone();
    match operation.kind {
        Kind::Create => Turn::Settle(State::Created, None),
        Kind::Boot | Kind::Reboot | Kind::Resume => Turn::Settle(State::Running, None),
        Kind::Pause => Turn::Settle(State::Paused, None),
        // Who asked for the end has it, however the hypervisor took it.
        Kind::Stop => Turn::Settle(State::Shutdown, None),
        Kind::Ended if failure.is_some() => Turn::Settle(State::Failed, failure),
        Kind::Ended => Turn::Settle(State::Shutdown, None),
        Kind::Delete => Turn::Gone(None),
    }
}

fn given_up(operation: &Operation) -> Turn {
    let failure = operation.failure.clone();
    match operation.kind {
        Kind::Create => Turn::Gone(failure),
        Kind::Pause | Kind::Resume => Turn::Settle(operation.before, None),
        _ => Turn::Settle(State::Failed, failure),
    }
}

/// The operation after its step was done. `failure` is what [`Step::Collect`] found out.
pub fn done(operation: &Operation, failure: Option<Failure>) -> Operation {
    let mut next = operation.clone();
    match operation.phase {
        Phase::Forward => {
            next.step += 1;
            // What was known before, such as a guest's silence, explains what is found afterwards.
            next.failure = next.failure.or(failure);
        }
        Phase::Back => {
            // Everything down to, and with, the neighbours that share what was just done.
            let steps = steps(operation.kind);
            let undone = |at: usize| steps.get(at).and_then(|step| undo(operation.kind, *step));
            let did = (0..next.step).rev().find_map(undone);
            while next.step > 0 && (undone(next.step - 1).is_none() || undone(next.step - 1) == did) {
                next.step -= 1;
            }
        }
    }
    next
}

/// The operation after its step failed for good: it goes back, the failed step first, for it may have done a part.
pub fn failed(operation: &Operation, failure: Failure) -> Operation {
    let step = (operation.step + 1).min(steps(operation.kind).len());
    Operation { step, phase: Phase::Back, failure: Some(failure), ..operation.clone() }
}

/// A new operation on a VM in a state.
pub fn begin(kind: Kind, before: State, options: Options, now: jiff::Timestamp) -> Operation {
    Operation { kind, step: 0, phase: Phase::Forward, before, failure: None, options, begun_at: now }
}

/// What takes the place of an operation that waits for its guest, when somebody asks for an end of it by force: the same
/// without the wait, or what goes further. Nothing when it is left as it is.
pub fn hastened(operation: &Operation, kind: Kind, options: Options) -> Option<Operation> {
    let waits = turn(operation) == Turn::Do(Step::Wait);
    let goes_further =
        matches!((operation.kind, kind), (Kind::Stop | Kind::Reboot, Kind::Delete) | (Kind::Reboot, Kind::Stop));
    let ends_the_guest = matches!(kind, Kind::Stop | Kind::Reboot | Kind::Delete);
    if !waits || !options.force || !ends_the_guest || !(kind == operation.kind || goes_further) {
        return None;
    }
    let step = steps(kind).iter().position(|step| *step == Step::Wait)? + 1;
    Some(Operation { kind, step, options, ..operation.clone() })
}

/// How long a guest has to end by itself when nobody says.
pub const GRACE: Duration = Duration::from_secs(30);

/// How long the guest has: nothing when it is not asked at all.
pub fn grace(options: Options) -> Duration {
    match options {
        Options { force: true, .. } => Duration::ZERO,
        Options { timeout_seconds: Some(seconds), .. } => Duration::from_secs(seconds.into()),
        Options { .. } => GRACE,
    }
}

/// Longest pause before a VM is booted again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long after its end a VM that ended by itself is booted again by its policy: 1 s, doubled each time.
pub fn restart_after(policy: RestartPolicy, state: State, restarts: u32) -> Option<Duration> {
    let wanted = match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => state == State::Failed,
        RestartPolicy::Always => matches!(state, State::Failed | State::Shutdown),
    };
    let pause = Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(restarts.min(16)));
    wanted.then(|| pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(kind: Kind) -> Operation {
        begin(kind, State::Running, Options::default(), jiff::Timestamp::UNIX_EPOCH)
    }

    fn failure() -> Failure {
        Failure { code: "x".to_owned(), reason: "y".to_owned(), exit_code: None, console_tail: String::new() }
    }

    /// All steps that are done until it settles, when the step at `fails` fails.
    fn walk(kind: Kind, fails: Option<usize>) -> (Vec<Step>, Turn) {
        let mut operation = operation(kind);
        let mut walked = Vec::new();
        for at in 0.. {
            match turn(&operation) {
                Turn::Do(step) => {
                    walked.push(step);
                    operation = if fails == Some(at) { failed(&operation, failure()) } else { done(&operation, None) };
                }
                end => return (walked, end),
            }
            assert!(at < 20, "{kind:?} does not end: {walked:?}");
        }
        unreachable!()
    }

    #[test]
    fn every_operation_ends_where_it_should() {
        use Step::*;
        assert_eq!(walk(Kind::Create, None), (vec![Disks, Network], Turn::Settle(State::Created, None)));
        assert_eq!(walk(Kind::Boot, None).1, Turn::Settle(State::Running, None));
        assert_eq!(walk(Kind::Stop, None).1, Turn::Settle(State::Shutdown, None));
        assert_eq!(walk(Kind::Reboot, None).1, Turn::Settle(State::Running, None));
        assert_eq!(walk(Kind::Delete, None), (vec![Ask, Wait, Reap, DropNetwork, DropDisks], Turn::Gone(None)));
        assert_eq!(walk(Kind::Ended, None).1, Turn::Settle(State::Shutdown, None));
    }

    #[test]
    fn a_failed_step_is_undone_with_all_before_it() {
        use Step::*;
        let failed = Some(failure());
        assert_eq!(walk(Kind::Create, Some(0)), (vec![Disks, DropDisks], Turn::Gone(failed.clone())));
        let both = vec![Disks, Network, DropNetwork, DropDisks];
        assert_eq!(walk(Kind::Create, Some(1)), (both, Turn::Gone(failed.clone())));
        // One clearing away for jail, launch and start; the network stays with the VM.
        let boot = vec![Reap, Network, Jail, Launch, Start, Reap];
        assert_eq!(walk(Kind::Boot, Some(4)), (boot, Turn::Settle(State::Failed, failed.clone())));
        assert_eq!(walk(Kind::Boot, Some(1)), (vec![Reap, Network], Turn::Settle(State::Failed, failed)));
        assert_eq!(walk(Kind::Pause, Some(0)), (vec![Pause], Turn::Settle(State::Running, None)));
    }

    #[test]
    fn steps_that_can_fail_are_those_that_can_be_taken_back_or_left_nothing() {
        for kind in Kind::ALL {
            for step in steps(kind) {
                let taken_back = undo(kind, *step).is_some();
                assert!(!taken_back || can_fail(kind, *step), "{kind:?} {step:?}");
            }
        }
    }

    #[test]
    fn how_it_ended_decides_the_state() {
        let mut ended = operation(Kind::Ended);
        ended = done(&ended, Some(failure()));
        ended = done(&ended, None);
        assert_eq!(turn(&ended), Turn::Settle(State::Failed, Some(failure())));
        let mut stop = operation(Kind::Stop);
        for _ in steps(Kind::Stop) {
            stop = done(&stop, Some(failure()));
        }
        assert_eq!(turn(&stop), Turn::Settle(State::Shutdown, None));
    }

    #[test]
    fn what_is_legal() {
        use State::*;
        let legal =
            |kind| State::ALL.into_iter().filter(|state| may(kind, *state) == Answer::Begin).collect::<Vec<_>>();
        assert_eq!(legal(Kind::Boot), [Created, Shutdown, Failed]);
        assert_eq!(legal(Kind::Stop), [Running, Paused]);
        assert_eq!(legal(Kind::Reboot), [Running, Paused]);
        assert_eq!(legal(Kind::Pause), [Running]);
        assert_eq!(legal(Kind::Resume), [Paused]);
        assert_eq!(legal(Kind::Delete), [Created, Running, Paused, Shutdown, Failed]);
        assert_eq!(may(Kind::Boot, Running), Answer::WrongState);
        assert_eq!(may(Kind::Stop, Shutdown), Answer::Already);
    }

    #[test]
    fn force_cuts_a_wait_short_and_a_deletion_an_end() {
        let force = Options { force: true, timeout_seconds: None };
        let waiting = |kind| done(&operation(kind), None);
        let next = |before, kind| hastened(&waiting(before), kind, force).map(|next| turn(&next));
        assert_eq!(next(Kind::Stop, Kind::Stop), Some(Turn::Do(Step::Collect)));
        assert_eq!(next(Kind::Reboot, Kind::Stop), Some(Turn::Do(Step::Collect)));
        for kind in [Kind::Stop, Kind::Reboot, Kind::Delete] {
            assert_eq!(next(kind, Kind::Delete), Some(Turn::Do(Step::Reap)), "{kind:?}");
            assert_eq!(hastened(&waiting(kind), kind, Options::default()), None);
            assert_eq!(hastened(&operation(kind), kind, force), None, "it does not wait yet");
        }
        assert_eq!(next(Kind::Reboot, Kind::Reboot), Some(Turn::Do(Step::Reap)));
        for (before, kind) in [(Kind::Delete, Kind::Stop), (Kind::Stop, Kind::Reboot), (Kind::Stop, Kind::Boot)] {
            assert_eq!(next(before, kind), None, "{before:?} {kind:?}");
        }
    }

    #[test]
    fn force_and_time_outs_mean_what_they_say() {
        let options = |force, timeout_seconds| Options { force, timeout_seconds };
        assert_eq!(grace(options(false, None)), GRACE);
        assert_eq!(grace(options(false, Some(5))), Duration::from_secs(5));
        assert_eq!(grace(options(true, Some(5))), Duration::ZERO);
    }

    #[test]
    fn restarts_wait_longer_each_time() {
        let after = |restarts| restart_after(RestartPolicy::OnFailure, State::Failed, restarts);
        assert_eq!(after(0), Some(Duration::from_secs(1)));
        assert_eq!(after(3), Some(Duration::from_secs(8)));
        assert_eq!(after(u32::MAX), Some(LONGEST_PAUSE));
        assert_eq!(restart_after(RestartPolicy::OnFailure, State::Shutdown, 0), None);
        assert_eq!(restart_after(RestartPolicy::Never, State::Failed, 0), None);
        assert!(restart_after(RestartPolicy::Always, State::Shutdown, 0).is_some());
    }
}
