//! The layer as its API sees it: who may see which VM, what may be asked, and who is told.

mod error;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_core::Clock;
use futures::Stream;
use observe::traces::Cause;
use sha2::{Digest as _, Sha256};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::assets::{Assets, hex};
use crate::disks::Disks;
use crate::model::{
    Asset, AssetKind, AssetName, Backend, CustomerId, Event, Options, Slot, SpecError, State, Vm, VmId, VmSpec,
};
use crate::plan::Kind;
use crate::ports::{Edges, Hypervisor, Keepers, Kept, StepError, Stray, Wire};
use crate::run::{Command, Context, Enlisted, Happening, Hypervisors, Refusal, Vms, steps};
use crate::store::{Admission, Candidate, VmStore};

/// Events that a listener may be behind.
const EVENTS: usize = 1024;
pub use error::Error;
use error::refused;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name, for the audit record.
    pub who: String,
    /// Whose VMs; nothing for an operator, who sees all.
    pub customer: Option<CustomerId>,
}

/// A VM that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Its id; chosen here where nothing is said.
    pub id: Option<VmId>,
    /// Whose it is to be; the caller's where nothing is said.
    pub customer: Option<CustomerId>,
    /// What it is to be.
    pub spec: VmSpec,
    /// The same request under the same key makes one VM.
    pub idempotency_key: Option<String>,
}

/// Which VMs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In these states; in any when empty.
    pub states: Vec<State>,
    /// After this one, by id.
    pub after: Option<VmId>,
    /// So many at most; all when nothing is said.
    pub limit: Option<u32>,
}

/// What the layer gets from the program around it.
pub struct Ports {
    /// Parents of hypervisors.
    pub keepers: Arc<dyn Keepers>,
    /// Networks.
    pub edges: Arc<dyn Edges>,
    /// Hypervisors.
    pub hypervisors: Vec<Arc<dyn Hypervisor>>,
    /// Which of them new boots use, once it is known.
    pub chosen: watch::Receiver<Option<Result<Backend, StepError>>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Numbers and places.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Disks of VMs.
    pub vms: PathBuf,
    /// Consoles of VMs.
    pub consoles: PathBuf,
    /// The file that is there while maintenance is on. It is none of the database: a copy of that is made in maintenance, as
    /// the guide has it, and whoever restores one wants to go on.
    pub maintenance: PathBuf,
    /// VMs at most.
    pub most_vms: u32,
    /// User and group of the VM in slot 0.
    pub first_uid: u32,
    /// How many users are VMs' own, from that one on.
    pub users: u32,
    /// Networks of VMs, where customers' guests connect only as operators let them.
    pub subnets: Vec<ipnet::IpNet>,
    /// Ports of the host for those who do not name one.
    pub ports: std::ops::RangeInclusive<u16>,
    /// How long a guest may be silent after its start; zero for ever.
    pub sign_of_life: Duration,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// The layer at run time; one per process, shared.
pub struct Service {
    pub(crate) context: Arc<Context>,
    pub(crate) vms: Arc<Vms>,
    limits: Limits,
    maintenance: watch::Sender<bool>,
    newborn: mpsc::UnboundedSender<Enlisted>,
    newborns: Mutex<Option<mpsc::UnboundedReceiver<Enlisted>>>,
    /// VMs are admitted side by side, and none while strays are removed: what is made for it would be taken for one.
    admitting: Arc<tokio::sync::RwLock<()>>,
}

/// What came of a candidate.
enum Admitted {
    /// Its owner will say how its making ended.
    Born(oneshot::Receiver<Result<Arc<Vm>, Refusal>>),
    /// It is not made.
    Not(Admission),
}

impl Service {
    /// Puts the layer together. Nothing runs until [`crate::run`] is called.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn open(
        store: VmStore,
        assets: Assets,
        asset_directory: PathBuf,
        limits: Limits,
        ports: Ports,
        observe: Box<dyn Fn(&Happening<'_>) + Send + Sync>,
    ) -> Result<Arc<Self>, crate::store::Error> {
        let maintenance = limits.maintenance.exists();
        let (newborn, newborns) = mpsc::unbounded_channel();
        let context = Context {
            disks: Disks::new(limits.vms.clone(), asset_directory),
            store,
            clock: ports.clock,
            keepers: ports.keepers,
            edges: ports.edges,
            hypervisors: Hypervisors { all: ports.hypervisors, chosen: ports.chosen },
            assets,
            consoles: limits.consoles.clone(),
            first_uid: limits.first_uid,
            boot_id: limits.boot_id.clone(),
            sign_of_life: limits.sign_of_life,
            events: broadcast::channel(EVENTS).0,
            observe,
        };
        let vms: Arc<Vms> = Arc::default();
        for vm in context.store.all().await? {
            // The receiver is ours, and there.
            let _ = newborn.send(vms.enlist(vm, None, Cause::default()));
        }
        Ok(Arc::new(Self {
            context: Arc::new(context),
            vms,
            limits,
            maintenance: watch::channel(maintenance).0,
            newborn,
            newborns: Mutex::new(Some(newborns)),
            admitting: Arc::default(),
        }))
    }

