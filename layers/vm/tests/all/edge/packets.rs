//! Where packets go, and where not.

use std::io;

use host::network::{LinkChange, Mac, Network, Networks, NewKind, NewLink, Place, Repeatable, Route};
use vm::adapters::edge::EdgeSettings;
use vm::model::{Egress, NetworkInterface, Protocol, RateLimit};
use vm::ports::Edges;

use super::rack::{Rack, datagrams, ip, is_dropped, listen, net, reaches};
use super::{allow, open, port, vm};

#[test]
fn a_guest_gets_out_and_back() {
    let Some(rack) = Rack::new("a_guest_gets_out_and_back") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let guest = rack.boot(&edges, &vm(0, open()));
    let (outside, at_guest) = (listen(&*rack.outside, 7000), listen(&*guest, 80));
    assert_eq!(reaches(&*guest, "203.0.114.9:7000", &outside), ip("203.0.114.1"), "masqueraded");
    assert_eq!(reaches(&*guest, "[2a00:1::9]:7000", &outside), ip("2a00:1::1"));
    // The host sees the VM by its own address, and the VM the host by its address among them.
    assert_eq!(reaches(&*rack.host, "10.100.0.2:80", &at_guest), ip("10.100.0.1"));
    assert_eq!(reaches(&*rack.host, "[fd00::2]:80", &at_guest), ip("fd00::1"));
    // Nobody else gets in uninvited.
    is_dropped(&*rack.outside, "10.100.0.2:80");
    is_dropped(&*rack.outside, "[fd00::2]:80");
}

#[test]
fn a_public_subnet_is_seen_as_it_is() {
    let Some(rack) = Rack::new("a_public_subnet_is_seen_as_it_is") else { return };
    let subnet_ipv4 = "198.51.101.0/24".parse().unwrap();
    let subnet_ipv6 = "2a00:2::/64".parse().unwrap();
    let edges = rack.edges(EdgeSettings { subnet_ipv4, subnet_ipv6, ..EdgeSettings::default() });
    let back = [("198.51.101.0/24", "203.0.114.1"), ("2a00:2::/64", "2a00:1::1")];
    let back = back.map(|(vms, host)| Route::by_gateway(net(vms), ip(host), "eth0"));
    rack.outside.add_routes(&back).unwrap();
    let guest = rack.boot(&edges, &vm(0, open()));
    let outside = listen(&*rack.outside, 7000);
    assert_eq!(reaches(&*guest, "203.0.114.9:7000", &outside), ip("198.51.101.2"));
    assert_eq!(reaches(&*guest, "[2a00:1::9]:7000", &outside), ip("2a00:2::2"));
    is_dropped(&*rack.outside, "198.51.101.2:80");
}

#[test]
fn peers_are_reached_where_the_sender_may() {
    let Some(rack) = Rack::new("peers_are_reached_where_the_sender_may") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let egress = vec![allow("10.100.0.3/32"), allow("fd00::3/128")];
    let one = rack.boot(&edges, &vm(0, NetworkInterface { egress, ..open() }));
    let two = rack.boot(&edges, &vm(1, open()));
    let (at_one, at_two) = (listen(&*one, 80), listen(&*two, 80));
    assert_eq!(reaches(&*one, "10.100.0.3:80", &at_two), ip("10.100.0.2"), "as its own address outside");
    assert_eq!(reaches(&*one, "[fd00::3]:80", &at_two), ip("fd00::2"));
    is_dropped(&*two, "10.100.0.2:80");
    is_dropped(&*two, "[fd00::2]:80");
    drop(at_one);
    // Twins inside: both have the same address there.
    assert_eq!(one.addresses("eth0").unwrap(), two.addresses("eth0").unwrap());
}

