//! One real install, from a machine with a blank disk to its first boot: what `cargo xtask demo` shows.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::machine::MachineSpec;
use crate::progress::Progress;
use crate::site::Site;

/// Installs a machine and waits until it has booted from its own disk. `work` is the enclosure's directory.
pub fn demo(work: &Path, progress: &mut Progress) -> Result<()> {
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
    Ok(())
}
