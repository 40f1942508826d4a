use cairn_core::{ErrorKind, Outcome};
use proptest::prelude::*;

use super::*;

const NEW: &str = "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-new";
const OLD: &str = "/nix/store/1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-old";

fn path(text: &str) -> StorePath {
    text.parse().unwrap()
}

fn running(path_now: &str, boot: &str) -> Running {
    let system = Some(path(path_now));
    Running { boot_id: boot.to_owned(), current: system.clone(), profile: system, ..Running::default() }
}

fn at(phase: Phase) -> Progress {
    Progress {
        phase,
        system: (phase > Phase::Evaluate).then(|| path(NEW)),
        before: (phase > Phase::Inspect).then(|| running(OLD, "b1")),
        begun: phase.is_on_the_host(),
        ..Progress::default()
    }
}

fn ask() -> Ask {
    Ask { confirm: Duration::from_secs(300), ..Ask::default() }
}

fn host(activation: Activation, now: Running) -> Option<Seen> {
    Some(Seen::Host(activation, now))
}

fn fault(may_pass: bool) -> Fault {
    let kind = ErrorKind::Unreachable;
    Fault { kind, code: "x", message: "gone".to_owned(), log: String::new(), may_pass }
}

/// What a step says, without what is in it.
fn word(step: Step) -> String {
    match step {
        Outcome::Stay { .. } => "stay".to_owned(),
        Outcome::Go(progress) => format!("go {}", progress.phase.as_str()),
        Outcome::Do(effect) => format!("do {effect:?}"),
        Outcome::Done => "done".to_owned(),
        Outcome::Failed(failure) => format!("failed {}", failure.code()),
    }
}

#[test]
fn the_table_of_the_way_to_the_host() {
    use Phase::*;
    let evaluated = Seen::Evaluated { derivation: "d".to_owned(), system: path(NEW) };
    let dry = Ask { dry_run: true, ..ask() };
    let unchanged = Progress { before: Some(running(NEW, "b1")), ..at(Deliver) };
    let table: Vec<(Progress, Option<Seen>, Ask, &str)> = vec![
        (at(Resolve), None, ask(), "do Resolve"),
        (at(Resolve), Some(Seen::Resolved("a".repeat(40).parse().unwrap())), ask(), "go evaluate"),
        (at(Evaluate), None, ask(), "do Evaluate"),
        (at(Evaluate), Some(evaluated), ask(), "go inspect"),
        (at(Inspect), None, ask(), "do Inspect"),
        (at(Inspect), Some(Seen::Running(running(OLD, "b1"))), ask(), "go build"),
        (at(Inspect), Some(Seen::Running(running(NEW, "b1"))), ask(), "go deliver"),
        (at(Inspect), Some(Seen::Running(running(NEW, "b1"))), dry.clone(), "go previewed"),
        (at(Build), None, ask(), "do Build"),
        (at(Build), Some(Seen::Done), ask(), "go copy"),
        (at(Copy), Some(Seen::Done), ask(), "go preview"),
        (at(Preview), Some(Seen::Previewed(super::Preview::default())), dry, "go previewed"),
        (at(Preview), Some(Seen::Previewed(super::Preview::default())), ask(), "go deliver"),
        (at(Deliver), None, ask(), "do Deliver"),
        (at(Deliver), Some(Seen::Done), ask(), "go activate"),
        (unchanged, Some(Seen::Done), ask(), "go unchanged"),
        (at(Unchanged), None, ask(), "done"),
        (at(Previewed), None, ask(), "done"),
        (at(Applied), None, ask(), "done"),
        (at(Build), Some(Seen::Fault(fault(false))), ask(), "failed x"),
        (at(Copy), Some(Seen::Fault(fault(true))), ask(), "stay"),
        (at(Copy), Some(Seen::Fault(fault(true))), Ask { faults: 2, ..ask() }, "failed x"),
    ];
    for (progress, seen, ask, expected) in table {
        let said = format!("{} {seen:?}", progress.phase.as_str());
        assert_eq!(word(step(&progress, seen, &ask)), expected, "{said}");
    }
}