#[test]
fn what_is_private_is_dropped_unless_it_is_allowed() {
    let Some(rack) = Rack::new("what_is_private_is_dropped_unless_it_is_allowed") else { return };
    let edges = rack.edges(EdgeSettings { dns_ipv4: vec!["192.168.7.9".parse().unwrap()], ..EdgeSettings::default() });
    rack.outside.add_addresses("lo", &[net("fd77::9/128")]).unwrap();
    rack.host.add_routes(&[Route::by_gateway(net("fd77::/64"), ip("2a00:1::9"), "uplink")]).unwrap();
    let outside = listen(&*rack.outside, 7000);
    let shut = NetworkInterface { egress_internet: false, ..NetworkInterface::default() };
    let tcp = |to: &str, port| Egress { to: to.parse().unwrap(), protocol: Some(Protocol::Tcp), port };
    let egress =
        vec![tcp("10.9.9.0/24", Some(7000)), tcp("192.168.7.9/32", None), allow("fd77::/64"), allow("10.9.9.9/32")];
    let guest = rack.boot(&edges, &vm(0, open()));
    let none = rack.boot(&edges, &vm(1, shut.clone()));
    let some = rack.boot(&edges, &vm(2, NetworkInterface { egress, ..shut }));
    for private in ["169.254.169.254:7000", "10.9.9.9:7000", "192.168.7.9:7000", "[fd77::9]:7000"] {
        is_dropped(&*guest, private);
    }
    for public in ["203.0.114.9:7000", "[2a00:1::9]:7000"] {
        reaches(&*guest, public, &outside);
        is_dropped(&*none, public);
        is_dropped(&*some, public);
    }
    for allowed in ["10.9.9.9:7000", "192.168.7.9:7000", "[fd77::9]:7000"] {
        reaches(&*some, allowed, &outside);
    }
    is_dropped(&*some, "169.254.169.254:7000");
    // The name server is private and may be asked for names, by who may use the internet.
    let (names, asker) = (datagrams(&*rack.outside, "192.168.7.9:53"), datagrams(&*guest, "100.64.0.2:5353"));
    let mut read = [0; 8];
    asker.send_to(b"name", "192.168.7.9:53").unwrap();
    let (length, from) = names.recv_from(&mut read).unwrap();
    names.send_to(&read[..length], from).unwrap();
    assert_eq!(asker.recv(&mut read).unwrap(), 4);
    let shown = rack.wait(edges.show(Some(&vm(0, open()))));
    assert!(shown["counters"]["denied_ipv4"]["packets"].as_u64().unwrap() >= 3, "{shown}");
    assert!(shown["counters"]["sent_ipv6"]["packets"].as_u64().unwrap() >= 3, "{shown}");
    let denied = shown["recently_denied"].as_array().unwrap();
    assert!(denied.iter().any(|line| line == "10.100.0.2 . 169.254.169.254 . protocol 6 . 7000"), "{shown}");
}

#[test]
fn the_host_is_protected() {
    let Some(rack) = Rack::new("the_host_is_protected") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let egress = vec![allow("0.0.0.0/0"), allow("::/0")];
    let guest = rack.boot(&edges, &vm(0, NetworkInterface { egress, ..open() }));
    let _listener = listen(&*rack.host, 7000);
    for to in ["10.100.0.1:7000", "203.0.114.1:7000", "[fd00::1]:7000", "[2a00:1::1]:7000", "169.254.1.1:7000"] {
        is_dropped(&*guest, to);
    }
    // Whoever breaks out into the namespace gets no further.
    let inner = rack.networks.open(&Place::named("ns_vm_ud-0000000000000000")).unwrap();
    is_dropped(&*inner, "203.0.114.1:7000");
}

#[test]
fn a_false_sender_is_dropped_at_both_ends() {
    let Some(rack) = Rack::new("a_false_sender_is_dropped_at_both_ends") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let one = vm(0, open());
    let guest = rack.boot(&edges, &one);
    rack.boot(&edges, &vm(1, open()));
    let receiver = datagrams(&*rack.outside, "203.0.114.9:7000");
    receiver.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let arrives = |from: &dyn Network, own: &str| {
        let sender = datagrams(from, &format!("{own}:0"));
        sender.send_to(b"x", "203.0.114.9:7000").unwrap();
        match receiver.recv_from(&mut [0; 8]) {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
                false
            }
        }
    };
    assert!(arrives(&*guest, "100.64.0.2"));
    // In the namespace: another address, another hardware address.
    guest.add_addresses("eth0", &[net("10.100.0.3/32")]).unwrap();
    assert!(!arrives(&*guest, "10.100.0.3"));
    guest.change_link("eth0", &LinkChange::Mac(Mac([2, 0, 0, 0, 0, 9]))).unwrap();
    assert!(!arrives(&*guest, "100.64.0.2"));
    // At the host: the neighbour's address from a namespace that was broken into.
    let inner = rack.networks.open(&Place::named(one.id.namespace())).unwrap();
    assert!(arrives(&*inner, "10.100.0.2"));
    inner.add_addresses("edge", &[net("10.100.0.3/32"), net("203.0.114.77/32")]).unwrap();
    assert!(!arrives(&*inner, "10.100.0.3"));
    assert!(!arrives(&*inner, "203.0.114.77"));
    let shown = rack.wait(edges.show(Some(&one)));
    assert_eq!(shown["counters"]["spoofed"]["packets"], 2, "{shown}");
}

