//! What the real networks and the fake have in common.

use std::net::IpAddr;
use std::time::Duration;

use host::network::{
    Isolation, Limit, LinkChange, LinkKind, Mac, Neighbour, NeighbourEntry, Network, Networks, NewKind, NewLink, Peer,
    Place, Repeatable, Route,
};
use ipnet::IpNet;

/// What the real ones need.
pub(super) const PROGRAMS: &[&str] = &[];

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn fresh(networks: &dyn Networks, name: &str) -> Box<dyn Network> {
    networks.create_namespace(name).unwrap();
    networks.open(&Place::named(name)).unwrap()
}

fn names(networks: &dyn Networks) -> Vec<String> {
    networks.namespaces().unwrap().into_iter().map(|namespace| namespace.name).collect()
}

fn link_names(network: &dyn Network) -> Vec<String> {
    network.links().unwrap().into_iter().map(|link| link.name).collect()
}

pub(super) fn namespaces_have_names(networks: &dyn Networks) {
    assert!(networks.namespaces().unwrap().is_empty());
    assert!(networks.open(&Place::named("ns_vm_1")).unwrap_err().is_not_there());
    networks.create_namespace("ns_vm_1").unwrap();
    let error = networks.create_namespace("ns_vm_1").unwrap_err();
    assert!(error.is_already_there());
    assert_eq!(error.to_string(), "cannot make namespace ns_vm_1 in the host's namespace");
    assert!(!networks.create_namespace("ns_vm_1").or_already_there().unwrap());
    networks.create_namespace("pool_2").unwrap();
    let before = networks.namespaces().unwrap();
    assert_eq!(names(networks), ["ns_vm_1", "pool_2"]);
    assert!(before[0].inode.is_some() && before[0].inode != before[1].inode);
    assert!(networks.rename_namespace("pool_2", "ns_vm_1").unwrap_err().is_already_there());
    networks.open(&Place::named("pool_2")).unwrap().add_link(&NewLink::new("br0", NewKind::Bridge)).unwrap();
    networks.rename_namespace("pool_2", "ns_vm_2").unwrap();
    assert_eq!(names(networks), ["ns_vm_1", "ns_vm_2"]);
    assert_eq!(networks.namespaces().unwrap()[1].inode, before[1].inode);
    assert_eq!(link_names(&*networks.open(&Place::named("ns_vm_2")).unwrap()), ["lo", "br0"]);
    networks.name_namespace(&Place::named("ns_vm_2"), "again").unwrap();
    assert!(networks.name_namespace(&Place::named("ns_vm_1"), "again").unwrap_err().is_already_there());
    assert!(networks.name_namespace(&Place::named("none"), "other").unwrap_err().is_not_there());
    assert_eq!(networks.namespaces().unwrap()[0].inode, before[1].inode);
    networks.remove_namespace("again").unwrap();
    networks.remove_namespace("ns_vm_2").unwrap();
    networks.remove_namespace("ns_vm_1").unwrap();
    assert!(networks.remove_namespace("ns_vm_1").unwrap_err().is_not_there());
    assert!(networks.namespaces().unwrap().is_empty());
    for name in ["", ".", "..", "a/b", "a b"] {
        let error = networks.create_namespace(name).unwrap_err();
        assert!(!error.is_already_there() && !error.is_not_there(), "{error}: {}", error.cause);
    }
}

