//! What is on a machine's disk, read from outside by programs that the installer does not use for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// Programs that it needs.
pub const NEEDS: &[&str] = &["qemu-img", "sgdisk", "blkid", "debugfs", "mtype"];
/// Sectors of virtual disks.
const SECTOR: u64 = 512;

/// A copy of a disk of a machine that is off.
#[derive(Debug)]
pub struct DiskCopy {
    file: PathBuf,
}

impl DiskCopy {
    /// Copies a qcow2 image to the raw image `file`, which takes only as much room as was written.
    pub fn take(disk: &Path, file: &Path) -> Result<Self> {
        run(Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(disk).arg(file))?;
        Ok(Self { file: file.to_owned() })
    }

    /// GUID of the partition table, in lower case.
    pub fn table_guid(&self) -> Result<String> {
        let text = run(Command::new("sgdisk").arg("--print").arg(&self.file))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Disk identifier (GUID): "));
        Ok(line.with_context(|| format!("no GUID in: {text}"))?.trim().to_lowercase())
    }

    /// UUID of the file system on a partition.
    pub fn file_system_id(&self, partition: u32) -> Result<String> {
        let mut command = Command::new("blkid");
        command.args(["--probe", "--match-tag", "UUID", "--output", "value"]);
        command.args(["--offset", &self.offset(partition)?.to_string()]);
        Ok(run(command.arg(&self.file))?.trim().to_owned())
    }

    /// A file on a partition with ext4; nothing when it is not there.
    pub fn ext4_file(&self, partition: u32, path: &str) -> Result<Option<String>> {
        let device = format!("{}?offset={}", self.file.display(), self.offset(partition)?);
        let debugfs = |request: &str| run(Command::new("debugfs").args(["-R", request, &device]));
        // It says that a file is missing on stderr and ends well all the same.
        let exists = debugfs(&format!("stat {path}"))?.contains("Inode: ");
        Ok(if exists { Some(debugfs(&format!("cat {path}"))?) } else { None })
    }

    /// A file on a partition with FAT.
    pub fn fat_file(&self, partition: u32, name: &str) -> Result<String> {
        let device = format!("{}@@{}", self.file.display(), self.offset(partition)?);
        run(Command::new("mtype").args(["-i", &device, &format!("::{name}")]))
    }

    /// First byte of a partition.
    fn offset(&self, partition: u32) -> Result<u64> {
        let text = run(Command::new("sgdisk").arg(format!("--info={partition}")).arg(&self.file))?;
        let first = text.lines().find_map(|line| line.strip_prefix("First sector: ")?.split(' ').next());
        let first: u64 = first.and_then(|first| first.parse().ok()).with_context(|| format!("no sector in: {text}"))?;
        Ok(first * SECTOR)
    }
}

/// Writes a pattern to the beginning, the middle and the end of a disk (qcow2), so that it is not blank.
pub fn scribble(disk: &Path, gib: u32) -> Result<()> {
    let size = u64::from(gib) << 30;
    let writes = [0, size / 2, size - (1 << 20)].map(|at| format!("write -P 0x5a {at} 1M"));
    run(Command::new("qemu-io").args(["-f", "qcow2", "-c", &writes[0], "-c", &writes[1], "-c", &writes[2]]).arg(disk))?;
    Ok(())
}

/// Bytes that are free for files below `directory`.
pub fn free(directory: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(directory).with_context(|| format!("look at {}", directory.display()))?;
    Ok(found.f_bavail * found.f_frsize)
}

/// Whether two disks (qcow2) hold the same bytes.
pub fn same(one: &Path, other: &Path) -> Result<bool> {
    let mut command = Command::new("qemu-img");
    let status = command.args(["compare", "-q", "-f", "qcow2", "-F", "qcow2"]).arg(one).arg(other).status();
    match status.context("start qemu-img")?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        other => anyhow::bail!("qemu-img compare ended with {other:?}"),
    }
}
