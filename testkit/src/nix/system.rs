//! What a stand-in for a NixOS system consists of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A system, as the flake builds it.
#[derive(Debug, Clone)]
pub struct System {
    name: String,
    version: String,
    kernel: String,
    units: Vec<Unit>,
    files: BTreeMap<String, String>,
    activation: String,
    building: String,
    init_interface: String,
}

impl System {
    /// A system without units. The name is that of the configuration and of the host.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            kernel: "6.12.1".to_owned(),
            units: Vec::new(),
            files: BTreeMap::new(),
            activation: "true".to_owned(),
            building: "true".to_owned(),
            init_interface: "systemd 252".to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A unit more.
    pub fn unit(mut self, unit: Unit) -> Self {
        self.units.push(unit);
        self
    }

    /// A file of /etc; its name is without a slash.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Another kernel, and with it another initrd and other modules.
    pub fn kernel(mut self, release: &str) -> Self {
        release.clone_into(&mut self.kernel);
        self
    }

    /// Lines of shell that run on the host, as root, while /etc is put in place. If they fail, so does the activation script.
    pub fn activation(mut self, script: &str) -> Self {
        script.clone_into(&mut self.activation);
        self
    }

    /// Lines of shell that run where the system is built, in its builder: they have busybox as `b` and this machine's files.
    pub fn building(mut self, script: &str) -> Self {
        script.clone_into(&mut self.building);
        self
    }

    /// An init that is not compatible with the one that runs: activation ends with 100 and wants a reboot.
    pub fn init_interface(mut self, version: &str) -> Self {
        version.clone_into(&mut self.init_interface);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "version": self.version,
            "kernel": self.kernel,
            "units": self.units.iter().map(Unit::to_json).collect::<Vec<_>>(),
            "files": self.files,
            "activation": self.activation,
            "building": self.building,
            "init_interface": self.init_interface,
        })
    }
}

/// A unit of a system. Scripts are shell, with the host's programs on the path.
#[derive(Debug, Clone)]
pub struct Unit {
    name: String,
    kind: &'static str,
    unit: Vec<String>,
    service: Vec<String>,
    scripts: BTreeMap<&'static str, String>,
    wanted: bool,
}

impl Unit {
    /// A service that runs until it is stopped, and before that does what `script` says. Another `text` is another unit, so
    /// that it is stopped and started by an activation.
    pub fn running(name: &str, script: &str) -> Self {
        Self::new(name, "exec").script("ExecStart", &format!("{script}\nexec sleep infinity"))
    }

    /// A service that does something once and then counts as active.
    pub fn once(name: &str, script: &str) -> Self {
        Self::new(name, "oneshot").service("RemainAfterExit=yes").script("ExecStart", script)
    }

    /// A service that fails to start.
    pub fn failing(name: &str) -> Self {
        Self::once(name, "echo \"this one always fails\" >&2; exit 3")
    }

    /// A service that cuts its host off while it starts, and connects it again when it is stopped.
    pub fn cutting_network(name: &str) -> Self {
        Self::once(name, "ip link set eth0 down").stopping("ip link set eth0 up")
    }

    /// A service whose start lasts until [`super::Host::release`] lets it go on.
    pub fn held(name: &str) -> Self {
        let gate = gate(name);
        Self::once(name, &format!("[ -p {gate} ] || mkfifo {gate}\nread line < {gate}"))
            .service("TimeoutStartSec=infinity")
            .stopping(&format!("rm -f {gate}"))
    }

    fn new(name: &str, kind: &'static str) -> Self {
        let name = format!("{name}.service");
        Self { name, kind, unit: vec![], service: vec![], scripts: BTreeMap::new(), wanted: true }
    }

    /// What runs when it is stopped.
    pub fn stopping(self, script: &str) -> Self {
        self.script("ExecStop", script)
    }

    /// A change reloads it with `script`, and does not restart it.
    pub fn reloading(self, script: &str) -> Self {
        self.script("ExecReload", script).service("X-ReloadIfChanged=true")
    }

    /// A change restarts it, where others are stopped before and started after the activation.
    pub fn restarting(self) -> Self {
        self.service("X-StopIfChanged=false")
    }

    /// A change leaves it as it is.
    pub fn kept(self) -> Self {
        self.service("X-RestartIfChanged=false")
    }

    /// No target starts it.
    pub fn unwanted(mut self) -> Self {
        self.wanted = false;
        self
    }

    /// A line more in `[Service]`.
    pub fn service(mut self, line: &str) -> Self {
        self.service.push(line.to_owned());
        self
    }

    /// A line more in `[Unit]`.
    pub fn line(mut self, line: &str) -> Self {
        self.unit.push(line.to_owned());
        self
    }

    fn script(mut self, key: &'static str, script: &str) -> Self {
        // Not the path of a shell on NixOS, and on the test's hosts where the stand-in has its programs.
        let path = "PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.scripts.insert(key, format!("{path}\n{script}\n"));
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "unit": self.unit,
            "service": self.service,
            "scripts": self.scripts,
            "wanted": self.wanted,
        })
    }
}

/// Where a held unit waits, on its host.
pub(super) fn gate(unit: &str) -> String {
    format!("/run/gate-{unit}")
}
