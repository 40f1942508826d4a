//! The systemd targets that a recipe can name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is done with the machine (spec: `task_target`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TaskTarget {
    /// Partitions a disk and unpacks a Linux root file system onto it.
    InstallLinux,
    /// Applies a Windows image.
    InstallWindows,
    /// Boots the ESXi installer; never reaches the maintenance system.
    InstallEsxi,
    /// Updates firmware of a Supermicro board.
    SupermicroUpdate,
    /// A name that only fits the pattern.
    Custom(String),
}

impl TaskTarget {
    /// The targets with a name of their own.
    pub const KNOWN: [Self; 4] = [Self::InstallLinux, Self::InstallWindows, Self::InstallEsxi, Self::SupermicroUpdate];

    /// The name of the systemd unit.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InstallLinux => "install-linux.target",
            Self::InstallWindows => "install-windows.target",
            Self::InstallEsxi => "install-esxi.target",
            Self::SupermicroUpdate => "supermicro-update.target",
            Self::Custom(name) => name,
        }
    }

    /// Whether this version can carry the target out. A recipe with another one is well-formed and still refused.
    pub fn can_run(&self) -> bool {
        matches!(self, Self::InstallLinux)
    }
}

impl From<String> for TaskTarget {
    fn from(name: String) -> Self {
        Self::KNOWN.into_iter().find(|known| known.as_str() == name).unwrap_or(Self::Custom(name))
    }
}

impl From<TaskTarget> for String {
    fn from(target: TaskTarget) -> Self {
        target.as_str().to_owned()
    }
}

impl fmt::Display for TaskTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_only_one_runs() {
        for target in TaskTarget::KNOWN {
            assert_eq!(TaskTarget::from(target.to_string()), target);
            assert_eq!(target.can_run(), target == TaskTarget::InstallLinux);
        }
        let custom = TaskTarget::from("erase-disk.target".to_owned());
        assert_eq!(custom, TaskTarget::Custom("erase-disk.target".to_owned()));
        assert!(!custom.can_run());
    }
}
