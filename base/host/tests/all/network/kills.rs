//! What is left when whoever makes networks is killed can be found and removed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use host::network::{LinkKind, LinuxNetworks, Networks, NewKind, NewLink, Place, Repeatable};

use super::Rack;

/// Tells the maker where to work.
const DIRECTORY: &str = "NETWORK_TEST_DIRECTORY";
/// How many steps of the maker each round lets pass before it is killed.
const STEPS: [usize; 6] = [1, 4, 9, 16, 25, 40];

#[test]
fn what_a_kill_leaves_is_found_again() {
    let Some(rack) = Rack::new("what_a_kill_leaves_is_found_again", &[]) else { return };
    rack.network("around");
    for steps in STEPS {
        let mut maker = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "network::kills::make_until_killed"])
            .env(DIRECTORY, rack.networks.namespace_path(""))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(maker.stdout.take().unwrap()).lines();
        let told: Vec<String> =
            lines.map_while(Result::ok).filter(|line| line.starts_with("step ")).take(steps).collect();
        maker.kill().unwrap();
        maker.wait().unwrap();
        assert_eq!(told.len(), steps);
        remove_strays(&rack.networks, &told);
    }
}

/// Removes all but the namespace around, by nothing but what lists say. Everything the maker told of has to be there.
fn remove_strays(networks: &LinuxNetworks, told: &[String]) {
    let around = networks.open(&Place::named("around")).unwrap();
    let found = networks.namespaces().unwrap();
    let has = |name: &str| found.iter().any(|namespace| namespace.name == name && namespace.inode.is_some());
    let links = around.links().unwrap();
    for line in told {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["step", "namespace", name] => assert!(has(name), "{line}"),
            ["step", "link", name] => assert!(links.iter().any(|link| link.name == *name), "{line}"),
            _ => {}
        }
    }
    for link in links.iter().filter(|link| matches!(link.kind, LinkKind::Veth(_))) {
        around.remove_link(&link.name).or_not_there().unwrap();
    }
    for namespace in found.iter().filter(|namespace| namespace.name != "around") {
        networks.remove_namespace(&namespace.name).unwrap();
    }
    assert_eq!(around.links().unwrap().len(), 1);
    assert_eq!(networks.namespaces().unwrap().len(), 1);
}

/// Run by the test above.
#[test]
#[ignore = "part of what_a_kill_leaves_is_found_again"]
fn make_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let networks = LinuxNetworks::in_directory(Path::new(&directory));
    let around = networks.open(&Place::named("around")).unwrap();
    for number in 0.. {
        let (name, outer) = (format!("ns_vm_{number}"), format!("tapv{number}"));
        networks.create_namespace(&name).unwrap();
        println!("step namespace {name}");
        let place = Place::named(&name);
        around.add_link(&NewLink::veth(&outer, "eth0", Some(place.clone())).up()).unwrap();
        println!("step link {outer}");
        let network = networks.open(&place).unwrap();
        network.add_link(&NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 })).unwrap();
        println!("step tap");
        network.add_addresses("eth0", &["10.0.0.1/32".parse().unwrap()]).unwrap();
        println!("step address");
    }
}

#[test]
fn a_name_without_a_namespace_is_listed_and_taken_over() {
    let Some(rack) = Rack::new("a_name_without_a_namespace_is_listed_and_taken_over", &[]) else { return };
    // As between the file and the mount.
    std::fs::write(rack.networks.namespace_path("ns_vm_1"), b"").unwrap();
    std::fs::write(rack.networks.namespace_path("ns_vm_2"), b"").unwrap();
    let found = rack.networks.namespaces().unwrap();
    assert!(found.len() == 2 && found.iter().all(|namespace| namespace.inode.is_none()));
    assert!(rack.networks.open(&Place::named("ns_vm_1")).unwrap_err().is_not_there());
    rack.networks.create_namespace("ns_vm_1").unwrap();
    rack.networks.open(&Place::named("ns_vm_1")).unwrap();
    rack.networks.remove_namespace("ns_vm_2").unwrap();
    assert_eq!(rack.networks.namespaces().unwrap().len(), 1);
}
