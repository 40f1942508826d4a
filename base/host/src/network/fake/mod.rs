//! Networks that only remember, beside the real ones: for unit tests, and for refusals that a kernel cannot be made to
//! give. Links hold what they are told; no packet moves.

mod addresses;
mod filter;
mod links;
mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ipnet::IpNet;

use super::address::{Neighbour, Route};
use super::error::{Cause, NetworkError};
use super::filter::Table;
use super::foreign::ForeignChain;
use super::limit::{Limit, Traffic, connections_of};
use super::link::Link;
use super::names;
use super::namespace::{Namespace, Network, Networks, Place};
use ruleset::FakeTable;

/// The number of the host's own namespace.
const HOST: u64 = 1;

/// Namespaces in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct FakeNetworks {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    processes: BTreeMap<u32, u64>,
    worlds: BTreeMap<u64, World>,
    refused: Vec<String>,
    last: u64,
}

/// What is inside one namespace.
#[derive(Debug, Default)]
struct World {
    /// Dead when nobody has it open.
    hold: Weak<()>,
    last_index: u32,
    links: BTreeMap<u32, FakeLink>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
    tables: BTreeMap<Table, FakeTable>,
    foreign: Vec<ForeignChain>,
    settings: BTreeMap<String, String>,
    connections: Vec<(IpAddr, IpAddr)>,
}

#[derive(Debug)]
struct FakeLink {
    link: Link,
    /// Namespace and index of the other end of a pair.
    peer: Option<(u64, u32)>,
    addresses: Vec<IpNet>,
    limit: Option<Limit>,
}

impl Default for FakeNetworks {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNetworks {
    /// A host with a loopback link.
    pub fn new() -> Self {
        let mut state = State { last: HOST, ..State::default() };
        state.worlds.insert(HOST, World::new(Weak::new()));
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on every step whose words contain this is refused, for example `link tap0 in namespace ns_vm_1`. The
    /// words are those of its error, without `cannot`.
    pub fn refuse(&self, words: impl Into<String>) {
        self.state().refused.push(words.into());
    }

    /// Nothing is refused any more.
    pub fn refuse_nothing(&self) {
        self.state().refused.clear();
    }

    /// Lets a process be in a named namespace, as far as [`Place::Process`] can tell.
    pub fn put_process(&self, pid: u32, name: &str) -> Result<(), NetworkError> {
        let mut state = self.state();
        let at = NetworkError::at("put a process into", &Place::named(name).to_string(), &Place::Host);
        let world = state.names.get(name).copied().ok_or(Cause::NotThere).map_err(at)?;
        state.processes.insert(pid, world);
        Ok(())
    }

    /// What [`super::Filter::foreign_chains`] finds in a namespace.
    pub fn set_foreign_chains(&self, place: &Place, chains: Vec<ForeignChain>) -> Result<(), NetworkError> {
        let mut state = self.state();
        let at = NetworkError::at("set the chains of others in", &place.to_string(), &Place::Host);
        state.world_of(place).map_err(at)?.foreign = chains;
        Ok(())
    }

    /// Lets a namespace track a connection between two addresses.
    pub fn track(&self, place: &Place, from: IpAddr, to: IpAddr) -> Result<(), NetworkError> {
        let mut state = self.state();
        let at = NetworkError::at("track a connection in", &place.to_string(), &Place::Host);
        state.world_of(place).map_err(at)?.connections.push((from, to));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end_abandoned();
        state
    }
}

impl State {
    /// Ends namespaces that have no name, process or holder, with the other ends of their pairs.
    fn end_abandoned(&mut self) {
        let known: BTreeSet<u64> = self.names.values().chain(self.processes.values()).copied().chain([HOST]).collect();
        let ended = |id: &u64, world: &World| !known.contains(id) && world.hold.strong_count() == 0;
        let gone: Vec<u64> = self.worlds.iter().filter(|(id, world)| ended(id, world)).map(|(id, _)| *id).collect();
        for id in gone {
            let Some(world) = self.worlds.remove(&id) else { continue };
            for (other, index) in world.links.values().filter_map(|link| link.peer) {
                if let Some(other) = self.worlds.get_mut(&other) {
                    other.forget_link(index);
                }
            }
        }
    }