pub(super) fn links_are_made_and_changed(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
    network.add_link(&NewLink::new("fifteen-letters", NewKind::Bridge).mac(mac).mtu(1400)).unwrap();
    let link = network.link("fifteen-letters").unwrap();
    assert_eq!((link.kind, link.mac, link.mtu, link.up), (LinkKind::Bridge, Some(mac), 1400, false));
    let again = network.add_link(&NewLink::new("fifteen-letters", NewKind::Bridge)).unwrap_err();
    assert!(again.is_already_there(), "{again}: {}", again.cause);
    assert_eq!(again.to_string(), "cannot make bridge fifteen-letters in namespace one");
    let long = network.add_link(&NewLink::new("sixteen-letters!", NewKind::Bridge)).unwrap_err();
    assert!(long.cause.to_string().ends_with("it has 16 bytes, 15 is the most"), "{}", long.cause);

    let changes = [
        LinkChange::AddAltname("a-much-longer-name-of-the-same-link".into()),
        LinkChange::AddAltname("short".into()),
        LinkChange::Mtu(1300),
        LinkChange::Mac("02:00:00:00:00:08".parse().unwrap()),
        LinkChange::Name("br0".into()),
        LinkChange::Up,
    ];
    for change in &changes {
        network.change_link("fifteen-letters", change).or_else(|_| network.change_link("br0", change)).unwrap();
    }
    let link = network.link("short").unwrap();
    assert_eq!(link, network.link("a-much-longer-name-of-the-same-link").unwrap());
    assert_eq!((link.name.as_str(), link.mtu, link.up), ("br0", 1300, true));
    assert_eq!(link.altnames, ["a-much-longer-name-of-the-same-link", "short"]);
    let taken = network.change_link("br0", &LinkChange::AddAltname("short".into())).unwrap_err();
    assert!(taken.is_already_there(), "{taken}: {}", taken.cause);
    network.change_link("br0", &LinkChange::RemoveAltname("short".into())).unwrap();
    network.change_link("br0", &LinkChange::Down).unwrap();
    assert!(!network.link("br0").unwrap().up);

    let missing = network.change_link("short", &LinkChange::Up).unwrap_err();
    assert!(missing.is_not_there(), "{missing}: {}", missing.cause);
    assert_eq!(missing.to_string(), "cannot switch on link short in namespace one");
    network.remove_link("br0").unwrap();
    assert!(network.remove_link("br0").unwrap_err().is_not_there());
    assert!(network.link("br0").unwrap_err().is_not_there());
    assert!(!network.remove_link("br0").or_not_there().unwrap());
    assert_eq!(link_names(&*network), ["lo"]);
}

pub(super) fn pairs_join_namespaces(networks: &dyn Networks) {
    let (one, two, three) = (fresh(networks, "one"), fresh(networks, "two"), fresh(networks, "three"));
    one.add_link(&NewLink::veth("tapvfifteenchar", "nsv-fifteenchar", Some(Place::named("two"))).mtu(1400).up())
        .unwrap();
    let (near, far) = (one.link("tapvfifteenchar").unwrap(), two.link("nsv-fifteenchar").unwrap());
    assert!(near.up && !far.up);
    assert_eq!((near.mtu, far.mtu), (1400, 1400));
    let there = one.namespace_id(&Place::named("two")).unwrap();
    assert!(there.is_some());
    assert_eq!(near.kind, LinkKind::Veth(Peer { index: far.index, namespace: there }));
    let back = two.namespace_id(&Place::named("one")).unwrap();
    assert_eq!(far.kind, LinkKind::Veth(Peer { index: near.index, namespace: back }));
    assert_eq!(one.namespace_id(&Place::named("three")).unwrap(), None);

    let taken = one.add_link(&NewLink::veth("other", "nsv-fifteenchar", Some(Place::named("two")))).unwrap_err();
    assert!(taken.is_already_there(), "{taken}: {}", taken.cause);
    assert!(one.link("other").unwrap_err().is_not_there());
    let nowhere = one.add_link(&NewLink::veth("other", "peer", Some(Place::named("four")))).unwrap_err();
    assert!(nowhere.is_not_there(), "{nowhere}: {}", nowhere.cause);

    two.change_link("nsv-fifteenchar", &LinkChange::Move(Place::named("three"))).unwrap();
    assert!(two.link("nsv-fifteenchar").unwrap_err().is_not_there());
    assert!(!three.link("nsv-fifteenchar").unwrap().up);
    one.remove_link("tapvfifteenchar").unwrap();
    assert_eq!(link_names(&*three), ["lo"]);

    one.add_link(&NewLink::veth("a", "b", None)).unwrap();
    let (a, b) = (one.link("a").unwrap(), one.link("b").unwrap());
    assert_eq!(a.kind, LinkKind::Veth(Peer { index: b.index, namespace: None }));
    one.remove_link("b").unwrap();
    assert_eq!(link_names(&*one), ["lo"]);
}

