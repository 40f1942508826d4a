//! Blobs: reading, committing, which repository holds which.

use std::fs::File;
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
            if !inner.lease(&repository, &inner.layout.held_blob(&repository, &digest))? {
                return Ok(None);
            }
            let path = inner.layout.blob(&digest);
            match files::open(&path) {
                Ok((file, metadata)) => Ok(Some(Blob { file, size: metadata.len() })),
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
        self.run(move |inner| match inner.lease(&repository, &inner.layout.held_blob(&repository, &digest))? {
            true => files::size_of(&inner.layout.blob(&digest)),
            false => Ok(None),
        })
        .await
    }

    /// Takes the blob from this repository; `false` when it holds none of this digest. The bytes stay until they are
    /// collected: other repositories may hold them.
    ///
    /// # Errors
    /// The record cannot be removed.
    pub async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.run(move |inner| {
            let _changing = inner.changing(&repository);
            files::remove(&inner.layout.held_blob(&repository, &digest))
        })
        .await
    }

    /// The repositories that hold this blob, sorted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub async fn holders(&self, digest: &Digest) -> Result<Vec<RepositoryName>, StorageError> {
        let digest = digest.clone();
        self.run(move |inner| {
            let mut names = Vec::new();
            if files::size_of(&inner.layout.blob(&digest))?.is_none() {
                return Ok(names);
            }
            inner.walk_repositories(&mut |name, _| {
                if files::size_of(&inner.layout.held_blob(name, &digest))?.is_some() {
                    names.push(name.clone());
                }
                Ok(())
            })?;
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Lets `repository` hold a blob that `from` holds, without a copy, and returns its size in bytes; `None` when
    /// `from` does not hold it.
    /// Whether the caller may read `from` is for the caller to know.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, StorageError> {
        let (repository, from, digest) = (repository.clone(), from.clone(), digest.clone());
        self.run(move |inner| {
            let _changing = inner.changing(&repository);
            let size = inner.held_blob_size(&from, &digest)?;
            if size.is_some() {
                inner.hold_blob(&repository, &digest)?;
            }
            Ok(size)
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
        if files::renew(&path)? {
            return Ok(());
        }
        let Some(directory) = path.parent() else { return Ok(()) };
        files::create_directory(directory)?;
        // An empty file is complete as soon as it has a name.
        let made = files::writing().create(true).truncate(true).open(&path);
        made.map_err(|source| StorageError::Create { path: path.clone(), source })?;
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
}
