//! What Cairn reaches over the network: SSH hosts and Git repositories.

pub mod ssh;
