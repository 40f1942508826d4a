//! `cairn-init`: the first process of a microVM, as `/init` of its initramfs. It mounts what every program expects, loads
//! kernel modules, brings the network up and then either runs one command and says how it ended, or hands over to the
//! init of a root disk. What to do stands on the kernel's command line:
//!
//! | word | meaning |
//! |---|---|
//! | `cairn.modules=NAME[,NAME…]` | modules to load, with what they need; those in `/etc/cairn/modules` come first |
//! | `cairn.ip=ADDRESS/PREFIX[,GATEWAY]` | an address of `eth0`, IPv4 or IPv6; can be repeated |
//! | `cairn.dns=ADDRESS[,ADDRESS…]` | name servers, for `/etc/resolv.conf` |
//! | `root=DEVICE`, `rootfstype=TYPE`, `rw` | root disk to switch to, a path below `/dev`; ext4 and read-only if not said |
//! | `init=PATH` | init of the root disk; `/sbin/init` if not said |
//! | `cairn.run="PROGRAM ARGUMENT…"` | command to run, on the root disk if there is one; `%20` is a space, `%25` a `%` |
//! | `cairn.grace=SECONDS` | time between SIGTERM and SIGKILL at the end; 10 if not said |
//! | `cairn.end=poweroff`, `cairn.end=reboot` | what happens at the end; power off if not said |
//!
//! Firecracker has no power switch: its guests end with `cairn.end=reboot reboot=k`.
//!
//! The last line on the console is `cairn-init: exit N`: the command's exit code, 128 and a signal's number, 126 or 127 if
//! it could not be started, 125 if it never came to that; the line before then says why. Ctrl-Alt-Del (which is what
//! Firecracker can press), the power button (QEMU), SIGTERM and SIGPWR end the VM: SIGTERM to everybody, SIGKILL after
//! the grace.
//!
//! Look next at `arguments.rs` (the words), `boot.rs` (the order), `supervise.rs` (the command's life).

mod arguments;
mod boot;
mod end;
mod modules;
mod mounts;
mod netlink;
mod network;
mod power_button;
mod supervise;
mod uevent;

use std::process::ExitCode;

/// Code for a failure of this program itself.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        eprintln!("cairn-init is the first process of a microVM and does nothing anywhere else");
        return ExitCode::from(FAILED);
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("cairn-init: {panic}");
        end::end(FAILED, end::How::asked());
    }));
    let (code, how) = boot::boot();
    end::end(code, how)
}
