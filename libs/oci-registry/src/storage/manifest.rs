//! Manifests and tags.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Inner, Storage, StorageError, files};
use crate::{Descriptor, Digest, RepositoryName, Selector, Tag};

pub(super) use super::contents::{Contents, contents_of};

/// A manifest as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub descriptor: Descriptor,
    /// The manifest that it says it is about.
    pub subject: Option<Digest>,
    /// Tags that pointed to other content before, with the digest of that.
    pub retagged: Vec<(Tag, Digest)>,
}

/// Decides, from what a selector points to now, whether it may point to something else.
pub struct Precondition(Box<Holds>);

type Holds = dyn FnOnce(Option<&Digest>) -> bool + Send;

impl Precondition {
    /// Holds when `holds` says so.
    pub fn new(holds: impl FnOnce(Option<&Digest>) -> bool + Send + 'static) -> Self {
        Self(Box::new(holds))
    }
}

/// Where a manifest comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client pushes it, after everything that it names.
    Client,
    /// It is another registry's, and what it names is fetched when somebody asks for that. It can be fetched again
    /// itself, so it is not kept for its digest alone; and it is not for this registry to hold its tags still.
    Upstream,
}

/// On what terms a manifest is taken in.
pub(super) struct Terms {
    pub(super) origin: Origin,
    pub(super) precondition: Precondition,
}

impl Storage {
    /// What a tag or digest of this repository points to, with the media type it was pushed with.
    ///
    /// # Errors
    /// The record cannot be read.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<Descriptor>, StorageError> {
        let (repository, selector) = (repository.clone(), selector.clone());
        self.run(move |inner| inner.resolve(&repository, &selector)).await
    }

    /// A manifest with its descriptor, its bytes checked against the digest.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the bytes on disk are not those that were pushed.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<(Descriptor, Bytes)>, StorageError> {
        let (repository, selector) = (repository.clone(), selector.clone());
        self.run(move |inner| {
            let Some(descriptor) = inner.resolve(&repository, &selector)? else { return Ok(None) };
            let path = inner.layout.blob(&descriptor.digest);
            let Some(bytes) = files::read(&path)? else { return Ok(None) };
            if Digest::of(descriptor.digest.algorithm(), &bytes) != descriptor.digest {
                return Err(StorageError::Corrupt { path });
            }
            Ok(Some((descriptor, Bytes::from(bytes))))
        })
        .await
    }

    /// Stores a manifest under its digest and points tags to it: the selector, where that is one, and `tags`. Its
    /// subject need not be there; everything else that it names must be.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`], [`StorageError::ManifestInvalid`], [`StorageError::DigestMismatch`],
    /// [`StorageError::ReferencesUnknown`], [`StorageError::TagImmutable`], [`StorageError::NearlyFull`]; nothing is
    /// kept then. Or a file cannot be written or put in its place: what was placed before it stays (the bytes, the
    /// manifest under its digest, some of the tags), and each of these is whole.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        tags: &[Tag],
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Stored, StorageError> {
        self.put_manifest_if(repository, selector, tags, media_type, bytes, Precondition::new(|_| true)).await
    }

    /// As [`Storage::put_manifest`], if `precondition` holds of the selector at that moment.
    ///
    /// # Errors
    /// Those, and [`StorageError::ConditionFailed`].
    pub async fn put_manifest_if(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        tags: &[Tag],
        media_type: &str,
        bytes: Bytes,
        precondition: Precondition,
    ) -> Result<Stored, StorageError> {
        let terms = Terms { origin: Origin::Client, precondition };
        self.take_manifest(repository, selector, tags, media_type, bytes, terms).await
    }

    pub(super) async fn take_manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        tags: &[Tag],
        media_type: &str,
        bytes: Bytes,
        terms: Terms,
    ) -> Result<Stored, StorageError> {
        let limit = self.inner.limits.max_manifest_size;
        if bytes.len() as u64 > limit {
            return Err(StorageError::TooLarge { limit });
        }
        let (repository, selector, media_type) = (repository.clone(), selector.clone(), media_type.to_owned());
        let mut tags = tags.to_vec();
        self.run(move |inner| {
            inner.check_free()?;
            let contents = contents_of(&media_type, &bytes)?;
            let digest = match &selector {
                Selector::Digest(expected) => checked(expected.clone(), &bytes)?,
                Selector::Tag(tag) => {
                    tags.insert(0, tag.clone());
                    Digest::sha256_of(&bytes)
                }
            };
            let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
            let temporary = inner.layout.temporary();
            let mut written = vec![temporary.clone()];
            // All that can be brought to the disk beforehand is: with many tags everybody else would wait for long.
            let placed = files::write_new(&temporary, &bytes)
                .and_then(|()| inner.write_tags(&descriptor, &tags, &mut written))
                .and_then(|tags| {
                    let _changing = inner.changing(&repository);
                    inner.check_precondition(&repository, &selector, terms.precondition)?;
                    inner.place_manifest(&repository, descriptor, &contents, &temporary, &tags, terms.origin)
                });
            if placed.is_err() {
                // Those that are in their place are gone from here.
                written.iter().for_each(|file| drop(fs::remove_file(file)));
            }
            placed
        })
        .await
    }

    /// Removes a tag, or a manifest with every tag that points to it; `false` when there is none. The bytes stay until
    /// they are collected: other repositories may hold them.
    ///
    /// # Errors
    /// A record cannot be read or removed.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<bool, StorageError> {
        let (repository, selector) = (repository.clone(), selector.clone());
        self.run(move |inner| {
            let _changing = inner.changing(&repository);
            match &selector {
                Selector::Tag(tag) => inner.remove_tag(&repository, tag),
                Selector::Digest(digest) => inner.remove_manifest(&repository, digest),
            }
        })
        .await
    }

    /// The repository's tags, sorted by their bytes.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, StorageError> {
        let repository = repository.clone();
        self.run(move |inner| inner.tags(&repository)).await
    }
}

