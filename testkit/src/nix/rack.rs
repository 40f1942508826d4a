//! Networks, a controller with a Nix of its own, and keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use super::{Flake, Host, NEEDS, Place, System};
use crate::process::{exists, run};
use crate::systemd_host::SystemdHost;
use crate::{bridge, enclosure};

/// For the controller and for hosts: nothing is fetched, and nobody but root builds.
pub(super) const NIX_CONF: &str = "experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
flake-registry =
";
/// The network that the controller is in, and the one that it is not in.
pub(super) const NEAR: &str = "near0";
pub(super) const FAR: &str = "far0";

/// A rack in an enclosure with its own network; it goes with that. Hosts go before it.
#[derive(Debug)]
pub struct Rack {
    work: PathBuf,
    base: PathBuf,
    hosts: u8,
}

impl Rack {
    /// Why there cannot be one here, if that is so.
    pub fn missing() -> Option<String> {
        let missing = NEEDS.iter().find(|program| !exists(program)).map(|program| format!("{program} is missing"));
        missing.or_else(SystemdHost::missing)
    }

    /// Makes the networks, gives this side a Nix of its own at /nix and /etc/nix, and makes a key.
    pub fn start(work: &Path) -> Result<Self> {
        for directory in ["netns", "nix", "etc-nix", "home", "keys", "hosts"] {
            fs::create_dir_all(work.join(directory)).context("make a directory for the rack")?;
        }
        fs::write(work.join("etc-nix/nix.conf"), NIX_CONF).context("write nix.conf")?;
        enclosure::bind(work, &work.join("netns"), "/run/netns")?;
        enclosure::bind(work, &work.join("nix"), "/nix")?;
        enclosure::bind(work, &work.join("etc-nix"), "/etc/nix")?;
        bridge::loopback_up()?;
        for (name, address) in [(NEAR, Some("10.77.0.1/24")), (FAR, None)] {
            // A port that is plugged in again is to work at once.
            ip(&["link", "add", name, "type", "bridge", "forward_delay", "0"])?;
            // Nobody here is to reach the far network by IPv6 either.
            ip(&["link", "set", name, "addrgenmode", "none"])?;
            if let Some(address) = address {
                ip(&["address", "add", address, "dev", name])?;
            }
            ip(&["link", "set", name, "up"])?;
        }
        make_key(&work.join("keys/controller"), "")?;
        let mut rack = Self { work: work.to_owned(), base: PathBuf::new(), hosts: 0 };
        rack.base = rack.build_base()?;
        Ok(rack)
    }

    /// Directory for everything.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The private key with which root logs in on every host.
    pub fn key(&self) -> PathBuf {
        self.work.join("keys/controller")
    }

    /// Its public line.
    pub fn public_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.work.join("keys/controller.pub")).context("read the key")?.trim().to_owned())
    }

    /// A new flake of this name.
    pub fn flake(&self, name: &str) -> Result<Flake> {
        Flake::new(&self.work.join("git").join(name))
    }

    /// Boots a host.
    pub fn boot(&mut self, name: &str, place: Place) -> Result<Host> {
        self.boot_all(&[(name, place)])?.pop().context("no host")
    }

    /// Boots hosts side by side.
    pub fn boot_all(&mut self, wanted: &[(&str, Place)]) -> Result<Vec<Host>> {
        let first = self.hosts;
        self.hosts += u8::try_from(wanted.len()).context("too many hosts")?;
        let rack = &*self;
        std::thread::scope(|scope| {
            let boots: Vec<_> = (first..)
                .zip(wanted)
                .map(|(number, (name, place))| scope.spawn(move || Host::boot(rack, name, *place, number)))
                .collect();
            let hosts = boots.into_iter().map(|boot| boot.join().ok().context("booting a host panicked")?);
            hosts.collect()
        })
    }

    /// The controller's Nix, with a home of its own.
    pub fn nix(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.work.join("home")).env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    }

    /// Builds a system here and gives back its store path.
    pub fn build(&self, reference: &str) -> Result<PathBuf> {
        let built = run(self.nix("nix").args(["build", "--no-link", "--json", reference]))?;
        let built: serde_json::Value = serde_json::from_str(&built).with_context(|| format!("not JSON: {built}"))?;
        Ok(built[0]["outputs"]["out"].as_str().context("no output was built")?.into())
    }

    /// Copies a store path and what it needs to a host, by Nix's own ssh.
    pub fn copy(&self, host: &Host, path: &Path) -> Result<()> {
        let options = format!("-F {}", self.ssh_configuration(host, None)?.display());
        let mut copy = self.nix("nix");
        copy.env("NIX_SSHOPTS", options).args([
            "copy",
            "--no-check-sigs",
            "--to",
            &format!("ssh-ng://{}", host.name()),
        ]);
        run(copy.arg(path)).map(drop)
    }

    /// The real ssh to a host as root, which knows the host's key; over `jump` where the host is far.
    pub fn ssh(&self, host: &Host, jump: Option<&Host>) -> Result<Command> {
        let configuration = self.ssh_configuration(host, jump)?;
        let mut command = Command::new("ssh");
        command.arg("-F").arg(configuration).arg(host.name());
        Ok(command)
    }

    /// Runs words on a host over the real ssh, as they end.
    pub fn over_ssh(&self, host: &Host, words: &[&str]) -> Result<Output> {
        self.ssh(host, None)?.args(words).stdin(Stdio::null()).output().context("start ssh")
    }

    /// A file for `ssh -F` with a host and the way to it.
    pub fn ssh_configuration(&self, host: &Host, jump: Option<&Host>) -> Result<PathBuf> {
        let known = self.work.join(format!("known-{}", host.name()));
        let path = self.work.join(format!("ssh-{}", host.name()));
        let (mut keys, mut text) = (String::new(), String::new());
        for one in [Some(host), jump].into_iter().flatten() {
            let (name, address) = (one.name(), one.address());
            keys += &format!("{address} {}\n", one.host_key()?);
            text += &format!("Host {name}\nHostName {address}\nUser root\nIdentityFile {}\n", self.key().display());
            if let Some(jump) = jump.filter(|jump| jump.name() != name) {
                text += &format!("ProxyJump {}\n", jump.name());
            }
        }
        text += &format!(
            "Host *\nBatchMode yes\nIdentitiesOnly yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {}\n",
            known.display()
        );
        fs::write(&known, keys).context("write known hosts")?;
        fs::write(&path, text).context("write a configuration for ssh")?;
        Ok(path)
    }

    /// The system that a host has before anybody deploys: the same for all.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    fn build_base(&self) -> Result<PathBuf> {
        let mut flake = self.flake("installed")?;
        let commit = flake.set(System::new("installed", "0"))?;
        self.build(&flake.reference(&commit, "installed"))
    }
}

/// A new key pair without a passphrase, or with one.
pub(super) fn make_key(path: &Path, passphrase: &str) -> Result<()> {
    for old in [path.to_owned(), path.with_extension("pub")] {
        let _ = fs::remove_file(old);
    }
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-C", "test", "-N", passphrase, "-f"]).arg(path);
    run(&mut command).map(drop)
}

/// A line of `ip`.
pub(super) fn ip(words: &[&str]) -> Result<()> {
    if words.is_empty() {
        bail!("nothing to do");
    }
    run(Command::new("ip").args(words)).map(drop)
}
