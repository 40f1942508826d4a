//! What goes wrong with networks.

use std::io;

use super::namespace::Place;
use crate::file::FileError;
use crate::process::ProcessError;

/// A step was not done. Says which, on what, and in which namespace.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object} in {place}")]
pub struct NetworkError {
    /// What was tried: `make`, `remove`, `add address 10.0.0.1/32 to`, …
    pub operation: String,
    /// `link tap0`, `set allowed of table inet cairn`, …
    pub object: String,
    /// The namespace.
    pub place: Place,
    /// Why.
    #[source]
    pub cause: Box<Cause>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// It is already there, perhaps not as it was asked for.
    #[error("it is already there")]
    AlreadyThere,
    /// It, or what it was to be added to, is not there.
    #[error("it is not there")]
    NotThere,
    /// It was not even tried, because it cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The kernel or the host lacks something: a module, a program.
    #[error("{0} is missing")]
    Missing(String),
    /// The kernel refused.
    #[error("the kernel refused{}", explained(.explanation))]
    Kernel {
        /// What it said beyond the error number; often empty.
        explanation: String,
        /// Error number.
        #[source]
        source: io::Error,
    },
    /// `nft` did not end well.
    #[error("nft did not do it")]
    Program(#[source] ProcessError),
    /// A file of the namespace or of `/proc` cannot be used.
    #[error("a file cannot be used")]
    File(#[source] FileError),
}

fn explained(explanation: &str) -> String {
    if explanation.is_empty() { String::new() } else { format!(": {explanation}") }
}

impl NetworkError {
    /// Whether what was to be made is already there.
    pub fn is_already_there(&self) -> bool {
        matches!(*self.cause, Cause::AlreadyThere)
    }

    /// Whether what was to be changed or removed is not there.
    pub fn is_not_there(&self) -> bool {
        matches!(*self.cause, Cause::NotThere)
    }

    /// For `map_err`: names the step.
    pub(super) fn at(operation: &str, object: &str, place: &Place) -> impl FnOnce(Cause) -> Self + use<> {
        let (operation, object, place) = (operation.to_owned(), object.to_owned(), place.clone());
        move |cause| Self { operation, object, place, cause: Box::new(cause) }
    }
}

impl From<io::Error> for Cause {
    /// By the error number.
    fn from(source: io::Error) -> Self {
        Self::Kernel { explanation: String::new(), source }
    }
}

/// Steps that may have been done before.
pub trait Repeatable: Sized {
    /// That it is already there is as good as done. Returns whether it was made now.
    fn or_already_there(self) -> Result<bool, NetworkError>;

    /// That it is not there is as good as removed. Returns whether it was removed now.
    fn or_not_there(self) -> Result<bool, NetworkError>;
}

impl Repeatable for Result<(), NetworkError> {
    fn or_already_there(self) -> Result<bool, NetworkError> {
        match self {
            Err(error) if error.is_already_there() => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn or_not_there(self) -> Result<bool, NetworkError> {
        match self {
            Err(error) if error.is_not_there() => Ok(false),
            other => other.map(|()| true),
        }
    }
}
