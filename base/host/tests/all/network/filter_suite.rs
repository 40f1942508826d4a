//! What the packet filters have in common.

use std::net::{IpAddr, Ipv4Addr};

use host::network::{
    Cause, Chain, Change, Data, Element, Family, Hook, Key, LinkChange, Network, Networks, NewLink, Part, Route, Set,
    Table, Verdict,
};
use ipnet::IpNet;

use super::suite::{fresh, ip, net};

/// What the real ones need.
pub(super) const PROGRAMS: &[&str] = &["nft"];

/// Sets and maps of every type.
const RULESET: &str = r#"
table inet cairn {}
delete table inet cairn
table inet cairn {
    set addresses { type ipv4_addr; }
    set addresses6 { type ipv6_addr; }
    set links { type ifname; }
    set ports { type inet_service; }
    set own { type ifname . ipv4_addr; }
    set own6 { type ifname . ipv6_addr; }
    map verdicts { type ifname : verdict; }
    map translated { type ipv4_addr : ipv4_addr; }
    map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
    set nets { type ipv4_addr; flags interval; }
    set nets6 { type ipv6_addr; flags interval; }
    set ranges { type inet_service; flags interval; }
    set allowed { type ifname . ipv4_addr . inet_service; flags interval; }
    map zones { type ipv4_addr : verdict; flags interval; }

    chain forward { type filter hook forward priority filter - 5; policy drop; }
    chain one { }
    chain two { }
}
"#;

fn table() -> Table {
    Table::new(Family::Inet, "cairn")
}

fn sorted(network: &dyn Network, set: &str) -> Vec<Element> {
    let mut elements: Vec<Element> =
        network.elements(&table(), set).unwrap().into_iter().map(|listed| listed.element).collect();
    elements.sort_by(|one, other| one.key.cmp(&other.key));
    elements
}

pub(super) fn rulesets_are_loaded_as_a_whole(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    assert!(network.table(&table()).unwrap_err().is_not_there());
    assert!(network.tables().unwrap().is_empty());
    assert!(network.load_ruleset("table inet cairn { set broken { type no_such_type; } }").is_err());
    assert!(network.tables().unwrap().is_empty());
    network.load_ruleset(RULESET).unwrap();
    assert_eq!(network.tables().unwrap(), [table()]);
    let objects = network.table(&table()).unwrap();
    let hook = Hook { number: 2, priority: -5, drops: true };
    assert!(objects.chains.contains(&Chain { name: "forward".into(), hook: Some(hook) }), "{objects:?}");
    assert!(objects.chains.contains(&Chain { name: "one".into(), hook: None }));
    assert!(objects.sets.contains(&Set { name: "verdicts".into(), map: true }));
    assert_eq!((objects.chains.len(), objects.sets.len()), (3, 14));
    let jump = Change::add("verdicts", Element::verdict("tap9", Verdict::Jump("four".into())));
    let error = network.change_elements(&table(), std::slice::from_ref(&jump)).unwrap_err();
    assert!(error.is_not_there(), "no such chain");
    network.load_ruleset("table inet cairn {\n chain four { }\n}\n").unwrap();
    assert_eq!(network.table(&table()).unwrap().chains.len(), 4);
    network.change_elements(&table(), &[jump]).unwrap();
    network.load_ruleset(RULESET).unwrap();
    assert!(network.elements(&table(), "verdicts").unwrap().is_empty(), "the table was replaced");
    network.load_ruleset("delete table inet cairn").unwrap();
    assert!(network.tables().unwrap().is_empty());
}

/// An element of every set and map without intervals.
fn one_of_each() -> Vec<Change> {
    let tcp = Key(vec![Part::Protocol(6)]);
    vec![
        Change::add("addresses", Element::new(ip("10.0.0.1"))),
        Change::add("addresses6", Element::new(ip("fd00::1"))),
        Change::add("links", Element::new("tap0")),
        Change::add("ports", Element::new(8080)),
        Change::add("own", Element::new(Key::from("fifteen-letters").and(ip("10.0.0.1")))),
        Change::add("own6", Element::new(Key::from("tap0").and(ip("fd00::1")))),
        Change::add("verdicts", Element::verdict("tap0", Verdict::Jump("one".into()))),
        Change::add("verdicts", Element::verdict("tap1", Verdict::Goto("two".into()))),
        Change::add("verdicts", Element::verdict("tap2", Verdict::Drop)),
        Change::add("verdicts", Element::verdict("tap3", Verdict::Accept)),
        Change::add("verdicts", Element::verdict("tap4", Verdict::Return)),
        Change::add("verdicts", Element::verdict("tap5", Verdict::Continue)),
        Change::add("translated", Element::mapped(ip("10.0.0.1"), ip("172.16.0.2"))),
        Change::add("published", Element::mapped(tcp.and(80), Key::from(ip("10.0.0.1")).and(8080))),
    ]
}

