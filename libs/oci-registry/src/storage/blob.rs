//! Blobs: reading, committing, which repository holds which.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Inner, Storage, StorageError, files};
use crate::{Digest, RepositoryName};

/// An open blob. It stays readable when the blob is removed meanwhile.
#[derive(Debug)]
pub struct Blob {
    /// Positioned at the first byte.
    pub file: File,
    /// Size in bytes.
    pub size: u64,
}

impl Storage {
    /// Opens a blob that this repository holds; `None` when it holds none of this digest.
    ///
    /// # Errors
    /// The file is there but cannot be opened.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, StorageError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.run(move |inner| {
            if files::size_of(&inner.layout.held_blob(&repository, &digest))?.is_none() {
                return Ok(None);
            }
            let path = inner.layout.blob(&digest);
            let opened =
                File::open(&path).and_then(|file| file.metadata().map(|metadata| Blob { file, size: metadata.len() }));
            match opened {
                Ok(blob) => Ok(Some(blob)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(StorageError::Read { path, source }),
            }
        })
        .await
    }

    /// Size in bytes of a blob that this repository holds.
    ///
    /// # Errors
    /// The file system cannot tell.
    pub async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.run(move |inner| inner.held_blob_size(&repository, &digest)).await
    }

    /// Lets `repository` hold a blob that `from` holds, without a copy; `false` when `from` does not hold it.
    /// Whether the caller may read `from` is for the caller to know.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let (repository, from, digest) = (repository.clone(), from.clone(), digest.clone());
        self.run(move |inner| {
            let _committing = inner.committing();
            if inner.held_blob_size(&from, &digest)?.is_none() {
                return Ok(false);
            }
            inner.hold_blob(&repository, &digest)?;
            Ok(true)
        })
        .await
    }
}

impl Inner {
    pub(super) fn held_blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, StorageError> {
        match files::size_of(&self.layout.held_blob(repository, digest))? {
            Some(_) => files::size_of(&self.layout.blob(digest)),
            None => Ok(None),
        }
    }

    /// Records that the repository holds the blob. The caller is committing.
    pub(super) fn hold_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        let path = self.layout.held_blob(repository, digest);
        if files::size_of(&path)?.is_some() {
            return Ok(());
        }
        let Some(directory) = path.parent() else { return Ok(()) };
        files::create_directory(directory)?;
        // An empty file is complete as soon as it has a name.
        File::create(&path).map_err(|source| StorageError::Create { path: path.clone(), source })?;
        files::sync_directory(directory)
    }

    /// Moves a finished file, already on the disk, to its digest. The caller is committing.
    ///
    /// A blob that is there is replaced: equal bytes if all is well, and healed if the disk has damaged it.
    pub(super) fn commit_blob(&self, from: &Path, digest: &Digest, size: u64) -> Result<(), StorageError> {
        let path = self.layout.blob(digest);
        let before = files::size_of(&path)?;
        files::put_in_place(from, &path)?;
        if before.is_none() {
            self.blobs.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.bytes.fetch_sub(before.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Writes a small blob whole. The caller is committing.
    pub(super) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
        let temporary = self.layout.temporary();
        files::write_new(&temporary, bytes)?;
        let placed = self.commit_blob(&temporary, digest, bytes.len() as u64);
        if placed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        placed
    }
}
