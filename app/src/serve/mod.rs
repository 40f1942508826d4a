//! `cairn serve`: checks the settings, binds, then opens what it owns, and runs until it is told to stop.

mod door;
mod microvms;
mod parts;
pub(crate) mod traces;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_core::{ErrorKind, chain};
use metal::settings::MetalSettings;
use observe::logging::{self, LogFormat};
use observe::metrics::Registry;
use observe::traces::{SpanCounters, Traces};
use registry::settings::RegistrySettings;
use rustix::process::{Resource, getrlimit, setrlimit};
use settings::Resolved;
use store::DataDirLock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use vm::settings::VmSettings;
use web::{ListenAddress, Problem, Tls};

use self::door::Door;
use self::parts::{Parts, Wanted};
use crate::arguments::{Called, Role, Serve};
use crate::config;

/// How long a stop waits for a collector of traces at most.
const LAST_TRACES: Duration = Duration::from_secs(3);

/// Codes of a daemon that does not start; each has a page in docs/errors/.
#[cfg(test)]
pub const CODES: &[&str] =
    &["settings", "listen", "data_dir", "no_authentication", "database", "instance_key", "registry"];

/// Runs the daemon.
pub async fn serve(options: &Serve) -> Result<(), Problem> {
    let resolved = config::of_daemon(options)?;
    let data_dir = config::data_dir_of(options.role, &resolved)?;
    let wanted = wanted(options.role, &resolved, &data_dir)?;
    let format: LogFormat = resolved.parse("log_format").map_err(|error| config::problem(&error))?;
    let level = resolved.require("log_level").map_err(|error| config::problem(&error))?;
    let mut metrics = Registry::new();
    let traces = begin_traces(options, &resolved, &mut metrics)?;
    logging::init(format, level, std::io::stderr, traces.as_ref())
        .map_err(|error| settings_problem(error.to_string()))?;
    let address: ListenAddress = resolved.parse("listen").map_err(|error| config::problem(&error))?;
    let door = Door::open(options.role, &resolved, &address, &mut metrics)?;
    let listener = web::bind(&address).await.map_err(|error| {
        // The usual reason for a port in use is a controller on the same data: then its holder is named.
        let locked = error.kind() == ErrorKind::Conflict && data_dir.join("lock").exists();
        let held = locked.then(|| DataDirLock::acquire(&data_dir, "").err()).flatten();
        match held {
            Some(held) => Problem::new(held.kind(), "data_dir", chain(&held)),
            None => Problem::new(error.kind(), "listen", chain(&error)).hint(match options.called {
                Called::Cairn => "say another address with --listen",
                Called::Metald => "say another one with UNKEY_METALD_ADDRESS and UNKEY_METALD_PORT",
            }),
        }
    })?;
    let second = match wanted.vm.as_ref().filter(|_| options.called == Called::Metald) {
        Some(settings) => microvms::metrics_listener(settings).await?,
        None => None,
    };
    let local = listener.local_addr().map_err(|error| Problem::internal(&error))?;
    let _lock = DataDirLock::acquire(&data_dir, &local.to_string())
        .map_err(|error| Problem::new(error.kind(), "data_dir", chain(&error)))?;
    let _others = lock_others(&resolved, &data_dir, wanted.metal.as_ref(), &local)?;
    more_files();
    let shutdown = CancellationToken::new();
    let parts = Parts::open(&resolved, &data_dir, wanted, &door, local, &mut metrics).await?;
    let metrics = Arc::new(metrics);
    let app = parts.routes(&door, Arc::clone(&metrics), &shutdown);
    tracing::info!(address = %local, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let mut workers = parts.start(&shutdown);
    if let Some(listener) = second {
        let serve = web::serve(listener, web::metrics_route(metrics), web::ServeOptions::new(shutdown.clone()));
        workers.spawn(async move {
            serve.await;
            Ok(())
        });
    }
    let signals = tokio::spawn(obey_signals(shutdown.clone(), door.tls.clone()));
    let options = web::ServeOptions { tls: door.tls.clone(), ..web::ServeOptions::new(shutdown.clone()) };
    let server = tokio::spawn(web::serve(listener, app, options));
    let result = supervise(workers, server, signals, &shutdown).await;
    parts.close().await;
    if let Some(traces) = traces {
        traces.stop(LAST_TRACES).await;
    }
    tracing::info!("stopped");
    result
}

/// Spans go to a collector where that is wanted. Nothing is sent before there is one.
fn begin_traces(options: &Serve, resolved: &Resolved, metrics: &mut Registry) -> Result<Option<Traces>, Problem> {
    let counters = SpanCounters::register(metrics);
    let settings = traces::settings(options.called, options.role, resolved).map_err(|error| config::problem(&error))?;
    let start = |settings| Traces::start(&settings, counters).map_err(|error| Problem::internal(&error));
    settings.map(start).transpose()
}

/// Every connection, upload and open blob takes a descriptor, and the usual limit of 1,024 is for programs that use
/// select(2). As many as the administrator allows.
fn more_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the limit on open files stays as it is");
    }
}

