//! The network: `lo`, `eth0`, and who knows names.

use std::io;
use std::path::Path;

use crate::arguments::{Address, Arguments};
use crate::netlink::Netlink;
use crate::{mounts, uevent};

/// The one interface that is set up. Without udev the first one has this name.
const INTERFACE: &str = "eth0";

/// File with the name servers.
const RESOLVER: &str = "/etc/resolv.conf";

/// The network could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("talk to the kernel about the network")]
    Netlink(#[source] io::Error),
    #[error("wait for the interface {interface}")]
    Interface {
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("switch {interface} on")]
    Up {
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("give {INTERFACE} the address {}/{}", .address.address, .address.prefix)]
    Address {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("set the gateway of {}/{}", .address.address, .address.prefix)]
    Route {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("write {RESOLVER}")]
    Resolver(#[source] io::Error),
}

/// Brings up what the arguments name; `lo` always.
pub(crate) fn up(arguments: &Arguments) -> Result<(), NetworkError> {
    let netlink = Netlink::open().map_err(NetworkError::Netlink)?;
    link_up(&netlink, "lo")?;
    if arguments.addresses.is_empty() {
        return Ok(());
    }
    let index = link_up(&netlink, INTERFACE)?;
    for address in &arguments.addresses {
        let failed = |source| NetworkError::Address { address: *address, source };
        netlink.add_address(index, address.address, address.prefix).map_err(failed)?;
        if let Some(gateway) = address.gateway {
            let failed = |source| NetworkError::Route { address: *address, source };
            netlink.add_default_route(index, gateway, address.has_near_gateway()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Tells programs who knows names.
pub(crate) fn resolver(arguments: &Arguments) -> Result<(), NetworkError> {
    if arguments.name_servers.is_empty() {
        return Ok(());
    }
    let _ = std::fs::create_dir_all(Path::new(RESOLVER).parent().unwrap_or(Path::new("/")));
    let lines: String = arguments.name_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    mounts::lay(&lines, RESOLVER).map_err(NetworkError::Resolver)
}

fn link_up(netlink: &Netlink, interface: &str) -> Result<u32, NetworkError> {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let index = uevent::wait_for(|| std::fs::read_to_string(&path).ok()?.trim().parse().ok());
    let index = index.map_err(|source| NetworkError::Interface { interface: interface.to_owned(), source })?;
    netlink.link_up(index).map_err(|source| NetworkError::Up { interface: interface.to_owned(), source })?;
    Ok(index)
}
