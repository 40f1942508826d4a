//! QEMU without libvirt and BMC: for images that only have to boot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::Firmware;
use crate::process::Daemon;
use crate::serial::SerialLog;

/// What to boot.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// What the machine starts with.
    pub firmware: Firmware,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Images in CD drives; the first one boots.
    pub cds: Vec<PathBuf>,
    /// qcow2 disks on virtio-scsi; boot after the CDs.
    pub disks: Vec<PathBuf>,
    /// More arguments, for example `["-append", …]`.
    pub arguments: Vec<String>,
}

impl Qemu {
    /// 1536 MiB, 2 processors, nothing to boot from yet.
    pub fn new(firmware: Firmware) -> Self {
        Self { firmware, memory_mib: 1536, cpus: 1, cds: Vec::new(), disks: Vec::new(), arguments: Vec::new() }
    }

    /// Starts it. `directory` takes the console log and the firmware's state. The guest reaches the host's loopback at
    /// 10.0.2.2; a reboot of the guest ends it.
    pub fn start(&self, directory: &Path) -> Result<RunningQemu> {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let serial = directory.join("serial.log");
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            // See machine_xml.rs for the missing instruction.
            "qemu64,-cx16",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        command.args(["-nodefaults", "-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        command.args(["-chardev", &format!("file,id=console,path={},append=on", serial.display())]);
        command.args(["-serial", "chardev:console", "-object", "rng-random,filename=/dev/urandom,id=random"]);
        command.args(["-device", "virtio-rng-pci,rng=random", "-netdev", "user,id=net0"]);
        command.args(["-device", "virtio-net-pci,netdev=net0,romfile=", "-device", "virtio-scsi-pci,id=scsi0"]);
        if self.firmware == Firmware::Uefi {
            let state = directory.join("firmware.fd");
            if !state.exists() {
                std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &state).context("copy the firmware's state")?;
            }
            command.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            command.args(["-drive", &format!("if=pflash,format=raw,file={}", state.display())]);
        }
        let media = self.cds.iter().map(|path| (path, "raw,media=cdrom,readonly=on", "scsi-cd"));
        let disks = self.disks.iter().map(|path| (path, "qcow2,cache=unsafe", "scsi-hd"));
        for (index, (path, kind, device)) in media.chain(disks).enumerate() {
            command.args(["-drive", &format!("file={},if=none,id=drive{index},format={kind}", path.display())]);
            command.args(["-device", &format!("{device},drive=drive{index},bus=scsi0.0,bootindex={}", index + 1)]);
        }
        command.args(&self.arguments);
        let daemon = Daemon::start("qemu", &mut command, &directory.join("qemu.log"))?;
        Ok(RunningQemu { daemon, serial: SerialLog::new(serial) })
    }
}

/// A running machine; ended with its value.
#[derive(Debug)]
pub struct RunningQemu {
    daemon: Daemon,
    serial: SerialLog,
}

impl RunningQemu {
    /// The serial console.
    pub fn serial(&self) -> &SerialLog {
        &self.serial
    }

    /// Fails with QEMU's own words if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    /// Waits until the guest powers off or reboots.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        self.daemon.wait_end(limit).with_context(|| format!("last lines:\n{}", self.serial.tail(20)))?;
        Ok(())
    }
}
