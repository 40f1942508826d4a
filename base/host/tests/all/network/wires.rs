//! Packets, taps and processes in real namespaces.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use host::network::{Limit, LinkChange, LinuxNetworks, Network, Networks, NewKind, NewLink, Place, Route};
use host::{Command, Linux, Processes};

use super::{Rack, connect, inside, listen};

#[test]
fn namespaces_that_are_joined_reach_each_other() {
    let test = "namespaces_that_are_joined_reach_each_other";
    let Some(rack) = Rack::new(test, &["ping"]) else { return };
    let (one, two) = rack.joined();
    let ping = |to: &str| inside(&*one, || Linux.run(&Command::new("ping").args(["-c", "1", "-W", "5", to])));
    ping("10.0.0.2").unwrap();
    ping("fd00::2").unwrap();
    let listener = listen(&*two, 7000);
    for to in ["10.0.0.2:7000", "[fd00::2]:7000"] {
        let mut near = connect(&*one, to).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
    }
    assert!(TcpListener::bind("10.0.0.2:0").is_err(), "the thread that asked is where it was");
}

#[test]
fn a_routed_address_is_reached_through_a_router() {
    let Some(rack) = Rack::new("a_routed_address_is_reached_through_a_router", &[]) else { return };
    let (one, two) = rack.joined();
    let three = rack.network("three");
    two.add_link(&NewLink::veth("to-three", "eth0", Some(Place::named("three"))).up()).unwrap();
    three.change_link("eth0", &LinkChange::Up).unwrap();
    let (own, everywhere) = ("10.77.0.3/32".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
    let router = "169.254.0.1".parse().unwrap();
    two.set_sysctl("ipv4/ip_forward", "1").unwrap();
    two.add_addresses("to-three", &["169.254.0.1/32".parse().unwrap()]).unwrap();
    two.add_routes(&[Route::to_link(own, "to-three")]).unwrap();
    three.add_addresses("eth0", &[own]).unwrap();
    three.add_routes(&[Route::by_gateway(everywhere, router, "eth0")]).unwrap();
    one.add_routes(&[Route::by_gateway(own, "10.0.0.2".parse().unwrap(), "to-two")]).unwrap();
    let listener = listen(&*three, 7000);
    connect(&*one, "10.77.0.3:7000").unwrap();
    listener.accept().unwrap();
}

#[test]
fn a_tap_opens_for_its_owner_alone() {
    let Some(rack) = Rack::new("a_tap_opens_for_its_owner_alone", &["ip", "setpriv", "unshare"]) else { return };
    let network = rack.network("one");
    network.add_link(&NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 })).unwrap();
    // With a device that anybody may open, so that only the tap decides. Whoever may open the tap may end it.
    let script = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec setpriv --reuid $0 \
                  --regid $1 --clear-groups ip tuntap del dev tap0 mode tap";
    let open = |user: &str, group: &str| {
        let command = Command::new("unshare").args(["--mount", "sh", "-c", script, user, group]);
        inside(&*network, || Linux.run(&command))
    };
    let refused = open("978", "976").unwrap_err();
    assert!(refused.to_string().contains("TUNSETIFF"), "{refused}");
    assert!(open("977", "979").is_err(), "the group has to fit, too");
    network.link("tap0").unwrap();
    open("977", "976").unwrap();
    assert!(network.link("tap0").unwrap_err().is_not_there());
}

#[test]
fn a_namespace_is_found_by_a_process_in_it() {
    let Some(rack) = Rack::new("a_namespace_is_found_by_a_process_in_it", &["sleep"]) else { return };
    let network = rack.network("one");
    network.add_link(&NewLink::new("br7", NewKind::Bridge)).unwrap();
    let mut child = inside(&*network, || std::process::Command::new("sleep").arg("600").spawn().unwrap());
    let found = rack.networks.open(&Place::Process(child.id())).unwrap();
    assert_eq!(found.link("br7").unwrap(), network.link("br7").unwrap());
    // Without its name it lives on as long as something is in it.
    rack.networks.remove_namespace("one").unwrap();
    found.link("br7").unwrap();
    rack.networks.name_namespace(&Place::Process(child.id()), "again").unwrap();
    rack.networks.open(&Place::named("again")).unwrap().link("br7").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = rack.networks.open(&Place::Process(child.id())).unwrap_err();
    assert!(gone.is_not_there(), "{gone}: {}", gone.cause);
}

