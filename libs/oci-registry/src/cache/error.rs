//! Why a cache has nothing to answer with.

use std::time::Duration;

use crate::client::ClientError;
use crate::storage::StorageError;

/// Why content of an upstream is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The upstream's answer is an error, makes no sense, or did not come.
    #[error("the upstream registry gave no usable answer")]
    Upstream {
        #[source]
        source: ClientError,
    },
    /// The upstream did not answer in time.
    #[error("the upstream registry did not answer within {timeout:?}")]
    TimedOut {
        /// The time that it had.
        timeout: Duration,
    },
    /// What the upstream sent cannot be stored, or what is stored not be read.
    #[error("what the upstream registry has cannot be kept")]
    Storage {
        #[source]
        source: StorageError,
    },
    /// The program is going down.
    #[error("the registry is stopping")]
    Stopping,
}

impl CacheError {
    /// Whether the upstream has said that there is no such thing.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Upstream { source } if source.status() == Some(404))
    }

    /// Whether the upstream has had too many requests.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Upstream { source } if source.status() == Some(429))
    }

    /// Whether the upstream will likely answer nothing else either for a while.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Upstream { source: ClientError::GaveUp { .. } } | Self::TimedOut { .. } => true,
            Self::Upstream { source } => source.is_transient() || source.status().is_some_and(|status| status >= 500),
            _ => false,
        }
    }
}

impl From<StorageError> for CacheError {
    fn from(source: StorageError) -> Self {
        Self::Storage { source }
    }
}
