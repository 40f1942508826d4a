//! The metal layer's settings: every name, its variable and its default in one table (design 036), and what they resolve to.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use settings::{Key, Resolved, SettingsError};
use url::Url;

use crate::plan::Limits;

/// Name, environment variables, default and meaning.
pub const KEYS: &[Key] = &[
    Key::new("task_iso_dir", &["TASK_ISO_DIR"], None, "Task ISOs (default: tasks in the data directory)"),
    Key::new("static_dir", &["STATIC_DIR"], None, "Files under /static (default: static in the data directory)"),
    Key::new("media_url", &["MEDIA_URL"], None, "Where BMCs fetch media (default: from the listener)"),
    Key::new("callback_url", &["CALLBACK_URL"], None, "Webhook and registry as the maintenance OS reaches them"),
    Key::new(
        "maintenance_iso_url",
        &["MAINTENANCE_ISO_URL"],
        None,
        "Maintenance ISO for BMCs with two slots (default: the one that was built, at media_url)",
    ),
    Key::secret("webhook_secret", &["WEBHOOK_SECRET"], "Signs the tokens of jobs (default: from the instance key)"),
    Key::secret("webhook_secret_old", &["WEBHOOK_SECRET_OLD"], "Accepted beside it while it is being rotated"),
    Key::secret(
        "signed_url_secret",
        &["SIGNED_URL_SECRET", "MEDIA_SIGNING_SECRET"],
        "Signs media URLs (default: from the instance key)",
    ),
    Key::secret("signed_url_secret_old", &["SIGNED_URL_SECRET_OLD"], "Accepted beside it while it is being rotated"),
    Key::new(
        "media_signed_url_ttl",
        &["MEDIA_SIGNED_URL_TTL"],
        Some("30m"),
        "Signed URLs hold at least so long, and always as long as the machine may boot from them",
    ),
    Key::new("worker_concurrency", &["WORKER_CONCURRENCY"], Some("4"), "Jobs worked on at once; 0 drains"),
    Key::new("redfish_timeout", &["REDFISH_TIMEOUT"], Some("30s"), "For one request to a BMC"),
    Key::new("redfish_retries", &["REDFISH_RETRIES"], None, "Attempts per request (default: 5 to 7 by maker)"),
    Key::new(
        "redfish_insecure",
        &["REDFISH_INSECURE", "REDFISH_INSECURE_TLS"],
        Some("false"),
        "Take any certificate of a BMC whose record says nothing else",
    ),
    Key::new(
        "job_lease_ttl",
        &["JOB_LEASE_TTL"],
        Some("10m"),
        "A worker whose heartbeat is silent so long loses its jobs",
    ),
    Key::new("job_stuck_timeout", &["JOB_STUCK_TIMEOUT"], Some("4h"), "Ends a job, whatever it is at"),
    Key::new("job_report_timeout", &["JOB_REPORT_TIMEOUT"], Some("120m"), "From power on to the terminal report"),
    Key::new("job_first_boot_timeout", &["JOB_FIRST_BOOT_TIMEOUT"], Some("30m"), "From complete to the first boot"),
    Key::new("job_retention_days", &["JOB_RETENTION_DAYS"], Some("14"), "Media of complete jobs are kept so long"),
    Key::new("job_power_off_grace", &["JOB_POWER_OFF_GRACE"], Some("30s"), "For a running OS before power is cut"),
    Key::new("job_power_poll", &["JOB_POWER_POLL"], Some("5s"), "Between two looks at a machine's power"),
];

