//! What can go wrong with Nix, told apart.

use cairn_core::ErrorKind;
use host::{FileError, ProcessError};

/// Something with Nix did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting holds a line break, or a word that would be two.
    #[error("{value:?} cannot be a value of the setting {name} of Nix")]
    Setting {
        /// Nix's name of it.
        name: &'static str,
        /// The value.
        value: String,
    },
    /// The name cannot be that of a host.
    #[error("{host:?} cannot be the name of a host in a flake")]
    HostName {
        /// The name.
        host: String,
    },
    /// A root is not a plain word, or a path no path of a store.
    #[error("{word:?} cannot be the name of a root or a path of the store")]
    Word {
        /// The word.
        word: String,
    },
    /// The flake has other hosts.
    #[error("the flake has no host {host}; it has {}", list(.hosts))]
    UnknownHost {
        /// The host that was asked for.
        host: String,
        /// Those that there are.
        hosts: Vec<String>,
    },
    /// What the flake has under this name is no NixOS system.
    #[error("nixosConfigurations.{host} of the flake has no config.system.build.toplevel")]
    NoSystem {
        /// The host.
        host: String,
    },
    /// Evaluating took more memory than it may have.
    #[error("evaluating {host} takes more than {} MiB of memory", .memory >> 20)]
    EvaluationOutOfMemory {
        /// The host.
        host: String,
        /// The limit, in bytes.
        memory: u64,
    },
    /// Nix does not evaluate it.
    #[error("cannot evaluate {host}: {}", last(.tail))]
    Evaluation {
        /// The host.
        host: String,
        /// The last lines that Nix wrote.
        tail: Vec<String>,
    },
    /// A build failed.
    #[error("cannot build {derivation}{}: {}", at(.place), last(.tail))]
    Build {
        /// Path of the derivation that was asked for.
        derivation: String,
        /// The machine, unless it is this one.
        place: Option<String>,
        /// The last lines that Nix and the builder wrote.
        tail: Vec<String>,
    },
    /// Copying failed.
    #[error("cannot copy {path} to {place}: {}", last(.tail))]
    Copy {
        /// Path in the store.
        path: String,
        /// The machine.
        place: String,
        /// The last lines that Nix wrote.
        tail: Vec<String>,
    },
    /// There is no room left.
    #[error("no space left{}", at(.place))]
    DiskFull {
        /// The machine, unless it is this one.
        place: Option<String>,
    },
    /// The other side takes only what is signed.
    #[error("the store of {place} does not take what is not signed by a key that it trusts")]
    NotTrusted {
        /// The machine.
        place: String,
    },
    /// The other side's daemon does not speak to us.
    #[error("{place} does not run nix-daemon: {message}")]
    Daemon {
        /// The machine.
        place: String,
        /// What it said.
        message: String,
    },
    /// The path is not where it should be by now.
    #[error("{path} is not in the store{}", at(.place))]
    Missing {
        /// Path in the store.
        path: String,
        /// The machine, unless it is this one.
        place: Option<String>,
    },
    /// It took too long.
    #[error("Nix did not {operation} within {seconds} s")]
    Timeout {
        /// `evaluate`, …
        operation: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// A command on the machine failed.
    #[error("{place}: cannot {operation}: {message}")]
    Remote {
        /// The machine.
        place: String,
        /// `hold a root`, …
        operation: &'static str,
        /// What it said.
        message: String,
    },
    /// The machine.
    #[error(transparent)]
    Ssh(#[from] reach::ssh::Error),
    /// A program of Nix could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Error {
    /// How it is sorted.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::HostName { .. } | Self::Word { .. } | Self::NoSystem { .. } => {
                ErrorKind::Invalid
            }
            Self::UnknownHost { .. } => ErrorKind::NotFound,
            Self::EvaluationOutOfMemory { .. } | Self::DiskFull { .. } => ErrorKind::Unavailable,
            Self::NotTrusted { .. } => ErrorKind::Forbidden,
            Self::Timeout { .. } => ErrorKind::Unreachable,
            Self::Ssh(error) => error.kind(),
            Self::Evaluation { .. } | Self::Build { .. } | Self::Copy { .. } | Self::Daemon { .. } => ErrorKind::Failed,
            Self::Missing { .. } | Self::Remote { .. } | Self::Process(_) | Self::File(_) => ErrorKind::Failed,
        }
    }

    /// What can be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::EvaluationOutOfMemory { .. } => {
                "raise the memory that an evaluation may have, or evaluate fewer at once"
            }
            Self::NotTrusted { .. } => "log in as root or as a user who may use sudo without a password",
            Self::DiskFull { .. } => "collect garbage there: nix-collect-garbage --delete-older-than 14d",
            Self::Process(error) if error.is_missing() => "install Nix, or say where it is",
            _ => return None,
        })
    }

    /// The last lines that Nix wrote, where there are any: what a status shows of a log.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Evaluation { tail, .. } | Self::Build { tail, .. } | Self::Copy { tail, .. } => tail,
            _ => &[],
        }
    }
}

fn list(hosts: &[String]) -> String {
    if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") }
}

fn at(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!(" on {place}")).unwrap_or_default()
}

/// The line that says what is wrong: the last that begins with `error:`, with what follows when it says nothing itself.
fn last(tail: &[String]) -> String {
    let is_error = |line: &String| line.trim_start().starts_with("error:") && line.trim().len() > "error:".len();
    let line = tail.iter().rfind(|line| is_error(line)).or_else(|| tail.iter().rfind(|line| !line.trim().is_empty()));
    line.map_or("it said nothing", |line| line.trim().trim_start_matches("error:").trim()).to_owned()
}
