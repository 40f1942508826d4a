//! Where everything of a VM is: it follows from its slot. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use host::network::Mac;
use ipnet::{Ipv4Net, Ipv6Net};

use super::inside::{self, GATEWAY_IPV4, GATEWAY_IPV6, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, TAP};
use super::settings::EdgeSettings;
use crate::model::{Slot, Vm};
use crate::ports::{GuestAddresses, Wire};

/// Beginning of the names of links of VMs.
pub(super) const LINK_PREFIX: &str = "tapv";
/// Beginning of the names of their namespaces.
pub(super) const NAMESPACE_PREFIX: &str = "ns_vm_";
/// The host's end of every routed link.
pub(super) const HOST_MAC: Mac = Mac([0x02, 0xca, 0x1f, 0, 1, 1]);
/// The namespace's end of every routed link.
pub(super) const EDGE_MAC: Mac = Mac([0x02, 0xca, 0x1f, 0, 1, 2]);

/// Subnets and the host's addresses in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    enabled: bool,
    ipv4: bool,
    ipv6: bool,
    subnet4: Ipv4Net,
    subnet6: Ipv6Net,
    gateway4: Ipv4Addr,
    gateway6: Ipv6Addr,
    dns: (Vec<Ipv4Addr>, Vec<Ipv6Addr>),
    /// The bridge whose ports the VMs' links are.
    pub(super) bridge: Option<String>,
}

impl Layout {
    /// With the subnets of the settings; the host has the first address of each.
    pub(super) fn routed(settings: &EdgeSettings) -> Self {
        let (subnet4, subnet6) = (settings.subnet_ipv4.trunc(), settings.subnet_ipv6.trunc());
        let gateway4 = Ipv4Addr::from(u32::from(subnet4.network()).wrapping_add(1));
        let gateway6 = Ipv6Addr::from(u128::from(subnet6.network()).wrapping_add(1));
        let dns = (settings.dns_ipv4.clone(), settings.dns_ipv6.clone());
        let EdgeSettings { enabled, ipv4, ipv6, .. } = *settings;
        Self { enabled, ipv4, ipv6, subnet4, subnet6, gateway4, gateway6, dns, bridge: None }
    }

