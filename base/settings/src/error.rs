//! What can be wrong with settings. No variant carries the value of a secret.

use std::path::PathBuf;

use cairn_core::ErrorKind;

use crate::Origin;

/// A setting is wrong. Nothing has been done yet when this is reported.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The settings file is not TOML.
    #[error("{}:{line}: this is not TOML: {reason}", path.display())]
    Toml { path: PathBuf, line: usize, reason: String },
    /// The settings file has a key that no table knows.
    #[error("{}:{line}: there is no setting {name:?}", path.display())]
    UnknownKey { path: PathBuf, line: usize, name: String, similar: Option<&'static str> },
    /// A variable of the environment that looks like ours and that no table knows.
    #[error("there is no variable {name}")]
    UnknownVariable { name: String, similar: Option<&'static str> },
    /// A value of the settings file is a table or a list.
    #[error("{}:{line}: {name} needs a plain value, not a table or a list", path.display())]
    NotPlain { path: PathBuf, line: usize, name: &'static str },
    /// A secret is there and empty: whoever sends nothing would know it.
    #[error("{name} from {origin} is empty")]
    EmptySecret { name: &'static str, origin: String },
    /// A flag that no table knows.
    #[error("there is no setting {name:?}")]
    UnknownFlag { name: String, similar: Option<&'static str> },
    /// Two names of one setting say different things.
    #[error("{first} and {second} are two names of one setting and differ")]
    Differ { first: String, second: String },
    /// A file with a secret can be read by everybody.
    #[error("{} holds a secret and can be read by every user", path.display())]
    WorldReadable { path: PathBuf },
    /// A value that is needed is not set.
    #[error("{name} is not set")]
    Missing { name: &'static str, hint: String },
    /// A value cannot be used. `value` is `[redacted]` for a secret.
    #[error("{name} cannot be {value:?} ({origin}): {reason}")]
    Value { name: &'static str, value: String, origin: Origin, reason: String },
}

impl SettingsError {
    /// Always [`ErrorKind::Invalid`]: exit code 2.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { similar, .. } | Self::UnknownFlag { similar, .. } => Some(match similar {
                Some(similar) => format!("did you mean {similar:?}?"),
                None => "`cairn config show` lists every setting".to_owned(),
            }),
            Self::UnknownVariable { similar, .. } => Some(match similar {
                Some(similar) => format!("did you mean {similar}?"),
                None => "remove it; `cairn config show` lists every setting".to_owned(),
            }),
            Self::NotPlain { .. } => Some("keys are flat: NAME = VALUE, without [sections]".to_owned()),
            Self::Differ { second, .. } => Some(format!("remove {second}")),
            Self::WorldReadable { path } => Some(format!("chmod o-rwx {}", path.display())),
            Self::Missing { hint, .. } => Some(hint.clone()),
            Self::EmptySecret { .. } => Some("write the secret there, or remove the setting".to_owned()),
            Self::Read { .. } | Self::Toml { .. } | Self::Value { .. } => None,
        }
    }
}
