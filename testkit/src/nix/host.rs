//! A host of the rack.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::rack::{FAR, NEAR, NIX_CONF, Rack, ip, make_key};
use super::system::gate;
use crate::process::run;
use crate::systemd_host::{Prepared, SystemdHost};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const PROFILE: &str = "/nix/var/nix/profiles/system";
const SSHD: &str =
    "PermitRootLogin yes\nPasswordAuthentication yes\nHostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n";
/// Brings the system up that the boot "loader" names, before systemd.
const STAGE_2: &str = "#!/bin/sh\nsystem=$(cat /boot/loader/default)\n\"$system/init\"\n";

/// Which networks a host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The controller's.
    Near,
    /// The one that the controller does not reach.
    Far,
    /// Both: a jump host.
    Between,
}

/// A running host; it ends with this value.
#[derive(Debug)]
pub struct Host {
    name: String,
    place: Place,
    number: u8,
    directory: PathBuf,
    // Ends before the mounts below its root do.
    host: SystemdHost,
}

impl Host {
    pub(super) fn boot(rack: &Rack, name: &str, place: Place, number: u8) -> Result<Self> {
        let directory = rack.work().join("hosts").join(name);
        let enclosure = rack.work().file_name().context("a work directory without a name")?.to_string_lossy();
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let network = network(name, place, number)?;
        let mut prepared = Prepared::new(&directory, &format!("{enclosure}-{name}"))?;
        prepared.set_network(&network);
        install(rack, &prepared.root(), &directory, name)?;
        let host = prepared
            .start()
            .with_context(|| format!("its log:\n{}", fs::read_to_string(directory.join("log")).unwrap_or_default()))?;
        let host = Self { name: name.to_owned(), place, number, directory, host };
        host.wait_sshd()?;
        Ok(host)
    }

    /// Its name, also by `hostname`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the near network, or in the far one if it is only there.
    pub fn address(&self) -> Ipv4Addr {
        if self.place == Place::Far { self.far_address() } else { Ipv4Addr::new(10, 77, 0, 10 + self.number) }
    }

