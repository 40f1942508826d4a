//! Settings of the networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{Ipv4Net, Ipv6Net};
use settings::{Resolved, SettingsError};

/// What the networks of VMs look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// VMs have a network.
    pub enabled: bool,
    /// Addresses of VMs; `None` where there is no IPv4.
    pub ipv4: Option<Ipv4Net>,
    /// Addresses of VMs; `None` where there is no IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// A bridge of this host that VMs are put on; `None` for routed.
    pub bridge: Option<Bridge>,
    /// Name servers for guests, of the versions of IP that there are.
    pub dns: Vec<IpAddr>,
    /// Most bits a second that a VM sends, and receives, unless it says so itself.
    pub bits_per_second: Option<u64>,
    /// Ports of this host for VMs that do not say which.
    pub ports: RangeInclusive<u16>,
    /// Namespaces made ahead.
    pub pool: u32,
}

/// A bridge that is taken as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Which of its addresses has the subnet of the VMs; `None` for its first one.
    pub ipv4: Option<Ipv4Net>,
    /// Which of its addresses has the subnet of the VMs; `None` for its first one.
    pub ipv6: Option<Ipv6Net>,
}

impl NetworkSettings {
    pub(super) fn resolve(resolved: &Resolved) -> Result<Self, SettingsError> {
        let ipv4 = resolved.boolean("vm_network_ipv4_enabled")?;
        let ipv6 = resolved.boolean("vm_network_ipv6_enabled")?;
        let enabled = resolved.boolean("vm_network_enabled")?;
        if enabled && !ipv4 && !ipv6 {
            let reason = "IPv4 and IPv6 are both off; to have no network, set UNKEY_METALD_NETWORK_ENABLED=false";
            return Err(resolved.wrong("vm_network_ipv6_enabled", reason));
        }
        let mut dns = Vec::new();
        if ipv4 {
            dns.extend(list::<Ipv4Addr>(resolved, "vm_network_dns_ipv4")?.into_iter().map(IpAddr::V4));
        }
        if ipv6 {
            dns.extend(list::<Ipv6Addr>(resolved, "vm_network_dns_ipv6")?.into_iter().map(IpAddr::V6));
        }
        Ok(Self {
            enabled,
            ipv4: if ipv4 { Some(subnet_ipv4(resolved)?) } else { None },
            ipv6: if ipv6 { Some(subnet_ipv6(resolved)?) } else { None },
            bridge: bridge(resolved)?,
            dns,
            bits_per_second: bits_per_second(resolved)?,
            ports: ports(resolved)?,
            pool: resolved.parse("vm_network_pool")?,
        })
    }
}

fn subnet_ipv4(resolved: &Resolved) -> Result<Ipv4Net, SettingsError> {
    let subnet: Ipv4Net = resolved.parse("vm_network_subnet_ipv4")?;
    if subnet.prefix_len() > 29 {
        return Err(resolved.wrong("vm_network_subnet_ipv4", "a network of 8 addresses or more was expected"));
    }
    Ok(subnet.trunc())
}

fn subnet_ipv6(resolved: &Resolved) -> Result<Ipv6Net, SettingsError> {
    let subnet: Ipv6Net = resolved.parse("vm_network_subnet_ipv6")?;
    if subnet.prefix_len() > 112 {
        return Err(resolved.wrong("vm_network_subnet_ipv6", "a network of 65536 addresses or more was expected"));
    }
    Ok(subnet.trunc())
}

fn bridge(resolved: &Resolved) -> Result<Option<Bridge>, SettingsError> {
    let (ipv4, ipv6) =
        (resolved.parse_optional("vm_network_bridge_ipv4")?, resolved.parse_optional("vm_network_bridge_ipv6")?);
    let Some(name) = resolved.get("vm_network_bridge") else { return Ok(None) };
    // As the kernel judges names of interfaces (dev_valid_name).
    let wrong = |letter: char| letter.is_whitespace() || matches!(letter, '/' | ':') || letter.is_control();
    if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") || name.contains(wrong) {
        let reason = "the name of an interface was expected: 1 to 15 letters, no space, slash or colon";
        return Err(resolved.wrong("vm_network_bridge", reason));
    }
    Ok(Some(Bridge { name: name.to_owned(), ipv4, ipv6 }))
}

fn bits_per_second(resolved: &Resolved) -> Result<Option<u64>, SettingsError> {
    let megabits: u64 = resolved.parse("vm_network_rate_limit_mbps")?;
    if !(1..=1_000_000).contains(&megabits) {
        return Err(resolved.wrong("vm_network_rate_limit_mbps", "1 to 1000000 was expected"));
    }
    Ok(resolved.boolean("vm_network_rate_limit")?.then_some(megabits * 1_000_000))
}

fn ports(resolved: &Resolved) -> Result<RangeInclusive<u16>, SettingsError> {
    let wrong = || resolved.wrong("vm_network_port_range", "FIRST-LAST was expected, both from 1024 to 65535");
    let text = resolved.require("vm_network_port_range")?;
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first < 1024 || last < first { Err(wrong()) } else { Ok(first..=last) }
}

/// Addresses between commas.
fn list<T: std::str::FromStr<Err: std::fmt::Display>>(
    resolved: &Resolved,
    name: &str,
) -> Result<Vec<T>, SettingsError> {
    let text = resolved.get(name).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|error: T::Err| resolved.wrong(name, format!("{part:?}: {error}")))).collect()
}
