//! The program of the maintenance system: finds the task medium, gets on the network, checks the recipe and starts
//! the target it names; carries out the steps of that target; reports how it ended. In the installed system the same
//! program reports the first boot.
//!
//! - [`dispatch`]: from the medium to `systemctl start`; exit codes of its own.
//! - [`steps`]: partition, image-linux, bootloader-linux, config-drive. Each can be repeated.
//! - [`report`]: progress, webhook, first boot.
//! - [`workspace`]: what the parts hand to each other in `/run/provision`.

pub mod arguments;
pub mod dispatch;
pub mod failure;
pub mod report;
pub mod steps;
pub mod workspace;

mod disks;
mod environment;
mod http;
mod medium;
mod network;
mod pause;
mod serial;

pub use network::{Files as NetworkFiles, files as network_files};
