//! What a repository keeps as a cache of another registry's: manifests whose references are not here yet, and blobs
//! that are read while they arrive. Only [`crate::cache`] writes this way.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{Origin, Precondition, Terms};
use super::{Inner, Storage, StorageError, files};
use crate::{Digest, RepositoryName, Selector, Tag};

/// A blob on its way: a file that grows below `tmp/`, where nobody finds it and a start sweeps it. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Arriving {
    storage: Storage,
    path: PathBuf,
    file: Arc<File>,
    size: u64,
}

impl Storage {
    /// Stores a manifest as another registry has it, under its digest and the tag. Nothing that it names need be here:
    /// the repository is marked as a cache, where absent content is no damage.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`], [`StorageError::ManifestInvalid`], [`StorageError::DigestMismatch`],
    /// [`StorageError::NearlyFull`]; nothing is kept then.
    pub(crate) async fn put_cached_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        tag: Option<&Tag>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        let terms = Terms { origin: Origin::Upstream, precondition: Precondition::new(|_| true) };
        let selector = Selector::Digest(digest.clone());
        self.take_manifest(repository, &selector, tag.map_or(&[], std::slice::from_ref), media_type, bytes, terms)
            .await
            .map(drop)
    }

    /// Lets a cached repository hold a blob of this size that is here for another repository; `false` when none is.
    /// That the other registry holds it there too is for the caller to know.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) async fn hold_cached_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, StorageError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.run(move |inner| {
            let _changing = inner.changing(&repository);
            if files::size_of(&inner.layout.blob(&digest))? != Some(size) {
                return Ok(false);
            }
            inner.mark_cached(&repository)?;
            inner.hold_blob(&repository, &digest).map(|()| true)
        })
        .await
    }

    /// Whether a blob is here, whichever repository holds it.
    ///
    /// # Errors
    /// The file system cannot tell.
    pub(crate) async fn has_content(&self, digest: &Digest) -> Result<bool, StorageError> {
        let digest = digest.clone();
        self.run(move |inner| Ok(files::size_of(&inner.layout.blob(&digest))?.is_some())).await
    }

    /// Begins to take in a blob.
    ///
    /// # Errors
    /// [`StorageError::NearlyFull`], or the file cannot be made.
    pub(crate) async fn arriving(&self) -> Result<Arriving, StorageError> {
        let path = self.inner.layout.temporary();
        let new = path.clone();
        let file = self
            .run(move |inner| {
                inner.check_free()?;
                let file = files::writing().read(true).create_new(true).open(&new);
                file.map_err(|source| StorageError::Create { path: new, source })
            })
            .await?;
        Ok(Arriving { storage: self.clone(), path, file: Arc::new(file), size: 0 })
    }
}

impl Arriving {
    /// The file, for those who read what has arrived.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Writes the next bytes and returns how many there are now.
    ///
    /// # Errors
    /// [`StorageError::NearlyFull`], or the bytes cannot be written.
    pub(crate) async fn append(&mut self, batch: Vec<Bytes>) -> Result<u64, StorageError> {
        let (file, path, mut at) = (Arc::clone(&self.file), self.path.clone(), self.size);
        let written = self.storage.run(move |inner| {
            inner.check_free()?;
            for bytes in batch {
                file.write_all_at(&bytes, at).map_err(|source| StorageError::Write { path: path.clone(), source })?;
                at += bytes.len() as u64;
            }
            Ok(at)
        });
        self.size = written.await?;
        Ok(self.size)
    }

    /// Brings the bytes to the disk and lets the cached repository hold them as a blob. That they have this digest is
    /// for the caller to know.
    ///
    /// # Errors
    /// The bytes cannot be brought to the disk or into their place.
    pub(crate) async fn keep(self, repository: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        let (repository, digest, storage) = (repository.clone(), digest.clone(), self.storage.clone());
        storage
            .run(move |inner| {
                self.file.sync_all().map_err(|source| StorageError::Sync { path: self.path.clone(), source })?;
                let _changing = inner.changing(&repository);
                inner.mark_cached(&repository)?;
                inner.commit_blob(&self.path, &digest, self.size)?;
                inner.hold_blob(&repository, &digest)
            })
            .await
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Nothing is there any more once it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

impl Inner {
    /// Whether content that this repository's manifests name may be absent.
    pub(super) fn is_cached(&self, repository: &RepositoryName) -> Result<bool, StorageError> {
        Ok(files::size_of(&self.layout.cached(repository))?.is_some())
    }

    /// Marks the repository as a cache. The caller is committing.
    pub(super) fn mark_cached(&self, repository: &RepositoryName) -> Result<(), StorageError> {
        if self.is_cached(repository)? {
            return Ok(());
        }
        let path = self.layout.cached(repository);
        let directory = self.layout.repository(repository);
        files::create_directory(&directory)?;
        // An empty file is complete as soon as it has a name.
        let made = files::writing().create(true).truncate(true).open(&path);
        made.map_err(|source| StorageError::Create { path, source })?;
        files::sync_directory(&directory)
    }
}
