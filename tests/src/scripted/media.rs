//! What a machine would boot, and how a BMC reads it.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::process::run;

/// Room for a task, as every maintenance ISO has it.
pub(crate) const ROOM: usize = 10 << 20;

/// Makes a maintenance ISO of the right shape that boots nothing.
pub(crate) fn maintenance_iso(work: &Path) -> Result<std::path::PathBuf> {
    let tree = work.join("maintenance");
    for (name, text) in [("boot/grub/grub.cfg", "set timeout=0\n"), ("live/filesystem.squashfs", "not one")] {
        let path = tree.join(name);
        std::fs::create_dir_all(path.parent().context("parent")?)?;
        std::fs::write(path, text)?;
    }
    std::fs::write(tree.join("TASK.IMG"), vec![0; ROOM])?;
    let iso = work.join("maintenance.iso");
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-J", "-R", "-V", "CAIRN_MAINT", "-o"]).arg(&iso).arg(&tree);
    run(&mut command)?;
    Ok(iso)
}

/// A file of an ISO image.
pub(crate) fn file(iso: &[u8], path: &str) -> Result<Vec<u8>> {
    let mut reader = iso9660::Reader::open(Cursor::new(iso)).with_context(|| format!("open an ISO to read {path}"))?;
    let extent = reader.find(path).with_context(|| format!("find {path}"))?;
    let mut source = reader.into_inner();
    source.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = vec![0; usize::try_from(extent.length)?];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Names in the root of an ISO image.
pub(crate) fn names(iso: &[u8]) -> Result<Vec<String>> {
    let entries = iso9660::Reader::open(Cursor::new(iso))?.list("/")?;
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// Checks that `boot` is `maintenance` with something else in the task's room, and nowhere else; gives that back.
pub(crate) fn task_of(boot: &[u8], maintenance: &[u8]) -> Result<Vec<u8>> {
    let extent = iso9660::Reader::open(Cursor::new(maintenance))?.find("/TASK.IMG")?;
    let (start, length) = (usize::try_from(extent.offset)?, usize::try_from(extent.length)?);
    ensure!(length == ROOM && boot.len() == maintenance.len(), "sizes: room {length}, boot {}", boot.len());
    ensure!(boot[..start] == maintenance[..start], "the medium differs before the room for the task");
    ensure!(boot[start + length..] == maintenance[start + length..], "the medium differs after the room for the task");
    let task = &boot[start..start + length];
    ensure!(task != &maintenance[start..start + length], "there is no task in its room");
    Ok(task.to_vec())
}
