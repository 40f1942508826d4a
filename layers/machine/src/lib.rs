//! NixOS machines from Git, activated safely.
