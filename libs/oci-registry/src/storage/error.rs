//! What can go wrong on disk, and what storage refuses.

use std::io;
use std::path::PathBuf;

use crate::{Digest, Tag};

/// Why storage could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A file or directory could not be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// What was to be made.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Bytes could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Bytes or a directory entry could not be brought to the disk.
    #[error("cannot sync {}", path.display())]
    Sync {
        /// The file or directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A finished file could not be put in its place.
    #[error("cannot rename {} to its place", path.display())]
    Rename {
        /// Where it was to go.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Something could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A directory could not be listed.
    #[error("cannot list {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("{} is in use by another registry process", path.display())]
    Locked {
        /// The root directory.
        path: PathBuf,
    },
    /// The directory is an image layout of a version that is not known here.
    #[error("{} is not an OCI image layout of version 1.0.0", path.display())]
    Layout {
        /// The file `oci-layout`.
        path: PathBuf,
    },
    /// A record was changed by somebody else.
    #[error("{} is not a record of this registry", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A symbolic link lies among the repositories.
    #[error("{} is a symbolic link: which content is held behind it is not known, so nothing is collected", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Content on disk is not what its name says.
    #[error("{} does not have the content that its name promises", path.display())]
    Corrupt {
        /// The blob.
        path: PathBuf,
    },
    /// No collection or check of this number has taken anything out that is still there.
    #[error("there is no run {run} in quarantine, {}", told(there))]
    RunUnknown {
        /// Seconds since 1970 at its start.
        run: u64,
        /// Those that are there.
        there: Vec<u64>,
    },
    /// No upload session of this id in this repository.
    #[error("no such upload")]
    UploadUnknown,
    /// A chunk does not begin where the session stands.
    #[error("the upload stands at byte {at}, not at {from}")]
    UploadOffset {
        /// Bytes that are there.
        at: u64,
        /// First byte of the chunk.
        from: u64,
    },
    /// A chunk is longer or shorter than it said.
    #[error("the chunk has {got} bytes, {announced} were announced")]
    ChunkLength {
        /// Bytes that the request announced.
        announced: u64,
        /// Bytes that came; at least this many where it was cut off.
        got: u64,
    },
    /// The program is going down and took the work along.
    #[error("the registry is stopping")]
    Stopping,
    /// A later request for the same session has taken over.
    #[error("a later request has taken this upload over")]
    UploadSuperseded,
    /// The client's bytes stopped coming.
    #[error("the body did not arrive in full")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More bytes than a blob may have.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The content does not have the digest that was announced.
    #[error("the content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// As announced.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// Fewer bytes are free than [`super::Limits::min_free`]; nothing more is taken in.
    #[error("{free} bytes are free on the registry's disk, {min_free} are kept free")]
    NearlyFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to stay free.
        min_free: u64,
    },
    /// Tags stay where they point to ([`super::Limits::immutable_tags`]).
    #[error("tag {tag} points to {digest} and may not be moved")]
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Digest,
    },
    /// The tag or manifest is not what the client expected it to be.
    #[error("it was changed meanwhile")]
    ConditionFailed,
    /// The manifest is not acceptable.
    #[error("invalid manifest: {0}")]
    ManifestInvalid(String),
    /// The manifest names content that the repository does not hold.
    #[error("the manifest names content that the repository does not hold")]
    ReferencesUnknown(Vec<Digest>),
}

impl StorageError {
    /// Whether the disk, or the user's share of it, is full, or so full that nothing more is taken in.
    pub fn is_full(&self) -> bool {
        if matches!(self, Self::NearlyFull { .. }) {
            return true;
        }
        let (Self::Create { source, .. }
        | Self::Write { source, .. }
        | Self::Sync { source, .. }
        | Self::Rename { source, .. }) = self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the content is at fault and not the disk.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::DigestMismatch { .. } | Self::ManifestInvalid(_))
    }
}

/// Which runs there are, the latest first, as the end of a sentence.
fn told(runs: &[u64]) -> String {
    let latest: Vec<String> = runs.iter().take(5).map(u64::to_string).collect();
    match runs.len().saturating_sub(latest.len()) {
        _ if latest.is_empty() => "nor any other".to_owned(),
        0 => format!("only {}", latest.join(", ")),
        more => format!("only {} and {more} earlier ones", latest.join(", ")),
    }
}
