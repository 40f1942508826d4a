//! Upload sessions. A session is one file; its length is the offset, so it outlives the process.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::received::{Hashing, Known, Received};
use super::session::{Session, Turn};
use super::{Inner, Storage, StorageError, files, finished, lock};
use crate::{Algorithm, Digest, RepositoryName};

/// Bytes that are gathered before they go to the blocking pool. While one batch is written the next is gathered.
const BATCH: usize = 512 << 10;

/// Writing of a batch; its result is the hashing of that batch where it goes on.
type Writing = JoinHandle<Result<Option<Hashing>, StorageError>>;

/// A session that this request may write to until a later one takes it over. Dropping it keeps the bytes.
#[derive(Debug)]
pub struct Upload {
    storage: Storage,
    session: Arc<Session>,
    id: Uuid,
    superseded: CancellationToken,
    /// Goes with every piece of blocking work: when the request is dropped, the next one waits for that work to end.
    turn: Arc<Turn>,
}

impl Storage {
    /// Begins an upload session. `algorithm` is what its digest will be of; when it turns out to be of another one, or
    /// the process was restarted meanwhile, the bytes are hashed once more at the end.
    ///
    /// # Errors
    /// [`StorageError::NearlyFull`], or the session's file cannot be made.
    pub async fn start_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<Upload, StorageError> {
        let id = Uuid::new_v4();
        let path = self.inner.layout.upload(repository, id);
        let session = Arc::new(Session::new(repository.clone(), path, algorithm));
        let new = Arc::clone(&session);
        self.run(move |inner| {
            inner.check_free()?;
            if let Some(directory) = new.path.parent() {
                files::create_directory(directory)?;
            }
            *lock(&new.received) = Known::Open(Received::create(&new.path, new.algorithm)?);
            Ok(())
        })
        .await?;
        lock(&self.inner.sessions).insert(id, Arc::clone(&session));
        self.claim(session, id).await
    }

    /// Takes a session over, also one from before a restart. A request that was still writing to it ends with
    /// [`StorageError::UploadSuperseded`].
    ///
    /// # Errors
    /// [`StorageError::UploadUnknown`] when this repository has no such session.
    pub async fn upload(&self, repository: &RepositoryName, id: Uuid) -> Result<Upload, StorageError> {
        let session = self.session(repository, id).await?;
        self.claim(session, id).await
    }

    /// Bytes that a session has so far; does not disturb a request that is writing to it.
    ///
    /// # Errors
    /// [`StorageError::UploadUnknown`] when this repository has no such session.
    pub async fn upload_offset(&self, repository: &RepositoryName, id: Uuid) -> Result<u64, StorageError> {
        let path = self.session(repository, id).await?.path.clone();
        self.run(move |_| files::size_of(&path)?.ok_or(StorageError::UploadUnknown)).await
    }

    async fn session(&self, repository: &RepositoryName, id: Uuid) -> Result<Arc<Session>, StorageError> {
        let known = lock(&self.inner.sessions).get(&id).cloned();
        if let Some(session) = known {
            return if session.repository == *repository { Ok(session) } else { Err(StorageError::UploadUnknown) };
        }
        let path = self.inner.layout.upload(repository, id);
        let look = path.clone();
        self.run(move |_| files::size_of(&look)?.ok_or(StorageError::UploadUnknown)).await?;
        let new = Arc::new(Session::new(repository.clone(), path, Algorithm::Sha256));
        Ok(Arc::clone(lock(&self.inner.sessions).entry(id).or_insert(new)))
    }

    async fn claim(&self, session: Arc<Session>, id: Uuid) -> Result<Upload, StorageError> {
        let superseded = CancellationToken::new();
        std::mem::replace(&mut *lock(&session.latest), superseded.clone()).cancel();
        let turn = Turn::of(Arc::clone(&self.inner), Arc::clone(&session), id).await;
        let upload = Upload { storage: self.clone(), session, id, superseded, turn: Arc::new(turn) };
        if upload.superseded.is_cancelled() {
            return Err(StorageError::UploadSuperseded);
        }
        // The one before may have finished or cancelled the session.
        match upload.offset().await {
            Err(StorageError::UploadUnknown) => {
                lock(&self.inner.sessions).remove(&id);
                Err(StorageError::UploadUnknown)
            }
            result => result.map(|_| upload),
        }
    }
}

impl Upload {
    /// The session's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Bytes that are there.
    ///
    /// # Errors
    /// The file of a session from before a restart cannot be read.
    pub async fn offset(&self) -> Result<u64, StorageError> {
        // Nothing of the session is being written: this request has its turn.
        let known = lock(&self.session.received).offset();
        match known {
            Some(offset) => Ok(offset),
            None => self.run(|_, session| Ok(session.open(&mut lock(&session.received))?.offset)).await,
        }
    }

