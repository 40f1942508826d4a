//! NixOS machines through the real `cairn machine`, on hosts with a systemd, an sshd and a Nix of their own.

pub(crate) mod apply;
pub(crate) mod builds;
mod fleet;
pub(crate) mod host_half;
pub(crate) mod hosts;
pub(crate) mod kills;
pub(crate) mod rollback;
pub(crate) mod ways;
