//! One suite against the fake Firecracker, always, and against the real one where `CAIRN_TEST_FIRECRACKER` (and
//! `CAIRN_TEST_JAILER`) name it. What ran is printed.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

mod answers;
mod connection;
mod faults;
mod jail;
mod lifecycle;
mod snapshot;
mod support;
