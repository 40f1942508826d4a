//! Upload sessions. A session is one file; its length is the offset, so it outlives the process.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inner, Storage, StorageError, files, finished, layout, lock};
use crate::{Algorithm, Digest, Hasher, RepositoryName};

/// Bytes that are gathered before they go to the blocking pool. While one batch is written the next is gathered.
const BATCH: usize = 512 << 10;

/// What all requests of one session share.
#[derive(Debug)]
pub(super) struct Session {
    repository: RepositoryName,
    path: PathBuf,
    /// `None` until first used after a start, and after a failed write: then the file is read and hashed anew.
    content: Mutex<Option<Content>>,
    /// One request writes at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when a later request comes: a connection that hangs must not keep its successor out.
    latest: Mutex<CancellationToken>,
}

#[derive(Debug)]
struct Content {
    file: File,
    hasher: Hasher,
    offset: u64,
}

/// A session that this request may write to until a later one takes it over. Dropping it keeps the bytes.
#[derive(Debug)]
pub struct Upload {
    storage: Storage,
    session: Arc<Session>,
    id: Uuid,
    superseded: CancellationToken,
    /// Goes with every piece of blocking work: when the request is dropped, the next one waits for that work to end.
    turn: Arc<tokio::sync::OwnedMutexGuard<()>>,
}

impl Storage {
    /// Begins an upload session.
    ///
    /// # Errors
    /// The session's file cannot be made.
    pub async fn start_upload(&self, repository: &RepositoryName) -> Result<Upload, StorageError> {
        let id = Uuid::new_v4();
        let path = self.inner.layout.upload(repository, id);
        let new = path.clone();
        self.run(move |_| {
            if let Some(directory) = new.parent() {
                files::create_directory(directory)?;
            }
            File::create_new(&new).map(drop).map_err(|source| StorageError::Create { path: new, source })
        })
        .await?;
        let session = Arc::new(Session::new(repository.clone(), path));
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

    /// Removes the sessions that nobody has written to for [`super::Limits::upload_expiry`] and returns how many those
    /// were. Done at start; a program that runs for long does it from time to time, for each session holds a file open.
    ///
    /// # Errors
    /// A directory cannot be listed or a file not be removed.
    pub async fn expire_uploads(&self) -> Result<u64, StorageError> {
        self.run(|inner| inner.expire_uploads()).await
    }

    async fn session(&self, repository: &RepositoryName, id: Uuid) -> Result<Arc<Session>, StorageError> {
        let known = lock(&self.inner.sessions).get(&id).cloned();
        if let Some(session) = known {
            return if session.repository == *repository { Ok(session) } else { Err(StorageError::UploadUnknown) };
        }
        let path = self.inner.layout.upload(repository, id);
        let look = path.clone();
        self.run(move |_| files::size_of(&look)?.ok_or(StorageError::UploadUnknown)).await?;
        let new = Arc::new(Session::new(repository.clone(), path));
        Ok(Arc::clone(lock(&self.inner.sessions).entry(id).or_insert(new)))
    }

    async fn claim(&self, session: Arc<Session>, id: Uuid) -> Result<Upload, StorageError> {
        let superseded = CancellationToken::new();
        std::mem::replace(&mut *lock(&session.latest), superseded.clone()).cancel();
        let turn = Arc::clone(&session.turn).lock_owned().await;
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

impl Inner {
    pub(super) fn expire_uploads(&self) -> Result<u64, StorageError> {
        let mut expired = Vec::new();
        self.walk_repositories(&mut |name, _| {
            let directory = self.layout.repository(name).join(layout::UPLOADS);
            for (id, kind) in files::list(&directory)? {
                let path = directory.join(&id);
                // The file system's own clock wrote the time that this compares with.
                let age =
                    fs::symlink_metadata(&path).and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
                let is_old = matches!(age, Ok(Ok(age)) if age > self.limits.upload_expiry);
                if let (false, true, Ok(id)) = (kind.is_dir(), is_old, Uuid::try_parse(&id)) {
                    expired.push((id, path));
                }
            }
            Ok(())
        })?;
        let mut removed = 0;
        for (id, path) in expired {
            let session = lock(&self.sessions).get(&id).cloned();
            // Whoever is writing, however slowly, keeps the session.
            let turn = session.as_ref().map(|session| session.turn.try_lock());
            if matches!(turn, Some(Err(_))) {
                continue;
            }
            tracing::info!(path = %path.display(), "removing an abandoned upload");
            files::remove(&path)?;
            lock(&self.sessions).remove(&id);
            removed += 1;
        }
        Ok(removed)
    }
}

impl Session {
    fn new(repository: RepositoryName, path: PathBuf) -> Self {
        let (turn, latest) = (Arc::default(), Mutex::new(CancellationToken::new()));
        Self { repository, path, content: Mutex::new(None), turn, latest }
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
        self.run(|_, session| Ok(opened(&mut lock(&session.content), &session.path)?.offset)).await
    }

    /// Appends a body and returns the new offset in bytes. `announced` is the body's length where the client gave one.
    /// What has arrived is kept when the body breaks off, so that the client can go on from there.
    ///
    /// # Errors
    /// [`StorageError::Interrupted`], [`StorageError::TooLarge`] (the session is removed), [`StorageError::ChunkLength`]
    /// (the offset goes back to where it was), [`StorageError::UploadSuperseded`], or the disk's error.
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
        let mut writing: Option<JoinHandle<Result<(), StorageError>>> = None;
        loop {
            let (batch, broken) = tokio::select! {
                gathered = gather(&mut body) => gathered,
                () = self.superseded.cancelled() => (Vec::new(), Some(StorageError::UploadSuperseded)),
            };
            let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
            if let Some(earlier) = writing.take() {
                finished(earlier).await?;
            }
            end += length;
            if length > 0 && end <= limit {
                let (session, turn) = (Arc::clone(&self.session), Arc::clone(&self.turn));
                writing = Some(tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    write(&session, &batch)
                }));
            }
            if broken.is_some() || length == 0 || end > limit {
                if let Some(last) = writing.take() {
                    finished(last).await?;
                }
                return broken.map_or(Ok(end), Err);
            }
        }
    }

