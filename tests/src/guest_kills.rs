//! The controller is killed while a real machine works; the job ends right and the machine is installed once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::machine::{Machine, MachineSpec};
use testkit::progress::Progress;
use testkit::serial::Mark;
use testkit::site::{INSTALL_LIMIT, Site};
use testkit::{commands::Job, wait};

use crate::install;
use crate::machines::{booted_once_each, disk_is_of, ended_well, every_unit_in_order, recipe, shown, wait_event};

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] = install::NEEDS;

/// SIGKILL right after the reset, then, with a second job, while the webhook is awaited.
pub(crate) fn after_reset_and_before_the_report(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let mut site = Site::start(work, &[], &mut progress)?;
    let machine = site.machine(MachineSpec::uefi("kills"), &[])?;
    let first = after_reset(&mut site, &machine, &mut progress)?;
    let first_root = shown(&machine, once(&site, &machine, &first, Mark::default(), 2))?;
    let mark = machine.serial().mark();
    let second = before_the_report(&mut site, &machine, &mut progress)?;
    let second_root = shown(&machine, once(&site, &machine, &second, mark, 4))?;
    ensure!(first_root != second_root, "the second job left root file system {first_root} as it was");
    progress.phase("look at the disk");
    shown(&machine, disk_is_of(&site, &machine, &second, &second_root, work))?;
    print!("{}", progress.finish());
    Ok(())
}

/// The BMC has switched the machine on, its answer is lost, and the controller is back when the maintenance OS boots.
fn after_reset(site: &mut Site, machine: &Machine, progress: &mut Progress) -> Result<Job> {
    progress.phase("a job, and SIGKILL right after the reset");
    let job = site.order(machine, &recipe(machine))?;
    let limit = Duration::from_secs(120);
    wait::until("the BMC to switch the machine on", limit, Duration::from_millis(2), || {
        Ok((machine.starts()? > 0).then_some(()))
    })?;
    site.controller.kill()?;
    let answered = site.controller.events()?.iter().any(|line| line["op"] == "power.on");
    progress.note(if answered { "the answer of the BMC was heard" } else { "the answer of the BMC was lost" });
    machine.serial().wait_for("Cairn maintenance system", INSTALL_LIMIT)?;
    progress.phase("the controller again");
    site.controller.resume()?;
    site.follow(machine, &job, progress)?;
    let document = site.controller.job_document(&job.id)?;
    shown(machine, every_unit_in_order(&document))?;
    Ok(job)
}

/// The maintenance OS finds nobody to report to and tries again.
fn before_the_report(site: &mut Site, machine: &Machine, progress: &mut Progress) -> Result<Job> {
    progress.phase("a job, and SIGKILL while the webhook is awaited");
    let mark = machine.serial().mark();
    let job = site.order(machine, &recipe(machine))?;
    wait_event(site, &job, "bootloader-linux.service started")?;
    site.controller.kill()?;
    progress.phase("no controller until the machine has tried to report");
    machine.serial().wait_since(mark, "the report was not taken", INSTALL_LIMIT)?;
    progress.phase("the controller again");
    site.controller.resume()?;
    site.follow(machine, &job, progress)?;
    Ok(job)
}

/// Ended well, with one boot of the maintenance OS and one of the installed system.
fn once(site: &Site, machine: &Machine, job: &Job, mark: Mark, starts: usize) -> Result<String> {
    ended_well(site, machine, job)?;
    ensure!(machine.starts()? == starts, "the machine was started {} times, not {starts}", machine.starts()?);
    booted_once_each(machine, mark)
}
