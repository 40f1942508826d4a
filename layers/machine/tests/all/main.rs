//! The layer as others see it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

mod inventory;
mod manifests;
mod resources;
mod rules;