    /// Checks the digest, brings the bytes to the disk and lets the repository hold the blob. Returns its size in bytes.
    ///
    /// # Errors
    /// [`StorageError::DigestMismatch`]; the session and its bytes are gone then.
    pub async fn finish(self, digest: &Digest) -> Result<u64, StorageError> {
        let (expected, id) = (digest.clone(), self.id);
        self.run(move |inner, session| {
            let mut slot = lock(&session.content);
            let content = opened(&mut slot, &session.path)?;
            let (actual, size) = (content.hasher.clone().finish(), content.offset);
            let result = if actual == expected {
                content.file.sync_all().map_err(|source| StorageError::Sync { path: session.path.clone(), source })?;
                let _committing = inner.committing();
                inner.commit_blob(&session.path, &expected, size)?;
                inner.hold_blob(&session.repository, &expected).map(|()| size)
            } else {
                files::remove(&session.path)?;
                Err(StorageError::DigestMismatch { expected, actual })
            };
            slot.take();
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
            let mut slot = lock(&session.content);
            files::remove(&session.path)?;
            slot.take();
            lock(&inner.sessions).remove(&id);
            Ok(())
        })
        .await
    }

    async fn truncate(&self, offset: u64) -> Result<(), StorageError> {
        self.run(move |_, session| {
            let mut slot = lock(&session.content);
            let result = slot.as_ref().map_or(Ok(()), |content| content.file.set_len(offset));
            slot.take();
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

/// Writes and hashes in one go under the session's lock: a request that is dropped meanwhile leaves both in step.
fn write(session: &Session, batch: &[Bytes]) -> Result<(), StorageError> {
    let mut guard = lock(&session.content);
    let content = opened(&mut guard, &session.path)?;
    let before = content.offset;
    for bytes in batch {
        if let Err(source) = content.file.write_all(bytes) {
            // Back to the last whole batch; if even that fails, what is there is read anew.
            let _ = content.file.set_len(before);
            guard.take();
            return Err(StorageError::Write { path: session.path.clone(), source });
        }
        content.hasher.update(bytes);
        content.offset += bytes.len() as u64;
    }
    Ok(())
}

fn opened<'a>(slot: &'a mut Option<Content>, path: &Path) -> Result<&'a mut Content, StorageError> {
    let content = match slot.take() {
        Some(content) => content,
        None => reopen(path)?,
    };
    Ok(slot.insert(content))
}

/// Opens a session's file and hashes what is there.
fn reopen(path: &Path) -> Result<Content, StorageError> {
    let failed = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            StorageError::UploadUnknown
        } else {
            StorageError::Read { path: path.to_owned(), source }
        }
    };
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut hasher = Algorithm::Sha256.hasher();
    let mut buffer = vec![0; BATCH];
    let mut offset = 0;
    while offset < length {
        let wanted = usize::try_from(length - offset).unwrap_or(BATCH).min(BATCH);
        file.read_exact(&mut buffer[..wanted]).map_err(failed)?;
        hasher.update(&buffer[..wanted]);
        offset += wanted as u64;
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    Ok(Content { file, hasher, offset })
}
