//! A rack with a flake, an inventory of its hosts, and the real `cairn machine`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::nix::{Flake, Host, Place, Rack, System, Unit};
use testkit::process::Daemon;
use testkit::{environment, wait};

use crate::runner::CannotRun;

/// Programs that every scenario with a fleet needs.
pub(super) const NEEDS: &[&str] = testkit::nix::NEEDS;
/// For what happens on a machine with other work.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Fleet {
    pub(super) rack: Rack,
    pub(super) flake: Flake,
    machines: Vec<Value>,
    configurations: Vec<Value>,
    secrets: Vec<Value>,
}

impl Fleet {
    /// Boots hosts and makes a machine, with its host key pinned, and a configuration of each.
    pub(super) fn start(work: &Path, wanted: &[(&str, Place)]) -> Result<(Self, Vec<Host>)> {
        if let Some(why) = Rack::missing() {
            return Err(CannotRun(why).into());
        }
        let mut rack = Rack::start(work)?;
        let hosts = rack.boot_all(wanted)?;
        let flake = rack.flake("fleet")?;
        let key = fs::read_to_string(rack.key()).context("read the key")?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"ssh-privatekey": key},
        });
        let mut fleet = Self { rack, flake, machines: vec![], configurations: vec![], secrets: vec![secret] };
        for host in &hosts {
            let name = host.name();
            let (machine, configuration) = (fleet.machine_of(host)?, fleet.configuration_of(name));
            fleet.machines.push(object("Machine", name, &machine));
            fleet.configurations.push(object("NixosConfiguration", name, &configuration));
        }
        fleet.write()?;
        Ok((fleet, hosts))
    }

    fn machine_of(&self, host: &Host) -> Result<Value> {
        Ok(json!({
            "ipAddress": host.address().to_string(),
            "sshKeySecretRef": {"name": "key"},
            "hostKeys": [host.host_key()?],
        }))
    }

    fn configuration_of(&self, name: &str) -> Value {
        json!({
            "gitRepo": format!("file://{}", self.flake.directory().display()),
            "ref": "main",
            "flake": format!("#{name}"),
            "machineRef": {"name": name},
            "confirmTimeout": "60s",
        })
    }

    /// Sets fields of a Machine's spec; null takes one away.
    pub(super) fn set_machine(&mut self, name: &str, fields: &Value) -> Result<()> {
        set(&mut self.machines, name, fields)?;
        self.write()
    }

    /// The same for a configuration.
    pub(super) fn set_configuration(&mut self, name: &str, fields: &Value) -> Result<()> {
        set(&mut self.configurations, name, fields)?;
        self.write()
    }

    /// Takes a configuration away.
    pub(super) fn remove_configuration(&mut self, name: &str) -> Result<()> {
        self.configurations.retain(|object| object["metadata"]["name"] != name);
        self.write()
    }

    /// Adds a Secret.
    pub(super) fn add_secret(&mut self, name: &str, data: &Value) -> Result<()> {
        self.secrets.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
        }));
        self.write()
    }

    fn inventory(&self) -> PathBuf {
        self.rack.work().join("inventory.json")
    }

    fn write(&self) -> Result<()> {
        let items: Vec<&Value> = [&self.machines, &self.configurations, &self.secrets].into_iter().flatten().collect();
        let text = serde_json::to_string_pretty(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        let path = self.inventory();
        fs::write(&path, text).context("write the inventory")?;
        // Cairn does not take secrets that others can read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("protect the inventory")
    }

    /// `cairn machine …` with this inventory and a state directory of its own.
    pub(super) fn cairn(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(environment::cairn()?);
        command.arg("machine").args(words).arg("--inventory").arg(self.inventory());
        command.arg("--data-dir").arg(self.rack.work().join("state"));
        command.env("HOME", self.rack.work().join("home")).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end.
    pub(super) fn ended(&self, words: &[&str]) -> Result<Ended> {
        let Output { status, stdout, stderr } = self.cairn(words)?.output().context("start cairn machine")?;
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok(Ended { words: words.join(" "), code: status.code(), stdout, stderr })
    }

    /// The same, which must end well.
    pub(super) fn ok(&self, words: &[&str]) -> Result<Ended> {
        let ended = self.ended(words)?;
        ensure!(ended.code == Some(0), "{ended}");
        Ok(ended)
    }

    /// Starts it; its output goes to a file.
    pub(super) fn started(&self, words: &[&str]) -> Result<Daemon> {
        let log = self.rack.work().join("cairn.log");
        let _ = fs::remove_file(&log);
        Daemon::start("cairn machine", &mut self.cairn(words)?, &log)
    }

    /// What a started one said so far.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.rack.work().join("cairn.log")).unwrap_or_default()
    }

    /// Waits until a started one has said something.
    pub(super) fn wait_said(&self, daemon: &mut Daemon, text: &str) -> Result<()> {
        let found = wait::until(&format!("cairn to say {text:?}"), PATIENCE, LOOK, || {
            if self.said().contains(text) {
                return Ok(Some(()));
            }
            daemon.check()?;
            Ok(None)
        });
        found.with_context(|| self.said())
    }
}

