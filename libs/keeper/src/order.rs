//! What a keeper is to run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Name of the VM, for messages and the control group.
    pub name: String,
    /// Program, as an absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Who it runs as. Nothing for a program that changes its user by itself, as Firecracker's jailer does; it keeps the
    /// keeper's capabilities. With a user it has none, and can gain none.
    pub user: Option<User>,
    /// Network namespace to join; nothing for a program that joins it by itself.
    pub network_namespace: Option<PathBuf>,
    /// What its control group allows.
    pub limits: Limits,
    /// Most files it may have open.
    pub open_files: Option<u64>,
    /// File that takes standard output and standard error: the guest's console and the hypervisor's last words.
    pub console: PathBuf,
    /// Bytes of the console file at most; then it becomes `<console>.1` and a new one begins.
    pub console_limit: u64,
    /// FIFO that a hypervisor writes its metrics to, a JSON object a line; made by the keeper, owned by `user` or by
    /// `metrics_owner`. Counters of each line are added up in the directory's `metrics.json`.
    pub metrics: Option<PathBuf>,
    /// Owner of that FIFO where the process changes its user by itself.
    pub metrics_owner: Option<User>,
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id; not 0.
    pub uid: u32,
    /// Group id; not 0.
    pub gid: u32,
}

/// What a control group allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}
