//! Looking at a repository.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::record::ManifestRecord;
use super::super::{Inner, StorageError, files, layout};
use super::plan::{Seen, Snapshot};
use crate::{Algorithm, Descriptor, Digest, RepositoryName};

/// Everything that a manifest of any kind names. Wider than what is asked for at a push: also what may be fetched
/// elsewhere, and whatever media types there will be.
#[derive(Deserialize)]
struct Names {
    config: Option<Target>,
    #[serde(default)]
    layers: Vec<Target>,
    #[serde(default)]
    manifests: Vec<Target>,
    subject: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    digest: Digest,
}

impl Inner {
    /// The repositories, sorted; also such as hold nothing.
    pub(super) fn all_repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        let mut names = Vec::new();
        self.walk_repositories(&mut |name, _| {
            names.push(name.clone());
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// Symbolic links where repositories would be. What is behind them is in none of [`Inner::all_repositories`].
    pub(super) fn links(&self) -> Result<Vec<PathBuf>, StorageError> {
        let mut found = Vec::new();
        let mut look = |directory: &Path| -> Result<(), StorageError> {
            let links = files::list(directory)?.into_iter().filter(|(_, kind)| kind.is_symlink());
            found.extend(links.map(|(entry, _)| directory.join(entry)));
            Ok(())
        };
        look(&self.layout.repositories())?;
        self.walk_repositories(&mut |name, _| look(&self.layout.repository(name)))?;
        Ok(found)
    }

    /// The digests that have a record of this kind (`_blobs` or `_manifests`).
    pub(super) fn recorded(&self, repository: &RepositoryName, kind: &str) -> Result<Vec<Digest>, StorageError> {
        digests_below(&self.layout.repository(repository).join(kind))
    }

    /// A repository as it is. Unless the caller is committing, that is true only if its generation is the same
    /// afterwards.
    ///
    /// # Errors
    /// [`StorageError::Record`], [`StorageError::Corrupt`] and [`StorageError::Read`] where it cannot be known what a record or a manifest
    /// names: then nothing of the repository may go.
    pub(super) fn snapshot(&self, repository: &RepositoryName, grace: Duration) -> Result<Snapshot, StorageError> {
        let mut found = Snapshot::default();
        for tag in self.tags(repository)? {
            let record = self.read_record::<Descriptor>(&self.layout.tag(repository, &tag))?;
            found.tags.extend(record.map(|record| record.digest));
        }
        for digest in self.recorded(repository, layout::MANIFESTS)? {
            let path = self.layout.held_manifest(repository, &digest);
            let young = is_young(&path, grace)?;
            if let (Some(young), Some(record)) = (young, self.read_record::<ManifestRecord>(&path)?) {
                let (names, subject) = self.names(&digest)?;
                found.manifests.insert(digest, Seen { names, subject, adopted: record.adopted, young });
            }
        }
        for digest in self.recorded(repository, layout::BLOBS)? {
            if let Some(young) = is_young(&self.layout.held_blob(repository, &digest), grace)? {
                found.holds.insert(digest, young);
            }
        }
        for (subject, referrer) in self.recorded_referrers(repository)? {
            let record = self.layout.referrer(repository, &subject, &referrer);
            if !found.manifests.contains_key(&referrer) && is_young(&record, grace)? == Some(false) {
                found.widowed.push((subject, referrer));
            }
        }
        Ok(found)
    }

    /// What the bytes of a manifest name, and its subject. Damaged bytes may name anything, so they are hashed.
    pub(super) fn names(&self, digest: &Digest) -> Result<(Vec<Digest>, Option<Digest>), StorageError> {
        let path = self.layout.blob(digest);
        let bytes = files::read(&path)?.filter(|bytes| Digest::of(digest.algorithm(), bytes) == *digest);
        let names = bytes.and_then(|bytes| serde_json::from_slice::<Names>(&bytes).ok());
        let Some(Names { config, layers, manifests, subject }) = names else {
            return Err(StorageError::Corrupt { path });
        };
        let named = config.into_iter().chain(layers).chain(manifests).map(|target| target.digest);
        Ok((named.collect(), subject.map(|subject| subject.digest)))
    }

    /// The pairs of subject and referrer that have a record.
    pub(super) fn recorded_referrers(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<(Digest, Digest)>, StorageError> {
        let mut found = Vec::new();
        for subject in digests_below(&self.layout.repository(repository).join(layout::REFERRERS))? {
            for (name, _) in files::list(&self.layout.referrers(repository, &subject))? {
                if let Ok(referrer) = name.replacen('-', ":", 1).parse() {
                    found.push((subject.clone(), referrer));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The digests that `directory/<alg>/<hex>` exists for, sorted.
pub(super) fn digests_below(directory: &Path) -> Result<Vec<Digest>, StorageError> {
    let mut found: Vec<Digest> = Vec::new();
    for algorithm in Algorithm::ALL {
        let entries = files::list(&directory.join(algorithm.name()))?;
        found.extend(entries.into_iter().filter_map(|(hex, _)| format!("{}:{hex}", algorithm.name()).parse().ok()));
    }
    found.sort();
    Ok(found)
}

/// Whether a file was modified less than this long ago; `None` when there is none. A time to come is young: the clock
/// was set, and it costs less to wait.
pub(super) fn is_young(path: &Path, grace: Duration) -> Result<Option<bool>, StorageError> {
    match files::look(path).and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(time.elapsed().map_or(true, |age| age < grace))),
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(source) => Err(StorageError::Read { path: path.to_owned(), source }),
    }
}
