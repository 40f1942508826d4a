//! What a schema cannot say about an object, each with the field it is about.
//!
//! The API server checks lengths, numbers and a few rules. Everything else is checked here, before anything is done with
//! an object: strings that end up as an argument, a path or a part of a Nix expression, references into other
//! namespaces, and fields that contradict each other.

mod configuration;
mod machine;
mod secrets;
mod text;

use std::fmt;

pub use configuration::{FlakeHost, LocalRepositories};
pub use secrets::may_use;

use super::{Machine, NixosConfiguration};

/// Whether an object can be used in spite of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is done with the object.
    Error,
    /// It is used, and the finding is told.
    Warning,
}

/// Something that is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field: `spec.additionalFiles[2].path`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
    /// Whether the object can be used.
    pub weight: Weight,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.reason)
    }
}

/// What is wrong with a machine.
#[must_use]
pub fn machine(machine: &Machine) -> Vec<Finding> {
    let mut findings = Findings::default();
    machine::check(machine, &mut findings);
    findings.0
}

/// What is wrong with a configuration.
#[must_use]
pub fn configuration(configuration: &NixosConfiguration, local: LocalRepositories) -> Vec<Finding> {
    let mut findings = Findings::default();
    configuration::check(&configuration.spec, local, &mut findings);
    findings.0
}

/// Collects what is found.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.add(field.into(), reason.into(), None, Weight::Error);
    }

    fn error_with(&mut self, field: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) {
        self.add(field.into(), reason.into(), Some(hint.into()), Weight::Error);
    }

    fn warning(&mut self, field: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) {
        self.add(field.into(), reason.into(), Some(hint.into()), Weight::Warning);
    }

    /// Takes over what is wrong with a text.
    fn text(&mut self, field: impl Into<String>, result: Result<(), text::Wrong>) {
        if let Err(wrong) = result {
            self.add(field.into(), wrong.reason, wrong.hint, Weight::Error);
        }
    }

    fn add(&mut self, field: String, reason: String, hint: Option<String>, weight: Weight) {
        self.0.push(Finding { field, reason, hint, weight });
    }
}
