//! The engine against a world that keeps the real one's rules: killed at every question, cut off at every question.

use std::time::Duration;

use cairn_core::SystemClock;
use machine::adapters::fake::{Trouble, World};
use machine::model::{Delivery, Desired, File, HealthCheck, Limits, Placement, Probe, StorePath};
use machine::plan::{Failure, Phase};
use machine::ports::{Event, Watcher};
use machine::run::{Engine, Error, Report, Request};
use machine::store::{Ending, MIGRATIONS, MachineStore};
use store::Store;
use tokio_util::sync::CancellationToken;

const OLD: &str = "/nix/store/1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-old";
const NEW: &str = "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-new";

fn path(text: &str) -> StorePath {
    text.parse().unwrap()
}

fn world() -> World {
    World::new("a".repeat(40).parse().unwrap(), &path(OLD), &path(NEW))
}

fn desired() -> Desired {
    Desired {
        machine: "default/web".parse().unwrap(),
        configuration: "web".to_owned(),
        reference: "main".to_owned(),
        subdirectory: String::new(),
        system: "web".parse().unwrap(),
        placement: Placement::Controller,
        health: vec![HealthCheck {
            name: "front".to_owned(),
            probe: Probe::Units(vec!["web.service".to_owned()]),
            timeout: Duration::from_secs(4),
        }],
        files: vec![File {
            path: "token".to_owned(),
            content: "x".into(),
            delivery: Delivery::Host { owner: "root".to_owned(), group: "root".to_owned(), mode: 0o400 },
        }],
        limits: Limits { confirm: Duration::from_secs(60), ..Limits::default() },
    }
}

struct Silent;