    fn id_of(&self, place: &Place) -> Result<u64, Cause> {
        match place {
            Place::Host => Ok(HOST),
            Place::Named(name) => {
                names::namespace(name)?;
                self.names.get(name).copied().ok_or(Cause::NotThere)
            }
            Place::Process(pid) => self.processes.get(pid).copied().ok_or(Cause::NotThere),
        }
    }

    fn world_of(&mut self, place: &Place) -> Result<&mut World, Cause> {
        let id = self.id_of(place)?;
        self.worlds.get_mut(&id).ok_or(Cause::NotThere)
    }

    /// Refuses a step when its words are among the refused ones.
    fn allow(&self, operation: &str, object: &str, place: &Place) -> Result<(), Cause> {
        let words = format!("{operation} {object} in {place}");
        match self.refused.iter().find(|refused| words.contains(refused.as_str())) {
            Some(_) => Err(Cause::from(io::Error::from(io::ErrorKind::PermissionDenied))),
            None => Ok(()),
        }
    }
}

impl Networks for FakeNetworks {
    fn create_namespace(&self, name: &str) -> Result<(), NetworkError> {
        let (operation, place) = ("make", Place::named(name));
        let mut state = self.state();
        let created = state
            .allow(operation, &place.to_string(), &Place::Host)
            .and_then(|()| names::namespace(name))
            .and_then(|()| {
                if state.names.contains_key(name) {
                    return Err(Cause::AlreadyThere);
                }
                state.last += 1;
                let id = state.last;
                state.names.insert(name.to_owned(), id);
                state.worlds.insert(id, World::new(Weak::new()));
                Ok(())
            });
        created.map_err(NetworkError::at(operation, &place.to_string(), &Place::Host))
    }

    fn remove_namespace(&self, name: &str) -> Result<(), NetworkError> {
        let (operation, place) = ("remove", Place::named(name));
        let mut state = self.state();
        let removed = state.allow(operation, &place.to_string(), &Place::Host).and_then(|()| names::namespace(name));
        let removed = removed.and_then(|()| state.names.remove(name).map(drop).ok_or(Cause::NotThere));
        state.end_abandoned();
        removed.map_err(NetworkError::at(operation, &place.to_string(), &Place::Host))
    }

    fn rename_namespace(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        let (operation, place) = (format!("give the name {to} to"), Place::named(from));
        let mut state = self.state();
        let renamed = state
            .allow(&operation, &place.to_string(), &Place::Host)
            .and_then(|()| names::namespace(to))
            .and_then(|()| {
                let id = state.id_of(&place)?;
                if state.names.contains_key(to) {
                    return Err(Cause::AlreadyThere);
                }
                state.names.remove(from);
                state.names.insert(to.to_owned(), id);
                Ok(())
            });
        renamed.map_err(NetworkError::at(&operation, &place.to_string(), &Place::Host))
    }

    fn name_namespace(&self, place: &Place, name: &str) -> Result<(), NetworkError> {
        let operation = format!("give the name {name} to");
        let mut state = self.state();
        let named = state
            .allow(&operation, &place.to_string(), &Place::Host)
            .and_then(|()| names::namespace(name))
            .and_then(|()| {
                let id = state.id_of(place)?;
                if state.names.contains_key(name) {
                    return Err(Cause::AlreadyThere);
                }
                state.names.insert(name.to_owned(), id);
                Ok(())
            });
        named.map_err(NetworkError::at(&operation, &place.to_string(), &Place::Host))
    }

    fn namespaces(&self) -> Result<Vec<Namespace>, NetworkError> {
        let state = self.state();
        Ok(state.names.iter().map(|(name, id)| Namespace { name: name.clone(), inode: Some(*id) }).collect())
    }

    fn namespace_path(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(name)
    }

