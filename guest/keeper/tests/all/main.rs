//! The keeper as a program, with shell scripts for hypervisors.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod kills;
mod stage;
mod working;
