//! The registry as a room of its own: who may push and pull, what is kept and what is collected, what was done by whom.
//!
//! It serves the metal layer's operating systems, the vm layer's images, or nobody but its clients (`cairn registry
//! serve`); decision 0017 says why it belongs to none of them. Bytes are the business of `oci-registry`. Read [`settings`]
//! first, then `access`, which decides over every request.

mod access;
mod api;
mod audit;
pub mod cli;
pub mod errors;
pub mod metrics;
pub mod model;
pub mod ports;
mod run;
mod service;
pub mod settings;
mod store;
mod tokens;
mod upkeep;
mod upstream;
mod work;

pub use access::htpasswd::UsersError;
pub use run::{RunError, run};
pub use service::{Error, Ports, Service};
pub use store::{Error as StoreError, MIGRATIONS};
pub use upkeep::UpkeepError;
pub use upstream::UpstreamError;