    /// Makes a VM; it is there, and not booted, when this returns.
    ///
    /// # Errors
    /// What it wishes for cannot be had; nothing is left of it.
    pub async fn create(&self, caller: &Caller, wish: Wish) -> Result<Arc<Vm>, Error> {
        self.changeable()?;
        let mut wrong = wish.spec.check();
        wrong.extend(self.ports_elsewhere(&wish.spec));
        if caller.customer.is_some() {
            wrong.extend(wish.spec.interface().privileged_egress(&self.limits.subnets));
        }
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        let customer = match (&caller.customer, wish.customer) {
            (Some(own), Some(named)) if *own != named => return Err(Error::OtherCustomer(named)),
            (Some(own), _) => own.clone(),
            (None, Some(named)) => named,
            // An operator's own VMs belong to the operator.
            (None, None) => "operator".parse().map_err(|_| Error::Stopping)?,
        };
        // Said before anything is made: a VM that could not boot is not wanted.
        self.context.assets.resolve(&wish.spec).await?;
        let fingerprint = fingerprint(&wish.spec, wish.id.as_ref());
        let vm = Vm::new(wish.id.unwrap_or_else(VmId::random), customer, wish.spec, self.context.clock.now());
        let id = vm.id.clone();
        let candidate = Candidate {
            vm,
            key: wish.idempotency_key.map(|key| (key, fingerprint)),
            most: self.limits.most_vms,
            // One beyond the users that are ours would run as somebody else.
            slots: self.context.edges.capacity().min(self.limits.users),
            ports: self.limits.ports.clone(),
        };
        match self.admit(candidate).await? {
            Admitted::Born(answer) => {
                answer.await.map_err(|_| Error::Stopping)?.map_err(|refusal| refused(Kind::Create, refusal))
            }
            Admitted::Not(admission) => self.not_admitted(id, admission).await,
        }
    }

    /// Writes a candidate down and gives it to its owner, also when the caller leaves meanwhile: a row that nobody owns
    /// would hold its place until the next start.
    async fn admit(&self, candidate: Candidate) -> Result<Admitted, Error> {
        let (context, vms) = (Arc::clone(&self.context), Arc::clone(&self.vms));
        let (newborn, admitting) = (self.newborn.clone(), Arc::clone(&self.admitting));
        let cause = Cause::here();
        let admitted = tokio::spawn(async move {
            let _turn = admitting.read().await;
            let vm = match context.store.admit(candidate).await? {
                Admission::Admitted(vm) => *vm,
                admission => return Ok(Admitted::Not(admission)),
            };
            (context.observe)(&Happening::Begun { kind: Kind::Create });
            let (reply, answer) = oneshot::channel();
            // The row is there: should nobody take it now, the next start does.
            newborn.send(vms.enlist(vm, Some(reply), cause)).map_err(|_| Error::Stopping)?;
            Ok(Admitted::Born(answer))
        });
        admitted.await.unwrap_or(Err(Error::Stopping))
    }

