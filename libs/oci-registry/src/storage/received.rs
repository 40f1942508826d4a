//! What an upload session has received so far: a file, and the hash of what is in it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::fs::Advice;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::{StorageError, files, lock};
use crate::{Algorithm, Digest, Hasher};

/// Batches smaller than this are hashed by the thread that writes them: to wake another one takes longer.
const ALONE: u64 = 64 << 10;
/// Bytes after which the disk is told to begin with them, so that little is left to wait for at the end.
const WRITE_BACK: u64 = 4 << 20;
/// Bytes that are written in one go. The kernel caches in pieces of that size, and memory for small pieces is at hand,
/// while a virtual machine may first have to get memory for large ones from its host.
const WRITE: usize = 16 << 10;
/// Bytes of a file that are read in one go.
const READ: usize = 512 << 10;

/// Hashing that goes on beside what follows.
pub(super) type Hashing = JoinHandle<Result<(), StorageError>>;

#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: File,
    /// Bytes in the file.
    pub(super) offset: u64,
    algorithm: Algorithm,
    /// Of all these bytes, as soon as the hashing that was begun is done.
    hasher: Arc<Mutex<Hasher>>,
    /// While it is there, the file may stay open between two requests.
    place: Option<OwnedSemaphorePermit>,
}

/// What is known of a session's file.
#[derive(Debug, Default)]
pub(super) enum Known {
    /// Nothing yet, or nothing any more after a failed write: the file has to be read and hashed anew.
    #[default]
    Nothing,
    /// Its length and hash. It is closed, and its bytes are on the disk.
    Closed { offset: u64, algorithm: Algorithm, hasher: Arc<Mutex<Hasher>> },
    /// It is open.
    Open(Received),
}

impl Known {
    /// Bytes in the file.
    pub(super) fn offset(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Closed { offset, .. } => Some(*offset),
            Self::Open(received) => Some(received.offset),
        }
    }

    /// The file as it is known; opened, and hashed if it has to be.
    pub(super) fn open(&mut self, path: &Path, algorithm: Algorithm) -> Result<&mut Received, StorageError> {
        let received = match std::mem::take(self) {
            Self::Open(received) => received,
            Self::Closed { offset, algorithm, hasher } => {
                let mut file = open(path)?;
                let end = file.seek(SeekFrom::End(0));
                let at = end.map_err(|source| StorageError::Read { path: path.to_owned(), source })?;
                if at == offset {
                    Received { file, offset, algorithm, hasher, place: None }
                } else {
                    tracing::warn!(path = %path.display(), expected = offset, found = at, "an upload's file was changed");
                    Received::read(file, path, algorithm)?
                }
            }
            Self::Nothing => Received::read(open(path)?, path, algorithm)?,
        };
        *self = Self::Open(received);
        match self {
            Self::Open(received) => Ok(received),
            _ => Err(StorageError::UploadUnknown),
        }
    }

    /// Nobody writes for now. Whether the file still has to be closed: it holds bytes, and none of `places` is free, in
    /// which it may stay open. An empty one is closed here.
    pub(super) fn rest(&mut self, places: &Arc<Semaphore>) -> bool {
        let Self::Open(received) = self else { return false };
        if received.offset == 0 {
            *self = std::mem::take(self).closed();
            return false;
        }
        if received.place.is_none() {
            received.place = Arc::clone(places).try_acquire_owned().ok();
        }
        received.place.is_none()
    }

    /// Brings the bytes of an open file to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Self::Open(received) = self { received.file.sync_all() } else { Ok(()) }
    }

    /// Closes the file. Its bytes go to the disk first: what goes wrong with them while no descriptor is open might
    /// never be told.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        *self = std::mem::take(self).closed();
        Ok(())
    }

    fn closed(self) -> Self {
        match self {
            Self::Open(Received { offset, algorithm, hasher, .. }) => Self::Closed { offset, algorithm, hasher },
            known => known,
        }
    }
}

impl Received {
    /// A new file with nothing in it.
    pub(super) fn create(path: &Path, algorithm: Algorithm) -> Result<Self, StorageError> {
        let file = files::writing().read(true).create_new(true).open(path);
        let file = file.map_err(|source| StorageError::Create { path: path.to_owned(), source })?;
        Ok(Self { file, offset: 0, algorithm, hasher: Arc::new(Mutex::new(algorithm.hasher())), place: None })
    }

    /// An open file, with the hash of what is there.
    fn read(mut file: File, path: &Path, algorithm: Algorithm) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Read { path: path.to_owned(), source };
        let offset = file.metadata().map_err(failed)?.len();
        let hasher = Arc::new(Mutex::new(hash(&mut file, algorithm, offset).map_err(failed)?));
        Ok(Self { file, offset, algorithm, hasher, place: None })
    }

    /// Writes a batch while another thread hashes it. `turn` lives until both are done. After an error neither the file
    /// nor the hash can be relied on.
    pub(super) fn append<T>(&mut self, batch: &Arc<[Bytes]>, turn: &Arc<T>) -> io::Result<Option<Hashing>>
    where
        T: Send + Sync + 'static,
    {
        let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        let hasher = Arc::clone(&self.hasher);
        let hashing = if length < ALONE {
            batch.iter().for_each(|bytes| lock(&hasher).update(bytes));
            None
        } else {
            let (batch, turn) = (Arc::clone(batch), Arc::clone(turn));
            Some(tokio::task::spawn_blocking(move || {
                let _turn = turn;
                batch.iter().for_each(|bytes| lock(&hasher).update(bytes));
                Ok(())
            }))
        };
        for part in batch.iter().flat_map(|bytes| bytes.chunks(WRITE)) {
            self.file.write_all(part)?;
        }
        let before = self.offset;
        self.offset += length;
        self.write_back(before);
        Ok(hashing)
    }

    /// Has the disk begin with the blocks that have become full since `before`. The kernel is told that nobody needs
    /// them: what is not on the disk yet it begins to write then, and forgets nothing.
    fn write_back(&self, before: u64) {
        let (from, to) = (before - before % WRITE_BACK, self.offset - self.offset % WRITE_BACK);
        if let Some(length) = NonZeroU64::new(to - from) {
            let _ = rustix::fs::fadvise(&self.file, from, Some(length), Advice::DontNeed);
        }
    }

    /// The digest of all of it; read once more when it was hashed with another algorithm.
    pub(super) fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        if self.algorithm == algorithm {
            return Ok(lock(&self.hasher).clone().finish());
        }
        Ok(hash(&mut self.file, algorithm, self.offset)?.finish())
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    files::writing().read(true).open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StorageError::UploadUnknown,
        _ if files::is_link(&source) => StorageError::UploadUnknown,
        _ => StorageError::Read { path: path.to_owned(), source },
    })
}

/// Hashes a file's first `length` bytes and leaves it positioned behind them.
fn hash(file: &mut File, algorithm: Algorithm, length: u64) -> io::Result<Hasher> {
    file.rewind()?;
    let mut hasher = algorithm.hasher();
    let mut buffer = vec![0; READ];
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(READ).min(READ);
        file.read_exact(&mut buffer[..wanted])?;
        hasher.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    Ok(hasher)
}
