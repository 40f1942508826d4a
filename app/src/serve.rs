//! `cairn serve`: checks the settings, binds, then opens what it owns, and runs until it is told to stop.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_core::{ErrorKind, SystemClock, chain};
use metal::Urls;
use metal::api::{RegistryAccess, RouteOptions};
use metal::metrics::Metrics;
use metal::settings::MetalSettings;
use observe::logging::{self, LogFormat};
use observe::metrics::{Disk, Registry};
use settings::Resolved;
use store::{DataDirLock, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;
use web::{BasicAuth, Check, Credentials, FrameOptions, ListenAddress, Problem, Proof, RateLimiter, Tls, TlsFiles};

use crate::arguments::{Role, Serve};
use crate::config;

/// Codes of a daemon that does not start; each has a page in docs/errors/.
#[cfg(test)]
pub const CODES: &[&str] =
    &["settings", "listen", "data_dir", "no_authentication", "database", "instance_key", "registry"];

/// Runs the daemon.
pub async fn serve(options: &Serve) -> Result<(), Problem> {
    let Role::Metal = options.role;
    let resolved = config::resolve(&options.place, options.listen.as_deref())?;
    let data_dir = config::data_dir(&resolved)?;
    let metal_settings = MetalSettings::resolve(&resolved, &data_dir).map_err(|error| config::problem(&error))?;
    let format: LogFormat = resolved.parse("log_format").map_err(|error| config::problem(&error))?;
    logging::init(format, resolved.require("log_level").map_err(|error| config::problem(&error))?, std::io::stderr)
        .map_err(|error| settings_problem(error.to_string()))?;
    let address: ListenAddress = resolved.parse("listen").map_err(|error| config::problem(&error))?;
    let mut metrics = Registry::new();
    let door = Door::open(&resolved, &address, &mut metrics)?;
    let listener = web::bind(&address).await.map_err(|error| {
        // The usual reason for a port in use is a controller on the same data: then its holder is named.
        let locked = error.kind() == ErrorKind::Conflict && data_dir.join("lock").exists();
        let held = locked.then(|| DataDirLock::acquire(&data_dir, "").err()).flatten();
        match held {
            Some(held) => Problem::new(held.kind(), "data_dir", chain(&held)),
            None => Problem::new(error.kind(), "listen", chain(&error)).hint("say another address with --listen"),
        }
    })?;
    let local = listener.local_addr().map_err(|error| Problem::internal(&error))?;
    let _lock = DataDirLock::acquire(&data_dir, &local.to_string())
        .map_err(|error| Problem::new(error.kind(), "data_dir", chain(&error)))?;
    let _others = lock_others(&resolved, &data_dir, &metal_settings, &local)?;
    let shutdown = CancellationToken::new();
    let parts = Parts::open(&resolved, &data_dir, metal_settings, &door, local, &mut metrics).await?;
    let app = parts.routes(&door, metrics, &shutdown);
    tracing::info!(address = %local, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let worker = tokio::spawn(metal::run(Arc::clone(&parts.metal), shutdown.clone()));
    let signals = tokio::spawn(obey_signals(shutdown.clone(), door.tls.clone()));
    let options = web::ServeOptions { tls: door.tls.clone(), ..web::ServeOptions::new(shutdown.clone()) };
    let server = tokio::spawn(web::serve(listener, app, options));
    let result = supervise(worker, server, signals, &shutdown).await;
    parts.store.close().await;
    tracing::info!("stopped");
    result
}

/// A part that ends on its own takes the process with it: a restart reconciles, a lame daemon does not.
async fn supervise(
    mut worker: JoinHandle<Result<(), metal::RunError>>,
    mut server: JoinHandle<web::Drain>,
    mut signals: JoinHandle<()>,
    shutdown: &CancellationToken,
) -> Result<(), Problem> {
    let mut worked = None;
    tokio::select! {
        ended = &mut worker => worked = Some(ended),
        ended = &mut server => if let Err(error) = ended { return Err(Problem::internal(&error)) },
        ended = &mut signals => if let Err(error) = ended { return Err(Problem::internal(&error)) },
    }
    shutdown.cancel();
    if !server.is_finished() {
        server.await.map_err(|error| Problem::internal(&error))?;
    }
    signals.abort();
    let worked = match worked {
        Some(ended) => ended,
        None => worker.await,
    };
    match worked {
        Ok(done) => done.map_err(|error| Problem::internal(&error)),
        Err(error) => Err(Problem::internal(&error)),
    }
}

async fn obey_signals(shutdown: CancellationToken, tls: Option<Tls>) {
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        tracing::error!("signals cannot be listened to");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = hangup.recv() => match tls.as_ref().map(Tls::reload) {
                Some(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "the certificate stays as it is"),
                Some(Ok(())) => tracing::info!("certificate read again"),
                None => {}
            },
        }
    }
    tracing::info!("stopping");
    shutdown.cancel();
}

