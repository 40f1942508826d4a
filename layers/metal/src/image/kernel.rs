//! The kernel of the image: which of its modules and which firmware files stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::packages::Packages;
use super::tool::Tool;
use super::{ImageError, Lock, LockedPackage, tree};

/// Whether a package is unpacked and not installed.
pub(super) fn is_unpacked_only(package: &LockedPackage) -> bool {
    package.name.starts_with("linux-image-") || package.name.starts_with("firmware-")
}

/// The kernel's release, as `uname -r` prints it.
pub(super) fn release(lock: &Lock) -> Result<String, ImageError> {
    lock.packages.iter().find_map(|package| package.name.strip_prefix("linux-image-")).map(str::to_owned).ok_or_else(
        || ImageError::LockSyntax { lock: "the lock".to_owned(), line: 0, reason: "it names no kernel".to_owned() },
    )
}

/// Unpacks kernel and firmware below `root` and leaves of them what `list` (modules.list) wants. The kernel itself is
/// moved to `kernel`.
pub(super) fn install(
    packages: &Packages,
    lock: &Lock,
    root: &Path,
    list: &str,
    kernel: &Path,
) -> Result<(), ImageError> {
    let release = release(lock)?;
    for package in lock.packages.iter().filter(|package| is_unpacked_only(package)) {
        Tool::new("dpkg-deb").arg("--extract").arg(packages.path(package)).arg(root).run()?;
    }
    let from = root.join(format!("boot/vmlinuz-{release}"));
    tree::copy(&from, kernel, 0o644)?;
    tree::remove(root, "boot/*")?;
    let modules = Modules::of(root, &release)?;
    let kept = modules.select(list)?;
    modules.drop_others(&kept)?;
    keep_firmware(root, &release)
}

/// The module tree of one kernel below a root.
pub(super) struct Modules {
    root: PathBuf,
    release: String,
    /// Module file, relative to the tree, and those it needs.
    needs: BTreeMap<String, Vec<String>>,
    builtin: String,
}

impl Modules {
    /// Indexes the tree and reads the index.
    pub(super) fn of(root: &Path, release: &str) -> Result<Self, ImageError> {
        Tool::new("depmod").arg("-b").arg(root).arg(release).run()?;
        let tree = root.join("usr/lib/modules").join(release);
        let read = |name: &str| {
            let path = tree.join(name);
            std::fs::read_to_string(&path).map_err(ImageError::file("read", &path))
        };
        Ok(Self {
            root: root.to_owned(),
            release: release.to_owned(),
            needs: parse_dependencies(&read("modules.dep")?),
            builtin: read("modules.builtin")?,
        })
    }

    /// Directory of the tree.
    pub(super) fn tree(&self) -> PathBuf {
        self.root.join("usr/lib/modules").join(&self.release)
    }

    /// The files that `list` names, and those they need. An entry that names nothing is an error: the kernel changed,
    /// and with it what the image can drive.
    pub(super) fn select(&self, list: &str) -> Result<BTreeSet<String>, ImageError> {
        select(&self.needs, &self.builtin, list)
            .map_err(|entry| ImageError::Check { reason: format!("kernel {} has no module {entry}", self.release) })
    }

    /// Removes every module outside `kept`, and unpacks those: under emulation and on slow machines the kernel's own
    /// unpacking costs more time than reading does.
    fn drop_others(&self, kept: &BTreeSet<String>) -> Result<(), ImageError> {
        let tree = self.tree();
        for path in self.needs.keys().filter(|path| !kept.contains(*path)) {
            let path = tree.join(path);
            std::fs::remove_file(&path).map_err(ImageError::file("remove", &path))?;
        }
        remove_empty_directories(&tree.join("kernel"))?;
        let packed: Vec<_> = kept.iter().filter(|path| path.ends_with(".xz")).map(|path| tree.join(path)).collect();
        if !packed.is_empty() {
            Tool::new("xz").arg("--decompress").args(packed).run()?;
        }
        Tool::new("depmod").arg("-b").arg(&self.root).arg(&self.release).run()?;
        Ok(())
    }
}

fn parse_dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, needs)| (path.to_owned(), needs.split_whitespace().map(str::to_owned).collect())).collect()
}

