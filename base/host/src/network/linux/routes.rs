//! Routes by rtnetlink.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::address::Route;
use super::super::error::{Cause, NetworkError};
use super::addresses::{family, is_already_there, is_not_there, prefix};
use super::netlink::{Message, Reply};
use super::numbers::*;
use super::{LinuxNetwork, worst};

/// Length of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

fn message(kind: u16, route: &Route, index: u32) -> Message {
    let destination = route.destination.trunc();
    let new = kind == RTM_NEWROUTE;
    let direct = route.gateway.is_none() && destination.addr().is_ipv4();
    let mut header = [0; ROUTE_HEADER];
    header[0] = family(destination.addr());
    header[1] = destination.prefix_len();
    header[4] = RT_TABLE_MAIN;
    // Whoever made it, it can be removed: then these say nothing.
    header[5] = if new { RTPROT_STATIC } else { 0 };
    header[6] = if direct { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    header[7] = RTN_UNICAST;
    let flags = if new && route.on_link && route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    let how = if new { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    let mut message = Message::new(kind, NLM_F_REQUEST | how, &header);
    message.address(RTA_DST, destination.addr()).u32(RTA_OIF, index);
    if let Some(gateway) = route.gateway {
        message.address(RTA_GATEWAY, gateway);
    }
    if let Some(source) = route.source {
        message.address(RTA_PREFSRC, source);
    }
    message
}

impl LinuxNetwork {
    pub(super) fn change_routes(&self, kind: u16, operation: &str, routes: &[Route]) -> Result<(), NetworkError> {
        let mut indexes = HashMap::new();
        let mut messages = Vec::new();
        for route in routes {
            let index = match indexes.get(&route.link) {
                Some(index) => *index,
                None => {
                    let index = self.index(&route.link).map_err(self.at(operation, &route.to_string()))?;
                    indexes.insert(route.link.clone(), index);
                    index
                }
            };
            messages.push(message(kind, route, index));
        }
        let expected = if kind == RTM_NEWROUTE { is_already_there } else { is_not_there };
        match worst(self.route.change_each(messages), expected) {
            None => Ok(()),
            Some((at, cause)) => {
                let route = routes.get(at).map(ToString::to_string).unwrap_or_default();
                Err(self.at(operation, &route)(cause))
            }
        }
    }

    pub(super) fn all_routes(&self) -> Result<Vec<Route>, Cause> {
        let list = Message::new(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, &[0; ROUTE_HEADER]);
        let replies = self.route.list(&list)?;
        let names = self.link_names()?;
        Ok(replies.iter().filter_map(|reply| route_in(reply, &names)).collect())
    }
}

/// A unicast route of the main table that goes through one link.
fn route_in(reply: &Reply, names: &HashMap<u32, String>) -> Option<Route> {
    let header = reply.fixed::<ROUTE_HEADER>()?;
    let attributes = reply.attributes(ROUTE_HEADER);
    let table = attributes.u32(RTA_TABLE).unwrap_or_else(|| header[4].into());
    if table != u32::from(RT_TABLE_MAIN) || header[7] != RTN_UNICAST {
        return None;
    }
    let everywhere = match header[0] {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let flags = header[8..].first_chunk().map_or(0, |flags| u32::from_ne_bytes(*flags));
    let gateway = attributes.address(RTA_GATEWAY);
    Some(Route {
        destination: prefix(attributes.address(RTA_DST).unwrap_or(everywhere), header[1])?,
        link: names.get(&attributes.u32(RTA_OIF)?)?.clone(),
        gateway,
        source: attributes.address(RTA_PREFSRC),
        on_link: gateway.is_some() && flags & RTNH_F_ONLINK != 0,
    })
}
