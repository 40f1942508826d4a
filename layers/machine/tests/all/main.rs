//! The machine layer on real programs.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod nix;
