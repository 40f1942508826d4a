//! What an upload session is between its requests, and how it comes to rest after one.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::received::{Known, Received};
use super::{Inner, StorageError, files, lock};
use crate::{Algorithm, RepositoryName};

/// What all requests of one session share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) repository: RepositoryName,
    pub(super) path: PathBuf,
    /// What the bytes are hashed with on their way in.
    pub(super) algorithm: Algorithm,
    pub(super) received: Mutex<Known>,
    /// One request writes at a time.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when a later request comes: a connection that hangs must not keep its successor out.
    pub(super) latest: Mutex<CancellationToken>,
}

/// Held by the one request that may write, and by what it has begun on the blocking pool. With the last of them the
/// session comes to rest.
#[derive(Debug)]
pub(super) struct Turn {
    inner: Arc<Inner>,
    session: Arc<Session>,
    id: Uuid,
    /// Taken when it is dropped.
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Session {
    pub(super) fn new(repository: RepositoryName, path: PathBuf, algorithm: Algorithm) -> Self {
        let (turn, latest) = (Arc::default(), Mutex::new(CancellationToken::new()));
        Self { repository, path, algorithm, received: Mutex::default(), turn, latest }
    }

    pub(super) fn open<'a>(&self, known: &'a mut Known) -> Result<&'a mut Received, StorageError> {
        known.open(&self.path, self.algorithm)
    }

    /// Brings the bytes to the disk. When that fails nobody knows which of them are there, and a second attempt would
    /// not be told: the session and its bytes are removed.
    pub(super) fn settle(
        &self,
        inner: &Inner,
        id: Uuid,
        known: &mut Known,
        sync: impl FnOnce(&mut Known) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        sync(known).map_err(|source| {
            *known = Known::Nothing;
            if let Err(error) = files::remove(&self.path) {
                tracing::warn!(error = %error, "an upload that could not be synced stays until it expires");
            }
            lock(&inner.sessions).remove(&id);
            StorageError::Sync { path: self.path.clone(), source }
        })
    }
}

impl Turn {
    /// Waits until nobody else has it.
    pub(super) async fn of(inner: Arc<Inner>, session: Arc<Session>, id: Uuid) -> Self {
        let guard = Some(Arc::clone(&session.turn).lock_owned().await);
        Self { inner, session, id, guard }
    }
}

impl Drop for Turn {
    /// Sessions wait for their client for a day, and may be many: only some of their files stay open.
    fn drop(&mut self) {
        let guard = self.guard.take();
        if !lock(&self.session.received).rest(&self.inner.open_sessions) {
            return;
        }
        // Without a runtime the program is going down.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (inner, session, id) = (Arc::clone(&self.inner), Arc::clone(&self.session), self.id);
        runtime.spawn_blocking(move || {
            let _guard = guard;
            let settled = session.settle(&inner, id, &mut lock(&session.received), Known::close);
            if let Err(error) = settled {
                tracing::error!(error = %error, "an upload is lost");
            }
        });
    }
}
