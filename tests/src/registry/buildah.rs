//! buildah: an image built from scratch, pushed, and pulled into a storage that has never seen it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::daemon::{Registry, root_is_mounted, with_each_access};
use super::image::{IMAGE, INDEX, digest};
use super::random;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "buildah"];

pub(crate) fn builds(work: &Path) -> Result<()> {
    root_is_mounted()?;
    with_each_access(work, there_and_back)
}

fn there_and_back(registry: &Registry) -> Result<()> {
    let work = registry.work();
    let file = random::bytes(21, 300_000);
    std::fs::write(work.join("file"), &file)?;
    registry.log_in("buildah", &["login", "--tls-verify=false"], &registry.authority())?;
    let here = |words: &[&str]| buildah(registry, "here", words);
    let container = here(&["from", "scratch"])?.trim().to_owned();
    here(&["copy", &container, "file", "/srv/file"])?;
    here(&["config", "--label", "of=buildah", &container])?;
    here(&["commit", "--quiet", "--format", "oci", &container, "made"])?;
    let name = format!("docker://{}:1", registry.name("buildah/made"));
    let digest_file = work.join("digest").display().to_string();
    here(&["push", "--quiet", "--tls-verify=false", "--digestfile", &digest_file, "made", &name])?;
    let pushed = std::fs::read_to_string(&digest_file)?;
    let (media_type, manifest) = registry.manifest("buildah/made", "1")?;
    ensure!(
        media_type == IMAGE && digest(&manifest) == pushed.trim(),
        "{pushed} is {media_type} {}",
        digest(&manifest)
    );
    let there = |words: &[&str]| buildah(registry, "there", words);
    there(&["pull", "--quiet", "--tls-verify=false", &name])?;
    let container = there(&["from", "--pull-never", &registry.name("buildah/made:1")])?.trim().to_owned();
    let mounted = there(&["mount", &container])?;
    let found = std::fs::read(Path::new(mounted.trim()).join("srv/file")).context("the file in the pulled image")?;
    ensure!(found == file, "the file came back with other bytes");
    index(registry, pushed.trim())
}

/// An index of the image that is there already: only the index is new.
fn index(registry: &Registry, image: &str) -> Result<()> {
    let here = |words: &[&str]| buildah(registry, "here", words);
    here(&["manifest", "create", "list"])?;
    let image_name = format!("docker://{}@{image}", registry.name("buildah/made"));
    here(&["manifest", "add", "--tls-verify=false", "list", &image_name])?;
    let name = format!("docker://{}:list", registry.name("buildah/made"));
    here(&["manifest", "push", "--quiet", "--all", "--tls-verify=false", "--format", "oci", "list", &name])?;
    let (media_type, index) = registry.manifest("buildah/made", "list")?;
    let index: Value = serde_json::from_slice(&index)?;
    ensure!(media_type == INDEX && index["manifests"][0]["digest"] == image, "{media_type}: {index}");
    Ok(())
}

/// A command on one of the two storages.
fn buildah(registry: &Registry, storage: &str, words: &[&str]) -> Result<String> {
    let (root, run) = (format!("{storage}/root"), format!("{storage}/run"));
    let [root, run] = [root, run].map(|folder| registry.work().join(folder).display().to_string());
    registry.run("buildah", &[&["--root", &root, "--runroot", &run, "--storage-driver", "vfs"], words].concat())
}
