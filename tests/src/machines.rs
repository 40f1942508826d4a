//! What scenarios with real machines look at.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use recipe::callback::Callback;
use serde_json::Value;
use testkit::commands::Job;
use testkit::disk::DiskCopy;
use testkit::machine::{Machine, Power};
use testkit::serial::Mark;
use testkit::site::{self, INSTALL_LIMIT, Site};
use testkit::sweep::SecretSweep;
use testkit::wait;

use crate::scripted::media;

/// Units of an installation, in their order.
pub(crate) const UNITS: [&str; 4] =
    ["partition.service", "image-linux.service", "bootloader-linux.service", "config-drive.service"];
/// The maintenance OS writes this once for each boot with a task.
pub(crate) const TARGET_STARTED: &str = "the target is started target=install-linux.target";
/// The installed kernel writes this once for each boot.
const INSTALLED_BOOT: &str = "] Command line: BOOT_IMAGE=";
/// Partition of the configuration drive and of the root file system, see `testkit::commands::recipe`.
const CONFIG_DRIVE: u32 = 2;
const ROOT: u32 = 3;

/// What was planted in the user-data of every install.
pub(crate) const PLANTED: &str = "planted-user-data-of-the-machine";

/// The recipe of most installs, with something planted in it.
pub(crate) fn recipe(machine: &Machine) -> Value {
    let mut recipe = Site::recipe(machine);
    recipe["user_data"] = Value::from(user_data());
    recipe
}

fn user_data() -> String {
    format!("#cloud-config\nwrite_files: [{{path: /etc/motd, content: {PLANTED}}}]\n")
}

/// A failure with the last lines of the machine's console.
pub(crate) fn shown<T>(machine: &Machine, outcome: Result<T>) -> Result<T> {
    outcome
        .with_context(|| format!("last lines of the console of {}:\n{}\n", machine.name(), machine.serial().tail(30)))
}

/// Waits until the history of a job has an event that begins so.
pub(crate) fn wait_event(site: &Site, job: &Job, text: &str) -> Result<()> {
    wait::until(
        &format!("{text:?} in the history of job {}", job.id),
        INSTALL_LIMIT,
        Duration::from_millis(300),
        || {
            let now = site.controller.job_document(&job.id)?;
            ensure!(now["status"] != "complete", "the job ended before: {now:#}");
            Ok(messages(&now).iter().any(|message| message.starts_with(text)).then_some(()))
        },
    )
}

