//! The layer's daemon: one owner task for each VM. `owner` decides and writes down, `steps` does.

mod owner;
mod spans;
pub(crate) mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use cairn_core::Clock;
use observe::traces::Cause;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::assets::Assets;
use crate::disks::Disks;
use crate::model::{Backend, Event, Failure, Options, Vm, VmId};
use crate::plan::{Kind, Step};
use crate::ports::{Edges, Hypervisor, Keepers, StepError};
use crate::store::VmStore;

/// What owners work with.
pub(crate) struct Context {
    pub(crate) store: VmStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keepers: Arc<dyn Keepers>,
    pub(crate) edges: Arc<dyn Edges>,
    pub(crate) hypervisors: Hypervisors,
    pub(crate) assets: Assets,
    pub(crate) disks: Disks,
    pub(crate) consoles: PathBuf,
    pub(crate) first_uid: u32,
    /// The kernel's boot id.
    pub(crate) boot_id: String,
    /// How long a guest may be silent after its start; zero for ever.
    pub(crate) sign_of_life: Duration,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) observe: Box<dyn Fn(&Happening<'_>) + Send + Sync>,
}

/// What others may want to count.
#[derive(Debug)]
pub(crate) enum Happening<'a> {
    /// An operation was begun.
    Begun { kind: Kind },
    /// An operation is over.
    Over { kind: Kind, backend: Option<Backend>, failure: Option<&'a Failure>, took: Duration, forced: bool },
    /// A step did not succeed.
    Refused { step: Step, backend: Option<Backend>, code: &'a str },
    /// Processors run, so long after the boot was asked for.
    Running { kind: Kind, backend: Backend, took: Duration },
    /// The guest said something on its console, so long after its start.
    Alive { backend: Backend, took: Duration },
    /// A hypervisor's process is gone.
    Exited { backend: Option<Backend>, code: Option<i32> },
}

/// The hypervisors of this host, and which one is used.
pub(crate) struct Hypervisors {
    pub(crate) all: Vec<Arc<dyn Hypervisor>>,
    /// Which one new boots use, or why none can be.
    pub(crate) chosen: watch::Receiver<Option<Result<Backend, StepError>>>,
}

impl Hypervisors {
    pub(crate) fn get(&self, backend: Backend) -> Option<&Arc<dyn Hypervisor>> {
        self.all.iter().find(|hypervisor| hypervisor.backend() == backend)
    }

    /// Waits until it is known.
    pub(crate) async fn choice(&self) -> Result<Backend, StepError> {
        let mut chosen = self.chosen.clone();
        let known = chosen.wait_for(Option::is_some).await.map(|known| known.clone());
        let unknown = || StepError::new(crate::errors::HYPERVISOR_MISSING, "nobody has chosen a hypervisor");
        known.ok().flatten().unwrap_or_else(|| Err(unknown()))
    }
}

/// What an owner is asked.
pub(crate) struct Command {
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    /// What it is asked for.
    pub(crate) cause: Cause,
    pub(crate) reply: oneshot::Sender<Result<Arc<Vm>, Refusal>>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Not in this state.
    WrongState(Arc<Vm>),
    /// Something else is being done.
    Busy(Arc<Vm>),
    /// It was tried and given up.
    Failed(Failure),
    /// The VM is gone.
    Gone(VmId),
    /// The database does not take it.
    Database(String),
}

/// Where an owner is reached, and what its VM is now.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) vm: watch::Receiver<Arc<Vm>>,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// All VMs of this host.
#[derive(Default)]
pub(crate) struct Vms(RwLock<BTreeMap<VmId, Handle>>);

impl Vms {
    pub(crate) fn get(&self, id: &VmId) -> Option<Handle> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Vm>> {
        let all = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.values().map(|handle| Arc::clone(&handle.vm.borrow())).collect()
    }

    fn insert(&self, id: VmId, handle: Handle) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, handle);
    }

    /// Strikes a VM, unless another one has its id by now.
    fn remove(&self, id: &VmId, own: &watch::Receiver<Arc<Vm>>) {
        let mut all = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.get(id).is_some_and(|handle| handle.vm.same_channel(own)) {
            all.remove(id);
        }
    }
}

