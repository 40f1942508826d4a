//! What goes wrong at the edge.

use host::network::{Cause, NetworkError};

use crate::errors;
use crate::model::{Mapping, Slot};
use crate::ports::StepError;

/// `ENOSPC`: what unshare(2) says when there are too many namespaces.
const NO_ROOM: i32 = 28;

/// Why a network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum EdgeError {
    #[error("the settings of the network cannot be: {0}")]
    Settings(String),
    #[error("the host's packet filter, links or forwarding cannot be set up")]
    Open(#[source] NetworkError),
    #[error("bridge {0} is not there; make it, or leave UNKEY_METALD_NETWORK_BRIDGE out")]
    NoBridge(String),
    #[error("bridge {bridge} has no {family} address with room for VMs")]
    BridgeAddress { bridge: String, family: &'static str },
    #[error(
        "bridge {bridge} has not the address {address} that the settings name; give it that, or leave \
             UNKEY_METALD_NETWORK_BRIDGE_IPV4 or _IPV6 out"
    )]
    BridgeOther { bridge: String, address: ipnet::IpNet },
    #[error("there is no IPv6 on this host; set UNKEY_METALD_NETWORK_IPV6_ENABLED=false")]
    NoIpv6,
    #[error("the network of the VM at slot {} is not as it should be", .slot.0)]
    Vm {
        slot: Slot,
        #[source]
        source: NetworkError,
    },
    #[error("the host has as many network namespaces as user.max_net_namespaces allows; raise it")]
    NamespaceLimit(#[source] NetworkError),
    #[error("slot {} has no address: {capacity} VMs have", .slot.0)]
    NoAddress { slot: Slot, capacity: u32 },
    #[error("it wants {0} alone, and VMs of this host have none")]
    NoFamily(&'static str),
    #[error("{} port {} of the host is taken", .0.protocol.as_str(), .0.host_port)]
    PortTaken(Mapping),
    #[error("port {port} of the host is not one of {first} to {last}, which may lead to VMs")]
    PortOutside { port: u16, first: u16, last: u16 },
    #[error("link {0} is still there, {1} seconds after it was removed")]
    Lingers(String, u64),
    #[error("{0:?} is nothing that can be removed here")]
    NoStray(String),
    #[error("strays cannot be found or removed")]
    Strays(#[source] NetworkError),
    #[error("the networks cannot be looked at")]
    Show(#[source] NetworkError),
    #[error("the work ended before it was done")]
    Ended,
}

impl EdgeError {
    /// For `map_err`: what went wrong with a VM's network.
    pub(super) fn vm(slot: Slot) -> impl FnOnce(NetworkError) -> Self {
        move |source| match source.cause.as_ref() {
            Cause::Kernel { source: number, .. } if number.raw_os_error() == Some(NO_ROOM) => {
                Self::NamespaceLimit(source)
            }
            _ => Self::Vm { slot, source },
        }
    }
}

impl From<EdgeError> for StepError {
    fn from(error: EdgeError) -> Self {
        let code = match error {
            EdgeError::NoAddress { .. } => errors::VM_ADDRESSES,
            EdgeError::PortTaken(_) | EdgeError::PortOutside { .. } => errors::VM_PORT_TAKEN,
            _ => errors::VM_NETWORK,
        };
        Self::of(code, &error)
    }
}
