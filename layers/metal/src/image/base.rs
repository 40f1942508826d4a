//! The base layer: Debian, kernel and initramfs. Expensive, and the same for every dispatcher; kept in the cache under
//! the hash of all that went into it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::lock::hex;
use super::packages::Packages;
use super::tool::Tool;
use super::{ImageError, Lock, Progress, Workspace, debian, guest_files, initramfs, kernel, tree};

/// Raised when this code makes another layer from the same inputs.
const RECIPE: u32 = 1;

/// A finished base layer.
pub(super) struct Base {
    /// Hash of all that went into it, hex.
    pub(super) key: String,
    directory: PathBuf,
}

impl Base {
    /// The base layer of `lock`, built or not.
    pub(super) fn of(lock: &Lock, cache: &Path) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(format!("base {RECIPE}\n{lock}"));
        for part in [guest_files::MODULES, guest_files::INITRAMFS_MODULES, guest_files::PRUNE, guest_files::INIT] {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        let key = hex(&hasher.finalize());
        let directory = cache.join("images").join(&key);
        Self { key, directory }
    }

    pub(super) fn is_built(&self) -> bool {
        self.directory.is_dir()
    }

    pub(super) fn squashfs(&self) -> PathBuf {
        self.directory.join("base.squashfs")
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs")
    }

    /// Debian's certificate authorities, as one PEM file.
    pub(super) fn authorities(&self) -> PathBuf {
        self.directory.join("ca-certificates.crt")
    }

    /// Builds what is not in the cache yet. The packages have been fetched.
    pub(super) fn build(
        &self,
        lock: &Lock,
        packages: &Packages,
        workspace: &Workspace,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let scratch = workspace.directory("base")?;
        let (root, made) = (scratch.join("root"), scratch.join("made"));
        tree::make_directory(&made)?;
        progress.step("installing the base system");
        debian::install(packages, lock, |package| !kernel::is_unpacked_only(package), &scratch, &root)?;
        workspace.check_stop()?;
        progress.step("adding kernel and firmware");
        for pattern in tree::entries(guest_files::PRUNE) {
            tree::remove(&root, pattern)?;
        }
        kernel::install(packages, lock, &root, guest_files::MODULES, &made.join("vmlinuz"))?;
        tree::copy(&root.join("etc/ssl/certs/ca-certificates.crt"), &made.join("ca-certificates.crt"), 0o644)?;
        workspace.check_stop()?;
        progress.step("making the initramfs");
        let release = kernel::release(lock)?;
        initramfs::build(&root, &release, lock.epoch, &scratch, &made.join("initramfs"))?;
        progress.step("packing the base system");
        squash(&root, lock.epoch, 19, &made.join("base.squashfs"))?;
        workspace.check_stop()?;
        let parent = self.directory.parent().unwrap_or(&self.directory);
        std::fs::create_dir_all(parent).map_err(ImageError::file("create", parent))?;
        std::fs::rename(&made, &self.directory).map_err(ImageError::file("move into the cache", &made))
    }
}

/// Packs `root` so that equal trees are equal bytes. `level` is zstd's, 1 to 22.
pub(super) fn squash(root: &Path, epoch: u64, level: u8, output: &Path) -> Result<(), ImageError> {
    let (epoch, level) = (epoch.to_string(), level.to_string());
    Tool::new("mksquashfs")
        .arg(root)
        .arg(output)
        .args(["-noappend", "-no-progress", "-quiet", "-no-exports", "-comp", "zstd", "-Xcompression-level", &level])
        .args(["-b", "256K", "-mkfs-time", &epoch, "-all-time", &epoch])
        .run()?;
    Ok(())
}