/// Commands that wait for an owner.
const WAITING: usize = 16;

/// A VM that is known and has no owner yet; commands wait for one.
pub(crate) struct Enlisted {
    vm: watch::Sender<Arc<Vm>>,
    commands: mpsc::Receiver<Command>,
    reply: Option<oneshot::Sender<Result<Arc<Vm>, Refusal>>>,
    cause: Cause,
}

impl Vms {
    /// From now on it is known. `reply` is told how the operation ended that its row holds, and `cause` is what that is done
    /// for.
    pub(crate) fn enlist(
        &self,
        vm: Vm,
        reply: Option<oneshot::Sender<Result<Arc<Vm>, Refusal>>>,
        cause: Cause,
    ) -> Enlisted {
        let (commands, received) = mpsc::channel(WAITING);
        let id = vm.id.clone();
        let (told, watched) = watch::channel(Arc::new(vm));
        self.insert(id, Handle { vm: watched, commands });
        Enlisted { vm: told, commands: received, reply, cause }
    }
}

/// Gives a VM its owner.
fn own(
    context: &Arc<Context>,
    vms: &Arc<Vms>,
    tasks: &mut JoinSet<()>,
    enlisted: Enlisted,
    shutdown: &CancellationToken,
) {
    let (id, own) = (enlisted.vm.borrow().id.clone(), enlisted.vm.subscribe());
    let (context, vms, shutdown) = (Arc::clone(context), Arc::clone(vms), shutdown.clone());
    tasks.spawn(observe::tasks::named(format!("vm {id}"), async move {
        let mut owner = owner::Owner::new(context, enlisted, shutdown, Box::new(move || vms.remove(&id, &own)));
        owner.run().await;
    }));
}

/// A task of the layer panicked. The process ends: what the panic left behind is not known, and a restart reconciles.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Which one is in the log.
    #[error("a task of the vm layer panicked")]
    Panicked(#[source] tokio::task::JoinError),
    /// The rows could not be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// What all VMs share could not be set up.
    #[error("the network that VMs share cannot be set up")]
    Network(#[source] StepError),
}

impl RunError {
    /// Stable code, with a page in docs/errors/.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Panicked(_) => web::codes::SERVER_ERROR,
            Self::Store(_) => "database",
            Self::Network(error) => error.code,
        }
    }
}

/// Between two looks at what is older than it has to be.
const PRUNE: Duration = Duration::from_hours(1);
/// How long an idempotency key stands.
const KEYS: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Runs until `shutdown`. Guests go on; the next start finds them again.
///
/// # Errors
/// A task panicked, or the start did not come off.
pub async fn run(service: Arc<crate::Service>, shutdown: CancellationToken) -> Result<(), RunError> {
    let context = Arc::clone(&service.context);
    let Some(mut newborns) = service.take_newborns() else { return Ok(()) };
    context.edges.open().await.map_err(RunError::Network)?;
    let mut tasks = JoinSet::new();
    let (pool, token) = (Arc::clone(&context), shutdown.clone());
    tasks.spawn(async move { pool.edges.keep_pool(&token).await });
    let mut prune = tokio::time::interval(PRUNE);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(enlisted) = newborns.recv() => own(&context, &service.vms, &mut tasks, enlisted, &shutdown),
            Some(ended) = tasks.join_next() => ended.map_err(RunError::Panicked)?,
            _ = prune.tick() => {
                let oldest = context.clock.now().saturating_sub(KEYS).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                if let Err(error) = context.store.prune(oldest).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old records stay");
                }
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(RunError::Panicked)?;
    }
    Ok(())
}
