//! What the host's owner decides about the networks of VMs.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{Ipv4Net, Ipv6Net};

use super::error::EdgeError;
use super::inside;

/// The host's owner's word, resolved (`UNKEY_METALD_NETWORK_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeSettings {
    /// False: guests have a tap that leads nowhere.
    pub enabled: bool,
    /// Whether VMs have IPv4.
    pub ipv4: bool,
    /// Whether VMs have IPv6.
    pub ipv6: bool,
    /// Where the addresses of VMs come from. The first is the host's own. A public subnet is routed as it is, any other
    /// is masqueraded. Without meaning when there is a bridge.
    pub subnet_ipv4: Ipv4Net,
    /// The same for IPv6.
    pub subnet_ipv6: Ipv6Net,
    /// Name servers of guests; reachable also where they have private addresses, for VMs that may use the internet.
    pub dns_ipv4: Vec<Ipv4Addr>,
    /// The same for IPv6.
    pub dns_ipv6: Vec<Ipv6Addr>,
    /// A bridge that is there: VMs are isolated ports of it, and have addresses of its subnet.
    pub bridge: Option<String>,
    /// The one of the bridge's addresses whose subnet is the VMs'; the first one with room when nothing is said.
    pub bridge_ipv4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub bridge_ipv6: Option<Ipv6Net>,
    /// How fast a guest may send and receive where its spec says nothing, in bytes a second; nothing for no limit.
    pub rate_limit: Option<u64>,
    /// How many namespaces are made before they are needed.
    pub pool: usize,
    /// Ports of the host that may lead to VMs.
    pub ports: RangeInclusive<u16>,
    /// Name of our tables in the host's packet filter: one of family `inet`, and with a bridge one of that family.
    pub table: String,
    /// User and group of the VM at slot 0; the others follow.
    pub first_user: u32,
}

impl Default for EdgeSettings {
    /// As the contract's defaults are (spec 1.6).
    fn default() -> Self {
        let net4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16);
        let net6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64);
        Self {
            enabled: true,
            ipv4: true,
            ipv6: true,
            subnet_ipv4: net4,
            subnet_ipv6: net6,
            dns_ipv4: vec![Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)],
            dns_ipv6: vec![
                Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111),
                Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001),
            ],
            bridge: None,
            bridge_ipv4: None,
            bridge_ipv6: None,
            rate_limit: Some(1_000_000_000 / 8),
            pool: 8,
            ports: 32768..=60999,
            table: "cairn_vm".to_owned(),
            first_user: 200_000,
        }
    }
}

impl EdgeSettings {
    /// What cannot be granted.
    ///
    /// # Errors
    /// [`EdgeError::Settings`] with a sentence.
    pub(super) fn check(&self) -> Result<(), EdgeError> {
        let wrong = |why: String| Err(EdgeError::Settings(why));
        if self.bridge.is_none() && self.subnet_ipv4.prefix_len() > 30 {
            return wrong(format!("no VM has room in {}", self.subnet_ipv4));
        }
        if self.bridge.is_none() && self.subnet_ipv6.prefix_len() > 126 {
            return wrong(format!("no VM has room in {}", self.subnet_ipv6));
        }
        let (inner4, inner6) = (inside::ipv4_net(), inside::ipv6_net());
        if self.subnet_ipv4.contains(&inner4) || inner4.contains(&self.subnet_ipv4) {
            return wrong(format!("{} and {inner4}, where guests see themselves, overlap", self.subnet_ipv4));
        }
        if self.subnet_ipv6.contains(&inner6) || inner6.contains(&self.subnet_ipv6) {
            return wrong(format!("{} and {inner6}, where guests see themselves, overlap", self.subnet_ipv6));
        }
        let table = &self.table;
        let letters = table.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if table.is_empty() || !letters || !table.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return wrong(format!("{table:?} is no name for a table"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_cannot_work_are_refused() {
        let with = |change: fn(&mut EdgeSettings)| {
            let mut settings = EdgeSettings::default();
            change(&mut settings);
            settings.check()
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|settings| settings.subnet_ipv4 = "10.0.0.0/31".parse().unwrap()).is_err());
        assert!(with(|settings| settings.subnet_ipv4 = "100.64.0.0/10".parse().unwrap()).is_err());
        assert!(with(|settings| settings.subnet_ipv6 = "fd00::/127".parse().unwrap()).is_err());
        assert!(with(|settings| settings.subnet_ipv6 = "fdca:1f00::/32".parse().unwrap()).is_err());
        assert!(with(|settings| settings.table = "a b".to_owned()).is_err());
    }
}
