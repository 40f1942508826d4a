//! Where a command works: through a daemon, or on a directory that no daemon holds.

use std::path::Path;

use cairn_core::{ErrorKind, chain};
use cli::{Daemon, Endpoint};
use oci_registry::storage::{Limits, Storage, StorageError};
use web::Problem;

use super::Place;
use crate::errors;

/// One of both.
pub(super) enum Target {
    /// The directory.
    Directory(Storage),
    /// The daemon.
    Daemon(Daemon),
}

impl Target {
    pub(super) async fn open(place: &Place, endpoint: &Endpoint) -> Result<Self, Problem> {
        match &place.storage {
            Some(directory) => open(directory).await.map(Self::Directory),
            None => Daemon::new(endpoint).map(Self::Daemon),
        }
    }
}

/// Opens a registry that is there; a directory that is none is not made one.
pub(super) async fn open(directory: &Path) -> Result<Storage, Problem> {
    if !directory.join("oci-layout").is_file() || !directory.join("repositories").is_dir() {
        let detail = format!("{} is no registry", directory.display());
        return Err(Problem::new(ErrorKind::NotFound, errors::REGISTRY, detail)
            .hint("name the directory that REGISTRY_STORAGE names, by default oci in the data directory"));
    }
    Storage::open(directory, Limits::default()).await.map_err(|error| match error {
        StorageError::Locked { .. } => Problem::new(ErrorKind::Conflict, errors::REGISTRY_LOCKED, chain(&error))
            .hint("leave --storage out: the daemon that holds it does this, at --url"),
        error => Problem::new(ErrorKind::Failed, errors::REGISTRY, chain(&error)),
    })
}

/// The directory did not do as it was told.
pub(super) fn storage_problem(error: &StorageError) -> Problem {
    match error {
        StorageError::RunUnknown { .. } => {
            Problem::new(ErrorKind::NotFound, errors::REGISTRY_RUN_UNKNOWN, chain(error)).hint(errors::NAME_A_RUN)
        }
        error => Problem::new(ErrorKind::Failed, errors::REGISTRY_STORAGE, chain(error)),
    }
}
