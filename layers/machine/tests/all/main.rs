//! Integration tests of the layer.

#![allow(clippy::unwrap_used)]

mod engine;
mod engine_script;