/// Who may come in, and how: everything about the listener that is decided before it is bound.
struct Door {
    auth: Option<Arc<BasicAuth>>,
    limiter: Arc<RateLimiter>,
    tls: Option<Tls>,
    frame: FrameOptions,
    metal: Metrics,
}

impl Door {
    fn open(resolved: &Resolved, address: &ListenAddress, registry: &mut Registry) -> Result<Self, Problem> {
        let metal = Metrics::register(registry);
        let number = |name: &str| resolved.parse::<NonZeroU32>(name).map_err(|error| config::problem(&error));
        let limiter = Arc::new(RateLimiter::new(number("rate_limit_rpm")?, number("rate_limit_burst")?));
        let files = (resolved.parse_optional("tls_cert_file"), resolved.parse_optional("tls_key_file"));
        let tls = match (
            files.0.map_err(|error| config::problem(&error))?,
            files.1.map_err(|error| config::problem(&error))?,
        ) {
            (Some(certificate), Some(key)) => {
                let tls = Tls::load(TlsFiles { certificate, key });
                Some(tls.map_err(|error| settings_problem(chain(&error)))?)
            }
            (None, None) => None,
            _ => return Err(settings_problem("TLS_CERT_FILE and TLS_KEY_FILE are set together or not at all")),
        };
        let auth = auth(resolved, address, &metal)?;
        let proxies = resolved.parse("trusted_proxies").map_err(|error| config::problem(&error))?;
        let frame = FrameOptions { metrics: web::HttpMetrics::register(registry), tls: tls.is_some(), proxies };
        Ok(Self { auth, limiter, tls, frame, metal })
    }
}

/// Nobody on a loopback address has to log in unless a user is set; anywhere else a user has to be set.
fn auth(resolved: &Resolved, address: &ListenAddress, metrics: &Metrics) -> Result<Option<Arc<BasicAuth>>, Problem> {
    let hint =
        "set BASIC_USER and BASIC_PASS_HASH (or BASIC_PASS), or listen on a loopback address: --listen 127.0.0.1:8080";
    let user = resolved.get("basic_user");
    let mode = resolved.get("auth_mode").unwrap_or(if user.is_some() { "basic" } else { "none" });
    match mode {
        "none" if address.is_loopback() => {
            tracing::warn!("no authentication: everybody on this machine may install servers (set BASIC_USER)");
            return Ok(None);
        }
        "none" => {
            let detail = format!("{address} is not a loopback address, and nobody would have to log in");
            return Err(Problem::new(ErrorKind::Invalid, "no_authentication", detail).hint(hint));
        }
        "basic" => {}
        other => return Err(settings_problem(format!("AUTH_MODE {other:?} is neither basic nor none"))),
    }
    let proof = match (resolved.secret("basic_pass_hash"), resolved.secret("basic_pass")) {
        (Some(hash), _) => Proof::Hash(hash),
        (None, Some(plain)) => Proof::Plain(plain),
        (None, None) => return Err(settings_problem("AUTH_MODE basic needs a password").hint(hint)),
    };
    let user = user.ok_or_else(|| settings_problem("AUTH_MODE basic needs a user").hint(hint))?.to_owned();
    let failures = metrics.login_failures.clone();
    // Failed logins have a limiter of their own: a good user is not locked out by the changes that he makes.
    let per_minute = resolved.parse::<NonZeroU32>("rate_limit_rpm").map_err(|error| config::problem(&error))?;
    let burst = resolved.parse::<NonZeroU32>("rate_limit_burst").map_err(|error| config::problem(&error))?;
    let auth = BasicAuth::new("shoal-provisioner", vec![Credentials { user, proof }])
        .map_err(|error| settings_problem(chain(&error)))?
        .on_failure(move || {
            failures.inc();
        })
        .limit_failures(Arc::new(RateLimiter::new(per_minute, burst)));
    Ok(Some(Arc::new(auth)))
}

/// What the daemon owns once its listener is bound.
struct Parts {
    store: Store,
    metal: Arc<metal::Metal>,
    registry: Option<Arc<metal::Registry>>,
    tasks: PathBuf,
}

