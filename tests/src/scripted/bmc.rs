//! A stock sushy-emulator with its fake driver: Redfish, power that changes after 1 to 11 s, media that are really
//! fetched, and no machine behind it. Looked at and switched without our own client.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::http::{self, Response};
use testkit::process::{Daemon, free_port};
use testkit::{sushy, wait};

use super::{LIMIT, LOOK};

/// Account of every emulator. The password is also searched for in logs.
pub(crate) const USER: &str = "admin";
pub(crate) const PASSWORD: &str = "bmc-Pa55/word-of-the-floor";

/// A machine of the emulator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System {
    /// Its UUID, by which records name it.
    pub uuid: &'static str,
    /// Whether it is on when the emulator starts.
    pub on: bool,
}

/// Twelve machines that are off, apart from the first.
pub(crate) const SYSTEMS: [System; 12] = [
    System { uuid: "00000000-0000-4000-8000-000000000001", on: true },
    System { uuid: "00000000-0000-4000-8000-000000000002", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000003", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000004", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000005", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000006", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000007", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000008", on: false },
    System { uuid: "00000000-0000-4000-8000-000000000009", on: false },
    System { uuid: "00000000-0000-4000-8000-00000000000a", on: false },
    System { uuid: "00000000-0000-4000-8000-00000000000b", on: false },
    System { uuid: "00000000-0000-4000-8000-00000000000c", on: false },
];

/// A running emulator.
#[derive(Debug)]
pub(crate) struct Bmc {
    port: u16,
    log: PathBuf,
    _daemon: Daemon,
}

