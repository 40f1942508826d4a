//! What tests and the demo stand on: a virtual rack of real machines, and what is needed to look at it.
//!
//! - [`enclosure`]: a process tree that the kernel ends as a whole; everything below runs inside one
//! - [`rack`]: libvirt and a stock sushy-emulator; [`machine`]: a virtual bare machine; [`redfish`]: its BMC
//! - [`qemu`]: a machine without libvirt and BMC, for images; [`bridge`]: a network with DHCP
//! - [`hypervisor`]: Firecracker and its jailer, the fakes and the real ones; [`guest_kernel`]: what they boot
//! - [`metald`]: the real `metald` on a host of its own, and a network outside of it
//! - [`microvm`]: Debian's kernel ([`debian_kernel`]) with a first process of ours, under QEMU
//! - [`systemd_host`]: a host with a systemd of its own
//! - [`nix`]: NixOS hosts and a controller in a rack, with Nix, sshd and systemd of their own
//! - [`terminal`]: a terminal with a program in it
//! - [`elsewhere`]: a registry of somebody else
//! - [`controller`]: the real `cairn`; [`commands`]: every command line of it that is used here
//! - [`disk`]: what an install left; [`site`]: all of it together; [`demo`]: one real install; [`sweep`]: planted secrets; [`grub_iso`]: something to boot
//! - [`peers`]: programs of other projects that are built from Go modules; [`junit`]: what test programmes report
//!
//! Development only: no product crate depends on it. Few dependencies, because `cargo xtask` builds it first.

pub mod bridge;
pub mod commands;
pub mod controller;
pub mod debian_kernel;
pub mod demo;
pub mod disk;
pub mod elsewhere;
pub mod enclosure;
pub mod environment;
pub mod file_server;
pub mod grub_iso;
pub mod guest_kernel;
pub mod http;
pub mod hypervisor;
pub mod junit;
mod libvirt;
pub mod machine;
mod machine_xml;
pub mod metald;
pub mod microvm;
pub mod nix;
pub mod peers;
pub mod process;
pub mod progress;
pub mod qemu;
pub mod rack;
pub mod redfish;
pub mod serial;
pub mod site;
pub mod sushy;
pub mod sweep;
pub mod systemd_host;
pub mod terminal;
pub mod wait;
