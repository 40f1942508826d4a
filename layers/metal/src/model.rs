//! What the metal layer knows: servers, jobs and their states. Plain data.

use std::fmt;
use std::str::FromStr;

use cairn_core::typed_id;
use jiff::Timestamp;
use recipe::network::Network;
use serde::{Deserialize, Serialize};
use url::Url;

typed_id!(
    /// One run of a recipe on one server.
    JobId,
    "job"
);

/// Serial number of a server, as its BMC and its firmware report it: 1 to 64 letters, digits, `.`, `_`, `:` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Serial(String);

/// The text is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a serial number: 1 to 64 letters, digits, '.', '_', ':' or '-' were expected, the first a letter or digit"
)]
pub struct InvalidSerial(pub String);

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if (1..=64).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSerial(text.to_owned()))
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serial {
    /// The serial number as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Purpose under which the password of this server's BMC is sealed: it is of use in one record only.
    pub(crate) fn password_purpose(&self) -> String {
        format!("metal bmc password {}", self.0)
    }
}

/// How the certificate of a BMC is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", deny_unknown_fields)]
pub enum BmcTls {
    /// Against the system's certificate authorities.
    #[default]
    System,
    /// Against these certificate authorities (PEM) and no others.
    Ca {
        /// One or more certificates.
        pem: String,
    },
    /// By the SHA-256 of the certificate itself, whatever its name and dates say.
    Pin {
        /// 64 hex digits; colons are allowed.
        sha256: String,
    },
    /// Not at all. Whoever is on the way can read the password.
    Insecure,
}

/// Which virtual media slots a job uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slots {
    /// Two when the BMC has two CD slots, one otherwise.
    #[default]
    Auto,
    /// One medium that holds the maintenance OS and the task.
    One,
    /// The maintenance OS in the first slot, the task in the second.
    Two,
}

/// Boot mode that is asked for together with the boot override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootMode {
    /// UEFI.
    #[serde(rename = "UEFI", alias = "uefi")]
    Uefi,
    /// Legacy BIOS.
    #[serde(rename = "Legacy", alias = "legacy", alias = "bios", alias = "BIOS")]
    Legacy,
}

/// What an operator says about a server's BMC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// `https://host[:port]`; a bare host means https.
    pub address: String,
    /// Account with the right to virtual media, boot override and power.
    pub username: String,
    /// Judgement of the BMC's certificate.
    #[serde(default)]
    pub tls: BmcTls,
    /// Id, UUID or serial of the system behind a BMC that manages several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

impl BmcSpec {
    /// The URL of a BMC. A bare host means https.
    pub(crate) fn url_of(address: &str) -> Result<Url, String> {
        let text = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let url = Url::parse(&text).map_err(|problem| format!("{address:?} is no address: {problem}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(format!("{address:?} is no address: https://host[:port] was expected"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials do not belong into the address".to_owned());
        }
        Ok(url)
    }

    /// Whether both may mean the same machine: one BMC, and not two different systems of it.
    pub(crate) fn may_be_same(&self, other: &Self) -> bool {
        let same_bmc = Self::url_of(&self.address).ok() == Self::url_of(&other.address).ok();
        let same_system = match (&self.system, &other.system) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        same_bmc && same_system
    }
}

/// What an operator says about a server. The BMC's password is kept apart, encrypted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// How the BMC is reached.
    pub bmc: BmcSpec,
    /// Quirk profile; found out when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Network of the maintenance OS; DHCP on every interface when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What differs from the controller's settings.
    #[serde(default)]
    pub overrides: Overrides,
}

/// Settings of the controller that differ for one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Where this server's BMC fetches media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_url: Option<Url>,
    /// Where this server's maintenance OS finds webhook and registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<Url>,
    /// Use of the virtual media slots.
    #[serde(default)]
    pub slots: Slots,
    /// Boot mode to ask for; the machine's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
}

/// A server as stored.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its serial number.
    pub serial: Serial,
    /// What the operator asked for.
    pub spec: ServerSpec,
    /// Password of the BMC account, sealed with the instance key.
    pub sealed_password: String,
    /// Free words for people and scripts.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Counts changes of the spec.
    pub generation: i64,
    /// Vendor as the BMC told it.
    pub detected_vendor: Option<String>,
    /// When the BMC last answered.
    pub last_seen: Option<Timestamp>,
    /// Power state when it last answered.
    pub power: Option<String>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

/// The five states of a job (runbook, design 021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for a worker.
    Queued,
    /// Somebody works on it, or the machine does.
    Provisioning,
    /// The machine reported success; clean-up follows.
    Succeeded,
    /// It went wrong or was cancelled; clean-up follows.
    Failed,
    /// Cleaned up. How it went is in `outcome`.
    Complete,
}

impl Status {
    /// All of them, in order of a job's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Provisioning, Self::Succeeded, Self::Failed, Self::Complete];
}

/// Where a job stands inside its state. See [`crate::plan`] for the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In the queue.
    Waiting,
    /// The task ISO is being built.
    BuildMedia,
    /// The BMC is being looked at.
    Discover,
    /// Media are being inserted.
    Mount,
    /// The one-time boot from CD is being set.
    BootOverride,
    /// The machine is being switched off.
    PowerOff,
    /// The machine is being switched on and boots the maintenance OS.
    PowerOn,
    /// The maintenance OS works; its report is awaited.
    AwaitReport,
    /// The maintenance OS switches the machine off.
    AwaitOff,
    /// Media are being ejected.
    Eject,
    /// The boot override is being cleared.
    ClearOverride,
    /// The machine is being switched on from its own disk.
    Restart,
    /// Nothing is left to do.
    Finished,
}

