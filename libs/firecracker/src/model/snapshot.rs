//! Snapshots. Disks are no part of them and are not flushed; the memory file must not change while a VM runs from it.

use std::path::PathBuf;

use serde::Serialize;

use super::DeviceId;

/// What to write (`PUT /snapshot/create`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    /// File for the state of the devices.
    pub snapshot_path: PathBuf,
    /// File for the memory.
    pub mem_file_path: PathBuf,
    /// All of the memory, or what changed.
    pub snapshot_type: SnapshotType,
}

/// How much of the memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    /// All of it.
    Full,
    /// Pages written since the last snapshot; needs `track_dirty_pages`.
    Diff,
}

/// What to go on from (`PUT /snapshot/load`), in a process that was told nothing but where to log and write metrics. A
/// failure ends the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoad {
    /// File with the state of the devices.
    pub snapshot_path: PathBuf,
    /// Where the memory comes from.
    pub mem_backend: MemoryBackend,
    /// Needed for later snapshots that hold only what changed. Firecracker 1.13 and newer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub track_dirty_pages: bool,
    /// Whether the processors run at once.
    pub resume_vm: bool,
    /// Other tap devices than at the time of the snapshot. Firecracker 1.12 and newer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket than at the time of the snapshot. Firecracker 1.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock_override: Option<VsockOverride>,
}

/// Where the memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    /// What the path is.
    pub backend_type: MemoryBackendType,
    /// The memory file, or the socket of a process that handles page faults.
    pub backend_path: PathBuf,
}

/// What serves the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MemoryBackendType {
    /// A file, mapped privately.
    File,
    /// A process, by userfaultfd(2).
    Uffd,
}

/// A tap device in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkOverride {
    /// The interface.
    pub iface_id: DeviceId,
    /// Its tap device from now on.
    pub host_dev_name: String,
}

/// A socket in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockOverride {
    /// Its path from now on.
    pub uds_path: PathBuf,
}
