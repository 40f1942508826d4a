//! Opening a root directory: lock, layout, sweep, count.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::layout::Layout;
use super::{Inner, Limits, Storage, StorageError, Usage, files, finished};
use crate::Algorithm;

const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Tags belong to repositories, which an image layout's index cannot express: it is there, and stays empty.
const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
/// Files of upload sessions that stay open while nobody writes to them. A client that sends a blob in many pieces saves
/// a sync with each; a process often may have no more than 1024 files open.
pub(super) const OPEN_SESSIONS: usize = 64;

impl Storage {
    /// Opens a registry's directory, or makes a new one: locks it, removes unfinished files, expired upload sessions and
    /// what that leaves empty, counts the blobs.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it, [`StorageError::Layout`] when it is no layout of version
    /// 1.0.0, otherwise what the file system said.
    pub async fn open(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, StorageError> {
        let layout = Layout::new(root.into());
        finished(tokio::task::spawn_blocking(move || open(layout, limits))).await
    }
}

fn open(layout: Layout, limits: Limits) -> Result<Storage, StorageError> {
    files::new_directory()
        .recursive(true)
        .create(layout.root())
        .map_err(|source| StorageError::Create { path: layout.root().to_owned(), source })?;
    let lock = hold(&layout)?;
    for directory in [layout.blobs(), layout.repositories(), layout.temporaries()] {
        files::create_directory(&directory)?;
    }
    for algorithm in Algorithm::ALL {
        files::create_directory(&layout.blobs().join(algorithm.name()))?;
    }
    sweep(&layout.temporaries())?;
    check_version(&layout)?;
    let usage = count(&layout)?;
    let inner = Inner {
        layout,
        limits,
        sessions: Mutex::new(HashMap::new()),
        open_sessions: Arc::new(Semaphore::new(OPEN_SESSIONS)),
        commit: Mutex::new(()),
        generations: Mutex::new(HashMap::new()),
        write_latency: AtomicU64::new(0),
        maintenance: Arc::default(),
        blobs: AtomicU64::new(usage.blobs),
        bytes: AtomicU64::new(usage.bytes),
        _lock: lock,
    };
    inner.expire_uploads()?;
    forget_empty(&inner.layout.repositories())?;
    inner.complete_referrers()?;
    Ok(Storage { inner: Arc::new(inner) })
}

/// The lock on a registry's directory.
#[derive(Debug)]
pub(super) struct RootLock(File);

impl Drop for RootLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was just forked has the descriptor too until it executes its program, and the
        // lock would last as long. When this fails, closing ends the lock as far as it can.
        let _ = self.0.unlock();
    }
}

/// Takes the lock on the root; the kernel lets go of it with the process, however that ends.
fn hold(layout: &Layout) -> Result<RootLock, StorageError> {
    let path = layout.lock();
    let file = files::writing()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| StorageError::Create { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(RootLock(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: layout.root().to_owned() }),
        Err(TryLockError::Error(source)) => Err(StorageError::Create { path, source }),
    }
}

fn sweep(directory: &Path) -> Result<(), StorageError> {
    for (name, kind) in files::list(directory)? {
        if kind.is_dir() {
            tracing::warn!(directory = name, "not made by the registry, left alone");
            continue;
        }
        tracing::info!(file = name, "removing an unfinished file");
        files::remove(&directory.join(name))?;
    }
    Ok(())
}

/// Removes directories with nothing in them, such as names leave behind that only an upload was ever begun for. While nobody
/// else is there: whoever writes makes its directory first, and would find it gone.
fn forget_empty(directory: &Path) -> Result<(), StorageError> {
    for (name, _) in files::list(directory)?.into_iter().filter(|(_, kind)| kind.is_dir()) {
        let below = directory.join(name);
        forget_empty(&below)?;
        // Most are not empty, and whether they are is not worth a look of its own.
        let _ = std::fs::remove_dir(below);
    }
    Ok(())
}

fn check_version(layout: &Layout) -> Result<(), StorageError> {
    for (path, content) in [(layout.index(), INDEX), (layout.version(), VERSION)] {
        if files::size_of(&path)?.is_none() {
            let temporary = layout.temporary();
            files::write_new(&temporary, content.as_bytes())?;
            files::put_in_place(&temporary, &path)?;
        }
    }
    let path = layout.version();
    let version: serde_json::Value =
        files::read(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if version["imageLayoutVersion"] == "1.0.0" { Ok(()) } else { Err(StorageError::Layout { path }) }
}

pub(super) fn count(layout: &Layout) -> Result<Usage, StorageError> {
    let mut usage = Usage::default();
    for algorithm in Algorithm::ALL {
        let directory = layout.blobs().join(algorithm.name());
        for (name, kind) in files::list(&directory)? {
            let is_blob = kind.is_file() && format!("{}:{name}", algorithm.name()).parse::<crate::Digest>().is_ok();
            if !is_blob {
                tracing::warn!(file = name, "not a blob, left alone");
                continue;
            }
            usage.blobs += 1;
            usage.bytes += files::size_of(&directory.join(name))?.unwrap_or(0);
        }
    }
    Ok(usage)
}
