//! What the layer needs from the host: keepers, hypervisors, networks. The real ones are in `adapters`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::model::{Backend, Slot, Vm, VmId};

/// Why a step was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StepError {
    /// Stable code, with a page in docs/errors/.
    pub code: &'static str,
    /// Everything that is known, from the step to the kernel's word.
    pub reason: String,
}

impl StepError {
    /// With a code and a sentence.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// With a code and an error and what is below it.
    pub fn of(code: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, cairn_core::chain(error))
    }
}

/// What a port's call gives back.
pub type Stepped<'a, T = ()> = BoxFuture<'a, Result<T, StepError>>;

/// Something on this host that belongs to no VM that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stray {
    /// `namespace`, `link`, `route`, `rule`, `cgroup`, `process`, `jail`, `directory`, `mount`.
    pub kind: String,
    /// Which one.
    pub name: String,
}

/// How a hypervisor's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody was there to see it.
    Unknown,
}

/// What a keeper says of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// There is none, and never was one since the last [`Keepers::forget`].
    Nothing,
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It has ended.
    Ended(Exit),
}

/// Small processes that outlive the daemon, each the parent of one hypervisor: it holds console, metrics and exit status
/// on disk (decision 28).
pub trait Keepers: Send + Sync {
    /// Starts a keeper that runs `order`, unless one already does. Returns once the hypervisor's process has begun or has
    /// already ended.
    fn start<'a>(&'a self, id: &'a VmId, order: &'a keeper::Order) -> Stepped<'a>;

    /// How it is now. A keeper that was killed while its process lives is replaced.
    fn look<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Kept>;

    /// Waits, without polling, until the process has ended.
    fn ended<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Exit>;

    /// Ends the process, and all it has begun, by force. Nothing happens when there is none.
    fn kill<'a>(&'a self, id: &'a VmId) -> Stepped<'a>;

    /// Removes what a keeper whose process has ended left: directory, control groups, unit. The console stays.
    fn forget<'a>(&'a self, id: &'a VmId) -> Stepped<'a>;

    /// Writes to the guest's serial console.
    fn type_in<'a>(&'a self, id: &'a VmId, bytes: &'a [u8]) -> Stepped<'a>;

    /// Keepers, control groups and directories of VMs that are not in `known`.
    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>>;

    /// Removes a stray that this port found; nothing happens with those of others.
    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a>;
}

/// A file that becomes a disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Name among the VM's disks.
    pub id: String,
    /// On the host; the VM's own.
    pub path: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
    /// The guest's root.
    pub is_root: bool,
}

/// Everything that a hypervisor has to know of a VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The VM.
    pub vm: Vm,
    /// Kernel on the host; shared, read-only.
    pub kernel: PathBuf,
    /// Initial file system on the host; shared, read-only.
    pub initrd: Option<PathBuf>,
    /// Disks, in the guest's order.
    pub disks: Vec<DiskFile>,
    /// Network.
    pub wire: Wire,
    /// User that the hypervisor runs as, alone on this host.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The network of a VM, on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Network namespace.
    pub namespace: String,
    /// The namespace's file.
    pub namespace_path: PathBuf,
    /// The host's end of the link.
    pub link: String,
    /// The tap inside the namespace.
    pub tap: String,
    /// The guest's hardware address, the same in every namespace.
    pub mac: String,
    /// How the guest sees itself.
    pub guest: GuestAddresses,
    /// How others see it.
    pub ipv4: Option<Ipv4Addr>,
    /// How others see it.
    pub ipv6: Option<Ipv6Addr>,
    /// Name servers for the guest.
    pub dns: Vec<std::net::IpAddr>,
}

/// Addresses inside a namespace, the same in every one (decision 32).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAddresses {
    /// IPv4 with prefix.
    pub ipv4: Option<ipnet::Ipv4Net>,
    /// Router.
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// IPv6 with prefix.
    pub ipv6: Option<ipnet::Ipv6Net>,
    /// Router.
    pub gateway_ipv6: Option<Ipv6Addr>,
}

