//! What the layer's parts share at run time.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_core::Clock;
use jiff::Timestamp;
use oci_registry::server::Registry;
use secrecy::SecretString;
use store::InstanceKey;
use tokio::sync::{Notify, broadcast};
use url::Url;

use crate::metrics::Metrics;
use crate::model::{JobId, Server};
use crate::settings::MetalSettings;
use crate::store::MetalStore;
use crate::tokens::Secrets;

/// Where others reach this controller when neither a setting nor the server's record says.
#[derive(Debug, Clone)]
pub struct Urls {
    /// From the BMCs.
    pub media: Url,
    /// From the maintenance OS.
    pub callback: Url,
}

/// The layer at run time; one per process, shared.
pub struct Metal {
    pub(crate) store: MetalStore,
    pub(crate) settings: MetalSettings,
    pub(crate) metrics: Metrics,
    pub(crate) key: InstanceKey,
    pub(crate) registry: Option<Arc<Registry>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) urls: Urls,
    pub(crate) webhook: Secrets,
    /// The secret was set by the operator, so images may have been built with it.
    pub(crate) webhook_secret_is_shared: bool,
    pub(crate) signing: Secrets,
    pub(crate) wake: Wake,
    pub(crate) worker_id: String,
    pub(crate) started_at: Timestamp,
}

impl Metal {
    /// Puts the layer together. Nothing runs until [`crate::run`] is called.
    pub fn new(
        store: store::Store,
        settings: MetalSettings,
        metrics: Metrics,
        key: InstanceKey,
        registry: Option<Arc<Registry>>,
        clock: Arc<dyn Clock>,
        listener: &Urls,
    ) -> Arc<Self> {
        let derived = |purpose: &str| SecretString::from(URL_SAFE_NO_PAD.encode(*key.derive(purpose)));
        let shared = settings.webhook_secret.is_some();
        let webhook = settings.webhook_secret.clone().unwrap_or_else(|| derived("metal webhook"));
        let signing = settings.signed_url_secret.clone().unwrap_or_else(|| derived("metal media"));
        let urls = Urls {
            media: settings.media_url.clone().unwrap_or_else(|| listener.media.clone()),
            callback: settings.callback_url.clone().unwrap_or_else(|| listener.callback.clone()),
        };
        Arc::new(Self {
            webhook: Secrets::new(webhook, settings.webhook_secret_old.clone()),
            webhook_secret_is_shared: shared,
            signing: Secrets::new(signing, settings.signed_url_secret_old.clone()),
            started_at: clock.now(),
            store: MetalStore::new(store),
            settings,
            metrics,
            key,
            registry,
            clock,
            urls,
            wake: Wake::new(),
            worker_id: format!("{}-{}", std::process::id(), JobId::new()),
        })
    }

    /// Where the BMC of this server fetches media.
    pub(crate) fn media_url(&self, server: &Server) -> Url {
        server.spec.overrides.media_url.clone().unwrap_or_else(|| self.urls.media.clone())
    }

    /// What the maintenance OS on this server calls.
    pub(crate) fn callback_url(&self, server: &Server) -> Url {
        server.spec.overrides.callback_url.clone().unwrap_or_else(|| self.urls.callback.clone())
    }
}

/// The instance key of a data directory. A database that holds passwords gets no new key, and none but its own: with
/// another, jobs under way would fail one by one.
pub async fn instance_key(directory: &Path, store: &store::Store) -> Result<InstanceKey, KeyError> {
    let Some((purpose, sealed)) = MetalStore::new(store.clone()).any_sealed_password().await? else {
        return Ok(InstanceKey::load_or_create(directory)?);
    };
    let key = InstanceKey::load(directory)?;
    match key.open(&purpose, &sealed) {
        Ok(_) => Ok(key),
        Err(source) => Err(KeyError::Other(source)),
    }
}

/// There is no instance key that fits the database.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The key is not there or cannot be used.
    #[error(transparent)]
    Key(#[from] store::InstanceKeyError),
    /// It is not the key that the database's passwords were sealed with.
    #[error("the instance key does not belong to this database")]
    Other(#[source] store::SealError),
}

/// Tells workers and watchers that something about a job changed.
pub(crate) struct Wake {
    queue: Notify,
    changed: broadcast::Sender<JobId>,
}

impl Wake {
    fn new() -> Self {
        Self { queue: Notify::new(), changed: broadcast::Sender::new(256) }
    }

    /// A job was queued, or a worker became free.
    pub(crate) fn queue(&self) {
        self.queue.notify_one();
    }

    /// Returns when a job was queued, or a worker became free, since the last call.
    pub(crate) async fn queued(&self) {
        self.queue.notified().await;
    }

    /// Something about this job changed.
    pub(crate) fn job(&self, id: JobId) {
        // Nobody listening is fine.
        let _ = self.changed.send(id);
    }

    /// Changes from now on.
    pub(crate) fn watch(&self, id: JobId) -> Watch {
        Watch { id, receiver: self.changed.subscribe() }
    }
}

/// Changes of one job.
pub(crate) struct Watch {
    id: JobId,
    receiver: broadcast::Receiver<JobId>,
}

impl Watch {
    /// Returns when the job changed. Whoever was too slow to see every change is told of one.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.receiver.recv().await {
                Ok(id) if id == self.id => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The sender lives as long as the layer.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
