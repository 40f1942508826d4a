//! What the registry needs from others: who besides people may pull, what must not be collected, and how this host is
//! called. The layers that use the registry implement the first two; `app` connects them.

use std::error::Error;

use futures::future::BoxFuture;
use secrecy::SecretString;
use url::Url;

/// What ports speak of; `app`, which connects them, sees no library.
pub use oci_registry::{Digest, RepositoryName};

/// Why a port could not answer.
pub type PortError = Box<dyn Error + Send + Sync>;

/// Machines that may pull for a while, such as the maintenance OS of a running job.
pub trait Guests: Send + Sync {
    /// Whether users of this name are guests. Then nobody else is asked about them: no person can have such a name.
    fn is_guest(&self, user: &str) -> bool;

    /// The repository that this guest may pull from now; `None` when the token is wrong or its time is over.
    fn may_pull<'a>(
        &'a self,
        user: &'a str,
        token: &'a SecretString,
    ) -> BoxFuture<'a, Result<Option<RepositoryName>, PortError>>;
}

/// Manifests that somebody is going to pull although no tag may point to them any more.
pub trait Leases: Send + Sync {
    /// All of them now. As long as this fails nothing is collected, so an implementation that is not connected yet fails.
    fn in_use(&self) -> BoxFuture<'_, Result<Vec<(RepositoryName, Digest)>, PortError>>;
}

/// How this host is reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Only this machine reaches the listener.
    pub loopback: bool,
    /// The listener speaks TLS.
    pub tls: bool,
    /// Where others reach this host when it is asked under no name that it knows.
    pub listener: Url,
    /// Addresses that are configured, such as MEDIA_URL and CALLBACK_URL; a proxy may stand there.
    pub configured: Vec<Url>,
}
