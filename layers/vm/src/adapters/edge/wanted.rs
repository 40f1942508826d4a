//! What a VM's spec and slot ask of the host's packet filter and links. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use host::network::{Change, Data, Element, Key, Limit, Listed, Part};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::layout::Layout;
use super::rulesets::{BRIDGE_SETS, SETS};
use crate::model::{Egress, Mapping, NetworkInterface, RateLimit, Slot, Vm};
use crate::ports::Wire;

/// Elements of sets and maps: what each has for which key.
pub(super) type Elements = BTreeMap<(&'static str, Key), Option<Data>>;

/// How long a packet may wait for its turn.
const LATENCY: Duration = Duration::from_millis(50);
/// Least that may go at once, in bytes: one packet and what is around it.
const LEAST_BURST: u64 = 2 << 10;
/// What may go at once where nobody says: at least the largest that a link hands on in one piece.
const USUAL_BURST: u64 = 64 << 10;

/// What a VM's element is in a list, by the names that the ruleset has.
pub(super) fn listed(sets: &[&'static str], set: &str, listed: Listed) -> Option<((&'static str, Key), Option<Data>)> {
    let set = sets.iter().find(|known| **known == set)?;
    Some(((set, listed.element.key), listed.element.data))
}

/// The slot that an element is there for.
pub(super) fn slot_of(layout: &Layout, key: &Key, data: Option<&Data>) -> Option<Slot> {
    let address = |parts: &[Part]| {
        parts.iter().take(2).find_map(|part| match part {
            Part::Address(address) => layout.slot_of(*address),
            _ => None,
        })
    };
    match data {
        Some(Data::Value(value)) => address(&value.0),
        _ => address(&key.0).or_else(|| match key.0.first() {
            Some(Part::Interface(link)) => super::layout::slot_of_link(link),
            _ => None,
        }),
    }
}

/// The elements of a VM in the host's table.
pub(super) fn elements(layout: &Layout, vm: &Vm, wire: &Wire) -> Elements {
    let mut wanted = Elements::new();
    let interface = vm.spec.interface();
    let link = layout.seen_on(vm.slot);
    let own = [wire.ipv4.map(IpAddr::V4), wire.ipv6.map(IpAddr::V6)];
    for address in own.into_iter().flatten() {
        let name = |set: &str| name(set, address);
        wanted.insert((name("own"), Key::from(link.as_str()).and(address)), None);
        wanted.insert((name("vms"), address.into()), None);
        if interface.egress_internet {
            wanted.insert((name("internet"), address.into()), None);
        }
        for (set, key) in egress(address, &interface) {
            wanted.insert((name(set), key), None);
        }
        for mapping in &vm.mappings {
            let value = Key::from(address).and(mapping.guest_port);
            wanted.insert((name("ports"), published(mapping)), Some(Data::Value(value)));
        }
    }
    wanted
}

/// The elements of a VM in the bridge's table.
pub(super) fn port_elements(vm: &Vm, wire: &Wire) -> Elements {
    let own = [wire.ipv4.map(IpAddr::V4), wire.ipv6.map(IpAddr::V6)].into_iter().flatten();
    own.map(|own| {
        let set = BRIDGE_SETS[usize::from(own.is_ipv6())];
        ((set, Key::from(vm.slot.link().as_str()).and(own)), None)
    })
    .collect()
}

/// The key of a mapping.
pub(super) fn published(mapping: &Mapping) -> Key {
    Key(vec![Part::Protocol(mapping.protocol.number()), Part::Port(mapping.host_port)])
}

/// The set's name for the family of an address.
fn name(set: &str, address: IpAddr) -> &'static str {
    let version = if address.is_ipv4() { '4' } else { '6' };
    let (stem, rest) = set.split_once('_').map_or((set, ""), |(stem, rest)| (stem, rest));
    let wanted = |known: &&&str| {
        let (known_stem, known_rest) = known.split_once('_').map_or((**known, ""), |(stem, rest)| (stem, rest));
        known_stem.strip_suffix(version) == Some(stem) && known_rest == rest
    };
    SETS.iter().find(wanted).copied().unwrap_or_default()
}

/// Keys of the egress sets. The kernel takes no ranges that overlap, so those of one set are joined.
fn egress(own: IpAddr, interface: &NetworkInterface) -> Vec<(&'static str, Key)> {
    let mut alike: BTreeMap<_, Vec<IpNet>> = BTreeMap::new();
    for Egress { to, protocol, port } in &interface.egress {
        if to.addr().is_ipv4() != own.is_ipv4() {
            continue;
        }
        let set = match (protocol, port) {
            (None, _) => "egress",
            (Some(_), None) => "egress_protocol",
            (Some(_), Some(_)) => "egress_port",
        };
        alike.entry((set, protocol.map(crate::model::Protocol::number), *port)).or_default().push(*to);
    }
    let mut keys = Vec::new();
    for ((set, protocol, port), nets) in alike {
        for net in joined(&nets) {
            let mut key = Key::from(own).and(whole(net));
            key.0.extend(protocol.map(Part::Protocol));
            key.0.extend(port.filter(|_| protocol.is_some()).map(Part::Port));
            keys.push((set, key));
        }
    }
    keys
}