impl Watcher for Silent {
    fn told(&self, _: &Desired, _: &Event<'_>) {}
}

struct Bench {
    world: World,
    store: MachineStore,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("machine.db"), MIGRATIONS).await.unwrap();
        Self { world: world(), store: MachineStore::new(store), _directory: directory }
    }

    async fn apply_as(&self, request: Request, stop: &CancellationToken) -> Result<Report, Error> {
        let engine = Engine {
            source: &self.world,
            builder: &self.world,
            host: &self.world,
            store: &self.store,
            clock: &SystemClock,
            watcher: &Silent,
            stop,
        };
        engine.apply(&desired(), request).await
    }

    async fn apply(&self) -> Result<Report, Error> {
        self.apply_as(Request::default(), &CancellationToken::new()).await
    }

    /// Runs until it ends or is killed; a kill drops everything that the process had.
    async fn apply_until_killed(&self) -> Option<Result<Report, Error>> {
        tokio::select! {
            biased;
            () = self.world.killed.notified() => None,
            ended = self.apply() => Some(ended),
        }
    }

    async fn endings(&self) -> Vec<Option<Ending>> {
        let history = self.store.history(None, 10).await.unwrap();
        history.into_iter().map(|deployment| deployment.ending).collect()
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Failed { failure, .. } => *failure,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_machine_comes_to_its_system_and_stays() {
    let bench = Bench::new().await;
    let report = bench.apply().await.unwrap();
    assert_eq!((report.progress.phase, bench.world.counts()), (Phase::Applied, (1, 1)));
    assert_eq!(bench.world.systems(), (path(NEW), path(NEW)));
    let report = bench.apply().await.unwrap();
    assert_eq!((report.progress.phase, bench.world.activated().len()), (Phase::Unchanged, 1));
    assert_eq!(bench.endings().await, [Some(Ending::Unchanged), Some(Ending::Applied)]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_anywhere() {
    let bench = Bench::new().await;
    let request = Request { dry_run: true, ..Request::default() };
    let report = bench.apply_as(request, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.progress.phase, Phase::Previewed);
    assert_eq!(report.progress.preview.unwrap().restart, ["web.service"]);
    assert_eq!((bench.world.activated().len(), bench.world.counts()), (0, (0, 0)));
    assert_eq!(bench.endings().await, []);
}

#[tokio::test]
async fn what_a_machine_took_back_is_tried_again_only_when_asked_for() {
    let bench = Bench::new().await;
    bench.world.set_healthy(false);
    let failed = failure(bench.apply().await.unwrap_err());
    assert!(matches!(&failed, Failure::RolledBack { reason, .. } if reason == "front: it answers 500"), "{failed}");
    assert_eq!(bench.world.systems(), (path(OLD), path(OLD)));
    assert!(!bench.world.is_armed());

    bench.world.set_healthy(true);
    let failed = failure(bench.apply().await.unwrap_err());
    assert!(matches!(failed, Failure::Quarantined { .. }));
    assert_eq!(bench.world.activated(), [path(NEW), path(OLD)]);

    let again = Request { retry: true, ..Request::default() };
    bench.apply_as(again, &CancellationToken::new()).await.unwrap();
    assert_eq!(bench.world.systems(), (path(NEW), path(NEW)));
    let machine = "default/web".parse().unwrap();
    assert_eq!(bench.store.quarantined(&machine, &path(NEW)).await.unwrap(), None);
}

#[tokio::test]
async fn a_machine_goes_back_to_a_system_that_it_has() {
    let bench = Bench::new().await;
    bench.apply().await.unwrap();
    let back = Request { system: Some(path(OLD)), ..Request::default() };
    let report = bench.apply_as(back, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.progress.phase, Phase::Applied);
    assert_eq!(bench.world.systems(), (path(OLD), path(OLD)));
    assert_eq!(bench.world.counts(), (2, 1), "confirmed like any other, and no file was delivered");
}

#[tokio::test]
async fn an_activation_that_fails_is_taken_back_and_quarantined() {
    let bench = Bench::new().await;
    bench.world.set_activation_fails(true);
    let failed = failure(bench.apply().await.unwrap_err());
    assert_eq!(failed.to_string(), "the host took the old system back: the activation ended with 4");
    assert!(matches!(failure(bench.apply().await.unwrap_err()), Failure::Quarantined { .. }));
}

/// How many questions a whole deployment asks.
async fn questions() -> usize {
    let bench = Bench::new().await;
    bench.apply().await.unwrap();
    bench.world.asked()
}

/// Which question it is that begins the activation.
async fn first_activation() -> usize {
    for at in 0.. {
        let bench = Bench::new().await;
        bench.world.trouble(at, Trouble::KilledAfter);
        assert!(bench.apply_until_killed().await.is_none());
        if bench.world.is_armed() {
            return at;
        }
    }
    unreachable!("a deployment activates")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_question_the_next_process_finishes() {
    let all = (0..questions().await).flat_map(|at| [(at, Trouble::KilledBefore), (at, Trouble::KilledAfter)]);
    let runs = all.map(|(at, trouble)| async move {
        let bench = Bench::new().await;
        bench.world.trouble(at, trouble);
        // The last question is only a clearing up, whose failure is nobody's.
        let ended = bench.apply_until_killed().await;
        assert!(ended.is_none(), "{trouble:?} at {at}: not killed");
        bench.apply().await.unwrap();
        assert_eq!(bench.world.systems(), (path(NEW), path(NEW)), "{trouble:?} at {at}");
        // Tried once and confirmed once, whoever did it; and nothing is left armed.
        assert_eq!(bench.world.activated(), [path(NEW)], "{trouble:?} at {at}");
        assert_eq!(bench.world.counts().0, 1, "{trouble:?} at {at}");
        assert!(!bench.world.is_armed(), "{trouble:?} at {at}");
        assert!(bench.endings().await.iter().all(Option::is_some), "{trouble:?} at {at}");
    });
    futures::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_for_good_at_any_question_the_host_goes_back_by_itself() {
    let all = (0..questions().await).flat_map(|at| [(at, Trouble::KilledBefore), (at, Trouble::KilledAfter)]);
    let begin = first_activation().await;
    for (at, trouble) in all {
        for restarts in [false, true] {
            let bench = Bench::new().await;
            bench.world.trouble(at, trouble);
            assert!(bench.apply_until_killed().await.is_none());
            if restarts {
                bench.world.restart()
            } else {
                bench.world.fire_timer()
            };
            let (current, profile) = bench.world.systems();
            assert_eq!(current, profile, "{trouble:?} at {at}: what runs is what would start");
            assert!(!bench.world.is_armed());
            // The next process says truly what became of it, and does not try what was taken back.
            let tried = bench.world.activated().contains(&path(NEW));
            // Killed as it told the host to begin: whether a host that has started anew had begun, nobody knows.
            let tried = tried || (restarts && (begin - 1..=begin).contains(&at));
            match bench.apply().await {
                Ok(_) => assert_eq!(bench.world.systems(), (path(NEW), path(NEW)), "{trouble:?} at {at}"),
                Err(error) => {
                    let failed = failure(error);
                    assert!(matches!(failed, Failure::Quarantined { .. }) && tried, "{trouble:?} at {at}: {failed}");
                    assert_eq!(bench.world.systems(), (path(OLD), path(OLD)));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_lost_is_asked_again() {
    let all = (0..questions().await).flat_map(|at| [(at, Trouble::Unasked), (at, Trouble::Unanswered)]);
    let runs = all.map(|(at, trouble)| async move {
        let bench = Bench::new().await;
        bench.world.trouble(at, trouble);
        bench.apply().await.unwrap_or_else(|error| panic!("{trouble:?} at {at}: {error}"));
        assert_eq!(bench.world.systems(), (path(NEW), path(NEW)), "{trouble:?} at {at}");
        assert_eq!((bench.world.activated().len(), bench.world.counts().0), (1, 1), "{trouble:?} at {at}");
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_second_store_is_told_who_has_the_machine() {
    let bench = Bench::new().await;
    // Another controller was killed with the system on trial.
    let on_trial = first_activation().await + 1;
    bench.world.trouble(on_trial, Trouble::KilledBefore);
    assert!(bench.apply_until_killed().await.is_none());
    assert!(bench.world.is_armed());
    let directory = tempfile::tempdir().unwrap();
    let other = Store::open(&directory.path().join("machine.db"), MIGRATIONS).await.unwrap();
    let bench = Bench { store: MachineStore::new(other), ..bench };
    let failed = failure(bench.apply().await.unwrap_err());
    assert!(matches!(failed, Failure::Conflict { .. }), "{failed}");
    assert!(bench.world.is_armed(), "what another one has is left alone");
}

#[tokio::test]
async fn the_user_is_told_what_is_left() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    stop.cancel();
    let error = bench.apply_as(Request::default(), &stop).await.unwrap_err();
    assert!(error.to_string().contains("nothing was begun on the host"), "{error}");
    assert_eq!(bench.endings().await, [Some(Ending::Abandoned)]);

    let on_trial = first_activation().await + 1;
    bench.world.trouble(bench.world.asked() + on_trial, Trouble::KilledAfter);
    let stop = CancellationToken::new();
    let error = tokio::join!(bench.apply_as(Request::default(), &stop), async {
        bench.world.killed.notified().await;
        stop.cancel();
    })
    .0
    .unwrap_err();
    assert!(error.to_string().contains("takes the old one back by itself"), "{error}");
    assert!(bench.world.is_armed());
    bench.apply().await.unwrap();
    assert_eq!((bench.world.systems(), bench.world.activated().len()), ((path(NEW), path(NEW)), 1));
}
