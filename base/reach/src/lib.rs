//! What Cairn reaches over the network: SSH hosts and Git repositories.

pub mod command;
pub mod git;
pub mod ssh;
