//! Tests of what Cairn reaches over the network.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod git;
mod ssh_command;
mod ssh_commands;
mod ssh_faults;
mod ssh_fixture;
mod ssh_jump;
mod ssh_kept;
mod ssh_login;
mod ssh_server;
