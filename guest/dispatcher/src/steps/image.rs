//! `step image-linux`: unpacks the artifact onto the root file system while it is pulled.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use host::Command;
use oci_registry::artifact::Compression;
use recipe::callback::{Artifact, ProgressEvent};

use super::Context;
use super::stamp::Stamp;
use super::target::{MountedTarget, Others, prepared};
use crate::arguments::Step;
use crate::failure::{Failure, code};
use cairn_core::chain;

/// Time for one layer.
const LAYER_TIME: Duration = Duration::from_secs(90 * 60);
/// How often the controller is told how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// Where the artifact comes from.
pub trait ImageSource {
    /// The layers in their order, read from the manifest with the artifact's digest.
    fn layers(&self) -> Result<Vec<Layer>, SourceError>;

    /// Writes a layer's bytes. Ends well only when their number and digest are right.
    fn copy(&self, layer: &Layer, to: &mut dyn Write) -> Result<(), SourceError>;
}

/// A layer of the artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes, as pulled.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// The artifact cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source failed; the code is the one to report.
    #[error("{message}")]
    Source {
        /// One of [`code`].
        code: &'static str,
        /// What happened.
        message: String,
    },
    /// What was read cannot be written on.
    #[error("cannot hand the layer on")]
    Write(#[source] io::Error),
}

pub(super) fn run(context: &Context<'_>, artifact: &Artifact, source: &dyn ImageSource) -> Result<String, Failure> {
    let disk = prepared(context)?;
    let target = MountedTarget::mount(context, &disk, Others::ThatKeepOwners)?;
    let job_id = context.callback.job_id;
    let stamp = Stamp::read(target.root()).filter(|stamp| stamp.job_id == job_id);
    let mut stamp = stamp.ok_or_else(|| {
        Failure::new(code::DISK_NOT_PREPARED, format!("the root file system on {} is not of this job", disk.device))
    })?;
    if stamp.image_digest.as_deref() == Some(&artifact.digest) {
        target.unmount()?;
        return Ok(format!("{} is already unpacked", artifact.digest));
    }
    stamp.image_begun = Some(artifact.digest.clone());
    stamp.write(target.root())?;
    let layers = source.layers().map_err(|error| failure_of(&error))?;
    let total = layers.iter().map(|layer| layer.size).sum();
    let mut meter = Meter::new(context, total);
    for layer in &layers {
        unpack(context, source, layer, target.root(), &mut meter)?;
    }
    stamp.image_digest = Some(artifact.digest.clone());
    stamp.write(target.root())?;
    target.unmount()?;
    Ok(format!("{total} bytes of {} are unpacked", artifact.digest))
}

/// Streams one layer into tar: nothing is kept but what is on its way.
fn unpack(
    context: &Context<'_>,
    source: &dyn ImageSource,
    layer: &Layer,
    root: &std::path::Path,
    meter: &mut Meter<'_>,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    let command = tar_command(layer.compression, &root.display().to_string()).timeout(LAYER_TIME);
    let outcome = context.host.run_fed(&command, &mut |writer| {
        let copied = source.copy(layer, &mut Counted { writer, meter: &mut *meter });
        copied.map_err(|error| match error {
            SourceError::Write(error) => error,
            error => {
                failed = Some(failure_of(&error));
                io::Error::other("the layer could not be had")
            }
        })
    });
    match (failed, outcome) {
        // Why the source failed says more than how tar ended because of it.
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(Failure::of(code::UNPACK_FAILED)(error)),
        (None, Ok(output)) => {
            let warnings = String::from_utf8_lossy(&output.stderr);
            if !warnings.trim().is_empty() {
                tracing::warn!(warnings = warnings.trim(), "tar had something to say");
            }
            Ok(())
        }
    }
}

/// Owners, modes, extended attributes (capabilities among them), ACLs and SELinux labels as the archive has them.
fn tar_command(compression: Compression, root: &str) -> Command {
    let command = Command::new("tar").args([
        "--extract",
        "--file=-",
        "--preserve-permissions",
        "--same-owner",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--selinux",
        "--keep-directory-symlink",
    ]);
    let command = match compression {
        Compression::None => command,
        Compression::Gzip => command.arg("--gzip"),
        Compression::Zstd => command.arg("--zstd"),
    };
    command.args(["--directory", root])
}

fn failure_of(error: &SourceError) -> Failure {
    match error {
        SourceError::Source { code, message } => Failure::new(code, message.clone()),
        SourceError::Write(_) => Failure::new(code::UNPACK_FAILED, chain(error)),
    }
}

/// Counts what goes through and tells the controller now and then.
struct Meter<'a> {
    context: &'a Context<'a>,
    done: u64,
    total: u64,
    told: Instant,
}

impl<'a> Meter<'a> {
    fn new(context: &'a Context<'a>, total: u64) -> Self {
        Self { context, done: 0, total, told: Instant::now() }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.told.elapsed() >= REPORT_INTERVAL {
            self.told = Instant::now();
            self.context.progress.bytes(Step::ImageLinux.unit(), ProgressEvent::Running, self.done, self.total);
        }
    }
}

struct Counted<'a, 'b> {
    writer: &'a mut dyn Write,
    meter: &'a mut Meter<'b>,
}

impl Write for Counted<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.meter.add(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
