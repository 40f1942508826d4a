use super::*;
use crate::model::{FirstBoot, JobId};

fn job(status: Status, phase: Phase) -> Job {
    let now = Timestamp::UNIX_EPOCH;
    Job {
        id: JobId::new(),
        serial: "S1".parse().unwrap(),
        status,
        phase,
        reason: String::new(),
        attempt: 1,
        outcome: None,
        failure: None,
        recipe_json: "{}".to_owned(),
        task_target: "install-linux.target".to_owned(),
        artifact: None,
        task_iso: None,
        cancel_requested: false,
        power_touched: true,
        media_touched: true,
        reported: false,
        ended_at: None,
        first_contact_at: None,
        first_boot: FirstBoot::NotStarted,
        first_boot_at: None,
        first_boot_deadline: None,
        power: None,
        power_seen_at: None,
        phase_started_at: now,
        created_at: now,
        updated_at: now,
        picked_at: Some(now),
        worker_id: None,
    }
}

/// Watched for long enough that nothing was missed.
const LONG: Duration = Duration::from_hours(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// Walks a job with effects that always work, and lists what was done.
fn walk(mut job: Job) -> (Job, Vec<Effect>) {
    let limits = Limits::default();
    let mut seen = Seen::Nothing;
    let mut done = Vec::new();
    for _ in 0..100 {
        match step(&job, &seen, at(1), LONG, &limits) {
            Outcome::Do(Effect::ObservePower) => {
                done.push(Effect::ObservePower);
                seen = Seen::Power { on: job.status == Status::Provisioning, lasting: Duration::ZERO };
            }
            Outcome::Do(effect) => {
                done.push(effect);
                seen = Seen::Done(effect);
            }
            Outcome::Go(phase) => {
                job.phase = phase;
                seen = Seen::Nothing;
            }
            Outcome::Stay { .. } | Outcome::Done | Outcome::Failed(_) => return (job, done),
        }
    }
    panic!("the job never rests: {:?}", job.phase);
}

#[test]
fn the_way_to_the_report() {
    let (job, done) = walk(job(Status::Provisioning, Phase::Waiting));
    assert_eq!(job.phase, Phase::AwaitReport);
    use Effect::*;
    assert_eq!(done, [BuildMedia, Discover, Mount, SetBootOverride, SwitchOff, SwitchOn, ObservePower]);
}

#[test]
fn success_ejects_before_it_starts_the_disk() {
    let mut succeeded = job(Status::Succeeded, Phase::AwaitOff);
    succeeded.outcome = Some(JobOutcome::Succeeded);
    succeeded.reported = true;
    let (job, done) = walk(succeeded);
    assert_eq!(job.phase, Phase::Finished);
    use Effect::*;
    assert_eq!(done, [ObservePower, Eject, ClearOverride, SwitchOn]);
}

#[test]
fn a_failed_machine_stays_off() {
    let mut failed = job(Status::Failed, Phase::AwaitOff);
    failed.outcome = Some(JobOutcome::Failed);
    let (job, done) = walk(failed);
    assert_eq!(job.phase, Phase::Finished);
    assert!(!done.contains(&Effect::SwitchOn), "{done:?}");
    assert!(done.contains(&Effect::ForceOff), "nobody else switches it off: {done:?}");
}

#[test]
fn what_was_never_touched_is_left_alone() {
    let mut failed = job(Status::Failed, Phase::AwaitOff);
    failed.outcome = Some(JobOutcome::Failed);
    failed.power_touched = false;
    failed.media_touched = false;
    assert_eq!(walk(failed).1, []);
}

#[test]
fn a_machine_that_was_heard_of_is_not_switched_on_again() {
    let mut resumed = job(Status::Provisioning, Phase::PowerOn);
    resumed.first_contact_at = Some(at(0));
    assert_eq!(step(&resumed, &Seen::Nothing, at(1), LONG, &Limits::default()), Outcome::Go(Phase::AwaitReport));
}

#[test]
fn a_silent_guest_ends_the_job_at_its_deadline_and_not_before() {
    let job = job(Status::Provisioning, Phase::AwaitReport);
    let limits = Limits::default();
    let on = Seen::Power { on: true, lasting: Duration::from_secs(7000) };
    assert!(matches!(step(&job, &on, at(7199), LONG, &limits), Outcome::Stay { .. }));
    let Outcome::Failed(failure) = step(&job, &on, at(7200), LONG, &limits) else { panic!("still waiting") };
    assert_eq!((failure.step.as_str(), failure.code.as_str()), ("webhook.wait", "webhook_timeout"));
}

#[test]
fn a_guest_that_went_off_without_a_report_is_not_waited_for() {
    let job = job(Status::Provisioning, Phase::AwaitReport);
    let off = |seconds| Seen::Power { on: false, lasting: Duration::from_secs(seconds) };
    assert!(matches!(step(&job, &off(119), at(300), LONG, &Limits::default()), Outcome::Stay { .. }));
    let Outcome::Failed(failure) = step(&job, &off(120), at(300), LONG, &Limits::default()) else {
        panic!("still waiting")
    };
    assert_eq!(failure.code, "guest_powered_off");
}

#[test]
fn media_that_cannot_be_ejected_keep_the_machine_off() {
    let mut succeeded = job(Status::Succeeded, Phase::Eject);
    succeeded.outcome = Some(JobOutcome::Succeeded);
    succeeded.ended_at = Some(at(0));
    let failure = Failure { step: "cleanup.unmount".into(), code: "bmc_unreachable".into(), detail: "x".into() };
    let limits = Limits::default();
    assert!(matches!(step(&succeeded, &Seen::Failed(failure.clone()), at(599), LONG, &limits), Outcome::Stay { .. }));
    assert_eq!(step(&succeeded, &Seen::Failed(failure), at(600), LONG, &limits), Outcome::Done);
}

#[test]
fn cancel_ends_any_provisioning_phase() {
    for phase in [Phase::BuildMedia, Phase::Mount, Phase::PowerOn, Phase::AwaitReport] {
        let mut cancelled = job(Status::Provisioning, phase);
        cancelled.cancel_requested = true;
        let Outcome::Failed(failure) = step(&cancelled, &Seen::Nothing, at(1), LONG, &Limits::default()) else {
            panic!("{phase} went on")
        };
        assert_eq!(failure.code, "cancelled");
    }
}

#[test]
fn a_job_that_gets_nowhere_is_ended() {
    let job = job(Status::Provisioning, Phase::Discover);
    let Outcome::Failed(failure) = step(&job, &Seen::Nothing, at(4 * 3600), LONG, &Limits::default()) else {
        panic!("still at it")
    };
    assert_eq!(failure.code, "job_stuck");
}

#[test]
fn time_without_a_listener_does_not_count_against_the_machine() {
    let job = job(Status::Provisioning, Phase::AwaitReport);
    let limits = Limits::default();
    let just_started = Duration::from_secs(5);
    let late = at(3 * 3600);
    assert_eq!(step(&job, &Seen::Nothing, late, just_started, &limits), Outcome::Do(Effect::ObservePower));
    assert!(matches!(step(&job, &Seen::Nothing, late, LONG, &limits), Outcome::Failed(_)));
}

#[test]
fn clean_up_is_tried_however_late_it_is() {
    let mut succeeded = job(Status::Succeeded, Phase::Eject);
    succeeded.outcome = Some(JobOutcome::Succeeded);
    succeeded.ended_at = Some(at(0));
    let decision = step(&succeeded, &Seen::Nothing, at(3 * 3600), Duration::ZERO, &Limits::default());
    assert_eq!(decision, Outcome::Do(Effect::Eject));
}
