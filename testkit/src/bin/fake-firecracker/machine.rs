//! The rules: what is allowed before the start, what after it, and what each request does.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::arguments::Arguments;
use crate::devices::Devices;
use crate::fields::{self, Kind};
use crate::guest::Work;
use crate::http::{Answer, Request};
use crate::metrics::Counters;
use crate::values::{check_machine, merge, read, unknown};
use crate::{FAILED, VERSION, snapshot};

const TOO_LATE: &str = "The requested operation is not supported after starting the microVM.";
const TOO_EARLY: &str = "The requested operation is not supported before starting the microVM.";

/// Processors and memory of a machine that was told nothing.
const DEFAULT_MACHINE: &str =
    r#"{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}"#;

/// What `GET /vm/config` lists beside drives and network interfaces, in its order.
const SECTIONS: [&str; 8] =
    ["balloon", "boot-source", "cpu-config", "machine-config", "metrics", "mmds-config", "vsock", "entropy"];

/// Path of the request and section of a configuration file, in an order that works.
const FILE_SECTIONS: [(&str, &str); 9] = [
    ("logger", "/logger"),
    ("metrics", "/metrics"),
    ("machine-config", "/machine-config"),
    ("boot-source", "/boot-source"),
    ("vsock", "/vsock"),
    ("mmds-config", "/mmds/config"),
    ("balloon", "/balloon"),
    ("entropy", "/entropy"),
    ("serial", "/serial"),
];

/// One VM.
#[derive(Debug)]
pub(crate) struct Machine {
    id: String,
    metadata_limit: usize,
    state: State,
    /// Whether anything was configured that forbids loading a snapshot.
    configured: bool,
    sections: Map<String, Value>,
    drives: Devices,
    networks: Devices,
    metadata: Option<Value>,
    serial: Option<PathBuf>,
    work: Option<Work>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotStarted,
    Running,
    Paused,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// The process ends with this code once the answer is out.
    pub(crate) exit: Option<u8>,
}

/// Ok is an answer with data, or none; Err is a fault.
type Done = Result<Option<Value>, String>;

