//! All that an install needs, ready: a rack, a controller with the maintenance image, and something to install.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::commands::{self, Job};
use crate::controller::Controller;
use crate::machine::{Machine, MachineSpec};
use crate::progress::Progress;
use crate::rack::Rack;
use crate::{environment, wait};

/// The artifact that [`Site::start`] pushes: a Debian root file system.
pub const ARTIFACT: &str = "os-images/debian:trixie";
/// Name of the archive that it is pushed from.
const ARCHIVE: &str = "debian.tar.zst";
/// The controller's webhook secret; also searched for in logs.
pub const WEBHOOK_SECRET: &str = "webhook-secret-of-the-site";
/// Without hardware virtualisation and with other work on the machine an install takes several times as long as alone.
pub const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Machines that it made must be dropped before it.
#[derive(Debug)]
pub struct Site {
    /// The enclosure's directory.
    pub work: PathBuf,
    /// The controller.
    pub controller: Controller,
    /// The rack.
    pub rack: Rack,
}

impl Site {
    /// Starts everything; `settings` are more of the controller's.
    pub fn start(work: &Path, settings: &[(&str, &str)], progress: &mut Progress) -> Result<Self> {
        progress.phase("start cairn");
        let controller = Controller::start(work, WEBHOOK_SECRET, settings)?;
        Self::around(work, controller, progress)
    }

    /// The same with the controller on another address of this machine, which asks for `user` and `password`. Machines
    /// and BMCs find it there.
    pub fn start_at(work: &Path, address: &str, user: &str, password: &str, progress: &mut Progress) -> Result<Self> {
        progress.phase("start cairn");
        // Unset, the two addresses follow from the listener's.
        let settings = [("MEDIA_URL", ""), ("CALLBACK_URL", ""), ("BASIC_USER", user), ("BASIC_PASS", password)];
        let mut controller = Controller::start_at(work, address, WEBHOOK_SECRET, &settings)?;
        let file = work.join("user-password");
        write_secret(&file, password)?;
        controller.set_client(&[("CAIRN_USER", user), ("CAIRN_PASSWORD_FILE", &file.display().to_string())]);
        Self::around(work, controller, progress)
    }

    fn around(work: &Path, controller: Controller, progress: &mut Progress) -> Result<Self> {
        progress.phase("start libvirt and the BMC");
        let rack = Rack::start(work)?;
        progress.phase("build the Debian root file system (kept in the cache)");
        let root = work.join(ARCHIVE);
        build(&controller, commands::image_root(&root), "root.lock", progress)?;
        progress.phase("build the maintenance image (its parts are kept in the cache)");
        build(&controller, commands::image_build(controller.data()), "image.lock", progress)?;
        progress.phase("push the root file system");
        controller.command(&commands::artifact_push(ARTIFACT, &root))?;
        Ok(Self { work: work.to_owned(), controller, rack })
    }

    /// The archive that [`ARTIFACT`] was pushed from.
    pub fn archive(&self) -> PathBuf {
        self.work.join(ARCHIVE)
    }

    /// Makes a machine and tells the controller of it; `more` are options of `server add`.
    pub fn machine(&self, spec: MachineSpec, more: &[&str]) -> Result<Machine> {
        let machine = self.rack.machine(spec)?;
        let bmc = self.rack.redfish();
        let password = self.work.join("bmc-password");
        write_secret(&password, &bmc.password)?;
        let mut words = commands::server_add(machine.serial_number(), bmc, machine.uuid(), &password);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        self.controller.command(&words)?;
        Ok(machine)
    }

    /// The recipe that installs [`ARTIFACT`] on the machine's first disk.
    pub fn recipe(machine: &Machine) -> Value {
        let spec = machine.spec();
        commands::recipe(spec.firmware, &spec.disks[0].serial, ARTIFACT)
    }

    /// Creates a job.
    pub fn order(&self, machine: &Machine, recipe: &Value) -> Result<Job> {
        let file = self.work.join(format!("recipe-{}.json", machine.name()));
        std::fs::write(&file, recipe.to_string())?;
        Job::parse(&self.controller.command(&commands::job_create(machine.serial_number(), &file))?)
    }

    /// Waits until the job is complete and the machine has reported its first boot; a phase for each phase of the job.
    /// A failed job ends the wait with the last lines of the machine's console.
    pub fn follow(&self, machine: &Machine, job: &Job, progress: &mut Progress) -> Result<()> {
        let mut place = String::new();
        wait::until(&format!("the first boot after job {}", job.id), INSTALL_LIMIT, Duration::from_secs(1), || {
            let now = self.controller.job(&job.id)?;
            let there = format!("job is {} {}", now.status, now.phase);
            if there != place {
                progress.phase(&there);
                place = there;
            }
            if let Some(step) = now.failed_step {
                let code = now.failed_code.unwrap_or_default();
                bail!("the job failed at {step} ({code}); last lines of the console:\n{}", machine.serial().tail(30));
            }
            Ok((now.status == "complete" && now.first_boot).then_some(()))
        })
    }

    /// Waits until the job is complete, however it ended, and gives it back.
    pub fn wait_complete(&self, job: &Job) -> Result<Job> {
        wait::until(&format!("the end of job {}", job.id), INSTALL_LIMIT, Duration::from_secs(1), || {
            Ok(Some(self.controller.job(&job.id)?).filter(|now| now.status == "complete"))
        })
    }
}

/// Runs a build. An archive keeps only the newest packages: when one of the built-in lock is gone, a lock of today is made
/// and kept in the cache.
fn build(controller: &Controller, words: commands::Words, lock: &str, progress: &mut Progress) -> Result<()> {
    let Err(error) = controller.command(&words) else { return Ok(()) };
    if !format!("{error:#}").contains("image_package_gone") {
        return Err(error);
    }
    progress
        .note(&format!("a package of the built-in {lock} is gone from the archive; building from today's packages"));
    controller.command(&commands::renewed(words, &environment::cache()?.join(lock))).map(drop)
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    std::fs::write(path, secret)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}
