//! Checking the records of a repository, each first without the lock and, if it looks wrong, once more under it.

use std::collections::HashSet;

use serde::Deserialize;

use super::super::manifest::{Contents, contents_of};
use super::super::record::ManifestRecord;
use super::super::{Inner, StorageError, files};
use super::check::Checking;
use super::finding::FindingKind;
use crate::{Descriptor, Digest, RepositoryName, Tag, media_type};

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wrong {
    Record,
    Content,
    Reference(Digest),
    /// The content of a reference is there, and the repository's hold on it is not.
    Hold(Digest),
    Referrer,
}

/// What tells the media type of a manifest whose record is lost.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<Vec<serde::de::IgnoredAny>>,
}

impl Checking<'_> {
    pub(super) fn hold(&mut self, name: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        self.report.records += 1;
        let (inner, path) = (self.inner, self.inner.layout.held_blob(name, digest));
        let is_wrong = || -> Result<bool, StorageError> {
            Ok(files::size_of(&path)?.is_some() && files::size_of(&inner.layout.blob(digest))?.is_none())
        };
        if !is_wrong()? {
            return Ok(());
        }
        let healed = self.options.repair && self.heal(digest)?;
        let _changing = inner.changing(name);
        let still = is_wrong()?;
        if still && self.options.repair {
            files::remove(&path)?;
        }
        if still || healed {
            self.found(FindingKind::HoldWithoutContent, Some(name), Some(digest), &path, self.options.repair);
        }
        Ok(())
    }

    pub(super) fn manifest(&mut self, name: &RepositoryName, digest: &Digest) -> Result<(), StorageError> {
        self.report.records += 1;
        let (inner, path) = (self.inner, self.inner.layout.held_manifest(name, digest));
        let wrong = inner.wrong_with(name, digest)?;
        if wrong.is_empty() {
            return Ok(());
        }
        let healed = self.options.repair && wrong.contains(&Wrong::Content) && self.heal(digest)?;
        let _changing = inner.changing(name);
        if healed {
            self.found(FindingKind::ManifestWithoutContent, Some(name), Some(digest), &path, true);
        }
        for wrong in inner.wrong_with(name, digest)? {
            // A hold makes no good content of what could not be read a moment ago.
            let is_unread = matches!(&wrong, Wrong::Hold(blob) if self.unread.contains(blob));
            let repaired = self.options.repair && !is_unread && inner.mend(name, digest, &wrong)?;
            let (kind, concerned) = match &wrong {
                Wrong::Record => (FindingKind::DamagedRecord, digest),
                Wrong::Content => (FindingKind::ManifestWithoutContent, digest),
                Wrong::Reference(missing) | Wrong::Hold(missing) => (FindingKind::MissingReference, missing),
                Wrong::Referrer => (FindingKind::MissingReferrer, digest),
            };
            self.found(kind, Some(name), Some(concerned), &path, repaired);
        }
        Ok(())
    }

    pub(super) fn referrer(
        &mut self,
        name: &RepositoryName,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        self.report.records += 1;
        let inner = self.inner;
        let is_wrong = || -> Result<bool, StorageError> {
            // What is wrong with the manifest itself is told there.
            let Some(record) = inner.readable(name, digest)? else { return Ok(false) };
            let contents = inner.contents(&record.descriptor)?;
            Ok(contents
                .is_some_and(|contents| contents.subject.map(|subject| subject.digest).as_ref() != Some(subject)))
        };
        if !is_wrong()? {
            return Ok(());
        }
        let _changing = inner.changing(name);
        if is_wrong()? {
            let path = inner.layout.referrer(name, subject, digest);
            let repaired = self.options.repair && files::remove(&path)?;
            self.found(FindingKind::WrongReferrer, Some(name), Some(digest), &path, repaired);
        }
        Ok(())
    }

    pub(super) fn tag(&mut self, name: &RepositoryName, tag: &Tag) -> Result<(), StorageError> {
        self.report.records += 1;
        let (inner, path) = (self.inner, self.inner.layout.tag(name, tag));
        let wrong = || -> Result<Option<(FindingKind, Option<Digest>)>, StorageError> {
            match inner.read_record::<Descriptor>(&path) {
                Ok(Some(Descriptor { digest, .. })) => {
                    let is_held = files::size_of(&inner.layout.held_manifest(name, &digest))?.is_some();
                    Ok((!is_held).then_some((FindingKind::TagToNowhere, Some(digest))))
                }
                Ok(None) => Ok(None),
                Err(StorageError::Record { .. }) => Ok(Some((FindingKind::DamagedRecord, None))),
                Err(error) => Err(error),
            }
        };
        if wrong()?.is_none() {
            return Ok(());
        }
        let _changing = inner.changing(name);
        if let Some((kind, digest)) = wrong()? {
            let repaired = self.options.repair && files::remove(&path)?;
            self.found(kind, Some(name), digest.as_ref(), &path, repaired).tag = Some(tag.clone());
        }
        Ok(())
    }
}

