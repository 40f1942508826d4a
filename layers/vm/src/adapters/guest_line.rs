//! What a guest is told on its kernel's command line, and what it says last.

use std::fmt::Write;

use crate::model::Backend;
use crate::ports::Launch;

/// What Linux writes when it gives up; nothing silences it (`panic()` in the kernel's `kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing";

/// The kernel's command line of a VM: first what the hypervisor needs, then the words of `cairn-init` (guest/init), then
/// what the user asked for, which has the last word. `tsc_khz` is the host's frequency where the processor is emulated:
/// a guest cannot measure it there.
pub fn kernel_arguments(launch: &Launch, backend: Backend, tsc_khz: Option<u64>) -> String {
    // A guest that panics restarts at once, and a restart ends it under both: its end is seen, and its reason is the
    // console's last line.
    let mut line = "console=ttyS0 reboot=k panic=-1".to_owned();
    let mut add = |word: std::fmt::Arguments<'_>| {
        let _ = write!(line, " {word}");
    };
    if backend == Backend::Firecracker {
        // There is no PCI bus, and the keyboard controller has only the keys of Ctrl-Alt-Del.
        add(format_args!("pci=off i8042.noaux i8042.nomux i8042.dumbkbd"));
    }
    if let Some(khz) = tsc_khz {
        add(format_args!("tsc_early_khz={khz}"));
    }
    if let Some(disk) = launch.disks.iter().find(|disk| disk.is_root) {
        add(format_args!("root=/dev/vda {}", if disk.read_only { "ro" } else { "rw" }));
    }
    let guest = &launch.wire.guest;
    if let Some(address) = guest.ipv4 {
        let gateway = guest.gateway_ipv4.map(|gateway| format!(",{gateway}")).unwrap_or_default();
        add(format_args!("cairn.ip={address}{gateway}"));
    }
    if let Some(address) = guest.ipv6 {
        let gateway = guest.gateway_ipv6.map(|gateway| format!(",{gateway}")).unwrap_or_default();
        add(format_args!("cairn.ip={address}{gateway}"));
    }
    if !launch.wire.dns.is_empty() {
        let servers: Vec<String> = launch.wire.dns.iter().map(ToString::to_string).collect();
        add(format_args!("cairn.dns={}", servers.join(",")));
    }
    if backend == Backend::Firecracker {
        // Firecracker has no power switch.
        add(format_args!("cairn.end=reboot"));
    }
    let user = launch.vm.spec.boot.kernel_args.trim();
    if !user.is_empty() {
        add(format_args!("{user}"));
    }
    line
}

/// Whether the last lines of a console are those of a guest whose kernel gave up. Its hypervisor ends as after any other
/// restart, so this is the only sign.
pub fn panicked(console_tail: &str) -> bool {
    console_tail.contains(PANIC)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Slot, State, Vm};
    use crate::ports::{DiskFile, GuestAddresses, Wire};

    /// A launch with a network, a data disk and a root disk.
    pub(crate) fn launch() -> Launch {
        let spec = serde_json::from_value(serde_json::json!({
            "cpu": {"vcpu_count": 2}, "memory": {"size_bytes": 134217728}, "boot": {"kernel_args": " quiet "}
        }));
        let (id, customer) = ("ud-1".parse().unwrap(), "acme".parse().unwrap());
        let vm = Vm::new(id, customer, spec.unwrap(), jiff::Timestamp::UNIX_EPOCH);
        let vm = Vm { state: State::Starting, slot: Slot(7), operation: None, ..vm };
        let wire = Wire {
            namespace: "ns_vm_ud-1".to_owned(),
            namespace_path: "/run/netns/ns_vm_ud-1".into(),
            link: "tapv7".to_owned(),
            tap: "tap0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            guest: GuestAddresses {
                ipv4: Some("10.0.0.2/24".parse().unwrap()),
                gateway_ipv4: Some("10.0.0.1".parse().unwrap()),
                ipv6: Some("fd00::2/64".parse().unwrap()),
                gateway_ipv6: None,
            },
            ipv4: Some("172.20.0.7".parse().unwrap()),
            ipv6: None,
            dns: vec!["1.1.1.1".parse().unwrap(), "2606:4700::1111".parse().unwrap()],
        };
        let disk = |id: &str, is_root: bool| DiskFile {
            id: id.to_owned(),
            path: format!("/data/{id}").into(),
            read_only: !is_root,
            is_root,
        };
        let disks = vec![disk("data", false), disk("root", true)];
        Launch { vm, kernel: "/assets/kernel".into(), initrd: None, disks, wire, uid: 200_007, gid: 200_007 }
    }

    #[test]
    fn the_user_has_the_last_word() {
        let mut launch = launch();
        assert_eq!(
            kernel_arguments(&launch, Backend::Firecracker, None),
            "console=ttyS0 reboot=k panic=-1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd root=/dev/vda rw \
             cairn.ip=10.0.0.2/24,10.0.0.1 cairn.ip=fd00::2/64 cairn.dns=1.1.1.1,2606:4700::1111 cairn.end=reboot quiet"
        );
        launch.wire.guest.ipv6 = None;
        launch.wire.dns.clear();
        launch.disks[1].read_only = true;
        launch.vm.spec.boot.kernel_args.clear();
        assert_eq!(
            kernel_arguments(&launch, Backend::Qemu, Some(2_450_000)),
            "console=ttyS0 reboot=k panic=-1 tsc_early_khz=2450000 root=/dev/vda ro cairn.ip=10.0.0.2/24,10.0.0.1"
        );
    }

    #[test]
    fn a_panic_is_known_by_the_kernels_words() {
        assert!(panicked("x\n[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n[    1.1] Rebooting"));
        assert!(!panicked("cairn-init: exit 0\n[    2.0] reboot: Power down"));
    }
}
