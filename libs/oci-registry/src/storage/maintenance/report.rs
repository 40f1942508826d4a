//! What a collection is told, and what it tells.

use std::time::Duration;

use serde::Serialize;

use super::plan::DigestOnly;
use super::quarantine::QuarantinedRun;
use crate::{Digest, RepositoryName};

/// What a collection may take out.
#[derive(Debug, Clone, Default)]
pub struct CollectOptions {
    /// What was pushed, mounted, asked for or lost its tag more recently than this stays. Also for how long what was
    /// taken out can be put back. Leases are renewed once a minute, and a client may take hours between its first
    /// blob and its manifest: with a grace of less than that, a push that is under way may have to begin again. What
    /// is complete and reached is safe with any.
    pub grace: Duration,
    /// What becomes of manifests that were only ever pushed by their digest.
    pub digest_only: DigestOnly,
    /// Tell what would go, and change nothing.
    pub dry_run: bool,
    /// Manifests that are needed whatever tags say.
    pub in_use: Vec<(RepositoryName, Digest)>,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CollectReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Number of the run that [`super::super::Storage::restore`] can put back; `None` when nothing was taken out.
    pub run: Option<u64>,
    /// Manifests that repositories no longer hold.
    pub manifests: u64,
    /// Blobs that repositories no longer hold, counted for each repository.
    pub holds: u64,
    /// Blobs and manifests whose bytes went to quarantine.
    pub blobs: u64,
    /// Those bytes.
    pub bytes: u64,
    /// Everything of the above.
    pub quarantined: Vec<TakenOut>,
    /// Repositories that were left as they are because something in them is damaged or cannot be read; see [`super::super::Storage::check`].
    pub skipped: Vec<Skipped>,
    /// Earlier runs whose content was removed for good.
    pub expired_runs: Vec<QuarantinedRun>,
    /// Bytes that lie in quarantine now.
    pub quarantine_bytes: u64,
}

/// Something that was taken out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TakenOut {
    /// What it was.
    pub kind: Kind,
    /// Where it was held; `None` for the bytes themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// Its digest.
    pub digest: Digest,
    /// Size in bytes, of the bytes themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Kinds of what is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// That a repository holds a manifest.
    Manifest,
    /// That a repository holds a blob.
    Hold,
    /// The bytes of a blob or manifest.
    Blob,
}

/// A repository of which nothing went, for it cannot be known what is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The repository.
    pub repository: RepositoryName,
    /// What is damaged or cannot be read.
    pub reason: String,
}

impl CollectReport {
    pub(super) fn note(&mut self, kind: Kind, repository: Option<&RepositoryName>, digest: &Digest, size: Option<u64>) {
        match kind {
            Kind::Manifest => self.manifests += 1,
            Kind::Hold => self.holds += 1,
            Kind::Blob => self.blobs += 1,
        }
        self.bytes += size.unwrap_or(0);
        self.quarantined.push(TakenOut { kind, repository: repository.cloned(), digest: digest.clone(), size });
    }
}
