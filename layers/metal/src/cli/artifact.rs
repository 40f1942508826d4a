//! `cairn metal artifact …`

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cairn_core::ErrorKind;
use clap::Subcommand;
use cli::{Daemon, Output, usage};
use jiff::Timestamp;
use oci_registry::artifact::{Compression, OsImage};
use oci_registry::client::{Client, ClientError, Credentials};
use oci_registry::{Descriptor, Reference, media_type};
use serde_json::json;
use web::Problem;

use crate::api::artifacts::ArtifactList;
use cairn_core::chain;

#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Push a root file system: .tar, .tar.gz or .tar.zst
    #[command(after_help = "Example:
  cairn metal artifact push os-images/debian:trixie debian.tar.zst")]
    Push {
        /// Repository and tag, for example os-images/debian:trixie
        name: String,
        /// The archive
        file: PathBuf,
    },
    /// List what the registry holds
    List,
}

pub(super) async fn run(command: ArtifactCommand, client: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        ArtifactCommand::Push { name, file } => push(&name, &file, client, output).await,
        ArtifactCommand::List => list(client, output).await,
    }
}

async fn push(name: &str, file: &Path, client: &Daemon, output: &Output) -> Result<(), Problem> {
    let reference = Reference::parse(name).map_err(|error| usage(error.to_string()))?;
    if let Some(host) = &reference.registry {
        return Err(usage(format!("{name} names registry {host}; the controller's own is meant"))
            .hint("leave the host out; another controller is said with --url"));
    }
    if reference.tag.is_none() {
        return Err(usage(format!("{name} has no tag")).hint(format!("for example {name}:1")));
    }
    let compression = compression_of(file)?;
    check_content(file, compression)?;
    let registry = registry(client);
    let failed = |error: ClientError| registry_problem(client, &error);
    let spinner = indicatif::ProgressBar::new_spinner().with_message(format!("pushing {}", file.display()));
    if output.is_watched() {
        spinner.enable_steady_tick(std::time::Duration::from_millis(200));
    }
    let repository = &reference.repository;
    let layer = registry.push_blob(repository, file, compression.media_type()).await.map_err(failed)?;
    registry
        .push_bytes(repository, Bytes::from_static(b"{}"), &Descriptor::empty().media_type)
        .await
        .map_err(failed)?;
    let image = OsImage {
        layer: layer.digest.clone(),
        size: layer.size,
        compression,
        title: file.file_name().map(|name| name.to_string_lossy().into_owned()),
        created: modified(file),
    };
    let manifest = Bytes::from(image.manifest_bytes());
    let pushed = registry
        .push_manifest(repository, &reference.selector(), media_type::OCI_MANIFEST, manifest)
        .await
        .map_err(failed)?;
    spinner.finish_and_clear();
    if output.json {
        output.json(&json!({ "name": name, "digest": pushed.digest.to_string(), "layer": layer.digest.to_string(), "size": layer.size }));
    } else {
        output.line(format_args!("{name} is {} ({} bytes)", pushed.digest, layer.size));
    }
    Ok(())
}

/// The registry behind the controller's address.
fn registry(client: &Daemon) -> Client {
    let credentials = client.user().map(|(username, password)| Credentials { username, password });
    Client::new(client.http().clone(), client.base().clone(), credentials)
}

/// A file that only has the name of an archive would fail after the disk was wiped.
fn check_content(file: &Path, compression: Compression) -> Result<(), Problem> {
    let failed = |error: std::io::Error| usage(format!("cannot read {}: {error}", file.display()));
    let mut start = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(512).read_to_end(&mut start).map_err(failed)?;
    let (is, what) = match compression {
        Compression::None => (start.get(257..262) == Some(b"ustar"), "a tar archive"),
        Compression::Gzip => (start.starts_with(&[0x1f, 0x8b]), "gzip"),
        Compression::Zstd => (start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "Zstandard"),
    };
    if is { Ok(()) } else { Err(usage(format!("the content of {} is not {what}", file.display()))) }
}

/// When the archive was made: part of the manifest, so the same file gives the same digest.
fn modified(file: &Path) -> Option<String> {
    let modified = std::fs::metadata(file).ok()?.modified().ok()?;
    Some(format!("{:.0}", Timestamp::try_from(modified).ok()?))
}

fn compression_of(file: &Path) -> Result<Compression, Problem> {
    let name = file.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".tar"]) {
        Ok(Compression::None)
    } else if ends(&[".tar.gz", ".tgz"]) {
        Ok(Compression::Gzip)
    } else if ends(&[".tar.zst", ".tzst"]) {
        Ok(Compression::Zstd)
    } else {
        Err(usage(format!("{} is neither .tar, .tar.gz nor .tar.zst", file.display())))
    }
}

async fn list(client: &Daemon, output: &Output) -> Result<(), Problem> {
    let list: ArtifactList = client.get("/api/v1/artifacts").await?;
    if output.json {
        output.json(&list.artifacts);
        return Ok(());
    }
    let rows: Vec<_> =
        list.artifacts.into_iter().map(|artifact| [artifact.name, artifact.digest, artifact.media_type]).collect();
    output.table(["NAME", "DIGEST", "TYPE"], &rows);
    Ok(())
}

fn registry_problem(client: &Daemon, error: &ClientError) -> Problem {
    let kind = match error.status() {
        Some(status) => ErrorKind::of_http_status(status).unwrap_or(ErrorKind::Failed),
        None => ErrorKind::Unreachable,
    };
    let detail = format!("the registry at {} refused: {}", client.base(), chain(error));
    Problem::new(kind, crate::errors::REGISTRY_REFUSED, detail)
}
