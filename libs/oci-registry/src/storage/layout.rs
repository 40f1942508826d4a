//! Where things lie below the root.
//!
//! ```text
//! oci-layout  index.json  lock
//! referrers                                        empty: every manifest with a subject has its referrer record
//! blobs/<alg>/<hex>                                every blob and manifest, once
//! repositories/<name>/_blobs/<alg>/<hex>           empty: the repository holds this blob
//! repositories/<name>/_manifests/<alg>/<hex>       descriptor: the repository holds this manifest, and its media type
//! repositories/<name>/_referrers/<alg>/<hex>/<alg>-<hex>
//!                                                  descriptor of a manifest (last part) whose subject is the first
//! repositories/<name>/_refs/<tag>                  descriptor of what the tag points to
//! repositories/<name>/_uploads/<id>                the bytes of an upload session so far
//! repositories/<name>/_cached                      empty: a cache of another registry's, where references may be absent
//! tmp/                                             unfinished files; emptied at start
//! quarantine/<run>/                                what a collection took out, at the paths above; removed by a later one
//! quarantine/<run>/damaged/<alg>/<hex>             what a check took out because it is not what its name says
//! ```
//! `<alg>` is sha256 or sha512. The record of a manifest says `"adopted": true` once a tag has pointed to it or an
//! index has listed it. A record's time of modification is a lease: it was made, or somebody was told that it is
//! there, at most a minute after that; what is collected is older.
//!
//! A part of a repository's name never begins with `_`, so `a` and `a/refs` do not get into each other's way.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::{Digest, RepositoryName, Tag};

pub(super) const BLOBS: &str = "_blobs";
pub(super) const MANIFESTS: &str = "_manifests";
pub(super) const REFERRERS: &str = "_referrers";
pub(super) const REFS: &str = "_refs";
pub(super) const UPLOADS: &str = "_uploads";
pub(super) const CACHED: &str = "_cached";

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

    pub(super) fn referrers_complete(&self) -> PathBuf {
        self.root.join("referrers")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
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

    /// Directory of the records of what refers to `subject`.
    pub(super) fn referrers(&self, name: &RepositoryName, subject: &Digest) -> PathBuf {
        self.repository(name).join(REFERRERS).join(subject.algorithm().name()).join(subject.hex())
    }

    pub(super) fn referrer(&self, name: &RepositoryName, subject: &Digest, digest: &Digest) -> PathBuf {
        self.referrers(name, subject).join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
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

    /// Marks a repository as a cache of another registry's.
    pub(super) fn cached(&self, name: &RepositoryName) -> PathBuf {
        self.repository(name).join(CACHED)
    }
}