impl Machine {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        Self {
            id: arguments.id.clone(),
            metadata_limit: arguments.metadata_limit,
            state: State::NotStarted,
            configured: false,
            sections: Map::from_iter([(
                "machine-config".to_owned(),
                serde_json::from_str(DEFAULT_MACHINE).unwrap_or_default(),
            )]),
            drives: Devices::default(),
            networks: Devices::default(),
            metadata: None,
            serial: None,
            work: None,
            counters: Counters::default(),
        }
    }

    /// Configures and starts from a file (`--config-file`). Err is the fault.
    pub(crate) fn configure(&mut self, path: &Path) -> Result<(), String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file: Value = serde_json::from_slice(&text).map_err(|error| format!("InvalidJson({error})"))?;
        for (list, key, path) in
            [("drives", "drive_id", "drives"), ("network-interfaces", "iface_id", "network-interfaces")]
        {
            for device in file[list].as_array().into_iter().flatten() {
                let id = device[key].as_str().unwrap_or_default();
                self.put(&[path, id], device.to_string().as_bytes())?;
            }
        }
        for (section, path) in FILE_SECTIONS {
            if let Some(value) = file.get(section).filter(|value| !value.is_null()) {
                let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
                self.put(&path, value.to_string().as_bytes())?;
            }
        }
        self.start().map(drop)
    }

    /// Answers a request.
    pub(crate) fn handle(&mut self, request: &Request) -> Outcome {
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let has_body = !request.body.is_empty();
        let fault = |text: &str| Err(text.to_owned());
        let loads = path == ["snapshot", "load"] && self.state == State::NotStarted && !self.configured;
        let done = match (request.method.as_str(), has_body) {
            ("GET", false) => self.get(&path),
            ("GET", true) => fault("GET request cannot have a body."),
            ("PUT", true) => self.put(&path, &request.body),
            ("PUT", false) => fault("Empty PUT request."),
            ("PATCH", true) => self.patch(&path, &request.body),
            ("PATCH", false) => fault("Empty PATCH request."),
            (method, _) => Err(unknown(method, &path)),
        };
        let exit = match &done {
            // A snapshot that does not load leaves a process that is of no more use.
            Err(_) if loads && request.method == "PUT" => Some(FAILED),
            _ => None,
        };
        let answer = match done {
            Ok(None) => Answer::done(),
            Ok(Some(data)) => Answer::data(data),
            Err(text) => {
                let too_large = text.starts_with("MMDS limit exceeded");
                Answer::fault(if too_large { 413 } else { 400 }, &text)
            }
        };
        Outcome { answer, exit }
    }

    /// Lets the guest run on; gives back the exit code when it has ended.
    pub(crate) fn step(&mut self) -> Option<u8> {
        let work = self.work.as_mut().filter(|_| self.state == State::Running)?;
        self.counters.add("uart", "write_count", 1);
        self.counters.add("vcpu", "exit_io_out", 1);
        work.step()
    }

    /// Whether [`step`](Self::step) would do anything.
    pub(crate) fn is_busy(&self) -> bool {
        self.state == State::Running && self.work.as_ref().is_some_and(Work::is_busy)
    }

    fn get(&mut self, path: &[&str]) -> Done {
        let data = match path {
            [""] => {
                self.counters.add("get_api_requests", "instance_info_count", 1);
                let state = match self.state {
                    State::NotStarted => "Not started",
                    State::Running => "Running",
                    State::Paused => "Paused",
                };
                json!({ "id": self.id, "state": state, "vmm_version": VERSION, "app_name": "Firecracker" })
            }
            ["version"] => json!({ "firecracker_version": VERSION }),
            ["machine-config"] => self.sections["machine-config"].clone(),
            ["vm", "config"] => self.config(),
            ["balloon"] => match self.sections.get("balloon") {
                Some(balloon) => balloon.clone(),
                None if self.state == State::NotStarted => {
                    return Err("Balloon config error: No balloon device found.".to_owned());
                }
                None => return Err("Internal VMM error: Failed perform action on device: Device not found".to_owned()),
            },
            ["mmds"] => self.store()?.clone(),
            path => return Err(unknown("GET", path)),
        };
        Ok(Some(data))
    }

    fn put(&mut self, path: &[&str], body: &[u8]) -> Done {
        match path {
            ["actions"] => self.action(body),
            ["mmds"] => {
                let value = read(body)?;
                self.store()?;
                self.set_metadata(value)
            }
            ["snapshot", "create"] => self.create_snapshot(body),
            ["drives", id] => {
                self.only_before("PCI is not enabled")?;
                self.drives.put_drive(id, body)?;
                self.counters.device("block", id);
                Ok(None)
            }
            ["network-interfaces", id] => {
                self.only_before("PCI is not enabled")?;
                self.networks.put_network(id, body)?;
                self.counters.device("net", id);
                Ok(None)
            }
            path => self.put_section(path, body),
        }
    }

    /// What is configured once, before the start.
    fn put_section(&mut self, path: &[&str], body: &[u8]) -> Done {
        let known: &[(&str, Kind, bool)] = match path {
            ["logger"] => fields::LOGGER,
            ["metrics"] => fields::METRICS,
            ["serial"] => fields::SERIAL,
            ["machine-config"] => fields::MACHINE,
            ["boot-source"] => fields::BOOT_SOURCE,
            ["balloon"] => fields::BALLOON,
            ["vsock"] => fields::VSOCK,
            ["entropy"] => fields::ENTROPY,
            ["mmds", "config"] => fields::MMDS_CONFIG,
            ["snapshot", "load"] => fields::SNAPSHOT_LOAD,
            ["cpu-config"] | ["pmem", _] | ["hotplug", "memory"] => {
                let value = read(body)?;
                self.only_before(TOO_LATE)?;
                self.sections.insert(path[0].to_owned(), value);
                return Ok(None);
            }
            path => return Err(unknown("PUT", path)),
        };
        let value = fields::read(body, known)?;
        if self.state != State::NotStarted {
            return Err(TOO_LATE.to_owned());
        }
        match path {
            ["logger"] => {}
            ["metrics"] => self.counters.open(Path::new(value["metrics_path"].as_str().unwrap_or_default()))?,
            ["serial"] => self.serial = value.get("serial_out_path").and_then(Value::as_str).map(PathBuf::from),
            ["snapshot", "load"] => return self.load_snapshot(&value),
            _ => {
                self.configured = true;
                self.check_section(path[0], &value)?;
                let section = if path[0] == "mmds" { "mmds-config" } else { path[0] };
                let mut whole = self.sections.get(section).and_then(Value::as_object).cloned().unwrap_or_default();
                whole.extend(value);
                self.sections.insert(section.to_owned(), Value::Object(whole));
            }
        }
        Ok(None)
    }

    /// Marks the machine as configured, or refuses.
    fn only_before(&mut self, fault: &str) -> Result<(), String> {
        if self.state != State::NotStarted {
            return Err(fault.to_owned());
        }
        self.configured = true;
        Ok(())
    }

    fn check_section(&mut self, section: &str, value: &Map<String, Value>) -> Result<(), String> {
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        match section {
            "machine-config" => check_machine(value),
            "boot-source" => {
                for (name, what) in [
                    ("kernel_image_path", "The kernel file cannot be opened: "),
                    ("initrd_path", "The initrd file cannot be opened due to invalid path or invalid permissions. "),
                ] {
                    if let Some(path) = value.get(name).and_then(Value::as_str) {
                        File::open(path).map_err(|error| format!("Boot source error: {what}{error}"))?;
                    }
                }
                Ok(())
            }
            "balloon" if number("amount_mib") > self.sections["machine-config"]["mem_size_mib"].as_u64() => {
                Err("Balloon config error: Amount of pages requested is too large.".to_owned())
            }
            "mmds" => {
                let wanted: Vec<&str> =
                    value["network_interfaces"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let fault = "MMMDS config error: The list of network interface IDs";
                if wanted.is_empty() {
                    return Err(format!("{fault} that allow forwarding MMDS requests is empty."));
                }
                if !wanted.iter().all(|id| self.networks.has("iface_id", id)) {
                    return Err(format!(
                        "{fault} provided contains at least one ID that does not correspond to any existing network \
                         interface."
                    ));
                }
                self.metadata.get_or_insert_with(|| json!({}));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn patch(&mut self, path: &[&str], body: &[u8]) -> Done {
        let running = || if self.state == State::NotStarted { Err(TOO_EARLY.to_owned()) } else { Ok(()) };
        match path {
            ["vm"] => {
                let wanted = fields::read(body, fields::VM)?;
                running()?;
                self.state = if wanted["state"] == "Paused" { State::Paused } else { State::Running };
            }
            ["mmds"] => {
                let update = read(body)?;
                let mut merged = self.store()?.clone();
                merge(&mut merged, &update);
                return self.set_metadata(merged);
            }
            ["machine-config"] => {
                let optional: Vec<_> = fields::MACHINE.iter().map(|(name, kind, _)| (*name, *kind, false)).collect();
                let update = fields::read(body, &optional)?;
                self.only_before(TOO_LATE)?;
                let mut whole = self.sections["machine-config"].as_object().cloned().unwrap_or_default();
                whole.extend(update);
                check_machine(&whole)?;
                self.sections.insert("machine-config".to_owned(), Value::Object(whole));
            }
            ["drives", id] => {
                running()?;
                self.drives.patch_drive(id, body)?;
            }
            ["network-interfaces", id] => {
                running()?;
                self.networks.patch_network(id, body)?;
            }
            ["balloon"] => {
                fields::read(body, fields::BALLOON_UPDATE)?;
                running()?;
                // No guest here has the driver.
                let known = self.sections.contains_key("balloon");
                let what = if known { "Device not activated" } else { "Device not found" };
                return Err(format!("Balloon update error: Failed perform action on device: {what}"));
            }
            path => return Err(unknown("PATCH", path)),
        }
        Ok(None)
    }

    fn action(&mut self, body: &[u8]) -> Done {
        let action = fields::read(body, fields::ACTIONS)?;
        self.counters.add("put_api_requests", "actions_count", 1);
        match (action["action_type"].as_str(), self.state) {
            (Some("InstanceStart"), State::NotStarted) => self.start(),
            (Some("InstanceStart"), _) => Err(TOO_LATE.to_owned()),
            (_, State::NotStarted) => Err(TOO_EARLY.to_owned()),
            (Some("FlushMetrics"), _) => {
                self.counters.flush();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn start(&mut self) -> Done {
        let Some(kernel) = self.sections.get("boot-source").and_then(|source| source["kernel_image_path"].as_str())
        else {
            return Err("Start microvm error: Cannot start microvm without kernel configuration.".to_owned());
        };
        self.work = Some(Work::load(Path::new(kernel), self.serial.as_deref())?);
        self.state = State::Running;
        self.counters.flush();
        Ok(None)
    }

    fn create_snapshot(&mut self, body: &[u8]) -> Done {
        let request = fields::read(body, fields::SNAPSHOT_CREATE)?;
        match self.state {
            State::NotStarted => Err(TOO_EARLY.to_owned()),
            State::Running => Err("Create snapshot error: Cannot save the microVM state: Operation not allowed: \
                                   save/restore unavailable while running"
                .to_owned()),
            State::Paused => snapshot::create(&request, &self.config()).map(|()| None),
        }
    }

    fn load_snapshot(&mut self, request: &Map<String, Value>) -> Done {
        if self.configured {
            return Err("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific \
                        resources."
                .to_owned());
        }
        let machine = snapshot::load(request)?;
        let kernel = machine["boot-source"]["kernel_image_path"].as_str().unwrap_or_default();
        self.work = Some(Work::load(Path::new(kernel), self.serial.as_deref())?);
        self.drives = Devices::restore(&machine["drives"]);
        self.networks = Devices::restore(&machine["network-interfaces"]);
        for section in SECTIONS {
            if !machine[section].is_null() {
                self.sections.insert(section.to_owned(), machine[section].clone());
            }
        }
        let resume = request.get("resume_vm") == Some(&Value::Bool(true));
        self.state = if resume { State::Running } else { State::Paused };
        self.counters.flush();
        Ok(None)
    }

    fn config(&self) -> Value {
        let mut config = json!({ "drives": self.drives.list(), "network-interfaces": self.networks.list() });
        for section in SECTIONS {
            config[section] = self.sections.get(section).cloned().unwrap_or_default();
        }
        config
    }

    /// The metadata. Before the start they can be asked for without being configured.
    fn store(&mut self) -> Result<&mut Value, String> {
        if self.state == State::NotStarted {
            return Ok(self.metadata.get_or_insert_with(|| json!({})));
        }
        self.metadata.as_mut().ok_or_else(|| "MMDS error: The MMDS data store is not initialized.".to_owned())
    }

    fn set_metadata(&mut self, value: Value) -> Done {
        if value.to_string().len() > self.metadata_limit {
            return Err("MMDS limit exceeded error: The MMDS patch request doesn't fit.".to_owned());
        }
        self.metadata = Some(value);
        Ok(None)
    }
}
