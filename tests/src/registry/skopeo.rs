//! skopeo: images and indexes between a layout and the registry, and what it looks at and deletes.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::daemon::{Registry, with_each_access};
use super::image::Layout;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "skopeo", "tar"];

pub(crate) fn copies(work: &Path) -> Result<()> {
    with_each_access(work, both_ways)
}

fn both_ways(registry: &Registry) -> Result<()> {
    let pushed = Layout::write(&registry.work().join("pushed"))?;
    log_in(registry)?;
    for tag in ["image", "index"] {
        let name = format!("docker://{}:{tag}", registry.name("skopeo/copied"));
        copy(registry, &pushed.name(tag), &name)?;
        pushed.check_in(registry, "skopeo/copied", tag)?;
        let pulled = Layout::at(&registry.work().join(format!("pulled-{tag}")));
        copy(registry, &name, &pulled.name(tag))?;
        pushed.same(tag, &pulled, tag)?;
    }
    from_one_repository_to_another(registry, &pushed)?;
    let name = format!("docker://{}", registry.name("skopeo/copied"));
    let told: Value = serde_json::from_str(&skopeo(registry, &["inspect", &format!("{name}:image")])?)?;
    ensure!(told["Digest"] == pushed.digest("image")?.as_str(), "inspect: {told}");
    ensure!(told["RepoTags"] == serde_json::json!(["image", "index"]), "inspect: {told}");
    let raw = registry
        .client("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("{name}:index")])
        .output()?;
    ensure!(raw.stdout == pushed.read(&pushed.digest("index")?)?, "inspect --raw has other bytes");
    let tags: Value = serde_json::from_str(&skopeo(registry, &["list-tags", &name])?)?;
    ensure!(tags["Tags"] == serde_json::json!(["image", "index"]), "list-tags: {tags}");
    // It resolves the tag and deletes by digest.
    skopeo(registry, &["delete", &format!("{name}:index")])?;
    let tags: Value = serde_json::from_str(&skopeo(registry, &["list-tags", &name])?)?;
    ensure!(tags["Tags"] == serde_json::json!(["image"]), "list-tags after delete: {tags}");
    ensure!(registry.status(&format!("/v2/skopeo/copied/manifests/{}", pushed.digest("index")?))? == 404, "deleted");
    pushed.check_in(registry, "skopeo/copied", "image")
}

/// skopeo mounts the blobs that it has just seen in another repository of the same registry.
fn from_one_repository_to_another(registry: &Registry, pushed: &Layout) -> Result<()> {
    let names = ["copied", "again"].map(|name| format!("docker://{}:index", registry.name(&format!("skopeo/{name}"))));
    copy(registry, &names[0], &names[1])?;
    pushed.check_in(registry, "skopeo/again", "index")
}

pub(super) fn log_in(registry: &Registry) -> Result<()> {
    registry.log_in("skopeo", &["login", "--tls-verify=false"], &registry.authority())
}

/// Copies everything below a name, as it is.
pub(super) fn copy(registry: &Registry, from: &str, to: &str) -> Result<()> {
    let words = ["copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];
    registry.run("skopeo", &[&words, [from, to].as_slice()].concat()).map(drop)
}

fn skopeo(registry: &Registry, words: &[&str]) -> Result<String> {
    registry.run("skopeo", &[&words[..1], &["--tls-verify=false"], &words[1..]].concat())
}
