//! The metal layer's tables. Every change of a state names the state it expects (`WHERE status = …`) and tells whether it
//! found it, so that two who act at once cannot both win.

mod jobs;
mod pull_registries;
mod rows;
mod servers;
mod transitions;

pub use store::QueryError as Error;
use store::{Migration, Store, doing};

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

impl MetalStore {
    /// Uses an open store whose migrations include [`MIGRATIONS`].
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[cfg(test)]
mod tests;
