//! What the API shows: the shapes of design 021 with more beside them. The command line reads the same types.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{ArtifactRef, Event, FirstBoot, Job, JobId, Phase, Server, ServerSpec, Status};

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub job_id: JobId,
    /// State: one of five.
    pub status: Status,
    /// The server.
    pub server_serial: String,
    /// Place inside the state.
    pub phase: Phase,
    /// Why it stands there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// succeeded, failed or cancelled; stays when the job is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Key of the error taxonomy; stays when the job is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Stable code of the failure; `cairn explain CODE` tells more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_code: Option<String>,
    /// The failure in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_detail: Option<String>,
    /// Counts requeues, from 1.
    pub attempt: u32,
    /// Target of the recipe.
    pub task_target: String,
    /// What is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
    /// Hash of the task ISO, once built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_iso_sha256: Option<String>,
    /// Truths beside the state.
    pub conditions: Vec<Condition>,
    /// Power state when the BMC last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<String>,
    /// When the BMC last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_seen_at: Option<Timestamp>,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When its state or phase last changed.
    pub last_update: Timestamp,
    /// Warnings about the recipe; only in the answer to its POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Its history, oldest first; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// A truth about a job beside its state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Condition {
    /// Its name, for example `FirstBoot`.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// One word why.
    pub reason: String,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Timestamp>,
    /// Until when it is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

impl JobView {
    /// The view of a job, without its events.
    pub fn of(job: &Job) -> Self {
        let status = match job.first_boot {
            FirstBoot::Reported => "True",
            FirstBoot::Overdue => "False",
            FirstBoot::NotStarted | FirstBoot::Awaited | FirstBoot::Unsupported => "Unknown",
        };
        Self {
            job_id: job.id,
            status: job.status,
            server_serial: job.serial.to_string(),
            phase: job.phase,
            reason: job.reason.clone(),
            outcome: job.outcome.map(|outcome| outcome.to_string()),
            failed_step: job.failure.as_ref().map(|failure| failure.step.clone()),
            failed_code: job.failure.as_ref().map(|failure| failure.code.clone()),
            failed_detail: job.failure.as_ref().map(|failure| failure.detail.clone()),
            attempt: job.attempt,
            task_target: job.task_target.clone(),
            artifact: job.artifact.clone(),
            task_iso_sha256: job.task_iso.as_ref().map(|iso| iso.sha256.clone()),
            conditions: vec![Condition {
                kind: "FirstBoot".to_owned(),
                status: status.to_owned(),
                reason: job.first_boot.to_string(),
                last_transition: job.first_boot_at,
                deadline: job.first_boot_deadline,
            }],
            power: job.power.clone(),
            power_seen_at: job.power_seen_at,
            created_at: job.created_at,
            last_update: job.updated_at,
            warnings: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The condition of this name.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Nothing about it changes any more: it is complete and its first boot is not awaited.
    pub fn is_settled(&self) -> bool {
        self.status == Status::Complete
            && self.condition("FirstBoot").is_none_or(|condition| condition.reason != FirstBoot::Awaited.as_str())
    }
}

/// A page of jobs.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// Goes into `cursor` of the next request; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A server. The password is never shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerView {
    /// Its serial number.
    pub serial: String,
    /// What was asked for.
    pub spec: ServerSpec,
    /// What is.
    pub status: ServerStatus,
    /// Counts changes.
    pub generation: i64,
    /// Free words.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What is known of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Vendor as its BMC told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Power state when its BMC last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<String>,
    /// When its BMC last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

impl From<Server> for ServerView {
    fn from(server: Server) -> Self {
        Self {
            serial: server.serial.to_string(),
            spec: server.spec,
            status: ServerStatus { vendor: server.detected_vendor, power: server.power, last_seen: server.last_seen },
            generation: server.generation,
            labels: server.labels,
            created_at: server.created_at,
            updated_at: server.updated_at,
        }
    }
}

/// A page of servers.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerList {
    /// In order of their serial numbers.
    pub servers: Vec<ServerView>,
    /// Goes into `cursor` of the next request; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
