//! What can be set, and where a value came from.

use std::fmt;
use std::path::PathBuf;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file (`media_url`); the flag is the same with dashes (`--media-url`).
    pub name: &'static str,
    /// Names in the environment. The first is ours, the others are those of older manuals.
    pub env: &'static [&'static str],
    /// The value when nobody sets one.
    pub default: Option<&'static str>,
    /// One sentence for `config show` and for errors.
    pub help: &'static str,
    /// Never printed. Every name in the environment also has a `…_FILE` variant that names a file.
    pub secret: bool,
}

impl Key {
    /// A setting that may be shown.
    pub const fn new(
        name: &'static str,
        env: &'static [&'static str],
        default: Option<&'static str>,
        help: &'static str,
    ) -> Self {
        Self { name, env, default, help, secret: false }
    }

    /// A setting that is never printed. It has no default: a secret that everybody knows is none.
    pub const fn secret(name: &'static str, env: &'static [&'static str], help: &'static str) -> Self {
        Self { name, env, default: None, help, secret: true }
    }

    /// The flag of this setting.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// There is no value.
    Unset,
    /// The default of the table.
    BuiltIn,
    /// A settings file; lines count from 1.
    File { path: PathBuf, line: usize },
    /// A variable of the environment.
    Environment { variable: String },
    /// A flag of the command line.
    Flag { flag: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("unset"),
            Self::BuiltIn => f.write_str("built-in"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}
