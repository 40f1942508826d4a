//! Links in memory.

use std::sync::Weak;

use super::super::error::{Cause, NetworkError};
use super::super::link::{Isolation, Link, LinkChange, LinkKind, Links, Mac, NewKind, NewLink, Peer, VethPeer};
use super::super::names;
use super::super::namespace::Place;
use super::{FakeLink, FakeNetwork, State, World};

/// Largest packet where nothing is said, in bytes.
const MTU: u32 = 1500;

impl World {
    pub(super) fn new(hold: Weak<()>) -> Self {
        let mut world = Self { hold, ..Self::default() };
        world.insert("lo", LinkKind::Other(String::new()), None, None, false);
        world
    }

    /// The index of the link with this name or alternative name.
    pub(super) fn index(&self, name: &str) -> Result<u32, Cause> {
        names::alternative(name)?;
        let named = |link: &Link| link.name == name || link.altnames.iter().any(|other| other == name);
        self.links.iter().find(|(_, link)| named(&link.link)).map(|(index, _)| *index).ok_or(Cause::NotThere)
    }

    pub(super) fn link_mut(&mut self, name: &str) -> Result<&mut FakeLink, Cause> {
        let index = self.index(name)?;
        self.links.get_mut(&index).ok_or(Cause::NotThere)
    }

    fn free(&self, name: &str) -> Result<(), Cause> {
        if self.index(name).is_ok() { Err(Cause::AlreadyThere) } else { Ok(()) }
    }

    fn insert(&mut self, name: &str, kind: LinkKind, mac: Option<Mac>, mtu: Option<u32>, up: bool) -> u32 {
        self.last_index += 1;
        let [a, b, c, d] = self.last_index.to_be_bytes();
        let link = Link {
            index: self.last_index,
            name: name.to_owned(),
            altnames: Vec::new(),
            kind,
            up,
            mac: Some(mac.unwrap_or(Mac([2, 0, a, b, c, d]))),
            mtu: mtu.unwrap_or(MTU),
            master: None,
            isolation: Isolation::NoPort,
        };
        self.links.insert(self.last_index, FakeLink { link, peer: None, addresses: Vec::new(), limit: None });
        self.last_index
    }

    /// Removes a link with everything that rests on it.
    pub(super) fn forget_link(&mut self, index: u32) -> Option<FakeLink> {
        let removed = self.links.remove(&index)?;
        let name = &removed.link.name;
        self.routes.retain(|route| route.link != *name);
        self.neighbours.retain(|neighbour| neighbour.link != *name);
        for port in self.links.values_mut().filter(|link| link.link.master.as_ref() == Some(name)) {
            (port.link.master, port.link.isolation) = (None, Isolation::NoPort);
        }
        Some(removed)
    }

    fn rename(&mut self, index: u32, new: &str) {
        let Some(link) = self.links.get_mut(&index) else { return };
        let old = std::mem::replace(&mut link.link.name, new.to_owned());
        self.routes.iter_mut().filter(|route| route.link == old).for_each(|route| new.clone_into(&mut route.link));
        let neighbours = self.neighbours.iter_mut().filter(|neighbour| neighbour.link == old);
        neighbours.for_each(|neighbour| new.clone_into(&mut neighbour.link));
        for port in self.links.values_mut().filter(|link| link.link.master.as_ref() == Some(&old)) {
            port.link.master = Some(new.to_owned());
        }
    }

    fn switch_off(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(&index) else { return };
        link.link.up = false;
        link.addresses.retain(|address| address.addr().is_ipv4());
        let name = link.link.name.clone();
        self.routes.retain(|route| route.link != name);
    }

    fn change(&mut self, index: u32, change: &LinkChange) -> Result<(), Cause> {
        match change {
            LinkChange::Name(new) | LinkChange::AddAltname(new) => {
                if matches!(change, LinkChange::Name(_)) { names::link(new) } else { names::alternative(new) }?;
                self.free(new)?;
            }
            LinkChange::Master(bridge) => {
                let master = &self.link_mut(bridge)?.link;
                if master.kind != LinkKind::Bridge {
                    return Err(std::io::Error::from_raw_os_error(95).into());
                }
            }
            _ => {}
        }
        let link = &mut self.links.get_mut(&index).ok_or(Cause::NotThere)?.link;
        match change {
            LinkChange::Up => link.up = true,
            LinkChange::Down => self.switch_off(index),
            LinkChange::Mtu(mtu) => link.mtu = *mtu,
            LinkChange::Mac(mac) => link.mac = Some(*mac),
            LinkChange::Name(new) => self.rename(index, new),
            LinkChange::AddAltname(new) => link.altnames.push(new.clone()),
            LinkChange::RemoveAltname(old) => {
                let at = link.altnames.iter().position(|name| name == old).ok_or(Cause::NotThere)?;
                link.altnames.remove(at);
            }
            LinkChange::Master(bridge) => {
                (link.master, link.isolation) = (Some(bridge.clone()), Isolation::Open);
            }
            LinkChange::NoMaster => (link.master, link.isolation) = (None, Isolation::NoPort),
            LinkChange::Isolated(_) if link.master.is_none() => {
                return Err(std::io::Error::from_raw_os_error(22).into());
            }
            LinkChange::Isolated(true) => link.isolation = Isolation::Isolated,
            LinkChange::Isolated(false) => link.isolation = Isolation::Open,
            LinkChange::Move(_) => {}
        }
        Ok(())
    }
}

