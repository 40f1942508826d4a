//! A VM as it is stored: what was asked, what is, and what is being done about it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{CustomerId, InvalidName, Slot, VmId};
use super::spec::{Protocol, VmSpec};
use super::state::State;
use crate::plan::Kind;

/// Which hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Firecracker under KVM, in a jail.
    Firecracker,
    /// QEMU's microvm, under KVM or emulated.
    Qemu,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Firecracker, Self::Qemu];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::ALL.into_iter().find(|backend| backend.as_str() == text).ok_or_else(|| InvalidName {
            kind: "backend",
            text: text.to_owned(),
            rule: "firecracker or qemu",
        })
    }
}

/// Why a VM failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code, with a page in docs/errors/.
    pub code: String,
    /// A sentence.
    pub reason: String,
    /// Exit code of the hypervisor, where it has one.
    pub exit_code: Option<i32>,
    /// Last lines of the guest's console.
    pub console_tail: String,
}

impl Failure {
    /// With nothing but a code and a sentence.
    pub fn plain(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into(), exit_code: None, console_tail: String::new() }
    }
}

/// A port of the host that is taken for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    /// Port of the host.
    pub host_port: u16,
    /// Port of the guest.
    pub guest_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Vm {
    /// Id.
    pub id: VmId,
    /// Owner.
    pub customer: CustomerId,
    /// What was asked for.
    pub spec: VmSpec,
    /// What it is.
    pub state: State,
    /// Why it is in this state, for people.
    pub reason: String,
    /// Why it failed; only beside [`State::Failed`].
    pub failure: Option<Failure>,
    /// Which hypervisor runs it, or ran it last; decided at boot.
    pub backend: Option<Backend>,
    /// Its place on this host.
    pub slot: Slot,
    /// Ports of the host that lead to it.
    pub mappings: Vec<Mapping>,
    /// The kernel's boot id when it was last started: another one now means that the host was restarted since.
    pub boot_id: Option<String>,
    /// It ended by itself, and its restart policy has a say; not so when a user stopped it.
    pub unattended: bool,
    /// How often it was booted again by its restart policy since a user last booted it.
    pub restarts: u32,
    /// When its processors last began to run.
    pub started_at: Option<Timestamp>,
    /// Counts changes.
    pub generation: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What is being done, one thing at a time.
    pub operation: Option<Operation>,
}

impl Vm {
    /// A VM that is about to be made; slot and ports are decided when it is admitted.
    pub fn new(id: VmId, customer: CustomerId, spec: VmSpec, now: Timestamp) -> Self {
        Self {
            id,
            customer,
            spec,
            state: State::Creating,
            reason: "being made".to_owned(),
            failure: None,
            backend: None,
            slot: Slot(0),
            mappings: Vec::new(),
            boot_id: None,
            unattended: false,
            restarts: 0,
            started_at: None,
            generation: 1,
            created_at: now,
            updated_at: now,
            operation: Some(crate::plan::begin(Kind::Create, State::Creating, Options::default(), now)),
        }
    }
}

/// Something that is done in steps, written down before each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What.
    pub kind: Kind,
    /// Which step is being done, or undone: an index into [`crate::plan::steps`].
    pub step: usize,
    /// Forward or back.
    pub phase: Phase,
    /// The state in which it began.
    pub before: State,
    /// Why it goes back, or what was found out about an end.
    pub failure: Option<Failure>,
    /// What was asked with it.
    pub options: Options,
    /// When it began.
    pub begun_at: Timestamp,
}

/// What a caller asks with an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Without asking the guest.
    #[serde(default)]
    pub force: bool,
    /// Seconds that the guest has to end by itself.
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
}

/// Which way an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Steps are done.
    Forward,
    /// Steps are undone.
    Back,
}

/// Something that happened to a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up over all VMs of this host.
    pub id: i64,
    /// Which VM.
    pub vm_id: VmId,
    /// When.
    pub time: Timestamp,
    /// `state`, `operation`, `restart`, `adopted`, `deleted`.
    pub kind: String,
    /// The state after it.
    pub state: String,
    /// A sentence.
    pub message: String,
}
