//! The networks of the machine that this program runs on.

mod addresses;
mod conntrack;
mod elements;
mod filter;
mod limit;
mod links;
mod namespaces;
mod neighbours;
mod netlink;
mod routes;
mod tap;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use netlink::{Connection, Refusal, numbers};

use super::error::{Cause, NetworkError};
use super::names;
use super::namespace::{Network, Place};
use crate::file::FileError;

pub use namespaces::LinuxNetworks;

/// One namespace of this machine, held open.
#[derive(Debug)]
struct LinuxNetwork {
    networks: LinuxNetworks,
    place: Place,
    /// Nothing for the one that the caller is in.
    handle: Option<File>,
    route: Connection,
    /// Opened when it is first needed: a host may lack it and never need it.
    netfilter: OnceLock<Connection>,
}

impl LinuxNetwork {
    fn open(networks: &LinuxNetworks, place: &Place) -> Result<Self, Cause> {
        let handle = networks.handle(place)?;
        let route = within(handle.as_ref(), || Connection::open(numbers::NETLINK_ROUTE))??;
        let (networks, place) = (networks.clone(), place.clone());
        Ok(Self { networks, place, handle, route, netfilter: OnceLock::new() })
    }

    fn netfilter(&self) -> Result<&Connection, Cause> {
        if let Some(connection) = self.netfilter.get() {
            return Ok(connection);
        }
        let opened = within(self.handle.as_ref(), || Connection::open(numbers::NETLINK_NETFILTER))?;
        let connection = opened.map_err(|error| match error.raw_os_error() {
            Some(numbers::EPROTONOSUPPORT) => Cause::Missing("the kernel's module nfnetlink".to_owned()),
            _ => error.into(),
        })?;
        Ok(self.netfilter.get_or_init(|| connection))
    }

    /// For `map_err`: names the step.
    fn at(&self, operation: &str, object: &str) -> impl FnOnce(Cause) -> NetworkError + use<> {
        NetworkError::at(operation, object, &self.place)
    }
}

impl Network for LinuxNetwork {
    fn place(&self) -> &Place {
        &self.place
    }

    fn inside(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), NetworkError> {
        within(self.handle.as_ref(), work).map_err(Cause::from).map_err(self.at("run", "a thread"))
    }

    fn sysctl(&self, key: &str) -> Result<String, NetworkError> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(FileError::at("read", path));
        self.with_sysctl(key, read).map(|value| value.trim().to_owned()).map_err(self.at("read", &setting(key)))
    }

    fn set_sysctl(&self, key: &str, value: &str) -> Result<(), NetworkError> {
        let write = |path: &Path| std::fs::write(path, value).map_err(FileError::at("write", path));
        self.with_sysctl(key, write).map_err(self.at("change", &setting(key)))
    }
}

impl LinuxNetwork {
    /// Uses the file of a setting on a thread in the namespace: which one it shows depends on who opens it.
    fn with_sysctl<T: Send>(
        &self,
        key: &str,
        work: impl FnOnce(&Path) -> Result<T, FileError> + Send,
    ) -> Result<T, Cause> {
        names::sysctl(key)?;
        let path = Path::new("/proc/sys/net").join(key);
        within(self.handle.as_ref(), || work(&path))?.map_err(|error| match error.source.kind() {
            io::ErrorKind::NotFound => Cause::NotThere,
            _ => Cause::File(error),
        })
    }
}

fn setting(key: &str) -> String {
    format!("setting {key}")
}

/// Runs `work` on a thread in a namespace, or on this one when there is none to enter.
fn within<T: Send>(handle: Option<&File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(handle) = handle else { return Ok(work()) };
    let entered = || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(handle.as_fd(), Some(kind))?;
        Ok(work())
    };
    on_thread(entered)
}

/// Runs `work` on a thread of its own, which may then be in another namespace, and waits for it.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        match refusal.source.raw_os_error() {
            Some(numbers::EEXIST) => Self::AlreadyThere,
            Some(numbers::ENOENT | numbers::ENODEV | numbers::ESRCH | numbers::EADDRNOTAVAIL) => Self::NotThere,
            _ => Self::Kernel { explanation: refusal.explanation, source: refusal.source },
        }
    }
}

/// One cause for a list of changes: the first that is not `expected`, else `expected` itself.
fn worst(refusals: Vec<Refusal>, expected: fn(&Cause) -> bool) -> Option<(usize, Cause)> {
    let mut causes = refusals.into_iter().map(|refusal| (refusal.index, Cause::from(refusal)));
    let first = causes.next()?;
    if !expected(&first.1) {
        return Some(first);
    }
    Some(causes.find(|(_, cause)| !expected(cause)).unwrap_or(first))
}