/// How a `cairn machine` ended.
#[derive(Debug)]
pub(super) struct Ended {
    words: String,
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    /// Fails unless it ended with a code and said all of this.
    pub(super) fn expect(&self, code: i32, texts: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not {code}: {self}");
        let missing = texts.iter().find(|text| !self.stdout.contains(*text) && !self.stderr.contains(*text));
        missing.map_or(Ok(()), |text| bail!("not a word of {text:?}: {self}"))
    }

    /// What it printed as JSON of the only machine.
    pub(super) fn outcome(&self) -> Result<Value> {
        Ok(self.json()?[0].clone())
    }

    /// What it printed as JSON.
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self}"))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { words, code, stdout, stderr } = self;
        write!(formatter, "cairn machine {words} ended with {code:?}:\n{stdout}{stderr}")
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "nio.homystack.com/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn set(objects: &mut [Value], name: &str, fields: &Value) -> Result<()> {
    let object = objects.iter_mut().find(|object| object["metadata"]["name"] == name);
    let spec = object.with_context(|| format!("no object {name}"))?["spec"].as_object_mut().context("spec")?;
    for (field, value) in fields.as_object().context("fields")? {
        if value.is_null() {
            spec.remove(field);
        } else {
            spec.insert(field.clone(), value.clone());
        }
    }
    Ok(())
}

/// A system with a service that tells its version.
pub(super) fn system(name: &str, version: &str) -> System {
    System::new(name, version)
        .unit(Unit::running("web", &format!("echo version {version}")))
        .unit(Unit::running("same", "echo the same"))
        .file("version", version)
}

/// The host runs a version.
pub(super) fn runs(host: &Host, version: &str) -> Result<()> {
    ensure!(host.read("/etc/version")? == version, "{} runs {}", host.name(), host.read("/etc/version")?);
    ensure!(host.unit_state("web.service")? == "active", "web.service of {} is not active", host.name());
    ensure!(host.journal(Some("web.service"))?.contains(&format!("version {version}")), "it never started");
    Ok(())
}

/// The host runs a version, and starts with it.
pub(super) fn stays(host: &Host, version: &str) -> Result<()> {
    runs(host, version)?;
    let current = host.current_system()?;
    for (what, found) in [("profile", host.profile()?), ("boot loader", host.boot_default()?)] {
        ensure!(found == current, "the {what} has {}, and it runs {}", found.display(), current.display());
    }
    Ok(())
}

/// No unit of ours is left on a host, so that the next deployment has it.
pub(super) fn settled(host: &Host) -> Result<()> {
    for unit in ["cairn-activation.service", "cairn-rollback.service", "cairn-rollback.timer"] {
        wait::until(&format!("the end of {unit}"), PATIENCE, LOOK, || {
            let state = host.run(&["systemctl", "show", "--property=LoadState", unit])?;
            Ok((state.trim() == "LoadState=not-found").then_some(()))
        })?;
    }
    Ok(())
}

/// What somebody does who is logged in.
pub(super) fn switch_by_hand(host: &Host, system: &Path) -> Result<()> {
    let program = system.join("bin/switch-to-configuration").display().to_string();
    host.run(&["systemd-run", "--quiet", "--wait", &program, "test"]).map(drop)
}
