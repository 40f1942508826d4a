//! The real `metald` on a host of its own: an enclosure with its own network, a network outside of it, and guests of
//! Debian's kernel under QEMU's emulation.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::debian_kernel::Kernel;
use crate::microvm::{self, Initramfs, MODULES};
use crate::process::{Daemon, free_port, run};
use crate::{enclosure, environment, http, wait};

/// Programs without which nothing of it runs.
pub const NEEDS: &[&str] = &["qemu-system-x86_64", "busybox", "depmod", "dpkg-deb", "ip", "nft", "curl"];
/// Long enough for a boot on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(100);
/// Somebody in the internet.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Somebody in a private network.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
/// Port at which both answer.
pub const PORT: u16 = 8000;
/// Where the enclosure is, seen from outside.
const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Name of the namespace outside.
const OUTSIDE: &str = "outside";

/// See the module.
#[derive(Debug)]
pub struct Metald {
    program: PathBuf,
    work: PathBuf,
    port: u16,
    environment: Vec<(String, String)>,
    daemon: Option<Daemon>,
}

impl Metald {
    /// Starts it with a kernel called `debian` and an initial file system called `guest`, which are the defaults. Namespaces
    /// have their names in the work directory.
    pub fn start(work: &Path, more: &[(&str, &str)]) -> Result<Self> {
        Self::start_below(work, work, more)
    }