    async fn not_admitted(&self, id: VmId, admission: Admission) -> Result<Arc<Vm>, Error> {
        match admission {
            Admission::Admitted(vm) => {
                self.vms.get(&vm.id).map(|handle| Arc::clone(&handle.vm.borrow())).ok_or(Error::Stopping)
            }
            Admission::Before(id) => {
                let handle = self.vms.get(&id).ok_or(Error::KeyUsed)?;
                let mut watched = handle.vm.clone();
                let settled = watched.wait_for(|vm| vm.state != State::Creating).await;
                settled.map(|vm| Arc::clone(&vm)).map_err(|_| Error::KeyUsed)
            }
            Admission::KeyUsed => Err(Error::KeyUsed),
            Admission::Exists => Err(Error::Exists(id)),
            Admission::Full(most) => Err(Error::Limit(most)),
            Admission::NoSlot => Err(Error::NoAddress),
            Admission::PortTaken(protocol, port) => Err(Error::Port(format!("{port}/{}", protocol.as_str()))),
            Admission::NoPort => Err(Error::Port("of the range".to_owned())),
        }
    }

    /// Ports of the host that are named and do not lead to VMs.
    fn ports_elsewhere(&self, spec: &VmSpec) -> Vec<SpecError> {
        let range = &self.limits.ports;
        let ports = spec.interface().ports;
        let outside =
            ports.iter().enumerate().filter(|(_, port)| port.host_port != 0 && !range.contains(&port.host_port));
        outside
            .map(|(at, port)| SpecError {
                path: format!("/network/0/ports/{at}/host_port"),
                message: format!("{}: only ports {} to {} lead to VMs", port.host_port, range.start(), range.end()),
            })
            .collect()
    }

    /// A VM.
    ///
    /// # Errors
    /// There is none, or it is somebody else's.
    pub async fn get(&self, caller: &Caller, id: &VmId) -> Result<Arc<Vm>, Error> {
        self.seen(caller, id).map(|handle| Arc::clone(&handle.vm.borrow()))
    }

    fn seen(&self, caller: &Caller, id: &VmId) -> Result<crate::run::Handle, Error> {
        let handle = self.vms.get(id).ok_or_else(|| Error::NotFound(id.clone()))?;
        let own = caller.customer.as_ref().is_none_or(|customer| handle.vm.borrow().customer == *customer);
        if own { Ok(handle) } else { Err(Error::NotFound(id.clone())) }
    }

