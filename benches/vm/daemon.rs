//! The layer as `metald` runs it, in a process of its own: real settings, database, keepers, network, API and listener.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cairn_core::SystemClock;
use observe::logging::{self, LogFormat};
use observe::metrics::Registry;
use rustix::process::{Resource, getrlimit, setrlimit};
use settings::Resolver;
use store::Store;
use testkit::guest_kernel::{End, Guest};
use testkit::{hypervisor, process, wait};
use tokio_util::sync::CancellationToken;
use vm::metrics::VmMetrics;
use vm::settings::{KEYS, VmSettings};
use web::{FrameOptions, HttpMetrics, RateLimiter, ServeOptions};

use crate::client::Client;

/// How long it may take to answer.
const START: Duration = Duration::from_secs(60);
/// Kernel of every VM.
const KERNEL: &str = "tick";

/// A daemon that runs; dropping it ends it, and no VM.
pub struct Daemon {
    directory: PathBuf,
    port: u16,
    process: process::Daemon,
}

impl Daemon {
    /// Starts one on what is in the directory, and waits until it answers.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--daemon").arg(directory);
        let log = directory.join("log");
        let process = process::Daemon::start("the daemon", &mut command, &log)?;
        let mut daemon = Self { directory: directory.to_owned(), port: 0, process };
        let port = directory.join("port");
        daemon.port = wait::until("the daemon's port", START, Duration::from_millis(1), || {
            daemon.process.check()?;
            Ok(std::fs::read_to_string(&port).ok().and_then(|text| text.parse().ok()))
        })?;
        daemon.client()?.get("/health")?;
        Ok(daemon)
    }

    /// A client with an operator's token.
    pub fn client(&self) -> anyhow::Result<Client> {
        let token = self.directory.join("data/operator.token");
        let token = std::fs::read_to_string(&token).with_context(|| format!("read {}", token.display()))?;
        Client::connect(self.port, token.trim())
    }

    /// Adds what VMs are booted from.
    pub fn add_kernel(&self) -> anyhow::Result<()> {
        let kernel = Guest::line("tick", End::Halt).elf();
        self.client()?.exchange("PUT", &format!("/v1/assets/{KERNEL}?kind=kernel"), &kernel).map(drop)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        std::fs::remove_file(self.directory.join("port")).context("remove the port of the daemon before")
    }
}

/// What is asked for when a VM is made.
pub fn wish(id: &str) -> serde_json::Value {
    let config = serde_json::json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 128 << 20}});
    serde_json::json!({"vm_id": id, "config": config})
}

fn settings(directory: &Path) -> anyhow::Result<VmSettings> {
    let fakes = hypervisor::fakes()?;
    let at = |name: &str| directory.join(name).display().to_string();
    let environment = [
        ("DATA_DIR", at("data")),
        ("ASSETMANAGER_CACHE_DIR", at("assets")),
        ("LOG_DIR", at("logs")),
        ("JAILER_CHROOT_DIR", at("jails")),
        ("BACKEND", "firecracker".to_owned()),
        ("FIRECRACKER", fakes.firecracker.display().to_string()),
        ("JAILER", fakes.jailer.context("no fake jailer")?.display().to_string()),
        ("KEEPER", crate::keeper()?.display().to_string()),
        ("DEFAULT_KERNEL", KERNEL.to_owned()),
    ];
    let environment = environment.into_iter().map(|(name, value)| (format!("UNKEY_METALD_{name}"), value)).collect();
    let resolved = Resolver::new(&[KEYS]).environment(&environment)?.resolve();
    Ok(VmSettings::resolve(&resolved, &directory.join("data"))?)
}

/// Serves until the process is ended.
pub fn serve(directory: &Path) -> anyhow::Result<()> {
    // As the daemon does: every VM takes some.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    logging::init(LogFormat::Json, "info", std::io::stderr, None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(directory))
}

async fn run(directory: &Path) -> anyhow::Result<()> {
    let settings = settings(directory)?;
    std::fs::create_dir_all(&settings.data_dir)?;
    let store = Store::open(&settings.data_dir.join("metald.db"), vm::store::MIGRATIONS).await?;
    let mut families = Registry::new();
    families.process();
    let metrics = Arc::new(VmMetrics::register(&mut families, false, &vm::api::table::names()));
    let frame = FrameOptions {
        metrics: HttpMetrics::register(&mut families),
        tls: false,
        proxies: "".parse().map_err(anyhow::Error::msg)?,
    };
    let clock = Arc::new(SystemClock);
    let api = vm::open(&settings, store, metrics, clock.clone()).await?;
    let shutdown = CancellationToken::new();
    let rate = std::num::NonZeroU32::MIN;
    let options = vm::api::RouteOptions {
        failures: Arc::new(RateLimiter::new(rate, rate)),
        shutdown: shutdown.clone(),
        asset_limit: settings.asset_limit,
        version: env!("CARGO_PKG_VERSION"),
        clock,
    };
    let routes = vm::api::routes(&api, options).merge(web::metrics_route(Arc::new(families)));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Whoever reads it reads all of it.
    let (new, port) = (directory.join("port.new"), directory.join("port"));
    std::fs::write(&new, listener.local_addr()?.port().to_string())?;
    std::fs::rename(new, port)?;
    let gauges = {
        let (api, shutdown) = (Arc::clone(&api), shutdown.clone());
        async move { api.keep_gauges(&shutdown).await }
    };
    let server = web::serve(listener, web::frame(routes, frame), ServeOptions::new(shutdown.clone()));
    tokio::select! {
        ended = vm::run(Arc::clone(&api.service), shutdown) => Ok(ended?),
        _ = server => Ok(()),
        () = gauges => Ok(()),
    }
}
