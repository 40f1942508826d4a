//! How a deployment can fail.

use std::fmt;
use std::time::Duration;

use cairn_core::ErrorKind;

use crate::errors;
use crate::model::{StorePath, Underway};

/// An effect could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How it is sorted at the edge.
    pub kind: ErrorKind,
    /// Stable code, one of [`errors::ALL`].
    pub code: &'static str,
    /// What happened, with its causes.
    pub message: String,
    /// The end of what the program that failed wrote, if it was one.
    pub log: String,
    /// Whether trying again may help without anybody doing anything.
    pub may_pass: bool,
}

impl Fault {
    /// A fault that stays until something is done about it.
    pub fn lasting(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), log: String::new(), may_pass: false }
    }

    /// A fault that may pass by itself: a peer that does not answer.
    pub fn passing(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unreachable, code, message: message.into(), log: String::new(), may_pass: true }
    }

    /// With the end of what a program wrote.
    pub fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a deployment ended without the machine running what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Something could not be done, and nothing had been begun on the host.
    #[error("{0}")]
    Fault(Fault),
    /// The system was taken back on this machine before.
    #[error("this system was taken back on this machine before: {reason}")]
    Quarantined {
        /// Why it was taken back then.
        reason: String,
    },
    /// Another deployment has the machine.
    #[error("deployment {holder} has had the machine for {} s", age.as_secs())]
    Conflict {
        /// Its id, as the host has it.
        holder: String,
        /// For how long.
        age: Duration,
    },
    /// The host runs the old system again.
    #[error("the host took the old system back: {reason}")]
    RolledBack {
        /// Why.
        reason: String,
        /// The end of what the activation wrote.
        log: String,
    },
    /// Neither system could be activated.
    #[error("the host could not take the old system back: {reason}")]
    RollbackFailed {
        /// Why it was to go back, and how that ended.
        reason: String,
        /// The end of what both wrote.
        log: String,
    },
    /// The host does not answer any more; what it does by itself is not known here.
    #[error("the host does not answer any more, and takes the old system back by itself unless it was confirmed: {0}")]
    OutOfSight(Fault),
    /// The host answers, and is busy for too long.
    #[error("the host has been {} for too long", doing.as_str())]
    Hanging {
        /// With what.
        doing: Underway,
    },
    /// Everything was done, and the host runs something else.
    #[error("the host runs {} and would start {}", shown(.current), shown(.profile))]
    Other {
        /// What it runs.
        current: Option<StorePath>,
        /// What it would start.
        profile: Option<StorePath>,
    },
}

fn shown(path: &Option<StorePath>) -> &str {
    path.as_ref().map_or("nothing known", StorePath::as_str)
}

impl Failure {
    /// How it is sorted at the edge.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fault(fault) => fault.kind,
            Self::Quarantined { .. } | Self::Conflict { .. } | Self::Other { .. } => ErrorKind::Conflict,
            Self::RolledBack { .. } | Self::RollbackFailed { .. } => ErrorKind::Failed,
            Self::OutOfSight(_) | Self::Hanging { .. } => ErrorKind::Unreachable,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code,
            Self::Quarantined { .. } => errors::MACHINE_QUARANTINED,
            Self::Conflict { .. } => errors::MACHINE_CONFLICT,
            Self::RolledBack { .. } => errors::MACHINE_ROLLED_BACK,
            Self::RollbackFailed { .. } => errors::MACHINE_ROLLBACK_FAILED,
            Self::OutOfSight(_) | Self::Hanging { .. } => errors::MACHINE_OUT_OF_SIGHT,
            Self::Other { .. } => errors::MACHINE_DRIFTED,
        }
    }

    /// The end of what a program wrote, where one failed.
    pub fn log(&self) -> &str {
        match self {
            Self::Fault(fault) => &fault.log,
            Self::RolledBack { log, .. } | Self::RollbackFailed { log, .. } => log,
            _ => "",
        }
    }

    /// Whether the system is not to be tried on this machine again until somebody asks for it.
    pub fn quarantines(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::RollbackFailed { .. })
    }

    /// Whether how it ended is known. A deployment whose end is not is looked up again by the next one.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::OutOfSight(_) | Self::Hanging { .. })
    }
}
