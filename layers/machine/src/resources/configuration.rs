//! `NixosConfiguration`: what a machine is to run, and how it gets there.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CheckFrom, Condition, FileSecretRef, NameRef, Span};

/// What a machine is to run. The fields that every configuration needs are optional only because they were so upstream;
/// a rule of the API server asks for them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nio.homystack.com",
    version = "v1alpha1",
    kind = "NixosConfiguration",
    plural = "nixosconfigurations",
    namespaced,
    status = "NixosConfigurationStatus",
    shortname = "nixconf",
    derive = "PartialEq",
    doc = "A NixOS configuration from a flake in Git, and the machine that is to run it.",
    printcolumn = r#"{"name":"Git Repo","type":"string","jsonPath":".spec.gitRepo"}"#,
    printcolumn = r#"{"name":"Flake","type":"string","jsonPath":".spec.flake"}"#,
    printcolumn = r#"{"name":"Target Machine","type":"string","jsonPath":".status.targetMachine"}"#,
    printcolumn = r#"{"name":"Full Install","type":"boolean","jsonPath":".spec.fullInstall"}"#,
    printcolumn = r#"{"name":"Applied Commit","type":"string","jsonPath":".status.appliedCommit"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.gitRepo) && has(self.flake) && has(self.machineRef)",
     "message": "gitRepo, flake and machineRef are needed: what to build, and for which machine"},
    {"rule": "!has(self.buildOn) || self.buildOn != 'Builder' || has(self.builderRef)",
     "message": "buildOn Builder needs builderRef"},
    {"rule": "!has(self.deletionPolicy) || self.deletionPolicy != 'Apply' || has(self.onRemoveFlake)",
     "message": "deletionPolicy Apply needs onRemoveFlake"},
]))]
pub struct NixosConfigurationSpec {
    /// Address of the Git repository: `https://…`, `ssh://…` or `user@host:path`. Credentials are in `credentialsRef`,
    /// never in the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub git_repo: Option<String>,
    /// Branch, tag or full commit.
    #[serde(rename = "ref", default = "main_branch")]
    #[schemars(length(max = 1024))]
    pub reference: String,
    /// A Secret with `ssh-privatekey` (and `ssh-passphrase`) or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<NameRef>,
    /// Name of the host in the flake's `nixosConfigurations`: `#host`, `.#host` or `host`. The flake itself is
    /// `gitRepo`, `ref` and `configurationSubdir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flake: Option<String>,
    /// What is applied when this object is deleted, written like `flake`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub on_remove_flake: Option<String>,
    /// Directory of the flake in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub configuration_subdir: Option<String>,
    /// Whether the disk of the machine is to be wiped and installed first. That happens at most once.
    #[serde(default)]
    pub full_install: bool,
    /// The machine, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_ref: Option<NameRef>,
    /// Files that are not in the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub additional_files: Vec<AdditionalFile>,
    /// Where the configuration is built.
    #[serde(default)]
    pub build_on: BuildOn,
    /// The Machine of the same namespace that builds when `buildOn` is `Builder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder_ref: Option<NameRef>,
    /// What must hold after a configuration was started on trial; otherwise the machine goes back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub health_checks: Vec<HealthCheck>,
    /// How long the machine waits for the confirmation of a configuration on trial before it goes back by itself.
    #[serde(default = "confirm_timeout")]
    pub confirm_timeout: Span,
    /// What happens when the machine runs something else than what was applied.
    #[serde(default)]
    pub drift_policy: DriftPolicy,
    /// What happens on the machine when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Any text. A changed one allows one more full install of a machine that was installed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reinstall_token: Option<String>,
    /// How often a failed attempt is made again. What is not given is the program's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Nothing is applied while this is set.
    #[serde(default)]
    pub suspend: bool,
}

/// A file that is not in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalFile {
    /// Where it goes: below `configurationSubdir` in the tree that is built, or below `/run/cairn/files` on the machine.
    #[schemars(length(max = 4096))]
    pub path: String,
    /// What is in it.
    pub value_type: FileSource,
    /// The text, with `valueType: Inline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub inline: Option<String>,
    /// The Secret, with `valueType: SecretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<FileSecretRef>,
    /// With `valueType: NixosFacter`; `valueType` alone says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nixos_facter: Option<bool>,
    /// Where it goes. Without it: `Machine` for a Secret, `Store` for everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Owner of the file on the machine; `root` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub owner: Option<String>,
    /// Group of the file on the machine; `root` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
    /// Permissions of the file on the machine, octal; `0400` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), regex(pattern = r"^0?[0-7]{3}$"))]
    pub mode: Option<String>,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FileSource {
    /// The text in `inline`.
    Inline,
    /// A value of a Secret.
    SecretRef,
    /// What is known of the machine's hardware.
    NixosFacter,
}