#[test]
fn a_port_of_the_host_leads_to_a_guest() {
    let Some(rack) = Rack::new("a_port_of_the_host_leads_to_a_guest") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let ports = vec![port(40_000, 80, Protocol::Tcp), port(40_001, 53, Protocol::Udp)];
    let mut published = vm(0, NetworkInterface { ports, egress_internet: false, ..NetworkInterface::default() });
    let guest = rack.boot(&edges, &published);
    let at_guest = listen(&*guest, 80);
    assert_eq!(reaches(&*rack.outside, "203.0.114.1:40000", &at_guest), ip("203.0.114.9"));
    assert_eq!(reaches(&*rack.outside, "[2a00:1::1]:40000", &at_guest), ip("2a00:1::9"));
    assert_eq!(reaches(&*rack.host, "203.0.114.1:40000", &at_guest), ip("203.0.114.1"));
    assert_eq!(reaches(&*rack.host, "127.0.0.1:40000", &at_guest), ip("10.100.0.1"));
    let (server, client) = (datagrams(&*guest, "100.64.0.2:53"), datagrams(&*rack.outside, "203.0.114.9:0"));
    client.send_to(b"name", "203.0.114.1:40001").unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut [0; 8]).unwrap().1.to_string(), "203.0.114.1:40001");

    // Taken by another VM, by a program of the host, or none of those that may be.
    let refused = |other: vm::model::Vm| rack.runtime.block_on(edges.ensure(&other, None)).unwrap_err();
    let asks = |host_port| NetworkInterface { ports: vec![port(host_port, 80, Protocol::Tcp)], ..open() };
    let error = refused(vm(1, asks(40_000)));
    assert_eq!((error.code, error.reason.as_str()), ("vm_port_taken", "tcp port 40000 of the host is taken"));
    let _program = listen(&*rack.host, 40_002);
    assert_eq!(refused(vm(1, asks(40_002))).code, "vm_port_taken");
    assert_eq!(refused(vm(1, asks(22))).code, "vm_port_taken");

    // Given back, it leads nowhere and others may have it.
    published.mappings.clear();
    rack.wait(edges.ensure(&published, None));
    rack.wait(edges.ensure(&vm(1, asks(40_000)), None));
}

#[test]
fn a_permission_that_is_taken_ends_what_it_began() {
    let Some(rack) = Rack::new("a_permission_that_is_taken_ends_what_it_began") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let egress = vec![allow("10.9.9.9/32")];
    let guest = rack.boot(&edges, &vm(0, NetworkInterface { egress, ..open() }));
    let (server, client) = (datagrams(&*rack.outside, "10.9.9.9:7000"), datagrams(&*guest, "100.64.0.2:7000"));
    let silence = Some(std::time::Duration::from_millis(300));
    client.send_to(b"x", "10.9.9.9:7000").unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    take_egress(&rack, &edges);
    server.set_read_timeout(silence).unwrap();
    client.set_read_timeout(silence).unwrap();
    client.send_to(b"x", "10.9.9.9:7000").unwrap();
    assert!(server.recv_from(&mut [0; 8]).is_err(), "still lets it out");
    server.send_to(b"x", from).unwrap();
    assert!(client.recv(&mut [0; 8]).is_err(), "still lets the answer in");
}

