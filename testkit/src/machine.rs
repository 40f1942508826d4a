//! A virtual bare machine: QEMU without hardware virtualisation, described to libvirt, driven through its BMC.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::libvirt::virsh;
use crate::machine_xml::{Files, domain};
use crate::process::run;
use crate::serial::SerialLog;
use crate::wait;

/// What the machine starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// OVMF, without Secure Boot.
    Uefi,
    /// SeaBIOS.
    Bios,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-scsi; the BMC's CD is then on it too.
    Scsi,
    /// AHCI.
    Sata,
    /// NVMe.
    Nvme,
}

/// A disk; blank at first.
#[derive(Debug, Clone)]
pub struct Disk {
    /// How it is attached.
    pub bus: DiskBus,
    /// Size in GiB; takes only as much room as is written.
    pub gib: u32,
    /// Serial number that the guest sees.
    pub serial: String,
}

impl Disk {
    /// A disk with these values.
    pub fn new(bus: DiskBus, gib: u32, serial: &str) -> Self {
        Self { bus, gib, serial: serial.to_owned() }
    }
}

/// A network interface.
#[derive(Debug, Clone)]
pub enum Nic {
    /// QEMU's own network: DHCP gives 10.0.2.15, the host's loopback is at 10.0.2.2, nothing can connect to the guest.
    User {
        /// MAC address.
        mac: String,
    },
    /// A port of a bridge, see [`crate::bridge`].
    Bridge {
        /// MAC address.
        mac: String,
        /// Name of the bridge.
        bridge: String,
    },
}

impl Nic {
    /// Its MAC address.
    pub fn mac(&self) -> &str {
        match self {
            Self::User { mac } | Self::Bridge { mac, .. } => mac,
        }
    }
}

/// What a machine consists of.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Name, one per rack.
    pub name: String,
    /// Serial number, as firmware and BMC tell it.
    pub serial_number: String,
    /// What it starts with.
    pub firmware: Firmware,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Disks, the first one boots.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub nics: Vec<Nic>,
}

impl MachineSpec {
    /// 1536 MiB, 2 processors, one SCSI disk of 6 GiB, one user-mode interface, UEFI.
    pub fn uefi(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            serial_number: format!("SN-{name}"),
            firmware: Firmware::Uefi,
            memory_mib: 1536,
            // One: emulated threads and recent kernels do not get on (see machine_xml.rs).
            cpus: 1,
            disks: vec![Disk::new(DiskBus::Scsi, 6, &format!("DISK-{name}"))],
            nics: vec![Nic::User { mac: "52:54:00:ca:00:01".to_owned() }],
        }
    }

    /// The same with BIOS.
    pub fn bios(name: &str) -> Self {
        Self { firmware: Firmware::Bios, ..Self::uefi(name) }
    }
}

/// Whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Running.
    On,
    /// Not running.
    Off,
}

/// A machine of a rack; gone with its value.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    uuid: String,
    disks: Vec<PathBuf>,
    serial: SerialLog,
}

impl Machine {
    /// Defines it; it stays off. `directory` takes its disks, console log and firmware state.
    pub(crate) fn define(directory: &Path, spec: MachineSpec) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let disks: Vec<PathBuf> =
            (0..spec.disks.len()).map(|index| directory.join(format!("disk{index}.qcow2"))).collect();
        for (disk, path) in spec.disks.iter().zip(&disks) {
            blank_disk(path, disk.gib)?;
        }
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a UUID")?.trim().to_owned();
        let serial = directory.join("serial.log");
        let firmware_state = directory.join("firmware.fd");
        let files = Files { disks: &disks, serial: &serial, firmware_state: &firmware_state };
        let description = directory.join("domain.xml");
        std::fs::write(&description, domain(&spec, &uuid, &files))?;
        virsh(&["define", &description.display().to_string()])?;
        Ok(Self { spec, uuid, disks, serial: SerialLog::new(serial) })
    }

    /// What it was made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// Its name, and that of its libvirt domain.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its id, also as a Redfish system.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Its serial number.
    pub fn serial_number(&self) -> &str {
        &self.spec.serial_number
    }

    /// The serial console.
    pub fn serial(&self) -> &SerialLog {
        &self.serial
    }

    /// Files of its disks (qcow2), in the order of the spec.
    pub fn disks(&self) -> &[PathBuf] {
        &self.disks
    }

    /// Whether it runs, as libvirt sees it, not the BMC.
    pub fn power(&self) -> Result<Power> {
        let state = virsh(&["domstate", &self.uuid])?;
        Ok(if state.trim() == "shut off" { Power::Off } else { Power::On })
    }

    /// How often it was switched on, as libvirt logged it.
    pub fn starts(&self) -> Result<usize> {
        // Made by the first start.
        let log = std::fs::read(format!("/var/log/libvirt/qemu/{}.log", self.name())).unwrap_or_default();
        Ok(String::from_utf8_lossy(&log).matches(": starting up libvirt version").count())
    }

    /// Waits for a power state.
    pub fn wait_power(&self, power: Power, limit: Duration) -> Result<()> {
        let what = format!("{} to be {power:?}", self.name());
        wait::until(&what, limit, Duration::from_millis(500), || Ok((self.power()? == power).then_some(())))
    }

    /// Pulls the plug.
    pub fn unplug(&self) -> Result<()> {
        if self.power()? == Power::On {
            virsh(&["destroy", &self.uuid])?;
        }
        Ok(())
    }

    /// Whether a CD is in its drive, with the file it comes from; read from libvirt, not the BMC.
    pub fn cd(&self) -> Result<Option<String>> {
        let list = virsh(&["domblklist", &self.uuid, "--details", "--inactive"])?;
        let cd = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(cd.filter(|fields| fields.get(1) == Some(&"cdrom")).find_map(|fields| match fields.get(3) {
            Some(&"-") | None => None,
            Some(file) => Some((*file).to_owned()),
        }))
    }

    /// Makes all disks blank again; the machine must be off.
    pub fn wipe(&self) -> Result<()> {
        anyhow::ensure!(self.power()? == Power::Off, "{} is on", self.name());
        for (disk, path) in self.spec.disks.iter().zip(&self.disks) {
            blank_disk(path, disk.gib)?;
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ended = self.unplug().and_then(|()| virsh(&["undefine", "--nvram", &self.uuid]));
        if let Err(error) = ended {
            eprintln!("warning: machine {} did not go: {error:#}", self.name());
        }
    }
}

/// Makes an empty qcow2 image, in the place of an older one.
pub fn blank_disk(path: &Path, gib: u32) -> Result<()> {
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg(format!("{gib}G")))?;
    Ok(())
}