    /// The same with everything else in a place of its own; one after the other they can share an enclosure's work directory.
    pub fn start_below(enclosed: &Path, work: &Path, more: &[(&str, &str)]) -> Result<Self> {
        let names = enclosed.join("netns");
        if !names.exists() {
            std::fs::create_dir_all(&names).context("make a directory for namespaces")?;
            enclosure::bind(enclosed, &names, "/run/netns")?;
        }
        let cairn = environment::cairn()?;
        // A file of its own, as installed: the name decides what the program is.
        let program = work.join("metald");
        std::fs::copy(&cairn, &program).context("copy cairn to metald")?;
        let (port, metrics) = (free_port()?, free_port()?);
        let at = |name: &str| work.join(name).display().to_string();
        for name in ["jails", "assets", "logs"] {
            std::fs::create_dir_all(work.join(name)).context("make a directory for metald")?;
        }
        let mut environment: Vec<(String, String)> = [
            ("ADDRESS", "127.0.0.1".to_owned()),
            ("PORT", port.to_string()),
            ("OTEL_PROMETHEUS_PORT", metrics.to_string()),
            ("BACKEND", "qemu".to_owned()),
            ("DATA_DIR", at("data")),
            ("ASSETMANAGER_CACHE_DIR", at("assets")),
            ("LOG_DIR", at("logs")),
            ("JAILER_CHROOT_DIR", at("jails")),
            ("KEEPER", cairn.with_file_name("cairn-keeper").display().to_string()),
            ("DEFAULT_KERNEL", "debian".to_owned()),
            ("DEFAULT_INITRD", "guest".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (format!("UNKEY_METALD_{name}"), value))
        .collect();
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut metald = Self { program, work: work.to_owned(), port, environment, daemon: None };
        metald.resume()?;
        Ok(metald)
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`] and waits until it answers.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut daemon = Daemon::start("metald", &mut command, &self.log())?;
        let ready = self.url("/health");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait::until("metald to answer", Duration::from_secs(60), LOOK, || {
            daemon.check()?;
            // Over TLS only who knows the certificate can ask; it waits for an answer from there on.
            let is_up = if self.speaks_tls() {
                TcpStream::connect(address).is_ok()
            } else {
                http::get(&ready).is_ok_and(|answer| answer.status == 200)
            };
            Ok(is_up.then_some(()))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Adds the kernel, and an initial file system that is busybox and the guest's first process.
    pub fn add_assets(&self) -> Result<()> {
        let kernel = Kernel::get()?;
        let path = self.work.join("guest.cpio");
        initramfs(&kernel)?.write(&path)?;
        self.command(&["asset", "add", "debian", &kernel.image().display().to_string(), "--kind", "kernel"])?;
        self.command(&["asset", "add", "guest", &path.display().to_string(), "--kind", "initrd"])?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("metald is not running")?.kill()?;
        Ok(())
    }

    /// SIGTERM; gives back how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.daemon.take().context("metald is not running")?.stop(Duration::from_secs(30))
    }

    /// Process id of the daemon.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// File with its log, over all starts.
    pub fn log(&self) -> PathBuf {
        self.work.join("metald.log")
    }

    /// An address of its API.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.speaks_tls() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    fn speaks_tls(&self) -> bool {
        self.environment.iter().any(|(name, value)| name == "UNKEY_METALD_TLS_MODE" && value == "file")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    /// `cairn vm …` against it, to be started.
    pub fn prepare(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(environment::cairn()?);
        command.arg("vm").args(words).args(["--token-file"]).arg(self.data().join("operator.token"));
        command.env("CAIRN_URL", self.url("")).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `cairn vm …` against it, as it ends.
    pub fn try_command(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.prepare(words)?;
        command.output().with_context(|| format!("start cairn vm {}", words.join(" ")))
    }

    /// Runs `cairn vm …` that must end well; gives back its stdout.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let output = self.try_command(words)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("cairn vm {} ended with {}: {}", words.join(" "), output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A VM as JSON.
    pub fn vm(&self, id: &str) -> Result<Value> {
        let text = self.command(&["show", id, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Its state, without `VM_STATE_`.
    pub fn state(&self, id: &str) -> Result<String> {
        let vm = self.vm(id)?;
        Ok(vm["state"].as_str().unwrap_or_default().trim_start_matches("VM_STATE_").to_owned())
    }

    /// Waits for a state.
    pub fn wait_state(&self, id: &str, state: &str) -> Result<()> {
        let what = format!("VM {id} to be {state}");
        wait::until(&what, PATIENCE, LOOK, || Ok((self.state(id)? == state).then_some(())))
    }

    /// The guest's console so far.
    pub fn console(&self, id: &str) -> Result<String> {
        let path = self.work.join("logs/consoles").join(format!("{id}.log"));
        Ok(String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned())
    }

    /// Waits until the guest says something.
    pub fn wait_console(&self, id: &str, text: &str) -> Result<String> {
        let what = format!("VM {id} to say {text:?}");
        let found =
            wait::until(&what, PATIENCE, LOOK, || Ok(Some(self.console(id)?).filter(|said| said.contains(text))));
        found.with_context(|| format!("it said:\n{}", self.console(id).unwrap_or_default()))
    }

    /// The address under which others know a VM.
    pub fn address(&self, id: &str) -> Result<Ipv4Addr> {
        let vm = self.vm(id)?;
        let text = vm["network_info"]["ip_address"].as_str().context("network_info.ip_address")?.to_owned();
        text.parse().with_context(|| format!("{text:?} is no address"))
    }

    /// What belongs to no VM, by its own account.
    pub fn strays(&self) -> Result<String> {
        self.command(&["gc", "--dry-run", "--json"])
    }
}

/// An initial file system that is busybox, a page to serve, and the guest's first process.
pub fn initramfs(kernel: &Kernel) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    initramfs.copy(&microvm::init()?, "init", 0o755)?;
    initramfs.copy(&busybox()?, "bin/busybox", 0o755)?;
    initramfs.modules(kernel, &MODULES)?;
    initramfs.add("etc/cairn/modules", 0o644, format!("{}\n", MODULES.join("\n")).as_bytes());
    initramfs.add("www/index.html", 0o644, b"hello from the guest");
    Ok(initramfs)
}

/// Busybox without shared libraries.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists()).context("busybox is missing")
}

/// A network outside: a namespace with a public and a private address, at which a web server answers; the default route
/// leads there.
#[derive(Debug)]
pub struct Outside {
    _server: Daemon,
}

impl Outside {
    /// Makes it. [`Metald::start`] comes first: it gives namespaces their place.
    pub fn start(work: &Path) -> Result<Self> {
        for line in [
            format!("netns add {OUTSIDE}"),
            format!("link add up0 type veth peer name down0 netns {OUTSIDE}"),
            format!("address add {HERE}/24 dev up0"),
            "link set up0 up".to_owned(),
            format!("-n {OUTSIDE} address add {PUBLIC}/24 dev down0"),
            format!("-n {OUTSIDE} address add {PRIVATE}/32 dev lo"),
            format!("-n {OUTSIDE} link set lo up"),
            format!("-n {OUTSIDE} link set down0 up"),
            format!("-n {OUTSIDE} route add default via {HERE}"),
            format!("route add default via {PUBLIC}"),
        ] {
            run(Command::new("ip").args(line.split(' ')))?;
        }
        let root = work.join("outside");
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("index.html"), "hello from outside")?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", OUTSIDE, "busybox", "httpd", "-f", "-v", "-p", &PORT.to_string(), "-h"])
            .arg(root);
        let server = Daemon::start("httpd outside", &mut command, &work.join("outside.log"))?;
        let address = SocketAddr::from((PUBLIC, PORT));
        wait::until("the server outside", Duration::from_secs(20), LOOK, || {
            Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok())
        })?;
        Ok(Self { _server: server })
    }

    /// Asks a guest from outside.
    pub fn ask(url: &str) -> Result<String> {
        run(Command::new("ip").args(["netns", "exec", OUTSIDE, "curl", "--silent", "--fail", "--max-time", "10", url]))
    }
}

/// The words for a shell line of busybox as a kernel's argument, which knows busybox's own programs without a path.
pub fn shell(line: &str) -> String {
    let escaped = line.replace('%', "%25").replace(' ', "%20").replace('"', "%22");
    format!("cairn.run=\"/bin/busybox sh -c {escaped}\"")
}

/// Asks a web server on this host's own network.
pub fn ask(url: &str) -> Result<String> {
    let answer = http::get(url)?;
    ensure!(answer.status == 200, "{url} answered {}", answer.status);
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