/// What a hypervisor says of its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Not started yet.
    Waiting,
    /// Its processors run.
    Running,
    /// Its processors stand still.
    Paused,
}

/// A hypervisor. All calls can be made again.
pub trait Hypervisor: Send + Sync {
    /// Which one.
    fn backend(&self) -> Backend;

    /// Puts the files of a VM where its process will see them, owned by the VM's user, and says what its keeper is to run.
    fn jail<'a>(&'a self, launch: &'a Launch) -> Stepped<'a, keeper::Order>;

    /// Waits until the process of this VM answers.
    fn ready<'a>(&'a self, vm: &'a Vm, limit: Duration) -> Stepped<'a>;

    /// Lets the guest's processors run for the first time, unless they already do.
    fn start<'a>(&'a self, launch: &'a Launch) -> Stepped<'a>;

    /// How the guest is.
    fn look<'a>(&'a self, vm: &'a Vm) -> Stepped<'a, Look>;

    /// Processors stand still.
    fn pause<'a>(&'a self, vm: &'a Vm) -> Stepped<'a>;

    /// Processors run again.
    fn resume<'a>(&'a self, vm: &'a Vm) -> Stepped<'a>;

    /// Asks the guest to end: power button, or Ctrl-Alt-Del.
    fn ask_to_end<'a>(&'a self, vm: &'a Vm) -> Stepped<'a>;

    /// Removes the files that `jail` made, once the process has ended.
    fn unjail<'a>(&'a self, vm: &'a Vm) -> Stepped<'a>;

    /// Whether an exit means that the guest ended by itself and nothing is wrong; otherwise a sentence about it.
    fn judge(&self, exit: Exit) -> Result<(), String>;

    /// Jails of VMs that are not in `known`, and copies of programs that no VM uses.
    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>>;

    /// Removes a stray that this port found; nothing happens with those of others.
    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a>;

    /// Whether it can be used on this host, and its version.
    fn check(&self) -> Stepped<'_, String>;
}

/// What a drop of somebody else's packet filter looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDrop {
    /// The chain and its maker, as a sentence.
    pub chain: String,
}

/// The networks of VMs.
pub trait Edges: Send + Sync {
    /// The base ruleset and everything that VMs share. Called once at start, and again whenever it may be gone.
    fn open(&self) -> Stepped<'_>;

    /// The network of a VM; follows from its slot and its spec alone.
    fn wire(&self, vm: &Vm) -> Wire;

    /// How many VMs have an address.
    fn capacity(&self) -> u32;

    /// Namespace, links, addresses, routes, rules, limits and ports of a VM are as its spec says. `process` is the id of
    /// a process in the VM's namespace, where one lives: through it a namespace whose name somebody deleted gets it back.
    /// Without it such a namespace is cut off and another is made.
    fn ensure<'a>(&'a self, vm: &'a Vm, process: Option<u32>) -> Stepped<'a, Wire>;

    /// Nothing of it is left.
    fn remove<'a>(&'a self, id: &'a VmId, slot: Slot) -> Stepped<'a>;

    /// Namespaces, links, routes and rules of VMs that are not in `known`; the pool's own are not strays.
    fn strays<'a>(&'a self, known: &'a [(VmId, Slot)]) -> Stepped<'a, Vec<Stray>>;

    /// Removes a stray that this port found; nothing happens with those of others.
    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a>;

    /// Rules, counters and addresses, of one VM or of all, for people.
    fn show<'a>(&'a self, vm: Option<&'a Vm>) -> Stepped<'a, serde_json::Value>;

    /// Chains of others that may drop what ours accept.
    fn foreign(&self) -> Stepped<'_, Vec<ForeignDrop>>;

    /// Keeps the pool of pre-made namespaces full; returns when `shutdown` says so.
    fn keep_pool<'a>(&'a self, shutdown: &'a tokio_util::sync::CancellationToken) -> BoxFuture<'a, ()>;
}