pub(super) fn a_bridge_has_ports(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.add_link(&NewLink::new("br0", NewKind::Bridge).up()).unwrap();
    network.add_link(&NewLink::veth("port", "elsewhere", None)).unwrap();
    assert_eq!(network.link("port").unwrap().isolation, Isolation::NoPort);
    assert!(network.change_link("port", &LinkChange::Isolated(true)).is_err());
    assert!(network.change_link("port", &LinkChange::Master("br1".into())).unwrap_err().is_not_there());
    assert!(network.change_link("port", &LinkChange::Master("elsewhere".into())).is_err());
    network.change_link("port", &LinkChange::Master("br0".into())).unwrap();
    network.change_link("port", &LinkChange::Isolated(true)).unwrap();
    let port = network.link("port").unwrap();
    assert_eq!((port.master.as_deref(), port.isolation), (Some("br0"), Isolation::Isolated));
    assert!(network.links().unwrap().contains(&port));
    network.change_link("port", &LinkChange::Isolated(false)).unwrap();
    assert_eq!(network.link("port").unwrap().isolation, Isolation::Open);
    network.change_link("port", &LinkChange::NoMaster).unwrap();
    network.change_link("port", &LinkChange::Master("br0".into())).unwrap();
    network.remove_link("br0").unwrap();
    assert_eq!(network.link("port").unwrap().master, None);
}

pub(super) fn taps_have_owners(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    let tap = NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 }).mac(Mac([2, 0, 0, 0, 0, 1])).up();
    network.add_link(&tap).unwrap();
    let again = network.add_link(&tap).unwrap_err();
    assert!(again.is_already_there(), "{again}: {}", again.cause);
    let found = network.link("tap0").unwrap();
    assert_eq!(found.kind, LinkKind::Tap { owner: Some(977), group: Some(976), vnet_header: true });
    assert_eq!((found.up, found.mac), (true, Some(Mac([2, 0, 0, 0, 0, 1]))));
    network.add_link(&NewLink::new("br0", NewKind::Bridge)).unwrap();
    let other = network.add_link(&NewLink::new("br0", NewKind::Tap { owner: 0, group: 0 })).unwrap_err();
    assert!(other.is_already_there(), "{other}: {}", other.cause);
    network.remove_link("tap0").unwrap();
    assert_eq!(link_names(&*network), ["lo", "br0"]);
}

pub(super) fn addresses_and_routes_come_and_go(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.add_link(&NewLink::veth("eth0", "eth1", None).up()).unwrap();
    let own = [net("10.0.0.1/32"), net("10.9.0.1/24"), net("fd00::1/128")];
    network.add_addresses("eth0", &own).unwrap();
    let again = network.add_addresses("eth0", &own[..1]).unwrap_err();
    assert!(again.is_already_there(), "{again}: {}", again.cause);
    assert_eq!(again.to_string(), "cannot add address 10.0.0.1/32 to link eth0 in namespace one");
    // What is new among them is added all the same.
    assert!(!network.add_addresses("eth0", &[own[0], net("10.0.0.2/32")]).or_already_there().unwrap());
    let found = network.addresses("eth0").unwrap();
    assert!(own.iter().chain([&net("10.0.0.2/32")]).all(|address| found.contains(address)), "{found:?}");
    assert!(network.add_addresses("eth9", &own).unwrap_err().is_not_there());

    let routes = [
        Route::to_link(net("10.1.0.7/32"), "eth0"),
        Route::to_link(net("fd00:1::7/128"), "eth0"),
        Route { source: Some(ip("10.0.0.1")), ..Route::to_link(net("10.2.0.0/16"), "eth0") },
        Route::by_gateway(net("0.0.0.0/0"), ip("10.99.0.1"), "eth0"),
        Route::by_gateway(net("::/0"), ip("fd00:99::1"), "eth0"),
    ];
    network.add_routes(&routes).unwrap();
    let again = network.add_routes(&routes).unwrap_err();
    assert!(again.is_already_there(), "{again}: {}", again.cause);
    assert_eq!(again.to_string(), "cannot add route to 10.1.0.7/32 through eth0 in namespace one");
    let found = network.routes().unwrap();
    for route in &routes {
        assert!(found.contains(route), "{route} in {found:?}");
    }
    network.remove_routes(&routes[1..4]).unwrap();
    let gone = network.remove_routes(&routes[..4]).unwrap_err();
    assert!(gone.is_not_there(), "{gone}: {}", gone.cause);
    let found = network.routes().unwrap();
    assert!(!routes[..4].iter().any(|route| found.contains(route)) && found.contains(&routes[4]));
    network.remove_addresses("eth0", &own[..2]).unwrap();
    let gone = network.remove_addresses("eth0", &own[..1]).unwrap_err();
    assert!(gone.is_not_there(), "{gone}: {}", gone.cause);
    let found = network.addresses("eth0").unwrap();
    assert!(!found.contains(&own[0]) && found.contains(&own[2]));

    network.add_link(&NewLink::veth("down0", "down1", None)).unwrap();
    let down = network.add_routes(&[Route::to_link(net("10.3.0.7/32"), "down0")]).unwrap_err();
    assert!(!down.is_not_there() && !down.is_already_there(), "{down}: {}", down.cause);
    network.remove_link("eth1").unwrap();
    let gone = |route: &Route| route.link == "eth0";
    assert!(!network.routes().unwrap().iter().any(gone), "routes end with their link");
}

