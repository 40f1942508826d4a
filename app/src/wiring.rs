//! The only place where two layers meet: what the registry asks of the metal layer.

use std::sync::{Arc, OnceLock, Weak};

use futures::future::{BoxFuture, FutureExt as _};
use metal::Metal;
use metal::store::MetalStore;
use registry::ports::{Digest, Guests, Leases, PortError, RepositoryName};
use secrecy::SecretString;
use store::Store;

/// The jobs of the metal layer as the registry sees them. The layer needs the registry and is opened after it.
#[derive(Default)]
pub struct Jobs(OnceLock<Weak<Metal>>);

impl Jobs {
    /// From now on these jobs are asked.
    pub fn connect(&self, metal: &Arc<Metal>) {
        // A second layer would be a mistake in the program; the first stays.
        let _ = self.0.set(Arc::downgrade(metal));
    }

    fn metal(&self) -> Result<Arc<Metal>, PortError> {
        self.0.get().and_then(Weak::upgrade).ok_or_else(|| PortError::from("the metal layer is not there yet"))
    }
}

impl Guests for Jobs {
    fn is_guest(&self, user: &str) -> bool {
        Metal::is_job_user(user)
    }

    fn may_pull<'a>(
        &'a self,
        user: &'a str,
        token: &'a SecretString,
    ) -> BoxFuture<'a, Result<Option<RepositoryName>, PortError>> {
        async move { Ok(self.metal()?.job_may_pull(user, token).await?) }.boxed()
    }
}

/// What jobs that are not complete install, as the database has it: also where no metal layer runs beside the registry,
/// for the next one goes on with these jobs.
pub struct JobArtifacts(MetalStore);

impl JobArtifacts {
    /// The jobs of this database.
    pub fn of(store: &Store) -> Self {
        Self(MetalStore::new(store.clone()))
    }
}

impl Leases for JobArtifacts {
    fn in_use(&self) -> BoxFuture<'_, Result<Vec<(RepositoryName, Digest)>, PortError>> {
        async { Ok(self.0.manifests_in_use().await?) }.boxed()
    }
}
