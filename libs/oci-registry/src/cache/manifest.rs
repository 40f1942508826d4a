//! Manifests, tags and referrers of a cached repository.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;

use super::flights::Together;
use super::{CacheError, Cached};
use crate::storage::StorageError;
use crate::{Descriptor, Digest, Index, Selector, Tag};

/// What stands behind an answer from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is what the upstream has.
    Current,
    /// The upstream could not be asked.
    Unasked,
    /// The upstream does not have it any more.
    Withdrawn,
}

impl Standing {
    /// What the client is told about it.
    pub(crate) fn warning(self) -> Option<&'static str> {
        match self {
            Self::Current => None,
            Self::Unasked => Some("the upstream registry gives no usable answer, this is what it had when last asked"),
            Self::Withdrawn => Some("the upstream registry no longer has this tag, this is what it pointed to"),
        }
    }
}

/// What a look at the upstream came to.
pub(super) type Looked = Together<Standing>;

impl Cached {
    /// Makes sure that what the upstream has under a tag or digest is in the store, where it can be had.
    ///
    /// # Errors
    /// There is nothing in the store to answer with, or nothing can be stored.
    pub(crate) async fn refresh(&self, selector: &Selector) -> Looked {
        if let Selector::Digest(digest) = selector
            && self.stored(digest).await.map_err(Arc::new)?.is_some()
        {
            return Ok(Standing::Current);
        }
        let look = self.flights.look(&self.local, selector, || {
            let (this, selector) = (self.clone(), selector.clone());
            async move { this.look(&selector).await.map_err(Arc::new) }.boxed()
        });
        look.await
    }

    async fn look(&self, selector: &Selector) -> Result<Standing, CacheError> {
        // What was asked for by digest and is not there, or damaged, has nothing to fall back to.
        let known = match selector {
            Selector::Tag(_) => self.storage.manifest(&self.local, selector).await.unwrap_or_default(),
            Selector::Digest(_) => None,
        };
        if known.is_some() && self.asked.is_silent() {
            return Ok(Standing::Unasked);
        }
        let known = known.map(|(descriptor, _)| descriptor);
        let Err(error) = self.fetch(selector, known.as_ref()).await else { return Ok(Standing::Current) };
        let repository = &self.local;
        match known {
            Some(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, %repository, reference = %selector, "answering from the cache");
                Ok(if error.is_unknown() { Standing::Withdrawn } else { Standing::Unasked })
            }
            None => Err(error),
        }
    }

    async fn fetch(&self, selector: &Selector, known: Option<&Descriptor>) -> Result<(), CacheError> {
        let tag = match selector {
            Selector::Tag(tag) => Some(tag),
            Selector::Digest(_) => None,
        };
        let (client, mut wanted) = (&self.asked.impatient, selector.clone());
        if let Some(known) = known {
            let now = self.asked.answer(client.resolve(&self.remote, selector)).await?;
            if now.digest == known.digest {
                return Ok(());
            }
            if let Some((descriptor, bytes)) = self.stored(&now.digest).await? {
                return self.keep(&descriptor, tag, bytes).await;
            }
            wanted = now.digest.into();
        }
        let (descriptor, bytes) = self.asked.answer(client.manifest(&self.remote, &wanted)).await?;
        self.keep(&descriptor, tag, bytes).await
    }

    async fn keep(&self, descriptor: &Descriptor, tag: Option<&Tag>, bytes: Bytes) -> Result<(), CacheError> {
        let Descriptor { digest, media_type, .. } = descriptor;
        self.storage.put_cached_manifest(&self.local, digest, tag, media_type, bytes).await?;
        let (repository, tag) = (&self.local, tag.map(Tag::as_str));
        tracing::info!(%repository, tag, %digest, "manifest kept from the upstream");
        Ok(())
    }

    /// A manifest that is here and whole.
    async fn stored(&self, digest: &Digest) -> Result<Option<(Descriptor, Bytes)>, CacheError> {
        match self.storage.manifest(&self.local, &digest.clone().into()).await {
            // What the disk has damaged is fetched once more.
            Err(StorageError::Corrupt { .. }) => Ok(None),
            result => Ok(result?),
        }
    }

    /// The upstream's page of tags, and whether more follow.
    ///
    /// # Errors
    /// The upstream cannot be asked, or knows no such repository.
    pub(crate) async fn tags(&self, count: Option<usize>, last: Option<&str>) -> Result<(Vec<Tag>, bool), CacheError> {
        self.asked.answer(self.asked.impatient.tags(&self.remote, count, last)).await
    }
    /// The upstream's referrers of a manifest, sorted by digest. One without that endpoint is asked for the tag that
    /// stands in for it (distribution-spec 1.1, "Referrers Tag Schema").
    ///
    /// # Errors
    /// The upstream cannot be asked.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, CacheError> {
        let answer = self.asked.answer(self.asked.impatient.referrers(&self.remote, subject, None)).await;
        let mut found = match answer {
            Err(error) if error.is_unknown() => self.tagged_referrers(subject).await?,
            answer => answer?,
        };
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(found)
    }

    async fn tagged_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, CacheError> {
        let tag = format!("{}-{:.64}", subject.algorithm().name(), subject.hex());
        let Ok(tag) = tag.parse::<Tag>() else { return Ok(Vec::new()) };
        match self.asked.answer(self.asked.impatient.manifest(&self.remote, &tag.into())).await {
            Ok((_, bytes)) => {
                Ok(serde_json::from_slice::<Index>(&bytes).map(|index| index.manifests).unwrap_or_default())
            }
            Err(error) if error.is_unknown() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
