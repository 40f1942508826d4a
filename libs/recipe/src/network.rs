//! `network.json`: how the maintenance OS gets its network address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Violation;

/// One connection of the maintenance OS. Without one, DHCP is tried on every interface with a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// MAC address of the interface; with `bond`, the members' addresses are there instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Ask a DHCP server. Exactly one of `dhcp` and `address` is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dhcp: bool,
    /// Static address with prefix length, for example `192.0.2.10/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers, asked in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// VLAN id, 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Several interfaces as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// Largest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// Interfaces that act as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    /// Mode as systemd-networkd names it, for example `802.3ad` or `active-backup`.
    pub mode: String,
    /// MAC addresses of the members, two or more.
    pub macs: Vec<String>,
}

/// Bond modes as systemd-networkd names them (systemd.netdev(5)).
pub const BOND_MODES: [&str; 7] =
    ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];

impl Network {
    /// What is wrong with it; nothing when it can be used. Codes: `required`, `conflict`, `pattern`, `unknown_value`,
    /// `too_small`, `too_large`.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut add = |path: &str, code, message: String| found.push(Violation::new(path, code, message));
        match (&self.mac, &self.bond) {
            (None, None) => add("/mac", "required", "\"mac\" or \"bond\" has to say which interface".to_owned()),
            (Some(_), Some(_)) => add("/mac", "conflict", "the members of the bond carry the addresses".to_owned()),
            (Some(mac), None) if !is_mac(mac) => add("/mac", "pattern", format!("{mac:?} is not a MAC address")),
            _ => {}
        }
        if let Some(bond) = &self.bond {
            if !BOND_MODES.contains(&bond.mode.as_str()) {
                add("/bond/mode", "unknown_value", format!("{:?} is none of {}", bond.mode, BOND_MODES.join(", ")));
            }
            if bond.macs.len() < 2 {
                add("/bond/macs", "too_small", "a bond has two members or more".to_owned());
            }
            for (index, mac) in bond.macs.iter().enumerate().filter(|(_, mac)| !is_mac(mac)) {
                add(&format!("/bond/macs/{index}"), "pattern", format!("{mac:?} is not a MAC address"));
            }
        }
        match (&self.address, self.dhcp) {
            (None, false) => add("/address", "required", "\"address\", or \"dhcp\": true, is missing".to_owned()),
            (Some(_), true) => add("/address", "conflict", "an address and DHCP exclude each other".to_owned()),
            (Some(address), false) if prefix(address).is_none() => {
                add("/address", "pattern", format!("{address:?} is not an address with its prefix length"));
            }
            _ => {}
        }
        if self.dhcp && self.gateway.is_some() {
            add("/gateway", "conflict", "with DHCP, the gateway comes from the DHCP server".to_owned());
        }
        if self.vlan.is_some_and(|vlan| !(1..=4094).contains(&vlan)) {
            add("/vlan", "too_large", "a VLAN id is 1 to 4094".to_owned());
        }
        if self.mtu.is_some_and(|mtu| !(576..=65535).contains(&mtu)) {
            add("/mtu", "too_large", "an MTU is 576 to 65535 bytes".to_owned());
        }
        found
    }

    /// MAC addresses of the interfaces that carry the connection.
    pub fn macs(&self) -> Vec<&str> {
        match &self.bond {
            Some(bond) => bond.macs.iter().map(String::as_str).collect(),
            None => self.mac.as_deref().into_iter().collect(),
        }
    }
}

/// An address with its prefix length, for example `192.0.2.10/24`.
pub fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Six bytes in hexadecimal with colons between them.
fn is_mac(text: &str) -> bool {
    let bytes: Vec<&str> = text.split(':').collect();
    bytes.len() == 6 && bytes.iter().all(|byte| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(json: &str) -> Vec<String> {
        let network: Network = serde_json::from_str(json).unwrap();
        network.violations().into_iter().map(|one| format!("{} {}", one.path, one.code)).collect()
    }

    #[test]
    fn usual_connections_are_accepted() {
        for json in [
            r#"{"mac": "52:54:00:aa:BB:01", "dhcp": true, "vlan": 12}"#,
            r#"{"mac": "52:54:00:aa:bb:01", "address": "192.0.2.10/24", "gateway": "192.0.2.1", "dns": ["192.0.2.53"]}"#,
            r#"{"bond": {"mode": "802.3ad", "macs": ["52:54:00:aa:bb:01", "52:54:00:aa:bb:02"]}, "address": "2001:db8::2/64"}"#,
        ] {
            assert_eq!(codes(json), Vec::<String>::new(), "{json}");
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(codes("{}"), ["/mac required", "/address required"]);
        let both = r#"{"mac": "52:54:00:aa:bb", "dhcp": true, "address": "192.0.2.1/24", "vlan": 4095, "mtu": 9}"#;
        assert_eq!(codes(both), ["/mac pattern", "/address conflict", "/vlan too_large", "/mtu too_large"]);
        let lines = r#"{"bond": {"mode": "x\nDNS=1", "macs": ["a"]}, "address": "192.0.2.1/33"}"#;
        let expected = ["/bond/mode unknown_value", "/bond/macs too_small", "/bond/macs/0 pattern", "/address pattern"];
        assert_eq!(codes(lines), expected);
    }
}
