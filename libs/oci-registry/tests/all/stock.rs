//! A storage to put content into and look at, without a server.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use oci_registry::storage::maintenance::{CheckOptions, CheckReport, CollectOptions, CollectReport};
use oci_registry::storage::{Limits, Storage, StorageError};
use oci_registry::{Algorithm, Descriptor, Digest, RepositoryName, Selector, media_type};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::name;

pub(crate) struct Stock {
    directory: TempDir,
    pub(crate) storage: Storage,
}

impl Stock {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
        Self { directory, storage }
    }

    /// Where writing costs next to nothing: more happens at the same moment.
    pub(crate) async fn open_in_memory() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
        Self { directory, storage }
    }

    /// Opened anew, as after a stop at this moment.
    pub(crate) async fn reopen(self) -> Self {
        let Self { directory, storage } = self;
        drop(storage);
        let storage = reopen(directory.path()).await;
        Self { directory, storage }
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    pub(crate) fn record(&self, repository: &str, kind: &str, digest: &Digest) -> PathBuf {
        let directory = self.root().join("repositories").join(repository).join(kind);
        directory.join(digest.algorithm().name()).join(digest.hex())
    }

    pub(crate) async fn blob(&self, repository: &str, bytes: &[u8]) -> Descriptor {
        push(&self.storage, &name(repository), bytes).await.unwrap()
    }

    /// An image of one layer with this text.
    pub(crate) async fn image(&self, repository: &str, selector: &str, text: &str) -> Descriptor {
        let layer = self.blob(repository, text.as_bytes()).await;
        self.blob(repository, b"{}").await;
        self.manifest(repository, selector, &image(&layer, None)).await
    }

    /// A signature of `subject`; its layer has this text.
    pub(crate) async fn signature(&self, repository: &str, subject: &Descriptor, text: &str) -> Descriptor {
        let layer = self.blob(repository, text.as_bytes()).await;
        self.blob(repository, b"{}").await;
        self.manifest(repository, "", &image(&layer, Some(subject))).await
    }

    pub(crate) async fn index(&self, repository: &str, selector: &str, listed: &[&Descriptor]) -> Descriptor {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": listed});
        self.manifest(repository, selector, &index).await
    }

    /// Stores a manifest under a tag, or under its digest alone where the tag is empty.
    pub(crate) async fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Descriptor {
        put(&self.storage, &name(repository), tag, manifest).await.unwrap()
    }

    pub(crate) async fn untag(&self, repository: &str, tag: &str) {
        let selector = tag.parse().unwrap();
        assert!(self.storage.delete_manifest(&name(repository), &selector).await.unwrap(), "{repository}:{tag}");
    }

    pub(crate) async fn collect(&self) -> CollectReport {
        self.storage.collect(CollectOptions::default()).await.unwrap()
    }

    pub(crate) async fn check(&self, repair: bool) -> CheckReport {
        self.storage.check(CheckOptions { repair }, |_| ()).await.unwrap()
    }

    pub(crate) async fn has_manifest(&self, repository: &str, digest: &Digest) -> bool {
        let selector = Selector::from(digest.clone());
        self.storage.manifest(&name(repository), &selector).await.unwrap().is_some()
    }

    pub(crate) async fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.storage.blob_size(&name(repository), digest).await.unwrap().is_some()
    }

    /// Everything on disk below some of the root's directories.
    pub(crate) fn files(&self, directories: &[&str]) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| self.root().join(directory)).collect();
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    found.insert(path.strip_prefix(self.root()).unwrap().to_owned());
                }
            }
        }
        found
    }

    /// Makes everything look as if it had been there for an hour.
    pub(crate) fn age(&self) {
        for path in self.files(&["blobs", "repositories"]) {
            age(&self.root().join(path));
        }
    }
}

pub(crate) fn age(path: &Path) {
    let long_ago = path.metadata().unwrap().modified().unwrap() - Duration::from_secs(3600);
    File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

/// Opens a directory that was open until now. A process that another test is just starting may still share the lock.
pub(crate) async fn reopen(root: &Path) -> Storage {
    loop {
        match Storage::open(root, Limits::default()).await {
            Err(StorageError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) async fn push(
    storage: &Storage,
    repository: &RepositoryName,
    bytes: &[u8],
) -> Result<Descriptor, StorageError> {
    let upload = storage.start_upload(repository, Algorithm::Sha256).await?;
    let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(bytes))]);
    upload.append(body, None).await?;
    let digest = Digest::sha256_of(bytes);
    let size = upload.finish(&digest).await?;
    Ok(Descriptor::new("x/y", digest, size))
}

pub(crate) async fn put(
    storage: &Storage,
    repository: &RepositoryName,
    tag: &str,
    manifest: &Value,
) -> Result<Descriptor, StorageError> {
    let bytes = Bytes::from(manifest.to_string());
    let selector =
        if tag.is_empty() { Selector::from(Digest::sha256_of(&bytes)) } else { Selector::Tag(tag.parse().unwrap()) };
    let kind = manifest["mediaType"].as_str().unwrap();
    Ok(storage.put_manifest(repository, &selector, &[], kind, bytes).await?.descriptor)
}

pub(crate) fn image(layer: &Descriptor, subject: Option<&Descriptor>) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": Descriptor::empty(), "layers": [layer],
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject);
    }
    manifest
}
