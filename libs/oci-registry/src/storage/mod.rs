//! The registry on disk. One process holds the root directory; blocking work runs on tokio's blocking pool.
//!
//! A blob is written under another name, hashed on the way, brought to the disk and then renamed to its digest.
//! Only after that does a repository's record of it appear, then a manifest that names it, then a tag: whatever can
//! be seen is complete, wherever the process is killed. What is left over is unreachable and swept or collected.

mod blob;
mod cached;
mod contents;
mod error;
mod expire;
mod files;
mod layout;
pub mod maintenance;
mod manifest;
mod open;
mod received;
mod record;
mod referrers;
mod session;
mod upload;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use uuid::Uuid;

pub use blob::Blob;
pub use error::StorageError;
pub use manifest::{Precondition, Stored};
pub use upload::Upload;

use crate::RepositoryName;
use layout::Layout;
use session::Session;

/// Limits of a [`Storage`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest blob, in bytes.
    pub max_blob_size: u64,
    /// Largest manifest, in bytes.
    pub max_manifest_size: u64,
    /// An upload session that nobody has written to for this long is removed; see [`Storage::expire_uploads`].
    pub upload_expiry: Duration,
    /// With fewer bytes free on the disk than this, uploads and manifests end with [`StorageError::NearlyFull`].
    pub min_free: u64,
    /// Whether a tag stays where it points to until it is deleted; [`StorageError::TagImmutable`] otherwise.
    pub immutable_tags: bool,
}

impl Default for Limits {
    /// 20 GiB, 4 MiB, one day, nothing kept free, tags move.
    fn default() -> Self {
        Self {
            max_blob_size: 20 << 30,
            max_manifest_size: 4 << 20,
            upload_expiry: Duration::from_secs(24 * 3600),
            min_free: 0,
            immutable_tags: false,
        }
    }
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blobs, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Called with a repository and the names of the directories in its own.
type Visit<'a> = dyn FnMut(&RepositoryName, &[String]) -> Result<(), StorageError> + 'a;

/// A registry's directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    limits: Limits,
    sessions: Mutex<HashMap<Uuid, Arc<Session>>>,
    /// As many files of sessions that nobody writes to stay open.
    open_sessions: Arc<Semaphore>,
    /// Held over every change of what can be seen, so that a check and the change that rests on it are one.
    commit: Mutex<()>,
    /// Counts the changes of each repository since the start; see [`Inner::changing`].
    generations: Mutex<HashMap<RepositoryName, u64>>,
    /// Moving average of the time that a batch of an upload takes to be written, in microseconds.
    write_latency: AtomicU64,
    /// One piece of upkeep at a time.
    maintenance: Arc<tokio::sync::Mutex<()>>,
    blobs: AtomicU64,
    bytes: AtomicU64,
    /// Carries the lock on the root for as long as this lives.
    _lock: open::RootLock,
}

impl Storage {
    /// The limits it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// How much is stored; counted at start and kept up to date since.
    pub fn usage(&self) -> Usage {
        Usage { blobs: self.inner.blobs.load(Ordering::Relaxed), bytes: self.inner.bytes.load(Ordering::Relaxed) }
    }

    /// Bytes that are free on the disk of the root.
    ///
    /// # Errors
    /// The file system cannot tell.
    pub fn free(&self) -> Result<u64, StorageError> {
        files::free_bytes(self.inner.layout.root())
    }

    /// What it takes lately to write one batch (512 KiB) of an upload.
    pub fn write_latency(&self) -> Duration {
        Duration::from_micros(self.inner.write_latency.load(Ordering::Relaxed))
    }

    /// How often a change of this repository has begun since the start, leases included. One that has begun may still
    /// be under way.
    pub fn generation(&self, repository: &RepositoryName) -> u64 {
        self.inner.generation(repository)
    }

