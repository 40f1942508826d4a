//! The server over real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod frame;
mod guarded;
mod health;
mod sending;
mod server;
mod tls;
mod wire;
