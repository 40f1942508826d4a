//! Whether packets go where sets and maps say.

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;

use host::network::{
    Change, Element, Family, Key, LinkChange, Network, NewLink, Obstacle, Part, Place, Route, Table, Verdict,
};
use ipnet::IpNet;

use super::{Rack, connect, listen};

/// `two` is asked by `one`: what no set and no map allows is rejected, and what is established goes on.
const RULESET: &str = r#"
table inet cairn {
    set own { type ifname . ipv4_addr; }
    set nets { type ipv4_addr; flags interval; }
    set nets6 { type ipv6_addr; flags interval; }
    set allowed { type ifname . ipv4_addr . inet_service; flags interval; }
    set denied { type ipv4_addr; flags dynamic; size 65535; counter; }
    map verdicts { type ifname : verdict; }
    map published { type inet_proto . inet_service : ipv4_addr . inet_service; }

    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        dnat ip to meta l4proto . th dport map @published
    }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname . ip saddr @own accept
        ip saddr @nets accept
        ip6 saddr @nets6 accept
        iifname . ip saddr . tcp dport @allowed accept
        iifname vmap @verdicts
        add @denied { ip saddr }
        meta l4proto tcp reject with tcp reset
    }
    chain open {
        accept
    }
}
"#;

fn table() -> Table {
    Table::new(Family::Inet, "cairn")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn sets_and_maps_let_pass_what_is_in_them() {
    let Some(rack) = Rack::new("sets_and_maps_let_pass_what_is_in_them", &["nft"]) else { return };
    let (one, two) = rack.joined();
    two.load_ruleset(RULESET).unwrap();
    let listener = listen(&*two, 7000);
    let refused = |to: &str| {
        let error = connect(&*one, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    };
    let (v4, v6) = ("10.0.0.2:7000", "[fd00::2]:7000");
    let link = || Key::from("to-one");
    let ways = [
        (v4, Change::add("own", Element::new(link().and(ip("10.0.0.1"))))),
        (v4, Change::add("nets", Element::new(net("10.0.0.0/30")))),
        (v6, Change::add("nets6", Element::new(net("fd00::/64")))),
        (v4, Change::add("allowed", Element::new(link().and(net("10.0.0.0/24")).and(6000..=8000)))),
        (v6, Change::add("verdicts", Element::verdict(link(), Verdict::Accept))),
        (v4, Change::add("verdicts", Element::verdict(link(), Verdict::Jump("open".into())))),
    ];
    for (to, way) in ways {
        refused(to);
        two.change_elements(&table(), std::slice::from_ref(&way)).unwrap();
        connect(&*one, to).unwrap();
        listener.accept().unwrap();
        let Change::Add { set, element } = way else { unreachable!() };
        two.change_elements(&table(), &[Change::remove(set, element.key)]).unwrap();
    }
    refused(v4);
    let denied = two.elements(&table(), "denied").unwrap();
    assert_eq!(denied[0].element, Element::new(ip("10.0.0.1")));
    assert!(denied[0].counted.is_some_and(|(packets, bytes)| packets > 0 && bytes > packets), "{denied:?}");
}

#[test]
fn a_published_port_leads_where_the_map_says() {
    let Some(rack) = Rack::new("a_published_port_leads_where_the_map_says", &["nft"]) else { return };
    let (one, two) = rack.joined();
    two.load_ruleset(RULESET).unwrap();
    let listener = listen(&*two, 7000);
    let outside = Key(vec![Part::Protocol(6), Part::Port(80)]);
    let changes = [
        Change::add("own", Element::new(Key::from("to-one").and(ip("10.0.0.1")))),
        Change::add("published", Element::mapped(outside.clone(), Key::from(ip("10.0.0.2")).and(7000))),
    ];
    two.change_elements(&table(), &changes).unwrap();
    connect(&*one, "10.0.0.2:80").unwrap();
    listener.accept().unwrap();
    two.change_elements(&table(), &[Change::remove("published", outside)]).unwrap();
    assert_eq!(connect(&*one, "10.0.0.2:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_connection_ends_with_its_permission_once_it_is_forgotten() {
    let test = "a_connection_ends_with_its_permission_once_it_is_forgotten";
    let Some(rack) = Rack::new(test, &["nft"]) else { return };
    let (one, two) = rack.joined();
    two.load_ruleset(RULESET).unwrap();
    let listener = listen(&*two, 7000);
    let own = Key::from("to-one").and(ip("10.0.0.1"));
    two.change_elements(&table(), &[Change::add("own", Element::new(own.clone()))]).unwrap();
    let mut near = connect(&*one, "10.0.0.2:7000").unwrap();
    let (mut far, _) = listener.accept().unwrap();
    two.change_elements(&table(), &[Change::remove("own", own)]).unwrap();
    let mut read = [0; 1];
    near.write_all(b"a").unwrap();
    far.read_exact(&mut read).unwrap();
    assert_eq!(two.forget_connections(&[ip("10.0.0.77")]).unwrap(), 0);
    assert_eq!(two.forget_connections(&[ip("fd00::1")]).unwrap(), 0);
    assert_eq!(two.forget_connections(&[]).unwrap(), 0);
    // Of both families at once.
    assert_eq!(two.forget_connections(&[ip("fd00::1"), ip("10.0.0.1")]).unwrap(), 1);
    assert_eq!(two.forget_connections(&[ip("10.0.0.1")]).unwrap(), 0);
    near.write_all(b"b").unwrap();
    assert_eq!(near.read(&mut read).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// One address outside for the one that every guest has inside.
const TRANSLATION: &str = r#"
table ip edge {
    map inward { type ipv4_addr : ipv4_addr; }
    map outward { type ipv4_addr : ipv4_addr; }

    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        iifname "eth0" dnat to ip daddr map @inward
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" snat to ip saddr map @outward
    }
}
"#;

/// A namespace between `around` and a guest that looks like every other guest.
fn guest(rack: &Rack, around: &dyn Network, name: &str, outside: &str) -> Box<dyn Network> {
    let everywhere = net("0.0.0.0/0");
    let (edge, guest_name) = (rack.network(name), format!("{name}-guest"));
    let guest = rack.network(&guest_name);
    let host_end = format!("tapv-{name}");
    around.add_link(&NewLink::veth(&host_end, "eth0", Some(Place::named(name))).up()).unwrap();
    around.add_routes(&[Route::to_link(ip(outside).into(), &host_end)]).unwrap();
    edge.change_link("eth0", &LinkChange::Up).unwrap();
    edge.set_sysctl("ipv4/ip_forward", "1").unwrap();
    edge.add_addresses("eth0", &[ip(outside).into()]).unwrap();
    edge.add_routes(&[Route::by_gateway(everywhere, ip("10.255.0.1"), "eth0")]).unwrap();
    edge.add_link(&NewLink::veth("tap0", "eth0", Some(Place::named(&guest_name))).up()).unwrap();
    edge.add_addresses("tap0", &[net("172.16.0.1/30")]).unwrap();
    guest.change_link("eth0", &LinkChange::Up).unwrap();
    guest.add_addresses("eth0", &[net("172.16.0.2/30")]).unwrap();
    guest.add_routes(&[Route::by_gateway(everywhere, ip("172.16.0.1"), "eth0")]).unwrap();
    edge.load_ruleset(TRANSLATION).unwrap();
    let changes = [
        Change::add("inward", Element::mapped(ip(outside), ip("172.16.0.2"))),
        Change::add("outward", Element::mapped(ip("172.16.0.2"), ip(outside))),
    ];
    edge.change_elements(&Table::new(Family::Ip, "edge"), &changes).unwrap();
    guest
}

#[test]
fn twins_have_addresses_of_their_own_outside() {
    let Some(rack) = Rack::new("twins_have_addresses_of_their_own_outside", &["nft"]) else { return };
    let around = rack.network("around");
    around.add_addresses("lo", &[net("10.255.0.1/32")]).unwrap();
    around.set_sysctl("ipv4/ip_forward", "1").unwrap();
    let one = guest(&rack, &*around, "one", "10.0.0.1");
    let two = guest(&rack, &*around, "two", "10.0.0.2");
    let (at_one, at_two) = (listen(&*one, 7000), listen(&*two, 7000));
    let (_near, (_far, peer)) = (connect(&*one, "10.0.0.2:7000").unwrap(), at_two.accept().unwrap());
    assert_eq!(peer.ip().to_canonical(), ip("10.0.0.1"), "as its own address outside");
    let (_near, (_far, peer)) = (connect(&*two, "10.0.0.1:7000").unwrap(), at_one.accept().unwrap());
    assert_eq!(peer.ip().to_canonical(), ip("10.0.0.2"));
}

/// As Docker, ufw and firewalld leave it, in short.
const FOREIGN: &str = r#"
table ip filter {
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }
    chain DOCKER-USER { 
        return
    }
    chain INPUT {
        type filter hook input priority filter; policy accept;
        jump ufw-before-input
    }
    chain ufw-before-input {
        jump ufw-user-input
    }
    chain ufw-user-input {
        tcp dport 22 accept
        counter drop
    }
    chain OUTPUT {
        type filter hook output priority filter; policy drop;
        accept
    }
}
table inet firewalld {
    map zones { type ifname : verdict; elements = { "eth9" : goto filter_FWD_public } }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state established accept
        iifname vmap @zones
    }
    chain filter_FWD_public {
        reject with icmpx admin-prohibited
    }
}
table inet harmless {
    chain forward {
        type filter hook forward priority -300; policy accept;
        counter
    }
}
table inet cairn {
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
}
"#;

#[test]
fn chains_of_others_that_may_drop_are_named() {
    let Some(rack) = Rack::new("chains_of_others_that_may_drop_are_named", &["nft"]) else { return };
    let network = rack.network("one");
    assert!(network.foreign_chains(&[]).unwrap().is_empty());
    network.load_ruleset(FOREIGN).unwrap();
    let found = network.foreign_chains(&[table()]).unwrap();
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "chain filter_FORWARD of table inet firewalld (hook forward, priority 10, firewalld) has a rule that drops, \
             in chain filter_FWD_public",
            "chain FORWARD of table ip filter (hook forward, priority 0, Docker) drops what no rule of it accepts",
            "chain INPUT of table ip filter (hook input, priority 0, ufw) has a rule that drops, in chain ufw-user-input",
        ]
    );
    assert_eq!(found[1].obstacle, Obstacle::Policy);
    assert_eq!(network.foreign_chains(&[]).unwrap().len(), 4);
}
