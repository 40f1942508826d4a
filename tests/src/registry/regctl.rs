//! regctl: indexes, artifacts with a subject, tags one by one, and blobs.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::daemon::{Registry, with_each_access};
use super::image::{INDEX, Layout, digest};
use super::random;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "regctl", "tar"];

const SIGNATURE: &str = "application/vnd.cairn.test.signature.v1";

pub(crate) fn everything(work: &Path) -> Result<()> {
    with_each_access(work, |registry| {
        registry.run("regctl", &["registry", "set", "--skip-check", "--tls", "disabled", &registry.authority()])?;
        log_in(registry)?;
        let pushed = Layout::write(&registry.work().join("pushed"))?;
        images(registry, &pushed)?;
        referrers(registry, &pushed)?;
        tags(registry)?;
        blobs(registry)
    })
}

fn log_in(registry: &Registry) -> Result<()> {
    registry.log_in("regctl", &["registry", "login"], &registry.authority())
}

fn images(registry: &Registry, pushed: &Layout) -> Result<()> {
    let name = registry.name("regctl/copied:index");
    registry.run("regctl", &["image", "copy", "ocidir://pushed:index", &name])?;
    pushed.check_in(registry, "regctl/copied", "index")?;
    registry.run("regctl", &["image", "copy", &name, "ocidir://pulled:index"])?;
    pushed.same("index", &Layout::at(&registry.work().join("pulled")), "index")?;
    let made = registry.name("regctl/copied:made");
    let image = format!("{}@{}", registry.name("regctl/copied"), pushed.digest("image")?);
    registry.run("regctl", &["index", "create", &made, "--ref", &image, "--annotation", "of=regctl"])?;
    let (media_type, index) = registry.manifest("regctl/copied", "made")?;
    let index: Value = serde_json::from_slice(&index)?;
    let right = media_type == INDEX && index["manifests"][0]["digest"] == pushed.digest("image")?.as_str();
    ensure!(right && index["annotations"]["of"] == "regctl", "index create: {media_type} {index}");
    let told = registry.run("regctl", &["manifest", "head", &name])?;
    ensure!(told.trim() == pushed.digest("index")?, "manifest head: {told}");
    let raw = registry.run("regctl", &["manifest", "get", "--format", "raw-body", &name])?;
    ensure!(raw.as_bytes() == pushed.read(&pushed.digest("index")?)?, "manifest get: other bytes");
    Ok(())
}

/// An artifact that refers to an image, listed by the registry, carried along by a copy.
fn referrers(registry: &Registry, pushed: &Layout) -> Result<()> {
    let image = format!("{}@{}", registry.name("regctl/copied"), pushed.digest("image")?);
    std::fs::write(registry.work().join("signature"), random::bytes(61, 2_000))?;
    let words =
        ["artifact", "put", "--artifact-type", SIGNATURE, "--subject", &image, "--file-title", "--file", "signature"];
    registry.run("regctl", &words)?;
    let fallback = pushed.digest("image")?.replace(':', "-");
    ensure!(registry.status(&format!("/v2/regctl/copied/manifests/{fallback}"))? == 404, "regctl fell back to a tag");
    let list = |name: &str| registry.run("regctl", &["artifact", "list", "--format", "{{json .}}", name]);
    let listed: Value = serde_json::from_str(&list(&image)?)?;
    let found = &listed["descriptors"];
    ensure!(found.as_array().is_some_and(|all| all.len() == 1), "artifact list: {listed}");
    ensure!(found[0]["artifactType"] == SIGNATURE, "artifact list: {listed}");
    let copy = registry.name("regctl/signed:1");
    registry.run("regctl", &["image", "copy", "--referrers", &image, &copy])?;
    let again: Value = serde_json::from_str(&list(&copy)?)?;
    ensure!(again["descriptors"] == *found, "the copy has {again}");
    let signed = format!("{}@{}", registry.name("regctl/signed"), found[0]["digest"].as_str().unwrap_or_default());
    std::fs::create_dir_all(registry.work().join("fetched"))?;
    registry.run("regctl", &["artifact", "get", "--output", "fetched", &signed])?;
    let fetched = std::fs::read(registry.work().join("fetched/signature"))?;
    ensure!(fetched == random::bytes(61, 2_000), "the artifact came back with other bytes");
    Ok(())
}

/// A tag goes without the manifest, and without another tag of it.
fn tags(registry: &Registry) -> Result<()> {
    let (repository, name) = (registry.name("regctl/copied"), registry.name("regctl/copied:index"));
    registry.run("regctl", &["image", "copy", &name, &format!("{repository}:second")])?;
    registry.run("regctl", &["tag", "delete", &name])?;
    let tags = registry.run("regctl", &["tag", "ls", &repository])?;
    ensure!(tags.split_whitespace().eq(["made", "second"]), "tag ls: {tags}");
    let top = registry.run("regctl", &["manifest", "head", &format!("{repository}:second")])?;
    registry.run("regctl", &["manifest", "delete", &format!("{repository}@{}", top.trim())])?;
    let tags = registry.run("regctl", &["tag", "ls", &repository])?;
    ensure!(tags.split_whitespace().eq(["made"]), "tag ls after manifest delete: {tags}");
    Ok(())
}

fn blobs(registry: &Registry) -> Result<()> {
    let bytes = random::bytes(62, 5_000_000);
    std::fs::write(registry.work().join("blob"), &bytes)?;
    let (repository, wanted) = (registry.name("regctl/blobs"), digest(&bytes));
    let mut put = registry.client("regctl");
    put.args(["blob", "put", &repository]).stdin(std::fs::File::open(registry.work().join("blob"))?);
    let put = put.output()?;
    ensure!(put.status.success(), "blob put: {}", String::from_utf8_lossy(&put.stderr));
    let mut get = registry.client("regctl");
    let get = get.args(["blob", "get", &repository, &wanted]).output()?;
    ensure!(get.status.success() && get.stdout == bytes, "blob get: {}", String::from_utf8_lossy(&get.stderr));
    registry.run("regctl", &["blob", "copy", &repository, &registry.name("regctl/mounted"), &wanted])?;
    registry.run("regctl", &["blob", "delete", &repository, &wanted])?;
    registry.refused("regctl", &["blob", "head", &repository, &wanted])?;
    // The other repository holds it still.
    registry.run("regctl", &["blob", "head", &registry.name("regctl/mounted"), &wanted]).map(drop)
}
