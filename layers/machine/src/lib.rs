//! NixOS machines from Git, activated safely: a reference becomes a commit, a system, a trial on the host with its way
//! back armed first, and only after health checks on a new connection the system that stays.
//!
//! `model.rs` is what is wanted and what is known, `plan/` decides what is done next, `ports.rs` says what that needs of
//! the world. None of them knows Kubernetes, SSH or Nix. `activation/` is the half that runs on a host, and what is said
//! to it.

pub mod activation;
pub mod adapters;
pub mod cli;
pub mod errors;
pub mod facts;
pub mod inventory;
pub mod model;
pub mod plan;
pub mod ports;
pub mod resolve;
pub mod resources;
pub mod run;
pub mod store;
