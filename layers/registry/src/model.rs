//! What is recorded and what is told about a registry: the rows, and the shapes of the API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who did what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub time: Timestamp,
    /// Who; empty when the request was refused before that was known, `retention` for the daemon itself.
    pub user: String,
    /// Address of the client; empty for the daemon itself.
    pub client: String,
    /// What: one of `oci_registry::server::EventAction` or [`RunKind`] in words, or `read_only`.
    pub action: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Tag or digest as asked for; for a mount, the other repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A page of the record, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditPage {
    /// Entries.
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Work on the whole registry, of which there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// What nothing refers to goes to quarantine.
    Collect,
    /// It comes back from there.
    Restore,
    /// Old tags go.
    Retention,
    /// Everything is read and compared with its digest.
    Check,
}

impl RunKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Collect, Self::Restore, Self::Retention, Self::Check];

    /// The word in rows, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Restore => "restore",
            Self::Retention => "retention",
            Self::Check => "check",
        }
    }
}

/// How such work ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunView {
    /// What it was.
    pub kind: String,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// `done` or `failed`.
    pub outcome: String,
    /// Its report, or why it failed.
    pub detail: serde_json::Value,
}

/// How the registry is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    /// What is stored.
    pub usage: UsageView,
    /// The disk it lies on.
    pub disk: DiskView,
    /// Nobody may push or delete.
    pub read_only: bool,
    /// How clients log in: `open`, `basic` or `token`.
    pub login: String,
    /// Requests that are sending a blob, the longest running first.
    pub uploads: Vec<UploadView>,
    /// Why it should not be given more work now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturation: Option<SaturationView>,
    /// What is being done to the whole registry now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// The last run of each kind.
    pub last_runs: Vec<RunView>,
}

/// What is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Blobs, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes in quarantine.
    pub quarantine_bytes: u64,
}

/// The disk that a registry lies on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that pushes leave free.
    pub min_free: u64,
}

/// A request that is sending a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadView {
    /// Where to.
    pub repository: String,
    /// The session.
    pub id: String,
    /// Who.
    pub user: String,
    /// Bytes so far.
    pub bytes: u64,
    /// For so many seconds.
    pub seconds: u64,
}

/// Why a registry should not be given more work now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaturationView {
    /// `nearly_full`, `uploads_waiting` or `slow_writes`.
    pub reason: String,
    /// The same in words.
    pub detail: String,
}

/// Repositories with their tags.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RepositoryList {
    /// In order of their names.
    pub repositories: Vec<RepositoryView>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RepositoryView {
    /// Its name.
    pub name: String,
    /// Its tags, sorted; without those whose records cannot be read.
    pub tags: Vec<TagView>,
    /// What of it cannot be read; absent where all is well. `cairn registry fsck` says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// A tag and what it points to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TagView {
    /// The tag.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Media type of its manifest.
    pub media_type: String,
    /// Size of its manifest in bytes.
    pub size: u64,
}

/// What stands on the switch for pushes and deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOnlyView {
    /// Nobody may push or delete.
    pub read_only: bool,
}

/// A collection or retention that may be tried first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is to come back from quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreOrder {
    /// Of this run, in Unix seconds; of every run when absent.
    #[serde(default)]
    pub run: Option<u64>,
}

/// How a check goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckOrder {
    /// Mend what can be mended.
    #[serde(default)]
    pub repair: bool,
}

/// What takes room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageReport {
    /// In all.
    pub usage: UsageView,
    /// By repository, the largest first. What several hold is counted in each.
    pub repositories: Vec<RepositoryUsageView>,
    /// The largest blobs.
    pub largest: Vec<BlobView>,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryUsageView {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: u64,
    /// Its manifests.
    pub manifests: u64,
    /// Its blobs, without manifests.
    pub blobs: u64,
    /// Bytes of manifests and blobs.
    pub bytes: u64,
    /// Bytes of those that no other repository holds.
    pub own_bytes: u64,
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Who holds it.
    pub repositories: Vec<String>,
    /// Whether a manifest names it.
    pub referenced: bool,
}
