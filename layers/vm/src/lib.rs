//! MicroVMs that outlive their daemon: Firecracker in a jail, or QEMU where KVM cannot run a kernel (metald's guide, seed
//! 000).
//!
//! A VM is a row; `plan` says in which steps something is done with it, `run` does them, one owner task per VM, through
//! the traits in `ports`. Processes belong to keepers (`libs/keeper`, `guest/keeper`), never to this daemon, so that it
//! can be killed and replaced while guests go on. It never runs a VM whose network or jail is not what was asked for, and
//! callers never name a file of the host. Read `plan` first, then `run`.

pub mod access;
pub mod adapters;
pub mod api;
pub mod assets;
pub mod audit;
mod blocking;
pub mod cli;
pub mod disks;
mod doctor;
pub mod errors;
pub mod metrics;
pub mod model;
mod open;
pub mod plan;
pub mod ports;
mod reserve;
mod run;
mod service;
pub mod settings;
pub mod store;

pub use doctor::{Finding, Verdict};
pub use open::{OpenError, open};
pub use run::{RunError, run};
pub use service::{Caller, Error, Filter, Limits, Ports, Service, Wish};
