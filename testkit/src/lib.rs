//! What tests and the demo stand on: a virtual rack of real machines, and what is needed to look at it.
//!
//! - [`enclosure`]: a process tree that the kernel ends as a whole; everything below runs inside one
//! - [`rack`]: libvirt and a stock sushy-emulator; [`machine`]: a virtual bare machine; [`redfish`]: its BMC
//! - [`qemu`]: a machine without libvirt and BMC, for images; [`bridge`]: a network with DHCP
//! - [`controller`]: the real `cairn`; [`commands`]: every command line of it that is used here
//! - [`disk`]: what an install left; [`site`]: all of it together; [`demo`]: one real install; [`sweep`]: planted secrets; [`grub_iso`]: something to boot
//!
//! Development only: no product crate depends on it. Few dependencies, because `cargo xtask` builds it first.

pub mod bridge;
pub mod commands;
pub mod controller;
pub mod demo;
pub mod disk;
pub mod enclosure;
pub mod environment;
pub mod file_server;
pub mod grub_iso;
pub mod http;
mod libvirt;
pub mod machine;
mod machine_xml;
pub mod process;
pub mod progress;
pub mod qemu;
pub mod rack;
pub mod redfish;
pub mod serial;
pub mod site;
pub mod sushy;
pub mod sweep;
pub mod wait;
