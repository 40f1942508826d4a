//! Addresses, routes and neighbours.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::NetworkError;
use super::link::Mac;

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; a prefix of length 0 for everywhere.
    pub destination: IpNet,
    /// Through which link.
    pub link: String,
    /// By which router; nothing when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that packets of this host carry.
    pub source: Option<IpAddr>,
    /// The router is on the link although no address of ours covers it.
    pub on_link: bool,
}

impl Route {
    /// A destination that is on the link itself.
    pub fn to_link(destination: IpNet, link: impl Into<String>) -> Self {
        Self { destination, link: link.into(), gateway: None, source: None, on_link: false }
    }

    /// A destination behind a router that is taken to be on the link.
    pub fn by_gateway(destination: IpNet, gateway: IpAddr, link: impl Into<String>) -> Self {
        Self { destination, link: link.into(), gateway: Some(gateway), source: None, on_link: true }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "route to {} through {}", self.destination, self.link)?;
        self.gateway.map_or(Ok(()), |gateway| write!(formatter, " by {gateway}"))
    }
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// On which link.
    pub link: String,
    /// Which address.
    pub address: IpAddr,
    /// What is known about it.
    pub entry: NeighbourEntry,
}

/// What is known about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourEntry {
    /// Its hardware address was set and never expires.
    Permanent(Mac),
    /// This host answers for it. Adding one again is not noticed.
    Proxy,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            NeighbourEntry::Permanent(mac) => write!(formatter, "neighbour {} at {mac} of {}", self.address, self.link),
            NeighbourEntry::Proxy => write!(formatter, "proxy neighbour {} of {}", self.address, self.link),
        }
    }
}

/// Addresses, routes and neighbours of a namespace. Of a list every entry is tried; when all failures are "already
/// there" (or "not there"), so is the error, otherwise it is the first other one.
pub trait Addresses {
    /// Adds addresses to a link. IPv6 addresses are usable at once: nobody is asked whether they are taken.
    fn add_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError>;

    /// Removes addresses from a link.
    fn remove_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError>;

    /// The addresses of a link, with the length of their prefix; link-local ones too.
    fn addresses(&self, link: &str) -> Result<Vec<IpNet>, NetworkError>;

    /// Adds routes.
    fn add_routes(&self, routes: &[Route]) -> Result<(), NetworkError>;

    /// Removes routes.
    fn remove_routes(&self, routes: &[Route]) -> Result<(), NetworkError>;

    /// The unicast routes of the main table, also those that the kernel made for addresses.
    fn routes(&self) -> Result<Vec<Route>, NetworkError>;

    /// Adds neighbours.
    fn add_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError>;

    /// Removes neighbours; the hardware address is not looked at.
    fn remove_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError>;

    /// The permanent and the proxy entries.
    fn neighbours(&self) -> Result<Vec<Neighbour>, NetworkError>;
}
