//! Who may use the registry: the API's users for everything, the maintenance OS of a running job for its own artifact.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use oci_registry::RepositoryName;
use oci_registry::server::{Access, Action, Asker, Decision, Observer, Registry, Route};
use oci_registry::storage::{Limits, StorageError};
use web::{BasicAuth, ClientIp};

use super::header;
use crate::context::Metal;
use crate::metrics::RegistryMetrics;
use crate::model::{JobId, Status};
use crate::tokens::Purpose;

/// Decides over requests to `/v2/`. The registry is opened before the layer that it asks, so the layer is set later.
pub struct RegistryAccess {
    auth: Option<Arc<BasicAuth>>,
    metal: OnceLock<Weak<Metal>>,
}

impl RegistryAccess {
    /// `auth` is the API's; without one, everybody may do everything.
    pub fn new(auth: Option<Arc<BasicAuth>>) -> Arc<Self> {
        Arc::new(Self { auth, metal: OnceLock::new() })
    }

    /// The layer whose jobs may pull. Without it only the API's users may.
    pub fn set_jobs(&self, metal: &Arc<Metal>) {
        // A second layer would be a mistake in the program; the first stays.
        let _ = self.metal.set(Arc::downgrade(metal));
    }

    async fn decide(&self, asker: Asker<'_>, repository: Option<&RepositoryName>, action: Action) -> Decision {
        let Some(auth) = &self.auth else {
            let own = self
                .metal
                .get()
                .and_then(Weak::upgrade)
                .is_none_or(|metal| super::host::is_own_name(&metal, asker.headers, &axum::http::Uri::default()));
            return if own { Decision::Allow { user: "anonymous".to_owned() } } else { Decision::Deny };
        };
        if let Some((job, token)) = job_credentials(asker) {
            return match self.job_may(job, &token, repository, action).await {
                true => Decision::Allow { user: format!("job-{job}") },
                false => Decision::Challenge(auth.challenge()),
            };
        }
        let client = asker.extensions.get::<ClientIp>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0);
        match auth.authenticate(asker.headers, client).await {
            Ok(user) => Decision::Allow { user: user.0 },
            Err(_) => Decision::Challenge(auth.challenge()),
        }
    }

    /// A running job may pull from the repository of its artifact, and nothing else.
    async fn job_may(&self, id: JobId, token: &str, repository: Option<&RepositoryName>, action: Action) -> bool {
        let Some(metal) = self.metal.get().and_then(Weak::upgrade) else { return false };
        let Ok(Some(job)) = metal.store.job(id).await else { return false };
        let proved = metal.webhook.check_token(token, Purpose::Registry, job.id, job.attempt).is_some();
        let wanted = match (action, repository) {
            (Action::Ping, _) => true,
            (Action::Pull, Some(repository)) => job
                .artifact
                .is_some_and(|artifact| artifact.registry.is_none() && artifact.repository == repository.to_string()),
            _ => false,
        };
        proved && wanted && job.status == Status::Provisioning
    }
}

impl Access for RegistryAccess {
    fn check<'a>(
        &'a self,
        asker: Asker<'a>,
        repository: Option<&'a RepositoryName>,
        action: Action,
    ) -> BoxFuture<'a, Decision> {
        self.decide(asker, repository, action).boxed()
    }
}

/// User `job-<id>` and its token, from HTTP Basic.
fn job_credentials(asker: Asker<'_>) -> Option<(JobId, String)> {
    let encoded = header(asker.headers, "authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, token) = text.split_once(':')?;
    Some((user.strip_prefix("job-")?.parse().ok()?, token.to_owned()))
}

/// Opens the registry below `root`. Its jobs are known once [`RegistryAccess::set_jobs`] was called.
pub async fn open_registry(
    root: &std::path::Path,
    access: &Arc<RegistryAccess>,
    metrics: &RegistryMetrics,
) -> Result<Arc<Registry>, StorageError> {
    let observer = Arc::new(RegistryObserver(metrics.clone()));
    let access: Arc<dyn Access> = Arc::clone(access) as _;
    Ok(Arc::new(Registry::open(root, Limits::default(), access, observer).await?))
}

/// The registry's routes.
pub fn registry_routes(registry: &Arc<Registry>) -> axum::Router {
    oci_registry::server::router(Arc::clone(registry))
}

/// Counts what the registry does.
struct RegistryObserver(RegistryMetrics);

impl Observer for RegistryObserver {
    fn uploaded(&self, bytes: u64) {
        self.0.upload_bytes.inc_by(bytes);
    }

    fn downloaded(&self, bytes: u64) {
        self.0.download_bytes.inc_by(bytes);
    }

    fn upload_started(&self) {
        self.0.inflight_uploads.inc();
    }

    fn upload_ended(&self) {
        self.0.inflight_uploads.dec();
    }

    fn request(&self, route: Route, status: u16, duration: Duration) {
        self.0.duration.with([route.as_str(), &status.to_string()]).observe(duration.as_secs_f64());
    }
}
