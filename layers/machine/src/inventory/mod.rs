//! Machines and configurations from files: the very objects of a cluster, with their Secrets beside them.
//!
//! A file has one or more YAML documents, or JSON; a directory is all its `*.yaml`, `*.yml` and `*.json`, without those in
//! directories below. `kind: List`, as kubectl saves it, is taken too. Every object is held against the schema of its
//! CustomResourceDefinition and then against [`check`](crate::resources::check); what is wrong is told all at once, with
//! file and line, and an inventory with anything wrong in it is not used.

mod links;
mod node;
mod read;
mod schema;
mod secret;

use std::fmt;
use std::path::{Path, PathBuf};

use host::FileError;
use kube::ResourceExt as _;

use crate::resources::{Machine, NixosConfiguration};
pub use secret::Secret;

/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Machines, configurations and Secrets that fit together. Every object has a namespace.
#[derive(Debug, Default)]
pub struct Inventory {
    /// In the order of the files.
    pub machines: Vec<Entry<Machine>>,
    /// In the order of the files; at most one for each machine.
    pub configurations: Vec<Entry<NixosConfiguration>>,
    /// In the order of the files.
    pub secrets: Vec<Entry<Secret>>,
    /// What can be used but should be known.
    pub warnings: Vec<Problem>,
}

/// An object and where it stands.
#[derive(Debug)]
pub struct Entry<T> {
    /// The object.
    pub object: T,
    /// Where it begins.
    pub place: Place,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// Something that is wrong in an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Of which object: `Machine web`. Empty if it is the file's.
    pub object: String,
    /// The field; empty if it is the whole object.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.place)?;
        for part in [&self.object, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(formatter, "{part}: ")?;
        }
        formatter.write_str(&self.reason)?;
        self.hint.iter().try_for_each(|hint| write!(formatter, "; {hint}"))
    }
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory without files of an inventory.
    #[error("{} has no *.yaml, *.yml or *.json", .0.display())]
    Empty(PathBuf),
    /// The schemas of the program itself cannot be made.
    #[error("the schemas of Machine and NixosConfiguration cannot be made")]
    Schemas(#[source] serde_json::Error),
    /// The files are there, but something is wrong in them.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Inventory {
    /// Reads a file, or all files of a directory.
    ///
    /// # Errors
    /// If a file cannot be read, or anything in one is wrong: then with everything that is.
    pub fn read(path: &Path) -> Result<Self, Error> {
        read::inventory(path)
    }

    /// A machine.
    #[must_use]
    pub fn machine(&self, namespace: &str, name: &str) -> Option<&Machine> {
        find(&self.machines, |machine| is(machine, namespace, name))
    }

    /// The configuration of a machine.
    #[must_use]
    pub fn configuration_of(&self, machine: &Machine) -> Option<&NixosConfiguration> {
        let name = machine.name_any();
        find(&self.configurations, |configuration| {
            configuration.namespace() == machine.namespace()
                && configuration.spec.machine_ref.as_ref().is_some_and(|reference| reference.name == name)
        })
    }

    /// A Secret.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        find(&self.secrets, |secret| (secret.namespace(), secret.name()) == (namespace, name))
    }
}

fn is(object: &impl kube::ResourceExt, namespace: &str, name: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace) && object.meta().name.as_deref() == Some(name)
}

fn find<T>(entries: &[Entry<T>], wanted: impl Fn(&T) -> bool) -> Option<&T> {
    entries.iter().map(|entry| &entry.object).find(|object| wanted(object))
}
