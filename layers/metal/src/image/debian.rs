//! A Debian root from locked package files, configured by the packages' own scripts.

use std::path::Path;

use super::packages::{Packages, sha256_of};
use super::tool::Tool;
use super::{ImageError, Lock, LockedPackage};

/// Installs the packages of `lock` that `wanted` accepts into the new directory `root`; `scratch` is an empty directory.
pub(super) fn install(
    packages: &Packages,
    lock: &Lock,
    wanted: impl Fn(&LockedPackage) -> bool,
    scratch: &Path,
    root: &Path,
) -> Result<(), ImageError> {
    let chosen: Vec<_> = lock.packages.iter().filter(|package| wanted(package)).collect();
    let archive = scratch.join("archive");
    flat_archive(packages, lock, &chosen, &archive)?;
    let names: Vec<_> = chosen.iter().map(|package| package.name.as_str()).collect();
    Tool::new("mmdebstrap")
        .env("SOURCE_DATE_EPOCH", lock.epoch.to_string())
        .args(["--mode=root", "--variant=essential", "--architectures=amd64", "--format=directory", "--quiet"])
        .arg(format!("--include={}", names.join(",")))
        .args(
            ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"]
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .arg(&lock.suite)
        .arg(root)
        .arg(format!("deb [trusted=yes] copy://{} ./", archive.display()))
        .run()?;
    Ok(())
}

/// A directory that apt reads as an archive of one suite with one list, holding exactly `chosen`.
fn flat_archive(
    packages: &Packages,
    lock: &Lock,
    chosen: &[&LockedPackage],
    directory: &Path,
) -> Result<(), ImageError> {
    std::fs::create_dir_all(directory).map_err(ImageError::file("create", directory))?;
    let mut list = String::new();
    for package in chosen {
        let file = format!("{}.deb", package.name);
        let (from, to) = (packages.path(package), directory.join(&file));
        std::fs::hard_link(&from, &to).map_err(ImageError::file("link", &from))?;
        let control = Tool::new("dpkg-deb").arg("--field").arg(&from).run()?;
        let LockedPackage { size, sha256, .. } = package;
        list.push_str(&format!("{}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n\n", control.trim_end()));
    }
    let path = directory.join("Packages");
    std::fs::write(&path, &list).map_err(ImageError::file("write", &path))?;
    // Essential packages are looked for in the suite by its name, and only this file gives the archive one.
    let release = format!(
        "Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nSHA256:\n {hash} {size} Packages\n",
        suite = lock.suite,
        hash = sha256_of(&path)?,
        size = list.len(),
    );
    let path = directory.join("Release");
    std::fs::write(&path, release).map_err(ImageError::file("write", &path))
}
