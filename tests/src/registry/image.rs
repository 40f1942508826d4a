//! Images and an index as an OCI image layout, written without any library: what clients push and what must come back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::process::run;

use super::daemon::Registry;
use super::random;
use crate::scripted::guest::hex;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layout with the tags `image` and `index`.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Writes an index of two images of two layers each; the tag `image` is the first of them.
    pub(crate) fn write(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("blobs/sha256")).with_context(|| format!("make {}", folder.display()))?;
        let layout = Self { folder: folder.to_owned() };
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let images = [("amd64", 1), ("arm64", 2)].map(|(architecture, seed)| layout.image(architecture, seed));
        let images = images.into_iter().collect::<Result<Vec<Value>>>()?;
        // Spaces and order are not what a program would write: the bytes must come through as they are.
        let index = format!(
            "{{\n  \"mediaType\": \"{INDEX}\",\n  \"schemaVersion\": 2,\n  \"manifests\": {}\n}}\n",
            serde_json::to_string_pretty(&images)?
        );
        let mut index = layout.blob(INDEX, index.as_bytes())?;
        let mut image = images[0].clone();
        image["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
        index["annotations"] = json!({"org.opencontainers.image.ref.name": "index"});
        let top = json!({"schemaVersion": 2, "manifests": [image, index]});
        std::fs::write(folder.join("index.json"), top.to_string())?;
        Ok(layout)
    }

    /// One that a client wrote.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn image(&self, architecture: &str, seed: u64) -> Result<Value> {
        let (mut layers, mut unpacked) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let size = if number == 0 { 3_000_000 } else { 70_000 };
            let archive = tar(&self.folder, &format!("file-{number}"), &random::bytes(seed + number, size))?;
            layers.push(self.blob(LAYER, &gzip(&self.folder, &["--no-name"], &archive)?)?);
            unpacked.push(digest(&archive));
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Labels": {"seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": unpacked},
        });
        let config = self.blob(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers,
            "annotations": {"cairn.test/of": architecture},
        });
        let mut image = self.blob(IMAGE, serde_json::to_string_pretty(&manifest)?.as_bytes())?;
        image["platform"] = json!({"architecture": architecture, "os": "linux"});
        Ok(image)
    }

    /// Stores a blob; gives back its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        std::fs::write(self.path(&digest), bytes).with_context(|| format!("write {digest}"))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }

    /// `oci:FOLDER:TAG`, as skopeo, podman and buildah name it.
    pub(crate) fn name(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.folder.display())
    }

    /// Content of a blob that must be there.
    pub(crate) fn read(&self, digest: &str) -> Result<Vec<u8>> {
        std::fs::read(self.path(digest)).with_context(|| format!("{digest} in {}", self.folder.display()))
    }

    /// Descriptor of a tag; without a tag, of the only entry.
    pub(crate) fn tagged(&self, tag: &str) -> Result<Value> {
        let top: Value = serde_json::from_slice(&std::fs::read(self.folder.join("index.json"))?)?;
        let entries = top["manifests"].as_array().context("index.json")?;
        let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let only = if entries.len() == 1 { entries.first() } else { None };
        entries.iter().find(named).or(only).cloned().with_context(|| format!("no {tag} in {top}"))
    }

    /// Digest of a tag.
    pub(crate) fn digest(&self, tag: &str) -> Result<String> {
        Ok(self.tagged(tag)?["digest"].as_str().context("digest")?.to_owned())
    }

    /// Every descriptor below a tag, itself the first.
    pub(crate) fn below(&self, tag: &str) -> Result<Vec<Value>> {
        let (mut waiting, mut found, mut seen) = (vec![self.tagged(tag)?], Vec::new(), BTreeSet::new());
        while let Some(entry) = waiting.pop() {
            let digest = entry["digest"].as_str().context("digest")?.to_owned();
            if entry["mediaType"] == IMAGE || entry["mediaType"] == INDEX {
                let manifest: Value = serde_json::from_slice(&self.read(&digest)?)?;
                waiting.extend(manifest["manifests"].as_array().into_iter().flatten().cloned());
                waiting.extend(manifest["layers"].as_array().into_iter().flatten().cloned());
                waiting.extend(manifest.get("config").cloned());
            }
            if seen.insert(digest) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// Asks the registry for all that is below a tag, and compares media types and every byte.
    pub(crate) fn check_in(&self, registry: &Registry, repository: &str, tag: &str) -> Result<()> {
        let top = registry.manifest(repository, tag)?;
        ensure!(digest(&top.1) == self.digest(tag)?, "{repository}:{tag} is {}", digest(&top.1));
        for entry in self.below(tag)? {
            let wanted = entry["digest"].as_str().context("digest")?;
            let bytes = if entry["mediaType"] == IMAGE || entry["mediaType"] == INDEX {
                let (media_type, bytes) = registry.manifest(repository, wanted)?;
                ensure!(entry["mediaType"] == media_type.as_str(), "{wanted} has become {media_type}");
                bytes
            } else {
                let answer = registry.request("GET", &format!("/v2/{repository}/blobs/{wanted}"), &[])?;
                ensure!(answer.status == 200, "blob {wanted}: {}", answer.status);
                answer.body
            };
            ensure!(bytes == self.read(wanted)?, "{wanted} in the registry has other bytes");
        }
        Ok(())
    }

    /// Compares what is below a tag of two layouts.
    pub(crate) fn same(&self, tag: &str, other: &Self, other_tag: &str) -> Result<()> {
        ensure!(self.digest(tag)? == other.digest(other_tag)?, "{tag} is not {other_tag}");
        for entry in self.below(tag)? {
            let digest = entry["digest"].as_str().context("digest")?;
            ensure!(self.read(digest)? == other.read(digest)?, "{digest} came back with other bytes");
        }
        Ok(())
    }
}

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// A tar archive with one file.
pub(crate) fn tar(work: &Path, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let folder = work.join("tar");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)?;
    let archive = work.join("tar.tar");
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--mtime=@0", "--file"]).arg(&archive);
    run(command.arg("--directory").arg(&folder).arg(name))?;
    let packed = std::fs::read(&archive)?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::remove_file(&archive)?;
    Ok(packed)
}

/// Bytes as gzip packs or (`--decompress`) unpacks them.
pub(crate) fn gzip(work: &Path, options: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
    let file = work.join("gzip.tmp");
    std::fs::write(&file, bytes)?;
    let output =
        Command::new("gzip").args(options).stdin(std::fs::File::open(&file)?).output().context("start gzip")?;
    ensure!(output.status.success(), "gzip: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&file)?;
    Ok(output.stdout)
}
