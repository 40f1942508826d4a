//! Upkeep of a registry that is in use: collecting what nothing needs any more, checking what is there, telling what
//! takes room, and letting old tags go.
//!
//! One piece of upkeep runs at a time. It looks at a repository while others change it, and changes only what it sees
//! once more, or knows to be unchanged, while nobody else can. A push waits for some hundred renames at most, with two
//! exceptions: a repository that changes again with each look is at last looked at and swept in one piece (to leave it
//! out would be to let it grow for as long as it is busy), and a check that took damaged blobs out counts those that are
//! left.

mod check;
mod collect;
mod content;
mod finding;
mod plan;
mod quarantine;
mod records;
mod report;
mod restore;
mod retain;
mod retention;
mod snapshot;
#[cfg(test)]
mod tests;
mod usage;

use tokio_util::sync::CancellationToken;

pub use finding::{CheckOptions, CheckProgress, CheckReport, Finding, FindingKind};
pub use plan::DigestOnly;
pub use quarantine::QuarantinedRun;
pub use report::{CollectOptions, CollectReport, Kind, Skipped, TakenOut};
pub use restore::RestoreReport;
pub use retain::{RemovedTag, RetentionReport};
pub use retention::{Keep, RetentionRule};
pub use usage::{RepositoryUsage, StoredBlob};

use super::{Inner, Storage, StorageError};

impl Storage {
    /// Runs upkeep on the blocking pool when its turn comes. The token is cancelled when nobody waits for it any more.
    async fn upkeep<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &CancellationToken) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let turn = std::sync::Arc::clone(&self.inner.maintenance).lock_owned().await;
        let abandoned = CancellationToken::new();
        let _stop = abandoned.clone().drop_guard();
        self.run(move |inner| {
            let _turn = turn;
            work(inner, &abandoned)
        })
        .await
    }
}

fn unless(abandoned: &CancellationToken) -> Result<(), StorageError> {
    if abandoned.is_cancelled() { Err(StorageError::Stopping) } else { Ok(()) }
}