/// Messages of a job's history.
pub(crate) fn messages(document: &Value) -> Vec<&str> {
    let events = document["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter_map(|event| event["message"].as_str()).collect()
}

/// Each unit started and finished, each once, in their order. A report that comes late is not waited for by the machine,
/// so one of them may be missing.
pub(crate) fn every_unit_in_order(document: &Value) -> Result<()> {
    let found: Vec<String> = messages(document)
        .into_iter()
        .filter(|message| UNITS.iter().any(|unit| message.starts_with(unit)))
        .map(|message| message.split(':').next().unwrap_or_default().to_owned())
        .collect();
    let wanted: Vec<String> =
        UNITS.iter().flat_map(|unit| [format!("{unit} started"), format!("{unit} finished")]).collect();
    let known: Vec<&String> = wanted.iter().filter(|message| found.contains(message)).collect();
    ensure!(
        found.iter().collect::<Vec<_>>() == known && known.len() + 1 >= wanted.len(),
        "the history tells of {found:?}"
    );
    Ok(())
}

/// Succeeded, first boot reported, media ejected, machine on.
pub(crate) fn ended_well(site: &Site, machine: &Machine, job: &Job) -> Result<Value> {
    let document = site.controller.job_document(&job.id)?;
    ensure!(document["status"] == "complete" && document["outcome"] == "succeeded", "{document:#}");
    ensure!(document["failed_step"].is_null() && document["conditions"][0]["reason"] == "reported", "{document:#}");
    ejected(site, machine)?;
    ensure!(machine.power()? == Power::On, "{} is off", machine.name());
    let accepted = reports(site, job)?;
    ensure!(accepted == ["success"], "reports of job {}: {accepted:?}", job.id);
    Ok(document)
}

/// How each terminal report of a job was taken.
pub(crate) fn reports(site: &Site, job: &Job) -> Result<Vec<String>> {
    let lines = site.controller.events()?;
    let reports = lines.iter().filter(|line| line["op"] == "webhook" && line["job_id"] == job.id.as_str());
    Ok(reports.filter_map(|line| line["status"].as_str()).map(str::to_owned).collect())
}

/// No medium is in the machine, neither as its BMC nor as libvirt sees it.
pub(crate) fn ejected(site: &Site, machine: &Machine) -> Result<()> {
    ensure!(!site.rack.redfish().inserted(machine.uuid())?, "the BMC of {} still has a medium", machine.name());
    ensure!(machine.cd()?.is_none(), "a CD is still in {}", machine.name());
    Ok(())
}

/// Since `mark` the maintenance OS has worked once and the installed system booted once; gives back the UUID of its root
/// file system.
pub(crate) fn booted_once_each(machine: &Machine, mark: Mark) -> Result<String> {
    let text = machine.serial().since(mark);
    let (tasks, boots) = (text.matches(TARGET_STARTED).count(), text.matches(INSTALLED_BOOT).count());
    ensure!(
        tasks == 1 && boots == 1,
        "the maintenance OS worked {tasks} times, the installed system booted {boots} times"
    );
    let line = text.lines().find(|line| line.contains(INSTALLED_BOOT)).unwrap_or_default();
    let root = line.split("root=UUID=").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(root.with_context(|| format!("no root file system in {line:?}"))?.to_owned())
}

/// Switches the installed system off politely and looks at its disk: table and stamp are the job's, the root file system
/// is the one that was booted, user-data is on the configuration drive, the first-boot reporter has left nothing.
pub(crate) fn disk_is_of(site: &Site, machine: &Machine, job: &Job, root: &str, work: &Path) -> Result<()> {
    switch_off(site, machine)?;
    let document = site.controller.job_document(&job.id)?;
    let disk = DiskCopy::take(&machine.disks()[0], &work.join(format!("{}.raw", machine.name())))?;
    let table = disk.table_guid()?;
    ensure!(table == job.id, "the partition table is of {table}, not of job {}", job.id);
    let found = disk.file_system_id(ROOT)?;
    ensure!(found == root, "the root file system is {found}, booted was {root}");
    let stamp = disk.ext4_file(ROOT, "/.cairn/steps.json")?.context("the disk has no stamp")?;
    let stamp: Value = serde_json::from_str(&stamp).context("read the stamp")?;
    let digest = &document["artifact"]["digest"];
    ensure!(stamp["job_id"] == job.id.as_str() && stamp["image_digest"] == *digest, "{stamp:#} for artifact {digest}");
    ensure!(stamp["placements"].as_array().is_some_and(|placements| placements.len() == 3), "{stamp:#}");
    ensure!(disk.fat_file(CONFIG_DRIVE, "user-data")? == user_data(), "user-data on the configuration drive");
    for path in ["/etc/cairn/first-boot.json", "/usr/lib/cairn/first-boot"] {
        ensure!(disk.ext4_file(ROOT, path)?.is_none(), "{path} is still there");
    }
    Ok(())
}

/// Presses the power button until the installed system has taken notice: a press while it boots is lost.
fn switch_off(site: &Site, machine: &Machine) -> Result<()> {
    let what = format!("{} to switch itself off", machine.name());
    wait::until(&what, Duration::from_secs(600), Duration::ZERO, || {
        if machine.power()? == Power::On {
            site.rack.redfish().reset(machine.uuid(), "GracefulShutdown")?;
        }
        Ok(machine.wait_power(Power::Off, Duration::from_secs(20)).ok())
    })
}

/// None of the secrets of these jobs is on the machine's console, in the controller's log or in the BMC's.
pub(crate) fn nothing_told(site: &Site, machine: &Machine, jobs: &[&Job]) -> Result<()> {
    let mut sweep = SecretSweep::default()
        .secret("webhook secret", site::WEBHOOK_SECRET)
        .secret("BMC password", &site.rack.redfish().password)
        .secret("user-data", PLANTED);
    for job in jobs {
        let callback = callback(site, job)?;
        let credentials = callback.artifact.and_then(|artifact| artifact.credentials).context("credentials")?;
        sweep = sweep
            .secret("webhook token", &callback.webhook_token)
            .secret("first-boot token", &callback.first_boot_token)
            .secret("registry token", &credentials.password);
    }
    for place in [machine.serial().path(), site.controller.log(), &site.rack.bmc_log()] {
        let findings = sweep.file(place)?;
        findings.check()?;
        ensure!(findings.unread.is_empty(), "{} is too large to be searched", place.display());
    }
    let task = std::fs::read(task(site, jobs[0])).context("read the task ISO")?;
    ensure!(sweep.text("task ISO", &task).check().is_err(), "the sweep does not see what the task ISO holds");
    Ok(())
}

fn callback(site: &Site, job: &Job) -> Result<Callback> {
    let task = std::fs::read(task(site, job)).context("read the task ISO")?;
    serde_json::from_slice(&media::file(&task, "/callback.json")?).context("read callback.json")
}

fn task(site: &Site, job: &Job) -> std::path::PathBuf {
    site.controller.data().join("tasks").join(&job.id).join("task.iso")
}