    /// Its address in the far network.
    pub fn far_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, 10 + self.number)
    }

    /// Its file system, as seen from here; /nix, /run, /tmp and /dev are not in there.
    pub fn root(&self) -> PathBuf {
        self.host.root()
    }

    /// Its systemd.
    pub fn systemd(&self) -> &SystemdHost {
        &self.host
    }

    /// A program on it, as root, not over its network.
    pub fn command(&self, program: &str) -> Command {
        self.host.command(program)
    }

    /// A program on it, as root, to its end, which must be a good one.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.host.run(words).with_context(|| format!("on {}", self.name))
    }

    /// A program on it, as it ends.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no program")?;
        self.command(program).args(arguments).stdin(Stdio::null()).output().context("start a program on a host")
    }

    /// Text of a file on it.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(&["cat", path])
    }

    /// Whether there is something at a path; a link that leads nowhere is something.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.output(&["test", "-e", path, "-o", "-L", path])?.status.success())
    }

    /// Where a link leads in the end.
    pub fn follow(&self, path: &str) -> Result<PathBuf> {
        Ok(self.run(&["readlink", "-f", path])?.trim().into())
    }

    /// The system that was activated last.
    pub fn current_system(&self) -> Result<PathBuf> {
        self.follow("/run/current-system")
    }

    /// The system that it was booted with.
    pub fn booted_system(&self) -> Result<PathBuf> {
        self.follow("/run/booted-system")
    }

    /// The system of its profile.
    pub fn profile(&self) -> Result<PathBuf> {
        self.follow(PROFILE)
    }

    /// The system that the next boot brings up.
    pub fn boot_default(&self) -> Result<PathBuf> {
        Ok(self.read("/boot/loader/default")?.trim().into())
    }

    /// Generations of its profile, the oldest first.
    pub fn generations(&self) -> Result<Vec<PathBuf>> {
        let mut numbers: Vec<u32> = Vec::new();
        for link in self.run(&["ls", "/nix/var/nix/profiles"])?.lines() {
            let number = link.strip_prefix("system-").and_then(|rest| rest.strip_suffix("-link"));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        numbers.iter().map(|number| self.follow(&format!("{PROFILE}-{number}-link"))).collect()
    }

    /// State of a unit: `active`, `failed`, …
    pub fn unit_state(&self, unit: &str) -> Result<String> {
        let output = self.output(&["systemctl", "is-active", unit])?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until a unit is in a state.
    pub fn wait_unit(&self, unit: &str, state: &str) -> Result<()> {
        let what = format!("{unit} of {} to be {state}", self.name);
        wait::until(&what, LIMIT, LOOK, || Ok((self.unit_state(unit)? == state).then_some(())))
    }

    /// Names of units in any of these states (as `systemctl --state` takes them), those of a pattern only.
    pub fn units(&self, pattern: &str, states: &str) -> Result<Vec<String>> {
        let state = format!("--state={states}");
        let list = self.run(&["systemctl", "list-units", "--no-legend", "--plain", "--all", &state, pattern])?;
        Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// How often a unit was started since boot: it has another invocation each time, so this is a name of the present one.
    pub fn invocation(&self, unit: &str) -> Result<String> {
        Ok(self.run(&["systemctl", "show", "--property=InvocationID", "--value", unit])?.trim().to_owned())
    }

    /// Its journal since boot, of one unit or of all.
    pub fn journal(&self, unit: Option<&str>) -> Result<String> {
        let mut words = vec!["journalctl", "--no-pager", "--output=cat", "--boot"];
        words.extend(unit.iter().flat_map(|unit| ["--unit", unit]));
        self.run(&words)
    }

    /// Lets a unit made by [`super::Unit::held`] go on; waits until it stands there.
    pub fn release(&self, unit: &str) -> Result<()> {
        self.wait_held(unit)?;
        self.run(&["sh", "-c", "echo go > \"$0\"", &gate(unit)]).map(drop)
    }

    /// Waits until such a unit stands at its gate.
    pub fn wait_held(&self, unit: &str) -> Result<()> {
        let what = format!("{unit} of {} to be held", self.name);
        let gate = gate(unit);
        wait::until(&what, LIMIT, LOOK, || Ok(self.output(&["test", "-p", &gate])?.status.success().then_some(())))
    }

    /// Takes its network away without its interface noticing: what is sent gets lost.
    pub fn cut(&self) -> Result<()> {
        self.each_port(|port, _| ip(&["link", "set", port, "nomaster"]))
    }

    /// Gives it back.
    pub fn mend(&self) -> Result<()> {
        self.each_port(|port, bridge| ip(&["link", "set", port, "master", bridge]))
    }

    /// Whether its own interface is up.
    pub fn is_linked(&self) -> Result<bool> {
        Ok(self.run(&["ip", "-o", "link", "show", "dev", "eth0"])?.contains(",UP"))
    }

    /// Reboots it and waits until it can be logged in again.
    pub fn reboot(&mut self) -> Result<()> {
        self.host.reboot()?;
        self.wait_sshd()
    }

    /// The line of its host key, as in a known_hosts file but without the address.
    pub fn host_key(&self) -> Result<String> {
        let line =
            fs::read_to_string(self.root().join("etc/ssh/ssh_host_ed25519_key.pub")).context("read a host key")?;
        Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// Gives it another host key, as after a new installation; gives back its line.
    pub fn change_host_key(&self) -> Result<String> {
        make_key(&self.root().join("etc/ssh/ssh_host_ed25519_key"), "")?;
        self.run(&["systemctl", "restart", "ssh.service"])?;
        self.wait_sshd()?;
        self.host_key()
    }

    /// Adds a user with a password, who may use sudo without being asked for it if that is wanted.
    pub fn add_user(&self, name: &str, password: &str, sudo: bool) -> Result<()> {
        self.run(&["useradd", "--create-home", "--shell", "/bin/bash", name])?;
        self.set_password(name, password)?;
        if sudo {
            let path = self.root().join("etc/sudoers.d").join(name);
            fs::write(&path, format!("{name} ALL=(ALL) NOPASSWD: ALL\n")).context("write a rule for sudo")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).context("protect a rule for sudo")?;
        }
        Ok(())
    }

    /// Sets a user's password.
    pub fn set_password(&self, name: &str, password: &str) -> Result<()> {
        // The host's own file that only root reads, and no argument.
        let file = self.directory.join("home/password");
        fs::write(&file, format!("{name}:{password}\n")).context("write a password")?;
        let set = self.run(&["sh", "-c", "chpasswd < /root/password && rm /root/password"]);
        set.map(drop)
    }

    /// Lets a user log in with a public key.
    pub fn authorize(&self, name: &str, public_key: &str) -> Result<()> {
        let home = self.run(&["sh", "-c", "getent passwd \"$0\" | cut -d: -f6", name])?;
        let path = format!("{}/.ssh", home.trim());
        self.run(&["install", "-d", "-m", "700", "-o", name, &path])?;
        let line = format!("printf '%s\\n' \"$0\" >> {path}/authorized_keys && chown {name} {path}/authorized_keys");
        self.run(&["sh", "-c", &line, public_key]).map(drop)
    }

    /// Its sshd takes connections.
    fn wait_sshd(&self) -> Result<()> {
        let what = format!("sshd of {}", self.name);
        if self.place == Place::Far {
            return self.wait_unit("ssh.service", "active");
        }
        let address = SocketAddr::from((self.address(), 22));
        wait::until(&what, LIMIT, LOOK, || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()))
            .map(drop)
    }

    fn each_port(&self, change: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        ports(self.place).iter().enumerate().try_for_each(|(index, bridge)| change(&port(self.number, index), bridge))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its file system goes with the value inside; the namespace has a name that another host may want.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ports(place: Place) -> &'static [&'static str] {
    match place {
        Place::Near => &[NEAR],
        Place::Far => &[FAR],
        Place::Between => &[NEAR, FAR],
    }
}

fn port(number: u8, index: usize) -> String {
    format!("port{number}-{index}")
}

/// A network namespace with its name, plugged in.
fn network(name: &str, place: Place, number: u8) -> Result<PathBuf> {
    ip(&["netns", "add", name])?;
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    for (index, bridge) in ports(place).iter().enumerate() {
        let (port, inside) = (port(number, index), format!("eth{index}"));
        let network = if *bridge == NEAR { 77 } else { 78 };
        ip(&["link", "add", &port, "type", "veth", "peer", "name", &inside, "netns", name])?;
        ip(&["link", "set", &port, "addrgenmode", "none"])?;
        ip(&["link", "set", &port, "master", bridge, "up"])?;
        ip(&["-n", name, "address", "add", &format!("10.{network}.0.{}/24", 10 + number), "dev", &inside])?;
        ip(&["-n", name, "link", "set", &inside, "up"])?;
    }
    Ok(Path::new("/run/netns").join(name))
}

/// What makes a copy of this machine a host with the first system.
fn install(rack: &Rack, root: &Path, directory: &Path, name: &str) -> Result<()> {
    let write = |path: &str, mode: u32, text: &str| -> Result<()> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("mode of {}", path.display()))
    };
    write("etc/hostname", 0o644, &format!("{name}\n"))?;
    // systemd makes one.
    write("etc/machine-id", 0o444, "")?;
    write("etc/nix/nix.conf", 0o644, NIX_CONF)?;
    write("etc/ssh/sshd_config.d/host.conf", 0o644, SSHD)?;
    bind(&directory.join("home"), &root.join("root"))?;
    write("root/.ssh/authorized_keys", 0o600, &format!("{}\n", rack.public_key()?))?;
    fs::set_permissions(root.join("root/.ssh"), fs::Permissions::from_mode(0o700)).context("protect .ssh")?;
    write("boot/stage-2", 0o755, STAGE_2)?;
    let base = rack.base().display().to_string();
    write("boot/loader/default", 0o644, &format!("{base}\n"))?;
    for entry in fs::read_dir(root.join("etc/ssh")).context("read etc/ssh")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path()).context("remove this machine's host key")?;
        }
    }
    make_key(&root.join("etc/ssh/ssh_host_ed25519_key"), "")?;
    // Starts with each target that is started, which NixOS keeps it from.
    let runlevel = root.join("etc/systemd/system/systemd-update-utmp-runlevel.service");
    let _ = fs::remove_file(&runlevel);
    symlink("/dev/null", &runlevel).context("mask a unit")?;
    // Setup masks it on this machine.
    let _ = fs::remove_file(root.join("etc/systemd/system/ssh.service"));
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).context("make the target's directory")?;
    symlink("/lib/systemd/system/ssh.service", wants.join("ssh.service")).context("enable sshd")?;
    store(rack, root, directory, &base)
}

/// A store of its own, with the first system and a profile that names it.
fn store(rack: &Rack, root: &Path, directory: &Path, base: &str) -> Result<()> {
    let own = directory.join("nix");
    let to = format!("local?root={}", directory.display());
    run(rack.nix("nix").args(["copy", "--no-check-sigs", "--to", &to, base]))?;
    let profiles = own.join("var/nix/profiles");
    fs::create_dir_all(&profiles).context("make the profiles")?;
    symlink(base, profiles.join("system-1-link")).context("link the first generation")?;
    symlink("system-1-link", profiles.join("system")).context("link the profile")?;
    bind(&own, &root.join("nix"))
}

/// Shows an own directory in the place of this machine's: what lies there slows each login down, or is not to be seen.
fn bind(own: &Path, seen: &Path) -> Result<()> {
    for path in [own, seen] {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    }
    run(Command::new("mount").arg("--bind").args([own, seen])).map(drop)
}
