//! The program's parts against real block devices, a local HTTP server and a recording host.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod binary;
mod dispatching;
mod installing;
mod reporting;
mod server;
mod stage;
