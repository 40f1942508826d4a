//! Links by rtnetlink.

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use super::super::error::{Cause, NetworkError};
use super::super::link::{Isolation, Link, LinkChange, LinkKind, Links, Mac, NewKind, NewLink, Peer, VethPeer};
use super::super::names;
use super::super::namespace::Place;
use super::netlink::{Attributes, Message, Reply, attribute_in};
use super::numbers::*;
use super::{LinuxNetwork, tap, within};

/// Length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// `struct ifinfomsg` for a link by its index, or 0 where a name says which.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Says which link by its name or an alternative name.
fn name_in(message: &mut Message, name: &str) -> Result<(), Cause> {
    names::alternative(name)?;
    let kind = if names::link(name).is_ok() { IFLA_IFNAME } else { IFLA_ALT_IFNAME };
    message.text(kind, name);
    Ok(())
}

impl LinuxNetwork {
    /// The index of the link with this name or alternative name.
    pub(super) fn index(&self, name: &str) -> Result<u32, Cause> {
        let reply = self.raw_link(name)?;
        index_in(&reply)
    }

    fn raw_link(&self, name: &str) -> Result<Reply, Cause> {
        let mut message = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(0, 0, 0));
        name_in(&mut message, name)?;
        Ok(self.route.get(message)?)
    }

    /// Names of all links by index.
    pub(super) fn link_names(&self) -> Result<HashMap<u32, String>, Cause> {
        let replies = self.raw_links()?;
        Ok(replies.iter().filter_map(|reply| Some((index_in(reply).ok()?, name_of(reply)))).collect())
    }

    fn raw_links(&self) -> Result<Vec<Reply>, Cause> {
        let message = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &link_header(0, 0, 0));
        Ok(self.route.list(&message)?)
    }

    fn add(&self, link: &NewLink) -> Result<(), Cause> {
        names::link(&link.name)?;
        match &link.kind {
            NewKind::Veth(peer) => self.add_veth(link, peer),
            NewKind::Bridge => {
                let mut message = new_link(link);
                message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
                Ok(self.route.change(message)?)
            }
            NewKind::Tap { owner, group } => self.add_tap(link, *owner, *group),
        }
    }

    fn add_veth(&self, link: &NewLink, peer: &VethPeer) -> Result<(), Cause> {
        names::link(&peer.name)?;
        let place = peer.place.as_ref().map(|place| self.networks.any_handle(place)).transpose()?;
        let mut message = new_link(link);
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.holding(VETH_INFO_PEER, &link_header(0, 0, 0), |other| {
                    other.text(IFLA_IFNAME, &peer.name);
                    address_and_mtu(other, peer.mac, link.mtu);
                    if let Some(place) = &place {
                        other.u32(IFLA_NET_NS_FD, place.as_raw_fd().cast_unsigned());
                    }
                    other
                })
            })
        });
        Ok(self.route.change(message)?)
    }

    fn add_tap(&self, link: &NewLink, owner: u32, group: u32) -> Result<(), Cause> {
        within(self.handle.as_ref(), || tap::create(&link.name, owner, group))??;
        let up = if link.up { IFF_UP } else { 0 };
        let mut message = Message::new(RTM_SETLINK, NLM_F_REQUEST, &link_header(0, up, up));
        message.text(IFLA_IFNAME, &link.name);
        address_and_mtu(&mut message, link.mac, link.mtu);
        self.route.change(message).map_err(|refusal| {
            // A link that is not as it was asked for is not there.
            let _ = self.remove(&link.name);
            refusal.into()
        })
    }

    fn change(&self, name: &str, change: &LinkChange) -> Result<(), Cause> {
        let index = self.index(name)?;
        // Held until the kernel has looked at its number.
        let mut handle = None;
        let message = match change {
            LinkChange::Up => set_link(index, IFF_UP, IFF_UP),
            LinkChange::Down => set_link(index, 0, IFF_UP),
            LinkChange::Mtu(mtu) => with(set_link(index, 0, 0), |message| message.u32(IFLA_MTU, *mtu)),
            LinkChange::Mac(mac) => with(set_link(index, 0, 0), |message| message.bytes(IFLA_ADDRESS, &mac.0)),
            LinkChange::Name(new) => {
                names::link(new)?;
                with(set_link(index, 0, 0), |message| message.text(IFLA_IFNAME, new))
            }
            LinkChange::AddAltname(new) => {
                names::alternative(new)?;
                altname(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, index, new)
            }
            LinkChange::RemoveAltname(old) => altname(RTM_DELLINKPROP, 0, index, old),
            LinkChange::Master(bridge) => {
                let bridge = self.index(bridge)?;
                with(set_link(index, 0, 0), |message| message.u32(IFLA_MASTER, bridge))
            }
            LinkChange::NoMaster => with(set_link(index, 0, 0), |message| message.u32(IFLA_MASTER, 0)),
            LinkChange::Isolated(isolated) => isolation(index, *isolated),
            LinkChange::Move(place) => {
                let handle = handle.insert(self.networks.any_handle(place)?);
                let number = handle.as_raw_fd().cast_unsigned();
                with(set_link(index, 0, 0), |message| message.u32(IFLA_NET_NS_FD, number))
            }
        };
        Ok(self.route.change(message)?)
    }

    fn remove(&self, name: &str) -> Result<(), Cause> {
        let mut message = Message::new(RTM_DELLINK, NLM_F_REQUEST, &link_header(0, 0, 0));
        name_in(&mut message, name)?;
        Ok(self.route.change(message)?)
    }

    fn find(&self, name: &str) -> Result<Link, Cause> {
        let reply = self.raw_link(name)?;
        let mut names = HashMap::new();
        if let Some(master) = reply.attributes(LINK_HEADER).u32(IFLA_MASTER) {
            let message = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &link_header(master, 0, 0));
            names.insert(master, name_of(&self.route.get(message)?));
        }
        link_in(&reply, &names)
    }

    fn all(&self) -> Result<Vec<Link>, Cause> {
        let replies = self.raw_links()?;
        let names = replies.iter().filter_map(|reply| Some((index_in(reply).ok()?, name_of(reply)))).collect();
        let mut links = replies.iter().map(|reply| link_in(reply, &names)).collect::<Result<Vec<_>, _>>()?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    fn id_of(&self, other: &Place) -> Result<Option<i32>, Cause> {
        let handle = self.networks.any_handle(other)?;
        let mut message = Message::new(RTM_GETNSID, NLM_F_REQUEST | NLM_F_ACK, &[0; 4]);
        message.u32(NETNSA_FD, handle.as_raw_fd().cast_unsigned());
        let reply = self.route.get(message)?;
        let id = reply.attributes(4).u32(NETNSA_NSID).map(u32::cast_signed);
        Ok(id.filter(|id| *id >= 0))
    }
}

