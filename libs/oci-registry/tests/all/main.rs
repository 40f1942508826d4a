//! Against a real registry on 127.0.0.1, a real file system and real clients; faults come from a proxy in between.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod bad_input;
mod cache;
mod cache_faults;
mod cache_peers;
mod check;
mod collect;
mod discovery;
mod downloads;
mod fixture;
mod hostile;
mod kill;
mod limits;
mod manifests;
mod memory;
mod planted;
mod proxy;
mod pull;
mod push;
mod race;
mod records;
mod refusals;
mod retain;
mod skopeo;
mod stock;
mod uploads;
