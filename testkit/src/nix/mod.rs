//! Hosts for the machine layer: each with a systemd, an sshd, host keys, an address and a Nix store of its own, in a rack
//! with a controller; and systems for them that stand in for those of NixOS.
//!
//! ```text
//! enclosure with its own network = the controller (10.77.0.1; its own /nix and /etc/nix)
//!   near 10.77.0.0/24: hosts, jump hosts        far 10.78.0.0/24: hosts that only jump hosts reach
//! ```
//!
//! - [`Rack`]: networks, the controller's Nix, keys; boots [`Host`]s
//! - [`Host`]: files, units, journal; cut off, rebooted, with other host keys, with more users
//! - [`Flake`]: a Git repository whose `nixosConfigurations` are [`System`]s with [`Unit`]s, without nixpkgs
//!
//! Nix, sshd and the programs on the hosts are this machine's Debian packages. What the stand-in for a NixOS system shows is
//! what its `switch-to-configuration` does: words, order, exit codes, links. What is not NixOS: no modules are evaluated, the
//! boot "loader" is a file, `/boot/loader/default`, which the container's start follows.

mod flake;
mod host;
mod rack;
mod system;

pub use flake::Flake;
pub use host::{Host, Place};
pub use rack::Rack;
pub use system::{System, Unit};

/// Programs without which there is no rack.
pub const NEEDS: &[&str] = &[
    "nix",
    "nix-daemon",
    "nix-env",
    "nix-store",
    "sshd",
    "ssh",
    "ssh-keygen",
    "git",
    "ip",
    "bridge",
    "busybox",
    "sudo",
];
