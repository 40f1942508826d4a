//! The log lines and the scrape as their readers see them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod collector;
mod logging;
mod scrape;
mod traces;
