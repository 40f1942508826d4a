//! The VM itself, and where its process writes to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What `GET /` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// Value of `--id`.
    pub id: String,
    /// What the VM is doing.
    pub state: State,
    /// Version of the hypervisor, as `1.16.0`.
    pub vmm_version: String,
}

/// What the VM is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can still be configured.
    NotStarted,
    /// Its processors run.
    Running,
    /// Its processors are stopped; snapshots are possible.
    Paused,
}

impl State {
    /// Reads the API's word for it.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "Not started" => Some(Self::NotStarted),
            "Running" => Some(Self::Running),
            "Paused" => Some(Self::Paused),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotStarted => "Not started",
            Self::Running => "Running",
            Self::Paused => "Paused",
        })
    }
}

/// What `GET /version` answers.
#[derive(Debug, Deserialize)]
pub(crate) struct VersionAnswer {
    pub(crate) firecracker_version: String,
}

/// Processors and memory (`PUT /machine-config`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Virtual processors, 1 to 32; with `smt` 1 or an even number.
    pub vcpu_count: u8,
    /// Memory in MiB.
    pub mem_size_mib: u64,
    /// Two threads for each core.
    #[serde(default)]
    pub smt: bool,
    /// Needed for snapshots that hold only what changed.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Pages of the guest's memory on the host.
    #[serde(default)]
    pub huge_pages: HugePages,
}

/// Pages of the guest's memory on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// 4 KiB.
    #[default]
    None,
    /// Transparent huge pages. Firecracker 1.17 and newer.
    Transparent,
    /// 2 MiB pages of hugetlbfs; the memory is a multiple of 2 MiB.
    #[serde(rename = "2M")]
    TwoMiB,
}

/// What is booted (`PUT /boot-source`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootSource {
    /// An uncompressed ELF kernel, or a bzImage where the version takes one.
    pub kernel_image_path: PathBuf,
    /// Initial file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
    /// The kernel's arguments; Firecracker has a default without a console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

/// Where the process logs to (`PUT /logger`). Until it is told, it logs to standard output, between the lines of the
/// guest's serial console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logger {
    /// A file or FIFO that exists.
    pub log_path: PathBuf,
    /// Least level that is written.
    pub level: LogLevel,
    /// Whether lines name their level.
    pub show_level: bool,
    /// Whether lines name the place in Firecracker's source.
    pub show_log_origin: bool,
}

/// Levels of Firecracker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warning,
    /// And every request.
    Info,
    /// And more.
    Debug,
}

/// Where metrics lines go (`PUT /metrics`); once for each process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// A file or FIFO that exists. Lines that a full FIFO does not take are lost.
    pub metrics_path: PathBuf,
    /// Text that is repeated on each line. Firecracker 1.17 and newer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// What a VM can be told to do (`PUT /actions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Starts it; once for each process.
    InstanceStart,
    /// Writes a metrics line now. Not before the start.
    FlushMetrics,
    /// Presses Ctrl-Alt-Del on the guest's keyboard: a guest with an AT keyboard driver reboots or ends. Not before the
    /// start.
    SendCtrlAltDel,
}

#[derive(Debug, Serialize)]
pub(crate) struct ActionRequest {
    pub(crate) action_type: Action,
}

/// Body of `PATCH /vm`.
#[derive(Debug, Serialize)]
pub(crate) struct VmRequest {
    pub(crate) state: &'static str,
}
