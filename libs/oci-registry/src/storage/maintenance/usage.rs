//! What takes room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use serde::Serialize;

use super::super::{Inner, Storage, StorageError, files, layout};
use super::snapshot::digests_below;
use crate::{Digest, RepositoryName};

/// A blob or manifest on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// The repositories that hold it, sorted.
    pub repositories: Vec<RepositoryName>,
    /// Whether it is a manifest, or a manifest of such a repository names it.
    pub referenced: bool,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositoryUsage {
    /// The repository.
    pub repository: RepositoryName,
    /// Its tags.
    pub tags: u64,
    /// Its manifests.
    pub manifests: u64,
    /// Its blobs, without manifests.
    pub blobs: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of those that no other repository holds.
    pub own_bytes: u64,
}

impl Storage {
    /// The `count` largest blobs, the largest first.
    ///
    /// # Errors
    /// A directory or record cannot be read.
    pub async fn largest(&self, count: usize) -> Result<Vec<StoredBlob>, StorageError> {
        self.run(move |inner| inner.largest(count)).await
    }

    /// What each repository holds, sorted by name. Content that several hold is counted in each.
    ///
    /// # Errors
    /// A directory or file cannot be read.
    pub async fn usage_by_repository(&self) -> Result<Vec<RepositoryUsage>, StorageError> {
        self.run(|inner| {
            let holders = inner.holders()?;
            let mut found = Vec::new();
            for repository in inner.all_repositories()? {
                let usage = inner.usage_of(repository, &holders)?;
                if usage.manifests + usage.blobs > 0 {
                    found.push(usage);
                }
            }
            Ok(found)
        })
        .await
    }
}

impl Inner {
    fn largest(&self, count: usize) -> Result<Vec<StoredBlob>, StorageError> {
        let mut most = BinaryHeap::new();
        for digest in digests_below(&self.layout.blobs())? {
            if let Some(size) = files::size_of(&self.layout.blob(&digest))? {
                most.push(Reverse((size, Reverse(digest))));
                if most.len() > count {
                    most.pop();
                }
            }
        }
        let stored = |(size, Reverse(digest))| (digest, (size, Vec::new(), false));
        let mut found: BTreeMap<Digest, _> = most.into_iter().map(|Reverse(one)| stored(one)).collect();
        for name in self.all_repositories()? {
            self.note_use(&name, &mut found)?;
        }
        let stored = |(digest, (size, repositories, referenced))| StoredBlob { digest, size, repositories, referenced };
        let mut found: Vec<StoredBlob> = found.into_iter().map(stored).collect();
        found.sort_by(|a, b| (b.size, &a.digest).cmp(&(a.size, &b.digest)));
        Ok(found)
    }

    /// Notes that the repository holds some of these, and whether it needs them.
    fn note_use(
        &self,
        name: &RepositoryName,
        found: &mut BTreeMap<Digest, (u64, Vec<RepositoryName>, bool)>,
    ) -> Result<(), StorageError> {
        for (digest, (_, repositories, referenced)) in &mut *found {
            let is_manifest = files::size_of(&self.layout.held_manifest(name, digest))?.is_some();
            if is_manifest || files::size_of(&self.layout.held_blob(name, digest))?.is_some() {
                repositories.push(name.clone());
            }
            *referenced |= is_manifest;
        }
        for manifest in self.recorded(name, layout::MANIFESTS)? {
            let names = match self.names(&manifest) {
                // What a damaged manifest named is not known.
                Err(StorageError::Corrupt { .. }) => continue,
                names => names?.0,
            };
            for digest in names {
                if let Some((_, repositories, referenced)) = found.get_mut(&digest) {
                    *referenced |= repositories.last() == Some(name);
                }
            }
        }
        Ok(())
    }

    /// How many repositories hold each blob or manifest.
    fn holders(&self) -> Result<HashMap<Digest, u32>, StorageError> {
        let mut holders: HashMap<Digest, u32> = HashMap::new();
        for name in self.all_repositories()? {
            for digest in self.held(&name)? {
                *holders.entry(digest).or_default() += 1;
            }
        }
        Ok(holders)
    }

    /// The blobs and manifests that a repository holds, each once.
    fn held(&self, repository: &RepositoryName) -> Result<Vec<Digest>, StorageError> {
        let mut held = self.recorded(repository, layout::BLOBS)?;
        held.extend(self.recorded(repository, layout::MANIFESTS)?);
        held.sort();
        held.dedup();
        Ok(held)
    }

    fn usage_of(
        &self,
        repository: RepositoryName,
        holders: &HashMap<Digest, u32>,
    ) -> Result<RepositoryUsage, StorageError> {
        let (tags, manifests) = (self.tags(&repository)?, self.recorded(&repository, layout::MANIFESTS)?);
        let held = self.held(&repository)?;
        let (mut bytes, mut own_bytes) = (0, 0);
        for digest in &held {
            let size = files::size_of(&self.layout.blob(digest))?.unwrap_or(0);
            bytes += size;
            own_bytes += if holders.get(digest) == Some(&1) { size } else { 0 };
        }
        let blobs = (held.len() - manifests.len().min(held.len())) as u64;
        let (tags, manifests) = (tags.len() as u64, manifests.len() as u64);
        Ok(RepositoryUsage { repository, tags, manifests, blobs, bytes, own_bytes })
    }
}
