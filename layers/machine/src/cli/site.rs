//! An inventory, the machines of it that are meant, and what is kept about them.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_core::{Clock as _, ErrorKind, SystemClock, chain};
use cli::read_secret;
use kube::ResourceExt as _;
use reach::ssh::{Connections, KeepAlive};
use secrecy::SecretString;
use store::Store;
use web::Problem;

use super::Place;
use crate::adapters::ssh::Ssh;
use crate::errors;
use crate::inventory::{Error as InventoryError, Inventory};
use crate::model::MachineName;
use crate::plan::Fault;
use crate::resolve::{self, Known};
use crate::resources::{Machine, NixosConfiguration};
use crate::store::{Error as StoreError, MIGRATIONS, MachineStore};

/// All of it.
pub(super) struct Site {
    pub(super) inventory: Inventory,
    pub(super) chosen: Vec<MachineName>,
    pub(super) store: MachineStore,
    pub(super) state: PathBuf,
    pub(super) parallel: usize,
    connections: Arc<Connections>,
    key: Option<SecretString>,
    strict: bool,
}

impl Site {
    pub(super) async fn open(place: &Place) -> Result<Self, Problem> {
        let inventory = Inventory::read(&place.inventory).map_err(|error| inventory_problem(&error))?;
        let chosen = chosen(&inventory, place)?;
        let state = match &place.state_directory {
            Some(directory) => directory.clone(),
            None => default_state()?,
        };
        let store = open_store(&state).await?;
        if place.trust_new_host_keys {
            for machine in &chosen {
                store.distrust(machine).await.map_err(|error| store_problem(&error))?;
            }
        }
        Ok(Self {
            inventory,
            chosen,
            store,
            state,
            parallel: place.parallel.into(),
            connections: Arc::new(Connections::new(KeepAlive::default())),
            key: place.ssh_key.as_deref().map(read_secret).transpose()?,
            strict: place.strict_host_keys,
        })
    }

    pub(super) fn machine(&self, name: &MachineName) -> Result<&Machine, Fault> {
        self.inventory.machine(name.namespace(), name.name()).ok_or_else(|| {
            let message = format!("the inventory has no machine {name}");
            Fault::lasting(ErrorKind::NotFound, errors::MACHINE_NOT_FOUND, message)
        })
    }

    pub(super) fn configuration(&self, name: &MachineName) -> Result<&NixosConfiguration, Fault> {
        self.inventory.configuration_of(self.machine(name)?).ok_or_else(|| {
            let message = format!("no NixosConfiguration of the inventory is for {name}");
            Fault::lasting(ErrorKind::NotFound, errors::MACHINE_NOT_FOUND, message)
        })
    }

    /// A machine over SSH, with the host key that is known of it.
    pub(super) async fn ssh(&self, name: &MachineName) -> Result<Ssh, Fault> {
        let host_key = self.store.host_key(name).await.map_err(|error| store_fault(&error))?;
        let known = Known { host_key, key: self.key.as_ref(), strict: self.strict };
        let target = resolve::target(&self.inventory, self.machine(name)?, &known);
        Ok(Ssh::new(target.map_err(|error| resolve_fault(&error))?, Arc::clone(&self.connections)))
    }

    /// Keeps the key of a machine that was connected to: from now on it is the only one.
    pub(super) async fn keep_key(&self, name: &MachineName, ssh: &Ssh) -> Result<(), Fault> {
        let Some(key) = ssh.host_key() else { return Ok(()) };
        let kept = self.store.trust(name, &key.to_string(), SystemClock.now()).await;
        kept.map_err(|error| store_fault(&error))
    }
}

