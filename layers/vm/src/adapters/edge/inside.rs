//! The inside of a VM's namespace. It is the same in every one but for the VM's own addresses (decision 32), so that a
//! clone wakes up where it fell asleep, and a pool needs to know nothing of who comes.
//!
//! ```text
//!  guest 100.64.0.2 ── tap0 100.64.0.1 ─┤ 1:1 NAT ├─ edge 10.100.x.y ── tapvN on the host
//!        fdca:1f00::2       fdca:1f00::1               fd00::n
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use host::network::{
    Change, Data, Element, Limit, LinkChange, LinkKind, Mac, Neighbour, NeighbourEntry, Network, NetworkError, NewKind,
    NewLink, Repeatable, Route,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::layout::Layout;
use super::rulesets::Ruleset;
use crate::model::Slot;
use crate::ports::Wire;

/// The tap that the hypervisor opens.
pub(super) const TAP: &str = "tap0";
/// The namespace's end of the link to the host.
pub(super) const EDGE: &str = "edge";
/// The guest's interface.
pub(super) const GUEST_MAC: Mac = Mac([0x02, 0xca, 0x1f, 0, 0, 2]);
/// The guest's router.
const GATEWAY_MAC: Mac = Mac([0x02, 0xca, 0x1f, 0, 0, 1]);
/// How the guest sees itself.
pub(super) const GUEST_IPV4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
/// Its router.
pub(super) const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// How the guest sees itself.
pub(super) const GUEST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfdca, 0x1f00, 0, 0, 0, 0, 0, 2);
/// Its router.
pub(super) const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfdca, 0x1f00, 0, 0, 0, 0, 0, 1);
/// The host, as a routed link sees it: taken to be there, never asked for.
const HOST_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Forwarding, and no addresses that nobody gave.
const SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// An address of the guest's network with its prefix.
pub(super) fn guest_net4(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 30)
}

/// The same for IPv6.
pub(super) fn guest_net6(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, 64)
}

/// Where guests see themselves.
pub(super) fn ipv4_net() -> Ipv4Net {
    guest_net4(GUEST_IPV4).trunc()
}

/// The same for IPv6.
pub(super) fn ipv6_net() -> Ipv6Net {
    guest_net6(GUEST_IPV6).trunc()
}

/// What a namespace of a VM has besides what all have.
pub(super) struct Inside<'a> {
    pub(super) layout: &'a Layout,
    pub(super) wire: &'a Wire,
    pub(super) slot: Slot,
    /// User and group that may open the tap.
    pub(super) user: u32,
    /// How fast the guest may send.
    pub(super) send: Option<Limit>,
}