impl Inner {
    fn resolve(&self, repository: &RepositoryName, selector: &Selector) -> Result<Option<Descriptor>, StorageError> {
        let record = self.record_of(repository, selector);
        // What a tag points to is kept by the tag, and for a while after it.
        let is_there = matches!(selector, Selector::Tag(_)) || self.lease(repository, &record)?;
        if is_there { self.read_record(&record) } else { Ok(None) }
    }

    fn record_of(&self, repository: &RepositoryName, selector: &Selector) -> PathBuf {
        match selector {
            Selector::Tag(tag) => self.layout.tag(repository, tag),
            Selector::Digest(digest) => self.layout.held_manifest(repository, digest),
        }
    }

    fn check_precondition(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        precondition: Precondition,
    ) -> Result<(), StorageError> {
        let now = self.read_record::<Descriptor>(&self.record_of(repository, selector))?;
        let holds = precondition.0(now.as_ref().map(|now| &now.digest));
        if holds { Ok(()) } else { Err(StorageError::ConditionFailed) }
    }

    pub(super) fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, StorageError> {
        let entries = files::list(&self.layout.refs(repository))?;
        let mut tags: Vec<Tag> = entries.into_iter().filter_map(|(name, _)| name.parse().ok()).collect();
        tags.sort();
        Ok(tags)
    }

    /// Makes a manifest visible whose bytes are on the disk: content, referrer record, own record, tags. Each rests on
    /// the one before. The caller is committing.
    fn place_manifest(
        &self,
        repository: &RepositoryName,
        descriptor: Descriptor,
        contents: &Contents,
        bytes: &Path,
        tags: &[(Tag, PathBuf)],
        origin: Origin,
    ) -> Result<Stored, StorageError> {
        let retagged = self.retagged(repository, tags, &descriptor.digest)?;
        match origin {
            Origin::Client => {
                self.check_references(repository, contents)?;
                self.check_immutable(&retagged)?;
            }
            Origin::Upstream => self.mark_cached(repository)?,
        }
        self.commit_blob(bytes, &descriptor.digest, descriptor.size)?;
        self.write_referrer(repository, &descriptor, contents)?;
        for listed in &contents.manifests {
            self.adopt(repository, &listed.digest)?;
        }
        self.hold_manifest(repository, &descriptor, !tags.is_empty() || origin == Origin::Upstream)?;
        for (_, before) in &retagged {
            self.adopt(repository, before)?;
        }
        self.place_tags(repository, tags)?;
        let subject = contents.subject.as_ref().map(|subject| subject.digest.clone());
        Ok(Stored { descriptor, subject, retagged })
    }

