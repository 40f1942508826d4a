//! What the API shows: the keys of the contract, and more beside them. The command line reads the same types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Backend, Mapping, Options, State, Vm, VmId};
use crate::plan;
use crate::ports::Wire;
use crate::service::{Caller, without_paths};

/// A VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmView {
    /// Id.
    pub vm_id: VmId,
    /// Owner.
    pub customer_id: String,
    /// `VM_STATE_*`.
    pub state: String,
    /// What was asked for; it can be posted again. An operator sees in it whose it is, and a VM that is made from it is theirs.
    pub config: Value,
    /// Processors.
    pub vcpu_count: u8,
    /// Memory, in bytes.
    pub memory_size_bytes: i64,
    /// When it was created, in seconds since 1970.
    pub created_timestamp: i64,
    /// When it last changed, in seconds since 1970.
    pub modified_timestamp: i64,
    /// Labels of the user.
    pub metadata: BTreeMap<String, String>,
    /// How it is reached.
    pub network_info: NetworkView,
    /// Why it is in its state, for people.
    pub reason: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// Which hypervisor runs it, or ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// What is being done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationView>,
    /// How often it was booted again by its restart policy since a user last booted it.
    pub restarts: u32,
    /// When its processors last began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Counts changes.
    pub generation: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How a VM is reached (contract: `network_info`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Address, as others see it.
    pub ip_address: String,
    /// The same for IPv6.
    pub ipv6_address: String,
    /// Hardware address, as the guest sees it.
    pub mac_address: String,
    /// The host's end of its link.
    pub tap_device: String,
    /// Its namespace.
    pub network_namespace: String,
    /// The guest's router.
    pub gateway: String,
    /// The guest's name servers.
    pub dns_servers: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub port_mappings: Vec<PortView>,
}

/// A port of the host that leads to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Port of the host.
    pub host_port: u16,
    /// Port of the guest.
    pub guest_port: u16,
    /// Protocol.
    pub protocol: crate::model::Protocol,
}

/// Why a VM failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Stable code; `cairn explain CODE` tells more.
    pub code: String,
    /// A sentence.
    pub reason: String,
    /// Exit code of the hypervisor, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Last lines of the guest's console; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_tail: Option<String>,
}

/// What is being done with a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// `boot`, `stop`, …
    pub kind: String,
    /// Which step of it.
    pub step: String,
    /// Whether it is being taken back.
    pub is_going_back: bool,
    /// What was asked with it.
    pub options: Options,
    /// When it began.
    pub begun_at: Timestamp,
}

/// Answer to a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmList {
    /// VMs, by id.
    pub vms: Vec<VmView>,
    /// What `page_token` of the next page is; empty on the last one.
    pub next_page_token: String,
    /// How many there are on all pages.
    pub total_count: u64,
}

impl VmView {
    /// One VM, with everything that is known.
    pub fn of(vm: &Vm, wire: &Wire, caller: &Caller) -> Self {
        let mut config = serde_json::to_value(&vm.spec).unwrap_or_default();
        if let (None, Value::Object(config)) = (&caller.customer, &mut config) {
            config.insert("customer_id".to_owned(), vm.customer.as_str().into());
        }
        // Where things are on the host is the operator's affair.
        let told = |text: &str| if caller.customer.is_some() { without_paths(text) } else { text.to_owned() };
        Self {
            vm_id: vm.id.clone(),
            customer_id: vm.customer.to_string(),
            state: vm.state.wire(),
            config,
            vcpu_count: vm.spec.vcpus(),
            memory_size_bytes: vm.spec.memory.size_bytes,
            created_timestamp: vm.created_at.as_second(),
            modified_timestamp: vm.updated_at.as_second(),
            metadata: vm.spec.metadata.clone(),
            network_info: NetworkView::of(vm, wire),
            reason: told(&vm.reason),
            failure: vm.failure.as_ref().filter(|_| vm.state == State::Failed).map(|failure| FailureView {
                code: failure.code.clone(),
                reason: told(&failure.reason),
                exit_code: failure.exit_code,
                console_tail: Some(failure.console_tail.clone()),
            }),
            backend: vm.backend,
            operation: vm.operation.as_ref().map(|operation| OperationView {
                kind: operation.kind.as_str().to_owned(),
                step: plan::steps(operation.kind).get(operation.step).map_or("end", |step| step.as_str()).to_owned(),
                is_going_back: operation.phase == crate::model::Phase::Back,
                options: operation.options,
                begun_at: operation.begun_at,
            }),
            restarts: vm.restarts,
            started_at: vm.started_at,
            generation: vm.generation,
            created_at: vm.created_at,
            updated_at: vm.updated_at,
        }
    }

    /// One of a list. The guide reads saved lists with a shell's `read`, which eats backslashes, so texts of ours have
    /// nothing in them that JSON would write with one.
    pub fn in_list(self) -> Self {
        let failure =
            self.failure.map(|failure| FailureView { reason: plain(&failure.reason), console_tail: None, ..failure });
        Self { reason: plain(&self.reason), failure, ..self }
    }
}

impl NetworkView {
    fn of(vm: &Vm, wire: &Wire) -> Self {
        let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        let port = |mapping: &Mapping| PortView {
            host_port: mapping.host_port,
            guest_port: mapping.guest_port,
            protocol: mapping.protocol,
        };
        let gateway = wire.guest.gateway_ipv4.map(IpAddr::from).or(wire.guest.gateway_ipv6.map(IpAddr::from));
        Self {
            ip_address: text(wire.ipv4.map(IpAddr::from)),
            ipv6_address: text(wire.ipv6.map(IpAddr::from)),
            mac_address: wire.mac.clone(),
            tap_device: wire.link.clone(),
            network_namespace: wire.namespace.clone(),
            gateway: text(gateway),
            dns_servers: wire.dns.clone(),
            port_mappings: vm.mappings.iter().map(port).collect(),
        }
    }
}

/// A sentence without what JSON writes with a backslash.
fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '"' => '\'',
            '\\' => '/',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_sentences_have_nothing_to_escape() {
        let text = plain("\"a\\b\"\n\u{7f}é");
        assert_eq!(text, "'a/b'  é");
        assert!(!serde_json::to_string(&text).unwrap().contains('\\'));
    }
}
