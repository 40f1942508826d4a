//! Small files that say what a repository holds. Read whole, written beside their place and renamed.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Inner, StorageError, files};
use crate::{Descriptor, Digest, RepositoryName};

/// The record of a manifest that a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    #[serde(flatten)]
    pub(super) descriptor: Descriptor,
    /// Whether a tag has ever pointed to it or an index has listed it. One that was never adopted is meant to be
    /// pulled by its digest; one that was has lost what it was kept for when nothing reaches it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) adopted: bool,
}

impl Inner {
    pub(super) fn read_record<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StorageError> {
        let Some(bytes) = files::read(path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StorageError::Record { path: path.to_owned(), source })
    }

    /// The caller is committing.
    pub(super) fn write_record(&self, path: &Path, record: &impl Serialize) -> Result<(), StorageError> {
        let bytes =
            serde_json::to_vec(record).map_err(|source| StorageError::Record { path: path.to_owned(), source })?;
        if let Some(directory) = path.parent() {
            files::create_directory(directory)?;
        }
        let temporary = self.layout.temporary();
        files::write_new(&temporary, &bytes)?;
        files::put_in_place(&temporary, path)
    }

    pub(super) fn manifest_record(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StorageError> {
        self.read_record(&self.layout.held_manifest(repository, digest))
    }

    /// Records that the repository holds a manifest. What was adopted once stays so. The caller is committing.
    pub(super) fn hold_manifest(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        adopted: bool,
    ) -> Result<(), StorageError> {
        let before = self.manifest_record(repository, &descriptor.digest)?;
        let adopted = adopted || before.is_some_and(|record| record.adopted);
        let record = ManifestRecord { descriptor: descriptor.clone(), adopted };
        self.write_record(&self.layout.held_manifest(repository, &descriptor.digest), &record)
    }

    /// Notes that a tag or an index needs this manifest, or did until now, and renews its lease. The caller is
    /// committing.
    pub(super) fn adopt(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        let path = self.layout.held_manifest(repository, digest);
        match self.read_record::<ManifestRecord>(&path)? {
            Some(record) if !record.adopted => self.write_record(&path, &ManifestRecord { adopted: true, ..record }),
            _ => files::renew(&path).map(drop),
        }
    }
}
