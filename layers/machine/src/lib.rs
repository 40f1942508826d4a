//! NixOS machines from Git, activated safely.

pub mod resources;
