//! `cairn vm asset …`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use cli::{Daemon, Output, segment, size, usage};
use futures::StreamExt as _;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use web::Problem;

use super::view::{list, number, text, time};
use crate::model::{AssetKind, AssetName};

/// Commands about assets.
#[derive(Debug, Subcommand)]
pub enum AssetCommand {
    /// Keep a file under a name
    #[command(after_help = "Examples:
  cairn vm asset add vmlinux vmlinux-6.12 --kind kernel
  cairn vm asset add debian-13 debian-13.raw --kind disk
  zstdcat debian.raw.zst | cairn vm asset add debian-13 - --kind disk

Disks are raw; each VM gets a copy of its own. Which ones are taken where a VM names none is a setting:
UNKEY_METALD_DEFAULT_KERNEL, UNKEY_METALD_DEFAULT_INITRD, UNKEY_METALD_DEFAULT_ROOTFS.")]
    Add {
        /// Its name
        name: AssetName,
        /// The file; '-' reads standard input
        file: PathBuf,
        /// What it is for
        #[arg(long, value_enum)]
        kind: AssetKind,
    },
    /// List assets
    #[command(after_help = "Example:
  cairn vm asset list --json")]
    List,
    /// Take a name away; its content goes with the next gc
    #[command(after_help = "Example:
  cairn vm asset rm debian-12")]
    Rm {
        /// Its name
        name: AssetName,
    },
    /// Remove content that has no name any more
    #[command(after_help = "Example:
  cairn vm asset gc --dry-run")]
    Gc {
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(command: AssetCommand, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        AssetCommand::Add { name, file, kind } => add(&name, &file, kind, daemon, output).await,
        AssetCommand::List => show(daemon, output).await,
        AssetCommand::Rm { name } => {
            daemon.send(daemon.patient(Method::DELETE, &path(&name))).await?;
            if output.json {
                output.json(&json!({ "name": name, "removed": true }));
            } else {
                output.line(format_args!("{name} is gone"));
            }
            Ok(())
        }
        AssetCommand::Gc { dry_run } => collect(dry_run, daemon, output).await,
    }
}

fn path(name: &AssetName) -> String {
    format!("/v1/assets/{}", segment(name.as_str()))
}

async fn add(name: &AssetName, file: &Path, kind: AssetKind, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let (body, length) = content(file, output).await?;
    let mut request = daemon
        .patient(Method::PUT, &format!("{}?kind={}", path(name), kind.as_str()))
        .header("content-type", "application/octet-stream")
        .body(body);
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let asset: Value = daemon.read(request).await?;
    if output.json {
        output.json(&asset);
    } else {
        let bytes = number(&asset["size"]).map(size).unwrap_or_default();
        output.line(format_args!("{name} is {} ({bytes})", text(&asset["sha256"])));
    }
    Ok(())
}

/// The file as a body, with its length where it has one, and a bar that moves while it is read.
async fn content(file: &Path, output: &Output) -> Result<(Body, Option<u64>), Problem> {
    let is_input = file == Path::new("-");
    let file = if is_input { Path::new("/dev/stdin") } else { file };
    let wrong = |error: std::io::Error| usage(format!("cannot read {}: {error}", file.display()));
    let open = tokio::fs::File::open(file).await.map_err(wrong)?;
    if is_input {
        return Ok((watched(open, indicatif::ProgressBar::no_length(), output), None));
    }
    let metadata = open.metadata().await.map_err(wrong)?;
    if !metadata.is_file() {
        return Err(usage(format!("{} is no file", file.display())).hint("'-' reads standard input"));
    }
    Ok((watched(open, indicatif::ProgressBar::new(metadata.len()), output), Some(metadata.len())))
}

fn watched(file: tokio::fs::File, bar: indicatif::ProgressBar, output: &Output) -> Body {
    if output.is_watched() {
        let template = "{bytes} of {total_bytes}  {bytes_per_sec}  {bar:30}";
        // The template is a constant; a wrong one would only look plain.
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    } else {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10).inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            bar.inc(chunk.len() as u64);
        }
    }))
}

async fn show(daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer: Value = daemon.get("/v1/assets").await?;
    let assets = list(&answer, "assets");
    if output.json {
        output.json(&assets);
        return Ok(());
    }
    let rows: Vec<_> = assets
        .iter()
        .map(|asset| {
            let bytes = number(&asset["size"]).map(size).unwrap_or_default();
            let short: String = text(&asset["sha256"]).chars().take(16).collect();
            [text(&asset["name"]), text(&asset["kind"]), bytes, short, time(&asset["created_at"])]
        })
        .collect();
    output.table(["NAME", "KIND", "SIZE", "SHA-256", "CREATED"], &rows);
    Ok(())
}

async fn collect(dry_run: bool, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer: Value = daemon.read(daemon.patient(Method::POST, &format!("/v1/assets/gc?dry_run={dry_run}"))).await?;
    if output.json {
        output.json(&answer);
        return Ok(());
    }
    let removed = list(&answer, "removed");
    let rows: Vec<_> =
        removed.iter().map(|one| [text(&one["sha256"]), number(&one["size"]).map(size).unwrap_or_default()]).collect();
    if !rows.is_empty() {
        output.table(["SHA-256", "SIZE"], &rows);
    }
    let bytes = removed.iter().filter_map(|one| number(&one["size"])).sum();
    let words = if dry_run { "would be removed" } else { "removed" };
    output.line(format_args!("{words}: {} files ({})", rows.len(), size(bytes)));
    Ok(())
}
