//! Blobs of a cached repository: fetched once however many ask, and handed on while they arrive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;

use super::flights::Together;
use super::{CacheError, Cached};
use crate::Digest;
use crate::client::ClientError;
use crate::storage::StorageError;

/// A blob up to this size in bytes is answered when it is whole and checked, so that what is wrong with it can still be
/// said in the answer's status. The client would have to wait as long for its last byte.
const AWAITED: u64 = 256 << 10;
/// Most bytes that are read for an asker at once.
const READ_SIZE: u64 = 256 << 10;
/// Parts of an upstream's answer that are written at once.
const BATCH: usize = 64;
/// An upstream that has sent nothing for this long, resumed transfers included, will send nothing more.
const STALLED: Duration = Duration::from_secs(120);

/// How far a transfer is.
#[derive(Debug)]
pub(super) enum Progress {
    /// The upstream has not answered yet.
    Asking,
    /// Bytes come in. `at` never reaches `size`: the last bytes are held back until all of them are checked and kept,
    /// so that nobody takes for whole what is not.
    Arriving { size: u64, file: Arc<File>, at: u64 },
    /// In the store.
    Kept,
    /// Given up; nothing is kept.
    Failed(Arc<CacheError>),
}

/// Where a blob is.
pub(crate) enum Found {
    /// In the store.
    Here,
    /// On its way.
    Growing(Growing),
}

/// A blob on its way, as one asker sees it.
pub(crate) struct Growing {
    /// Size of the whole blob in bytes, as the upstream announces it.
    pub(crate) size: u64,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
}

impl Cached {
    /// A blob: where it is, or on its way from the upstream.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) async fn blob(&self, digest: &Digest) -> Together<Found> {
        if self.holds(digest).await.map_err(Arc::new)? {
            return Ok(Found::Here);
        }
        let (mut progress, sender) = self.flights.join(&self.local, digest);
        if let Some(sender) = sender {
            let (this, digest) = (self.clone(), digest.clone());
            // Goes on without the asker, whom a client that tries again will follow.
            tokio::spawn(async move { this.fly(&digest, &sender).await });
        }
        let is_known = |progress: &Progress| match progress {
            Progress::Asking => false,
            Progress::Arriving { size, .. } => *size > AWAITED,
            Progress::Kept | Progress::Failed(_) => true,
        };
        let (size, file) = match &*progress.wait_for(is_known).await.map_err(|_| Arc::new(CacheError::Stopping))? {
            Progress::Arriving { size, file, .. } => (*size, Arc::clone(file)),
            Progress::Failed(error) => return Err(Arc::clone(error)),
            Progress::Asking | Progress::Kept => return Ok(Found::Here),
        };
        Ok(Found::Growing(Growing { size, file, progress }))
    }

    /// Size in bytes of a blob that need not be fetched for that.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<u64, CacheError> {
        if let Some(size) = self.storage.blob_size(&self.local, digest).await? {
            return Ok(size);
        }
        self.asked.answer(self.asked.impatient.blob_size(&self.remote, digest)).await
    }

    async fn holds(&self, digest: &Digest) -> Result<bool, CacheError> {
        Ok(self.storage.blob_size(&self.local, digest).await?.is_some())
    }

    async fn fly(&self, digest: &Digest, sender: &watch::Sender<Progress>) {
        let outcome = self.stop.run_until_cancelled(self.transfer(digest, sender)).await;
        let outcome = outcome.unwrap_or(Err(CacheError::Stopping));
        let repository = &self.local;
        // Before anybody hears of it: who asks after that finds it in the store, or begins anew.
        self.flights.land(repository, digest);
        sender.send_replace(match outcome {
            Ok(()) => Progress::Kept,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, %repository, %digest, "blob not fetched");
                Progress::Failed(Arc::new(error))
            }
        });
    }

    async fn transfer(&self, digest: &Digest, sender: &watch::Sender<Progress>) -> Result<(), CacheError> {
        // The transfer before this one may have ended between the asker's look and its call.
        if self.holds(digest).await? || self.is_here_for_another(digest).await? {
            return Ok(());
        }
        let (size, stream) = self.asked.answer(self.asked.upstream.client.sized_blob(&self.remote, digest)).await?;
        let limit = self.storage.limits().max_blob_size;
        if size > limit {
            return Err(StorageError::TooLarge { limit }.into());
        }
        let mut blob = self.storage.arriving().await?;
        sender.send_replace(Progress::Arriving { size, file: blob.file(), at: 0 });
        let mut stream = stream.ready_chunks(BATCH);
        while let Some(batch) =
            tokio::time::timeout(STALLED, stream.next()).await.map_err(|_| CacheError::TimedOut { timeout: STALLED })?
        {
            // The stream checks size and digest; its last item is an error where they are wrong.
            let batch: Result<Vec<Bytes>, ClientError> = batch.into_iter().collect();
            let now = blob.append(batch.map_err(|source| CacheError::Upstream { source })?).await?;
            if now < size {
                sender.send_modify(|progress| {
                    if let Progress::Arriving { at, .. } = progress {
                        *at = now;
                    }
                });
            }
        }
        blob.keep(&self.local, digest).await?;
        tracing::info!(repository = %self.local, %digest, size, "blob kept from the upstream");
        Ok(())
    }

    /// Layers are shared between images. What is here for another repository is not sent again once the upstream says
    /// that this one has it too: only that makes it this repository's to give.
    async fn is_here_for_another(&self, digest: &Digest) -> Result<bool, CacheError> {
        if !self.storage.has_content(digest).await? {
            return Ok(false);
        }
        let size = self.asked.answer(self.asked.impatient.blob_size(&self.remote, digest)).await?;
        Ok(self.storage.hold_cached_blob(&self.local, digest, size).await?)
    }
}

impl Growing {
    /// Waits until the blob is checked and in the store. A part of it would be whole before that, and nobody could tell
    /// that it is part of something else.
    ///
    /// # Errors
    /// The transfer fails.
    pub(crate) async fn kept(mut self) -> Together<()> {
        let is_over = |progress: &Progress| matches!(progress, Progress::Kept | Progress::Failed(_));
        match &*self.progress.wait_for(is_over).await.map_err(|_| Arc::new(CacheError::Stopping))? {
            Progress::Failed(error) => Err(Arc::clone(error)),
            _ => Ok(()),
        }
    }

    /// The whole blob, each part as soon as it is there. Ends with an error when the transfer does.
    pub(crate) fn bytes(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let end = self.size;
        futures::stream::try_unfold((self, 0), move |(mut growing, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let there = growing.wait_beyond(at).await?.min(end).min(at + READ_SIZE);
            let file = Arc::clone(&growing.file);
            let reading = tokio::task::spawn_blocking(move || {
                let mut part = vec![0; usize::try_from(there - at).map_err(io::Error::other)?];
                file.read_exact_at(&mut part, at).map(|()| Bytes::from(part))
            });
            let part = reading.await.map_err(io::Error::other)??;
            Ok(Some((part, (growing, there))))
        })
    }

    /// Waits until there is more than `at` bytes, and says how many there are.
    async fn wait_beyond(&mut self, at: u64) -> io::Result<u64> {
        let is_enough = |progress: &Progress| !matches!(progress, Progress::Arriving { at: now, .. } if *now <= at);
        match &*self.progress.wait_for(is_enough).await.map_err(io::Error::other)? {
            Progress::Arriving { at, .. } => Ok(*at),
            Progress::Kept => Ok(self.size),
            Progress::Failed(error) => Err(io::Error::other(Arc::clone(error))),
            Progress::Asking => Err(io::Error::other("a transfer begins once")),
        }
    }
}
