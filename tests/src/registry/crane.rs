//! crane: layouts, layers added from outside, copies, digests and deletion.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::daemon::{Access, PASSWORD, Registry, USER, with_each_access};
use super::image::{Layout, digest, tar};
use super::random;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "crane", "tar"];

pub(crate) fn images(work: &Path) -> Result<()> {
    with_each_access(work, |registry| {
        log_in(registry)?;
        push_and_pull(registry)?;
        append(registry)?;
        copy_and_delete(registry)
    })
}

/// It only keeps what it is given: whether that is right shows with the first request.
fn log_in(registry: &Registry) -> Result<()> {
    if registry.access == Access::Anonymous {
        return Ok(());
    }
    let with = |password| ["auth", "login", "--username", USER, "--password", password];
    for (password, right) in [("wrong", false), (PASSWORD, true)] {
        registry.run("crane", &[with(password).as_slice(), &[&registry.authority()]].concat())?;
        let told = registry.refused("crane", &["ls", &registry.name("crane/nothing")])?;
        ensure!(told.contains("UNAUTHORIZED") != right, "ls with the password {password}: {told}");
    }
    Ok(())
}

fn push_and_pull(registry: &Registry) -> Result<()> {
    let pushed = Layout::write(&registry.work().join("pushed"))?;
    // A layout with several entries becomes an index of them.
    let name = registry.name("crane/pushed:1");
    let printed = registry.run("crane", &["push", "--index", "pushed", &name])?;
    let top = std::fs::read(registry.work().join("pushed/index.json"))?;
    let (_, stored) = registry.manifest("crane/pushed", "1")?;
    ensure!(printed.trim().ends_with(&digest(&stored)), "push printed {printed}");
    let (stored, top): (Value, Value) = (serde_json::from_slice(&stored)?, serde_json::from_slice(&top)?);
    ensure!(stored["manifests"] == top["manifests"], "push has changed the index: {stored}");
    let index = pushed.digest("index")?;
    let (_, bytes) = registry.manifest("crane/pushed", &index)?;
    ensure!(bytes == pushed.read(&index)?, "push has changed an index within the index");
    registry.run("crane", &["validate", "--remote", &name])?;
    let printed = registry.run("crane", &["digest", &format!("{}@{index}", registry.name("crane/pushed"))])?;
    ensure!(printed.trim() == index, "digest: {printed}");
    registry
        .run("crane", &["pull", "--format", "oci", &format!("{}@{index}", registry.name("crane/pushed")), "pulled"])?;
    let pulled = Layout::at(&registry.work().join("pulled"));
    pushed.same("index", &pulled, "index")
}

/// A layer on top of nothing, and one more on top of that.
fn append(registry: &Registry) -> Result<()> {
    let layers = [51, 52].map(|seed| tar(registry.work(), &format!("file-{seed}"), &random::bytes(seed, 250_000)));
    let names = ["crane/made:1", "crane/made:2"].map(|name| registry.name(name));
    for (number, layer) in layers.into_iter().enumerate() {
        let file = format!("layer-{number}.tar");
        std::fs::write(registry.work().join(&file), layer?)?;
        let base = if number == 0 { vec!["--oci-empty-base"] } else { vec!["--base", names[0].as_str()] };
        let words = ["append", "--new_layer", &file, "--new_tag", &names[number]];
        registry.run("crane", &[&words, base.as_slice()].concat())?;
        registry.run("crane", &["validate", "--remote", &names[number]])?;
    }
    let manifest: Value = serde_json::from_str(&registry.run("crane", &["manifest", &names[1]])?)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    ensure!(layers.len() == 2, "append: {manifest}");
    registry.run("crane", &["export", &names[1], "export.tar"])?;
    let unpacked = registry.work().join("export");
    std::fs::create_dir_all(&unpacked)?;
    registry.run("tar", &["--extract", "--file", "export.tar", "--directory", "export"])?;
    for seed in [51, 52] {
        let found = std::fs::read(unpacked.join(format!("file-{seed}")))?;
        ensure!(found == random::bytes(seed, 250_000), "file-{seed} came back with other bytes");
    }
    Ok(())
}

fn copy_and_delete(registry: &Registry) -> Result<()> {
    let (from, to) = (registry.name("crane/pushed:1"), registry.name("crane/copied"));
    registry.run("crane", &["copy", &from, &format!("{to}:1")])?;
    ensure!(registry.manifest("crane/copied", "1")? == registry.manifest("crane/pushed", "1")?, "copy");
    registry.run("crane", &["validate", "--remote", &format!("{to}:1")])?;
    registry.run("crane", &["tag", &format!("{to}:1"), "2"])?;
    let tags = registry.run("crane", &["ls", &to])?;
    ensure!(tags.split_whitespace().eq(["1", "2"]), "ls: {tags}");
    let by_digest = format!("{to}@{}", registry.run("crane", &["digest", &format!("{to}:1")])?.trim());
    registry.run("crane", &["delete", &by_digest])?;
    let tags = registry.run("crane", &["ls", &to])?;
    ensure!(tags.trim().is_empty(), "tags of a deleted manifest: {tags}");
    registry.refused("crane", &["digest", &by_digest]).map(drop)
}
