//! How networks of VMs come, are mended, and go.

use host::network::{Family, LinkChange, LinkKind, Networks, NewKind, NewLink, Place, Route, Table};
use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::NetworkInterface;
use vm::ports::Edges;

use super::rack::{HOST, Rack, add_bridge, inside, ip, is_dropped, listen, reaches};
use super::{allow, id, open, port, vm};

/// Everything that this host and a VM's namespace say of themselves, but for what counts.
fn state(rack: &Rack, namespace: &str) -> String {
    let inner = rack.networks.open(&Place::named(namespace)).unwrap();
    let says = |network: &dyn host::network::Network| {
        let mut text = format!("{:?}\n{:?}\n{:?}\n", network.links(), network.routes(), network.neighbours());
        for link in network.links().unwrap() {
            text += &format!("{:?} {:?}\n", network.addresses(&link.name), network.limit(&link.name));
        }
        text
    };
    let sets = rack.host_says("nft", "-s list ruleset");
    let names = rack.networks.namespaces().unwrap();
    format!("{}{}{sets}{names:?}", says(&*rack.host), says(&*inner))
}

#[test]
fn once_more_changes_nothing() {
    let Some(rack) = Rack::new("once_more_changes_nothing") else { return };
    let interface = || NetworkInterface {
        egress: vec![allow("10.0.0.0/8"), allow("10.9.9.9/32"), allow("fd77::/64")],
        ports: vec![port(40_000, 80, vm::model::Protocol::Tcp)],
        ..open()
    };
    let edges = rack.edges(EdgeSettings::default());
    let wire = rack.wait(edges.ensure(&vm(7, interface()), None));
    let before = state(&rack, &wire.namespace);
    assert_eq!(rack.wait(edges.ensure(&vm(7, interface()), None)), wire);
    assert_eq!(state(&rack, &wire.namespace), before);
    // Another daemon finds everything as the first one left it.
    drop(edges);
    let edges = rack.edges(EdgeSettings::default());
    assert_eq!(rack.wait(edges.strays(&[(id(7), vm::model::Slot(7))])), []);
    assert_eq!(rack.wait(edges.ensure(&vm(7, interface()), None)), wire);
    assert_eq!(state(&rack, &wire.namespace), before);
    rack.wait(edges.remove(&id(7), vm::model::Slot(7)));
    rack.wait(edges.remove(&id(7), vm::model::Slot(7)));
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn what_is_taken_away_comes_back() {
    let Some(rack) = Rack::new("what_is_taken_away_comes_back") else { return };
    let edges = rack.edges(EdgeSettings::default());
    rack.wait(edges.ensure(&vm(0, open()), None));
    let wire = rack.wait(edges.ensure(&vm(1, open()), None));
    let says = || {
        let other = rack.host.elements(&Table::new(Family::Inet, "cairn_vm"), "own4").unwrap();
        let others: Vec<_> = other.into_iter().map(|listed| listed.element).collect();
        let inner = rack.networks.open(&Place::named(&wire.namespace)).unwrap();
        (others.len(), inner.routes().unwrap().len(), rack.host.routes().unwrap().len())
    };
    let before = says();
    // The table, with what is in it for others.
    rack.host.load_ruleset("flush ruleset\n").unwrap();
    rack.wait(edges.ensure(&vm(1, NetworkInterface { egress: vec![allow("10.0.0.0/8")], ..open() }), None));
    assert_eq!(says(), before);
    rack.host.load_ruleset("flush ruleset\n").unwrap();
    rack.wait(edges.open());
    assert_eq!(says(), before);
    // The link, from either end; the tap; the rules in the namespace.
    let inner = || rack.networks.open(&Place::named(&wire.namespace)).unwrap();
    rack.host.remove_link("tapv1").unwrap();
    rack.wait(edges.ensure(&vm(1, open()), None));
    assert_eq!(says(), before);
    inner().change_link("edge", &LinkChange::Down).unwrap();
    rack.wait(edges.ensure(&vm(1, open()), None));
    assert_eq!(says(), before);
    inner().remove_link("tap0").unwrap();
    inner().load_ruleset("flush ruleset\n").unwrap();
    rack.wait(edges.ensure(&vm(1, open()), None));
    assert_eq!(says(), before);
    let owner = 200_001;
    let tap = LinkKind::Tap { owner: Some(owner), group: Some(owner), vnet_header: true };
    assert_eq!(inner().link("tap0").unwrap().kind, tap);
    // A tap of somebody else, and a link that is no longer joined.
    inner().remove_link("tap0").unwrap();
    inner().add_link(&NewLink::new("tap0", NewKind::Tap { owner: 1, group: 1 })).unwrap();
    inner().change_link("edge", &LinkChange::Name("away".into())).unwrap();
    rack.wait(edges.ensure(&vm(1, open()), None));
    assert_eq!((inner().link("tap0").unwrap().kind, says()), (tap, before));
    for slot in [0, 1] {
        rack.wait(edges.remove(&id(slot), vm::model::Slot(slot)));
    }
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn a_living_vm_gets_its_name_back() {
    let Some(rack) = Rack::new("a_living_vm_gets_its_name_back") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let vm = vm(0, open());
    let wire = rack.wait(edges.ensure(&vm, None));
    let inner = rack.networks.open(&Place::named(&wire.namespace)).unwrap();
    let mut process = inside(&*inner, || std::process::Command::new("sleep").arg("600").spawn().unwrap());
    drop(inner);
    let before = state(&rack, &wire.namespace);
    // As the guide's clean-up line does it; and with another one made in its place.
    rack.networks.remove_namespace(&wire.namespace).unwrap();
    rack.wait(edges.ensure(&vm, Some(process.id())));
    assert_eq!(state(&rack, &wire.namespace), before);
    rack.networks.remove_namespace(&wire.namespace).unwrap();
    rack.networks.create_namespace(&wire.namespace).unwrap();
    rack.wait(edges.ensure(&vm, Some(process.id())));
    assert_eq!(state(&rack, &wire.namespace), before);
    // A process that is somewhere else says nothing; one that has ended neither.
    rack.wait(edges.ensure(&vm, Some(std::process::id())));
    assert_eq!(state(&rack, &wire.namespace), before);
    rack.networks.remove_namespace(&wire.namespace).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    rack.wait(edges.ensure(&vm, Some(process.id())));
    rack.networks.open(&Place::named(&wire.namespace)).unwrap().link("tap0").unwrap();
    // Without its name while it is removed, it leaves no link.
    rack.networks.remove_namespace(&wire.namespace).unwrap();
    rack.wait(edges.remove(&vm.id, vm.slot));
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn strays_are_found_and_removed() {
    let Some(rack) = Rack::new("strays_are_found_and_removed") else { return };
    let edges = rack.edges(EdgeSettings { pool: 2, ..EdgeSettings::default() });
    assert_eq!(rack.runtime.block_on(edges.fill_pool()).unwrap(), 2);
    let interface = || NetworkInterface {
        egress: vec![allow("10.0.0.0/8")],
        ports: vec![port(40_000, 80, vm::model::Protocol::Tcp)],
        ..open()
    };
    rack.wait(edges.ensure(&vm(1, open()), None));
    let guest = rack.boot(&edges, &vm(2, interface()));
    is_dropped(&*guest, "169.254.169.254:80");
    let known = [(id(1), vm::model::Slot(1))];
    // On a busy machine the packet may not have been sent yet that is counted.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let strays = loop {
        let strays = rack.wait(edges.strays(&known));
        let kinds = |kind: &str| strays.iter().filter(|stray| stray.kind == kind).count();
        let found = (kinds("namespace"), kinds("link"), kinds("rule"));
        if found == (1, 1, 6 + 1 + 2 + 2) {
            break strays;
        }
        assert!(std::time::Instant::now() < end, "{found:?}: {strays:?}");
        is_dropped(&*guest, "169.254.169.254:80");
    };
    drop(guest);
    for stray in &strays {
        rack.wait(edges.remove_stray(stray));
        rack.wait(edges.remove_stray(stray));
    }
    assert_eq!(rack.wait(edges.strays(&known)), []);
    let wrong = vm::ports::Stray { kind: "link".into(), name: "uplink".into() };
    assert!(rack.runtime.block_on(edges.remove_stray(&wrong)).is_err());
    // One of another port passes by here on its way.
    rack.wait(edges.remove_stray(&vm::ports::Stray { kind: "process".into(), name: "/keepers/a".into() }));
    rack.wait(edges.remove(&id(1), vm::model::Slot(1)));
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn a_pool_is_kept_and_survives() {
    let Some(rack) = Rack::new("a_pool_is_kept_and_survives") else { return };
    let members = || {
        let names = rack.networks.namespaces().unwrap().into_iter().map(|one| one.name);
        names.filter(|name| name.starts_with("ns_pool_")).collect::<Vec<_>>()
    };
    let settings = || EdgeSettings { pool: 3, ..EdgeSettings::default() };
    let edges = rack.edges(settings());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let keeping = {
        let (edges, shutdown) = (edges.clone(), shutdown.clone());
        rack.runtime.spawn(async move { edges.keep_pool(&shutdown).await })
    };
    let full = |than: &[String]| {
        let deadline = std::time::Instant::now() + super::rack::PATIENCE;
        while members().len() < 3 || members() == than {
            assert!(std::time::Instant::now() < deadline, "the pool is not filled");
            std::thread::yield_now();
        }
    };
    full(&[]);
    let before = members();
    let guest = rack.boot(&edges, &vm(0, open()));
    reaches(&*guest, "203.0.114.9:7000", &listen(&*rack.outside, 7000));
    full(&before);
    shutdown.cancel();
    rack.runtime.block_on(keeping).unwrap();
    // As kills leave them: one without its rules, one without a namespace, one under both names.
    rack.networks.create_namespace("ns_pool_half").unwrap();
    std::fs::write(rack.networks.namespace_path("ns_pool_none"), b"").unwrap();
    rack.networks.name_namespace(&Place::named("ns_vm_ud-0000000000000000"), "ns_pool_both").unwrap();
    let there = members();
    let edges = rack.edges(settings());
    let half = ["ns_pool_half", "ns_pool_none", "ns_pool_both"];
    let left: Vec<String> = there.into_iter().filter(|name| !half.contains(&name.as_str())).collect();
    assert_eq!(members(), left);
    assert_eq!(left.len(), 3);
    assert_eq!(rack.wait(edges.show(None))["pool"].as_array().unwrap().len(), 3);
    drop(rack.edges(EdgeSettings { pool: 1, ..EdgeSettings::default() }));
    assert_eq!(members().len(), 1);
}

#[test]
fn a_subnet_that_changes_moves_what_lives() {
    let Some(rack) = Rack::new("a_subnet_that_changes_moves_what_lives") else { return };
    let subnet_ipv4 = "10.100.1.0/24".parse().unwrap();
    let narrow = EdgeSettings { subnet_ipv4, subnet_ipv6: "fd01::/64".parse().unwrap(), ..EdgeSettings::default() };
    let edges = rack.edges(narrow);
    let (one, other) = (vm(0, open()), vm(256, open()));
    let wire = rack.wait(edges.ensure(&one, None));
    assert_eq!((wire.ipv4, wire.ipv6), (Some("10.100.1.2".parse().unwrap()), Some("fd01::2".parse().unwrap())));
    // Now that address belongs to another, who comes first.
    let edges = rack.edges(EdgeSettings::default());
    assert_eq!(rack.wait(edges.ensure(&other, None)).ipv4, wire.ipv4);
    let moved = rack.wait(edges.ensure(&one, None));
    assert_eq!((moved.ipv4, moved.ipv6), (Some("10.100.0.2".parse().unwrap()), Some("fd00::2".parse().unwrap())));
    let inner = rack.networks.open(&Place::named(&wire.namespace)).unwrap();
    assert_eq!(inner.addresses("edge").unwrap(), ["10.100.0.2/32", "fd00::2/128"].map(super::rack::net));
    let leads = |link: &str| {
        let routes = rack.host.routes().unwrap().into_iter().filter(|route| route.link == link);
        routes.map(|route| route.destination.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(leads("tapv0"), ["10.100.0.2/32", "fd00::2/128"]);
    assert_eq!(leads("tapv100"), ["10.100.1.2/32", "fd00::102/128"]);
    for vm in [one, other] {
        rack.wait(edges.remove(&vm.id, vm.slot));
    }
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn many_come_and_go_at_once() {
    let Some(rack) = Rack::new("many_come_and_go_at_once") else { return };
    let edges = rack.edges(EdgeSettings { pool: 4, ..EdgeSettings::default() });
    rack.runtime.block_on(edges.fill_pool()).unwrap();
    rack.runtime.block_on(async {
        let tasks: Vec<_> = (0..24)
            .map(|slot| {
                let edges = edges.clone();
                tokio::spawn(async move {
                    let egress = vec![allow("10.0.0.0/8"), allow("fd77::/64")];
                    let vm = vm(slot, NetworkInterface { egress, ..open() });
                    edges.ensure(&vm, None).await.unwrap();
                    edges.ensure(&vm, None).await.unwrap();
                    edges.remove(&vm.id, vm.slot).await.unwrap();
                    edges.ensure(&vm, None).await.unwrap();
                    edges.remove(&vm.id, vm.slot).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(rack.wait(edges.strays(&[])), []);
    assert_eq!(rack.left(), [""; 0]);
}

#[test]
fn a_bridge_is_adopted() {
    let Some(rack) = Rack::new("a_bridge_is_adopted") else { return };
    let settings = || EdgeSettings { bridge: Some("br0".into()), ..EdgeSettings::default() };
    let new = || HostEdges::new(std::sync::Arc::new(rack.networks.clone()), &Place::named(HOST), settings());
    let error = new().err().unwrap();
    assert!(error.code == "vm_network" && error.reason.contains("bridge br0 is not there"), "{error}");
    rack.host.add_link(&NewLink::new("br0", NewKind::Bridge).up()).unwrap();
    assert!(new().err().unwrap().reason.contains("no IPv4 address"));
    rack.host.remove_link("br0").unwrap();
    add_bridge(&*rack.host, "br0", &["192.168.100.1/24", "fd11::1/64"]);
    // The settings may name one of its addresses, and what they name has to be there.
    let named = |address: &str| {
        let bridge_ipv4 = Some(address.parse().unwrap());
        let settings = EdgeSettings { bridge_ipv4, ..settings() };
        HostEdges::new(std::sync::Arc::new(rack.networks.clone()), &Place::named(HOST), settings)
    };
    let reason = named("192.168.101.1/24").err().unwrap().reason;
    assert!(reason.contains("br0 has not the address 192.168.101.1/24"), "{reason}");
    rack.host.add_addresses("br0", &[super::rack::net("198.51.100.1/24")]).unwrap();
    // Where VMs are: no customer may name an address there, also where it is a public one.
    let subnets = |edges: HostEdges| edges.subnets().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(subnets(named("198.51.100.1/24").unwrap()), ["198.51.100.0/24", "fd11::/64"]);
    assert_eq!(subnets(new().unwrap()), ["192.168.100.0/24", "fd11::/64"]);
    // Somebody else on the bridge, in the VMs' own subnet.
    rack.networks.create_namespace("other").unwrap();
    let other = rack.networks.open(&Place::named("other")).unwrap();
    rack.host.add_link(&NewLink::veth("port0", "eth0", Some(Place::named("other"))).up()).unwrap();
    rack.host.change_link("port0", &LinkChange::Master("br0".into())).unwrap();
    other.change_link("eth0", &LinkChange::Up).unwrap();
    other.add_addresses("eth0", &[super::rack::net("192.168.100.77/24")]).unwrap();

    let edges = rack.edges(settings());
    let egress = vec![allow("192.168.100.3/32"), allow("fd11::3/128")];
    let one = rack.boot(&edges, &vm(0, NetworkInterface { egress, ..open() }));
    let ports = vec![port(40_000, 80, vm::model::Protocol::Tcp)];
    let two = rack.boot(&edges, &vm(1, NetworkInterface { ports, ..open() }));
    let (outside, at_two) = (listen(&*rack.outside, 7000), listen(&*two, 80));
    let (_at_one, _at_host, _at_other) = (listen(&*one, 80), listen(&*rack.host, 7000), listen(&*other, 80));
    assert_eq!(reaches(&*one, "203.0.114.9:7000", &outside), ip("203.0.114.1"));
    assert_eq!(reaches(&*one, "[2a00:1::9]:7000", &outside), ip("2a00:1::1"));
    assert_eq!(reaches(&*rack.host, "192.168.100.3:80", &at_two), ip("192.168.100.1"));
    assert_eq!(reaches(&*rack.host, "[fd11::3]:80", &at_two), ip("fd11::1"));
    assert_eq!(reaches(&*one, "192.168.100.3:80", &at_two), ip("192.168.100.2"));
    assert_eq!(reaches(&*one, "[fd11::3]:80", &at_two), ip("fd11::2"));
    assert_eq!(reaches(&*rack.outside, "203.0.114.1:40000", &at_two), ip("203.0.114.9"));
    for to in ["192.168.100.2:80", "[fd11::2]:80", "192.168.100.1:7000", "192.168.100.77:80", "169.254.169.254:7000"] {
        is_dropped(&*two, to);
    }
    // Whoever breaks out into the namespace has its own address there, or none.
    let inner = rack.networks.open(&Place::named("ns_vm_ud-0000000000000001")).unwrap();
    inner.add_addresses("edge", &[super::rack::net("192.168.100.99/24")]).unwrap();
    is_dropped(&*inner, "192.168.100.77:80");
    inner.add_routes(&[Route::to_link(super::rack::net("192.168.100.77/32"), "edge")]).unwrap();
    inner.remove_addresses("edge", &[super::rack::net("192.168.100.99/24")]).unwrap();
    is_dropped(&*inner, "192.168.100.77:80");
    drop((one, two, inner));
    let strays = rack.wait(edges.strays(&[(id(1), vm::model::Slot(1))]));
    assert!(strays.iter().any(|stray| stray.name == "bridge own4 tapv0 . 192.168.100.2"), "{strays:?}");
    for stray in &strays {
        rack.wait(edges.remove_stray(stray));
    }
    assert_eq!(rack.wait(edges.strays(&[(id(1), vm::model::Slot(1))])), []);
    for slot in [0, 1] {
        rack.wait(edges.remove(&id(slot), vm::model::Slot(slot)));
    }
    assert_eq!(rack.left(), [""; 0]);
}
