//! Control groups of either version: a process and all it begins, what they may use, and how they end together.

mod group;
mod hierarchies;

use std::path::PathBuf;

pub use group::Group;
pub use hierarchies::Hierarchies;

use crate::FileError;

/// What a group allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// Something with a control group went wrong.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory of it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name would lead elsewhere.
    #[error("{name:?} cannot be the name of a control group")]
    Name {
        /// The name.
        name: String,
    },
    /// Processes did not end although they were killed.
    #[error("{} of {} are still there after SIGKILL", .pids.len(), .directory.display())]
    Survived {
        /// The group, in one hierarchy.
        directory: PathBuf,
        /// The processes.
        pids: Vec<u32>,
    },
}
