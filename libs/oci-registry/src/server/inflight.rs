//! Requests that send a blob: how many may at once, and which do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::Observer;
use crate::RepositoryName;

/// A request that is sending a blob's bytes.
#[derive(Debug, Clone)]
pub struct UploadInFlight {
    /// Where to.
    pub repository: RepositoryName,
    /// The upload session.
    pub id: Uuid,
    /// Who, as the access hook named it.
    pub user: String,
    /// Bytes that this request has sent so far.
    pub bytes: u64,
    /// When its turn came.
    pub begun: Instant,
}

struct Running {
    upload: UploadInFlight,
    bytes: Arc<AtomicU64>,
}

/// All of them. Two requests for the same session may be there at once, while the later takes over.
pub(super) struct Uploads {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    next: AtomicU64,
    running: Mutex<HashMap<u64, Running>>,
}

impl Uploads {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        let (waiting, next, running) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::default());
        Arc::new(Self { turns, waiting, next, running })
    }

    pub(super) fn list(&self) -> Vec<UploadInFlight> {
        let mut uploads: Vec<UploadInFlight> = self
            .running()
            .values()
            .map(|running| UploadInFlight { bytes: running.bytes.load(Ordering::Relaxed), ..running.upload.clone() })
            .collect();
        uploads.sort_by_key(|upload| upload.begun);
        uploads
    }

    /// Requests that wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A turn; `None` when none came within `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let _waiting = Waiting::new(&self.waiting);
        tokio::time::timeout(patience, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()
    }

    /// Counts a request as in flight until what this returns is dropped.
    pub(super) fn begin(
        self: &Arc<Self>,
        turn: OwnedSemaphorePermit,
        observer: Arc<dyn Observer>,
        repository: &RepositoryName,
        id: Uuid,
        user: &str,
    ) -> InFlight {
        let (bytes, key) = (Arc::new(AtomicU64::new(0)), self.next.fetch_add(1, Ordering::Relaxed));
        let (repository, user) = (repository.clone(), user.to_owned());
        let upload = UploadInFlight { repository, id, user, bytes: 0, begun: Instant::now() };
        self.running().insert(key, Running { upload, bytes: Arc::clone(&bytes) });
        observer.upload_started();
        InFlight { uploads: Arc::clone(self), observer, key, bytes, _turn: turn }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight.
pub(super) struct InFlight {
    uploads: Arc<Uploads>,
    observer: Arc<dyn Observer>,
    key: u64,
    bytes: Arc<AtomicU64>,
    _turn: OwnedSemaphorePermit,
}

impl InFlight {
    pub(super) fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.observer.uploaded(bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.uploads.running().remove(&self.key);
        self.observer.upload_ended();
    }
}

/// Counts one that waits, also when its client gives up meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
