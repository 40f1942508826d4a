//! What the tests of both hypervisors share: a network namespace with a tap, a process started as a keeper would, and the
//! life of a VM through the port.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keeper::Order;
use tempfile::TempDir;
use testkit::process::{exists, run};
use testkit::wait;
use vm::adapters::Places;
use vm::model::{Slot, State, Vm, VmId};
use vm::ports::{DiskFile, Exit, GuestAddresses, Hypervisor, Launch, Look, Stray, Wire};

/// Long enough for a boot on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two looks at a file or a process.
const MOMENT: Duration = Duration::from_millis(50);

/// How long a guest that stands still is watched.
const STILL: Duration = Duration::from_millis(700);

/// First user of the VMs here.
const FIRST_USER: u32 = 210_000;

/// What one VM needs: directories, a network namespace with a tap, a user.
pub struct Bed {
    pub directory: TempDir,
    pub id: VmId,
    pub uid: u32,
    namespace: String,
}

impl Bed {
    /// Makes it; `None`, said, where that is not possible.
    pub fn new(test: &str, id: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: {test}: it needs root");
            return None;
        }
        if !testkit::environment::root_is_mounted() {
            eprintln!("NOT RUN: {test}: / is no mount point, so that ip cannot change its propagation");
            return None;
        }
        if let Some(program) = ["ip", "nsenter", "setpriv"].iter().find(|program| !exists(program)) {
            eprintln!("NOT RUN: {test}: {program} is missing");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = FIRST_USER + number;
        let directory = tempfile::tempdir().unwrap();
        // Users of VMs pass through, as through /srv/jailer.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["jails", "consoles", "disks"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let namespace = format!("cairn-test-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &namespace])).unwrap();
        let bed = Self { directory, id: id.parse().unwrap(), uid, namespace };
        let (user, group) = (uid.to_string(), uid.to_string());
        bed.ip(&["tuntap", "add", "tap0", "mode", "tap", "user", &user, "group", &group]);
        bed.ip(&["addr", "add", "10.0.0.1/24", "dev", "tap0"]);
        bed.ip(&["link", "set", "tap0", "up"]);
        Some(bed)
    }

    fn ip(&self, words: &[&str]) {
        run(Command::new("ip").args(["-n", &self.namespace]).args(words)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn places(&self) -> Places {
        Places { jails: self.path("jails"), consoles: self.path("consoles"), console_limit: 1 << 20 }
    }

    /// A file of the network namespace.
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// A command inside the network namespace.
    pub fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).args(words);
        command
    }

    /// A disk of the VM's own.
    pub fn disk(&self, id: &str, size: u64, read_only: bool) -> DiskFile {
        let path = self.path("disks").join(id);
        File::create(&path).unwrap().set_len(size).unwrap();
        DiskFile { id: id.to_owned(), path, read_only, is_root: false }
    }

    /// A launch with 192 MiB and one processor.
    pub fn launch(&self, kernel: &Path, words: &str) -> Launch {
        let spec = serde_json::from_value(serde_json::json!({
            "cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 192 << 20}, "boot": {"kernel_args": words}
        }));
        let (id, customer) = (self.id.clone(), "acme".parse().unwrap());
        let vm = Vm::new(id, customer, spec.unwrap(), jiff::Timestamp::UNIX_EPOCH);
        let vm = Vm { state: State::Starting, slot: Slot(self.uid - FIRST_USER), operation: None, ..vm };
        let wire = Wire {
            namespace: self.id.namespace(),
            namespace_path: self.namespace(),
            link: vm.slot.link(),
            tap: "tap0".to_owned(),
            mac: "02:00:00:00:00:02".to_owned(),
            guest: GuestAddresses {
                ipv4: Some("10.0.0.2/24".parse().unwrap()),
                gateway_ipv4: Some("10.0.0.1".parse().unwrap()),
                ipv6: Some("fd00::2/64".parse().unwrap()),
                gateway_ipv6: Some("fd00::1".parse().unwrap()),
            },
            ipv4: None,
            ipv6: None,
            dns: vec!["10.0.0.1".parse().unwrap()],
        };
        let (kernel, uid) = (kernel.to_owned(), self.uid);
        Launch { vm, kernel, initrd: None, disks: Vec::new(), wire, uid, gid: uid }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.namespace]));
    }
}

/// A hypervisor's process, begun as a keeper does it; killed with its value.
pub struct Process {
    child: Child,
    console: PathBuf,
}

impl Process {
    pub fn start(order: &Order) -> Self {
        if let (Some(path), Some(owner)) = (&order.metrics, order.user.or(order.metrics_owner)) {
            run(Command::new("mkfifo").args(["-m", "600"]).arg(path)).unwrap();
            chown(path, Some(owner.uid), Some(owner.gid)).unwrap();
        }
        let mut argv = Vec::new();
        if let Some(namespace) = &order.network_namespace {
            argv.extend(["nsenter".to_owned(), format!("--net={}", namespace.display())]);
        }
        if let Some(user) = order.user {
            let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
            let rest = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"];
            argv.extend(["setpriv".to_owned(), uid, gid]);
            argv.extend(rest.map(str::to_owned));
        }
        argv.extend(order.argv.iter().cloned());
        let console = File::options().append(true).create(true).open(&order.console).unwrap();
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env_clear().envs(&order.environment).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.current_dir(&order.directory).stdin(Stdio::piped());
        command.stdout(console.try_clone().unwrap()).stderr(console);
        Self { child: command.spawn().unwrap(), console: order.console.clone() }
    }

