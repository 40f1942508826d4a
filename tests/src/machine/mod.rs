//! NixOS machines through the real `cairn machine`, on hosts with a systemd, an sshd and a Nix of their own.

pub(crate) mod hosts;
