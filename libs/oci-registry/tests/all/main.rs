//! Against a real registry on 127.0.0.1, a real file system and real clients; faults come from a proxy in between.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod downloads;
mod fixture;
mod manifests;
mod memory;
mod proxy;
mod pull;
mod push;
mod refusals;
mod skopeo;
mod uploads;
