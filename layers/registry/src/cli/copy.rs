//! `copy`: an image with everything that it names, from one registry or layout to another, byte for byte.
//!
//! What a manifest names goes before it, and the tag comes last: a copy that breaks off leaves nothing that looks whole,
//! and the next one goes on, for content that is there already is not sent again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use cli::{Daemon, size, usage};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use oci_registry::{Descriptor, Digest, Selector};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use web::Problem;

use super::end::{End, Reach, failed, remote_problem};
use super::{Endpoint, Output, inspect};

/// Indexes of indexes that are followed.
const DEEPEST: usize = 8;

/// Flags of `copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// From: [HOST/]REPOSITORY[:TAG][@DIGEST], or oci:DIR[:TAG]
    source: String,
    /// To: [HOST/]REPOSITORY[:TAG], or oci:DIR[:TAG]
    destination: String,
    /// Copy what refers to it too: signatures, lists of contents, and what refers to those
    #[arg(long)]
    referrers: bool,
    /// Logins for other registries, as podman login --authfile writes them
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Speak plain HTTP to other registries
    #[arg(long)]
    plain_http: bool,
}

pub(super) async fn run(copy: &Copy, endpoint: &Endpoint, output: &Output) -> Result<(), Problem> {
    let client = Daemon::new(endpoint)?;
    let logins = inspect::logins(copy.authfile.as_deref())?;
    let reach = Reach { client: &client, logins: logins.as_ref(), plain_http: copy.plain_http };
    let (from, to) = (End::parse(&copy.source, &reach)?, End::parse(&copy.destination, &reach)?);
    if copy.destination.contains('@') {
        return Err(usage(format!("{} names a digest, which the content decides", copy.destination)));
    }
    let bar = indicatif::ProgressBar::new_spinner().with_message(format!("copying {}", copy.source));
    if output.is_watched() {
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
    }
    let (root, bytes) = from.root().await?;
    let new = match &to {
        End::Layout(layout) if layout.is_new() => Some(layout.clone()),
        _ => None,
    };
    let mut copying =
        Copying { from, to, referrers: copy.referrers, seen: HashSet::new(), told: Copied::default(), bar };
    if let Err(problem) = copying.all(&root, &bytes).await {
        if let Some(layout) = new {
            layout.abandon();
        }
        return Err(problem);
    }
    let Copying { told, bar, .. } = copying;
    bar.finish_and_clear();
    if output.json {
        output.json(&json!({
            "source": copy.source, "destination": copy.destination, "digest": root.digest,
            "manifests": told.manifests, "blobs": told.blobs, "bytes": told.bytes, "present": told.present,
        }));
    } else {
        let Copied { manifests, blobs, bytes, present } = told;
        output.line(format_args!("{} is {}", copy.destination, root.digest));
        output
            .line(format_args!("{manifests} manifests, {blobs} blobs ({}) copied, {present} were there", size(bytes)));
    }
    Ok(())
}

/// What was done.
#[derive(Debug, Default)]
struct Copied {
    manifests: u64,
    blobs: u64,
    bytes: u64,
    present: u64,
}

struct Copying {
    from: End,
    to: End,
    referrers: bool,
    /// Manifests and blobs that are done.
    seen: HashSet<Digest>,
    told: Copied,
    bar: indicatif::ProgressBar,
}

impl Copying {
    async fn all(&mut self, root: &Descriptor, bytes: &[u8]) -> Result<(), Problem> {
        self.content(root, bytes, 0).await?;
        self.tagged(root, bytes).await?;
        self.referring(&root.digest, 0).await
    }

    /// Everything that a manifest names.
    async fn content(&mut self, of: &Descriptor, bytes: &[u8], depth: usize) -> Result<(), Problem> {
        if depth > DEEPEST {
            return Err(failed(format!("{} nests indexes deeper than {DEEPEST}", self.from.shown())));
        }
        let manifest: Value = serde_json::from_slice(bytes)
            .map_err(|error| failed(format!("{} of {} is no manifest: {error}", of.digest, self.from.shown())))?;
        for child in manifest["manifests"].as_array().into_iter().flatten() {
            let child = self.named(child)?;
            self.manifest(&child.digest, depth + 1).await?;
        }
        let blobs = manifest["layers"].as_array().into_iter().flatten().chain(Some(&manifest["config"]));
        for blob in blobs.filter(|blob| blob.is_object()) {
            let blob = self.named(blob)?;
            if self.seen.insert(blob.digest.clone()) {
                self.blob(&blob).await?;
            }
        }
        Ok(())
    }

    fn named(&self, descriptor: &Value) -> Result<Descriptor, Problem> {
        serde_json::from_value(descriptor.clone())
            .map_err(|error| failed(format!("{} names something that cannot be read: {error}", self.from.shown())))
    }

    /// A manifest without a tag, with what it names and, if wanted, what refers to it.
    fn manifest<'a>(&'a mut self, digest: &'a Digest, depth: usize) -> BoxFuture<'a, Result<Descriptor, Problem>> {
        async move {
            let (descriptor, bytes) = self.from.manifest(&Selector::Digest(digest.clone())).await?;
            if self.seen.insert(digest.clone()) {
                self.content(&descriptor, &bytes, depth).await?;
                self.put(&descriptor, &bytes, &Selector::Digest(digest.clone())).await?;
                self.referring(digest, depth).await?;
            }
            Ok(descriptor)
        }
        .boxed()
    }