pub(super) fn sets_and_maps_change_as_a_whole(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.load_ruleset(RULESET).unwrap();
    let all = one_of_each();
    network.change_elements(&table(), &all).unwrap();
    network.change_elements(&table(), &all).unwrap();
    for change in &all {
        let Change::Add { set, element } = change else { continue };
        assert!(sorted(&*network, set).contains(element), "{element:?} in {set}");
    }
    assert_eq!(sorted(&*network, "verdicts").len(), 6);

    let other = [
        Change::add("addresses", Element::new(ip("10.0.0.2"))),
        Change::add("translated", Element::mapped(ip("10.0.0.1"), ip("172.16.0.3"))),
    ];
    let taken = network.change_elements(&table(), &other).unwrap_err();
    assert!(taken.is_already_there(), "{taken}: {}", taken.cause);
    let words = "cannot add 10.0.0.1 to set translated of table inet cairn in namespace one";
    assert_eq!(taken.to_string(), words);
    assert_eq!(sorted(&*network, "addresses").len(), 1, "all or nothing");

    let changes = [
        Change::remove("addresses", ip("10.0.0.1")),
        Change::remove("addresses", ip("10.0.0.9")),
        Change::remove("own", Key::from("fifteen-letters").and(ip("10.0.0.1"))),
        Change::remove("verdicts", "tap0"),
        Change::remove("verdicts", "tap8"),
        Change::remove("published", Key(vec![Part::Protocol(6), Part::Port(80)])),
        Change::add("addresses", Element::new(ip("10.0.0.3"))),
    ];
    network.change_elements(&table(), &changes).unwrap();
    assert_eq!(sorted(&*network, "addresses"), [Element::new(ip("10.0.0.3"))]);
    assert!(sorted(&*network, "own").is_empty() && sorted(&*network, "published").is_empty());
    assert_eq!(sorted(&*network, "verdicts").len(), 5);
    network.change_elements(&table(), &changes[..6]).unwrap();
    network.change_elements(&table(), &[]).unwrap();
}

pub(super) fn what_does_not_fit_a_set_is_refused(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.load_ruleset(RULESET).unwrap();
    let bad = [
        Change::add("addresses", Element::new(ip("fd00::1"))),
        Change::add("addresses", Element::new(net("10.0.0.0/24"))),
        Change::add("own", Element::new("tap0")),
        Change::add("links", Element::new("sixteen-letters!")),
        Change::add("verdicts", Element::new("tap0")),
        Change::add("addresses", Element::mapped(ip("10.0.0.1"), ip("10.0.0.2"))),
    ];
    for change in bad {
        let error = network.change_elements(&table(), std::slice::from_ref(&change)).unwrap_err();
        assert!(matches!(*error.cause, Cause::Invalid(_)), "{error}: {}", error.cause);
    }
    let missing = network.change_elements(&table(), &[Change::add("no_set", Element::new("x"))]).unwrap_err();
    assert!(missing.is_not_there());
    assert!(network.elements(&Table::new(Family::Ip, "cairn"), "links").unwrap_err().is_not_there());
}

