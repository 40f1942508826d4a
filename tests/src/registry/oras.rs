//! oras: artifacts of any type, what refers to them, and single blobs and manifests.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::daemon::{Registry, with_each_access};
use super::image::{IMAGE, digest};
use super::random;

pub(crate) const NEEDS: &[&str] = &["htpasswd", "oras"];

const ARTIFACT: &str = "application/vnd.cairn.test.v1";
const SBOM: &str = "application/vnd.cairn.test.sbom.v1";

pub(crate) fn artifacts(work: &Path) -> Result<()> {
    with_each_access(work, |registry| {
        registry.log_in("oras", &["login", "--plain-http"], &registry.authority())?;
        let file = random::bytes(41, 400_000);
        std::fs::write(registry.work().join("file.bin"), &file)?;
        std::fs::write(registry.work().join("sbom.json"), "{\"of\": \"file.bin\"}")?;
        push_and_pull(registry, &file)?;
        referrers(registry, &file)?;
        blobs_and_manifests(registry)
    })
}

fn push_and_pull(registry: &Registry, file: &[u8]) -> Result<()> {
    let name = registry.name("oras/artifact:1");
    oras(registry, &["push", "--artifact-type", ARTIFACT, &name, "file.bin:application/vnd.cairn.test.file"])?;
    let (media_type, manifest) = registry.manifest("oras/artifact", "1")?;
    let parsed: Value = serde_json::from_slice(&manifest)?;
    ensure!(media_type == IMAGE && parsed["artifactType"] == ARTIFACT, "{media_type}: {parsed}");
    ensure!(parsed["layers"][0]["mediaType"] == "application/vnd.cairn.test.file", "{parsed}");
    ensure!(parsed["layers"][0]["digest"] == digest(file).as_str(), "{parsed}");
    oras(registry, &["pull", "--output", "pulled", &name])?;
    ensure!(std::fs::read(registry.work().join("pulled/file.bin"))? == file, "pull: other bytes");
    oras(registry, &["tag", &name, "2"])?;
    let tags = oras(registry, &["repo", "tags", &registry.name("oras/artifact")])?;
    ensure!(tags.split_whitespace().eq(["1", "2"]), "repo tags: {tags}");
    let resolved = oras(registry, &["resolve", &name])?;
    ensure!(resolved.trim() == digest(&manifest), "resolve: {resolved}");
    oras(registry, &["manifest", "fetch", "--output", "manifest.json", &name])?;
    ensure!(std::fs::read(registry.work().join("manifest.json"))? == manifest, "manifest fetch: other bytes");
    Ok(())
}

/// What is attached is discovered, here and where it was copied to.
fn referrers(registry: &Registry, file: &[u8]) -> Result<()> {
    let name = registry.name("oras/artifact:1");
    oras(registry, &["attach", "--artifact-type", SBOM, &name, "sbom.json:application/json"])?;
    oras(
        registry,
        &["attach", "--artifact-type", "application/vnd.cairn.test.other", &name, "sbom.json:application/json"],
    )?;
    let subject = digest(&registry.manifest("oras/artifact", "1")?.1);
    // By the registry's API and not by the tag that clients keep for registries without one.
    let tag = subject.replace(':', "-");
    ensure!(registry.status(&format!("/v2/oras/artifact/manifests/{tag}"))? == 404, "oras fell back to the tag {tag}");
    for (repository, filter, count) in [("oras/artifact", None, 2), ("oras/artifact", Some(SBOM), 1)] {
        discovered(registry, &format!("{repository}:1"), filter, count)?;
    }
    let copy = registry.name("oras/copied:1");
    let words = ["cp", "--recursive", "--from-plain-http", "--to-plain-http", &name, &copy];
    registry.run("oras", &words)?;
    ensure!(registry.manifest("oras/copied", "1")? == registry.manifest("oras/artifact", "1")?, "cp: other bytes");
    let listed = discovered(registry, "oras/copied:1", Some(SBOM), 1)?;
    let sbom = listed["digest"].as_str().context("digest of the SBOM")?;
    oras(registry, &["pull", "--output", "sbom", &format!("{}@{sbom}", registry.name("oras/copied"))])?;
    ensure!(std::fs::read_to_string(registry.work().join("sbom/sbom.json"))? == "{\"of\": \"file.bin\"}", "the SBOM");
    let path = format!("/v2/oras/copied/blobs/{}", digest(file));
    ensure!(registry.request("GET", &path, &[])?.body == file, "cp: the file has other bytes");
    Ok(())
}

/// The first of what refers to a name, after their number was counted.
fn discovered(registry: &Registry, name: &str, filter: Option<&str>, count: usize) -> Result<Value> {
    let (name, mut words) = (registry.name(name), vec!["discover", "--format", "json"]);
    words.extend(filter.iter().flat_map(|filter| ["--artifact-type", filter]));
    words.push(&name);
    let told: Value = serde_json::from_str(&oras(registry, &words)?)?;
    let found = told["manifests"].as_array().context("manifests")?;
    ensure!(found.len() == count, "{count} should refer to {name} ({filter:?}): {told}");
    ensure!(filter.is_none_or(|filter| found[0]["artifactType"] == filter), "{filter:?}: {told}");
    Ok(found[0].clone())
}

fn blobs_and_manifests(registry: &Registry) -> Result<()> {
    let bytes = std::fs::read(registry.work().join("sbom.json"))?;
    let blob = format!("{}@{}", registry.name("oras/blobs"), digest(&bytes));
    oras(registry, &["blob", "push", &registry.name("oras/blobs"), "sbom.json"])?;
    oras(registry, &["blob", "fetch", "--output", "blob", &blob])?;
    ensure!(std::fs::read(registry.work().join("blob"))? == bytes, "blob fetch: other bytes");
    oras(registry, &["blob", "delete", "--force", &blob])?;
    oras(registry, &["blob", "fetch", "--output", "gone", &blob]).err().context("a deleted blob was fetched")?;
    oras(registry, &["manifest", "delete", "--force", &registry.name("oras/copied:1")])?;
    ensure!(registry.status("/v2/oras/copied/manifests/1")? == 404, "manifest delete");
    Ok(())
}

fn oras(registry: &Registry, words: &[&str]) -> Result<String> {
    // Subcommands of two words take their options after both.
    let count = if matches!(words[0], "blob" | "manifest" | "repo") { 2 } else { 1 };
    registry.run("oras", &[&words[..count], &["--plain-http"], &words[count..]].concat())
}
