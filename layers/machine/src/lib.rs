//! NixOS machines from Git, activated safely.

pub mod inventory;
pub mod manifests;
pub mod resources;