    /// Writes the records of tags, not yet in their place. `written` gets the files, also when a later one fails.
    fn write_tags(
        &self,
        descriptor: &Descriptor,
        tags: &[Tag],
        written: &mut Vec<PathBuf>,
    ) -> Result<Vec<(Tag, PathBuf)>, StorageError> {
        let mut records = Vec::new();
        for tag in tags {
            let file = self.layout.temporary();
            let record =
                serde_json::to_vec(descriptor).map_err(|source| StorageError::Record { path: file.clone(), source })?;
            files::write_new(&file, &record)?;
            written.push(file.clone());
            records.push((tag.clone(), file));
        }
        Ok(records)
    }

    /// Puts the records of tags in their place. The caller is committing.
    fn place_tags(&self, repository: &RepositoryName, tags: &[(Tag, PathBuf)]) -> Result<(), StorageError> {
        if tags.is_empty() {
            return Ok(());
        }
        let directory = self.layout.refs(repository);
        files::create_directory(&directory)?;
        for (tag, from) in tags {
            let to = self.layout.tag(repository, tag);
            fs::rename(from, &to).map_err(|source| StorageError::Rename { path: to, source })?;
        }
        files::sync_directory(&directory)
    }

    /// Which of these tags point to other content than `digest`.
    fn retagged(
        &self,
        repository: &RepositoryName,
        tags: &[(Tag, PathBuf)],
        digest: &Digest,
    ) -> Result<Vec<(Tag, Digest)>, StorageError> {
        let mut moving = Vec::new();
        for (tag, _) in tags {
            let before = self.read_record::<Descriptor>(&self.layout.tag(repository, tag))?;
            let before = before.map(|before| before.digest).filter(|before| before != digest);
            moving.extend(before.map(|before| (tag.clone(), before)));
        }
        Ok(moving)
    }

    fn check_immutable(&self, retagged: &[(Tag, Digest)]) -> Result<(), StorageError> {
        match retagged.first() {
            Some((tag, digest)) if self.limits.immutable_tags => {
                Err(StorageError::TagImmutable { tag: tag.clone(), digest: digest.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Removes a tag. What it pointed to gets a new lease: it stays for as long as something just pushed would.
    pub(super) fn remove_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, StorageError> {
        let path = self.layout.tag(repository, tag);
        if let Some(record) = self.read_record::<Descriptor>(&path)? {
            self.adopt(repository, &record.digest)?;
        }
        files::remove(&path)
    }

    fn remove_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        let record = self.manifest_record(repository, digest)?;
        // Tags first: a tag never points to a manifest that the repository does not hold.
        for tag in self.tags(repository)? {
            let path = self.layout.tag(repository, &tag);
            if self.read_record::<Descriptor>(&path)?.is_some_and(|record| record.digest == *digest) {
                files::remove(&path)?;
            }
        }
        let removed = files::remove(&self.layout.held_manifest(repository, digest))?;
        if let Some(record) = record {
            self.remove_referrer(repository, &record.descriptor)?;
        }
        Ok(removed)
    }

    /// Whether the repository holds what the manifest names, with the sizes that it says; renews those leases.
    pub(super) fn check_references(
        &self,
        repository: &RepositoryName,
        contents: &Contents,
    ) -> Result<(), StorageError> {
        let mut missing = Vec::new();
        let mut compare = |needed: &Descriptor, size: Option<u64>| match size {
            None => {
                missing.push(needed.digest.clone());
                Ok(())
            }
            Some(size) if size != needed.size => {
                let reason = format!("{} has {size} bytes, the manifest says {}", needed.digest, needed.size);
                Err(StorageError::ManifestInvalid(reason))
            }
            Some(_) => Ok(()),
        };
        for needed in &contents.blobs {
            files::renew(&self.layout.held_blob(repository, &needed.digest))?;
            compare(needed, self.held_blob_size(repository, &needed.digest)?)?;
        }
        for needed in &contents.manifests {
            let record = self.manifest_record(repository, &needed.digest)?;
            compare(needed, record.map(|record| record.descriptor.size))?;
        }
        if missing.is_empty() { Ok(()) } else { Err(StorageError::ReferencesUnknown(missing)) }
    }
}

fn checked(expected: Digest, bytes: &[u8]) -> Result<Digest, StorageError> {
    let actual = Digest::of(expected.algorithm(), bytes);
    if actual == expected { Ok(actual) } else { Err(StorageError::DigestMismatch { expected, actual }) }
}
