//! The real things behind the layer's ports.

pub mod nix;
