//! With networks in memory: what a kernel cannot be made to do, and what needs none.

use std::sync::Arc;

use host::network::{FakeNetworks, Networks, Place};
use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::{NetworkInterface, Slot};
use vm::ports::Edges;

use super::{id, open, vm};

fn edges(networks: &FakeNetworks, settings: EdgeSettings) -> HostEdges {
    HostEdges::new(Arc::new(networks.clone()), &Place::Host, settings).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn two_thousand_have_addresses_and_go_again() {
    let networks = FakeNetworks::new();
    let edges = edges(&networks, EdgeSettings::default());
    assert!(edges.capacity() >= 2_000);
    block_on(async {
        edges.open().await.unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for slot in (0..2_000).step_by(40) {
            let wire = edges.ensure(&vm(slot, open()), None).await.unwrap();
            assert!(seen.insert(wire.ipv4) && seen.len() as u32 == slot / 40 + 1);
            assert_eq!((wire.mac.as_str(), wire.tap.as_str()), ("02:ca:1f:00:00:02", "tap0"));
        }
        for slot in (0..2_000).step_by(40) {
            edges.remove(&id(slot), Slot(slot)).await.unwrap();
        }
        assert_eq!(edges.strays(&[]).await.unwrap(), []);
    });
    assert_eq!(networks.open(&Place::Host).unwrap().links().unwrap().len(), 1);
    assert!(networks.namespaces().unwrap().is_empty());
}

#[test]
fn what_cannot_be_granted_has_its_code() {
    let networks = FakeNetworks::new();
    let small = EdgeSettings { subnet_ipv4: "10.0.0.0/29".parse().unwrap(), ..EdgeSettings::default() };
    let edges = edges(&networks, small);
    let code = |vm: vm::model::Vm| block_on(edges.ensure(&vm, None)).unwrap_err().code;
    assert_eq!(edges.capacity(), 5);
    assert_eq!(code(vm(5, open())), "vm_addresses");
    let ports = vec![super::port(80, 80, vm::model::Protocol::Tcp)];
    assert_eq!(code(vm(0, NetworkInterface { ports, ..open() })), "vm_port_taken");
    let one_family = EdgeSettings { ipv6: false, ..EdgeSettings::default() };
    let four = HostEdges::new(Arc::new(networks.clone()), &Place::Host, one_family).unwrap();
    let six_only = NetworkInterface { mode: "NETWORK_MODE_IPV6_ONLY".into(), ..open() };
    let error = block_on(four.ensure(&vm(0, six_only), None)).unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_str()),
        ("vm_network", "it wants IPv6 alone, and VMs of this host have none")
    );
    let both = block_on(four.ensure(&vm(0, open()), None)).unwrap();
    assert!(both.ipv6.is_none() && both.guest.ipv6.is_none() && both.dns.iter().all(std::net::IpAddr::is_ipv4));
    assert!(networks.namespaces().unwrap().len() == 1);
}

#[test]
fn a_refusal_is_told_in_full_and_done_again() {
    let networks = FakeNetworks::new();
    let edges = edges(&networks, EdgeSettings::default());
    for refused in ["make tap tap0", "make link tapv0", "add route to 10.100.0.2/32", "set own4", "limit link edge"] {
        networks.refuse(refused);
        let error = block_on(edges.ensure(&vm(0, open()), None)).unwrap_err();
        assert_eq!(error.code, "vm_network");
        assert!(error.reason.contains("slot 0") && error.reason.contains("permission denied"), "{error}");
        networks.refuse_nothing();
        block_on(edges.ensure(&vm(0, open()), None)).unwrap();
        block_on(edges.remove(&id(0), Slot(0))).unwrap();
        assert_eq!(block_on(edges.strays(&[])).unwrap(), []);
    }
}

#[test]
fn without_networks_a_guest_has_a_tap_alone() {
    let networks = FakeNetworks::new();
    let edges = edges(&networks, EdgeSettings { enabled: false, pool: 1, ..EdgeSettings::default() });
    block_on(async {
        edges.open().await.unwrap();
        assert_eq!(edges.fill_pool().await.unwrap(), 1);
        let wire = edges.ensure(&vm(0, open()), None).await.unwrap();
        assert!(wire.ipv4.is_none() && wire.guest.ipv4.is_none() && wire.dns.is_empty());
        let inner = networks.open(&Place::named(&wire.namespace)).unwrap();
        assert_eq!(inner.links().unwrap().iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo", "tap0"]);
        let host = networks.open(&Place::Host).unwrap();
        assert!(host.links().unwrap().len() == 1 && host.sysctl("ipv4/ip_forward").unwrap() == "0");
        assert_eq!(edges.show(Some(&vm(0, open()))).await.unwrap()["link_there"], false);
        edges.remove(&id(0), Slot(0)).await.unwrap();
        assert_eq!(edges.strays(&[]).await.unwrap(), []);
    });
}