/// The beginning of a message that makes a link.
fn new_link(link: &NewLink) -> Message {
    let up = if link.up { IFF_UP } else { 0 };
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWLINK, flags, &link_header(0, up, up));
    message.text(IFLA_IFNAME, &link.name);
    address_and_mtu(&mut message, link.mac, link.mtu);
    message
}

/// A message that sets those flags of a link that are in `mask`.
fn set_link(index: u32, flags: u32, mask: u32) -> Message {
    Message::new(RTM_SETLINK, NLM_F_REQUEST, &link_header(index, flags, mask))
}

fn with(mut message: Message, fill: impl FnOnce(&mut Message) -> &mut Message) -> Message {
    fill(&mut message);
    message
}

fn altname(kind: u16, flags: u16, index: u32, name: &str) -> Message {
    let message = Message::new(kind, NLM_F_REQUEST | flags, &link_header(index, 0, 0));
    with(message, |message| message.nested(IFLA_PROP_LIST, |list| list.text(IFLA_ALT_IFNAME, name)))
}

fn isolation(index: u32, isolated: bool) -> Message {
    let message = Message::new(RTM_NEWLINK, NLM_F_REQUEST, &link_header(index, 0, 0));
    with(message, |message| {
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge")
                .nested(IFLA_INFO_SLAVE_DATA, |data| data.u8(IFLA_BRPORT_ISOLATED, isolated.into()))
        })
    })
}