/// Err is the entry that names nothing.
fn select<'a>(
    needs: &BTreeMap<String, Vec<String>>,
    builtin: &str,
    list: &'a str,
) -> Result<BTreeSet<String>, &'a str> {
    let mut kept = BTreeSet::new();
    for entry in tree::entries(list) {
        let wanted = |path: &str| {
            let path = path.strip_prefix("kernel/").unwrap_or(path);
            if entry.ends_with('/') {
                path.starts_with(entry)
            } else {
                path.strip_prefix(entry).is_some_and(|rest| rest.starts_with(".ko"))
            }
        };
        let before = kept.len();
        for (path, needed) in needs.iter().filter(|(path, _)| wanted(path)) {
            kept.insert(path.clone());
            kept.extend(needed.iter().cloned());
        }
        if kept.len() == before && !needs.keys().any(|path| wanted(path)) && !builtin.lines().any(wanted) {
            return Err(entry);
        }
    }
    Ok(kept)
}

fn remove_empty_directories(directory: &Path) -> Result<(), ImageError> {
    for relative in tree::walk(directory)?.iter().rev() {
        let path = directory.join(relative);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            // Fails for a directory with something in it, which is what keeps those.
            let _ = std::fs::remove_dir(&path);
        }
    }
    Ok(())
}

/// Leaves the firmware files that a kept module names, and what their links lead to.
fn keep_firmware(root: &Path, release: &str) -> Result<(), ImageError> {
    let modules = root.join("usr/lib/modules").join(release).join("kernel");
    let files = tree::walk(&modules)?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "ko"));
    let named = Tool::new("modinfo").args(["-F", "firmware"]).args(files.map(|path| modules.join(path))).run()?;
    let firmware = root.join("usr/lib/firmware");
    let mut kept = BTreeSet::new();
    for name in named.lines().map(str::trim) {
        keep_one(&firmware, &firmware.join(name), &mut kept);
    }
    for relative in tree::walk(&firmware)?.iter().rev() {
        let path = firmware.join(relative);
        if path.is_dir() && !path.is_symlink() {
            let _ = std::fs::remove_dir(&path);
        } else if !kept.contains(&path) {
            std::fs::remove_file(&path).map_err(ImageError::file("remove", &path))?;
        }
    }
    Ok(())
}

fn keep_one(firmware: &Path, path: &Path, kept: &mut BTreeSet<PathBuf>) {
    if path.symlink_metadata().is_err() || !kept.insert(path.to_owned()) {
        return;
    }
    // A link's target lies in the same tree; `..` is resolved by the file system, so the real path is what counts.
    if path.is_symlink()
        && let (Ok(real), Ok(base)) = (path.canonicalize(), firmware.canonicalize())
        && let Ok(relative) = real.strip_prefix(base)
    {
        keep_one(firmware, &firmware.join(relative), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/drivers/scsi/sr_mod.ko.xz: kernel/drivers/cdrom/cdrom.ko.xz\n\
                         kernel/drivers/scsi/srx.ko.xz:\nkernel/drivers/cdrom/cdrom.ko.xz:\n\
                         kernel/sound/ac97_bus.ko.xz:\n";

    #[test]
    fn a_selection_brings_what_it_needs_along() {
        let kept = select(&parse_dependencies(INDEX), "", "# CDs\ndrivers/scsi/sr_mod\n").unwrap();
        assert_eq!(
            kept.into_iter().collect::<Vec<_>>(),
            ["kernel/drivers/cdrom/cdrom.ko.xz", "kernel/drivers/scsi/sr_mod.ko.xz"]
        );
    }

    #[test]
    fn a_directory_takes_all_and_a_built_in_module_counts() {
        let index = parse_dependencies(INDEX);
        assert_eq!(select(&index, "", "drivers/scsi/\n").unwrap().len(), 3);
        assert_eq!(select(&index, "kernel/fs/ext4/ext4.ko\n", "fs/ext4/\n").unwrap().len(), 0);
        assert_eq!(select(&index, "", "drivers/scsi/\nfs/ext4/\n"), Err("fs/ext4/"));
    }
}