#[test]
fn the_table_of_the_host() {
    use Phase::*;
    let old = || running(OLD, "b1");
    let on_trial = || Running { current: Some(path(NEW)), ..old() };
    let rolled_back = || Activation::RolledBack { reason: "not confirmed in time".to_owned(), log: String::new() };
    let held = || Activation::Held { holder: "other".to_owned(), age: Duration::from_secs(7) };
    let late = Ask { waited: Duration::from_secs(3600), ..ask() };
    let quarantined = Ask { quarantined: Some("it failed".to_owned()), ..ask() };
    let refused = Ask { faults: 1, fault: Some(fault(false)), ..ask() };
    let table: Vec<(Phase, Option<Seen>, Ask, &str)> = vec![
        (Activate, None, ask(), "do Look"),
        (Activate, host(Activation::Absent, old()), ask(), "do Begin"),
        (Activate, host(Activation::Absent, old()), quarantined.clone(), "failed machine_quarantined"),
        // The machine was switched off while the system was on trial: what starts is the old one.
        (Activate, host(Activation::Absent, running(OLD, "b2")), ask(), "failed machine_rolled_back"),
        (Activate, host(Activation::Absent, old()), refused, "failed x"),
        (Activate, host(Activation::NotBegun { reason: "r".to_owned() }, old()), ask(), "failed machine_host"),
        (Activate, host(held(), old()), ask(), "failed machine_conflict"),
        (Activate, host(Activation::Underway(Underway::Testing), old()), ask(), "stay"),
        (Activate, host(Activation::Underway(Underway::Testing), old()), late.clone(), "failed machine_out_of_sight"),
        (Activate, host(Activation::OnTrial, on_trial()), ask(), "go check"),
        (Activate, host(rolled_back(), old()), ask(), "failed machine_rolled_back"),
        (Activate, host(Activation::Confirmed, running(NEW, "b1")), ask(), "go verify"),
        (Activate, Some(Seen::Fault(fault(false))), ask(), "stay"),
        (Activate, Some(Seen::Fault(fault(true))), late, "failed machine_out_of_sight"),
        (Check, host(Activation::OnTrial, on_trial()), ask(), "do CheckHealth"),
        (Check, host(Activation::OnTrial, on_trial()), quarantined, "do CheckHealth"),
        (Check, Some(Seen::Healthy), ask(), "go confirm"),
        (Check, Some(Seen::Unhealthy("x".to_owned())), ask(), "go roll-back"),
        (Check, host(rolled_back(), old()), ask(), "failed machine_rolled_back"),
        (Check, host(Activation::Absent, running(OLD, "b2")), ask(), "failed machine_rolled_back"),
        (Confirm, None, ask(), "do Look"),
        (Confirm, host(Activation::OnTrial, on_trial()), ask(), "do Confirm"),
        (Confirm, host(Activation::Confirmed, running(NEW, "b1")), ask(), "go verify"),
        (Confirm, host(rolled_back(), old()), ask(), "failed machine_rolled_back"),
        (Confirm, host(Activation::Absent, running(NEW, "b2")), ask(), "go verify"),
        (RollBack, host(Activation::OnTrial, on_trial()), ask(), "do RollBack"),
        (RollBack, host(rolled_back(), old()), ask(), "failed machine_rolled_back"),
        (Verify, host(Activation::Confirmed, running(NEW, "b1")), ask(), "go applied"),
        (Verify, host(Activation::Absent, running(NEW, "b2")), ask(), "go applied"),
        (Verify, host(Activation::Confirmed, old()), ask(), "failed machine_drifted"),
    ];
    for (phase, seen, ask, expected) in table {
        let said = format!("{} {seen:?}", phase.as_str());
        assert_eq!(word(step(&at(phase), seen, &ask)), expected, "{said}");
    }
}

#[test]
fn a_host_that_starts_anew_before_it_was_asked_is_looked_at_again() {
    let progress = Progress { begun: false, ..at(Phase::Activate) };
    assert_eq!(word(step(&progress, host(Activation::Absent, running(OLD, "b2")), &ask())), "go inspect");
    let Outcome::Go(next) = step(&progress, host(Activation::Absent, running(OLD, "b1")), &ask()) else { panic!() };
    assert!(next.begun && next.phase == Phase::Activate);
}

#[test]
fn a_quarantined_system_is_neither_built_nor_copied() {
    let ask = Ask { quarantined: Some("it failed".to_owned()), ..ask() };
    for phase in [Phase::Inspect, Phase::Build, Phase::Copy, Phase::Preview, Phase::Deliver] {
        assert_eq!(word(step(&at(phase), None, &ask)), "failed machine_quarantined");
    }
}

