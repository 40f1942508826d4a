//! podman: an image from an archive, pushed, and pulled into a storage that has never seen it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::daemon::{Registry, root_is_mounted, with_each_access};
use super::image::{IMAGE, Layout, digest, gzip, tar};
use super::random;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "podman", "tar"];

pub(crate) fn pushes_and_pulls(work: &Path) -> Result<()> {
    root_is_mounted()?;
    with_each_access(work, there_and_back)
}

fn there_and_back(registry: &Registry) -> Result<()> {
    let work = registry.work();
    let archive = tar(work, "file", &random::bytes(31, 300_000))?;
    std::fs::write(work.join("root.tar"), &archive)?;
    registry.log_in("podman", &["login", "--tls-verify=false"], &registry.authority())?;
    let here = |words: &[&str]| podman(registry, "here", words);
    here(&["import", "--quiet", "--change", "LABEL of=podman", "root.tar", "made:1"])?;
    let name = registry.name("podman/made:1");
    let digest_file = work.join("digest").display().to_string();
    let push =
        ["push", "--quiet", "--tls-verify=false", "--format", "oci", "--digestfile", &digest_file, "made:1", &name];
    here(&push)?;
    let pushed = std::fs::read_to_string(&digest_file)?;
    let (media_type, manifest) = registry.manifest("podman/made", "1")?;
    ensure!(
        media_type == IMAGE && digest(&manifest) == pushed.trim(),
        "{pushed} is {media_type} {}",
        digest(&manifest)
    );
    let there = |words: &[&str]| podman(registry, "there", words);
    there(&["pull", "--quiet", "--tls-verify=false", &name])?;
    let told = there(&["image", "inspect", "--format", "{{.Digest}} {{.Labels.of}}", &name])?;
    ensure!(told.trim() == format!("{} podman", pushed.trim()), "image inspect: {told}");
    let saved = work.join("saved");
    there(&["save", "--quiet", "--format", "oci-dir", "--output", &saved.display().to_string(), &name])?;
    let saved = Layout::at(&saved);
    let mut came_back = false;
    for entry in saved.below("")? {
        let bytes = saved.read(entry["digest"].as_str().context("digest")?)?;
        came_back |=
            bytes == archive || gzip(work, &["--decompress"], &bytes).is_ok_and(|unpacked| unpacked == archive);
    }
    ensure!(came_back, "the archive came back with other bytes");
    // Pulled again by digest, nothing is fetched that is there.
    there(&["pull", "--quiet", "--tls-verify=false", &format!("{}@{}", registry.name("podman/made"), pushed.trim())])?;
    Ok(())
}

/// A command on one of the two storages.
fn podman(registry: &Registry, storage: &str, words: &[&str]) -> Result<String> {
    let (root, run) = (format!("{storage}/root"), format!("{storage}/run"));
    let [root, run] = [root, run].map(|folder| registry.work().join(folder).display().to_string());
    registry.run("podman", &[&["--root", &root, "--runroot", &run, "--storage-driver", "vfs"], words].concat())
}