impl State {
    fn world(&mut self, id: u64) -> Result<&mut World, Cause> {
        self.worlds.get_mut(&id).ok_or(Cause::NotThere)
    }

    fn add_link(&mut self, id: u64, new: &NewLink) -> Result<(), Cause> {
        names::link(&new.name)?;
        self.world(id)?.free(&new.name)?;
        let kind = match &new.kind {
            NewKind::Veth(peer) => return self.add_pair(id, new, peer),
            NewKind::Bridge => LinkKind::Bridge,
            NewKind::Tap { owner, group } => {
                LinkKind::Tap { owner: Some(*owner), group: Some(*group), vnet_header: true }
            }
        };
        self.world(id)?.insert(&new.name, kind, new.mac, new.mtu, new.up);
        Ok(())
    }

    fn add_pair(&mut self, id: u64, new: &NewLink, peer: &VethPeer) -> Result<(), Cause> {
        names::link(&peer.name)?;
        let other = peer.place.as_ref().map_or(Ok(id), |place| self.id_of(place))?;
        self.world(other)?.free(&peer.name)?;
        if other == id && peer.name == new.name {
            return Err(Cause::AlreadyThere);
        }
        let kind = LinkKind::Veth(Peer { index: 0, namespace: None });
        let far = self.world(other)?.insert(&peer.name, kind.clone(), peer.mac, new.mtu, false);
        let near = self.world(id)?.insert(&new.name, kind, new.mac, new.mtu, new.up);
        self.join((id, near), (other, far))?;
        self.join((other, far), (id, near))
    }

    /// Tells one end of a pair where the other is.
    fn join(&mut self, end: (u64, u32), other: (u64, u32)) -> Result<(), Cause> {
        let namespace = if end.0 == other.0 { None } else { Some(number(other.0)) };
        let link = self.world(end.0)?.links.get_mut(&end.1).ok_or(Cause::NotThere)?;
        link.peer = Some(other);
        link.link.kind = LinkKind::Veth(Peer { index: other.1, namespace });
        Ok(())
    }

    fn remove_link(&mut self, id: u64, name: &str) -> Result<(), Cause> {
        let world = self.world(id)?;
        let index = world.index(name)?;
        let removed = world.forget_link(index).ok_or(Cause::NotThere)?;
        if let Some((other, index)) = removed.peer {
            self.world(other)?.forget_link(index);
        }
        Ok(())
    }

    fn move_link(&mut self, id: u64, name: &str, place: &Place) -> Result<(), Cause> {
        let target = self.id_of(place)?;
        let index = self.world(id)?.index(name)?;
        if target == id {
            return Ok(());
        }
        let world = self.world(id)?;
        let name = world.links.get(&index).ok_or(Cause::NotThere)?.link.name.clone();
        self.world(target)?.free(&name)?;
        let mut moved = self.world(id)?.forget_link(index).ok_or(Cause::NotThere)?;
        moved.addresses.clear();
        moved.limit = None;
        moved.link.up = false;
        (moved.link.master, moved.link.isolation) = (None, Isolation::NoPort);
        let world = self.world(target)?;
        world.last_index += 1;
        let (index, peer) = (world.last_index, moved.peer);
        moved.link.index = index;
        world.links.insert(index, moved);
        if let Some(peer) = peer {
            self.join((target, index), peer)?;
            self.join(peer, (target, index))?;
        }
        Ok(())
    }
}

/// The number under which other namespaces know this one.
fn number(id: u64) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}

impl Links for FakeNetwork {
    fn add_link(&self, link: &NewLink) -> Result<(), NetworkError> {
        self.with_state("make", &link.to_string(), |state| state.add_link(self.id, link))
    }

    fn change_link(&self, name: &str, change: &LinkChange) -> Result<(), NetworkError> {
        self.with_state(&change.to_string(), &format!("link {name}"), |state| {
            if let LinkChange::Move(place) = change {
                return state.move_link(self.id, name, place);
            }
            let world = state.world(self.id)?;
            let index = world.index(name)?;
            world.change(index, change)
        })
    }

    fn remove_link(&self, name: &str) -> Result<(), NetworkError> {
        self.with_state("remove", &format!("link {name}"), |state| state.remove_link(self.id, name))
    }

    fn link(&self, name: &str) -> Result<Link, NetworkError> {
        self.step("look at", &format!("link {name}"), |world| Ok(world.link_mut(name)?.link.clone()))
    }

    fn links(&self) -> Result<Vec<Link>, NetworkError> {
        self.step("list", "the links", |world| Ok(world.links.values().map(|link| link.link.clone()).collect()))
    }

    fn namespace_id(&self, other: &Place) -> Result<Option<i32>, NetworkError> {
        self.with_state("find the number of", &other.to_string(), |state| {
            let other = state.id_of(other)?;
            let joined = state.world(self.id)?.links.values().any(|link| link.peer.is_some_and(|(id, _)| id == other));
            Ok((joined && other != self.id).then_some(number(other)))
        })
    }
}