pub(super) async fn open_store(state: &std::path::Path) -> Result<MachineStore, Problem> {
    let failed = |detail: String| Problem::new(ErrorKind::Failed, errors::MACHINE_STATE, detail);
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700)
        .create(state.join("locks"))
        .map_err(|error| failed(format!("cannot make {}: {error}", state.display())))?;
    let store = Store::open(&state.join("machine.db"), MIGRATIONS).await;
    let store = store.map_err(|error| Problem::new(error.kind(), errors::MACHINE_STATE, chain(&error)))?;
    Ok(MachineStore::new(store))
}

pub(super) fn default_state() -> Result<PathBuf, Problem> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/cairn/machine".into());
    }
    let environment = settings::process_environment();
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("cairn/machine")).ok_or_else(|| {
        Problem::new(ErrorKind::Invalid, errors::MACHINE_STATE, "nobody says where state is kept")
            .hint("give --state-directory")
    })
}

/// The machines that are meant, in the order of the inventory.
fn chosen(inventory: &Inventory, place: &Place) -> Result<Vec<MachineName>, Problem> {
    let words: Vec<&String> = place.machines.iter().chain(&place.on).collect();
    let mut chosen = Vec::new();
    let mut used = vec![false; words.len()];
    for entry in &inventory.machines {
        let name = resolve::name(&entry.object).map_err(|error| fault_problem(&resolve_fault(&error)))?;
        let mut is_meant = words.is_empty();
        for (word, used) in words.iter().zip(&mut used) {
            if matches(word, &name, &entry.object) {
                *used = true;
                is_meant = true;
            }
        }
        if is_meant {
            chosen.push(name);
        }
    }
    if let Some((word, _)) = words.iter().zip(&used).find(|(_, used)| !**used) {
        let known = inventory.machines.iter().map(|entry| entry.object.name_any()).collect::<Vec<_>>().join(", ");
        let detail = format!("no machine of the inventory is {word}");
        return Err(Problem::new(ErrorKind::NotFound, errors::MACHINE_NOT_FOUND, detail)
            .hint(format!("it has {known}; @KEY and @KEY=VALUE mean labels")));
    }
    Ok(chosen)
}

fn matches(word: &str, name: &MachineName, machine: &Machine) -> bool {
    match word.strip_prefix('@').map(|label| label.split_once('=').map_or((label, None), |(k, v)| (k, Some(v)))) {
        Some((key, value)) => {
            let found = machine.labels().get(key);
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        }
        None => word == name.as_str() || word == name.name(),
    }
}

pub(super) fn inventory_problem(error: &InventoryError) -> Problem {
    Problem::new(ErrorKind::Invalid, errors::MACHINE_INVENTORY, chain(error))
        .hint("--inventory names a file or directory; cairn explain machine_inventory shows one")
}

pub(super) fn resolve_fault(error: &resolve::Error) -> Fault {
    Fault::lasting(ErrorKind::Invalid, errors::MACHINE_INVENTORY, error.to_string())
}

pub(super) fn store_fault(error: &StoreError) -> Fault {
    Fault::lasting(ErrorKind::Failed, errors::MACHINE_STATE, chain(error))
}

pub(super) fn store_problem(error: &StoreError) -> Problem {
    fault_problem(&store_fault(error))
}

pub(super) fn fault_problem(fault: &Fault) -> Problem {
    let problem = Problem::new(fault.kind, fault.code, fault.message.clone());
    if fault.log.is_empty() { problem } else { problem.hint(fault.log.clone()) }
}

/// What went wrong with machines: as one says it, or how many of how many.
pub(super) fn several(failed: Vec<(MachineName, Problem)>, all: usize) -> Result<(), Problem> {
    let count = failed.len();
    let same = failed.windows(2).all(|two| two[0].1.kind() == two[1].1.kind());
    let Some((name, first)) = failed.into_iter().next() else { return Ok(()) };
    if all == 1 {
        return Err(first);
    }
    let kind = if count == all && same { first.kind() } else { ErrorKind::Partial };
    let detail = format!("{count} of {all} machines failed; the first is {name}: {}", first.detail);
    Err(Problem::new(kind, errors::MACHINE_PARTLY, detail))
}