    /// The repositories that hold a blob or a manifest, sorted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub async fn repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        self.run(|inner| {
            let mut names = Vec::new();
            inner.walk_repositories(&mut |name, entries| {
                if entries.iter().any(|entry| entry == layout::BLOBS || entry == layout::MANIFESTS) {
                    names.push(name.clone());
                }
                Ok(())
            })?;
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Whether the repository holds a blob or a manifest.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn has_repository(&self, name: &RepositoryName) -> Result<bool, StorageError> {
        let name = name.clone();
        self.run(move |inner| {
            let directory = inner.layout.repository(&name);
            Ok(files::size_of(&directory.join(layout::BLOBS))?.is_some()
                || files::size_of(&directory.join(layout::MANIFESTS))?.is_some())
        })
        .await
    }

    /// Runs blocking work on the blocking pool; a panic there goes on here.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let inner = Arc::clone(&self.inner);
        finished(tokio::task::spawn_blocking(move || work(&inner))).await
    }
}

impl Inner {
    /// Calls `visit` with each repository directory and the names of its directories, in no particular order.
    fn walk_repositories(&self, visit: &mut Visit<'_>) -> Result<(), StorageError> {
        walk_repositories(&self.layout, visit)
    }

    /// A batch of an upload has been written since `begun`.
    fn wrote(&self, begun: Instant) {
        let latest = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let before = self.write_latency.load(Ordering::Relaxed);
        // Two writers at once may lose one of their samples; an average stands that.
        self.write_latency.store(before - before / 8 + latest / 8, Ordering::Relaxed);
    }

    fn committing(&self) -> MutexGuard<'_, ()> {
        lock(&self.commit)
    }

    /// As [`Inner::committing`], for a change of this repository or of a lease in it. Whoever looked at the repository
    /// without the lock sees by its generation that what was seen may no longer be so.
    fn changing(&self, repository: &RepositoryName) -> MutexGuard<'_, ()> {
        let committing = self.committing();
        *lock(&self.generations).entry(repository.clone()).or_default() += 1;
        committing
    }

    fn generation(&self, repository: &RepositoryName) -> u64 {
        lock(&self.generations).get(repository).copied().unwrap_or_default()
    }

    /// Makes sure that a record is there and stays for a while: somebody is being told that it is.
    fn lease(&self, repository: &RepositoryName, record: &Path) -> Result<bool, StorageError> {
        match files::is_fresh(record)? {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => {
                let _changing = self.changing(repository);
                match files::renew(record) {
                    // A disk that has turned read-only can still be read, and nothing is collected from it.
                    Err(StorageError::Write { source, .. })
                        if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
                    {
                        Ok(true)
                    }
                    renewed => renewed,
                }
            }
        }
    }

    /// Refuses to take more in when the disk is nearly full.
    fn check_free(&self) -> Result<(), StorageError> {
        let min_free = self.limits.min_free;
        if min_free == 0 {
            return Ok(());
        }
        let free = files::free_bytes(self.layout.root())?;
        if free < min_free { Err(StorageError::NearlyFull { free, min_free }) } else { Ok(()) }
    }
}

/// See [`Inner::walk_repositories`].
fn walk_repositories(layout: &Layout, visit: &mut Visit<'_>) -> Result<(), StorageError> {
    let mut waiting: Vec<(PathBuf, Option<String>)> = vec![(layout.repositories(), None)];
    while let Some((path, name)) = waiting.pop() {
        let directories: Vec<String> =
            files::list(&path)?.into_iter().filter(|(_, kind)| kind.is_dir()).map(|(entry, _)| entry).collect();
        for entry in directories.iter().filter(|entry| !entry.starts_with('_')) {
            let below = name.as_ref().map_or_else(|| entry.clone(), |name| format!("{name}/{entry}"));
            waiting.push((path.join(entry), Some(below)));
        }
        if let Some(Ok(name)) = name.map(|name| name.parse::<RepositoryName>()) {
            visit(&name, &directories)?;
        }
    }
    Ok(())
}

/// The lock, also after a panic elsewhere: every value behind one here is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of blocking work; a panic in it goes on here.
async fn finished<T>(work: tokio::task::JoinHandle<Result<T, StorageError>>) -> Result<T, StorageError> {
    match work.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::Stopping),
        },
    }
}
