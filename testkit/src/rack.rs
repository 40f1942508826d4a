//! A rack: a libvirt daemon and a sushy-emulator of its own, and the machines defined in it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::libvirt::{Libvirt, virsh};
use crate::machine::{Machine, MachineSpec};
use crate::redfish::Redfish;
use crate::sushy::Sushy;

/// Needs an enclosure. One at a time in each; drop the machines first (declare them after it).
#[derive(Debug)]
pub struct Rack {
    work: PathBuf,
    // Ended in this order.
    sushy: Sushy,
    libvirt: Libvirt,
}

impl Rack {
    /// Starts libvirt and the BMC. `work` is the enclosure's directory.
    pub fn start(work: &Path) -> Result<Self> {
        let libvirt = Libvirt::start(work)?;
        let sushy = Sushy::start(work)?;
        Ok(Self { work: work.to_owned(), sushy, libvirt })
    }

    /// Adds a machine with blank disks that is off.
    pub fn machine(&self, spec: MachineSpec) -> Result<Machine> {
        Machine::define(&self.work.join("machines").join(&spec.name), spec)
    }

    /// The BMC: address, authority, user and password.
    pub fn redfish(&self) -> &Redfish {
        &self.sushy.redfish
    }

    /// Log of the BMC.
    pub fn bmc_log(&self) -> PathBuf {
        self.work.join("bmc/emulator.log")
    }

    /// Copies of virtual media that the emulator made and never removes.
    pub fn media_copies(&self) -> Result<Vec<PathBuf>> {
        let mut copies = Vec::new();
        for entry in std::fs::read_dir(self.libvirt.pool())? {
            copies.push(entry?.path());
        }
        Ok(copies)
    }

    /// Removes these copies; only while no machine has a CD inserted.
    pub fn remove_media_copies(&self) -> Result<()> {
        for copy in self.media_copies()? {
            std::fs::remove_file(&copy)?;
        }
        virsh(&["pool-refresh", Libvirt::pool_name()])?;
        Ok(())
    }
}
