//! The disk of the new system, and its file systems mounted under `/mnt/new-root`.

use std::path::{Path, PathBuf};

use host::{Command, Host, Mount, unmount_below};
use recipe::{Format, Placement, Roles, roles};
use uuid::Uuid;

use super::Context;
use crate::disks::partition_device;
use crate::failure::{Failure, code};
use crate::workspace::PreparedDisk;

/// Name of the file that the partition step leaves for the others.
pub(super) const PREPARED: &str = "disk.json";

/// The disk that the partition step prepared, checked to be still this job's.
pub(super) fn prepared(context: &Context<'_>) -> Result<PreparedDisk, Failure> {
    let missing = || Failure::new(code::DISK_NOT_PREPARED, "the partition step has not prepared a disk");
    let disk: PreparedDisk = context.workspace.read_json(PREPARED)?.ok_or_else(missing)?;
    let found = table_id(context.host, &disk.device);
    if found != Some(context.callback.job_id) {
        let message = format!("{} does not carry the partition table of this job", disk.device);
        return Err(Failure::new(code::DISK_NOT_PREPARED, message));
    }
    Ok(disk)
}

/// GUID of the partition table on a disk, when it has one.
pub(super) fn table_id(host: &dyn Host, disk: &str) -> Option<Uuid> {
    Uuid::try_parse(&probe(host, disk, "PTUUID")?).ok()
}

/// UUID of the file system on a partition.
pub(super) fn file_system_id(host: &dyn Host, device: &str) -> Result<String, Failure> {
    probe(host, device, "UUID")
        .ok_or_else(|| Failure::new(code::DISK_NOT_PREPARED, format!("{device} holds no file system with a UUID")))
}

/// One value that blkid reads from the device itself, not from a cache.
fn probe(host: &dyn Host, device: &str, tag: &str) -> Option<String> {
    let command = Command::new("blkid").args(["--probe", "--output", "value", "--match-tag", tag, device]);
    let value = host.run(&command).ok()?.text();
    (!value.is_empty()).then_some(value)
}

/// Which of the file systems are mounted beside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// None.
    No,
    /// Those that keep owners and modes: tar fails on FAT.
    ThatKeepOwners,
    /// All.
    All,
}

/// The new system's file systems, mounted until [`MountedTarget::unmount`]; dropped, they are unmounted as well.
pub(super) struct MountedTarget<'a> {
    host: &'a dyn Host,
    root: PathBuf,
    mounted: bool,
}

impl<'a> MountedTarget<'a> {
    /// Mounts the root file system and the others in the order of their mount points.
    pub(super) fn mount(context: &Context<'a>, disk: &PreparedDisk, others: Others) -> Result<Self, Failure> {
        let roles = roles(&disk.placements);
        let root = context.paths.new_root.clone();
        clear(context.host, &root)?;
        let target = Self { host: context.host, root, mounted: true };
        let root_partition = root_of(&roles)?;
        target.mount_one(disk, root_partition, &target.root.clone())?;
        for (mountpoint, placement) in &roles.mounts {
            let wanted = match others {
                Others::No => false,
                Others::ThatKeepOwners => !matches!(placement.format, Format::Vfat | Format::Ntfs),
                Others::All => placement.format != Format::Ntfs,
            };
            if wanted {
                target.mount_one(disk, placement, &target.root.join(mountpoint.trim_start_matches('/')))?;
            }
        }
        Ok(target)
    }

    /// Where the root file system is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts everything again.
    pub(super) fn unmount(mut self) -> Result<(), Failure> {
        self.mounted = false;
        clear(self.host, &self.root)
    }

    fn mount_one(&self, disk: &PreparedDisk, placement: &Placement, at: &Path) -> Result<(), Failure> {
        make_directory(at)?;
        let device = partition_device(&disk.device, placement.index);
        let mut mount = Mount::new(device, at, placement.format.as_str());
        if placement.format == Format::Vfat {
            mount.data = "umask=0077".to_owned();
        }
        self.host.mount(&mount).map_err(Failure::of(code::MOUNT_FAILED))
    }
}

impl Drop for MountedTarget<'_> {
    fn drop(&mut self) {
        if self.mounted
            && let Err(failure) = clear(self.host, &self.root)
        {
            tracing::warn!(error = %failure, "the new system stays mounted");
        }
    }
}

/// The root partition, which every layout for Linux has to have.
pub(super) fn root_of<'a>(roles: &Roles<'a>) -> Result<&'a Placement, Failure> {
    roles.root.ok_or_else(|| {
        let message = "no partition can be the root: give one the mountpoint \"/\" and a file system";
        Failure::new(code::LAYOUT_INVALID, message)
    })
}

/// Unmounts everything under a directory.
pub(super) fn clear(host: &dyn Host, directory: &Path) -> Result<(), Failure> {
    unmount_below(host, directory).map(|_| ()).map_err(Failure::of(code::MOUNT_FAILED))
}

/// Waits until udev has seen what was changed: links such as `/dev/disk/by-uuid` are right then. Without udev there
/// are none.
pub(super) fn settle(host: &dyn Host) {
    let command = Command::new("udevadm").args(["settle", "--timeout=30"]);
    if let Err(error) = host.run(&command) {
        tracing::warn!(error = %error, "udev did not settle");
    }
}

/// Makes a directory and its parents.
pub(super) fn make_directory(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::new(code::MOUNT_FAILED, format!("cannot make {}: {error}", path.display())))
}

/// A program of the new system, run in it.
pub(super) fn in_root(root: &Path, program: &str) -> Command {
    Command::new("chroot").arg(root.display().to_string()).arg(program)
}