impl Parts {
    async fn open(
        resolved: &Resolved,
        data_dir: &Path,
        settings: MetalSettings,
        door: &Door,
        local: std::net::SocketAddr,
        metrics: &mut Registry,
    ) -> Result<Self, Problem> {
        let database = resolved.get("db_path").map_or_else(|| data_dir.join("db/cairn.db"), PathBuf::from);
        for directory in
            [&settings.task_iso_dir, &settings.static_dir.join("isos"), database.parent().unwrap_or(data_dir)]
        {
            make_directory(directory)?;
        }
        let store = Store::open(&database, metal::store::MIGRATIONS)
            .await
            .map_err(|error| Problem::new(error.kind(), "database", chain(&error)))?;
        let key = metal::instance_key(data_dir, &store).await.map_err(|error| {
            Problem::new(ErrorKind::Failed, "instance_key", chain(&error)).hint(
                "put the key of this database back from its backup; cairn explain instance_key says what is left without one",
            )
        })?;
        let access = RegistryAccess::new(door.auth.clone());
        let registry = if settings.enable_registry {
            let opened = metal::api::open_registry(&settings.registry_storage, &access, &door.metal.registry).await;
            Some(opened.map_err(|error| Problem::new(ErrorKind::Failed, "registry", chain(&error)))?)
        } else {
            None
        };
        metrics.process();
        metrics.disks(vec![
            Disk { path: "/var/lib/shoal/tasks".to_owned(), directory: settings.task_iso_dir.clone() },
            Disk { path: "/var/lib/shoal/oci".to_owned(), directory: settings.registry_storage.clone() },
        ]);
        let tasks = settings.task_iso_dir.clone();
        let urls = urls(local, door.tls.is_some())?;
        let clock = Arc::new(SystemClock);
        let metal = metal::Metal::new(store.clone(), settings, door.metal.clone(), key, registry.clone(), clock, &urls);
        access.set_jobs(&metal);
        Ok(Self { store, metal, registry, tasks })
    }

    fn routes(&self, door: &Door, metrics: Registry, shutdown: &CancellationToken) -> axum::Router {
        let options =
            RouteOptions { auth: door.auth.clone(), limiter: Arc::clone(&door.limiter), shutdown: shutdown.clone() };
        let mut routes = metal::api::routes(&self.metal, &options);
        if let Some(registry) = &self.registry {
            routes = routes.merge(metal::api::registry_routes(registry));
        }
        let store = self.store.clone();
        let database = Check::new("database", move || {
            let store = store.clone();
            async move { store.probe().await.map_err(|error| chain(&error)) }
        });
        let tasks = self.tasks.clone();
        let disk = Check::new("task_iso_dir", move || {
            let tasks = tasks.clone();
            async move { room(&tasks) }
        });
        let routes = routes
            .merge(web::health_routes(vec![database, disk]))
            .merge(web::metrics_route(Arc::new(metrics)))
            .merge(crate::explain::routes());
        web::frame(routes, door.frame.clone())
    }
}

/// Less than this, in bytes, and no task ISO can be relied on (runbook 7.4 warns at 2 GiB).
const LEAST_ROOM: u64 = 64 << 20;

fn room(directory: &Path) -> Result<(), String> {
    let space = host::space(directory).map_err(|error| chain(&error))?;
    if space.available < LEAST_ROOM {
        return Err(format!("{} has {} MiB left", directory.display(), space.available >> 20));
    }
    Ok(())
}

/// Where others reach a listener that no setting describes.
fn urls(local: std::net::SocketAddr, tls: bool) -> Result<Urls, Problem> {
    let scheme = if tls { "https" } else { "http" };
    let host = if local.ip().is_unspecified() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else if local.is_ipv6() {
        format!("[{}]", local.ip())
    } else {
        local.ip().to_string()
    };
    let text = format!("{scheme}://{host}:{}", local.port());
    let url = Url::parse(&text).map_err(|error| {
        settings_problem(format!("{text} is no address: {error}")).hint("set MEDIA_URL and CALLBACK_URL")
    })?;
    Ok(Urls { media: url.clone(), callback: url })
}

/// Database and task media may lie outside the data directory; then they have locks of their own. The registry locks itself.
fn lock_others(
    resolved: &Resolved,
    data_dir: &Path,
    settings: &MetalSettings,
    local: &std::net::SocketAddr,
) -> Result<Vec<DataDirLock>, Problem> {
    let database = resolved.get("db_path").map(PathBuf::from);
    let database = database.as_ref().and_then(|path| path.parent()).map(Path::to_owned);
    let outside = [database, Some(settings.task_iso_dir.clone())].into_iter().flatten();
    let outside = outside.filter(|path| !path.as_os_str().is_empty() && !path.starts_with(data_dir));
    outside
        .map(|path| {
            DataDirLock::acquire(&path, &local.to_string())
                .map_err(|error| Problem::new(error.kind(), "data_dir", chain(&error)))
        })
        .collect()
}

fn make_directory(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|error| {
        Problem::new(ErrorKind::Failed, "data_dir", format!("cannot create {}: {error}", path.display()))
    })
}

fn settings_problem(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "settings", detail)
}