pub(super) fn neighbours_come_and_go(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.add_link(&NewLink::veth("eth0", "eth1", None).up()).unwrap();
    let entry = |address: &str, entry| Neighbour { link: "eth0".into(), address: ip(address), entry };
    let mac = NeighbourEntry::Permanent(Mac([2, 0, 0, 0, 0, 9]));
    let all = [
        entry("10.0.0.9", mac),
        entry("fd00::9", mac),
        entry("10.0.0.10", NeighbourEntry::Proxy),
        entry("fd00::10", NeighbourEntry::Proxy),
    ];
    network.add_neighbours(&all).unwrap();
    assert!(network.add_neighbours(&all).unwrap_err().is_already_there());
    assert!(network.add_neighbours(&all[2..]).is_ok(), "a proxy entry is not noticed");
    let found = network.neighbours().unwrap();
    assert!(all.iter().all(|neighbour| found.contains(neighbour)), "{found:?}");
    network.remove_neighbours(&all[..3]).unwrap();
    let gone = network.remove_neighbours(&all[..3]).unwrap_err();
    assert!(gone.is_not_there(), "{gone}: {}", gone.cause);
    assert_eq!(network.neighbours().unwrap().iter().filter(|neighbour| all.contains(neighbour)).count(), 1);
}

pub(super) fn limits_are_set_and_taken_away(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.add_link(&NewLink::veth("eth0", "eth1", None).up()).unwrap();
    assert_eq!(network.limit("eth0").unwrap(), None);
    assert!(network.remove_limit("eth0").unwrap_err().is_not_there());
    for rate in [125_000, 1_250_000_000, 12_500_000_000] {
        let wanted = Limit { rate, burst: 65_536, latency: Duration::from_millis(50) };
        network.set_limit("eth0", &wanted).unwrap();
        let found = network.limit("eth0").unwrap().unwrap();
        assert_eq!(found.rate, rate);
        assert!(found.burst.abs_diff(65_536) < 1024, "{found:?}");
        // The queue is a 32-bit number of bytes, so the fastest rates cannot wait that long.
        assert!(found.latency <= Duration::from_millis(51), "{found:?}");
    }
    let nothing = Limit { rate: 0, burst: 1, latency: Duration::ZERO };
    assert!(network.set_limit("eth0", &nothing).is_err());
    assert!(network.set_limit("eth9", &Limit { rate: 1, ..nothing }).unwrap_err().is_not_there());
    network.remove_limit("eth0").unwrap();
    assert_eq!(network.limit("eth0").unwrap(), None);
}

pub(super) fn settings_belong_to_a_namespace(networks: &dyn Networks) {
    let (one, two) = (fresh(networks, "one"), fresh(networks, "two"));
    one.set_sysctl("ipv4/ip_forward", "1").unwrap();
    assert_eq!(one.sysctl("ipv4/ip_forward").unwrap(), "1");
    assert_eq!(two.sysctl("ipv4/ip_forward").unwrap(), "0");
    one.add_link(&NewLink::new("br.0", NewKind::Bridge)).unwrap();
    one.set_sysctl("ipv4/conf/br.0/proxy_arp", "1").unwrap();
    assert_eq!(one.sysctl("ipv4/conf/br.0/proxy_arp").unwrap(), "1");
    let missing = two.set_sysctl("ipv4/conf/br.0/proxy_arp", "1").unwrap_err();
    assert!(missing.is_not_there());
    assert_eq!(missing.to_string(), "cannot change setting ipv4/conf/br.0/proxy_arp in namespace two");
    for key in ["", "../kernel/hostname", "/ipv4/ip_forward", "ipv4//ip_forward"] {
        assert!(one.set_sysctl(key, "1").is_err(), "{key}");
    }
}