#[test]
fn what_failed_is_said_and_not_only_that_it_was_taken_back() {
    let progress = Progress { unhealthy: Some("unit web.service is failed".to_owned()), ..at(Phase::RollBack) };
    let activation = Activation::RolledBack { reason: "asked".to_owned(), log: String::new() };
    let Outcome::Failed(failure) = step(&progress, host(activation, running(OLD, "b1")), &ask()) else { panic!() };
    assert_eq!(failure.to_string(), "the host took the old system back: unit web.service is failed");
    assert!(failure.quarantines() && failure.is_known());
}

/// Anything that an effect could bring, whether it fits or not.
fn any_seen() -> impl Strategy<Value = Seen> {
    let now = || prop_oneof![Just(running(OLD, "b1")), Just(running(NEW, "b1")), Just(running(OLD, "b2"))];
    let activation = prop_oneof![
        Just(Activation::Absent),
        Just(Activation::Held { holder: "other".to_owned(), age: Duration::ZERO }),
        Just(Activation::Underway(Underway::Testing)),
        Just(Activation::OnTrial),
        Just(Activation::OnTrial),
        Just(Activation::Confirmed),
        Just(Activation::RolledBack { reason: "r".to_owned(), log: String::new() }),
    ];
    prop_oneof![
        Just(Seen::Resolved("a".repeat(40).parse().unwrap())),
        Just(Seen::Evaluated { derivation: "d".to_owned(), system: path(NEW) }),
        now().prop_map(Seen::Running),
        Just(Seen::Done),
        Just(Seen::Previewed(super::Preview::default())),
        (activation, now()).prop_map(|(activation, now)| Seen::Host(activation, now)),
        Just(Seen::Healthy),
        Just(Seen::Unhealthy("u".to_owned())),
        any::<bool>().prop_map(|may_pass| Seen::Fault(fault(may_pass))),
    ]
}

/// One turn of the world: what an effect brings, whether the process is killed after it, whether the path is
/// quarantined by now, and how long it was waited.
fn any_turn() -> impl Strategy<Value = (Seen, bool, bool, u64)> {
    (any_seen(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.1), 0u64..1000)
}

proptest! {
    /// Whatever is answered and whenever the process dies: nothing is confirmed without health that was seen to hold in
    /// the phase before, nothing after health that did not, and nothing is begun that is quarantined.
    #[test]
    fn health_and_quarantine_hold_in_any_order(turns in proptest::collection::vec(any_turn(), 1..120)) {
        let mut progress = Progress::default();
        let mut seen: Option<Seen> = None;
        let (mut healthy, mut unhealthy) = (false, false);
        let mut turns = turns.into_iter();
        let (mut quarantined, mut waited) = (false, 0);
        for _ in 0..500 {
            let ask = Ask {
                quarantined: quarantined.then(|| "q".to_owned()),
                waited: Duration::from_secs(waited),
                ..ask()
            };
            match step(&progress, seen.take(), &ask) {
                // What is written survives a kill; what was seen does not.
                Outcome::Go(next) => progress = next,
                Outcome::Stay { .. } => {}
                Outcome::Do(effect) => {
                    if effect == Effect::Confirm {
                        prop_assert!(healthy && !unhealthy, "confirmed at {:?}", progress);
                    }
                    if effect == Effect::Begin {
                        prop_assert!(!quarantined);
                    }
                    let Some((brought, killed, quarantine, time)) = turns.next() else { break };
                    quarantined = quarantine;
                    waited = time;
                    // Only an effect that asks for health can bring it.
                    let is_health = matches!(brought, Seen::Healthy | Seen::Unhealthy(_));
                    if is_health && effect != Effect::CheckHealth {
                        continue;
                    }
                    if !killed {
                        healthy |= brought == Seen::Healthy;
                        unhealthy |= matches!(brought, Seen::Unhealthy(_));
                        seen = Some(brought);
                    }
                }
                Outcome::Done | Outcome::Failed(_) => break,
            }
        }
    }

    /// A kill between any two instructions leaves a phase from which the host is asked before anything is done to it.
    #[test]
    fn the_host_is_asked_first_after_a_kill(phase in 0usize..5) {
        let phase = [Phase::Activate, Phase::Check, Phase::Confirm, Phase::RollBack, Phase::Verify][phase];
        prop_assert_eq!(word(step(&at(phase), None, &ask())), "do Look");
    }
}
