//! A host that is played: keepers, hypervisors and networks in memory. It keeps the rules of the real ones, remembers every
//! call, and can refuse a call or stop in the middle of one, before or after its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::errors;
use crate::model::{Backend, Slot, Vm, VmId};
use crate::ports::{
    Edges, Exit, ForeignDrop, GuestAddresses, Hypervisor, Keepers, Kept, Launch, Look, StepError, Stepped, Stray, Wire,
};

/// A process that is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    look: Look,
    exit: Option<Exit>,
}

/// Where a call stops for ever, as a process does that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Before it does anything.
    Before(usize),
    /// When it has done it, and nobody was told.
    After(usize),
}

#[derive(Debug, Default)]
struct State {
    processes: BTreeMap<VmId, Process>,
    jails: BTreeSet<VmId>,
    networks: BTreeMap<VmId, Slot>,
    calls: Vec<String>,
    changes: usize,
    stop: Option<Stop>,
    refuse: BTreeMap<String, u32>,
    deaf: bool,
    starts: BTreeMap<VmId, u32>,
}

/// See the module. Clones share the host.
#[derive(Debug, Clone)]
pub struct FakeHost {
    state: std::sync::Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self { state: std::sync::Arc::default(), changed: watch::channel(()).0 }
    }
}

impl FakeHost {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every call that changes something, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// How many calls that change something there were.
    pub fn changes(&self) -> usize {
        self.lock().changes
    }

    /// Stops one of the calls to come that change something, counted from 0; nothing lets them all go on.
    pub fn stop_at(&self, stop: Option<Stop>) {
        let mut state = self.lock();
        state.changes = 0;
        state.stop = stop;
    }

    /// Refuses a call so many times.
    pub fn refuse(&self, call: &str, times: u32) {
        self.lock().refuse.insert(call.to_owned(), times);
    }

    /// Guests do not obey when they are asked to end.
    pub fn deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    /// A guest ends by itself.
    pub fn end(&self, id: &VmId, exit: Exit) {
        if let Some(process) = self.lock().processes.get_mut(id) {
            process.exit = Some(exit);
        }
        self.changed.send_replace(());
    }

    /// The host is restarted: processes and networks are gone, files stay.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.processes.clear();
        state.networks.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// What is there: processes that run, jails, networks.
    pub fn there(&self) -> (Vec<VmId>, Vec<VmId>, Vec<VmId>) {
        let state = self.lock();
        let running = state.processes.iter().filter(|(_, process)| process.exit.is_none());
        (
            running.map(|(id, _)| id.clone()).collect(),
            state.jails.iter().cloned().collect(),
            state.networks.keys().cloned().collect(),
        )
    }

    /// How often processes were begun for a VM.
    pub fn starts(&self, id: &VmId) -> u32 {
        self.lock().starts.get(id).copied().unwrap_or_default()
    }

    /// Does something, unless it is refused or stopped.
    async fn change<T>(&self, call: &str, id: &VmId, change: impl FnOnce(&mut State) -> T) -> Result<T, StepError> {
        let (stop, refused) = {
            let mut state = self.lock();
            let at = state.changes;
            state.changes += 1;
            state.calls.push(format!("{call} {id}"));
            let refused = state.refuse.get_mut(call).is_some_and(|times| {
                let refused = *times > 0;
                *times = times.saturating_sub(1);
                refused
            });
            (state.stop.filter(|stop| matches!(stop, Stop::Before(call) | Stop::After(call) if *call == at)), refused)
        };
        if matches!(stop, Some(Stop::Before(_))) {
            std::future::pending::<()>().await;
        }
        if refused {
            return Err(StepError::new(errors::HYPERVISOR, format!("{call} was refused: /played/{call}")));
        }
        let done = change(&mut self.lock());
        self.changed.send_replace(());
        if matches!(stop, Some(Stop::After(_))) {
            std::future::pending::<()>().await;
        }
        Ok(done)
    }

    fn strays_of<'a>(kind: &str, there: impl Iterator<Item = &'a VmId>, known: &[VmId]) -> Vec<Stray> {
        there.filter(|id| !known.contains(id)).map(|id| Stray { kind: kind.to_owned(), name: id.to_string() }).collect()
    }
}

impl Keepers for FakeHost {
    fn start<'a>(&'a self, id: &'a VmId, _order: &'a keeper::Order) -> Stepped<'a> {
        self.change("keeper", id, |state| {
            if !state.processes.contains_key(id) {
                state.processes.insert(id.clone(), Process { look: Look::Waiting, exit: None });
                *state.starts.entry(id.clone()).or_default() += 1;
            }
        })
        .boxed()
    }

    fn look<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Kept> {
        let kept = match self.lock().processes.get(id) {
            None => Kept::Nothing,
            Some(Process { exit: Some(exit), .. }) => Kept::Ended(*exit),
            Some(_) => Kept::Running { pid: 1 },
        };
        async move { Ok(kept) }.boxed()
    }

    fn ended<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Exit> {
        async move {
            let mut changed = self.changed.subscribe();
            loop {
                let process = self.lock().processes.get(id).copied();
                match process {
                    None => return Ok(Exit::Unknown),
                    Some(Process { exit: Some(exit), .. }) => return Ok(exit),
                    Some(_) => {}
                }
                if changed.changed().await.is_err() {
                    return Ok(Exit::Unknown);
                }
            }
        }
        .boxed()
    }

    fn kill<'a>(&'a self, id: &'a VmId) -> Stepped<'a> {
        self.change("kill", id, |state| {
            if let Some(process) = state.processes.get_mut(id) {
                process.exit.get_or_insert(Exit::Signal(9));
            }
        })
        .boxed()
    }

    fn forget<'a>(&'a self, id: &'a VmId) -> Stepped<'a> {
        self.change("forget", id, |state| {
            state.processes.remove(id);
        })
        .boxed()
    }

    fn type_in<'a>(&'a self, id: &'a VmId, _bytes: &'a [u8]) -> Stepped<'a> {
        self.change("type", id, |_| ()).boxed()
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        let strays = Self::strays_of("process", self.lock().processes.keys(), known);
        async move { Ok(strays) }.boxed()
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.lock().processes.retain(|id, _| id.as_str() != stray.name);
        async { Ok(()) }.boxed()
    }
}

