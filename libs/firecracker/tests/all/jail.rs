//! The jailer's command line and paths, seen from outside of a jail. Needs root.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use firecracker::{
    CgroupVersion, Client, Config, DeviceId, Exit, Jailer, MmdsConfig, MmdsVersion, NetworkInterface, Options, State,
    VmId,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde_json::json;
use testkit::guest_kernel::{End, Guest};
use testkit::hypervisor::{Order, Pattern, Programs, order};
use testkit::process::{exists, run};
use tokio::process::Child;

use crate::support::{self, PATIENCE, programs};

const UID: u32 = 20_001;
const GID: u32 = 20_002;

/// A network namespace with a tap device that belongs to the jail's user.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let namespace = Self(format!("{name}-{}", std::process::id()));
        run(Command::new("ip").args(["netns", "add", &namespace.0])).unwrap();
        let (uid, gid) = (UID.to_string(), GID.to_string());
        let tap = ["tuntap", "add", "tap0", "mode", "tap", "user", &uid, "group", &gid];
        run(Command::new("ip").args(["-n", &namespace.0]).args(tap)).unwrap();
        namespace
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

/// The programs with which a jail can be made; says what is missing.
fn jailers(test: &str) -> Vec<Programs> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: {test}: it needs root");
        return Vec::new();
    }
    let (able, unable): (Vec<_>, Vec<_>) = programs(test).into_iter().partition(|one| one.jailer.is_some());
    if !unable.is_empty() {
        eprintln!("NOT RUN: {test} with the real jailer: CAIRN_TEST_JAILER is not set");
    }
    able
}

/// Starts a jail in which a kernel lies; output goes to `out` in the base.
fn start(jailer: &Jailer, program: &Path, end: End) -> Child {
    std::fs::create_dir_all(jailer.root()).unwrap();
    Guest::line("hello", end).write(&jailer.outside(Path::new("/kernel"))).unwrap();
    let log = |name: &str| File::create(jailer.base.join(name)).unwrap();
    let mut command = tokio::process::Command::new(program);
    command.args(jailer.vector().unwrap()).stdin(Stdio::null()).stdout(log("out")).stderr(log("err"));
    command.kill_on_drop(true).spawn().unwrap()
}

fn config() -> Config {
    let mut config = support::config(Path::new("/kernel"));
    let eth0 = DeviceId::new("eth0").unwrap();
    config.network_interfaces = vec![NetworkInterface {
        iface_id: eth0.clone(),
        host_dev_name: "tap0".to_owned(),
        guest_mac: Some("02:00:00:00:00:01".to_owned()),
        mtu: None,
        rx_rate_limiter: None,
        tx_rate_limiter: None,
    }];
    let mmds = MmdsConfig { network_interfaces: vec![eth0], version: MmdsVersion::V2, ipv4_address: None };
    config.mmds = Some((mmds, json!({ "a": 1 })));
    config
}

fn same_file(left: &Path, right: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
    id(left) == id(right)
}

#[tokio::test]
async fn a_jailed_process_has_nothing_but_its_jail() {
    let test = "a_jailed_process_has_nothing_but_its_jail";
    if !testkit::environment::root_is_mounted() {
        return eprintln!("NOT RUN: {test}: / is no mount point, so that ip cannot change its propagation");
    }
    if !exists("ip") {
        return eprintln!("NOT RUN: {test}: ip is missing");
    }
    for programs in jailers(test) {
        let base = tempfile::tempdir().unwrap();
        let namespace = Namespace::new(if programs.fake { "cairn-jail-fake" } else { "cairn-jail-real" });
        let mut jailer = Jailer::new(VmId::new("vm-1").unwrap(), &programs.firecracker, UID, GID);
        jailer.base = base.path().to_owned();
        jailer.network_namespace = Some(namespace.path());
        jailer.open_files_limit = Some(512);
        jailer.arguments.socket = "/run/ns_vm_1.sock".into();
        let program = programs.jailer.as_deref().unwrap();
        let mut child = start(&jailer, program, End::Repeat);
        let client = Client::new(jailer.socket(), Options::default());
        assert_eq!(client.wait_ready(PATIENCE).await.unwrap().id, "vm-1");
        config().apply(&client).await.unwrap();
        client.start().await.unwrap();
        assert_eq!(client.info().await.unwrap().state, State::Running);

        let pid = child.id().unwrap();
        assert_eq!(std::fs::read_to_string(jailer.pid_file()).unwrap(), pid.to_string());
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n")), "{status}");
        assert!(status.contains(&format!("Gid:\t{GID}\t{GID}\t{GID}\t{GID}\n")), "{status}");
        assert!(status.contains("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"), "{status}");
        assert!(same_file(&process.join("root"), &jailer.root()));
        assert!(same_file(&process.join("ns/net"), &namespace.path()));
        let limits = std::fs::read_to_string(process.join("limits")).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["512", "512"]);
        let line = std::fs::read(process.join("cmdline")).unwrap();
        assert!(String::from_utf8_lossy(&line).contains("/run/ns_vm_1.sock"));

        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
        assert_eq!(Exit::of(child.wait().await.unwrap()), Exit::Signal(15));
        // What is left of a jail stands in the way of the next one.
        assert_eq!(Exit::of(start(&jailer, program, End::Halt).wait().await.unwrap()), Exit::Generic);
        assert!(jailer.directory().is_dir());
    }
}

