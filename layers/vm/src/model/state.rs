//! States of a VM.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a VM is. Stored by [`State::as_str`]; on the wire it is `VM_STATE_*` with the contract's numbers, ours from 5 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Being made.
    Creating,
    /// Made and never booted.
    Created,
    /// On its way up.
    Starting,
    /// Its processors run.
    Running,
    /// Its processors stand still.
    Paused,
    /// On its way down.
    Stopping,
    /// It has ended and can be booted again.
    Shutdown,
    /// It has ended, or never came up, for a reason that stands beside the state.
    Failed,
    /// Being removed.
    Deleting,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Shutdown,
        Self::Starting,
        Self::Stopping,
        Self::Failed,
        Self::Creating,
        Self::Deleting,
    ];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Created => "CREATED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Stopping => "STOPPING",
            Self::Shutdown => "SHUTDOWN",
            Self::Failed => "FAILED",
            Self::Deleting => "DELETING",
        }
    }

    /// As it stands on the wire.
    pub fn wire(self) -> String {
        format!("VM_STATE_{}", self.as_str())
    }

    /// The contract's number.
    pub fn number(self) -> i32 {
        let at = Self::ALL.iter().position(|state| *state == self).unwrap_or_default();
        i32::try_from(at).unwrap_or_default() + 1
    }

    /// Whether a hypervisor may be alive.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A word names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a VM")]
pub struct InvalidState(pub String);

impl FromStr for State {
    type Err = InvalidState;

    /// With or without `VM_STATE_`, in any case.
    fn from_str(text: &str) -> Result<Self, InvalidState> {
        let upper = text.to_ascii_uppercase();
        let word = upper.strip_prefix("VM_STATE_").unwrap_or(&upper);
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| InvalidState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_numbers_stay() {
        let numbers: Vec<_> = State::ALL.iter().map(|state| (state.wire(), state.number())).collect();
        assert_eq!(
            numbers[..4],
            [
                ("VM_STATE_CREATED".to_owned(), 1),
                ("VM_STATE_RUNNING".to_owned(), 2),
                ("VM_STATE_PAUSED".to_owned(), 3),
                ("VM_STATE_SHUTDOWN".to_owned(), 4)
            ]
        );
        for state in State::ALL {
            assert_eq!(state.wire().parse(), Ok(state));
            assert_eq!(state.as_str().to_lowercase().parse(), Ok(state));
        }
        assert!("VM_STATE_LOST".parse::<State>().is_err());
    }
}
