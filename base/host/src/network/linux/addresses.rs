//! Addresses by rtnetlink; routes and neighbours are beside.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::address::{Addresses, Neighbour, Route};
use super::super::error::{Cause, NetworkError};
use super::netlink::Message;
use super::numbers::*;
use super::{LinuxNetwork, worst};

/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// The kernel's number of an address family.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// A prefix, unless the kernel gives a length that none can have.
pub(super) fn prefix(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok()
}

fn message(kind: u16, flags: u16, index: u32, address: IpNet) -> Message {
    let own = if address.addr().is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = [family(address.addr()), address.prefix_len(), own, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, NLM_F_REQUEST | flags, &header);
    message.address(IFA_LOCAL, address.addr()).address(IFA_ADDRESS, address.addr());
    message
}

impl LinuxNetwork {
    fn change_addresses(
        &self,
        (kind, flags): (u16, u16),
        (operation, joint): (&str, &str),
        link: &str,
        addresses: &[IpNet],
    ) -> Result<(), NetworkError> {
        let object = format!("link {link}");
        let index = self.index(link).map_err(self.at(&format!("{operation} addresses {joint}"), &object))?;
        let messages = addresses.iter().map(|address| message(kind, flags, index, *address)).collect();
        let expected = if kind == RTM_NEWADDR { is_already_there } else { is_not_there };
        match worst(self.route.change_each(messages), expected) {
            None => Ok(()),
            Some((at, cause)) => {
                let address = addresses.get(at).map(ToString::to_string).unwrap_or_default();
                Err(self.at(&format!("{operation} address {address} {joint}"), &object)(cause))
            }
        }
    }

    fn addresses_of(&self, link: &str) -> Result<Vec<IpNet>, Cause> {
        let index = self.index(link)?;
        let list = Message::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; ADDRESS_HEADER]);
        let mut found = Vec::new();
        for reply in self.route.list(&list)? {
            let Some(header) = reply.fixed::<ADDRESS_HEADER>() else { continue };
            if header[4..] != index.to_ne_bytes() {
                continue;
            }
            let attributes = reply.attributes(ADDRESS_HEADER);
            let address = attributes.address(IFA_LOCAL).or_else(|| attributes.address(IFA_ADDRESS));
            found.extend(address.and_then(|address| prefix(address, header[1])));
        }
        Ok(found)
    }
}

pub(super) fn is_already_there(cause: &Cause) -> bool {
    matches!(cause, Cause::AlreadyThere)
}

pub(super) fn is_not_there(cause: &Cause) -> bool {
    matches!(cause, Cause::NotThere)
}

impl Addresses for LinuxNetwork {
    fn add_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError> {
        self.change_addresses((RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL), ("add", "to"), link, addresses)
    }

    fn remove_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError> {
        self.change_addresses((RTM_DELADDR, 0), ("remove", "from"), link, addresses)
    }

    fn addresses(&self, link: &str) -> Result<Vec<IpNet>, NetworkError> {
        self.addresses_of(link).map_err(self.at("list the addresses of", &format!("link {link}")))
    }

    fn add_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        self.change_routes(RTM_NEWROUTE, "add", routes)
    }

    fn remove_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        self.change_routes(RTM_DELROUTE, "remove", routes)
    }

    fn routes(&self) -> Result<Vec<Route>, NetworkError> {
        self.all_routes().map_err(self.at("list", "the routes"))
    }

    fn add_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError> {
        self.change_neighbours(RTM_NEWNEIGH, "add", neighbours)
    }

    fn remove_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError> {
        self.change_neighbours(RTM_DELNEIGH, "remove", neighbours)
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>, NetworkError> {
        self.all_neighbours().map_err(self.at("list", "the neighbours"))
    }
}