    fn open(&self, place: &Place) -> Result<Box<dyn Network>, NetworkError> {
        let mut state = self.state();
        let at = NetworkError::at("open", &place.to_string(), &Place::Host);
        let opened = state.id_of(place).and_then(|id| {
            let world = state.worlds.get_mut(&id).ok_or(Cause::NotThere)?;
            let hold = world.hold.upgrade().unwrap_or_default();
            world.hold = Arc::downgrade(&hold);
            Ok((id, hold))
        });
        let (id, hold) = opened.map_err(at)?;
        Ok(Box::new(FakeNetwork { networks: self.clone(), place: place.clone(), id, _hold: hold }))
    }
}

/// One namespace in memory, held open.
#[derive(Debug)]
struct FakeNetwork {
    networks: FakeNetworks,
    place: Place,
    id: u64,
    _hold: Arc<()>,
}

impl FakeNetwork {
    /// Does a step with everything there is, unless it is to be refused.
    fn with_state<T>(
        &self,
        operation: &str,
        object: &str,
        step: impl FnOnce(&mut State) -> Result<T, Cause>,
    ) -> Result<T, NetworkError> {
        let mut state = self.networks.state();
        let allowed = state.allow(operation, object, &self.place);
        allowed.and_then(|()| step(&mut state)).map_err(NetworkError::at(operation, object, &self.place))
    }

    /// Does a step in this namespace, unless it is to be refused.
    fn step<T>(
        &self,
        operation: &str,
        object: &str,
        step: impl FnOnce(&mut World) -> Result<T, Cause>,
    ) -> Result<T, NetworkError> {
        self.with_state(operation, object, |state| step(state.worlds.get_mut(&self.id).ok_or(Cause::NotThere)?))
    }
}

impl Network for FakeNetwork {
    fn place(&self) -> &Place {
        &self.place
    }

    /// Runs `work` on this thread: there is nothing to enter.
    fn inside(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), NetworkError> {
        self.step("run", "a thread", |_| Ok(()))?;
        work();
        Ok(())
    }

    /// What was set, otherwise `0`.
    fn sysctl(&self, key: &str) -> Result<String, NetworkError> {
        self.step("read", &format!("setting {key}"), |world| {
            world.check_setting(key)?;
            Ok(world.settings.get(key).cloned().unwrap_or_else(|| "0".to_owned()))
        })
    }

    fn set_sysctl(&self, key: &str, value: &str) -> Result<(), NetworkError> {
        self.step("change", &format!("setting {key}"), |world| {
            world.check_setting(key)?;
            world.settings.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }
}

impl World {
    /// Settings of a link are there as long as the link is.
    fn check_setting(&self, key: &str) -> Result<(), Cause> {
        names::sysctl(key)?;
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            [_, "conf" | "neigh", link, _] if !["all", "default"].contains(link) => self.index(link).map(drop),
            _ => Ok(()),
        }
    }
}

impl Traffic for FakeNetwork {
    fn set_limit(&self, link: &str, limit: &Limit) -> Result<(), NetworkError> {
        self.step("limit", &format!("link {link}"), |world| {
            limit.check()?;
            world.link_mut(link)?.limit = Some(*limit);
            Ok(())
        })
    }

    fn remove_limit(&self, link: &str) -> Result<(), NetworkError> {
        self.step("take the limit from", &format!("link {link}"), |world| {
            world.link_mut(link)?.limit.take().map(drop).ok_or(Cause::NotThere)
        })
    }

    fn limit(&self, link: &str) -> Result<Option<Limit>, NetworkError> {
        self.step("look at the limit of", &format!("link {link}"), |world| Ok(world.link_mut(link)?.limit))
    }

    fn forget_connections(&self, addresses: &[IpAddr]) -> Result<usize, NetworkError> {
        self.step("forget", &connections_of(addresses), |world| {
            let before = world.connections.len();
            world.connections.retain(|(from, to)| !addresses.contains(from) && !addresses.contains(to));
            Ok(before - world.connections.len())
        })
    }
}