/// An address where a prefix is no more than that: so the kernel's list has it.
fn whole(net: IpNet) -> Part {
    if net.prefix_len() == net.max_prefix_len() { net.addr().into() } else { net.into() }
}

/// The same addresses in prefixes that do not overlap.
fn joined(nets: &[IpNet]) -> Vec<IpNet> {
    let four: Vec<Ipv4Net> =
        nets.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    let six: Vec<Ipv6Net> =
        nets.iter().filter_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None }).collect();
    let four = Ipv4Net::aggregate(&four).into_iter().map(IpNet::V4);
    four.chain(Ipv6Net::aggregate(&six).into_iter().map(IpNet::V6)).collect()
}

/// From what is known to be there to what is wanted: removals first.
pub(super) fn changes(there: &Elements, wanted: &Elements) -> Vec<Change> {
    let gone = there.iter().filter(|(place, data)| wanted.get(place) != Some(data));
    let removals = gone.map(|((set, key), _)| Change::remove(*set, key.clone()));
    let new = wanted.iter().filter(|(place, data)| there.get(place) != Some(data));
    let additions = new.map(|((set, key), data)| Change::add(*set, Element { key: key.clone(), data: data.clone() }));
    removals.chain(additions).collect()
}

/// How fast a guest may receive, and send.
pub(super) fn limits(interface: &NetworkInterface, usual: Option<u64>) -> (Option<Limit>, Option<Limit>) {
    let limit = |own: Option<&RateLimit>| {
        let rate = own.and_then(|own| u64::try_from(own.bandwidth).ok()).or(usual).filter(|rate| *rate > 0)?;
        let asked = own.and_then(|own| u64::try_from(own.burst).ok()).filter(|burst| *burst > 0);
        let burst = asked.unwrap_or_else(|| (rate / 100).max(USUAL_BURST)).max(LEAST_BURST);
        Some(Limit { rate, burst: u32::try_from(burst).unwrap_or(u32::MAX), latency: LATENCY })
    };
    (limit(interface.rx_rate_limit.as_ref()), limit(interface.tx_rate_limit.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn rule(to: &str, protocol: Option<Protocol>, port: Option<u16>) -> Egress {
        Egress { to: to.parse().unwrap(), protocol, port }
    }

    #[test]
    fn rules_that_overlap_become_one() {
        let egress = vec![
            rule("10.0.0.0/8", None, None),
            rule("10.1.0.0/16", None, None),
            rule("10.1.2.3/32", Some(Protocol::Tcp), Some(443)),
            rule("10.1.2.3/32", Some(Protocol::Tcp), None),
            rule("10.1.2.2/32", Some(Protocol::Tcp), Some(443)),
            rule("fd00::/8", None, None),
        ];
        let interface = NetworkInterface { egress, ..NetworkInterface::default() };
        let keys: Vec<String> = super::egress("10.100.0.2".parse().unwrap(), &interface)
            .into_iter()
            .map(|(set, key)| format!("{set} {key}"))
            .collect();
        assert_eq!(
            keys,
            [
                "egress 10.100.0.2 . 10.0.0.0/8",
                "egress_port 10.100.0.2 . 10.1.2.2/31 . protocol 6 . 443",
                "egress_protocol 10.100.0.2 . 10.1.2.3 . protocol 6",
            ]
        );
    }

    #[test]
    fn only_what_differs_changes() {
        let element = |set: &'static str, port: u16| ((set, Key::from(port)), None);
        let there: Elements = [element("own4", 1), element("own4", 2)].into();
        let wanted: Elements = [element("own4", 2), element("own4", 3)].into();
        assert_eq!(changes(&there, &there), []);
        let expected = [Change::remove("own4", Key::from(1)), Change::add("own4", Element::new(Key::from(3)))];
        assert_eq!(changes(&there, &wanted), expected);
    }

    #[test]
    fn limits_hold_at_least_a_packet() {
        let interface = |bandwidth, burst| NetworkInterface {
            rx_rate_limit: Some(RateLimit { bandwidth, burst, ..RateLimit::default() }),
            ..NetworkInterface::default()
        };
        let (receive, send) = limits(&interface(1000, 10), Some(125_000_000));
        assert_eq!(receive.map(|limit| (limit.rate, limit.burst)), Some((1000, 2048)));
        assert_eq!(send.map(|limit| (limit.rate, limit.burst)), Some((125_000_000, 1_250_000)));
        assert_eq!(limits(&NetworkInterface::default(), None), (None, None));
    }

    #[test]
    fn every_set_of_both_families_has_a_name() {
        let addresses: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        for set in ["own", "vms", "internet", "egress", "egress_protocol", "egress_port", "ports"] {
            let names = addresses.map(|address| name(set, address));
            assert!(names.iter().all(|name| SETS.contains(name)) && names[0] != names[1], "{set}: {names:?}");
        }
    }
}
