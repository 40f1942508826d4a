//! The metal layer's tables. Every change of a state names the state it expects (`WHERE status = …`) and tells whether it
//! found it, so that two who act at once cannot both win.

mod jobs;
mod pull_registries;
mod rows;
mod servers;
mod transitions;

use store::{Migration, Store, StoreError};

pub use jobs::{Inserted, JobFilter, NewJob, WAITS};
pub use transitions::{Delivery, Ending};

/// The layer's migrations; versions start at 20 001.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 20_001, name: "servers and jobs", sql: include_str!("../migrations.sql") },
    Migration { version: 20_002, name: "pull registries", sql: include_str!("../migration_pull_registries.sql") },
];

/// Access to the layer's tables.
#[derive(Clone)]
pub struct MetalStore {
    store: Store,
}

/// The database did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("cannot {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// The driver's word.
        #[source]
        source: sqlx::Error,
    },
    /// A transaction could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored value is none that this program writes.
    #[error("cannot read {column} of a row in {table}: {problem}")]
    Row {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl MetalStore {
    /// Uses an open store whose migrations include [`MIGRATIONS`].
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

/// Names what was being done when a statement failed.
fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Sql { doing, source }
}

#[cfg(test)]
mod tests;
