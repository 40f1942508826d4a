//! The ports as they are on a real host, and one host that is played.

pub mod edge;
pub mod fake;
mod firecracker;
mod guest_line;
mod jails;
pub mod keepers;
pub mod probe;
mod qemu;

pub use firecracker::{Firecracker, Programs};
pub use guest_line::{kernel_arguments, panicked};
pub use jails::{JailError, Places};
pub use qemu::{Accelerator, Qemu};
