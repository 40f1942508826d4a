//! The servers that are measured, each a process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::Extensions;
use oci_registry::server::{Anonymous, FileBody, Options, Registry, router};
use tokio_util::sync::CancellationToken;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cairn,
    DockerRegistry,
    /// Gives files only.
    Nginx,
}

/// A running server; dropping it ends it.
pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    /// Where it keeps its blobs, or finds its files.
    pub directory: PathBuf,
    child: Child,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cairn => "cairn",
            Self::DockerRegistry => "docker-registry",
            Self::Nginx => "nginx",
        }
    }
}

/// Starts what is there; says what is not.
pub fn start_all(directory: &Path, cairn: Option<&Path>) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for kind in [Kind::Cairn, Kind::DockerRegistry, Kind::Nginx] {
        match Server::start(kind, &directory.join(kind.name()), cairn)? {
            Some(server) => servers.push(server),
            None => eprintln!("NOT RUN: {0}: {0} is missing", kind.name()),
        }
    }
    Ok(servers)
}

impl Server {
    fn start(kind: Kind, directory: &Path, cairn: Option<&Path>) -> anyhow::Result<Option<Self>> {
        fs::create_dir(directory)?;
        // Nobody else takes ports here between this and the start.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = match (kind, cairn) {
            (Kind::Cairn, None) => library(directory, address)?,
            (Kind::Cairn, Some(program)) => program_of_ours(program, directory, address),
            (Kind::DockerRegistry, _) => docker_registry(directory, address)?,
            (Kind::Nginx, _) => nginx(directory, address)?,
        };
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot start {}", kind.name())),
        };
        let mut server = Self { kind, address, directory: directory.to_owned(), child };
        server.wait()?;
        Ok(Some(server))
    }

    #[allow(clippy::disallowed_methods, reason = "the other servers do not say when they listen")]
    fn wait(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}", self.kind.name());
            }
            if begun.elapsed() > START {
                bail!("{} does not listen on {}", self.kind.name(), self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its processes: itself and its workers.
    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).chain([own]).collect()
    }

    /// Processor time used so far, in seconds.
    pub fn cpu(&self) -> f64 {
        let ticks: u64 = self.processes().into_iter().filter_map(ticks).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Most memory held since [`Server::forget_peak`], in bytes. Processes of one server are added up.
    pub fn peak(&self) -> u64 {
        let peak = |id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(peak).sum::<u64>() << 10
    }

    /// Begins to look for the peak anew.
    pub fn forget_peak(&self) {
        for id in self.processes() {
            // Where that is not allowed the peak is that of the whole run, which is no better for us.
            let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM: nginx ends its workers on it.
        if let Some(id) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// User and system time of a process, in clock ticks.
fn ticks(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything; utime and stime are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

fn library(directory: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve").arg(directory).arg("--listen").arg(address.to_string());
    Ok(command)
}

fn program_of_ours(program: &Path, directory: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["registry", "serve"]).env("CONTROLLER_HTTP_ADDR", address.to_string());
    command.env("STORAGE_ROOT", directory.with_extension("data")).env("REGISTRY_STORAGE", directory);
    command.env("AUTH_MODE", "none").env("REGISTRY_AUTH_MODE", "none").env("LOG_LEVEL", "warn");
    command
}

fn docker_registry(directory: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let config = directory.with_extension("yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {}}}\n\
         http: {{addr: \"{address}\"}}\n",
        directory.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config);
    Ok(command)
}

fn nginx(directory: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let place = directory.with_extension("run");
    fs::create_dir(&place)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {}/{name};\n", place.display()))
        .concat();
    let text = format!(
        "daemon off;\nuser root;\nworker_processes auto;\npid {run}/pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{temporary}  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000;\n\
         server {{ listen {address}; root {root}; default_type application/octet-stream; }}\n}}\n",
        run = place.display(),
        root = directory.display()
    );
    let config = place.join("nginx.conf");
    fs::write(&config, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&place).arg("-c").arg(config).args(["-e", "stderr"]);
    Ok(command)
}

struct Files;

impl FileBody for Files {
    fn body(&self, of: &Extensions, file: File, first: u64, length: u64, sent: Arc<dyn Fn(u64) + Send + Sync>) -> Body {
        web::file_body(of, file, first, length, sent)
    }
}

/// The library's registry behind the server that Cairn puts in front of it.
pub fn serve(root: PathBuf, address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = Options::new(Arc::new(Anonymous));
        options.files = Arc::new(Files);
        let registry = Registry::open(root, options).await?;
        let listener = web::bind(&address.to_string().parse().map_err(anyhow::Error::msg)?).await?;
        web::serve(listener, router(Arc::new(registry)), web::ServeOptions::new(CancellationToken::new())).await;
        Ok(())
    })
}