/// What [`KEYS`] resolve to.
#[derive(Clone)]
pub struct MetalSettings {
    /// Task ISOs.
    pub task_iso_dir: PathBuf,
    /// Files under /static.
    pub static_dir: PathBuf,
    /// Where BMCs fetch media; from the listener when absent.
    pub media_url: Option<Url>,
    /// What the maintenance OS calls; from the listener when absent.
    pub callback_url: Option<Url>,
    /// First slot of a two-slot BMC.
    pub maintenance_iso_url: Option<Url>,
    /// Signs the tokens of jobs.
    pub webhook_secret: Option<SecretString>,
    /// Before the rotation.
    pub webhook_secret_old: Option<SecretString>,
    /// Signs media URLs.
    pub signed_url_secret: Option<SecretString>,
    /// Before the rotation.
    pub signed_url_secret_old: Option<SecretString>,
    /// Signed URLs hold at least so long.
    pub signed_url_ttl: Duration,
    /// Jobs at once.
    pub worker_concurrency: usize,
    /// For one request to a BMC.
    pub redfish_timeout: Duration,
    /// Attempts per request; by maker when absent.
    pub redfish_retries: Option<u32>,
    /// Any certificate, unless the server's record says otherwise.
    pub redfish_insecure: bool,
    /// A worker that is silent so long loses its jobs.
    pub lease: Duration,
    /// Media of complete jobs are kept so long.
    pub retention: Duration,
    /// For a running OS before power is cut.
    pub power_off_grace: Duration,
    /// How long things may take.
    pub limits: Limits,
}

impl MetalSettings {
    /// Reads the layer's keys; paths that are not set lie in `data_dir`.
    pub fn resolve(resolved: &Resolved, data_dir: &std::path::Path) -> Result<Self, SettingsError> {
        let directory = |name: &str, below: &str| match resolved.get(name) {
            Some(path) => PathBuf::from(path),
            None => data_dir.join(below),
        };
        let defaults = Limits::default();
        let positive = |name: &str| {
            let duration = resolved.duration(name)?;
            if duration.is_zero() { Err(resolved.wrong(name, "nothing can be done in no time")) } else { Ok(duration) }
        };
        let address =
            |name: &str| {
                let url: Option<Url> = resolved.parse_optional(name)?;
                match &url {
                    Some(url) if !is_address(url) => Err(resolved
                        .wrong(name, "http(s)://host[:port][/path] was expected, without credentials and query")),
                    _ => Ok(url),
                }
            };
        let report = positive("job_report_timeout")?;
        Ok(Self {
            task_iso_dir: directory("task_iso_dir", "tasks"),
            static_dir: directory("static_dir", "static"),
            media_url: address("media_url")?,
            callback_url: address("callback_url")?,
            maintenance_iso_url: resolved.parse_optional("maintenance_iso_url")?,
            webhook_secret: resolved.secret("webhook_secret"),
            webhook_secret_old: resolved.secret("webhook_secret_old"),
            signed_url_secret: resolved.secret("signed_url_secret"),
            signed_url_secret_old: resolved.secret("signed_url_secret_old"),
            signed_url_ttl: resolved.duration("media_signed_url_ttl")?,
            worker_concurrency: resolved.parse("worker_concurrency")?,
            redfish_timeout: positive("redfish_timeout")?,
            redfish_retries: resolved.parse_optional("redfish_retries")?,
            redfish_insecure: resolved.boolean("redfish_insecure")?,
            lease: positive("job_lease_ttl")?,
            retention: Duration::from_hours(24 * u64::from(resolved.parse::<u32>("job_retention_days")?)),
            power_off_grace: resolved.duration("job_power_off_grace")?,
            limits: Limits {
                report,
                stuck: positive("job_stuck_timeout")?,
                first_boot: resolved.duration("job_first_boot_timeout")?,
                power_poll: resolved.duration("job_power_poll")?.max(Duration::from_millis(100)),
                off_without_report: defaults.off_without_report.min(report),
                ..defaults
            },
        })
    }

    /// Where the maintenance ISO lies that `cairn metal image build` writes.
    pub fn maintenance_iso(&self) -> PathBuf {
        self.static_dir.join("isos").join("bootc-maintenance.iso")
    }
}

/// Whether paths can be put behind this URL.
pub(crate) fn is_address(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}
