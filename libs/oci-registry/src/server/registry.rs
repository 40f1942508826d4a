//! The registry itself: its storage, its hooks, and how it is doing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Options;
use super::inflight::{UploadInFlight, Uploads};
use crate::cache::Cache;
use crate::storage::{Storage, StorageError, Usage};
use crate::{Descriptor, RepositoryName, Selector, Tag};

/// Writing one batch of an upload (512 KiB) takes longer than this on a disk that has more to do than it can.
const SLOW_WRITE: Duration = Duration::from_millis(500);

/// A registry: its storage, and the hooks of the program around it.
pub struct Registry {
    pub(super) storage: Storage,
    pub(super) options: Options,
    pub(super) uploads: Arc<Uploads>,
    pub(super) cache: Cache,
    read_only: AtomicBool,
}

/// Why it would be better not to give a registry more work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saturation {
    /// Nothing more is taken in.
    NearlyFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to stay free.
        min_free: u64,
    },
    /// As many uploads as may be are there, and more wait for their turn.
    UploadsWaiting {
        /// How many wait.
        count: usize,
    },
    /// The disk is slow to take what is being uploaded.
    SlowWrites {
        /// What one batch of 512 KiB takes lately.
        latency: Duration,
    },
}

impl Registry {
    /// Opens the directory and sets the hooks in.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub async fn open(root: impl Into<PathBuf>, options: Options) -> Result<Self, StorageError> {
        let storage = Storage::open(root, options.limits.clone()).await?;
        let uploads = Uploads::new(options.max_concurrent_uploads);
        let cache = Cache::new(storage.clone(), options.cache.clone());
        Ok(Self { storage, options, uploads, cache, read_only: AtomicBool::new(false) })
    }

    /// The storage itself. Whoever uses it directly is asked nothing and counted nowhere.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What a tag or digest points to; see [`Storage::resolve`]. In a cache the upstream is asked first.
    ///
    /// # Errors
    /// The record cannot be read.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<Descriptor>, StorageError> {
        self.cache.refresh(repository, selector).await;
        self.storage.resolve(repository, selector).await
    }

    /// A manifest, checked against its digest; see [`Storage::manifest`]. In a cache the upstream is asked first.
    ///
    /// # Errors
    /// The bytes cannot be read, or are not those that were pushed.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<(Descriptor, Bytes)>, StorageError> {
        self.cache.refresh(repository, selector).await;
        self.storage.manifest(repository, selector).await
    }

    /// How much is stored; kept up to date, costs nothing to ask.
    pub fn storage_usage(&self) -> Usage {
        self.storage.usage()
    }

    /// The repositories that hold something, sorted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub async fn repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        self.storage.repositories().await
    }

    /// The tags of a repository, sorted.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, StorageError> {
        self.storage.tags(repository).await
    }

    /// Refuses every push and delete from now on (405 `UNSUPPORTED`), or no longer. What is under way goes on.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Whether pushes and deletes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Requests that are sending a blob now, the longest running first.
    pub fn uploads(&self) -> Vec<UploadInFlight> {
        self.uploads.list()
    }

    /// Whether the registry has more to do than it can, and why. Costs one look at the file system.
    pub fn saturation(&self) -> Option<Saturation> {
        let min_free = self.options.limits.min_free;
        match self.storage.free() {
            Ok(free) if free < min_free => return Some(Saturation::NearlyFull { free, min_free }),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot tell how much of the disk is free");
            }
        }
        let count = self.uploads.waiting();
        if count > 0 {
            return Some(Saturation::UploadsWaiting { count });
        }
        // An average of what is over says nothing about now.
        let latency = self.storage.write_latency();
        (latency > SLOW_WRITE && !self.uploads.list().is_empty()).then_some(Saturation::SlowWrites { latency })
    }
}