#[test]
fn ip_and_tc_see_the_same() {
    let Some(rack) = Rack::new("ip_and_tc_see_the_same", &["ip", "tc"]) else { return };
    let network = rack.network("one");
    network.add_link(&NewLink::new("br0", NewKind::Bridge)).unwrap();
    network.add_link(&NewLink::veth("port", "peer", None).up()).unwrap();
    network.change_link("port", &LinkChange::Master("br0".into())).unwrap();
    network.change_link("port", &LinkChange::Isolated(true)).unwrap();
    network.add_link(&NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 })).unwrap();
    network.add_addresses("port", &["fd00::1/128".parse().unwrap()]).unwrap();
    network.set_limit("port", &Limit { rate: 125_000, burst: 32_768, latency: Duration::from_millis(50) }).unwrap();
    let says =
        |words: &str| inside(&*network, || Linux.run(&Command::new("ip").args(words.split(' ')))).unwrap().text();
    let port = says("-details link show port");
    assert!(port.contains("master br0") && port.contains("isolated on"), "{port}");
    let tap = says("-details link show tap0");
    assert!(tap.contains("tun type tap pi off vnet_hdr on persist on user 977 group 976"), "{tap}");
    assert!(says("-6 address show dev port").contains("fd00::1/128 scope global nodad"));
    let queue = inside(&*network, || Linux.run(&Command::new("tc").args(["qdisc", "show", "dev", "port"])));
    let queue = queue.unwrap().text();
    assert!(queue.contains("tbf 1: root") && queue.contains("rate 1Mbit burst 32Kb lat 50ms"), "{queue}");
}

#[test]
fn ip_netns_sees_what_is_made_where_it_looks() {
    let test = "ip_netns_sees_what_is_made_where_it_looks";
    let Some(rack) = Rack::new(test, &["ip", "unshare"]) else { return };
    drop(rack);
    // In a mount namespace of its own, so that the machine's directory of names stays as it is.
    let script = "mount -t tmpfs none /run && exec \"$0\" --ignored --exact network::wires::names_in_the_usual_place";
    let itself = std::env::current_exe().unwrap().display().to_string();
    Linux.run(&Command::new("unshare").args(["--mount", "sh", "-c", script, &itself])).unwrap();
}

/// Run by the test above, where `/run` is empty.
#[test]
#[ignore = "part of ip_netns_sees_what_is_made_where_it_looks"]
fn names_in_the_usual_place() {
    let networks = LinuxNetworks::new();
    assert!(networks.namespaces().unwrap().is_empty());
    networks.create_namespace("ours").unwrap();
    Linux.run(&Command::new("ip").args(["netns", "add", "theirs"])).unwrap();
    let seen = Linux.run(&Command::new("ip").args(["netns", "list"])).unwrap().text();
    assert!(seen.contains("ours") && seen.contains("theirs"), "{seen}");
    let names: Vec<String> = networks.namespaces().unwrap().into_iter().map(|namespace| namespace.name).collect();
    assert_eq!(names, ["ours", "theirs"]);
    Linux.run(&Command::new("ip").args(["netns", "exec", "ours", "ip", "link", "show", "lo"])).unwrap();
    Linux.run(&Command::new("ip").args(["netns", "delete", "ours"])).unwrap();
    networks.remove_namespace("theirs").unwrap();
    assert!(networks.namespaces().unwrap().is_empty());
}

#[test]
fn the_network_around_stays_as_it_is() {
    let Some(rack) = Rack::new("the_network_around_stays_as_it_is", &["nft"]) else { return };
    let around = rack.network("around");
    let look = |network: &dyn Network| {
        let routes = network.routes().unwrap();
        (network.links().unwrap(), routes, network.tables().unwrap(), network.neighbours().unwrap())
    };
    let before = look(&*around);
    inside(&*around, || {
        let host = rack.networks.open(&Place::Host).unwrap();
        assert_eq!(host.links().unwrap(), before.0, "the host is where the thread is");
        let vm = rack.network("vm");
        host.add_link(&NewLink::veth("tapv1", "eth0", Some(Place::named("vm"))).up()).unwrap();
        vm.change_link("eth0", &LinkChange::Up).unwrap();
        vm.add_link(&NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 }).up()).unwrap();
        host.add_routes(&[Route::to_link("10.77.0.3/32".parse().unwrap(), "tapv1")]).unwrap();
        host.load_ruleset("table inet cairn {\n set own { type ipv4_addr; }\n}\n").unwrap();
        assert!(host.routes().unwrap().iter().any(|route| route.link == "tapv1"));
        host.load_ruleset("delete table inet cairn\n").unwrap();
        host.remove_link("tapv1").unwrap();
        rack.networks.remove_namespace("vm").unwrap();
    });
    assert_eq!(look(&*around), before);
}
