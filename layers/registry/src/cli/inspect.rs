//! `inspect`: what an image or artifact is made of.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use cli::{Daemon, size, usage};
use oci_registry::{Descriptor, Reference};
use serde_json::{Value, json};
use web::Problem;

use super::end::{End, Reach, missing};
use super::target::{self, storage_problem};
use super::{Endpoint, Output, Place};
use crate::upstream::AuthFile;

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// [HOST/]REPOSITORY[:TAG][@DIGEST], or oci:DIR[:TAG]
    reference: String,
    /// Logins for other registries, as podman login --authfile writes them
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Speak plain HTTP to another registry
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) async fn run(inspect: &Inspect, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let (descriptor, bytes, referrers) = match &inspect.place.storage {
        Some(directory) => stored(&inspect.reference, directory).await?,
        None => {
            let client = Daemon::new(endpoint)?;
            let logins = logins(inspect.authfile.as_deref())?;
            let reach = Reach { client: &client, logins: logins.as_ref(), plain_http: inspect.plain_http };
            let end = End::parse(&inspect.reference, &reach)?;
            let (descriptor, bytes) = end.root().await?;
            let referrers = end.referrers(&descriptor.digest).await?;
            (descriptor, bytes, referrers)
        }
    };
    let manifest: Value = serde_json::from_slice(&bytes)
        .map_err(|error| super::end::failed(format!("{}: this is no manifest: {error}", inspect.reference)))?;
    if output.json {
        let report = json!({
            "name": inspect.reference,
            "digest": descriptor.digest,
            "media_type": descriptor.media_type,
            "size": descriptor.size,
            "content_bytes": content(&manifest),
            "manifest": manifest,
            "referrers": referrers,
        });
        output.json(&report);
    } else {
        print(&inspect.reference, &descriptor, &manifest, &referrers, output);
    }
    Ok(())
}

/// What a directory that no daemon holds has under this name.
async fn stored(name: &str, directory: &Path) -> Result<(Descriptor, Bytes, Vec<Descriptor>), Problem> {
    let reference = Reference::parse(name).map_err(|error| usage(error.to_string()))?;
    if reference.registry.is_some() {
        return Err(usage(format!("{name} names a host, and --storage a directory")));
    }
    let storage = target::open(directory).await?;
    let (repository, selector) = (&reference.repository, reference.selector());
    let found = storage.manifest(repository, &selector).await.map_err(|error| storage_problem(&error))?;
    let (descriptor, bytes) = found.ok_or_else(|| missing(format!("{} has no {name}", directory.display())))?;
    let referrers = storage.referrers(repository, &descriptor.digest).await;
    Ok((descriptor, bytes, referrers.map_err(|error| storage_problem(&error))?))
}

/// The logins of a file.
pub(super) fn logins(file: Option<&Path>) -> Result<Option<AuthFile>, Problem> {
    let read = file.map(AuthFile::read).transpose();
    read.map_err(|error| usage(cairn_core::chain(&error)))
}

/// Bytes of everything that a manifest names itself.
fn content(manifest: &Value) -> u64 {
    let lists = ["layers", "manifests"].into_iter().filter_map(|name| manifest[name].as_array()).flatten();
    lists.chain([&manifest["config"]]).filter_map(|one| one["size"].as_u64()).sum()
}

fn print(name: &str, descriptor: &Descriptor, manifest: &Value, referrers: &[Descriptor], output: &Output) {
    output.line(format_args!("name      {name}"));
    output.line(format_args!("digest    {}", descriptor.digest));
    output.line(format_args!("type      {}", descriptor.media_type));
    if let Some(kind) = manifest["artifactType"].as_str() {
        output.line(format_args!("artifact  {kind}"));
    }
    output.line(format_args!("content   {}", size(content(manifest))));
    if let Some(subject) = manifest["subject"]["digest"].as_str() {
        output.line(format_args!("subject   {subject}"));
    }
    for (key, value) in manifest["annotations"].as_object().into_iter().flatten() {
        output.line(format_args!("{key} = {}", value.as_str().unwrap_or_default()));
    }
    let mut rows = Vec::new();
    if manifest["config"].is_object() {
        rows.push(row("config", &manifest["config"]));
    }
    rows.extend(manifest["layers"].as_array().into_iter().flatten().map(|layer| row("layer", layer)));
    for child in manifest["manifests"].as_array().into_iter().flatten() {
        let platform = &child["platform"];
        let words = ["os", "architecture", "variant"].into_iter().filter_map(|part| platform[part].as_str());
        let words = words.collect::<Vec<_>>().join("/");
        rows.push(row(if words.is_empty() { "manifest" } else { &words }, child));
    }
    for referrer in referrers {
        let kind = referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type).to_owned();
        rows.push(["referrer".to_owned(), referrer.digest.to_string(), size(referrer.size), kind]);
    }
    if !rows.is_empty() {
        output.line("");
        output.table(["WHAT", "DIGEST", "SIZE", "TYPE"], &rows);
    }
}

fn row(what: &str, descriptor: &Value) -> [String; 4] {
    let text = |name: &str| descriptor[name].as_str().unwrap_or_default().to_owned();
    [what.to_owned(), text("digest"), size(descriptor["size"].as_u64().unwrap_or(0)), text("mediaType")]
}
