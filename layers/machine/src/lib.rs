//! NixOS machines from Git, activated safely.

pub mod adapters;
