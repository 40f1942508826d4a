//! The database on a real disk, and the directory against a real second process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod database;
mod two_processes;
