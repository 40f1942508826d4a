//! One real install, from a machine with a blank disk to its first boot: what `cargo xtask demo` shows.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::commands::Job;
use crate::machine::{Machine, MachineSpec};
use crate::progress::Progress;
use crate::site::Site;

/// A machine that was installed once.
#[derive(Debug)]
pub struct Installed {
    // Gone in this order.
    /// The machine, on.
    pub machine: Machine,
    /// The job.
    pub job: Job,
    /// Everything else.
    pub site: Site,
}

/// Installs a machine and waits until it has booted from its own disk. `work` is the enclosure's directory.
pub fn demo(work: &Path, progress: &mut Progress) -> Result<()> {
    install(work, progress).map(drop)
}

/// The same, for more to be done with the machine.
pub fn install(work: &Path, progress: &mut Progress) -> Result<Installed> {
    let site = Site::start(work, &[], progress)?;
    progress.phase("make a machine, add it as a server, create the job");
    let machine = site.machine(MachineSpec::uefi("demo"), &[])?;
    progress.note(&format!("machine {}: UEFI, blank disk, off", machine.serial_number()));
    progress.note(&format!("BMC {}, controller {}", site.rack.redfish().url, site.controller.url()));
    let job = site.order(&machine, &Site::recipe(&machine))?;
    progress.note(&format!("job {}", job.id));
    site.follow(&machine, &job, progress)?;
    progress.phase("look at the machine");
    machine.serial().wait_for("login:", Duration::from_secs(600))?;
    progress.note(&format!("console: {}", machine.serial().tail(1)));
    Ok(Installed { machine, job, site })
}
