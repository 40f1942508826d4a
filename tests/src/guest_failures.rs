//! What goes wrong on a real machine has its own code, and nothing is half installed without saying so.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::commands::Job;
use testkit::disk::{self, DiskCopy};
use testkit::machine::{Disk, DiskBus, Machine, MachineSpec, Power};
use testkit::progress::Progress;
use testkit::site::Site;

use crate::machines::{ejected, messages, recipe, reports, shown};

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] = &[
    "libvirtd",
    "virsh",
    "qemu-system-x86_64",
    "qemu-img",
    "qemu-io",
    "openssl",
    "htpasswd",
    "curl",
    "sgdisk",
    "blkid",
    "debugfs",
];

/// A layer that was changed in the registry; then two disks where one is meant.
pub(crate) fn digest_and_disks(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let site = Site::start(work, &[], &mut progress)?;
    two_disks(work, &site, &mut progress)?;
    damaged_layer(work, &site, &mut progress)?;
    print!("{}", progress.finish());
    Ok(())
}

fn two_disks(work: &Path, site: &Site, progress: &mut Progress) -> Result<()> {
    progress.phase("a hint that two disks fit");
    let disks = vec![Disk::new(DiskBus::Scsi, 4, "DISK-A"), Disk::new(DiskBus::Nvme, 4, "DISK-B")];
    let machine = site.machine(MachineSpec { disks, ..MachineSpec::uefi("two-disks") }, &[])?;
    let mut before = Vec::new();
    for (index, path) in machine.disks().iter().enumerate() {
        disk::scribble(path, 4)?;
        before.push(work.join(format!("before{index}.qcow2")));
        std::fs::copy(path, &before[index])?;
    }
    let mut recipe = recipe(&machine);
    recipe["target_disk"] = json!({"min_size": 3_u64 << 30});
    let job = site.order(&machine, &recipe)?;
    let document = failed(site, &machine, &job, "workflow.partition", "disk_hint_ambiguous")?;
    let detail = document["failed_detail"].as_str().unwrap_or_default();
    for word in ["/dev/sda", "/dev/nvme0n1", "DISK-A", "DISK-B"] {
        ensure!(detail.contains(word), "{word} is not in the detail: {detail}");
    }
    for (before, after) in before.iter().zip(machine.disks()) {
        ensure!(disk::same(before, after)?, "{} was changed", after.display());
    }
    Ok(())
}

fn damaged_layer(work: &Path, site: &Site, progress: &mut Progress) -> Result<()> {
    progress.phase("a layer that was changed in the registry");
    let machine = site.machine(MachineSpec::uefi("damaged"), &[])?;
    let job = site.order(&machine, &recipe(&machine))?;
    let layer = largest(&site.controller.data().join("oci/blobs/sha256"))?;
    flip_a_byte(&layer)?;
    let document = failed(site, &machine, &job, "workflow.image-linux", "artifact_digest_mismatch")?;
    let layer = layer.file_name().context("name")?.to_string_lossy().into_owned();
    ensure!(document["failed_detail"].as_str().is_some_and(|detail| detail.contains(&layer)), "{document:#}");
    // The disk tells, too, that it is not whole.
    let disk = DiskCopy::take(&machine.disks()[0], &work.join("damaged.raw"))?;
    let stamp: Value =
        serde_json::from_str(&disk.ext4_file(3, "/.cairn/steps.json")?.context("the disk has no stamp")?)?;
    ensure!(stamp["image_digest"].is_null() && !stamp["image_begun"].is_null(), "the stamp: {stamp:#}");
    Ok(())
}

/// The job failed so; the machine is off, without media, and nothing says success.
fn failed(site: &Site, machine: &Machine, job: &Job, step: &str, code: &str) -> Result<Value> {
    site.wait_complete(job)?;
    let document = site.controller.job_document(&job.id)?;
    let look = || {
        ensure!(document["outcome"] == "failed", "{document:#}");
        ensure!(document["failed_step"] == step && document["failed_code"] == code, "{document:#}");
        ensure!(document["conditions"][0]["reason"] == "not-started", "{document:#}");
        ensure!(machine.power()? == Power::Off && machine.starts()? == 1, "the machine was started again");
        ejected(site, machine)?;
        let reports = reports(site, job)?;
        ensure!(reports == ["failed"], "reports: {reports:?}");
        let unit = format!("{}.service", step.trim_start_matches("workflow."));
        let good = |message: &&str| message.contains("succe") || message.starts_with(&format!("{unit} finished"));
        let told: Vec<_> = messages(&document).into_iter().filter(good).collect();
        ensure!(told.is_empty(), "the history says {told:?}");
        ensure!(!machine.serial().text().contains("unit=\"config-drive.service\""), "later steps ran");
        Ok(())
    };
    shown(machine, look())?;
    Ok(document)
}

/// The largest file: the layer.
fn largest(directory: &Path) -> Result<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    Ok(files.into_iter().max().context("the registry is empty")?.1)
}

/// Changes a byte in the middle, as a failing disk would: size, dates and names stay.
fn flip_a_byte(path: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path).with_context(|| format!("open {}", path.display()))?;
    let at = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0xff], at)?;
    Ok(())
}