    /// Its directory in /proc.
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    /// What it and its guest wrote.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).replace('\r', "")
    }

    pub fn count(&self, text: &str) -> usize {
        self.console().matches(text).count()
    }

    /// Waits until the console has more of a text than before.
    pub fn wait_more(&mut self, text: &str, before: usize) -> usize {
        let found = wait::until(text, PATIENCE, MOMENT, || {
            let count = self.count(text);
            anyhow::ensure!(count > before || self.child.try_wait()?.is_none(), "the process has ended");
            Ok((count > before).then_some(count))
        });
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.console()))
    }

    /// Waits for the end.
    pub fn ended(&mut self) -> Exit {
        let status = wait::until("the end of the process", PATIENCE, MOMENT, || Ok(self.child.try_wait()?));
        let status = status.unwrap_or_else(|error| panic!("{error:#}\n{}", self.console()));
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }

    pub fn kill(&mut self) -> Exit {
        self.child.kill().unwrap();
        self.ended()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Brings a VM up to its first sign of life. Everything is asked for twice: each call can be made again.
pub async fn boot(hypervisor: &dyn Hypervisor, launch: &Launch, sign: &str) -> Process {
    let order = hypervisor.jail(launch).await.unwrap();
    // A jail that an earlier run left is no obstacle.
    assert_eq!(hypervisor.jail(launch).await.unwrap(), order);
    let mut process = Process::start(&order);
    if let Err(error) = hypervisor.ready(&launch.vm, PATIENCE).await {
        panic!("{error}\n{}", process.console());
    }
    assert_eq!(hypervisor.look(&launch.vm).await, Ok(Look::Waiting));
    hypervisor.start(launch).await.unwrap();
    hypervisor.start(launch).await.unwrap();
    assert_eq!(hypervisor.look(&launch.vm).await, Ok(Look::Running));
    process.wait_more(sign, 0);
    process
}

/// Stops and resumes a guest that writes `sign` again and again.
pub async fn pause_and_resume(hypervisor: &dyn Hypervisor, vm: &Vm, process: &mut Process, sign: &str) {
    hypervisor.pause(vm).await.unwrap();
    hypervisor.pause(vm).await.unwrap();
    assert_eq!(hypervisor.look(vm).await, Ok(Look::Paused));
    // What the guest had written before may still be under way. A guest that goes on would be seen in any of these
    // times, so none in which nothing comes means that it stands still.
    let mut before = usize::MAX;
    let still = wait::until("a guest that stands still", PATIENCE, STILL, || {
        let count = process.count(sign);
        let stands = count == before;
        before = count;
        Ok(stands.then_some(count))
    });
    let count = still.unwrap();
    hypervisor.resume(vm).await.unwrap();
    hypervisor.resume(vm).await.unwrap();
    assert_eq!(hypervisor.look(vm).await, Ok(Look::Running));
    process.wait_more(sign, count + 1);
}

/// Nothing of the VM is left when its jail is removed, and it is a stray while nobody knows it.
pub async fn clear(hypervisor: &dyn Hypervisor, bed: &Bed, vm: &Vm) {
    let strays = hypervisor.strays(&[]).await.unwrap();
    let [Stray { kind, name }] = &strays[..] else { panic!("{strays:?}") };
    assert!(kind == "jail" && Path::new(name).starts_with(bed.path("jails")), "{strays:?}");
    assert_eq!(hypervisor.strays(std::slice::from_ref(&vm.id)).await.unwrap(), []);
    hypervisor.unjail(vm).await.unwrap();
    hypervisor.unjail(vm).await.unwrap();
    assert_eq!(hypervisor.strays(&[]).await.unwrap(), []);
    assert!(!Path::new(name).exists());
    assert!(hypervisor.look(vm).await.is_err());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bed.directory.path().to_str().unwrap()), "{mounts}");
}

/// What a process may do: its user everywhere, no capability, no way to gain one, its own network.
pub fn assert_confined(process: &Process, bed: &Bed) {
    let status = std::fs::read_to_string(process.proc().join("status")).unwrap();
    let uid = bed.uid;
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    assert!(status.contains(&format!("Gid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    let network = |path: PathBuf| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).unwrap().ino()
    };
    assert_eq!(network(process.proc().join("ns/net")), network(bed.namespace()));
    let line = std::fs::read(process.proc().join("cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let at = line.find("firecracker").unwrap_or_else(|| panic!("{line}"));
    assert!(line[at..].contains(&format!("ns_vm_{}", bed.id)), "{line}");
}

/// No file below a directory can be written by others (guide, "Security Audit": `find … -perm /o+w`).
pub fn assert_closed(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if !metadata.is_symlink() {
            assert_eq!(metadata.permissions().mode() & 0o002, 0, "{}", entry.path().display());
        }
        if metadata.is_dir() {
            assert_closed(&entry.path());
        }
    }
}