impl Phase {
    /// Those in which something is done or waited for, in order.
    pub const TIMED: [Self; 11] = [
        Self::BuildMedia,
        Self::Discover,
        Self::Mount,
        Self::BootOverride,
        Self::PowerOff,
        Self::PowerOn,
        Self::AwaitReport,
        Self::AwaitOff,
        Self::Eject,
        Self::ClearOverride,
        Self::Restart,
    ];
}

/// How a job ended; it stays when the job is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobOutcome {
    /// Every step on the machine ended well.
    Succeeded,
    /// A step failed.
    Failed,
    /// An operator ended it.
    Cancelled,
}

/// Whether the installed system has reported from its own disk (condition `FirstBoot`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstBoot {
    /// Not the time yet: the job has not succeeded, or it failed.
    NotStarted,
    /// Awaited until its deadline.
    Awaited,
    /// It was reported.
    Reported,
    /// The deadline passed without a report.
    Overdue,
    /// The installed system has no means to report (no systemd, or the reporter does not run there).
    Unsupported,
}

macro_rules! text_enum {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $name {
            /// The word that is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(UnknownWord { kind: stringify!($name), word: other.to_owned() }),
                }
            }
        }
    };
}

/// A stored or given word is none of an enumeration's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {kind}")]
pub struct UnknownWord {
    /// The enumeration.
    pub kind: &'static str,
    /// The word.
    pub word: String,
}

text_enum!(Status {
    Queued => "queued", Provisioning => "provisioning", Succeeded => "succeeded", Failed => "failed", Complete => "complete",
});
text_enum!(Phase {
    Waiting => "waiting", BuildMedia => "build-media", Discover => "discover", Mount => "mount",
    BootOverride => "boot-override", PowerOff => "power-off", PowerOn => "power-on", AwaitReport => "await-report",
    AwaitOff => "await-off", Eject => "eject", ClearOverride => "clear-override", Restart => "restart",
    Finished => "finished",
});
text_enum!(JobOutcome { Succeeded => "succeeded", Failed => "failed", Cancelled => "cancelled" });
text_enum!(FirstBoot {
    NotStarted => "not-started", Awaited => "awaited", Reported => "reported", Overdue => "overdue", Unsupported => "unsupported",
});

/// A failure with its place in the taxonomy (design 032) and its page in docs/errors/.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Key of the taxonomy, for example `redfish.mount.task` or `workflow.partition`.
    pub step: String,
    /// Stable code, for example `bmc_unreachable`.
    pub code: String,
    /// One sentence for people.
    pub detail: String,
}

/// The task ISO of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskIso {
    /// Where it lies.
    pub path: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Until when its signed URLs hold, in seconds since 1970.
    pub url_expires: i64,
}

/// A job as stored.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id; also the GUID of the partition table that it makes.
    pub id: JobId,
    /// The server that it is about.
    pub serial: Serial,
    /// State.
    pub status: Status,
    /// Place inside the state.
    pub phase: Phase,
    /// Why it stands where it stands, for people.
    pub reason: String,
    /// Counts from 1; a requeue counts on.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Option<JobOutcome>,
    /// What failed.
    pub failure: Option<Failure>,
    /// The recipe as it was posted. May hold secrets: user-data is in it.
    pub recipe_json: String,
    /// Target, for labels and lists.
    pub task_target: String,
    /// What is installed, fixed by digest, as JSON of [`ArtifactRef`].
    pub artifact: Option<ArtifactRef>,
    /// Once built.
    pub task_iso: Option<TaskIso>,
    /// An operator asked for its end.
    pub cancel_requested: bool,
    /// The machine was switched off for this attempt, so clean-up has to look after its power.
    pub power_touched: bool,
    /// Media were, or may have been, inserted for this attempt.
    pub media_touched: bool,
    /// The maintenance OS sent its terminal report.
    pub reported: bool,
    /// When success, failure or cancel was decided.
    pub ended_at: Option<Timestamp>,
    /// First report of this attempt's maintenance OS.
    pub first_contact_at: Option<Timestamp>,
    /// Condition `FirstBoot`.
    pub first_boot: FirstBoot,
    /// When the condition last changed.
    pub first_boot_at: Option<Timestamp>,
    /// Until when the first boot is awaited.
    pub first_boot_deadline: Option<Timestamp>,
    /// Power state when the BMC last answered.
    pub power: Option<String>,
    /// When the BMC last answered.
    pub power_seen_at: Option<Timestamp>,
    /// When the phase began.
    pub phase_started_at: Timestamp,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When its state or phase last changed.
    pub updated_at: Timestamp,
    /// When a worker first took it.
    pub picked_at: Option<Timestamp>,
    /// The worker that holds it.
    pub worker_id: Option<String>,
}

/// An artifact whose tag was resolved when the job was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Registry; absent for the controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<Url>,
    /// Repository.
    pub repository: String,
    /// Digest of the manifest.
    pub digest: String,
    /// What the recipe said.
    pub requested: String,
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the job's events from 1.
    pub id: i64,
    /// When.
    pub time: Timestamp,
    /// How bad.
    pub level: Level,
    /// What, for people; never a secret.
    pub message: String,
    /// Key of the taxonomy or systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As planned.
    Info,
    /// Worth a look.
    Warn,
    /// It failed.
    Error,
}

text_enum!(Level { Info => "info", Warn => "warn", Error => "error" });

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
