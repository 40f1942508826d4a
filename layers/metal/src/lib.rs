//! Metal: from the address of a BMC to an installed operating system.
//!
//! It owns servers, jobs, task media and the reports of the maintenance OS. It never decides what runs on the machine
//! afterwards. Read [`plan`] first: it decides what happens next to a job. Then [`run`], which does it, [`store`], which
//! keeps it, and [`api`], where people and machines talk to it. [`image`] builds the maintenance OS itself.

mod adapters;
pub mod api;
pub mod cli;
mod context;
pub mod errors;
pub mod image;
mod media;
pub mod metrics;
pub mod model;
pub mod plan;
mod pull;
mod pull_registry;
mod run;
pub mod settings;
pub mod store;
mod task_iso;
mod tokens;

pub use context::{KeyError, Metal, Urls, instance_key};
pub use oci_registry::server::Registry;
pub use run::{RunError, run};
