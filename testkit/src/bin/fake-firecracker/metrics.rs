//! Metrics lines: what was counted since the line before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::{Value, json};

/// Counters that are on every line, so that a reader finds them before anything was counted.
const ALWAYS: &[(&str, &str)] = &[
    ("api_server", "process_startup_time_us"),
    ("block", "read_bytes"),
    ("block", "write_bytes"),
    ("get_api_requests", "instance_info_count"),
    ("net", "rx_bytes_count"),
    ("net", "tx_bytes_count"),
    ("put_api_requests", "actions_count"),
    ("uart", "write_count"),
    ("vcpu", "exit_io_out"),
];

/// Names of a network interface's and a drive's counters.
const NETWORK: [&str; 4] = ["rx_bytes_count", "rx_packets_count", "tx_bytes_count", "tx_packets_count"];
const DRIVE: [&str; 4] = ["read_bytes", "read_count", "write_bytes", "write_count"];

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    file: Option<File>,
    counts: BTreeMap<(String, String), u64>,
    devices: BTreeSet<(String, &'static str)>,
}

impl Counters {
    /// Where lines go. Err is the fault.
    pub(crate) fn open(&mut self, path: &Path) -> Result<(), String> {
        let fault = |what: String| {
            Err(format!("Metrics error: Cannot initialize the metrics system due to bad user input: {what}"))
        };
        if self.file.is_some() {
            return fault("Reinitialization of metrics not allowed.".to_owned());
        }
        // Read and write, so that a FIFO opens without a reader; not waiting, so that a full one does not stop the VM.
        let flags = OFlags::NONBLOCK.bits() as i32;
        match File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => return fault(error.to_string()),
        }
        Ok(())
    }

    /// Counts.
    pub(crate) fn add(&mut self, group: &str, name: &str, number: u64) {
        *self.counts.entry((group.to_owned(), name.to_owned())).or_default() += number;
    }

    /// A drive or a network interface has a group of its own from now on.
    pub(crate) fn device(&mut self, kind: &'static str, id: &str) {
        let names = if kind == "net" { NETWORK } else { DRIVE };
        self.devices.extend(names.map(|name| (format!("{kind}_{id}"), name)));
    }

    /// Writes a line and begins anew.
    pub(crate) fn flush(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut line = json!({ "utc_timestamp_ms": now_ms() });
        let always = ALWAYS.iter().map(|(group, name)| ((*group).to_owned(), *name));
        for (group, name) in always.chain(self.devices.iter().cloned()) {
            line[group][name] = Value::from(0);
        }
        for ((group, name), number) in std::mem::take(&mut self.counts) {
            line[group][name] = Value::from(number);
        }
        // What a full FIFO does not take is lost.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}
