//! `callback.json`: what the maintenance OS needs to talk to the controller about one job.

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

/// Where the maintenance OS reports to and what it may pull. Holds secrets: the file is never world-readable.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The job; also the GUID of the disk's partition table, so that a later run can tell whose layout it finds.
    pub job_id: Uuid,
    /// Counts from 1; a requeue counts on and makes older tokens worthless.
    pub attempt: u32,
    /// Serial number of the server that the job was made for.
    pub server_serial: String,
    /// Terminal report: `POST`, once, success or failed.
    pub webhook_url: Url,
    /// Step reports: `POST`, best effort.
    pub progress_url: Url,
    /// `POST` from the installed OS, once it has booted from its own disk.
    pub first_boot_url: Url,
    /// Goes into the header `X-Webhook-Secret` of webhook and progress reports.
    pub webhook_token: String,
    /// Goes into the header `X-Webhook-Secret` of the first-boot report.
    pub first_boot_token: String,
    /// What is installed; absent for targets that install no artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

/// An artifact in a registry, fixed by its digest.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Registry as the maintenance OS reaches it, for example `http://192.0.2.1:8080`.
    pub registry: Url,
    /// Repository, for example `os-images/debian`.
    pub repository: String,
    /// Digest of the manifest, `sha256:…`.
    pub digest: String,
    /// Pull-only credentials, sent as HTTP Basic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PullCredentials>,
    /// Certificate authorities of a registry with its own, in PEM; those of the system are not asked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// Credentials that may pull and nothing else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullCredentials {
    /// User name.
    pub username: String,
    /// Token derived from the job and its attempt; for a registry elsewhere what its record says.
    pub password: String,
}

/// Body of a step report. Losing one changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// The systemd unit, for example `partition.service`.
    pub unit: String,
    /// What happened to it.
    pub event: ProgressEvent,
    /// One line for people, for example how many bytes were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes done so far, where the step can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<u64>,
    /// Bytes in all, where the step can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

/// What a step report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgressEvent {
    /// The step began.
    Started,
    /// The step is on its way.
    Running,
    /// The step ended well.
    Finished,
    /// The step ended badly; the webhook says so too.
    Failed,
}

/// Body of the terminal report (the webhook).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `success` or `failed`.
    pub status: ReportStatus,
    /// The unit that failed; required when `status` is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Stays the same over retries of one report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// The job the report is about; a report of another job is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<Uuid>,
    /// The target that ran, for example `install-linux.target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_target: Option<String>,
    /// Version of the dispatcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher_version: Option<String>,
    /// `$id` of the schema that the recipe was checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<String>,
    /// When the work began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Why it failed, one line for people, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Stable code of the failure, for example `disk_hint_ambiguous`; names a page in docs/errors/.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the installed system is able to report its first boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_boot_reporter: Option<bool>,
}

/// How the work on the machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportStatus {
    /// Every step ended well.
    Success,
    /// A step failed.
    Failed,
}

/// Codes that a [`Report`] can hold; each has a page in docs/errors/.
pub const FAILURE_CODES: &[&str] = &[
    "medium_missing",
    "medium_ambiguous",
    "medium_mount_failed",
    "medium_unreadable",
    "schema_unusable",
    "recipe_unreadable",
    "recipe_invalid",
    "target_not_supported",
    "state_unwritable",
    "target_start_failed",
    "not_privileged",
    "serial_unknown",
    "network_invalid",
    "network_no_interface",
    "network_no_link",
    "network_no_address",
    "disks_unreadable",
    "partition_layout_invalid",
    "partition_failed",
    "format_failed",
    "disk_not_prepared",
    "mount_failed",
    "artifact_missing",
    "artifact_refused",
    "artifact_unreachable",
    "artifact_digest_mismatch",
    "artifact_unsupported",
    "unpack_failed",
    "bootloader_missing",
    "bootloader_failed",
    "config_drive_failed",
    "disk_hint_ambiguous",
    "disk_hint_no_match",
    "disk_too_small",
    "unit_failed",
    "internal_error",
];
