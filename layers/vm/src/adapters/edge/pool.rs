//! Namespaces that are made before they are needed: everything in them that does not depend on the VM.
//!
//! A member is whole when its ruleset is loaded, which comes last. One that a kill left half made, or claimed under both
//! names, loses its name at start.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::network::{NetworkError, Networks, Place, Repeatable};
use tokio::sync::Notify;

use super::inside;
use super::layout::NAMESPACE_PREFIX;
use super::rulesets::Ruleset;

/// Beginning of the names of members.
pub(super) const POOL_PREFIX: &str = "ns_pool_";

/// The members that are whole.
#[derive(Debug)]
pub(super) struct Pool {
    size: usize,
    members: Mutex<Vec<String>>,
    /// What an earlier process made was looked at.
    adopted: AtomicBool,
    /// Somebody took one.
    pub(super) taken: Notify,
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        Self { size, members: Mutex::default(), adopted: AtomicBool::new(false), taken: Notify::new() }
    }

    fn members(&self) -> MutexGuard<'_, Vec<String>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of members.
    pub(super) fn names(&self) -> Vec<String> {
        self.members().clone()
    }

    /// Takes over what an earlier process made, and removes what it made by half.
    pub(super) fn adopt(&self, networks: &dyn Networks, ruleset: &Ruleset) -> Result<(), NetworkError> {
        let mut members = self.members();
        if self.adopted.load(Ordering::Relaxed) {
            // One that is half made now is being made by this process.
            return Ok(());
        }
        let all = networks.namespaces()?;
        let claimed: BTreeSet<u64> =
            all.iter().filter(|one| one.name.starts_with(NAMESPACE_PREFIX)).filter_map(|one| one.inode).collect();
        for one in all.iter().filter(|one| one.name.starts_with(POOL_PREFIX)) {
            if members.contains(&one.name) {
                continue;
            }
            let free = one.inode.is_some_and(|inode| !claimed.contains(&inode)) && members.len() < self.size;
            if free && inside::is_prepared(&*networks.open(&Place::named(&one.name))?, ruleset)? {
                members.push(one.name.clone());
            } else {
                networks.remove_namespace(&one.name).or_not_there()?;
            }
        }
        self.adopted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives a member another name. Nothing is claimed when there is none.
    pub(super) fn claim(&self, networks: &dyn Networks, name: &str) -> Result<bool, NetworkError> {
        loop {
            let Some(member) = self.members().pop() else { return Ok(false) };
            self.taken.notify_one();
            match networks.rename_namespace(&member, name) {
                Ok(()) => return Ok(true),
                // Somebody removed it.
                Err(error) if error.is_not_there() => {}
                Err(error) => {
                    self.members().push(member);
                    return Err(error);
                }
            }
        }
    }

    /// Makes members until there are enough.
    pub(super) fn fill(&self, networks: &dyn Networks, ruleset: &Ruleset) -> Result<usize, NetworkError> {
        let mut made = 0;
        while self.members().len() < self.size {
            let name = format!("{POOL_PREFIX}{:016x}", rand::random::<u64>());
            networks.create_namespace(&name)?;
            let prepared = networks.open(&Place::named(&name)).and_then(|network| inside::prepare(&*network, ruleset));
            if let Err(error) = prepared {
                networks.remove_namespace(&name).or_not_there()?;
                return Err(error);
            }
            self.members().push(name);
            made += 1;
        }
        Ok(made)
    }
}
