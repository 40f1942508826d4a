//! What the daemon owns once its listener is bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_core::{Clock, ErrorKind, SystemClock, chain};
use metal::Urls;
use metal::settings::MetalSettings;
use observe::metrics::{Disk, Registry};
use registry::Service;
use registry::metrics::RegistryMetrics;
use registry::ports::{Guests, Leases, Reached};
use registry::settings::RegistrySettings;
use settings::Resolved;
use store::{InstanceKey, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;
use vm::settings::VmSettings;
use web::{Check, Problem};

use super::door::Door;
use super::microvms::Machines;
use super::{microvms, settings_problem};
use crate::wiring::{JobArtifacts, Jobs};

/// Settings of what runs in this role.
pub(super) struct Wanted {
    pub(super) metal: Option<MetalSettings>,
    pub(super) registry: Option<RegistrySettings>,
    pub(super) vm: Option<VmSettings>,
}

/// See the module.
pub(super) struct Parts {
    pub(super) store: Store,
    metal: Option<Arc<metal::Metal>>,
    registry: Option<Arc<Service>>,
    vm: Option<Machines>,
    /// Directories in which there has to be room.
    rooms: Vec<(&'static str, PathBuf)>,
}

impl Parts {
    pub(super) async fn open(
        resolved: &Resolved,
        data_dir: &Path,
        wanted: Wanted,
        door: &Door,
        local: std::net::SocketAddr,
        metrics: &mut Registry,
    ) -> Result<Self, Problem> {
        let database = resolved.get("db_path").map_or_else(|| data_dir.join("db/cairn.db"), PathBuf::from);
        make_directory(database.parent().unwrap_or(data_dir))?;
        let migrations = [metal::store::MIGRATIONS, registry::MIGRATIONS, vm::store::MIGRATIONS].concat();
        if let Some(settings) = &wanted.vm {
            microvms::check_users(settings.uids)?;
            for warning in &settings.warnings {
                tracing::warn!(setting = %warning, "a setting has no effect");
            }
        }
        let aside = store::set_stale_log_aside(&database).map_err(|error| {
            let detail = format!("cannot look at the log of {}: {error}", database.display());
            Problem::new(ErrorKind::Failed, "database", detail)
        })?;
        if let Some(aside) = aside {
            tracing::warn!(log = %aside.display(), "the database was replaced: the log of the one before is not applied to it");
        }
        let store = Store::open(&database, &migrations)
            .await
            .map_err(|error| Problem::new(error.kind(), "database", chain(&error)))?;
        metrics.process();
        let (mut disks, mut rooms) = (Vec::new(), Vec::new());
        if let Some(settings) = &wanted.metal {
            disks.push(Disk { path: "/var/lib/shoal/tasks".to_owned(), directory: settings.task_iso_dir.clone() });
            rooms.push(("task_iso_dir", settings.task_iso_dir.clone()));
        }
        if let Some(settings) = &wanted.registry {
            disks.push(Disk { path: "/var/lib/shoal/oci".to_owned(), directory: settings.storage.clone() });
            rooms.push(("registry_storage", settings.storage.clone()));
        }
        metrics.disks(disks);
        if let Some(settings) = wanted.vm {
            rooms.push(("data_dir", settings.data_dir.clone()));
            rooms.push(("vm_jailer_chroot_dir", settings.jail_dir.clone()));
            let vm = Some(Machines::open(&settings, &store, metrics).await?);
            return Ok(Self { store, metal: None, registry: None, vm, rooms });
        }
        let key = instance_key(data_dir, &store).await?;
        let listener = address(local, door.tls.is_some())?;
        let jobs = Arc::new(Jobs::default());
        let registry = match (wanted.registry, &door.registry) {
            (Some(settings), Some(metrics)) => {
                let ports = ports(wanted.metal.as_ref(), &jobs, &store, door, &listener, local);
                Some(open_registry(settings, &store, &key, door, metrics.clone(), ports).await?)
            }
            _ => None,
        };
        let metal = match (wanted.metal, &door.metal) {
            (Some(settings), Some(metrics)) => {
                for directory in [&settings.task_iso_dir, &settings.static_dir.join("isos")] {
                    make_directory(directory)?;
                }
                let content = registry.as_ref().map(|service| Arc::clone(service.registry()));
                let urls = Urls { media: listener.clone(), callback: listener };
                let clock = Arc::new(SystemClock);
                let metal = metal::Metal::new(store.clone(), settings, metrics.clone(), key, content, clock, &urls);
                jobs.connect(&metal);
                Some(metal)
            }
            _ => None,
        };
        Ok(Self { store, metal, registry, vm: None, rooms })
    }

    /// Starts what works beside the requests.
    pub(super) fn start(&self, shutdown: &CancellationToken) -> JoinSet<Result<(), Problem>> {
        let mut workers = JoinSet::new();
        if let Some(metal) = &self.metal {
            let work = metal::run(Arc::clone(metal), shutdown.clone());
            workers.spawn(async { work.await.map_err(|error| Problem::internal(&error)) });
        }
        if let Some(registry) = &self.registry {
            let work = registry::run(Arc::clone(registry), shutdown.clone());
            workers.spawn(async { work.await.map_err(|error| Problem::internal(&error)) });
        }
        if let Some(vm) = &self.vm {
            vm.start(&mut workers, shutdown);
        }
        workers
    }

    pub(super) fn routes(&self, door: &Door, metrics: Arc<Registry>, shutdown: &CancellationToken) -> axum::Router {
        let mut routes = axum::Router::new();
        if let Some(metal) = &self.metal {
            let (auth, shutdown) = (door.auth.clone(), shutdown.clone());
            let options = metal::api::RouteOptions { auth, limiter: Arc::clone(&door.limiter), shutdown };
            routes = routes.merge(metal::api::routes(metal, &options));
        }
        if let Some(registry) = &self.registry {
            routes = routes.merge(registry.routes());
        }
        if let Some(vm) = &self.vm {
            routes = routes.merge(vm.routes(door, shutdown));
        }
        let store = self.store.clone();
        let database = Check::new("database", move || {
            let store = store.clone();
            async move { store.probe().await.map_err(|error| chain(&error)) }
        });
        let rooms = self.rooms.iter().cloned().map(|(name, directory)| {
            Check::new(name, move || {
                let directory = directory.clone();
                async move { room(&directory) }
            })
        });
        let routes = routes
            .merge(web::health_routes(std::iter::once(database).chain(rooms).collect()))
            .merge(web::metrics_route(metrics))
            .merge(crate::explain::routes());
        web::frame(routes, door.frame.clone())
    }

    /// Once nothing is served any more.
    pub(super) async fn close(&self) {
        if let Some(registry) = &self.registry {
            registry.close().await;
        }
        self.store.close().await;
    }
}

async fn instance_key(data_dir: &Path, store: &Store) -> Result<InstanceKey, Problem> {
    metal::instance_key(data_dir, store).await.map_err(|error| {
        Problem::new(ErrorKind::Failed, "instance_key", chain(&error)).hint(
            "put the key of this database back from its backup; cairn explain instance_key says what is left without one",
        )
    })
}

async fn open_registry(
    settings: RegistrySettings,
    store: &Store,
    key: &InstanceKey,
    door: &Door,
    metrics: RegistryMetrics,
    ports: registry::Ports,
) -> Result<Arc<Service>, Problem> {
    Service::open(settings, store.clone(), key, metrics, door.auth.clone(), ports)
        .await
        .map_err(|error| error.problem())
}

/// What the registry is told of the rest of the daemon.
fn ports(
    metal: Option<&MetalSettings>,
    jobs: &Arc<Jobs>,
    store: &Store,
    door: &Door,
    listener: &Url,
    local: std::net::SocketAddr,
) -> registry::Ports {
    let configured = metal.into_iter().flat_map(|settings| [&settings.media_url, &settings.callback_url]);
    let reached = Reached {
        loopback: local.ip().is_loopback(),
        tls: door.tls.is_some(),
        listener: listener.clone(),
        configured: configured.flatten().cloned().collect(),
    };
    let guests = metal.map(|_| Arc::clone(jobs) as Arc<dyn Guests>).into_iter().collect();
    let leases: Vec<Arc<dyn Leases>> = vec![Arc::new(JobArtifacts::of(store))];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    registry::Ports { guests, leases, reached, failures: Arc::clone(&door.failures), clock }
}

/// Less than this, in bytes, and neither task ISO nor record can be relied on (runbook 7.4 warns at 2 GiB).
const LEAST_ROOM: u64 = 64 << 20;

fn room(directory: &Path) -> Result<(), String> {
    let space = host::space(directory).map_err(|error| chain(&error))?;
    if space.available < LEAST_ROOM {
        return Err(format!("{} has {} MiB left", directory.display(), space.available >> 20));
    }
    Ok(())
}

/// Where others reach a listener that no setting describes.
fn address(local: std::net::SocketAddr, tls: bool) -> Result<Url, Problem> {
    let scheme = if tls { "https" } else { "http" };
    let host = if local.ip().is_unspecified() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else if local.is_ipv6() {
        format!("[{}]", local.ip())
    } else {
        local.ip().to_string()
    };
    let text = format!("{scheme}://{host}:{}", local.port());
    Url::parse(&text).map_err(|error| {
        settings_problem(format!("{text} is no address: {error}")).hint("set MEDIA_URL and CALLBACK_URL")
    })
}

fn make_directory(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|error| {
        Problem::new(ErrorKind::Failed, "data_dir", format!("cannot create {}: {error}", path.display()))
    })
}
