//! Integration tests of the layer.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

mod cli;
mod engine;
mod engine_script;
mod inventory;
mod nix;
mod resources;
