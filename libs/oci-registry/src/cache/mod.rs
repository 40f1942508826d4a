//! Pull-through cache: the repositories below a prefix are those of another registry, the upstream, and are kept here
//! once they were asked for. `<prefix>/x/y` is `x/y` there. A pull that has succeeded once works without the upstream.
//!
//! | asked for | here | upstream | answer |
//! |---|---|---|---|
//! | manifest or blob by digest | yes | not asked | from the store |
//! | manifest or blob by digest | no | has it | fetched once however many ask, checked, kept |
//! | tag | yes | points to the same or other content | that content, fetched where it is not here |
//! | tag | yes | does not answer, or with an error | what it pointed to last, with a `Warning` |
//! | tag | yes | does not have it any more | what it pointed to last, with a `Warning` |
//! | anything | no | does not have it | 404 |
//! | anything | no | does not answer, or with an error | 502, or its 429 |
//! | tags, referrers | | answers | the upstream's list |
//! | tags, referrers | | does not answer | what is here, with a `Warning` |
//! | a push or a delete | | not asked | 405 |
//!
//! A tag that the upstream has removed stays: what could be installed yesterday is not to fail today because somebody
//! tidies up elsewhere. Retention removes it here. An upstream that did not answer is left alone for
//! [`Upstream::pause`], in which what is here is answered at once.

mod blob;
mod error;
mod flights;
mod manifest;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use blob::Found;
pub use error::CacheError;
use flights::Flights;
pub(crate) use manifest::Standing;

use crate::client::{Client, ClientError, Retry};
use crate::storage::Storage;
use crate::{RepositoryName, Selector};

/// Another registry, and where its repositories appear in this one.
#[derive(Clone)]
pub struct Upstream {
    /// Repositories below this name are the upstream's; the name alone is an ordinary repository. Where prefixes
    /// contain each other, the longest counts.
    pub prefix: RepositoryName,
    /// Client of the upstream. Address, roots, credentials, redirects and the read time-out that breaks a transfer which
    /// hangs are the caller's; its [`Retry`] holds for blobs.
    pub client: Client,
    /// Longest wait for a manifest, a list, or the beginning of a blob.
    pub timeout: Duration,
    /// For so long after it did not answer, the upstream is not asked for what is here.
    pub pause: Duration,
}

impl Upstream {
    /// An upstream with a time-out of 5 s and a pause of 15 s.
    pub fn new(prefix: RepositoryName, client: Client) -> Self {
        Self { prefix, client, timeout: Duration::from_secs(5), pause: Duration::from_secs(15) }
    }
}

/// The upstreams of a registry. Transfers end when it is dropped.
pub(crate) struct Cache {
    storage: Storage,
    upstreams: Vec<Arc<Asked>>,
    flights: Arc<Flights>,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// An upstream, and how it behaved when it was last asked.
struct Asked {
    upstream: Upstream,
    /// Gives up at once: somebody waits who may be served from here.
    impatient: Client,
    silent_until: Mutex<Option<Instant>>,
}

/// One repository of an upstream.
#[derive(Clone)]
pub(crate) struct Cached {
    storage: Storage,
    asked: Arc<Asked>,
    flights: Arc<Flights>,
    stop: CancellationToken,
    local: RepositoryName,
    remote: RepositoryName,
}

impl Cache {
    pub(crate) fn new(storage: Storage, upstreams: Vec<Upstream>) -> Self {
        let upstreams = upstreams.into_iter().map(|upstream| Arc::new(Asked::new(upstream))).collect();
        let stop = CancellationToken::new();
        Self { storage, upstreams, flights: Arc::default(), _stop: stop.clone().drop_guard(), stop }
    }

    /// The cached repository of this name; `None` for an ordinary one.
    pub(crate) fn repository(&self, name: &RepositoryName) -> Option<Cached> {
        let below = |asked: &Arc<Asked>| {
            let rest = name.as_str().strip_prefix(asked.upstream.prefix.as_str())?.strip_prefix('/')?;
            rest.parse::<RepositoryName>().ok().map(|remote| (Arc::clone(asked), remote))
        };
        let (asked, remote) = self.upstreams.iter().filter_map(below).min_by_key(|(_, rest)| rest.as_str().len())?;
        Some(Cached {
            storage: self.storage.clone(),
            asked,
            flights: Arc::clone(&self.flights),
            stop: self.stop.clone(),
            local: name.clone(),
            remote,
        })
    }

    /// Brings what a tag or digest points to up to date, where this is a cached repository and it can be done.
    pub(crate) async fn refresh(&self, repository: &RepositoryName, selector: &Selector) {
        if let Some(cached) = self.repository(repository)
            && let Err(error) = cached.refresh(selector).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, %repository, "nothing to answer with from a cache");
        }
    }
}

impl Cached {
    /// Whether the upstream did not answer a moment ago.
    pub(crate) fn is_silent(&self) -> bool {
        self.asked.is_silent()
    }
}

impl Asked {
    fn new(upstream: Upstream) -> Self {
        let impatient = upstream.client.clone().with_retry(Retry { attempts: 1, ..Retry::default() });
        Self { upstream, impatient, silent_until: Mutex::new(None) }
    }

    fn is_silent(&self) -> bool {
        let silent_until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        silent_until.is_some_and(|until| Instant::now() < until)
    }

    /// The answer to a request, waited for no longer than the time-out.
    async fn answer<T>(&self, request: impl Future<Output = Result<T, ClientError>>) -> Result<T, CacheError> {
        let timeout = self.upstream.timeout;
        let answer = match tokio::time::timeout(timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(CacheError::Upstream { source }),
            Err(_) => Err(CacheError::TimedOut { timeout }),
        };
        let is_silent = answer.as_ref().is_err_and(CacheError::is_outage);
        let until = is_silent.then(|| Instant::now() + self.upstream.pause);
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        answer
    }
}
