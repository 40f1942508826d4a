//! What the caller hands in: credentials, options, phases, and the observer of requests.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use crate::vendor::Vendor;

/// Names of operations as metrics know them. A caller may use names of its own; these are the usual ones.
pub mod op {
    /// Service root, system, manager and slots are read.
    pub const DISCOVER: &str = "discover";
    /// The image with the maintenance system is inserted.
    pub const MOUNT_MAINTENANCE: &str = "mount.maintenance";
    /// The image with the task is inserted.
    pub const MOUNT_TASK: &str = "mount.task";
    /// The boot override is written.
    pub const BOOT_OVERRIDE: &str = "boot.override";
    /// A reset action is sent.
    pub const RESET: &str = "reset";
    /// The power state is read.
    pub const POWER: &str = "power";
    /// Media are ejected and the override is cleared.
    pub const CLEANUP_UNMOUNT: &str = "cleanup.unmount";
    /// A session is opened; the library uses this name itself.
    pub const SESSION_LOGIN: &str = "session.login";
    /// A session is deleted; the library uses this name itself.
    pub const SESSION_LOGOUT: &str = "session.logout";
}

/// User name and password of an account on the BMC.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Account name.
    pub username: String,
    /// Its password; never printed.
    pub password: SecretString,
}

/// How requests prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// HTTP Basic; when the BMC refuses it and has a session service, a session.
    #[default]
    Auto,
    /// HTTP Basic only.
    Basic,
    /// A session only (`X-Auth-Token`).
    Session,
}

/// How often and how fast a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Requests in all, at least 1.
    pub attempts: u32,
    /// Delay before the second attempt; doubles each time.
    pub base: Duration,
    /// No delay is longer than this, before up to 20 % of jitter is added. A `Retry-After` may be.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, base: Duration::from_millis(200), cap: Duration::from_secs(8) }
    }
}

/// Settings of one connection to one BMC.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which system is meant when the BMC manages several: its serial number, UUID or id.
    pub system: Option<String>,
    /// How to authenticate.
    pub auth: AuthMode,
    /// Overrides the vendor that would be detected.
    pub vendor: Option<Vendor>,
    /// Overrides the vendor's retry profile.
    pub retry: Option<Retry>,
    /// Limit of one request, answer included.
    pub request_timeout: Duration,
    /// Limit of one insert request: some services download the whole image before they answer.
    pub insert_timeout: Duration,
    /// How long a change may take until it can be read back.
    pub settle: Duration,
    /// Shortest and longest pause between two looks at something that is waited for.
    pub poll: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            system: None,
            auth: AuthMode::Auto,
            vendor: None,
            retry: None,
            request_timeout: Duration::from_secs(30),
            insert_timeout: Duration::from_secs(300),
            settle: Duration::from_secs(30),
            poll: (Duration::from_secs(1), Duration::from_secs(5)),
        }
    }
}

/// The frame of an operation: its name in metrics and the instant at which it has to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Name of the operation, see [`op`].
    pub op: &'static str,
    /// No request starts and no pause ends after this instant.
    pub deadline: Instant,
}

impl Phase {
    /// A phase that begins now and may take `budget`.
    pub fn new(op: &'static str, budget: Duration) -> Self {
        Self { op, deadline: Instant::now() + budget }
    }

    /// The same deadline under another name.
    pub fn named(self, op: &'static str) -> Self {
        Self { op, ..self }
    }

    /// The same name with a deadline that is `limit` away, or this phase's own where that is nearer.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + limit), ..self }
    }

    /// Time that is left, zero when it is over.
    pub(crate) fn remaining(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// How a request ended, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The service answered with this HTTP status.
    Status(u16),
    /// There was no answer.
    Transport,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Transport => f.write_str("error"),
        }
    }
}

/// Is told about every request. Called on the task that runs the operation: it must not block.
pub trait Observer: Send + Sync {
    /// A request has ended. `vendor` is a sanitised label, `unknown` until the BMC has said what it is.
    fn request(&self, op: &'static str, vendor: &str, code: Code, duration: Duration);
    /// A request will be sent once more.
    fn retry(&self, op: &'static str, vendor: &str);
}

/// The observer that looks away.
impl Observer for () {
    fn request(&self, _op: &'static str, _vendor: &str, _code: Code, _duration: Duration) {}
    fn retry(&self, _op: &'static str, _vendor: &str) {}
}
