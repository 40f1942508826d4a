//! Manifests and tags.

use bytes::Bytes;

use super::{Inner, Storage, StorageError, files};
use crate::{Descriptor, Digest, Index, Manifest, RepositoryName, Selector, Tag, media_type};

/// What a manifest needs its repository to hold.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    Blobs(Vec<Descriptor>),
    Manifests(Vec<Descriptor>),
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

    /// Stores a manifest under its digest and, when the selector is a tag, points the tag to it.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`], [`StorageError::ManifestInvalid`], [`StorageError::DigestMismatch`],
    /// [`StorageError::ReferencesUnknown`]; nothing is kept then.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Descriptor, StorageError> {
        let limit = self.inner.limits.max_manifest_size;
        if bytes.len() as u64 > limit {
            return Err(StorageError::TooLarge { limit });
        }
        let (repository, selector, media_type) = (repository.clone(), selector.clone(), media_type.to_owned());
        self.run(move |inner| {
            let needs = needs_of(&media_type, &bytes)?;
            let digest = match &selector {
                Selector::Digest(expected) => checked(expected, &bytes)?,
                Selector::Tag(_) => Digest::sha256_of(&bytes),
            };
            let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
            let _committing = inner.committing();
            inner.check_needs(&repository, needs)?;
            inner.write_blob(&descriptor.digest, &bytes)?;
            inner.write_record(&inner.layout.held_manifest(&repository, &descriptor.digest), &descriptor)?;
            if let Selector::Tag(tag) = &selector {
                inner.write_record(&inner.layout.tag(&repository, tag), &descriptor)?;
            }
            Ok(descriptor)
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
            let _committing = inner.committing();
            match &selector {
                Selector::Tag(tag) => files::remove(&inner.layout.tag(&repository, tag)),
                Selector::Digest(digest) => {
                    // Tags first: a tag never points to a manifest that the repository does not hold.
                    for tag in inner.tags(&repository)? {
                        let path = inner.layout.tag(&repository, &tag);
                        if inner.read_record(&path)?.is_some_and(|record| record.digest == *digest) {
                            files::remove(&path)?;
                        }
                    }
                    files::remove(&inner.layout.held_manifest(&repository, digest))
                }
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
        self.read_record(&match selector {
            Selector::Tag(tag) => self.layout.tag(repository, tag),
            Selector::Digest(digest) => self.layout.held_manifest(repository, digest),
        })
    }

    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, StorageError> {
        let entries = files::list(&self.layout.refs(repository))?;
        let mut tags: Vec<Tag> = entries.into_iter().filter_map(|(name, _)| name.parse().ok()).collect();
        tags.sort();
        Ok(tags)
    }

    fn check_needs(&self, repository: &RepositoryName, needs: Needs) -> Result<(), StorageError> {
        let (descriptors, are_blobs) = match needs {
            Needs::Blobs(descriptors) => (descriptors, true),
            Needs::Manifests(descriptors) => (descriptors, false),
        };
        let mut missing = Vec::new();
        for needed in descriptors {
            let size = if are_blobs {
                self.held_blob_size(repository, &needed.digest)?
            } else {
                self.read_record(&self.layout.held_manifest(repository, &needed.digest))?.map(|record| record.size)
            };
            match size {
                None => missing.push(needed.digest),
                Some(size) if size != needed.size => {
                    let reason = format!("{} has {size} bytes, the manifest says {}", needed.digest, needed.size);
                    return Err(StorageError::ManifestInvalid(reason));
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(StorageError::ReferencesUnknown(missing)) }
    }

    fn read_record(&self, path: &std::path::Path) -> Result<Option<Descriptor>, StorageError> {
        let Some(bytes) = files::read(path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StorageError::Record { path: path.to_owned(), source })
    }

    fn write_record(&self, path: &std::path::Path, descriptor: &Descriptor) -> Result<(), StorageError> {
        let bytes =
            serde_json::to_vec(descriptor).map_err(|source| StorageError::Record { path: path.to_owned(), source })?;
        if let Some(directory) = path.parent() {
            files::create_directory(directory)?;
        }
        let temporary = self.layout.temporary();
        files::write_new(&temporary, &bytes)?;
        files::put_in_place(&temporary, path)
    }
}

fn checked(expected: &Digest, bytes: &[u8]) -> Result<Digest, StorageError> {
    let actual = Digest::of(expected.algorithm(), bytes);
    if actual == *expected {
        Ok(actual)
    } else {
        Err(StorageError::DigestMismatch { expected: expected.clone(), actual })
    }
}

/// Reads what the manifest needs. Content with `urls` may live elsewhere and is not asked for.
fn needs_of(media_type: &str, bytes: &[u8]) -> Result<Needs, StorageError> {
    let invalid = |error: serde_json::Error| StorageError::ManifestInvalid(error.to_string());
    let (declared, version, needs) = match media_type {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(invalid)?;
            let blobs =
                std::iter::once(manifest.config).chain(manifest.layers).filter(|blob| blob.urls.is_empty()).collect();
            (manifest.media_type, manifest.schema_version, Needs::Blobs(blobs))
        }
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
            let index: Index = serde_json::from_slice(bytes).map_err(invalid)?;
            let manifests = index.manifests.into_iter().filter(|manifest| manifest.urls.is_empty()).collect();
            (index.media_type, index.schema_version, Needs::Manifests(manifests))
        }
        other => return Err(StorageError::ManifestInvalid(format!("media type {other:?} is not known"))),
    };
    if version != 2 {
        return Err(StorageError::ManifestInvalid(format!("schemaVersion is {version}, not 2")));
    }
    match declared {
        Some(declared) if declared != media_type => {
            Err(StorageError::ManifestInvalid(format!("it calls itself {declared:?} but was sent as {media_type:?}")))
        }
        _ => Ok(needs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(media_type: &str, text: &str) -> String {
        match needs_of(media_type, text.as_bytes()) {
            Err(StorageError::ManifestInvalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_invalid_manifest_is_refused_with_its_reason() {
        let descriptor = serde_json::to_string(&Descriptor::empty()).unwrap();
        let manifest = |version: u32, kind: &str| {
            format!(r#"{{"schemaVersion":{version},"mediaType":"{kind}","config":{descriptor},"layers":[]}}"#)
        };
        assert!(needs_of(media_type::OCI_MANIFEST, manifest(2, media_type::OCI_MANIFEST).as_bytes()).is_ok());
        assert!(reason(media_type::OCI_MANIFEST, &manifest(1, media_type::OCI_MANIFEST)).contains("schemaVersion"));
        assert!(reason(media_type::OCI_MANIFEST, &manifest(2, media_type::DOCKER_MANIFEST)).contains("calls itself"));
        assert!(reason("text/plain", "{}").contains("not known"));
        assert!(reason(media_type::OCI_INDEX, "{}").contains("schemaVersion"));
        assert!(reason(media_type::OCI_MANIFEST, "not json").contains("expected"));
        assert!(
            reason(
                media_type::OCI_INDEX,
                r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:../..","size":1}]}"#
            )
            .contains("digest")
        );
    }
}
