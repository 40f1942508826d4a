//! QEMU's command line. Paths are relative to the VM's directory: no path can have a comma, which would need quoting, or
//! be too long for a socket.

use serde::{Deserialize, Serialize};

use super::super::guest_line::kernel_arguments;
use crate::model::{Backend, VmId};
use crate::ports::Launch;

/// Kernel in the VM's directory.
pub(super) const KERNEL: &str = "vmlinux";
/// Initial file system in the VM's directory.
pub(super) const INITRD: &str = "initrd";
/// Socket for commands in the VM's directory.
pub(super) const SOCKET: &str = "qmp.sock";

/// MiB of translated code at most where the processor is emulated.
const TRANSLATED_MIB: u32 = 128;

/// What QEMU's own seccomp filter forbids.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, by KVM.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What a VM's process is called: the guide finds processes by `firecracker.*ns_vm_…`.
pub(super) fn name(id: &VmId) -> String {
    format!("firecracker-{}", id.namespace())
}

/// Where a disk is in the VM's directory.
pub(super) fn disk(id: &str) -> String {
    format!("disks/{id}")
}

/// Program and arguments. The guest does not run yet, and a restart of it ends the process.
pub(super) fn vector(program: &str, launch: &Launch, accelerator: Accelerator, tsc_khz: Option<u64>) -> Vec<String> {
    let spec = &launch.vm.spec;
    let mut out = vec![program.to_owned()];
    let mut add = |words: &[&str]| out.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["-name", &name(&launch.vm.id)]);
    add(&["-M", "microvm"]);
    match accelerator {
        Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => {
            // The model lacks an instruction that QEMU 7.2 emulates wrongly (decision 0013).
            add(&["-accel", &format!("tcg,tb-size={TRANSLATED_MIB}"), "-cpu", "qemu64,-cx16"]);
        }
    }
    add(&["-m", &format!("{}M", spec.memory_mib()), "-smp", &spec.vcpus().to_string()]);
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S", "-sandbox", SANDBOX]);
    add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    add(&["-qmp", &format!("unix:{SOCKET},server=on,wait=off")]);
    // A keyboard controller, for Ctrl-Alt-Del and `reboot=k`, and randomness for the guest.
    add(&["-device", "i8042", "-object", "rng-random,filename=/dev/urandom,id=random"]);
    add(&["-device", "virtio-rng-device,rng=random"]);
    // The root disk is the guest's first one.
    let (roots, others): (Vec<_>, Vec<_>) = launch.disks.iter().partition(|disk| disk.is_root);
    for (index, file) in roots.into_iter().chain(others).enumerate() {
        let read_only = if file.read_only { "on" } else { "off" };
        let path = disk(&file.id);
        add(&["-drive", &format!("if=none,id=drive{index},format=raw,readonly={read_only},file={path}")]);
        add(&["-device", &format!("virtio-blk-device,drive=drive{index},serial={}", file.id)]);
    }
    let (tap, mac) = (&launch.wire.tap, &launch.wire.mac);
    add(&["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no,vhost=off")]);
    add(&["-device", &format!("virtio-net-device,netdev=net0,mac={mac}")]);
    add(&["-kernel", KERNEL]);
    if launch.initrd.is_some() {
        add(&["-initrd", INITRD]);
    }
    add(&["-append", &kernel_arguments(launch, Backend::Qemu, tsc_khz)]);
    out
}

/// Frequency of the host's time stamp counter, which an emulated guest sees and cannot measure.
pub(super) fn host_tsc_khz() -> Option<u64> {
    tsc_khz(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn tsc_khz(cpuinfo: &str) -> Option<u64> {
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"))?;
    let (whole, part) = line.split_once(':')?.1.trim().split_once('.')?;
    let thousandths = part.get(..3)?;
    Some(whole.parse::<u64>().ok()? * 1000 + thousandths.parse::<u64>().ok()?)
}

/// The version in `QEMU emulator version 7.2.22 (Debian …)`, and its first two numbers.
pub(super) fn version(output: &str) -> Option<(String, (u32, u32))> {
    let version = output.lines().next()?.strip_prefix("QEMU emulator version ")?.split(' ').next()?;
    let mut numbers = version.split('.').map(|part| part.parse().ok());
    Some((version.to_owned(), (numbers.next()??, numbers.next()??)))
}

#[cfg(test)]
mod tests {
    use super::super::super::guest_line::tests::launch;
    use super::*;

    #[test]
    fn an_emulated_machine() {
        let mut launch = launch();
        launch.initrd = Some("/assets/initrd".into());
        let words = vector("/usr/bin/qemu-system-x86_64", &launch, Accelerator::Tcg, Some(2_450_000));
        let (append, rest) = words.split_last().unwrap();
        assert!(append.contains("tsc_early_khz=2450000 root=/dev/vda rw cairn.ip="), "{append}");
        assert_eq!(
            rest.join(" "),
            "/usr/bin/qemu-system-x86_64 -name firecracker-ns_vm_ud-1 -M microvm -accel tcg,tb-size=128 \
             -cpu qemu64,-cx16 -m 128M -smp 2 -nodefaults -no-user-config -display none -no-reboot -S \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -chardev stdio,id=console,signal=off -serial chardev:console -qmp unix:qmp.sock,server=on,wait=off \
             -device i8042 -object rng-random,filename=/dev/urandom,id=random -device virtio-rng-device,rng=random \
             -drive if=none,id=drive0,format=raw,readonly=off,file=disks/root \
             -device virtio-blk-device,drive=drive0,serial=root \
             -drive if=none,id=drive1,format=raw,readonly=on,file=disks/data \
             -device virtio-blk-device,drive=drive1,serial=data \
             -netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off \
             -device virtio-net-device,netdev=net0,mac=02:00:00:00:00:01 -kernel vmlinux -initrd initrd -append"
        );
    }

    #[test]
    fn under_kvm_the_processor_is_the_hosts() {
        let words = vector("/qemu", &launch(), Accelerator::Kvm, None).join(" ");
        assert!(words.contains("-accel kvm -cpu host") && !words.contains("tsc_early_khz"), "{words}");
        assert!(!words.contains("-initrd"), "{words}");
    }

    #[test]
    fn what_the_host_says_of_itself_is_read() {
        assert_eq!(tsc_khz("processor : 0\ncpu MHz\t\t: 2449.998\ncache"), Some(2_449_998));
        assert_eq!((tsc_khz("cpu MHz\t: fast"), tsc_khz("")), (None, None));
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version(text), Some(("7.2.22".to_owned(), (7, 2))));
        assert_eq!(version("QEMU emulator version 10"), None);
    }
}