fn address_and_mtu(message: &mut Message, mac: Option<Mac>, mtu: Option<u32>) {
    if let Some(mac) = mac {
        message.bytes(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        message.u32(IFLA_MTU, mtu);
    }
}

fn index_in(reply: &Reply) -> Result<u32, Cause> {
    let header = reply.fixed::<LINK_HEADER>().and_then(|header| header[4..8].first_chunk());
    header.map(|index| u32::from_ne_bytes(*index)).ok_or_else(cut)
}

fn cut() -> Cause {
    Cause::Invalid("the kernel's answer is cut off".to_owned())
}

fn name_of(reply: &Reply) -> String {
    reply.attributes(LINK_HEADER).text(IFLA_IFNAME).unwrap_or_default()
}

fn link_in(reply: &Reply, names: &HashMap<u32, String>) -> Result<Link, Cause> {
    let header = reply.fixed::<LINK_HEADER>().ok_or_else(cut)?;
    let attributes = reply.attributes(LINK_HEADER);
    let info = attributes.inside(IFLA_LINKINFO);
    let altnames = attributes.inside(IFLA_PROP_LIST).into_iter();
    let mac = attributes.get(IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).map(Mac);
    let port = info.text(IFLA_INFO_SLAVE_KIND).filter(|kind| kind == "bridge");
    let isolation = match port.and_then(|_| info.inside(IFLA_INFO_SLAVE_DATA).u8(IFLA_BRPORT_ISOLATED)) {
        None => Isolation::NoPort,
        Some(0) => Isolation::Open,
        Some(_) => Isolation::Isolated,
    };
    Ok(Link {
        index: index_in(reply)?,
        name: name_of(reply),
        altnames: altnames.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME).map(|(_, name)| attribute_in(name)).collect(),
        kind: kind_in(attributes, info),
        up: header[8..12].first_chunk().is_some_and(|flags| u32::from_ne_bytes(*flags) & IFF_UP != 0),
        mac,
        mtu: attributes.u32(IFLA_MTU).unwrap_or_default(),
        master: attributes.u32(IFLA_MASTER).and_then(|index| names.get(&index).cloned()),
        isolation,
    })
}

fn kind_in(attributes: Attributes<'_>, info: Attributes<'_>) -> LinkKind {
    let data = info.inside(IFLA_INFO_DATA);
    let kind = info.text(IFLA_INFO_KIND).unwrap_or_default();
    match (kind.as_str(), data.u8(IFLA_TUN_TYPE)) {
        ("veth", _) => LinkKind::Veth(Peer {
            index: attributes.u32(IFLA_LINK).unwrap_or_default(),
            namespace: attributes.u32(IFLA_LINK_NETNSID).map(u32::cast_signed),
        }),
        // 2 is IFF_TAP; a tun has 1.
        ("tun", Some(2)) => LinkKind::Tap {
            owner: data.u32(IFLA_TUN_OWNER),
            group: data.u32(IFLA_TUN_GROUP),
            vnet_header: data.u8(IFLA_TUN_VNET_HDR) == Some(1),
        },
        ("bridge", _) => LinkKind::Bridge,
        _ => LinkKind::Other(kind),
    }
}

impl Links for LinuxNetwork {
    fn add_link(&self, link: &NewLink) -> Result<(), NetworkError> {
        self.add(link).map_err(self.at("make", &link.to_string()))
    }

    fn change_link(&self, name: &str, change: &LinkChange) -> Result<(), NetworkError> {
        self.change(name, change).map_err(self.at(&change.to_string(), &format!("link {name}")))
    }

    fn remove_link(&self, name: &str) -> Result<(), NetworkError> {
        self.remove(name).map_err(self.at("remove", &format!("link {name}")))
    }

    fn link(&self, name: &str) -> Result<Link, NetworkError> {
        self.find(name).map_err(self.at("look at", &format!("link {name}")))
    }

    fn links(&self) -> Result<Vec<Link>, NetworkError> {
        self.all().map_err(self.at("list", "the links"))
    }

    fn namespace_id(&self, other: &Place) -> Result<Option<i32>, NetworkError> {
        self.id_of(other).map_err(self.at("find the number of", &other.to_string()))
    }
}
