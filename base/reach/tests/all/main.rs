//! Real peers on this machine.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod git;
