//! The pair of links between the host and a namespace.

use std::net::IpAddr;

use host::network::{
    Isolation, Limit, LinkChange, LinkKind, Neighbour, NeighbourEntry, Network, NetworkError, NewKind, NewLink, Peer,
    Place, Repeatable, Route, VethPeer,
};
use ipnet::IpNet;

use super::inside::EDGE;
use super::layout::{Layout, slot_of_link};
use crate::model::Slot;
use crate::ports::Wire;

/// Whether a namespace has the other end of the host's link.
pub(super) fn is_joined(host: &dyn Network, network: &dyn Network, link: &str) -> Result<bool, NetworkError> {
    let outer = match host.link(link) {
        Ok(outer) => outer,
        Err(error) if error.is_not_there() => return Ok(false),
        Err(error) => return Err(error),
    };
    match network.link(EDGE) {
        Ok(inner) => Ok(matches!(inner.kind, LinkKind::Veth(Peer { index, .. }) if index == outer.index)),
        Err(error) if error.is_not_there() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Joins a namespace to the host. Returns whether the pair was made now.
pub(super) fn join(
    host: &dyn Network,
    network: &dyn Network,
    layout: &Layout,
    slot: Slot,
    wire: &Wire,
) -> Result<bool, NetworkError> {
    let fresh = !is_joined(host, network, &wire.link)?;
    if fresh {
        // Ends of other pairs, whose other end went elsewhere.
        host.remove_link(&wire.link).or_not_there()?;
        network.remove_link(EDGE).or_not_there()?;
        let (host_mac, edge_mac) = layout.macs(slot);
        let place = Some(Place::named(&wire.namespace));
        let peer = VethPeer { name: EDGE.to_owned(), place, mac: Some(edge_mac) };
        host.add_link(&NewLink::new(&wire.link, NewKind::Veth(peer)).mac(host_mac))?;
    }
    let outer = host.link(&wire.link)?;
    if !outer.up {
        settle(host, layout, &wire.link)?;
        host.change_link(&wire.link, &LinkChange::Up)?;
    }
    if let Some(bridge) = &layout.bridge {
        if outer.master.as_ref() != Some(bridge) {
            host.change_link(&wire.link, &LinkChange::Master(bridge.clone()))?;
        }
        if outer.isolation != Isolation::Isolated {
            host.change_link(&wire.link, &LinkChange::Isolated(true))?;
        }
    }
    Ok(fresh)
}

/// Settings of the host's end, before it is up: it has no address of its own, takes none from the guest, and lets the
/// host reach a mapped port as 127.0.0.1 (the guard drops what comes the other way).
fn settle(host: &dyn Network, layout: &Layout, link: &str) -> Result<(), NetworkError> {
    host.set_sysctl(&format!("ipv6/conf/{link}/addr_gen_mode"), "1").or_not_there()?;
    host.set_sysctl(&format!("ipv6/conf/{link}/accept_ra"), "0").or_not_there()?;
    if layout.bridge.is_none() {
        host.set_sysctl(&format!("ipv4/conf/{link}/route_localnet"), "1")?;
    }
    Ok(())
}

/// The host's routes to a VM's addresses, and none to those it had before. On a bridge there are no routes: the bridge's
/// subnet covers the addresses. `moved`: the link or an address is new, and the route may lead elsewhere.
pub(super) fn route(
    host: &dyn Network,
    layout: &Layout,
    slot: Slot,
    wire: &Wire,
    former: &[IpNet],
    moved: bool,
) -> Result<(), NetworkError> {
    if layout.bridge.is_some() {
        return Ok(());
    }
    let former: Vec<Route> = former.iter().map(|former| Route::to_link(*former, &wire.link)).collect();
    host.remove_routes(&former).or_not_there()?;
    let (_, mac) = layout.macs(slot);
    let own = [
        (wire.ipv4.map(IpAddr::V4), IpAddr::V4(layout.gateway4())),
        (wire.ipv6.map(IpAddr::V6), IpAddr::V6(layout.gateway6())),
    ];
    let own = || own.iter().filter_map(|(own, gateway)| Some(((*own)?, *gateway)));
    let neighbour = |address| Neighbour { link: wire.link.clone(), address, entry: NeighbourEntry::Permanent(mac) };
    let neighbours: Vec<Neighbour> = own().map(|(own, _)| neighbour(own)).collect();
    host.add_neighbours(&neighbours).or_already_there()?;
    let to_link = |(own, gateway): (IpAddr, IpAddr)| Route {
        source: Some(gateway),
        ..Route::to_link(IpNet::from(own), &wire.link)
    };
    for route in own().map(to_link) {
        if !host.add_routes(std::slice::from_ref(&route)).or_already_there()? && moved {
            free(host, &route)?;
        }
    }
    Ok(())
}

/// Adds a route although there is one: it leads to a VM that had this address before the subnet changed.
fn free(host: &dyn Network, route: &Route) -> Result<(), NetworkError> {
    let there = host.routes()?;
    let other = there.iter().find(|there| there.destination == route.destination && there.link != route.link);
    if let Some(other) = other.filter(|other| slot_of_link(&other.link).is_some()) {
        host.remove_routes(std::slice::from_ref(other)).or_not_there()?;
        host.add_routes(std::slice::from_ref(route)).or_already_there()?;
    }
    Ok(())
}

/// Sets how fast a link sends, unless it is so already.
pub(super) fn set_limit(
    network: &dyn Network,
    link: &str,
    limit: Option<&Limit>,
    fresh: bool,
) -> Result<(), NetworkError> {
    let there = if fresh { None } else { network.limit(link)? };
    match (limit, there) {
        (Some(wanted), Some(there)) if wanted.rate == there.rate => Ok(()),
        (Some(wanted), _) => network.set_limit(link, wanted),
        (None, Some(_)) => network.remove_limit(link).or_not_there().map(|_| ()),
        (None, None) => Ok(()),
    }
}
