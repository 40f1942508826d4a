//! Stable codes of the registry. Each has a page in docs/errors/; `cairn explain CODE` prints it.

/// A daemon holds the directory that a command was to work on.
pub const REGISTRY_LOCKED: &str = "registry_locked";
/// Another collection, check or retention is running.
pub const REGISTRY_BUSY: &str = "registry_busy";
/// The registry is read-only.
pub const REGISTRY_READ_ONLY: &str = "registry_read_only";
/// The users file cannot be used.
pub const REGISTRY_USERS_FILE: &str = "registry_users_file";
/// Nobody can tell which artifacts are still needed, so nothing is collected.
pub const REGISTRY_LEASES: &str = "registry_leases";
/// A check found damage that stays.
pub const REGISTRY_DAMAGED: &str = "registry_damaged";
/// The disk of the registry did not do as it was told.
pub const REGISTRY_STORAGE: &str = "registry_storage";
/// No collection of this number lies in quarantine.
pub const REGISTRY_RUN_UNKNOWN: &str = "registry_run_unknown";
/// Something could not be copied from one registry or layout to another.
pub const REGISTRY_COPY: &str = "registry_copy";
/// A user may not manage the registry.
pub const REGISTRY_DENIED: &str = "registry_denied";

/// What to do about [`REGISTRY_RUN_UNKNOWN`].
pub(crate) const NAME_A_RUN: &str =
    "cairn registry gc --restore without a number brings back what is there of all runs";

/// All of them, and those that other parts of the program have too.
pub const ALL: &[&str] = &[
    REGISTRY_LOCKED,
    REGISTRY_BUSY,
    REGISTRY_READ_ONLY,
    REGISTRY_USERS_FILE,
    REGISTRY_LEASES,
    REGISTRY_DAMAGED,
    REGISTRY_STORAGE,
    REGISTRY_RUN_UNKNOWN,
    REGISTRY_COPY,
    REGISTRY_DENIED,
    REGISTRY,
    NO_AUTHENTICATION,
    SETTINGS,
    ARTIFACT_MISSING,
];

/// The storage cannot be opened.
pub const REGISTRY: &str = "registry";
/// Nobody would have to log in on an address that others reach.
pub const NO_AUTHENTICATION: &str = "no_authentication";
/// A setting cannot be used.
pub const SETTINGS: &str = "settings";
/// There is no such artifact.
pub const ARTIFACT_MISSING: &str = "artifact_missing";
