//! A host with a systemd of its own as first process, over this machine's file system: what it writes is gone with it.
//!
//! Namespaces, control groups (v1 for controllers) and devices are its own; kernel and programs are this machine's. Units
//! that are enabled on this machine are not on that one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Daemon, exists, run};
use crate::wait;

const SCRIPT: &str = include_str!("systemd_host.sh");
const HIERARCHIES: [&str; 7] = ["unified", "systemd", "memory", "pids", "cpu", "cpuacct", "devices"];
const BOOT: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(30);

/// A host that is not running yet: its file system can be changed.
#[derive(Debug)]
pub struct Prepared {
    directory: PathBuf,
    name: String,
    network: Option<PathBuf>,
    started: bool,
}

impl Prepared {
    /// Lays its file system over this machine's. Everything that belongs to it is below `directory`, which must not be on an
    /// overlay file system; `name` is that of its control groups.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let root = directory.join("root");
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(directory.join(part)).with_context(|| format!("make {}", directory.display()))?;
        }
        let layers = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", directory.display());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(&root))?;
        let prepared = Self { directory: directory.to_owned(), name: name.to_owned(), network: None, started: false };
        quieten(&root)?;
        Ok(prepared)
    }

    /// Its file system, as seen from here.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Gives it a network namespace that is there, and stays when it reboots.
    pub fn set_network(&mut self, file: &Path) {
        self.network = Some(file.to_owned());
    }

    /// Boots it.
    pub fn start(mut self) -> Result<SystemdHost> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, &self.name]).arg(self.root()).arg(&self.name);
        command.arg(self.network.as_deref().unwrap_or(Path::new("")));
        let launcher = Daemon::start(&self.name, &mut command, &self.directory.join("log"))?;
        self.started = true;
        let mut host = SystemdHost { launcher, directory: self.directory.clone(), name: self.name.clone() };
        host.wait_running()?;
        Ok(host)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.started {
            tidy(&self.directory, &self.name);
        }
    }
}

/// A running host; it ends with this value.
#[derive(Debug)]
pub struct SystemdHost {
    launcher: Daemon,
    directory: PathBuf,
    name: String,
}

impl SystemdHost {
    /// Why there cannot be one here, if that is so.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("it needs root".to_owned());
        }
        let programs = ["unshare", "nsenter", "setpriv", "systemctl", "dbus-daemon"];
        if let Some(program) = programs.into_iter().find(|program| !exists(program)) {
            return Some(format!("{program} is missing"));
        }
        let is_there = |hierarchy: &&str| Path::new("/sys/fs/cgroup").join(hierarchy).is_dir();
        let missing: Vec<&str> = HIERARCHIES.into_iter().filter(|hierarchy| !is_there(hierarchy)).collect();
        (!missing.is_empty()).then(|| format!("no control groups at /sys/fs/cgroup/{}", missing.join(", ")))
    }

    /// Boots one with a network of its own; see [`Prepared::new`].
    pub fn boot(directory: &Path, name: &str) -> Result<Self> {
        Prepared::new(directory, name)?.start()
    }

    /// Its file system, as seen from here.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Process id of its systemd, as seen from here; each boot has another.
    pub fn init(&self) -> Option<u32> {
        // Below the launcher there is `unshare`, and below that the first process.
        let first = child(child(self.launcher.id())?)?;
        let name = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
        (name.trim() == "systemd").then_some(first)
    }

    /// Waits until its systemd has done what is to be done at boot.
    pub fn wait_running(&mut self) -> Result<()> {
        wait::until("the first process", BOOT, Duration::from_millis(20), || {
            self.launcher.check()?;
            Ok(self.init())
        })?;
        // `degraded` is as good: something of this machine's that has no place in a container.
        wait::until("systemd", BOOT, Duration::from_millis(50), || {
            self.launcher.check()?;
            let output = self.command("systemctl").arg("is-system-running").output().context("ask systemd")?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&state.as_str()).then_some(()))
        })
    }

    /// Reboots it and waits until it is up again.
    pub fn reboot(&mut self) -> Result<()> {
        let before = self.init().context("it is not running")?;
        self.run(&["systemctl", "--no-block", "reboot"])?;
        self.wait_rebooted(before)
    }

    /// Waits until another first process than `before` has booted.
    pub fn wait_rebooted(&mut self, before: u32) -> Result<()> {
        wait::until("the reboot", BOOT, Duration::from_millis(20), || {
            self.launcher.check()?;
            Ok(self.init().filter(|now| *now != before))
        })?;
        self.wait_running()
    }

    /// A program on it, as root. Without a running systemd the program cannot be started.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init().unwrap_or_default().to_string();
        command.args(["--target", &init, "-m", "-u", "-i", "-n", "-p", "-C", "--", program]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// A program on it, as another user with no more than that user's rights.
    pub fn command_as(&self, uid: u32, gid: u32, program: &str) -> Command {
        let mut command = self.command("setpriv");
        // setpriv itself still has every capability when it begins a program; what env begins is begun by the user.
        let user = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()];
        command.args(user).args(["--", "env", program]);
        command
    }

    /// A program on it, as root, to its end.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let Some((program, arguments)) = words.split_first() else { bail!("no program") };
        run(self.command(program).args(arguments))
    }

    fn power_off(&mut self) -> Result<()> {
        self.run(&["systemctl", "--no-block", "poweroff"])?;
        self.launcher.wait_end(STOP).map(drop)
    }
}

impl Drop for SystemdHost {
    fn drop(&mut self) {
        if self.init().is_none() || self.power_off().is_err() {
            // Its first process dies with the launcher, and everything with that.
            let _ = self.launcher.kill();
        }
        tidy(&self.directory, &self.name);
    }
}

/// The only child of a process.
fn child(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Nothing that is enabled on this machine, and no terminal.
fn quieten(root: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    for entry in fs::read_dir(&units).with_context(|| format!("read {}", units.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wants") {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for unit in ["console-getty.service", "getty@.service", "systemd-firstboot.service"] {
        let path = units.join(unit);
        let _ = fs::remove_file(&path);
        symlink("/dev/null", &path).with_context(|| format!("link {}", path.display()))?;
    }
    Ok(())
}

/// Takes away what the kernel still has of it.
fn tidy(directory: &Path, name: &str) {
    let _ = run(Command::new("umount").arg("--lazy").arg(directory.join("root")));
    for hierarchy in HIERARCHIES {
        remove_groups(&Path::new("/sys/fs/cgroup").join(hierarchy).join(name));
    }
}

/// Takes away the control groups of hosts whose name begins so: those of a run that was killed.
pub(crate) fn sweep(prefix: &str) {
    for hierarchy in HIERARCHIES {
        let groups = fs::read_dir(Path::new("/sys/fs/cgroup").join(hierarchy)).into_iter().flatten().flatten();
        for group in groups.filter(|group| group.file_name().to_string_lossy().starts_with(prefix)) {
            remove_groups(&group.path());
        }
    }
}

/// A control group and those below it; the kernel's files in it need no removing.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    // Processes that were just killed may still be leaving it.
    let gone = || Ok((fs::remove_dir(group).is_ok() || !group.exists()).then_some(()));
    let _ = wait::until("the control group to be empty", Duration::from_secs(5), Duration::from_millis(50), gone);
}