/// The VM of slot 0 may use nothing but the internet from now on. What stands in for its tap is put aside meanwhile.
fn take_egress(rack: &Rack, edges: &vm::adapters::edge::HostEdges) {
    let inner = rack.networks.open(&Place::named("ns_vm_ud-0000000000000000")).unwrap();
    let (addresses, neighbours) = (inner.addresses("tap0").unwrap(), inner.neighbours().unwrap());
    inner.change_link("tap0", &LinkChange::Down).unwrap();
    inner.change_link("tap0", &LinkChange::Name("aside".into())).unwrap();
    rack.wait(edges.ensure(&vm(0, open()), None));
    inner.remove_link("tap0").unwrap();
    inner.change_link("aside", &LinkChange::Name("tap0".into())).unwrap();
    inner.change_link("tap0", &LinkChange::Up).unwrap();
    inner.add_addresses("tap0", &addresses).or_already_there().unwrap();
    let at_tap: Vec<_> = neighbours.into_iter().filter(|neighbour| neighbour.link == "tap0").collect();
    inner.add_neighbours(&at_tap).or_already_there().unwrap();
}

#[test]
fn limits_are_set_on_both_ways() {
    let Some(rack) = Rack::new("limits_are_set_on_both_ways") else { return };
    let edges = rack.edges(EdgeSettings::default());
    let limit = |bandwidth| Some(RateLimit { bandwidth, ..RateLimit::default() });
    let interface = NetworkInterface { rx_rate_limit: limit(250_000), tx_rate_limit: limit(125_000), ..open() };
    let wire = rack.wait(edges.ensure(&vm(0, interface), None));
    rack.wait(edges.ensure(&vm(1, open()), None));
    let inner = rack.networks.open(&Place::named(&wire.namespace)).unwrap();
    assert_eq!(rack.host.limit("tapv0").unwrap().unwrap().rate, 250_000);
    assert_eq!(inner.limit("edge").unwrap().unwrap().rate, 125_000);
    assert_eq!(rack.host.limit("tapv1").unwrap().unwrap().rate, 125_000_000);
    rack.wait(edges.ensure(&vm(0, open()), None));
    assert_eq!(inner.limit("edge").unwrap().unwrap().rate, 125_000_000);
}

#[test]
fn chains_of_others_that_drop_are_named() {
    let Some(rack) = Rack::new("chains_of_others_that_drop_are_named") else { return };
    let edges = rack.edges(EdgeSettings::default());
    assert_eq!(rack.wait(edges.foreign()), []);
    let docker = "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n \
                  jump DOCKER-USER\n }\n chain DOCKER-USER {\n return\n }\n}\n";
    rack.host.load_ruleset(docker).unwrap();
    let guest = rack.boot(&edges, &vm(0, open()));
    is_dropped(&*guest, "203.0.114.9:7000");
    let found = rack.wait(edges.foreign());
    let chain = "chain FORWARD of table ip filter (hook forward, priority 0, Docker) drops what no rule of it accepts";
    assert_eq!(found.iter().map(|found| found.chain.as_str()).collect::<Vec<_>>(), [chain]);
    assert_eq!(rack.wait(edges.show(None))["foreign_chains"][0], chain);
}

#[test]
fn router_advertisements_are_taken_on() {
    let Some(rack) = Rack::new("router_advertisements_are_taken_on") else { return };
    rack.host.set_sysctl("ipv6/conf/uplink/accept_ra", "1").unwrap();
    rack.host.add_link(&NewLink::new("br7", NewKind::Bridge)).unwrap();
    rack.host.set_sysctl("ipv6/conf/br7/accept_ra", "0").unwrap();
    assert_eq!(rack.host.sysctl("ipv6/conf/all/forwarding").unwrap(), "0");
    let edges = rack.edges(EdgeSettings::default());
    rack.wait(edges.ensure(&vm(0, open()), None));
    let accepts = |link: &str| rack.host.sysctl(&format!("ipv6/conf/{link}/accept_ra")).unwrap();
    assert_eq!((accepts("uplink"), accepts("br7"), accepts("tapv0")), ("2".into(), "0".into(), "0".into()));
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        assert_eq!(rack.host.sysctl(key).unwrap(), "1");
    }
}