/// What runs in a role.
fn wanted(role: Role, resolved: &Resolved, data_dir: &Path) -> Result<Wanted, Problem> {
    let metal = match role {
        Role::Metal => Some(MetalSettings::resolve(resolved, data_dir).map_err(|error| config::problem(&error))?),
        Role::Registry | Role::Vm => None,
    };
    if role == Role::Vm {
        let vm = VmSettings::resolve(resolved, data_dir).map_err(|error| config::problem(&error))?;
        return Ok(Wanted { metal: None, registry: None, vm: Some(vm) });
    }
    let registry = RegistrySettings::resolve(resolved, data_dir).map_err(|error| config::problem(&error))?;
    let registry = Some(registry).filter(|settings| role == Role::Registry || settings.enabled);
    Ok(Wanted { metal, registry, vm: None })
}

/// A part that ends on its own takes the process with it: a restart reconciles, a lame daemon does not.
async fn supervise(
    mut workers: JoinSet<Result<(), Problem>>,
    mut server: JoinHandle<web::Drain>,
    mut signals: JoinHandle<()>,
    shutdown: &CancellationToken,
) -> Result<(), Problem> {
    let ended =
        |ended: Result<Result<(), Problem>, JoinError>| ended.map_err(|error| Problem::internal(&error)).flatten();
    let mut result = tokio::select! {
        Some(worker) = workers.join_next() => ended(worker),
        ended = &mut server => return ended.map(drop).map_err(|error| Problem::internal(&error)),
        ended = &mut signals => ended.map_err(|error| Problem::internal(&error)),
    };
    shutdown.cancel();
    if !server.is_finished() {
        server.await.map_err(|error| Problem::internal(&error))?;
    }
    signals.abort();
    while let Some(worker) = workers.join_next().await {
        result = result.and(ended(worker));
    }
    result
}

async fn obey_signals(shutdown: CancellationToken, tls: Option<Tls>) {
    let listen = |kind| signal(kind).inspect_err(|error| tracing::error!(%error, "signals cannot be listened to"));
    let (Ok(mut terminate), Ok(mut hangup), Ok(mut quit)) =
        (listen(SignalKind::terminate()), listen(SignalKind::hangup()), listen(SignalKind::quit()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            // What hangs is looked at, and goes on (metald's guide, "Service Hung").
            _ = quit.recv() => dump(),
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

/// What this process is doing, on standard error.
fn dump() {
    use std::io::Write as _;
    // Nobody is left to be told when standard error is closed.
    let _ = std::io::stderr().write_all(observe::tasks::dump().as_bytes());
}

/// Database and task media may lie outside the data directory; then they have locks of their own. The registry locks itself.
fn lock_others(
    resolved: &Resolved,
    data_dir: &Path,
    settings: Option<&MetalSettings>,
    local: &std::net::SocketAddr,
) -> Result<Vec<DataDirLock>, Problem> {
    let database = resolved.get("db_path").map(PathBuf::from);
    let database = database.as_ref().and_then(|path| path.parent()).map(Path::to_owned);
    let outside = [database, settings.map(|settings| settings.task_iso_dir.clone())].into_iter().flatten();
    let outside = outside.filter(|path| !path.as_os_str().is_empty() && !path.starts_with(data_dir));
    outside
        .map(|path| {
            DataDirLock::acquire(&path, &local.to_string())
                .map_err(|error| Problem::new(error.kind(), "data_dir", chain(&error)))
        })
        .collect()
}

fn settings_problem(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "settings", detail)
}
