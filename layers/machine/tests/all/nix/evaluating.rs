//! From a commit to a derivation, and what keeps it from becoming one.

use machine::adapters::nix::{Error, Nix, NixSettings, Place};

use super::{Flake, LIMIT, Store, has};

const PROGRAMS: [&str; 3] = ["nix", "git", "busybox"];

fn busybox_is_here(test: &str) -> bool {
    has(test, &PROGRAMS[..2]) && {
        let is_here = std::path::Path::new("/bin/busybox").exists();
        is_here || has(test, &PROGRAMS[2..])
    }
}

#[tokio::test]
async fn a_host_of_a_commit_is_evaluated_and_built_and_held() {
    if !busybox_is_here("a_host_of_a_commit_is_evaluated_and_built_and_held") {
        return;
    }
    let (store, flake) = (Store::new(), Flake::new());
    let (nix, (mirror, mut tree)) = (store.nix(), flake.tree(&store.path("mirrors")).await);
    let url = tree.flake_url("").unwrap();
    let evaluated = nix.evaluate(&url, "web1", "one", LIMIT).await.unwrap();
    assert!(evaluated.derivation.ends_with("-nixos-system-web1.drv"), "{evaluated:?}");
    assert!(evaluated.output.ends_with("-nixos-system-web1"), "{evaluated:?}");
    store.run(&["nix-store", "--gc"]);
    nix.build(&evaluated, Place::Here, "one", None, LIMIT).await.unwrap();
    store.run(&["nix-store", "--gc"]);
    let version = || std::fs::read_to_string(format!("{}/version", evaluated.output));
    assert_eq!(version().unwrap(), "version 1\n");
    // Files that were added count, and are in no branch.
    mirror.add_files(&mut tree, &[("version".to_owned(), b"added".to_vec())]).await.unwrap();
    let added = nix.evaluate(&tree.flake_url("").unwrap(), "web1", "two", LIMIT).await.unwrap();
    assert_ne!(added.output, evaluated.output);
    nix.release("one").unwrap();
    nix.release("one").unwrap();
    store.run(&["nix-store", "--gc"]);
    assert!(version().is_err() && std::fs::exists(&added.derivation).unwrap());
}

#[tokio::test]
async fn what_keeps_a_host_from_being_evaluated_is_told_apart() {
    if !busybox_is_here("what_keeps_a_host_from_being_evaluated_is_told_apart") {
        return;
    }
    let (store, flake) = (Store::new(), Flake::new());
    let settings = NixSettings { evaluation_memory: 700 << 20, ..store.settings() };
    let nix = Nix::new(settings).unwrap();
    let (_mirror, tree) = flake.tree(&store.path("mirrors")).await;
    let url = tree.flake_url("").unwrap();
    let evaluate = async |host| nix.evaluate(&url, host, "one", LIMIT).await.unwrap_err();
    let hosts = ["failing", "huge", "impure", "other", "web1", "wrong"];
    assert!(matches!(evaluate("web2").await, Error::UnknownHost { hosts: known, .. } if known == hosts));
    let error = evaluate("huge").await;
    assert!(matches!(error, Error::EvaluationOutOfMemory { memory, .. } if memory == 700 << 20), "{error}");
    assert!(matches!(evaluate("other").await, Error::NoSystem { .. }));
    let error = evaluate("wrong").await;
    assert!(matches!(&error, Error::Evaluation { .. }) && error.to_string().contains("no such option"), "{error}");
    let error = evaluate("impure").await;
    assert!(matches!(&error, Error::Evaluation { .. }) && error.to_string().contains("/etc/passwd"), "{error}");
    for host in ["web1\"; x = \"", "${builtins.abort \"\"}", "web1#", ""] {
        assert!(matches!(evaluate(host).await, Error::HostName { .. }), "{host:?}");
    }
    // What is not named by its commit could be another thing each time.
    let unlocked = url.split('?').next().unwrap();
    let error = nix.evaluate(unlocked, "web1", "one", LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Evaluation { .. }), "{error}");
    let injected = format!("{unlocked}\"; x = \"");
    let error = nix.evaluate(&injected, "web1", "one", LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Evaluation { .. }), "{error}");
}

#[tokio::test]
async fn a_flake_in_a_directory_without_hosts_has_none() {
    if !busybox_is_here("a_flake_in_a_directory_without_hosts_has_none") {
        return;
    }
    let (store, flake) = (Store::new(), Flake::new());
    let (mirror, mut tree) = flake.tree(&store.path("mirrors")).await;
    let empty = ("below/it/flake.nix".to_owned(), b"{ outputs = { self }: { }; }".to_vec());
    mirror.add_files(&mut tree, &[empty]).await.unwrap();
    let url = tree.flake_url("below/it").unwrap();
    let error = store.nix().evaluate(&url, "web1", "one", LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::UnknownHost { hosts, .. } if hosts.is_empty()), "{error}");
}
