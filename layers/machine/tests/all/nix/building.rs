//! From a derivation to a system on a machine: built here, there, or on a third.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use host::OnLine;
use machine::adapters::nix::{Error, Evaluated, Nix, NixSettings, Place};
use reach::git::{Mirror, Worktree};

use super::remote::Machine;
use super::{Flake, LIMIT, Store, has};

struct Fixture {
    store: Store,
    nix: Nix,
    target: Machine,
    _tree: (Mirror, Worktree),
    url: String,
}

impl Fixture {
    async fn new(test: &str) -> Option<Self> {
        if !has(test, &["nix", "nix-daemon", "sshd", "git"]) {
            return None;
        }
        let (store, flake) = (Store::new(), Flake::new());
        let target = Machine::new("web1", &store);
        let nix = Nix::new(NixSettings { remote_roots: target.roots(), ..store.settings() }).unwrap();
        let tree = flake.tree(&store.path("mirrors")).await;
        let url = tree.1.flake_url("").unwrap();
        Some(Self { store, nix, target, _tree: tree, url })
    }

    async fn evaluate(&self, host: &str) -> Evaluated {
        self.nix.evaluate(&self.url, host, "one", LIMIT).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_built_here_is_copied_and_held_there() {
    let Some(fixture) = Fixture::new("what_is_built_here_is_copied_and_held_there").await else { return };
    let (nix, target) = (&fixture.nix, fixture.target.connect().await);
    let begun = Instant::now();
    let evaluated = fixture.evaluate("web1").await;
    let after_evaluation = begun.elapsed();
    nix.build(&evaluated, Place::Here, "one", None, LIMIT).await.unwrap();
    let after_build = begun.elapsed();
    nix.copy(&evaluated.output, Place::Here, &target, "one", None, LIMIT).await.unwrap();
    let after_copy = begun.elapsed();
    nix.copy(&evaluated.output, Place::Here, &target, "one", None, LIMIT).await.unwrap();
    let after_nothing = begun.elapsed();
    println!(
        "evaluate {after_evaluation:?}, build {:?}, copy {:?}, copy of what is there {:?}",
        after_build - after_evaluation,
        after_copy - after_build,
        after_nothing - after_copy
    );
    let version = format!("{}/version", evaluated.output);
    fixture.target.collect().await;
    assert_eq!(fixture.target.read(&version).unwrap(), "version 1\n");
    nix.release_there(&target, "one").await.unwrap();
    fixture.target.collect().await;
    assert!(fixture.target.read(&version).is_err(), "nothing holds it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_is_built_on_its_machine_or_on_a_third() {
    let Some(fixture) = Fixture::new("a_system_is_built_on_its_machine_or_on_a_third").await else { return };
    let builder = Machine::new("builder", &fixture.store);
    let (target, other) = (fixture.target.connect().await, builder.connect().await);
    let at_builder = Nix::new(NixSettings { remote_roots: builder.roots(), ..fixture.store.settings() }).unwrap();
    let evaluated = fixture.evaluate("web1").await;
    let (lines, version) = (Arc::new(Mutex::new(Vec::new())), format!("{}/version", evaluated.output));
    let sink = Arc::clone(&lines);
    let on_line: OnLine = Arc::new(move |line| sink.lock().unwrap().push(line.to_owned()));
    at_builder.build(&evaluated, Place::There(&other), "one", Some(&on_line), LIMIT).await.unwrap();
    assert!(lines.lock().unwrap().iter().any(|line| line.contains("building") && line.contains("web1")), "{lines:?}");
    builder.collect().await;
    assert_eq!(builder.read(&version).unwrap(), "version 1\n");
    fixture.nix.copy(&evaluated.output, Place::There(&other), &target, "one", None, LIMIT).await.unwrap();
    assert_eq!(fixture.target.read(&version).unwrap(), "version 1\n");
    assert!(!std::fs::exists(&evaluated.output).unwrap(), "it was never here");
    let second = Machine::new("web2", &fixture.store);
    let nix = Nix::new(NixSettings { remote_roots: second.roots(), ..fixture.store.settings() }).unwrap();
    nix.build(&evaluated, Place::There(&second.connect().await), "one", None, LIMIT).await.unwrap();
    assert_eq!(second.read(&version).unwrap(), "version 1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_fails_shows_the_end_of_its_log() {
    let Some(fixture) = Fixture::new("a_build_that_fails_shows_the_end_of_its_log").await else { return };
    let (evaluated, target) = (fixture.evaluate("failing").await, fixture.target.connect().await);
    for place in [Place::Here, Place::There(&target)] {
        let error = fixture.nix.build(&evaluated, place, "one", None, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Build { .. }), "{error}");
        for line in ["line 3", "it is broken"] {
            assert!(error.tail().iter().any(|said| said.contains(line)), "{error:?}");
        }
        assert!(error.to_string().contains("failed"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_gone_or_has_no_nix_says_so() {
    let Some(fixture) = Fixture::new("a_machine_that_is_gone_or_has_no_nix_says_so").await else { return };
    let evaluated = fixture.evaluate("web1").await;
    fixture.nix.build(&evaluated, Place::Here, "one", None, LIMIT).await.unwrap();
    let target = fixture.target.connect().await;
    // What is no store cannot be opened by the daemon.
    std::fs::remove_dir_all(fixture.target.roots()).unwrap();
    let error = fixture.nix.copy(&evaluated.output, Place::Here, &target, "one", None, LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Remote { place, .. } if place == "web1"), "{error}");
    for path in ["/etc/passwd", "--all", "/nix/store/../../etc"] {
        let error = fixture.nix.copy(path, Place::Here, &target, "one", None, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Word { .. }), "{path}: {error}");
    }
}
