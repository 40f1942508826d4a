//! The real parts: SSH, and health checks from where Cairn runs; and a world that is none (`fake`).

pub mod fake;
pub mod git;
pub mod nix;
pub mod nix_builder;
pub mod probe;
pub mod ssh;
