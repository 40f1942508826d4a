//! What touches the kernel or starts a process: commands, mounts, loop devices, files that survive a power cut, locks,
//! control groups, processes that outlive their parent, [networks](network). Each effect is a trait with the real thing ([`Linux`]) and a recording [`Fake`] side by side.
//! Everything here blocks; async callers use a thread for it.

mod ambient;
mod cgroup;
mod fake;
mod file;
mod launch;
mod linux;
mod lock;
mod loop_device;
mod machine;
mod mount;
pub mod network;
mod pidfd;
mod private_directory;
mod privileges;
mod process;
mod supervision;
mod watch;

pub use ambient::hand_on_capabilities;
pub use cgroup::{CgroupError, Group, GroupLimits, Hierarchies};
pub use fake::{Fake, Reply};
pub use file::{FileError, Space, memory_directory, remove_if_present, space, sync_file_system, write_atomic};
pub use launch::{Credentials, Held, Launch, LaunchError, close_inherited};
pub use linux::Linux;
pub use lock::{LockError, LockFile};
pub use loop_device::LoopDevice;
pub use machine::{Machine, machine};
pub use mount::{Mount, MountError, MountOptions, Mounted, Mounts, unmount_below};
pub use pidfd::{Exited, PidFd};
pub use private_directory::PrivateDirectory;
pub use privileges::drop_capabilities;
pub use process::{Command, Feed, OUTPUT_LIMIT, Output, ProcessError, Processes};
/// Signals by name.
pub use rustix::process::Signal;
pub use supervision::{OnLine, Stop, Supervision};
pub use watch::FileWatch;

/// Commands and mounts together: what code asks for that needs both.
pub trait Host: Processes + Mounts {}

impl<T: Processes + Mounts> Host for T {}
