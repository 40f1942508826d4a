//! `cairn registry …`: the commands. Most work through a daemon, or on a directory that no daemon holds (`--storage`).

mod copy;
mod end;
mod inspect;
mod layout;
mod look;
mod target;
mod upkeep;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cli::{Endpoint, Output};
use web::Problem;

use crate::settings::RegistrySettings;

/// Commands of the registry.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Run the registry alone
    Serve(Serve),
    /// Everything else.
    #[command(flatten)]
    Work(WorkCommand),
}

/// Flags of `cairn registry serve`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cairn registry serve --data-dir /var/lib/cairn --listen 127.0.0.1:5000

On a loopback address nobody has to log in unless REGISTRY_HTPASSWD_FILE or BASIC_USER is set. On any other address one of \
them has to be set; REGISTRY_ALLOW_ANON=true lets everybody pull. The management API takes the login of BASIC_USER; without \
one, users of the file that may push everywhere.

What jobs of the metal layer wait for is not known here. On the data directory of a controller run cairn serve instead: \
alone, the registry collects artifacts that such jobs still need.")]
pub struct Serve {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
}

/// Commands that look and work.
#[derive(Debug, Subcommand)]
pub enum WorkCommand {
    /// Show what is stored, what is under way and how the last collections ended
    #[command(after_help = "Example:
  cairn registry status --url http://192.0.2.1:8080")]
    Status(Place),
    /// List repositories and tags
    #[command(after_help = "Examples:
  cairn registry ls
  cairn registry ls os-images --json")]
    Ls {
        /// Only this repository and those below it
        repository: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Show an image or artifact: manifest, configuration, layers, referrers
    #[command(after_help = "Examples:
  cairn registry inspect os-images/debian:13
  cairn registry inspect registry.example/tools/disk@sha256:… --authfile auth.json
  cairn registry inspect oci:./layout:v1")]
    Inspect(inspect::Inspect),
    /// Copy an image or artifact between registries and OCI image layouts
    #[command(after_help = "Examples:
  cairn registry copy registry.example/debian:13 os-images/debian:13
  cairn registry copy os-images/debian:13 oci:./layout:13 --referrers
  cairn registry copy oci:./layout:13 127.0.0.1:5000/debian:13

A name without a host means the daemon at --url. Loopback addresses are spoken to in plain HTTP, others over TLS unless \
--plain-http is given. All manifests of an index are copied, byte for byte.")]
    Copy(copy::Copy),
    /// Collect what nothing refers to, or bring it back
    #[command(after_help = "Examples:
  cairn registry gc --dry-run
  cairn registry gc --storage /var/lib/cairn/oci
  cairn registry gc --restore

What is collected lies in quarantine for REGISTRY_GC_GRACE_PERIOD. On --storage, artifacts that jobs of a stopped daemon \
wait for are not known: start the daemon, and let it collect, where that matters.")]
    Gc(upkeep::Gc),
    /// Read everything that is stored and compare it with its digests
    #[command(after_help = "Examples:
  cairn registry fsck
  cairn registry fsck --repair --storage /var/lib/cairn/oci

Exit codes: 0 all is well or mended, 1 damage stays")]
    Fsck(upkeep::Fsck),
    /// Remove tags that are more than retention keeps
    #[command(after_help = "Example:
  cairn registry retention --dry-run

REGISTRY_RETENTION_TOOLS_KEEP and REGISTRY_RETENTION_MAINTENANCE_KEEP say how many are kept. On --storage, artifacts that \
jobs of a stopped daemon wait for are not known, and their tags go too: start the daemon, and let it do this, where that \
matters.")]
    Retention(upkeep::RetentionArgs),
    /// Show what takes room
    #[command(after_help = "Example:
  cairn registry du --largest 20")]
    Du {
        /// So many of the largest blobs
        #[arg(long, value_name = "N", default_value_t = 10)]
        largest: usize,
        #[command(flatten)]
        place: Place,
    },
    /// Show who did what, newest first
    #[command(after_help = "Example:
  cairn registry audit --repository os-images/debian --limit 20")]
    Audit(look::Audit),
    /// Show or set whether pushes and deletes are refused
    #[command(after_help = "Examples:
  cairn registry read-only
  cairn registry read-only on")]
    ReadOnly {
        /// What to set
        #[arg(value_enum)]
        switch: Option<Switch>,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Pushes and deletes are refused
    On,
    /// They are taken
    Off,
}

/// Where a command works.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// Work on this directory itself instead of through the daemon, which must not hold it
    #[arg(long, value_name = "DIR")]
    pub(super) storage: Option<PathBuf>,
}

/// Carries a command out. `settings` say how long the grace is and what retention keeps where a command works on a
/// directory itself.
///
/// # Errors
/// What went wrong, with the exit code of its kind.
pub async fn run(
    command: WorkCommand,
    endpoint: &Endpoint,
    settings: &RegistrySettings,
    output: &Output,
) -> Result<(), Problem> {
    match command {
        WorkCommand::Status(place) => look::status(&place, endpoint, output).await,
        WorkCommand::Ls { repository, place } => look::ls(repository, &place, endpoint, output).await,
        WorkCommand::Du { largest, place } => look::du(largest, &place, endpoint, output).await,
        WorkCommand::Audit(audit) => look::audit(audit, endpoint, output).await,
        WorkCommand::ReadOnly { switch } => look::read_only(switch, endpoint, output).await,
        WorkCommand::Inspect(inspect) => inspect::run(&inspect, endpoint, output).await,
        WorkCommand::Copy(copy) => copy::run(&copy, endpoint, output).await,
        WorkCommand::Gc(gc) => upkeep::gc(&gc, endpoint, settings, output).await,
        WorkCommand::Fsck(fsck) => upkeep::fsck(&fsck, endpoint, output).await,
        WorkCommand::Retention(retention) => upkeep::retention(&retention, endpoint, settings, output).await,
    }
}