    /// The manifest that is meant, under the name of the destination.
    async fn tagged(&mut self, root: &Descriptor, bytes: &[u8]) -> Result<(), Problem> {
        self.seen.insert(root.digest.clone());
        let selector = match &self.to {
            End::Registry(repository) => repository.selector.clone(),
            End::Layout(_) => Selector::Digest(root.digest.clone()),
        };
        self.put(root, bytes, &selector).await?;
        if let End::Layout(layout) = &self.to {
            layout.list(root, true)?;
        }
        Ok(())
    }

    async fn referring(&mut self, digest: &Digest, depth: usize) -> Result<(), Problem> {
        if !self.referrers {
            return Ok(());
        }
        for referrer in self.from.referrers(digest).await? {
            let copied = self.manifest(&referrer.digest, depth + 1).await?;
            if let End::Layout(layout) = &self.to {
                layout.list(&copied, false)?;
            }
        }
        Ok(())
    }

    async fn put(&mut self, descriptor: &Descriptor, bytes: &[u8], selector: &Selector) -> Result<(), Problem> {
        match &self.to {
            End::Registry(to) => {
                let bytes = bytes::Bytes::copy_from_slice(bytes);
                let pushed = to.remote.push_manifest(&to.name, selector, &descriptor.media_type, bytes).await;
                pushed.map_err(|error| remote_problem(&self.to.shown(), &error))?;
            }
            End::Layout(layout) => layout.put(&descriptor.digest, bytes)?,
        }
        self.told.manifests += 1;
        Ok(())
    }

    async fn blob(&mut self, blob: &Descriptor) -> Result<(), Problem> {
        let there = match &self.to {
            End::Registry(to) => {
                let there = to.remote.has_blob(&to.name, &blob.digest).await;
                there.map_err(|error| remote_problem(&self.to.shown(), &error))?
            }
            End::Layout(layout) => layout.has(&blob.digest, blob.size),
        };
        if there {
            self.told.present += 1;
            return Ok(());
        }
        self.bar.set_message(format!("copying {} ({})", blob.digest, size(blob.size)));
        match (&self.from, &self.to) {
            (End::Layout(from), End::Registry(_)) => self.push(&from.blob_path(&blob.digest), blob).await?,
            (End::Registry(_), End::Registry(_)) => {
                // Through a file: a push can then be resumed as the pull can.
                let file =
                    tempfile::NamedTempFile::new().map_err(|error| failed(format!("no temporary file: {error}")))?;
                self.pull(blob, file.path()).await?;
                self.push(file.path(), blob).await?;
            }
            (_, End::Layout(to)) => {
                let place = to.blob_path(&blob.digest);
                let unfinished = to.unfinished(&blob.digest)?;
                self.pull(blob, &unfinished).await?;
                unfinished
                    .persist(&place)
                    .map_err(|error| failed(format!("cannot rename to {}: {}", place.display(), error.error)))?;
            }
        }
        self.told.blobs += 1;
        self.told.bytes += blob.size;
        Ok(())
    }

    /// Sends a file that has this content.
    async fn push(&self, path: &Path, blob: &Descriptor) -> Result<(), Problem> {
        let End::Registry(to) = &self.to else { return Ok(()) };
        let pushed = to.remote.push_blob(&to.name, path, &blob.media_type).await;
        let pushed = pushed.map_err(|error| remote_problem(&self.to.shown(), &error))?;
        if pushed.digest != blob.digest {
            let what = format!("{} has digest {}, not {}", path.display(), pushed.digest, blob.digest);
            return Err(failed(what));
        }
        Ok(())
    }

    /// Brings content into a file, checked.
    async fn pull(&self, blob: &Descriptor, into: &Path) -> Result<(), Problem> {
        match &self.from {
            End::Registry(from) => {
                let wrong = |error: std::io::Error| failed(format!("cannot write {}: {error}", into.display()));
                let mut file = tokio::fs::File::create(into).await.map_err(wrong)?;
                let mut stream = from.remote.verified_blob(&from.name, blob);
                while let Some(part) = stream.next().await {
                    let part = part.map_err(|error| remote_problem(&self.from.shown(), &error))?;
                    file.write_all(&part).await.map_err(wrong)?;
                }
                file.sync_all().await.map_err(wrong)
            }
            End::Layout(from) => {
                let (path, into, digest) = (from.blob_path(&blob.digest), into.to_owned(), blob.digest.clone());
                let copied = tokio::task::spawn_blocking(move || duplicate(&path, &into, &digest)).await;
                copied.map_err(|error| Problem::internal(&error))?
            }
        }
    }
}

/// Copies a file and sees that it has the content that its name promises.
fn duplicate(from: &Path, into: &Path, digest: &Digest) -> Result<(), Problem> {
    use std::io::{Read as _, Write as _};
    let wrong = |error: std::io::Error| failed(format!("cannot copy {}: {error}", from.display()));
    let mut source = std::fs::File::open(from).map_err(wrong)?;
    let mut file = std::fs::File::create(into).map_err(wrong)?;
    let (mut hasher, mut buffer) = (digest.algorithm().hasher(), vec![0; 512 << 10]);
    loop {
        let count = source.read(&mut buffer).map_err(wrong)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(wrong)?;
    }
    file.sync_all().map_err(wrong)?;
    let actual = hasher.finish();
    if actual != *digest {
        return Err(failed(format!("{} has digest {actual}, not {digest}", from.display())));
    }
    Ok(())
}