    /// With the addresses of a bridge in place of the settings' subnets, where there is a bridge.
    pub(super) fn bridged(settings: &EdgeSettings, bridge: &str, v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Self {
        let mut layout = Self { bridge: Some(bridge.to_owned()), ..Self::routed(settings) };
        if let Some(own) = v4 {
            (layout.subnet4, layout.gateway4) = (own.trunc(), own.addr());
        }
        if let Some(own) = v6 {
            (layout.subnet6, layout.gateway6) = (own.trunc(), own.addr());
        }
        layout
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether VMs can have this family at all.
    pub(super) fn has_ipv4(&self) -> bool {
        self.enabled && self.ipv4
    }

    pub(super) fn has_ipv6(&self) -> bool {
        self.enabled && self.ipv6
    }

    pub(super) fn subnet4(&self) -> Ipv4Net {
        self.subnet4
    }

    pub(super) fn subnet6(&self) -> Ipv6Net {
        self.subnet6
    }

    /// The host's own address among those of VMs.
    pub(super) fn gateway4(&self) -> Ipv4Addr {
        self.gateway4
    }

    pub(super) fn gateway6(&self) -> Ipv6Addr {
        self.gateway6
    }

    /// How many VMs have an address: all of a subnet but the first, the last and the host's.
    pub(super) fn capacity(&self) -> u32 {
        let room = |prefix: u8, bits: u8| {
            let all = 1_u128.checked_shl(u32::from(bits - prefix)).unwrap_or(u128::MAX);
            u32::try_from(all.saturating_sub(3)).unwrap_or(u32::MAX)
        };
        let four = if self.has_ipv4() { room(self.subnet4.prefix_len(), 32) } else { u32::MAX };
        let six = if self.has_ipv6() { room(self.subnet6.prefix_len(), 128) } else { u32::MAX };
        // A port of a bridge has a hardware address of its own, with 24 bits for the slot.
        let ports = if self.bridge.is_some() { 1 << 24 } else { u32::MAX };
        four.min(six).min(ports)
    }

    pub(super) fn ipv4(&self, slot: Slot) -> Option<Ipv4Addr> {
        let number = self.number(slot, u128::from(u32::from(self.gateway4) - u32::from(self.subnet4.network())))?;
        let address = u32::from(self.subnet4.network()).checked_add(u32::try_from(number).ok()?)?;
        self.has_ipv4().then(|| address.into())
    }

    pub(super) fn ipv6(&self, slot: Slot) -> Option<Ipv6Addr> {
        let number = self.number(slot, u128::from(self.gateway6) - u128::from(self.subnet6.network()))?;
        let address = u128::from(self.subnet6.network()).checked_add(number)?;
        self.has_ipv6().then(|| address.into())
    }

    /// The number of a slot's address in a subnet; the host's own is passed over.
    fn number(&self, slot: Slot, gateway: u128) -> Option<u128> {
        let number = u128::from(slot.0) + 1;
        (slot.0 < self.capacity()).then_some(if number >= gateway { number + 1 } else { number })
    }

    /// The slot that an address belongs to.
    pub(super) fn slot_of(&self, address: IpAddr) -> Option<Slot> {
        let (number, gateway) = match address {
            IpAddr::V4(address) => {
                let base = u32::from(self.subnet4.network());
                let number = u32::from(address).checked_sub(base)?;
                (u128::from(number), u128::from(u32::from(self.gateway4) - base))
            }
            IpAddr::V6(address) => {
                let base = u128::from(self.subnet6.network());
                (u128::from(address).checked_sub(base)?, u128::from(self.gateway6) - base)
            }
        };
        let place = if number > gateway { number.checked_sub(2)? } else { number.checked_sub(1)? };
        let slot = u32::try_from(place).ok().filter(|slot| number != gateway && *slot < self.capacity())?;
        Some(Slot(slot))
    }

    /// The link through which the host's packet filter sees a VM.
    pub(super) fn seen_on(&self, slot: Slot) -> String {
        self.bridge.clone().unwrap_or_else(|| slot.link())
    }

    /// Hardware addresses of the host's and the namespace's end of a link.
    pub(super) fn macs(&self, slot: Slot) -> (Mac, Mac) {
        if self.bridge.is_none() {
            return (HOST_MAC, EDGE_MAC);
        }
        let [_, a, b, c] = slot.0.to_be_bytes();
        (Mac([0xfe, 0xca, 0x1f, a, b, c]), Mac([0x02, 0xca, 0x1e, a, b, c]))
    }

    /// The network of a VM, on both sides.
    pub(super) fn wire(&self, vm: &Vm, namespace_path: PathBuf) -> Wire {
        let interface = vm.spec.interface();
        let (four, six) = (self.has_ipv4() && interface.has_ipv4(), self.has_ipv6() && interface.has_ipv6());
        let named4 = interface.ipv4_config.map(|config| config.dns_servers).filter(|own| !own.is_empty());
        let named6 = interface.ipv6_config.map(|config| config.dns_servers).filter(|own| !own.is_empty());
        let dns4 = named4.unwrap_or_else(|| self.dns.0.clone()).into_iter().map(IpAddr::V4).filter(|_| four);
        let dns6 = named6.unwrap_or_else(|| self.dns.1.clone()).into_iter().map(IpAddr::V6).filter(|_| six);
        Wire {
            namespace: vm.id.namespace(),
            namespace_path,
            link: vm.slot.link(),
            tap: TAP.to_owned(),
            mac: GUEST_MAC.to_string(),
            guest: GuestAddresses {
                ipv4: four.then(|| inside::guest_net4(GUEST_IPV4)),
                gateway_ipv4: four.then_some(GATEWAY_IPV4),
                ipv6: six.then(|| inside::guest_net6(GUEST_IPV6)),
                gateway_ipv6: six.then_some(GATEWAY_IPV6),
            },
            ipv4: self.ipv4(vm.slot).filter(|_| four),
            ipv6: self.ipv6(vm.slot).filter(|_| six),
            dns: dns4.chain(dns6).collect(),
        }
    }
}

/// The slot of a link of a VM, by its name.
pub(super) fn slot_of_link(name: &str) -> Option<Slot> {
    let digits = name.strip_prefix(LINK_PREFIX)?;
    let slot = u32::from_str_radix(digits, 16).ok().map(Slot)?;
    (slot.link() == name).then_some(slot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(v4: &str, v6: &str) -> Layout {
        let (subnet_ipv4, subnet_ipv6) = (v4.parse().unwrap(), v6.parse().unwrap());
        Layout::routed(&EdgeSettings { subnet_ipv4, subnet_ipv6, ..EdgeSettings::default() })
    }

    #[test]
    fn the_contracts_subnets_have_room() {
        let wide = layout("10.100.0.0/16", "fd00::/64");
        assert!(wide.capacity() >= 2_000, "{}", wide.capacity());
        assert_eq!(wide.ipv4(Slot(0)), Some(Ipv4Addr::new(10, 100, 0, 2)));
        assert_eq!(wide.ipv6(Slot(0)), Some("fd00::2".parse().unwrap()));
        assert_eq!(wide.ipv4(Slot(300)), Some(Ipv4Addr::new(10, 100, 1, 46)));
        assert_eq!(wide.gateway4(), Ipv4Addr::new(10, 100, 0, 1));
        let small = layout("10.0.0.0/29", "fd00::/125");
        assert_eq!(small.capacity(), 5);
        assert_eq!(small.ipv4(Slot(4)), Some(Ipv4Addr::new(10, 0, 0, 6)));
        assert_eq!((small.ipv4(Slot(5)), small.ipv6(Slot(5))), (None, None));
    }

    #[test]
    fn an_address_of_a_bridge_in_the_middle_is_passed_over() {
        let own = "192.168.100.5/24".parse().unwrap();
        let layout = Layout::bridged(&EdgeSettings::default(), "br0", Some(own), None);
        let given: Vec<_> = (0..253).map(|slot| layout.ipv4(Slot(slot)).unwrap()).collect();
        assert!(!given.contains(&own.addr()) && given.last() == Some(&Ipv4Addr::new(192, 168, 100, 254)));
        assert_eq!(layout.ipv4(Slot(253)), None);
        assert_eq!(layout.slot_of(own.addr().into()), None);
        assert_ne!(layout.macs(Slot(1)), layout.macs(Slot(2)));
    }

    #[test]
    fn links_tell_their_slot() {
        assert_eq!(slot_of_link("tapv1f"), Some(Slot(31)));
        for other in ["tap0", "tapv", "tapv01", "tapvF", "tapvx"] {
            assert_eq!(slot_of_link(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn addresses_tell_their_slot(slot in 0u32..65_533) {
            let layout = layout("10.100.0.0/16", "fd00::/64");
            let slot = Slot(slot);
            prop_assert_eq!(layout.slot_of(layout.ipv4(slot).unwrap().into()), Some(slot));
            prop_assert_eq!(layout.slot_of(layout.ipv6(slot).unwrap().into()), Some(slot));
        }
    }
}