    /// Appends a body and returns the new offset in bytes. `announced` is the body's length where the client gave one.
    /// What has arrived is kept when the body breaks off, so that the client can go on from there.
    ///
    /// # Errors
    /// [`StorageError::Interrupted`], [`StorageError::TooLarge`] (the session is removed), [`StorageError::ChunkLength`]
    /// (the offset goes back to where it was), [`StorageError::UploadSuperseded`], or the disk's error; where that is
    /// [full](StorageError::is_full), the session is removed too.
    pub async fn append<S, E>(&self, body: S, announced: Option<u64>) -> Result<u64, StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begin = self.offset().await?;
        let limit = self.storage.inner.limits.max_blob_size;
        match self.copy(body, begin, announced.unwrap_or(u64::MAX)).await {
            Ok(end) if end > limit => {
                self.remove().await?;
                Err(StorageError::TooLarge { limit })
            }
            Ok(end) => match announced {
                Some(announced) if announced != end - begin => {
                    self.truncate(begin).await?;
                    Err(StorageError::ChunkLength { announced, got: end - begin })
                }
                _ => Ok(end),
            },
            Err(error) if error.is_full() => {
                // Few clients come back to it, and for a day nobody else would have the room.
                if let Err(left) = self.remove().await {
                    tracing::warn!(error = &left as &dyn std::error::Error, "an upload that found no room stays");
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Copies until the body ends, or until one batch more than `most` bytes or than a blob may have has come.
    async fn copy<S, E>(&self, body: S, begin: u64, most: u64) -> Result<u64, StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut body = std::pin::pin!(body);
        let limit = self.storage.inner.limits.max_blob_size.min(begin.saturating_add(most));
        let mut end = begin;
        let mut writing: Option<Writing> = None;
        loop {
            let (batch, broken) = tokio::select! {
                gathered = gather(&mut body) => gathered,
                () = self.superseded.cancelled() => (Vec::new(), Some(StorageError::UploadSuperseded)),
            };
            let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
            if let Some(earlier) = writing.take() {
                written(earlier).await?;
            }
            end += length;
            if length > 0 && end <= limit {
                let (session, turn) = (Arc::clone(&self.session), Arc::clone(&self.turn));
                let inner = Arc::clone(&self.storage.inner);
                writing = Some(tokio::task::spawn_blocking(move || write(&inner, &session, &turn, &batch.into())));
            }
            if broken.is_some() || length == 0 || end > limit {
                if let Some(last) = writing.take() {
                    written(last).await?;
                }
                return broken.map_or(Ok(end), Err);
            }
        }
    }

    /// Checks the digest, brings the bytes to the disk and lets the repository hold the blob. Returns its size in bytes.
    ///
    /// # Errors
    /// [`StorageError::DigestMismatch`] and [`StorageError::Sync`]; the session and its bytes are gone then.
    pub async fn finish(self, digest: &Digest) -> Result<u64, StorageError> {
        let (expected, id) = (digest.clone(), self.id);
        self.run(move |inner, session| {
            let mut known = lock(&session.received);
            let received = session.open(&mut known)?;
            let size = received.offset;
            let actual = received
                .digest(expected.algorithm())
                .map_err(|source| StorageError::Read { path: session.path.clone(), source })?;
            let result = if actual == expected {
                session.settle(inner, id, &mut known, Known::sync)?;
                // Should the next steps fail, it is looked for anew: it may have been moved already.
                *known = Known::Nothing;
                let _changing = inner.changing(&session.repository);
                inner.commit_blob(&session.path, &expected, size)?;
                inner.hold_blob(&session.repository, &expected).map(|()| size)
            } else {
                files::remove(&session.path)?;
                Err(StorageError::DigestMismatch { expected, actual })
            };
            *known = Known::Nothing;
            lock(&inner.sessions).remove(&id);
            result
        })
        .await
    }

    /// Ends the session and removes its bytes.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub async fn cancel(self) -> Result<(), StorageError> {
        self.remove().await
    }

    async fn remove(&self) -> Result<(), StorageError> {
        let id = self.id;
        self.run(move |inner, session| {
            let mut known = lock(&session.received);
            files::remove(&session.path)?;
            *known = Known::Nothing;
            lock(&inner.sessions).remove(&id);
            Ok(())
        })
        .await
    }

    async fn truncate(&self, offset: u64) -> Result<(), StorageError> {
        self.run(move |_, session| {
            let mut known = lock(&session.received);
            let result = match &*known {
                Known::Open(received) => received.file.set_len(offset),
                Known::Closed { .. } | Known::Nothing => Ok(()),
            };
            *known = Known::Nothing;
            result.map_err(|source| StorageError::Write { path: session.path.clone(), source })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Session) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (session, turn) = (Arc::clone(&self.session), Arc::clone(&self.turn));
        self.storage
            .run(move |inner| {
                let _turn = turn;
                work(inner, &session)
            })
            .await
    }
}

/// The next batch of a body, and why it ends early if it does. An empty batch without a reason is the end.
async fn gather<S, E>(body: &mut S) -> (Vec<Bytes>, Option<StorageError>)
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        match body.next().await {
            Some(Ok(bytes)) => {
                length += bytes.len();
                batch.push(bytes);
            }
            Some(Err(error)) => return (batch, Some(StorageError::Interrupted(error.into()))),
            None => break,
        }
    }
    (batch, None)
}

