//! SIGKILL before every single change that an operation makes: what is left is found and removed, or the operation is
//! done again and is whole.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use host::network::{LinuxNetworks, Networks, Place};
use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::{NetworkInterface, Slot, Vm};
use vm::ports::Edges;

use super::fuse::{Fuse, Fused};
use super::rack::{HOST, Rack};
use super::{allow, id, open, port, vm};

/// Tells the maker where to work, what to do, and how many changes to make.
const DIRECTORY: &str = "EDGE_TEST_DIRECTORY";
const WORK: &str = "EDGE_TEST_WORK";
const CHANGES: &str = "EDGE_TEST_CHANGES";
/// More than any operation makes.
const MOST: i64 = 200;

fn wanted() -> Vm {
    let ports = vec![port(40_000, 80, vm::model::Protocol::Tcp)];
    vm(3, NetworkInterface { ports, egress: vec![allow("10.0.0.0/8")], ..open() })
}

fn settings(pool: usize) -> EdgeSettings {
    EdgeSettings { pool, ..EdgeSettings::default() }
}

/// What the maker does in its own process, when it is one.
fn made() -> bool {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return false };
    let changes = std::env::var(CHANGES).unwrap().parse().unwrap();
    let work = std::env::var(WORK).unwrap();
    let fuse = Fuse::new();
    let networks = Fused(LinuxNetworks::in_directory(Path::new(&directory)), fuse.clone());
    let edges = HostEdges::new(Arc::new(networks), &Place::named(HOST), settings(1)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if work == "open" {
            fuse.light(changes);
        }
        edges.open().await.unwrap();
        fuse.light(changes);
        match work.as_str() {
            "pool" => drop(edges.fill_pool().await.unwrap()),
            "ensure" => drop(edges.ensure(&wanted(), None).await.unwrap()),
            "remove" => edges.remove(&id(3), Slot(3)).await.unwrap(),
            _ => {}
        }
    });
    true
}

/// Lets a maker work until it is killed. Returns whether it got to the end.
fn work(rack: &Rack, test: &str, work: &str, changes: i64) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(DIRECTORY, rack.networks.namespace_path(""))
        .env(WORK, work)
        .env(CHANGES, changes.to_string())
        .output()
        .unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status.status) == Some(9);
    assert!(killed || status.status.success(), "{work} {changes}: {}", String::from_utf8_lossy(&status.stderr));
    !killed
}

/// Does `operation` once for each change it makes, and kills it there; `before` is what it starts from.
fn at_every_change(test: &str, operation: &str, before: impl Fn(&Rack, &HostEdges)) {
    if made() {
        return;
    }
    let Some(rack) = Rack::new(test) else { return };
    let mut ended = false;
    let mut rounds = 0;
    for changes in 0..MOST {
        before(&rack, &rack.edges(settings(1)));
        ended = work(&rack, &format!("edge::kills::{test}"), operation, changes);
        let edges = rack.edges(settings(0));
        if changes % 2 == 0 {
            // Nobody knows it: what is found is removed.
            for stray in rack.wait(edges.strays(&[])) {
                rack.wait(edges.remove_stray(&stray));
            }
        } else {
            let before = rack.wait(edges.ensure(&wanted(), None));
            assert_eq!(rack.wait(edges.strays(&[(id(3), Slot(3))])), [], "after {changes} changes");
            let shown = rack.wait(edges.show(Some(&wanted())));
            assert_eq!(shown["rules"].as_array().unwrap().len(), 9, "after {changes} changes: {shown}");
            assert_eq!(before, edges.wire(&wanted()));
            rack.wait(edges.remove(&id(3), Slot(3)));
        }
        assert_eq!(rack.wait(edges.strays(&[])), [], "after {changes} changes");
        assert_eq!(rack.left(), [""; 0], "after {changes} changes");
        let names: Vec<_> = rack.networks.namespaces().unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["host", "outside"], "after {changes} changes");
        rounds = changes;
        if ended {
            break;
        }
    }
    assert!(ended && rounds > 0, "{operation} never ended");
    println!("{operation}: killed before each of {rounds} changes");
}

#[test]
fn a_killed_ensure_leaves_nothing() {
    at_every_change("a_killed_ensure_leaves_nothing", "ensure", |_, _| ());
}

#[test]
fn a_killed_claim_leaves_nothing() {
    at_every_change("a_killed_claim_leaves_nothing", "ensure", |rack, edges| {
        rack.runtime.block_on(edges.fill_pool()).unwrap();
    });
}

#[test]
fn a_killed_remove_leaves_nothing() {
    at_every_change("a_killed_remove_leaves_nothing", "remove", |rack, edges| {
        drop(rack.wait(edges.ensure(&wanted(), None)));
    });
}

#[test]
fn a_killed_pool_leaves_nothing() {
    at_every_change("a_killed_pool_leaves_nothing", "pool", |_, _| ());
}

#[test]
fn a_killed_start_leaves_nothing() {
    at_every_change("a_killed_start_leaves_nothing", "open", |rack, _| {
        rack.host.load_ruleset("flush ruleset\n").unwrap();
        rack.host.set_sysctl("ipv4/ip_forward", "0").unwrap();
        rack.host.set_sysctl("ipv6/conf/all/forwarding", "0").unwrap();
    });
}
