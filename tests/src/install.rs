//! Installs on virtual bare machines.

use std::path::Path;

use anyhow::{Result, ensure};
use testkit::demo::{Installed, install};
use testkit::machine::Power;
use testkit::progress::Progress;
use testkit::serial::Mark;

use crate::machines::{booted_once_each, disk_is_of, ended_well, every_unit_in_order, nothing_told, recipe, shown};

/// Programs that an install and a look at the disk need.
pub(crate) const NEEDS: &[&str] = &[
    "libvirtd",
    "virsh",
    "qemu-system-x86_64",
    "qemu-img",
    "openssl",
    "htpasswd",
    "curl",
    "sgdisk",
    "blkid",
    "debugfs",
    "mtype",
];

/// The task was mounted from the file that the maintenance ISO keeps for it, through a loop device.
const FROM_BOOT_MEDIUM: &str = "the task is mounted from the boot medium file=/run/cairn/boot-medium/TASK.IMG";

/// What the demo shows: a blank UEFI machine becomes a Debian machine that reports its first boot. A second job on it,
/// while it runs, makes another Debian machine of it.
pub(crate) fn blank_machine_to_first_boot(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let ended = twice(work, &mut progress);
    print!("{}", progress.finish());
    ended
}

fn twice(work: &Path, progress: &mut Progress) -> Result<()> {
    let Installed { machine, job: first, site } = install(work, progress)?;
    let first_root = shown(&machine, booted_once_each(&machine, Mark::default()))?;
    let document = shown(&machine, ended_well(&site, &machine, &first))?;
    shown(&machine, every_unit_in_order(&document))?;
    let console = machine.serial().text();
    ensure!(
        console.contains(FROM_BOOT_MEDIUM),
        "no {FROM_BOOT_MEDIUM:?} on the console:\n{}",
        machine.serial().tail(60)
    );
    progress.phase("a second job on the running machine");
    ensure!(machine.power()? == Power::On, "the machine is off");
    let mark = machine.serial().mark();
    let second = site.order(&machine, &recipe(&machine))?;
    site.follow(&machine, &second, progress)?;
    let second_root = shown(&machine, booted_once_each(&machine, mark))?;
    ensure!(first_root != second_root, "the second job left root file system {first_root} as it was");
    let document = shown(&machine, ended_well(&site, &machine, &second))?;
    shown(&machine, every_unit_in_order(&document))?;
    ensure!(machine.starts()? == 4, "the machine was started {} times", machine.starts()?);
    progress.phase("look at its disk and for secrets");
    shown(&machine, disk_is_of(&site, &machine, &second, &second_root, work))?;
    nothing_told(&site, &machine, &[&second, &first])
}
