//! NixOS machines from Git, activated safely.

pub mod inventory;
pub mod resources;