impl Hypervisor for FakeHost {
    fn backend(&self) -> Backend {
        Backend::Qemu
    }

    fn jail<'a>(&'a self, launch: &'a Launch) -> Stepped<'a, keeper::Order> {
        async move {
            let id = &launch.vm.id;
            self.change("jail", id, |state| state.jails.insert(id.clone())).await?;
            Ok(keeper::Order {
                name: id.to_string(),
                argv: vec!["/bin/true".to_owned()],
                environment: BTreeMap::new(),
                directory: "/".into(),
                user: None,
                network_namespace: None,
                limits: keeper::Limits::default(),
                open_files: None,
                console: "/dev/null".into(),
                console_limit: 0,
                metrics: None,
                metrics_owner: None,
            })
        }
        .boxed()
    }

    fn ready<'a>(&'a self, _vm: &'a Vm, _limit: Duration) -> Stepped<'a> {
        async { Ok(()) }.boxed()
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Stepped<'a> {
        let id = &launch.vm.id;
        self.change("start", id, |state| set(state, id, Look::Running)).map(Result::flatten).boxed()
    }

    fn look<'a>(&'a self, vm: &'a Vm) -> Stepped<'a, Look> {
        let look = self.lock().processes.get(&vm.id).map(|process| process.look);
        async move { look.ok_or_else(|| StepError::new(errors::HYPERVISOR, "nobody is there")) }.boxed()
    }

    fn pause<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.change("pause", &vm.id, |state| set(state, &vm.id, Look::Paused)).map(Result::flatten).boxed()
    }

    fn resume<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.change("resume", &vm.id, |state| set(state, &vm.id, Look::Running)).map(Result::flatten).boxed()
    }

    fn ask_to_end<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.change("ask", &vm.id, |state| {
            let deaf = state.deaf;
            if let Some(process) = state.processes.get_mut(&vm.id).filter(|_| !deaf) {
                process.exit.get_or_insert(Exit::Code(0));
            }
        })
        .boxed()
    }

    fn unjail<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.change("unjail", &vm.id, |state| {
            state.jails.remove(&vm.id);
        })
        .boxed()
    }

    fn judge(&self, exit: Exit) -> Result<(), String> {
        if exit == Exit::Code(0) { Ok(()) } else { Err(format!("it ended with {exit:?}")) }
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        let strays = Self::strays_of("jail", self.lock().jails.iter(), known);
        async move { Ok(strays) }.boxed()
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.lock().jails.retain(|id| id.as_str() != stray.name);
        async { Ok(()) }.boxed()
    }

    fn check(&self) -> Stepped<'_, String> {
        async { Ok("played".to_owned()) }.boxed()
    }
}

fn set(state: &mut State, id: &VmId, look: Look) -> Result<(), StepError> {
    let process = state.processes.get_mut(id).filter(|process| process.exit.is_none());
    process.map(|process| process.look = look).ok_or_else(|| StepError::new(errors::HYPERVISOR, "it does not run"))
}

impl Edges for FakeHost {
    fn open(&self) -> Stepped<'_> {
        async { Ok(()) }.boxed()
    }

    fn wire(&self, vm: &Vm) -> Wire {
        let guest = GuestAddresses { ipv4: None, gateway_ipv4: None, ipv6: None, gateway_ipv6: None };
        Wire {
            namespace: vm.id.namespace(),
            namespace_path: PathBuf::from("/run/netns").join(vm.id.namespace()),
            link: vm.slot.link(),
            tap: "tap0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            guest,
            ipv4: Some(std::net::Ipv4Addr::from_bits(0x0a64_0001 + vm.slot.0)),
            ipv6: None,
            dns: Vec::new(),
        }
    }

    fn capacity(&self) -> u32 {
        1 << 16
    }

    fn ensure<'a>(&'a self, vm: &'a Vm, _process: Option<u32>) -> Stepped<'a, Wire> {
        async move {
            self.change("network", &vm.id, |state| state.networks.insert(vm.id.clone(), vm.slot)).await?;
            Ok(self.wire(vm))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a VmId, _slot: Slot) -> Stepped<'a> {
        self.change("drop-network", id, |state| {
            state.networks.remove(id);
        })
        .boxed()
    }

    fn strays<'a>(&'a self, known: &'a [(VmId, Slot)]) -> Stepped<'a, Vec<Stray>> {
        let ids: Vec<VmId> = known.iter().map(|(id, _)| id.clone()).collect();
        let strays = Self::strays_of("namespace", self.lock().networks.keys(), &ids);
        async move { Ok(strays) }.boxed()
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.lock().networks.retain(|id, _| id.as_str() != stray.name);
        async { Ok(()) }.boxed()
    }

    fn show<'a>(&'a self, _vm: Option<&'a Vm>) -> Stepped<'a, serde_json::Value> {
        async { Ok(serde_json::json!({})) }.boxed()
    }

    fn foreign(&self) -> Stepped<'_, Vec<ForeignDrop>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn keep_pool<'a>(&'a self, shutdown: &'a tokio_util::sync::CancellationToken) -> BoxFuture<'a, ()> {
        shutdown.cancelled().boxed()
    }
}
