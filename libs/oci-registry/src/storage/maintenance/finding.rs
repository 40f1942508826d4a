//! What a check is told, and what it tells.

use std::path::PathBuf;

use serde::Serialize;

use crate::{Digest, RepositoryName, Tag};

/// What a check does.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Put right what can be put right; otherwise nothing is changed.
    pub repair: bool,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckProgress {
    /// Blobs that have been read.
    pub blobs: u64,
    /// Blobs that were there at its start.
    pub blobs_total: u64,
    /// Bytes that have been read.
    pub bytes: u64,
    /// Bytes that were there at its start.
    pub bytes_total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
    /// Blobs and manifests that were read and hashed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories whose records were looked at.
    pub repositories: u64,
    /// Those records: holds, manifests, referrers and tags.
    pub records: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// Where a record is; `None` for content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// The tag, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The content that is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The file, relative to the root.
    pub path: PathBuf,
    /// Whether it has been put right. What could not be is healed by pushing the content again.
    pub repaired: bool,
}

/// Kinds of findings, and what repairs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Content is not what its name says. It goes to quarantine; a good copy from there takes its place.
    DamagedContent,
    /// A file cannot be read. Left alone: the disk may give it back another time.
    Unreadable,
    /// A repository holds a blob that is not there. It is put back from quarantine, or the hold is removed.
    HoldWithoutContent,
    /// A repository holds a manifest that is not there. It is put back from quarantine, or the record is removed.
    ManifestWithoutContent,
    /// A manifest names content that the repository does not hold. A blob that is there, of the size that the manifest
    /// says, is held again; what is not there has to be pushed again.
    MissingReference,
    /// A record of a manifest or tag cannot be read. A manifest's is written anew from its bytes, a tag is removed.
    DamagedRecord,
    /// A manifest with a subject is not among that one's referrers. Its record is written.
    MissingReferrer,
    /// A manifest is among the referrers of what it is not about. The record is removed.
    WrongReferrer,
    /// A tag points to a manifest that the repository does not hold. It is removed.
    TagToNowhere,
    /// The registry has not made this file. It is left alone.
    UnknownFile,
}
