//! What touches the kernel or starts a process: commands, mounts, loop devices, files that survive a power cut, locks.
//! Each effect is a trait with the real thing ([`Linux`]) and a recording [`Fake`] side by side. Everything here
//! blocks; async callers use a thread for it.

mod fake;
mod file;
mod linux;
mod lock;
mod loop_device;
mod mount;
mod process;

pub use fake::{Fake, Reply};
pub use file::{FileError, Space, remove_if_present, space, sync_file_system, write_atomic};
pub use linux::Linux;
pub use lock::{LockError, LockFile};
pub use loop_device::LoopDevice;
pub use mount::{Mount, MountError, MountOptions, Mounted, Mounts, unmount_below};
pub use process::{Command, Feed, OUTPUT_LIMIT, Output, ProcessError, Processes};

/// Commands and mounts together: what code asks for that needs both.
pub trait Host: Processes + Mounts {}

impl<T: Processes + Mounts> Host for T {}