pub(super) fn intervals_are_kept(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.load_ruleset(RULESET).unwrap();
    let prefixes = ["0.0.0.0/8", "10.0.0.0/24", "10.0.1.0/24", "192.168.0.7/32", "224.0.0.0/3"].map(net);
    let changes: Vec<Change> = prefixes.iter().map(|prefix| Change::add("nets", Element::new(*prefix))).collect();
    network.change_elements(&table(), &changes).unwrap();
    network.change_elements(&table(), &changes).unwrap();
    // A prefix of full length is an address.
    let mut wanted: Vec<Element> = prefixes.iter().map(|prefix| Element::new(*prefix)).collect();
    wanted[3] = Element::new(ip("192.168.0.7"));
    wanted.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(sorted(&*network, "nets"), wanted);
    let part = network.change_elements(&table(), &[Change::add("nets", Element::new(net("10.0.0.0/16")))]);
    assert!(part.is_err(), "intervals that overlap are refused");
    network
        .change_elements(&table(), &[Change::remove("nets", prefixes[1]), Change::remove("nets", prefixes[4])])
        .unwrap();
    assert_eq!(sorted(&*network, "nets").len(), 3);

    let allowed = Key::from("tap0").and(net("10.0.0.0/8")).and(80..=90);
    let single = Key::from("tap1").and(ip("10.0.0.1")).and(443);
    let changes = [
        Change::add("nets6", Element::new(net("fd00::/8"))),
        Change::add("nets6", Element::new(net("2000::/3"))),
        Change::add("ranges", Element::new(8000..=8999)),
        Change::add("ranges", Element::new(65_535)),
        Change::add("allowed", Element::new(allowed.clone())),
        Change::add("allowed", Element::new(single.clone())),
        Change::add("zones", Element::verdict(net("10.0.0.0/8"), Verdict::Jump("one".into()))),
        Change::add("zones", Element::verdict(net("11.0.0.0/8"), Verdict::Drop)),
    ];
    network.change_elements(&table(), &changes).unwrap();
    for change in &changes {
        let Change::Add { set, element } = change else { continue };
        assert!(sorted(&*network, set).contains(element), "{element:?} in {:?}", sorted(&*network, set));
    }
    let zones = sorted(&*network, "zones");
    assert!(zones.iter().any(|zone| zone.data == Some(Data::Verdict(Verdict::Jump("one".into())))));
    let removals = [
        Change::remove("allowed", allowed),
        Change::remove("allowed", Key::from("tap7").and(ip("10.0.0.1")).and(443)),
        Change::remove("ranges", 8000..=8999),
        Change::remove("ranges", 1..=2),
        Change::remove("zones", net("10.0.0.0/8")),
    ];
    network.change_elements(&table(), &removals).unwrap();
    assert_eq!(sorted(&*network, "allowed"), [Element::new(single)]);
    assert_eq!(sorted(&*network, "ranges"), [Element::new(65_535)]);
    assert_eq!(sorted(&*network, "zones").len(), 1);
}

pub(super) fn two_thousand_in_one_go(networks: &dyn Networks) {
    let network = fresh(networks, "one");
    network.add_link(&NewLink::veth("eth0", "eth1", None).up()).unwrap();
    network.change_link("eth1", &LinkChange::Up).unwrap();
    network.load_ruleset(RULESET).unwrap();
    let addresses: Vec<IpAddr> = (0..2000u32).map(|number| Ipv4Addr::from(0x0a80_0000 + number).into()).collect();
    let nets: Vec<IpNet> = addresses.iter().map(|address| IpNet::from(*address)).collect();
    let routes: Vec<Route> =
        addresses.iter().map(|address| Route::to_link(IpNet::new(*address, 32).unwrap(), "eth1")).collect();
    network.add_addresses("eth0", &nets).unwrap();
    assert!(network.addresses("eth0").unwrap().len() >= 2000);
    network.add_routes(&routes).unwrap();
    assert!(network.routes().unwrap().len() >= 2000);
    let own = |address: &IpAddr| Key::from("eth0").and(*address);
    let add: Vec<Change> = addresses.iter().map(|address| Change::add("own", Element::new(own(address)))).collect();
    network.change_elements(&table(), &add).unwrap();
    assert_eq!(network.elements(&table(), "own").unwrap().len(), 2000);
    let remove: Vec<Change> = addresses.iter().map(|address| Change::remove("own", own(address))).collect();
    network.change_elements(&table(), &remove[..1000]).unwrap();
    // Half of them have nothing to remove.
    network.change_elements(&table(), &remove).unwrap();
    assert!(network.elements(&table(), "own").unwrap().is_empty());
    network.remove_routes(&routes).unwrap();
    network.remove_addresses("eth0", &nets).unwrap();
    assert!(!network.addresses("eth0").unwrap().iter().any(|address| nets.contains(address)));
}
