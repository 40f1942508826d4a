//! The client against sushy-tools' emulator, against openssl's TLS server, and against a strict BMC that injects faults.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

mod authentication;
mod bmc;
mod boot;
mod discovery;
mod log;
mod media;
mod power;
mod retries;
mod support;
mod sushy;
mod tls;
