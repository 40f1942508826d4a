//! The initramfs: one static program, the modules a boot medium can need, and the script that finds the medium.

use std::path::Path;

use super::kernel::Modules;
use super::tool::Tool;
use super::{ImageError, cpio, guest_files, tree};

/// Builds the initramfs of the finished `root` into `output`; `scratch` is an empty directory.
pub(super) fn build(root: &Path, release: &str, epoch: u64, scratch: &Path, output: &Path) -> Result<(), ImageError> {
    let tree = scratch.join("tree");
    tree::write(&tree.join("init"), 0o755, guest_files::INIT.as_bytes())?;
    tree::copy(&root.join("usr/bin/busybox"), &tree.join("bin/busybox"), 0o755)?;
    tree::link(&tree.join("lib"), "usr/lib")?;
    let modules = Modules::of(root, release)?;
    let place = tree.join("usr/lib/modules").join(release);
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        tree::copy(&modules.tree().join(name), &place.join(name), 0o644)?;
    }
    for path in modules.select(guest_files::INITRAMFS_MODULES)? {
        tree::copy(&modules.tree().join(&path), &place.join(&path), 0o644)?;
    }
    Tool::new("depmod").arg("-b").arg(&tree).arg(release).run()?;
    let archive = scratch.join("initramfs.cpio");
    tree::write(&archive, 0o644, &cpio::archive(&tree, epoch)?)?;
    Tool::new("zstd").args(["-q", "-19", "-T1", "-f", "-o"]).arg(output).arg(&archive).run()?;
    Ok(())
}