/// Whether everything is there that does not depend on the VM: the ruleset comes last.
pub(super) fn is_prepared(network: &dyn Network, ruleset: &Ruleset) -> Result<bool, NetworkError> {
    match network.table(&ruleset.table) {
        Ok(objects) => Ok(ruleset.is(&objects)),
        Err(error) if error.is_not_there() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes everything that does not depend on the VM.
pub(super) fn prepare(network: &dyn Network, ruleset: &Ruleset) -> Result<(), NetworkError> {
    if is_prepared(network, ruleset)? {
        return Ok(());
    }
    network.change_link("lo", &LinkChange::Up)?;
    for (key, value) in SYSCTLS {
        // Without IPv6 on the host there is none here, and no VM has it.
        network.set_sysctl(key, value).or_not_there()?;
    }
    network.load_ruleset(&ruleset.text)
}

impl Inside<'_> {
    /// The tap: there, its user's, and up.
    pub(super) fn tap(&self, network: &dyn Network) -> Result<(), NetworkError> {
        let kind = LinkKind::Tap { owner: Some(self.user), group: Some(self.user), vnet_header: true };
        match network.link(TAP) {
            Ok(link) if link.kind == kind => {
                if !link.up {
                    network.change_link(TAP, &LinkChange::Up)?;
                }
            }
            Ok(_) => {
                network.remove_link(TAP).or_not_there()?;
                self.add_tap(network)?;
            }
            Err(error) if error.is_not_there() => self.add_tap(network)?,
            Err(error) => return Err(error),
        }
        let (v4, v6) = (self.wire.guest.ipv4, self.wire.guest.ipv6);
        let mut addresses: Vec<IpNet> = Vec::new();
        let mut neighbours = Vec::new();
        let guest = |address| Neighbour { link: TAP.to_owned(), address, entry: NeighbourEntry::Permanent(GUEST_MAC) };
        if v4.is_some() {
            addresses.push(guest_net4(GATEWAY_IPV4).into());
            neighbours.push(guest(IpAddr::V4(GUEST_IPV4)));
        }
        if v6.is_some() {
            addresses.push(guest_net6(GATEWAY_IPV6).into());
            neighbours.push(guest(IpAddr::V6(GUEST_IPV6)));
        }
        network.add_addresses(TAP, &addresses).or_already_there()?;
        network.add_neighbours(&neighbours).or_already_there()?;
        Ok(())
    }

    fn add_tap(&self, network: &dyn Network) -> Result<(), NetworkError> {
        let kind = NewKind::Tap { owner: self.user, group: self.user };
        network.add_link(&NewLink::new(TAP, kind).mac(GATEWAY_MAC).up())
    }

    /// The way out, once the link to the host is there: addresses, routes, translation and limit. Returns the addresses
    /// that the VM had before the settings' subnet changed.
    pub(super) fn edge(
        &self,
        network: &dyn Network,
        ruleset: &Ruleset,
        fresh: bool,
    ) -> Result<Vec<IpNet>, NetworkError> {
        let own: Vec<IpAddr> =
            self.wire.ipv4.map(IpAddr::V4).into_iter().chain(self.wire.ipv6.map(IpAddr::V6)).collect();
        let addresses: Vec<IpNet> = own.iter().map(|own| IpNet::from(*own)).collect();
        network.change_link(EDGE, &LinkChange::Up)?;
        let there = if fresh { Vec::new() } else { network.addresses(EDGE)? };
        let former: Vec<IpNet> = there.into_iter().filter(|there| !addresses.contains(there)).collect();
        network.remove_addresses(EDGE, &former).or_not_there()?;
        network.add_addresses(EDGE, &addresses).or_already_there()?;
        let (routes, neighbours) = self.ways_out();
        network.add_neighbours(&neighbours).or_already_there()?;
        network.add_routes(&routes).or_already_there()?;
        self.translate(network, ruleset, &own)?;
        super::link::set_limit(network, EDGE, self.send.as_ref(), fresh)?;
        Ok(former)
    }

    /// Default routes. On a routed link the host is where it always is; on a bridge it has to be asked for.
    fn ways_out(&self) -> (Vec<Route>, Vec<Neighbour>) {
        let (mut routes, mut neighbours) = (Vec::new(), Vec::new());
        let bridged = self.layout.bridge.is_some();
        let (host_mac, _) = self.layout.macs(self.slot);
        let mut add = |own: Option<IpAddr>, gateway: IpAddr, all: IpNet| {
            if own.is_some() {
                routes.push(Route::by_gateway(all, gateway, EDGE));
                let entry = NeighbourEntry::Permanent(host_mac);
                neighbours.extend((!bridged).then(|| Neighbour { link: EDGE.to_owned(), address: gateway, entry }));
            }
        };
        let gateway4 = if bridged { self.layout.gateway4() } else { HOST_IPV4 };
        let gateway6 = if bridged { self.layout.gateway6() } else { HOST_IPV6 };
        add(self.wire.ipv4.map(IpAddr::V4), gateway4.into(), Ipv4Net::default().into());
        add(self.wire.ipv6.map(IpAddr::V6), gateway6.into(), Ipv6Net::default().into());
        (routes, neighbours)
    }

    fn translate(&self, network: &dyn Network, ruleset: &Ruleset, own: &[IpAddr]) -> Result<(), NetworkError> {
        let additions: Vec<Change> = own
            .iter()
            .flat_map(|own| {
                let (inward, outward, guest) = match own {
                    IpAddr::V4(_) => ("inward4", "outward4", IpAddr::V4(GUEST_IPV4)),
                    IpAddr::V6(_) => ("inward6", "outward6", IpAddr::V6(GUEST_IPV6)),
                };
                [Change::add(inward, Element::mapped(*own, guest)), Change::add(outward, Element::mapped(guest, *own))]
            })
            .collect();
        match network.change_elements(&ruleset.table, &additions) {
            Err(error) if error.is_already_there() => {}
            other => return other,
        }
        let mut changes = Vec::new();
        for set in ["inward4", "inward6", "outward4", "outward6"] {
            let there = network.elements(&ruleset.table, set)?;
            changes.extend(there.into_iter().map(|listed| Change::remove(set, listed.element.key)));
        }
        network.change_elements(&ruleset.table, &changes)?;
        network.change_elements(&ruleset.table, &additions)
    }
}

/// What the translation of a namespace is, for people.
pub(super) fn translation(network: &dyn Network, ruleset: &Ruleset) -> Result<Vec<String>, NetworkError> {
    let mut lines = Vec::new();
    for set in ["inward4", "inward6"] {
        for listed in network.elements(&ruleset.table, set)? {
            if let Some(Data::Value(guest)) = &listed.element.data {
                lines.push(format!("{} is {guest}", listed.element.key));
            }
        }
    }
    Ok(lines)
}
