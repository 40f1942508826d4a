//! Which manifests say that they are about another one: their `subject` (distribution-spec 1.1, "Listing Referrers").
//!
//! Each has a record of its own beside its subject's digest, so that a list costs no look into other manifests. The
//! record is written before the manifest's own and removed after it, and what the repository does not hold is not
//! listed: a list is right wherever the process is killed.

use std::path::Path;

use super::contents::{Contents, contents_of};
use super::{Inner, Storage, StorageError, files, layout};
use crate::{Algorithm, Descriptor, Digest, RepositoryName};

impl Storage {
    /// The manifests of this repository whose subject has this digest, sorted by digest, with their artifact type and
    /// annotations. The subject itself need not be there.
    ///
    /// # Errors
    /// A record cannot be read.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, StorageError> {
        let (repository, subject) = (repository.clone(), subject.clone());
        self.run(move |inner| inner.referrers(&repository, &subject)).await
    }
}

impl Inner {
    pub(super) fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, StorageError> {
        let directory = self.layout.referrers(repository, subject);
        let mut found = Vec::new();
        for (name, _) in files::list(&directory)? {
            let Ok(digest) = name.replacen('-', ":", 1).parse::<Digest>() else { continue };
            let is_held = files::size_of(&self.layout.held_manifest(repository, &digest))?.is_some();
            if let (true, Some(descriptor)) = (is_held, self.read_record::<Descriptor>(&directory.join(name))?) {
                found.push(descriptor);
            }
        }
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(found)
    }

    /// Records that `descriptor`, whose manifest says `contents`, is about its subject. The caller is committing.
    pub(super) fn write_referrer(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        contents: &Contents,
    ) -> Result<(), StorageError> {
        let Some(subject) = &contents.subject else { return Ok(()) };
        let record = Descriptor {
            artifact_type: contents.artifact_type.clone(),
            annotations: contents.annotations.clone(),
            ..descriptor.clone()
        };
        self.write_record(&self.layout.referrer(repository, &subject.digest, &descriptor.digest), &record)
    }

    /// Removes the record of a manifest that is no longer held. What it was about stands in its bytes; where those are
    /// gone or damaged, the record stays and is not listed. The caller is committing.
    pub(super) fn remove_referrer(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
    ) -> Result<(), StorageError> {
        if let Some(subject) = self.contents(manifest)?.and_then(|contents| contents.subject) {
            files::remove(&self.layout.referrer(repository, &subject.digest, &manifest.digest))?;
        }
        Ok(())
    }

    /// What a stored manifest says; `None` where its bytes are gone or are no manifest.
    pub(super) fn contents(&self, manifest: &Descriptor) -> Result<Option<Contents>, StorageError> {
        let bytes = files::read(&self.layout.blob(&manifest.digest))?;
        Ok(bytes.and_then(|bytes| contents_of(&manifest.media_type, &bytes).ok()))
    }

    /// Writes the records of manifests from before there were any. Done once, while nobody else is there.
    pub(super) fn complete_referrers(&self) -> Result<(), StorageError> {
        let done = self.layout.referrers_complete();
        if files::size_of(&done)?.is_some() {
            return Ok(());
        }
        self.walk_repositories(&mut |name, _| {
            for algorithm in Algorithm::ALL {
                let directory = self.layout.repository(name).join(layout::MANIFESTS).join(algorithm.name());
                for (entry, _) in files::list(&directory)? {
                    self.complete_referrer(name, &directory.join(entry))?;
                }
            }
            Ok(())
        })?;
        files::write_new(&done, b"")?;
        files::sync_directory(self.layout.root())
    }

    fn complete_referrer(&self, repository: &RepositoryName, record: &Path) -> Result<(), StorageError> {
        let descriptor = match self.read_record::<Descriptor>(record) {
            Ok(Some(descriptor)) => descriptor,
            Ok(None) => return Ok(()),
            Err(StorageError::Record { path, .. }) => {
                tracing::warn!(path = %path.display(), "not a record of this registry, left alone");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match self.contents(&descriptor)? {
            Some(contents) => self.write_referrer(repository, &descriptor, &contents),
            None => Ok(()),
        }
    }
}
