//! Arguments that more than one part of the program reads.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags of `cairn serve`; every other setting comes from the settings file or the environment (`cairn config show`).
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cairn serve --data-dir /var/lib/cairn --listen 127.0.0.1:8080

On a loopback address nobody has to log in unless BASIC_USER is set. On any other address BASIC_USER and BASIC_PASS_HASH
(or BASIC_PASS) have to be set.")]
pub struct Serve {
    /// What this daemon does
    #[arg(long, value_enum, default_value = "metal")]
    pub role: Role,
    #[command(flatten)]
    pub place: Place,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// By whose name the program was called.
    #[arg(skip)]
    pub called: Called,
}

/// By which name the program was called: each manual has its own environment, places and ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Called {
    /// Ours.
    #[default]
    Cairn,
    /// That of metald's guide.
    Metald,
}

/// Where settings and data are.
#[derive(Debug, Args)]
pub struct Place {
    /// Directory of the database, the instance key, media and registry
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// What a daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Bare metal: from a BMC to an installed machine
    Metal,
    /// A registry and nothing else
    Registry,
    /// MicroVMs on this host
    Vm,
}
