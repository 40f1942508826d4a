//! Tests of what Cairn reaches over the network.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod ssh_command;