impl Bmc {
    /// With a CD and a floppy drive for each machine, as the emulator comes.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, "")
    }

    /// With two CD drives for each machine.
    pub(crate) fn start_with_two_drives(directory: &Path) -> Result<Self> {
        let drive = |name: &str| format!("'{name}': {{'Name': 'Virtual {name}', 'MediaTypes': ['CD', 'DVD']}}");
        let drives = format!("SUSHY_EMULATOR_VMEDIA_DEVICES = {{{}, {}}}\n", drive("Cd"), drive("Cd2"));
        Self::start_with(directory, &drives)
    }

    fn start_with(directory: &Path, more: &str) -> Result<Self> {
        let program = sushy::environment_directory()?.join("bin/sushy-emulator");
        ensure!(program.exists(), "{} is missing: run `cargo xtask setup`", program.display());
        std::fs::create_dir_all(directory.join("tmp")).with_context(|| format!("make {}", directory.display()))?;
        std::fs::write(directory.join("htpasswd"), sushy::password_line(USER, PASSWORD)? + "\n")?;
        let (port, log) = (free_port()?, directory.join("emulator.log"));
        let settings = settings(directory, port) + more;
        std::fs::write(directory.join("emulator.conf"), settings)?;
        let mut command = Command::new(program);
        command.args(["--fake", "--config"]).arg(directory.join("emulator.conf"));
        command.env("TMPDIR", directory.join("tmp"));
        let mut daemon = Daemon::start("sushy-emulator", &mut command, &log)?;
        let url = format!("http://127.0.0.1:{port}/redfish/v1/");
        wait::until("sushy-emulator", LIMIT, LOOK, || {
            daemon.check()?;
            Ok(http::get(&url).ok().filter(|answer| answer.status == 200))
        })?;
        Ok(Self { port, log, _daemon: daemon })
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Power state and boot settings of a machine.
    pub(crate) fn system(&self, system: System) -> Result<Value> {
        self.get(&format!("/redfish/v1/Systems/{}", system.uuid))
    }

    /// `On` or `Off`.
    pub(crate) fn power(&self, system: System) -> Result<String> {
        Ok(self.system(system)?["PowerState"].as_str().context("PowerState")?.to_owned())
    }

    /// What the drives hold: id and image of each that is not empty.
    pub(crate) fn media(&self, system: System) -> Result<Vec<(String, String)>> {
        let collection = self.get(&format!("/redfish/v1/Systems/{}/VirtualMedia", system.uuid))?;
        let mut held = Vec::new();
        for member in collection["Members"].as_array().context("Members")? {
            let drive = self.get(member["@odata.id"].as_str().context("@odata.id")?)?;
            let text = |name: &str| drive[name].as_str().unwrap_or_default().to_owned();
            if drive["Inserted"] == true || !text("Image").is_empty() {
                held.push((text("Id"), text("Image")));
            }
        }
        Ok(held)
    }

    /// Orders a reset, as a person at the BMC or the guest itself would.
    pub(crate) fn reset(&self, system: System, kind: &str) -> Result<()> {
        let path = format!("/redfish/v1/Systems/{}/Actions/ComputerSystem.Reset", system.uuid);
        self.call("POST", &path, &json!({ "ResetType": kind })).map(drop)
    }

    /// Waits until the machine is in a power state.
    pub(crate) fn wait_power(&self, system: System, state: &str) -> Result<()> {
        wait::until(&format!("power {state}"), LIMIT, LOOK, || Ok((self.power(system)? == state).then_some(())))
    }

    /// The resets that it has carried out on a machine, oldest first.
    pub(crate) fn resets(&self, system: System) -> Result<Vec<String>> {
        let mark = format!("System \"{}\" power state set to \"", system.uuid);
        let text = std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        let kind = |line: &str| line.split_once(&mark).map(|(_, rest)| rest.trim_end_matches('"').to_owned());
        Ok(text.lines().filter_map(kind).collect())
    }

    /// How often it was told to switch the machine on.
    pub(crate) fn switched_on(&self, system: System) -> Result<usize> {
        Ok(self.resets(system)?.iter().filter(|kind| *kind == "On").count())
    }

    /// Fails unless no drive holds anything and the next boot is from the disk.
    pub(crate) fn check_clean(&self, system: System) -> Result<()> {
        let media = self.media(system)?;
        ensure!(media.is_empty(), "media are left in the drives: {media:?}");
        let boot = &self.system(system)?["Boot"];
        let target = boot["BootSourceOverrideTarget"].as_str().unwrap_or_default();
        ensure!(target != "Cd" || boot["BootSourceOverrideEnabled"] == "Disabled", "the override is left: {boot}");
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, &Value::Null)?.json()
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Response> {
        let proof = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let headers = [("Authorization", proof.as_str()), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::request(method, &format!("{}{path}", self.url()), &headers, body.as_bytes())?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path}: {} {}", answer.status, answer.text());
        }
        Ok(answer)
    }
}

/// A Python file. Its logger tells of resets from INFO on, which it does not show by itself.
fn settings(directory: &Path, port: u16) -> String {
    let systems: Vec<String> = SYSTEMS
        .iter()
        .enumerate()
        .map(|(number, system)| {
            let power = if system.on { "On" } else { "Off" };
            let nic = format!("{{'mac': '00:5c:52:31:3a:{number:02x}', 'ip': '172.22.0.{number}'}}");
            format!(
                "{{'uuid': '{}', 'name': 'machine{number}', 'power_state': '{power}', 'external_notifier': False, 'nics': [{nic}]}}",
                system.uuid
            )
        })
        .collect();
    let lines = [
        "import logging".to_owned(),
        "logging.getLogger('sushy_tools.emulator.main').setLevel(logging.INFO)".to_owned(),
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'".to_owned(),
        format!("SUSHY_EMULATOR_LISTEN_PORT = {port}"),
        format!("SUSHY_EMULATOR_AUTH_FILE = '{}'", directory.join("htpasswd").display()),
        format!("SUSHY_EMULATOR_STATE_DIR = '{}'", directory.join("state").display()),
        format!("SUSHY_EMULATOR_FAKE_SYSTEMS = [{}]", systems.join(", ")),
    ];
    lines.join("\n") + "\n"
}

/// A port of 127.0.0.1 at which nobody answers.
pub(crate) fn closed_port() -> Result<u16> {
    free_port()
}
