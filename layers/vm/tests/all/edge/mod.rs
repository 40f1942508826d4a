//! Networks of VMs: with networks in memory, and with real ones. The host's side is a namespace of the test, so that the
//! machine's own network is not touched; guests are namespaces too, bridged to the tap of theirs.

mod fake;
mod fuse;
mod kills;
mod life;
mod packets;
mod rack;
mod times;

use vm::model::{CustomerId, Mapping, NetworkInterface, Protocol, Slot, State, Vm, VmId, VmSpec};

/// A VM that was just created.
fn vm(slot: u32, interface: NetworkInterface) -> Vm {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mappings = interface
        .ports
        .iter()
        .map(|port| Mapping { host_port: port.host_port, guest_port: port.guest_port, protocol: port.protocol })
        .collect();
    Vm {
        id: id(slot),
        customer: "acme".parse::<CustomerId>().unwrap(),
        spec: VmSpec { network: vec![interface], ..VmSpec::default() },
        state: State::Created,
        reason: String::new(),
        failure: None,
        backend: None,
        slot: Slot(slot),
        mappings,
        boot_id: None,
        unattended: false,
        restarts: 0,
        started_at: None,
        generation: 1,
        created_at: now,
        updated_at: now,
        operation: None,
    }
}

fn id(slot: u32) -> VmId {
    format!("ud-{slot:016x}").parse().unwrap()
}

/// May use the internet.
fn open() -> NetworkInterface {
    NetworkInterface { egress_internet: true, ..NetworkInterface::default() }
}

fn port(host_port: u16, guest_port: u16, protocol: Protocol) -> vm::model::Port {
    vm::model::Port { host_port, guest_port, protocol }
}

fn allow(to: &str) -> vm::model::Egress {
    vm::model::Egress { to: to.parse().unwrap(), protocol: None, port: None }
}
