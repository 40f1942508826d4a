//! Settings in layers, with the origin of every value: built-in < file < environment < flags.
//!
//! A role declares a table of [`Key`]s; a [`Resolver`] takes the layers in, a [`Resolved`] answers. This crate is the
//! only place of the controller that reads the environment ([`process_environment`]); everything else is handed in,
//! so that a test needs no process of its own.

mod error;
mod files;
mod key;
mod resolved;
mod resolver;
mod values;

use std::collections::BTreeMap;

pub use error::SettingsError;
pub use key::{Key, Origin};
pub use resolved::{Resolved, Row};
pub use resolver::Resolver;
pub use values::{parse_boolean, parse_duration, parse_size};

/// The environment of this process. A value that is not UTF-8 keeps its readable part, so that the error about it
/// can show it.
pub fn process_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}