#[tokio::test]
async fn a_process_of_its_own_outlives_the_jailer() {
    for programs in jailers("a_process_of_its_own_outlives_the_jailer") {
        let base = tempfile::tempdir().unwrap();
        let mut jailer = Jailer::new(VmId::new("vm-3").unwrap(), &programs.firecracker, UID, GID);
        jailer.base = base.path().to_owned();
        jailer.new_pid_namespace = true;
        jailer.daemonize = true;
        let status = start(&jailer, programs.jailer.as_deref().unwrap(), End::Repeat).wait().await.unwrap();
        assert_eq!(Exit::of(status), Exit::Ok);
        let client = Client::new(jailer.socket(), Options::default());
        client.wait_ready(PATIENCE).await.unwrap();
        let pid: i32 = std::fs::read_to_string(jailer.pid_file()).unwrap().parse().unwrap();
        let process = PathBuf::from(format!("/proc/{pid}"));
        assert!(same_file(&process.join("root"), &jailer.root()));
        if programs.fake {
            // Orders reach into a jail.
            let refuse = Order::Refuse { request: Pattern::of("PUT", "*"), fault: "no".to_owned() };
            order(&jailer.socket(), &[refuse]).unwrap();
            assert!(support::config(Path::new("/kernel")).apply(&client).await.is_err());
        }
        let pid = Pid::from_raw(pid).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        // The pidfd is readable once the process has ended; its parent is somebody else now.
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    }
}

#[tokio::test]
async fn settings_become_a_control_group() {
    let test = "settings_become_a_control_group";
    let Some((version, mount)) = pids_hierarchy() else {
        return eprintln!("NOT RUN: {test}: no hierarchy with the pids controller");
    };
    for programs in jailers(test) {
        let base = tempfile::tempdir().unwrap();
        let mut jailer = Jailer::new(VmId::new("vm-2").unwrap(), &programs.firecracker, UID, GID);
        jailer.base = base.path().to_owned();
        jailer.cgroup_version = version;
        jailer.parent_cgroup = Some(format!("cairn-test-{}", std::process::id()).into());
        jailer.cgroup_settings = vec![("pids.max".to_owned(), "64".to_owned())];
        let mut child = start(&jailer, programs.jailer.as_deref().unwrap(), End::Halt);
        let client = Client::new(jailer.socket(), Options::default());
        client.wait_ready(PATIENCE).await.unwrap();
        let group = mount.join(jailer.cgroup().unwrap());
        assert_eq!(std::fs::read_to_string(group.join("pids.max")).unwrap(), "64\n");
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), child.id().unwrap().to_string());
        child.kill().await.unwrap();
        std::fs::remove_dir(&group).unwrap();
        std::fs::remove_dir(group.parent().unwrap()).unwrap();
    }
}

/// Version and mount point of the hierarchy that has the pids controller.
fn pids_hierarchy() -> Option<(CgroupVersion, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let path = PathBuf::from(words[1]);
        match words[2] {
            "cgroup" if words[3].split(',').any(|option| option == "pids") => Some((CgroupVersion::V1, path)),
            "cgroup2" => {
                let controllers = std::fs::read_to_string(path.join("cgroup.controllers")).ok()?;
                controllers.split_whitespace().any(|one| one == "pids").then_some((CgroupVersion::V2, path))
            }
            _ => None,
        }
    })
}
