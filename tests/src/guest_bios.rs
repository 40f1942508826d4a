//! A BIOS machine is installed and boots.

use std::path::Path;

use anyhow::Result;
use testkit::machine::{Disk, DiskBus, MachineSpec};
use testkit::progress::Progress;
use testkit::serial::Mark;
use testkit::site::Site;

use crate::install;
use crate::machines::{booted_once_each, disk_is_of, ended_well, every_unit_in_order, recipe, shown};

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] = install::NEEDS;

/// GRUB in a BIOS boot partition (ef02) of an NVMe disk: a bus that SeaBIOS, the maintenance OS and the kernel of the
/// installed system all have. The last one is made for clouds and has no AHCI.
pub(crate) fn installs_and_boots(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let site = Site::start(work, &[], &mut progress)?;
    let disks = vec![Disk::new(DiskBus::Nvme, 6, "NVME-bios")];
    let machine = site.machine(MachineSpec { disks, ..MachineSpec::bios("bios") }, &[])?;
    let job = site.order(&machine, &recipe(&machine))?;
    site.follow(&machine, &job, &mut progress)?;
    let document = shown(&machine, ended_well(&site, &machine, &job))?;
    shown(&machine, every_unit_in_order(&document))?;
    let root = shown(&machine, booted_once_each(&machine, Mark::default()))?;
    progress.phase("look at the disk");
    shown(&machine, disk_is_of(&site, &machine, &job, &root, work))?;
    print!("{}", progress.finish());
    Ok(())
}
