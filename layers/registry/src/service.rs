//! What the registry's parts share at run time.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Extensions;
use cairn_core::{Clock, ErrorKind, chain};
use oci_registry::server::{Access, Event, FileBody, Observer, Options, Registry, Route, Saturation};
use oci_registry::storage::{Limits, StorageError};
use store::{InstanceKey, Store};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use web::{BasicAuth, Problem, RateLimiter};

use crate::access::address::OwnAddress;
use crate::access::decide::Policy;
use crate::access::htpasswd::{UsersError, UsersFile};
use crate::access::logins::{Logins, Users};
use crate::access::{Gate, Scheme, Source, effective};
use crate::audit::{self, AuditLog, AuditWriter};
use crate::errors;
use crate::metrics::{RegistryMetrics, level};
use crate::model::RunKind;
use crate::ports::{Guests, Leases, Reached};
use crate::settings::RegistrySettings;
use crate::store::RegistryStore;
use crate::tokens::Tokens;
use crate::upkeep::Turns;
use crate::upstream::{self, UpstreamError};

/// Realm of people's logins (Shoal manual).
const REALM: &str = "Shoal Registry";
/// Name of the switch for pushes and deletes.
const READ_ONLY: &str = "read_only";

/// What the registry gets from the program around it.
pub struct Ports {
    /// Machines that may pull for a while.
    pub guests: Vec<Arc<dyn Guests>>,
    /// Manifests that somebody is going to pull. Nothing is collected while one of these fails.
    pub leases: Vec<Arc<dyn Leases>>,
    /// How this host is reached.
    pub reached: Reached,
    /// Limits wrong passwords for users of the registry's own file.
    pub failures: Arc<RateLimiter>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why the registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The users file cannot be used.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Somebody has to log in, and there is nobody who could.
    #[error("the login of the registry needs users, and there are none")]
    NoUsers,
    /// Nobody would have to log in, on an address that others reach.
    #[error("others reach this address, and nobody would have to log in to the registry")]
    Open,
    /// The storage cannot be opened.
    #[error("the storage of the registry cannot be opened")]
    Storage(#[from] StorageError),
    /// The disk cannot be looked at.
    #[error("the disk of the registry cannot be looked at")]
    Disk(#[source] host::FileError),
    /// The database does not answer.
    #[error("the registry's tables cannot be used")]
    Store(#[from] crate::store::Error),
    /// The audit file cannot be written.
    #[error("cannot write the audit file {}", path.display())]
    Audit {
        /// The file.
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A registry whose content is kept on demand cannot be set up.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Error {
    /// The same for the edge.
    pub fn problem(&self) -> Problem {
        let detail = chain(self);
        match self {
            Self::Users(error) => {
                Problem::new(ErrorKind::Invalid, errors::REGISTRY_USERS_FILE, detail).hint(error.hint())
            }
            Self::NoUsers => Problem::new(ErrorKind::Invalid, errors::SETTINGS, detail)
                .hint("set REGISTRY_HTPASSWD_FILE, or BASIC_USER and BASIC_PASS_HASH"),
            Self::Open => Problem::new(ErrorKind::Invalid, errors::NO_AUTHENTICATION, detail).hint(
                "set REGISTRY_AUTH_MODE to basic, htpasswd or token (REGISTRY_ALLOW_ANON lets everybody pull), or listen on a loopback address",
            ),
            Self::Storage(StorageError::Locked { .. }) => {
                Problem::new(ErrorKind::Conflict, errors::REGISTRY_LOCKED, detail)
                    .hint("another process holds it: end that, or set another REGISTRY_STORAGE")
            }
            Self::Storage(_) | Self::Disk(_) => Problem::new(ErrorKind::Failed, errors::REGISTRY, detail),
            Self::Audit { .. } | Self::Upstream(_) => Problem::new(ErrorKind::Invalid, errors::SETTINGS, detail),
            Self::Store(_) => Problem::internal(self),
        }
    }
}

/// The registry at run time; one per process, shared.
pub struct Service {
    pub(crate) settings: RegistrySettings,
    pub(crate) store: RegistryStore,
    pub(crate) metrics: RegistryMetrics,
    pub(crate) gate: Arc<Gate>,
    pub(crate) api_auth: Option<Arc<BasicAuth>>,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) writer: Mutex<AuditWriter>,
    pub(crate) leases: Vec<Arc<dyn Leases>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) turns: Turns,
    pub(crate) min_free: u64,
    /// Cancelled when the daemon stops: work on the whole registry ends.
    pub(crate) stopping: CancellationToken,
    registry: Arc<Registry>,
}

impl Service {
    /// Opens the storage and puts the registry together. `api_auth` is the login of the API; without one, users of the
    /// registry that may push everywhere may use it, and where there are no users either, whoever reaches this host's own
    /// names. Nothing runs until [`crate::run`] is called.
    ///
    /// # Errors
    /// Settings that do not fit together, and what cannot be opened; see [`Error`].
    pub async fn open(
        settings: RegistrySettings,
        store: Store,
        key: &InstanceKey,
        metrics: RegistryMetrics,
        api_auth: Option<Arc<BasicAuth>>,
        ports: Ports,
    ) -> Result<Arc<Self>, Error> {
        let store = RegistryStore::new(store);
        let (log, writer) =
            audit::open(settings.audit, store.clone(), settings.audit_path.clone(), &ports.clock, &metrics.audit_lost);
        let audit = Arc::new(log);
        let gate = Arc::new(gate(&settings, key, &metrics, api_auth.as_ref(), &ports, &audit)?);
        if gate.scheme == Scheme::Open && !ports.reached.loopback {
            return Err(Error::Open);
        }
        if let Some(path) = &settings.audit_path {
            audit::append(path, &[]).map_err(|source| Error::Audit { path: path.clone(), source })?;
        }
        let min_free = settings.min_free.bytes(space(&settings.storage)?);
        let observer = Arc::new(Recorder { metrics: metrics.clone(), audit: Arc::clone(&audit) });
        let options = options(&settings, min_free, Arc::clone(&gate) as _, observer)?;
        let registry = Arc::new(Registry::open(&settings.storage, options).await?);
        let switched = store.switch(READ_ONLY).await?.is_some_and(|value| value == "true");
        for run in store.last_runs().await?.iter().filter(|run| run.outcome == "done") {
            if let Some(kind) = RunKind::ALL.into_iter().find(|kind| kind.as_str() == run.kind) {
                metrics.run_known(kind, run.ended.as_second());
            }
        }
        let service = Arc::new(Self {
            settings,
            store,
            metrics,
            gate,
            api_auth,
            audit,
            writer: Mutex::new(writer),
            leases: ports.leases,
            clock: ports.clock,
            turns: Turns::default(),
            min_free,
            stopping: CancellationToken::new(),
            registry,
        });
        service.apply_read_only(service.settings.read_only || switched);
        service.publish().await;
        service.publish_quarantine().await;
        Ok(service)
    }

    /// The registry itself.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Refuses pushes and deletes from now on, or no longer; it stays so over a restart. `false` when the settings say
    /// that the registry is read-only, whatever is switched.
    ///
    /// # Errors
    /// The database does not keep it.
    pub async fn set_read_only(&self, read_only: bool) -> Result<bool, crate::store::Error> {
        if self.settings.read_only && !read_only {
            return Ok(false);
        }
        self.store.set_switch(READ_ONLY, if read_only { "true" } else { "false" }).await?;
        self.apply_read_only(read_only);
        tracing::info!(read_only, "registry switched");
        Ok(true)
    }

    fn apply_read_only(&self, read_only: bool) {
        self.registry.set_read_only(read_only);
        self.gate.read_only.store(read_only, Ordering::Relaxed);
        self.metrics.read_only.set(i64::from(read_only));
    }

    /// Writes audit entries that still wait. Called once nothing is served any more.
    pub async fn close(&self) {
        self.writer.lock().await.finish().await;
    }

    /// Brings the gauges up to date.
    pub(crate) async fn publish(&self) {
        let usage = self.registry.storage_usage();
        self.metrics.blobs.set(level(usage.blobs));
        self.metrics.bytes.set(level(usage.bytes));
        let registry = Arc::clone(&self.registry);
        match tokio::task::spawn_blocking(move || registry.storage().free()).await {
            Ok(Ok(free)) => {
                self.metrics.free_bytes.set(level(free));
            }
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "the free room is not known"),
            // The program is going down.
            Err(_) => {}
        }
    }

    /// Brings the gauge of the quarantine up to date. It is counted file by file, so only after it may have changed.
    pub(crate) async fn publish_quarantine(&self) {
        match self.registry.storage().quarantine().await {
            Ok(runs) => {
                self.metrics.quarantine_bytes.set(level(runs.iter().map(|run| run.bytes).sum()));
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the quarantine is not known"),
        }
    }

    /// Whether the registry should not be given more work now, and why: for whoever decides what to begin next.
    pub async fn saturation(&self) -> Option<Saturation> {
        let registry = Arc::clone(&self.registry);
        tokio::task::spawn_blocking(move || registry.saturation()).await.ok().flatten()
    }
}

fn gate(
    settings: &RegistrySettings,
    key: &InstanceKey,
    metrics: &RegistryMetrics,
    api_auth: Option<&Arc<BasicAuth>>,
    ports: &Ports,
    audit: &Arc<AuditLog>,
) -> Result<Gate, Error> {
    let file = settings.users_file.as_deref();
    let (scheme, source) = effective(settings.auth_mode, file.is_some(), api_auth.is_some()).ok_or(Error::NoUsers)?;
    let users = match (source, file, api_auth) {
        (Some(Source::File), Some(path), _) => Some(Users::File(users_file(path, metrics, ports)?)),
        (Some(Source::Api), _, Some(auth)) => Some(Users::Api(Arc::clone(auth))),
        _ => None,
    };
    if scheme == Scheme::Open {
        tracing::warn!("nobody has to log in to the registry: everybody on this machine may push and pull");
        if let Some(path) = file {
            tracing::warn!(path = %path.display(), "REGISTRY_AUTH_MODE is none: the users file is not used");
        }
    }
    Ok(Gate {
        scheme,
        policy: Policy {
            open: scheme == Scheme::Open,
            anonymous_pull: settings.allow_anonymous,
            push: settings.push_allow.clone(),
        },
        logins: users.map(Logins::new),
        tokens: Tokens::new(key, settings.token_ttl, Arc::clone(&ports.clock)),
        guests: ports.guests.clone(),
        address: OwnAddress::new(&ports.reached, settings.public_url.as_ref()),
        audit: Arc::clone(audit),
        read_only: AtomicBool::new(false),
    })
}

fn users_file(path: &Path, metrics: &RegistryMetrics, ports: &Ports) -> Result<Arc<UsersFile>, UsersError> {
    let (failures, counter) = (Arc::clone(&ports.failures), metrics.login_failures.clone());
    let build = move |users| {
        let counter = counter.clone();
        let auth = BasicAuth::new(REALM, users)?.limit_failures(Arc::clone(&failures));
        Ok(auth.on_failure(move || {
            counter.inc();
        }))
    };
    UsersFile::open(path, Box::new(build))
}

fn options(
    settings: &RegistrySettings,
    min_free: u64,
    access: Arc<dyn Access>,
    observer: Arc<dyn Observer>,
) -> Result<Options, Error> {
    let mut options = Options::new(access);
    options.limits = Limits {
        max_blob_size: settings.max_blob_size,
        min_free,
        immutable_tags: settings.immutable_tags,
        ..Limits::default()
    };
    options.max_concurrent_uploads = settings.max_concurrent_uploads;
    options.upload_timeout = settings.upload_timeout;
    options.download_timeout = settings.download_timeout;
    options.read_timeout = settings.read_timeout;
    options.catalog = settings.catalog;
    options.observer = observer;
    options.files = Arc::new(SentByKernel);
    options.cache = upstream::all(settings)?;
    Ok(options)
}

/// Size in bytes of the disk that a directory lies on, or will lie on.
fn space(directory: &Path) -> Result<u64, Error> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    host::space(there).map(|space| space.total).map_err(Error::Disk)
}

/// Lets the kernel send files, where the connection is plain.
struct SentByKernel;

impl FileBody for SentByKernel {
    fn body(
        &self,
        extensions: &Extensions,
        file: File,
        first: u64,
        length: u64,
        sent: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Body {
        web::file_body(extensions, file, first, length, sent)
    }
}

/// Counts and records what the registry does.
struct Recorder {
    metrics: RegistryMetrics,
    audit: Arc<AuditLog>,
}

impl Observer for Recorder {
    fn uploaded(&self, bytes: u64) {
        self.metrics.upload_bytes.inc_by(bytes);
    }

    fn downloaded(&self, bytes: u64) {
        self.metrics.download_bytes.inc_by(bytes);
    }

    fn upload_started(&self) {
        self.metrics.inflight_uploads.inc();
    }

    fn upload_ended(&self) {
        self.metrics.inflight_uploads.dec();
    }

    fn request(&self, route: Route, status: u16, duration: Duration) {
        self.metrics.request(route, status, duration);
    }

    fn event(&self, event: &Event<'_>) {
        self.audit.event(event);
    }
}