    /// VMs that the caller may see, by id, and how many there are without `after` and `limit`.
    ///
    /// # Errors
    /// None so far.
    pub async fn list(&self, caller: &Caller, filter: &Filter) -> Result<(Vec<Arc<Vm>>, u64), Error> {
        let mut all = self.vms.all();
        all.retain(|vm| {
            caller.customer.as_ref().is_none_or(|customer| vm.customer == *customer)
                && (filter.states.is_empty() || filter.states.contains(&vm.state))
        });
        let total = all.len() as u64;
        all.retain(|vm| filter.after.as_ref().is_none_or(|after| vm.id > *after));
        all.truncate(filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
        Ok((all, total))
    }

    /// Has something done and waits until it is; it goes on when the caller leaves.
    ///
    /// # Errors
    /// It is not possible now, or was tried and given up.
    pub async fn operate(&self, caller: &Caller, id: &VmId, kind: Kind, options: Options) -> Result<Arc<Vm>, Error> {
        let handle = self.seen(caller, id)?;
        self.changeable()?;
        let (reply, answer) = oneshot::channel();
        handle
            .commands
            .send(Command { kind, options, cause: Cause::here(), reply })
            .await
            .map_err(|_| self.left(id))?;
        answer.await.map_err(|_| self.left(id))?.map_err(|refusal| refused(kind, refusal))
    }

    /// Why an owner does not answer any more: its VM is gone, or the daemon stops and leaves the VM as it is.
    fn left(&self, id: &VmId) -> Error {
        if self.vms.get(id).is_some() { Error::Stopping } else { Error::NotFound(id.clone()) }
    }

    /// Deletes a VM; nothing is left of it when this returns.
    ///
    /// # Errors
    /// Something else is being done with it.
    pub async fn delete(&self, caller: &Caller, id: &VmId, options: Options) -> Result<(), Error> {
        self.operate(caller, id, Kind::Delete, options).await.map(drop)
    }

    /// Waits until a VM is in one of these states.
    ///
    /// # Errors
    /// It is not in time, or it is gone.
    pub async fn wait(&self, caller: &Caller, id: &VmId, states: &[State], limit: Duration) -> Result<Arc<Vm>, Error> {
        let mut watched = self.seen(caller, id)?.vm;
        let reached = tokio::time::timeout(limit, watched.wait_for(|vm| states.contains(&vm.state))).await;
        match reached.map(|reached| reached.map(|vm| Arc::clone(&vm))) {
            Ok(Ok(vm)) => Ok(vm),
            Ok(Err(_)) => Err(self.left(id)),
            Err(_) => Err(Error::TimedOut { vm: Arc::clone(&watched.borrow()), limit }),
        }
    }

    /// The network of a VM.
    pub fn wire(&self, vm: &Vm) -> Wire {
        self.context.edges.wire(vm)
    }

    /// Events after one, oldest first, also of VMs that are gone.
    ///
    /// # Errors
    /// The database.
    pub async fn events(
        &self,
        caller: &Caller,
        vm: Option<&VmId>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let customer = caller.customer.as_ref().map(CustomerId::as_str);
        Ok(self.context.store.events(customer, vm.map(VmId::as_str), after, limit).await?)
    }

    /// What happens from now on, to all VMs.
    pub fn watch_events(&self) -> broadcast::Receiver<Event> {
        self.context.events.subscribe()
    }

    /// Whether the caller may see what happens to a VM.
    pub fn may_see(&self, caller: &Caller, id: &VmId) -> bool {
        self.seen(caller, id).is_ok()
    }

    /// File of a VM's console; what came before it is in `<path>.1`.
    pub fn console_path(&self, id: &VmId) -> PathBuf {
        steps::console_path(&self.context, id)
    }

    /// Writes to the guest's serial console.
    ///
    /// # Errors
    /// It does not run.
    pub async fn type_in(&self, caller: &Caller, id: &VmId, bytes: &[u8]) -> Result<(), Error> {
        let vm = self.get(caller, id).await?;
        if vm.state != State::Running {
            return Err(Error::WrongState { kind: Kind::Resume, vm });
        }
        Ok(self.context.keepers.type_in(id, bytes).await?)
    }

    /// Whether changes are refused.
    pub fn maintenance(&self) -> bool {
        *self.maintenance.borrow()
    }

    /// Refuses changes from now on, also after a restart, or takes them again.
    ///
    /// # Errors
    /// The file that stands for it cannot be written or removed.
    pub async fn set_maintenance(&self, on: bool) -> Result<(), Error> {
        let file = self.limits.maintenance.clone();
        let switch = move || if on { host::write_atomic(&file, b"", 0o644) } else { host::remove_if_present(&file) };
        tokio::task::spawn_blocking(switch).await.map_err(|_| Error::Stopping)?.map_err(Error::Maintained)?;
        self.maintenance.send_replace(on);
        tracing::info!(maintenance = on, "maintenance switched");
        Ok(())
    }

    fn changeable(&self) -> Result<(), Error> {
        if self.maintenance() { Err(Error::Maintenance) } else { Ok(()) }
    }

    /// VMs whose hypervisor lives.
    pub fn active_vms(&self) -> BTreeMap<CustomerId, u64> {
        let mut active = BTreeMap::new();
        for vm in self.vms.all().iter().filter(|vm| vm.state.is_live()) {
            *active.entry(vm.customer.clone()).or_insert(0) += 1;
        }
        active
    }

    /// Which hypervisor is used and its version, or why none can be.
    ///
    /// # Errors
    /// A sentence.
    pub async fn backend_health(&self) -> Result<(Backend, String), String> {
        let backend = self.context.hypervisors.choice().await.map_err(|error| error.reason)?;
        let missing = || format!("this host has no {backend}");
        let hypervisor = self.context.hypervisors.get(backend).ok_or_else(missing)?;
        hypervisor.check().await.map(|version| (backend, version)).map_err(|error| error.reason)
    }

    /// All assets.
    ///
    /// # Errors
    /// The database.
    pub async fn assets(&self) -> Result<Vec<Asset>, Error> {
        Ok(self.context.assets.list().await?)
    }

    /// Keeps an asset.
    ///
    /// # Errors
    /// See [`Assets::add`].
    pub async fn add_asset(
        &self,
        name: AssetName,
        kind: AssetKind,
        content: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Asset, Error> {
        self.changeable()?;
        Ok(self.context.assets.add(name, kind, content).await?)
    }

    /// Takes an asset's name away.
    ///
    /// # Errors
    /// A VM needs it.
    pub async fn remove_asset(&self, name: &AssetName) -> Result<(), Error> {
        self.changeable()?;
        Ok(self.context.assets.remove(name, &self.vms.all()).await?)
    }

    /// Removes files of assets without a name: hashes and bytes.
    ///
    /// # Errors
    /// The directory.
    pub async fn collect_assets(&self, dry_run: bool) -> Result<Vec<(String, u64)>, Error> {
        if !dry_run {
            self.changeable()?;
        }
        Ok(self.context.assets.collect(dry_run).await?)
    }

    /// What on this host belongs to no VM.
    ///
    /// # Errors
    /// A part of the host cannot be looked at.
    pub async fn strays(&self) -> Result<Vec<Stray>, Error> {
        let vms = self.vms.all();
        let ids: Vec<VmId> = vms.iter().map(|vm| vm.id.clone()).collect();
        let slots: Vec<(VmId, Slot)> = vms.iter().map(|vm| (vm.id.clone(), vm.slot)).collect();
        let mut strays = self.context.keepers.strays(&ids).await?;
        for hypervisor in &self.context.hypervisors.all {
            strays.extend(hypervisor.strays(&ids).await?);
        }
        strays.extend(self.context.edges.strays(&slots).await?);
        strays.extend(self.context.disks.strays(&ids)?);
        strays.sort_by_key(|stray| (stray.kind != "process", stray.clone()));
        Ok(strays)
    }

    /// Removes what [`Service::strays`] finds, and gives it back.
    ///
    /// # Errors
    /// Something cannot be removed; what came before it is gone.
    pub async fn remove_strays(&self) -> Result<Vec<Stray>, Error> {
        self.changeable()?;
        let _turn = self.admitting.write().await;
        let strays = self.strays().await?;
        for stray in &strays {
            // Processes go first by the order of the names; every port knows its own.
            self.context.keepers.remove_stray(stray).await?;
            for hypervisor in &self.context.hypervisors.all {
                hypervisor.remove_stray(stray).await?;
            }
            self.context.edges.remove_stray(stray).await?;
            if stray.kind == crate::disks::STRAY
                && let Ok(id) = stray.name.parse()
            {
                self.context.disks.remove(&id).await?;
            }
            tracing::info!(kind = stray.kind, name = stray.name, "stray removed");
        }
        Ok(strays)
    }

    /// Rules, counters and addresses, for people.
    ///
    /// # Errors
    /// There is no such VM, or the host does not tell.
    pub async fn show_network(&self, caller: &Caller, id: Option<&VmId>) -> Result<serde_json::Value, Error> {
        let vm = match id {
            Some(id) => Some(self.get(caller, id).await?),
            None => None,
        };
        Ok(self.context.edges.show(vm.as_deref()).await?)
    }

    /// Whether the process of a VM runs, and which one it is.
    ///
    /// # Errors
    /// The keeper cannot be asked.
    pub async fn process(&self, id: &VmId) -> Result<Option<u32>, Error> {
        match self.context.keepers.look(id).await? {
            Kept::Running { pid } => Ok(Some(pid)),
            _ => Ok(None),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn take_newborns(&self) -> Option<mpsc::UnboundedReceiver<Enlisted>> {
        self.newborns.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a key stands for.
fn fingerprint(spec: &VmSpec, id: Option<&VmId>) -> String {
    let text = serde_json::json!({ "spec": spec, "id": id }).to_string();
    hex(&Sha256::digest(text.as_bytes()))
}