/// Waits until a batch is written and hashed.
async fn written(writing: Writing) -> Result<(), StorageError> {
    match finished(writing).await? {
        Some(hashing) => finished(hashing).await,
        None => Ok(()),
    }
}

/// Writes a batch under the session's lock. The turn is kept until it is hashed too: when the request is dropped
/// meanwhile, the next one finds both in step.
fn write(
    inner: &Inner,
    session: &Session,
    turn: &Arc<Turn>,
    batch: &Arc<[Bytes]>,
) -> Result<Option<Hashing>, StorageError> {
    inner.check_free()?;
    let begun = Instant::now();
    let mut known = lock(&session.received);
    let received = session.open(&mut known)?;
    let before = received.offset;
    match received.append(batch, turn) {
        Ok(hashing) => {
            inner.wrote(begun);
            Ok(hashing)
        }
        Err(source) => {
            // Back to the last whole batch; if even that fails, what is there is read anew.
            let _ = received.file.set_len(before);
            *known = Known::Nothing;
            Err(StorageError::Write { path: session.path.clone(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::path::Path;

    use super::super::open::OPEN_SESSIONS;
    use super::super::{Limits, Usage};
    use super::*;

    fn name() -> RepositoryName {
        "a".parse().unwrap()
    }

    async fn append(upload: &Upload, bytes: &'static [u8]) {
        let body = futures::stream::iter([Ok::<_, io::Error>(Bytes::from_static(bytes))]);
        upload.append(body, None).await.unwrap();
    }

    /// Files of upload sessions below this root that are open.
    fn open_below(root: &Path) -> usize {
        let uploads = root.join("repositories");
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(&uploads)).count()
    }

    #[tokio::test]
    async fn bytes_that_may_not_have_reached_the_disk_are_not_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
        let upload = storage.start_upload(&name(), Algorithm::Sha256).await.unwrap();
        append(&upload, b"layer").await;
        if let Known::Open(received) = &mut *lock(&upload.session.received) {
            // What cannot be synced.
            received.file = File::open("/dev/null").unwrap();
        }
        let (id, path) = (upload.id(), upload.session.path.clone());
        let failed = upload.finish(&Digest::sha256_of(b"layer")).await;
        assert!(matches!(failed, Err(StorageError::Sync { .. })), "{failed:?}");
        assert!(!path.exists());
        assert!(matches!(storage.upload(&name(), id).await, Err(StorageError::UploadUnknown)));
        assert_eq!(storage.usage(), Usage::default());
    }

    #[tokio::test]
    async fn sessions_that_wait_keep_few_files_open() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..OPEN_SESSIONS + 3 {
            ids.push(storage.start_upload(&name(), Algorithm::Sha256).await.unwrap().id());
        }
        assert_eq!(open_below(directory.path()), 0, "empty ones");
        for id in &ids {
            append(&storage.upload(&name(), *id).await.unwrap(), b"half").await;
        }
        for id in &ids {
            // Has its turn when the last one's file is closed.
            assert_eq!(storage.upload(&name(), *id).await.unwrap().offset().await.unwrap(), 4);
        }
        assert_eq!(open_below(directory.path()), OPEN_SESSIONS);

        // One of them was changed by somebody else.
        let closed = &ids[OPEN_SESSIONS..];
        fs::write(storage.inner.layout.upload(&name(), closed[2]), b"other").unwrap();
        for (id, whole) in closed.iter().zip([&b"half and half"[..], b"half and half", b"other and half"]) {
            let upload = storage.upload(&name(), *id).await.unwrap();
            append(&upload, b" and half").await;
            assert_eq!(upload.finish(&Digest::sha256_of(whole)).await.unwrap(), whole.len() as u64);
        }
        for id in &ids[..OPEN_SESSIONS] {
            storage.upload(&name(), *id).await.unwrap().cancel().await.unwrap();
        }
        assert_eq!(open_below(directory.path()), 0);
        assert_eq!(storage.inner.open_sessions.available_permits(), OPEN_SESSIONS);
    }
}
