//! What is being asked of upstreams at this moment, so that whoever asks for the same joins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;

use super::blob::Progress;
use super::manifest::Looked;
use crate::{Digest, RepositoryName, Selector};

type Look = BoxFuture<'static, Looked>;

/// Requests on their way, each by the local repository and what is asked for.
#[derive(Default)]
pub(super) struct Flights {
    manifests: Mutex<HashMap<(RepositoryName, Selector), WeakShared<Look>>>,
    blobs: Mutex<HashMap<(RepositoryName, Digest), watch::Receiver<Progress>>>,
}

impl Flights {
    /// The look for this manifest that is under way, or a new one. It goes on for as long as somebody waits for it.
    pub(super) fn look(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        begin: impl FnOnce() -> Look,
    ) -> Shared<Look> {
        let mut manifests = lock(&self.manifests);
        let key = (repository.clone(), selector.clone());
        if let Some(look) = manifests.get(&key).and_then(WeakShared::upgrade) {
            return look;
        }
        manifests.retain(|_, look| look.upgrade().is_some());
        let look = begin().shared();
        if let Some(weak) = look.downgrade() {
            manifests.insert(key, weak);
        }
        look
    }

    /// The transfer of this blob that is under way; or the sender of a new one's progress, which the caller begins.
    pub(super) fn join(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> (watch::Receiver<Progress>, Option<watch::Sender<Progress>>) {
        let mut blobs = lock(&self.blobs);
        let key = (repository.clone(), digest.clone());
        // One whose sender is gone came to no end and will not.
        if let Some(progress) = blobs.get(&key).filter(|progress| progress.has_changed().is_ok()) {
            return (progress.clone(), None);
        }
        let (sender, progress) = watch::channel(Progress::Asking);
        blobs.insert(key, progress.clone());
        (progress, Some(sender))
    }

    /// Takes a transfer out: whoever asks from now on looks anew.
    pub(super) fn land(&self, repository: &RepositoryName, digest: &Digest) {
        lock(&self.blobs).remove(&(repository.clone(), digest.clone()));
    }
}

/// The lock, also after a panic elsewhere: a map is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For those who wait together: one error for all of them.
pub(super) type Together<T> = Result<T, Arc<super::CacheError>>;
