//! The registry over HTTP on 127.0.0.1, with the library's client, skopeo and podman, and the commands against it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod audit;
mod clients;
mod codes;
mod commands;
mod fixture;
mod metrics;
mod tokens;
mod upkeep;