impl Inner {
    /// The record of a manifest; `None` also where it cannot be read.
    fn readable(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<ManifestRecord>, StorageError> {
        match self.manifest_record(name, digest) {
            Err(StorageError::Record { .. }) => Ok(None),
            record => record,
        }
    }

    fn wrong_with(&self, name: &RepositoryName, digest: &Digest) -> Result<Vec<Wrong>, StorageError> {
        if files::size_of(&self.layout.held_manifest(name, digest))?.is_none() {
            return Ok(Vec::new());
        }
        let Some(bytes) = files::read(&self.layout.blob(digest))? else { return Ok(vec![Wrong::Content]) };
        let record = self.readable(name, digest)?.filter(|record| {
            let descriptor = &record.descriptor;
            descriptor.digest == *digest && descriptor.size == bytes.len() as u64
        });
        let contents = record.and_then(|record| contents_of(&record.descriptor.media_type, &bytes).ok());
        let Some(contents) = contents else {
            // Damaged bytes are told of as such, and say nothing of the record.
            let is_good = Digest::of(digest.algorithm(), &bytes) == *digest;
            return Ok(if is_good { vec![Wrong::Record] } else { Vec::new() });
        };
        let mut wrong = Vec::new();
        if !self.is_cached(name)? {
            wrong = self.missing(name, &contents)?;
        }
        if let Some(subject) = &contents.subject {
            match self.read_record::<Descriptor>(&self.layout.referrer(name, &subject.digest, digest)) {
                Ok(Some(record)) if record.digest == *digest => {}
                Ok(_) | Err(StorageError::Record { .. }) => wrong.push(Wrong::Referrer),
                Err(error) => return Err(error),
            }
        }
        Ok(wrong)
    }

    /// What a manifest names and the repository does not hold, each once however often it is named.
    fn missing(&self, name: &RepositoryName, contents: &Contents) -> Result<Vec<Wrong>, StorageError> {
        let (mut missing, mut told) = (Vec::new(), HashSet::new());
        for needed in &contents.blobs {
            let is_held = files::size_of(&self.layout.held_blob(name, &needed.digest))?.is_some();
            let is_there = files::size_of(&self.layout.blob(&needed.digest))? == Some(needed.size);
            if (is_held && is_there) || !told.insert(&needed.digest) {
                continue;
            }
            let wrong = if is_there { Wrong::Hold } else { Wrong::Reference };
            missing.push(wrong(needed.digest.clone()));
        }
        for needed in &contents.manifests {
            let is_held = files::size_of(&self.layout.held_manifest(name, &needed.digest))?.is_some();
            let is_there = files::size_of(&self.layout.blob(&needed.digest))? == Some(needed.size);
            if !(is_held && is_there) && told.insert(&needed.digest) {
                missing.push(Wrong::Reference(needed.digest.clone()));
            }
        }
        Ok(missing)
    }

    /// Puts right what can be; `false` when it cannot. The caller is committing.
    fn mend(&self, name: &RepositoryName, digest: &Digest, wrong: &Wrong) -> Result<bool, StorageError> {
        let path = self.layout.held_manifest(name, digest);
        match wrong {
            Wrong::Reference(_) => Ok(false),
            Wrong::Hold(blob) => self.hold_blob(name, blob).map(|()| true),
            Wrong::Content => files::remove(&path),
            Wrong::Referrer => {
                let Some(ManifestRecord { descriptor, .. }) = self.readable(name, digest)? else { return Ok(false) };
                let Some(contents) = self.contents(&descriptor)? else { return Ok(false) };
                self.write_referrer(name, &descriptor, &contents).map(|()| true)
            }
            Wrong::Record => {
                let bytes = files::read(&self.layout.blob(digest))?.unwrap_or_default();
                match described(digest, &bytes) {
                    Some((descriptor, contents)) => {
                        self.write_referrer(name, &descriptor, &contents)?;
                        // Whether it was adopted is lost: rather keep it for its digest's sake.
                        self.write_record(&path, &ManifestRecord { descriptor, adopted: false }).map(|()| true)
                    }
                    None => files::remove(&path),
                }
            }
        }
    }
}

/// The descriptor of a manifest, from its bytes alone.
fn described(digest: &Digest, bytes: &[u8]) -> Option<(Descriptor, Contents)> {
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    let kind = match (shape.media_type, shape.manifests) {
        (Some(kind), _) => kind,
        (None, Some(_)) => media_type::OCI_INDEX.to_owned(),
        (None, None) => media_type::OCI_MANIFEST.to_owned(),
    };
    let contents = contents_of(&kind, bytes).ok()?;
    Some((Descriptor::new(kind, digest.clone(), bytes.len() as u64), contents))
}