/// Where a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Delivery {
    /// Below `/run/cairn/files` on the machine, before activation. It is never in a Nix store.
    Machine,
    /// Into the tree that is built: it ends up in Nix stores, where everybody can read it.
    Store,
}

/// Where a configuration is built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BuildOn {
    /// Where Cairn runs.
    #[default]
    Local,
    /// On the machine itself.
    Target,
    /// On the machine of `builderRef`.
    Builder,
}

/// What happens when a machine runs something else than what was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// It is not looked at.
    Ignore,
    /// The condition `Drifted` says so.
    #[default]
    Warn,
    /// The configuration is applied again.
    Correct,
}

/// What happens on the machine when a configuration is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing: it goes on running what it runs.
    Retain,
    /// `onRemoveFlake` is applied; the object stays until that succeeded.
    Apply,
    /// `onRemoveFlake` is applied if there is one and the machine can be reached; if not, an Event says so.
    #[default]
    BestEffort,
}

/// Something that must hold after a configuration was started on trial. Exactly one of `units`, `command`, `http` and
/// `tcp` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.units), has(self.command), has(self.http), has(self.tcp)].exists_one(given, given)",
     "message": "exactly one of units, command, http and tcp is needed"},
]))]
pub struct HealthCheck {
    /// What messages call it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Units that must be active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub units: Option<Vec<String>>,
    /// Program and arguments, run on the machine; must exit with 0. There is no shell in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub command: Option<Vec<String>>,
    /// A request that must be answered well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A port that must accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// How long it may take until it holds.
    #[serde(default = "check_timeout")]
    pub timeout: Span,
}

/// A request that must be answered well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// `http://…`; as the machine sees it unless `from` says otherwise.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The status that is expected; any from 200 to 299 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<u16>,
    /// From where the request is made.
    #[serde(default)]
    pub from: CheckFrom,
}

/// A port that must accept a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// Name or address; the machine itself without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// From where the connection is made.
    #[serde(default)]
    pub from: CheckFrom,
}

/// How often a failed attempt is made again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<u32>,
    /// Pause after the first one; it doubles from one to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Span>,
    /// The longest pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Span>,
}

/// What became of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NixosConfigurationStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the Machine it was applied to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub target_machine: Option<String>,
    /// The commit that was applied and confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub applied_commit: Option<String>,
    /// The store path that was applied and confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub applied_store_path: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_time: Option<Timestamp>,
    /// The commit that `ref` was when it was last looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_commit: Option<String>,
    /// Whether the machine was installed by a full install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_disk_install_completed: Option<bool>,
    /// Written by the upstream operator in the place of `fullDiskInstallCompleted`; read as a trace of an install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_full_install: Option<bool>,
    /// The `reinstallToken` that was last used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub handled_reinstall_token: Option<String>,
    /// Hash over everything that the applied configuration was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub configuration_hash: Option<String>,
    /// Hash over the additional files, contents of Secrets included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub additional_files_hash: Option<String>,
    /// The last deployments, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub history: Vec<Deployment>,
    /// What the machine runs instead of what was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// What is not tried again on this machine until somebody asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub quarantine: Vec<Quarantine>,
    /// The value of the annotation `nio.homystack.com/requestedAt` that was last acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Observations, one for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// One attempt to apply a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id; the same on the machine.
    #[schemars(length(max = 64))]
    pub id: String,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub commit: Option<String>,
    /// What was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub store_path: Option<String>,
    /// Number of the generation in the system profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<DeploymentResult>,
    /// Why, in a sentence; the end of the log after a failed build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// What activation said it would do: units that stop, start, restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub changes: Vec<String>,
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeploymentResult {
    /// It runs and was confirmed.
    Applied,
    /// It was started on trial, and the machine went back.
    RolledBack,
    /// It was never started.
    Failed,
    /// It was given up before it was started.
    Cancelled,
}

/// What a machine runs instead of what was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// What was applied.
    #[schemars(length(max = 512))]
    pub expected: String,
    /// What runs.
    #[schemars(length(max = 512))]
    pub found: String,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What is not tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// What was built.
    #[schemars(length(max = 512))]
    pub store_path: String,
    /// The commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub commit: Option<String>,
    /// Why it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub reason: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

fn main_branch() -> String {
    "main".to_owned()
}

fn confirm_timeout() -> Span {
    Span::seconds(180)
}

fn check_timeout() -> Span {
    Span::seconds(60)
}

impl AdditionalFile {
    /// Where the file goes: what it says, else the machine for a Secret and the tree for everything else.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery.unwrap_or(match self.value_type {
            FileSource::SecretRef => Delivery::Machine,
            FileSource::Inline | FileSource::NixosFacter => Delivery::Store,
        })
    }
}
