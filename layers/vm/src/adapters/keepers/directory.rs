//! The files of keepers, as the daemon reads, writes and removes them.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use host::{FileError, Group, Hierarchies, PidFd, Signal};
use keeper::{Directory, Ended, Keeper, Life, Order, Process};

use super::{KILLED, blocking, failed};
use crate::model::VmId;
use crate::ports::StepError;

/// What is being removed begins with this, so that nobody takes half of it for a keeper's.
const REMOVED: &str = ".removed-";

/// What a keeper has written down, and what of it lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) process: Option<Process>,
    pub(super) ended: Option<Ended>,
    /// The keeper, while it lives.
    pub(super) keeper: Option<Keeper>,
}

impl Seen {
    /// Nobody has to do anything: it has ended, or it runs and has a keeper that is at work.
    pub(super) fn is_settled(&self) -> bool {
        self.ended.is_some() || (self.process.is_some() && self.keeper.as_ref().is_some_and(|keeper| keeper.at_work))
    }

    /// There is nothing and nobody.
    pub(super) fn is_nothing(&self) -> bool {
        self.process.is_none() && self.ended.is_none() && self.keeper.is_none()
    }
}

pub(super) async fn see(directory: &Directory) -> Result<Seen, StepError> {
    let directory = directory.clone();
    blocking(move || {
        // In the order in which they are written, so that nothing is missed that is said to be there.
        let keeper = directory.keeper().map_err(failed)?;
        let keeper = keeper.filter(|keeper| keeper.identity.life().is_ok_and(|life| life == Life::Running));
        let process = directory.process().map_err(failed)?;
        let ended = directory.ended().map_err(failed)?;
        Ok(Seen { process, ended, keeper })
    })
    .await
}

/// Makes the directory of all keepers, and ends what an earlier daemon began to remove.
pub(super) fn prepare(path: &Path) -> Result<(), StepError> {
    make(path)?;
    for name in names(path)? {
        if name.starts_with(REMOVED) {
            remove_all(&path.join(name))?;
        }
    }
    Ok(())
}

pub(super) async fn write_order(directory: &Directory, order: &Order) -> Result<(), StepError> {
    let (directory, order) = (directory.clone(), order.clone());
    blocking(move || {
        make(directory.path())?;
        directory.write_order(&order).map_err(failed)
    })
    .await
}

pub(super) async fn ids(path: &Path) -> Result<Vec<VmId>, StepError> {
    let path = path.to_owned();
    blocking(move || Ok(names(&path)?.iter().filter_map(|name| name.parse().ok()).collect())).await
}

/// Kills the process and all it has begun, and waits until they are gone.
pub(super) async fn kill(process: Process) -> Result<(), StepError> {
    blocking(move || {
        let at = |source: io::Error| {
            failed(FileError::at("kill", &PathBuf::from(format!("/proc/{}", process.identity.pid)))(source))
        };
        // The handle first: what has this number then keeps it as long as the handle is open.
        let handle = PidFd::open(process.identity.pid).map_err(at)?;
        if let Some(handle) = handle.filter(|_| process.identity.is_running().unwrap_or(false)) {
            handle.signal(Signal::KILL).map_err(at)?;
        }
        Group::of(process.control_groups).kill(KILLED).map_err(failed)
    })
    .await
}

pub(super) async fn remove_groups(directories: Vec<PathBuf>) -> Result<(), StepError> {
    blocking(move || {
        let group = Group::of(directories);
        group.kill(KILLED).and_then(|()| group.remove()).map_err(failed)
    })
    .await
}

/// Removes a directory, unless a keeper is at work there. One that has only just been started then finds nothing. `group` is
/// the control group that a keeper may have made and not come to write down; it goes first.
pub(super) async fn remove(directory: &Directory, group: Option<String>) -> Result<bool, StepError> {
    let directory = directory.clone();
    blocking(move || {
        let path = directory.path();
        if !path.exists() {
            return Ok(true);
        }
        let lock = match directory.lock() {
            Err(keeper::Error::Locked { .. }) => return Ok(false),
            lock => lock.map_err(failed)?,
        };
        if let Some(name) = group {
            let group = Hierarchies::of_host().and_then(|trees| trees.group(&name)).map_err(failed)?;
            group.kill(KILLED).and_then(|()| group.remove()).map_err(failed)?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let removed = path.with_file_name(format!("{REMOVED}{name}"));
        remove_all(&removed)?;
        std::fs::rename(path, &removed).map_err(FileError::at("rename", path)).map_err(failed)?;
        drop(lock);
        remove_all(&removed)?;
        Ok(true)
    })
    .await
}

fn make(path: &Path) -> Result<(), StepError> {
    DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(FileError::at("make", path)).map_err(failed)
}

fn names(path: &Path) -> Result<Vec<String>, StepError> {
    let list = || -> io::Result<Vec<String>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().map_err(FileError::at("list", path)).map_err(failed)
}

fn remove_all(path: &Path) -> Result<(), StepError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(FileError::at("remove", path)(error))),
        _ => Ok(()),
    }
}
