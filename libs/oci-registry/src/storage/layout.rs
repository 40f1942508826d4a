//! Where things lie below the root.
//!
//! ```text
//! oci-layout  index.json  lock
//! blobs/sha256/<hex>                               every blob and manifest, once
//! repositories/<name>/_blobs/sha256/<hex>          empty: the repository holds this blob
//! repositories/<name>/_manifests/sha256/<hex>      descriptor: the repository holds this manifest, and its media type
//! repositories/<name>/_refs/<tag>                  descriptor of what the tag points to
//! repositories/<name>/_uploads/<id>                the bytes of an upload session so far
//! tmp/                                             unfinished files; emptied at start
//! ```
//! A part of a repository's name never begins with `_`, so `a` and `a/refs` do not get into each other's way.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::{Digest, RepositoryName, Tag};

pub(super) const BLOBS: &str = "_blobs";
pub(super) const MANIFESTS: &str = "_manifests";
pub(super) const REFS: &str = "_refs";
pub(super) const UPLOADS: &str = "_uploads";

/// Paths below one root.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().name()).join(digest.hex())
    }

    /// A path for an unfinished file that nobody else uses.
    pub(super) fn temporary(&self) -> PathBuf {
        self.temporaries().join(Uuid::new_v4().to_string())
    }

    pub(super) fn temporaries(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.repositories().join(name.as_str())
    }

    pub(super) fn held_blob(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join(BLOBS).join(digest.algorithm().name()).join(digest.hex())
    }

    pub(super) fn held_manifest(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join(MANIFESTS).join(digest.algorithm().name()).join(digest.hex())
    }

    pub(super) fn refs(&self, name: &RepositoryName) -> PathBuf {
        self.repository(name).join(REFS)
    }

    pub(super) fn tag(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.refs(name).join(tag.as_str())
    }

    pub(super) fn upload(&self, name: &RepositoryName, id: Uuid) -> PathBuf {
        self.repository(name).join(UPLOADS).join(id.to_string())
    }
}
