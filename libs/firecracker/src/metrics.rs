//! Metrics lines: one JSON object each, written at the start, every minute and on demand.
//!
//! A line has groups (`net_eth0`, `block_rootfs`, `vcpu`, …) of numbers. Nearly all are counters, and a line holds what
//! was counted *since the line before*; [`Totals`] adds them up. A few are values that stand as they are: durations of
//! the last operation, signals seen (`SharedStoreMetric` in `src/vmm/src/logger/metrics.rs`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::DeviceId;

/// Groups whose numbers are values, not counters.
const VALUE_GROUPS: [&str; 4] = ["latencies_us", "signals", "seccomp", "vmm"];

/// Ends of the names of other values: times of the start and of setting devices up, extremes of a series.
const VALUE_ENDS: [&str; 4] = ["_time_us", "_time_cpu_us", ".min_us", ".max_us"];

/// A line that is not of the form.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Not JSON; a line that was cut off for instance.
    #[error("a metrics line of {size} bytes is no JSON")]
    Json {
        /// Bytes of the line.
        size: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but no object.
    #[error("a metrics line is no JSON object")]
    NoObject,
}

/// What a VM has counted since its process started, or over several processes when their lines go into one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    groups: BTreeMap<String, BTreeMap<String, u64>>,
    time_ms: u64,
}

/// Traffic of one network interface, as the guest sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkTotals {
    /// Bytes the guest received.
    pub received_bytes: u64,
    /// Packets the guest received.
    pub received_packets: u64,
    /// Bytes the guest sent.
    pub sent_bytes: u64,
    /// Packets the guest sent.
    pub sent_packets: u64,
}

/// Work of one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveTotals {
    /// Bytes the guest read.
    pub read_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes the guest wrote.
    pub written_bytes: u64,
    /// Writes.
    pub writes: u64,
}

impl Totals {
    /// Adds one line. Groups and names that are not known are added like the others; what is no number is passed over.
    ///
    /// # Errors
    /// When the line is none; nothing is added then.
    pub fn add_line(&mut self, line: &str) -> Result<(), MetricsError> {
        let value: Value =
            serde_json::from_str(line).map_err(|source| MetricsError::Json { size: line.len(), source })?;
        let Value::Object(groups) = value else { return Err(MetricsError::NoObject) };
        for (group, value) in &groups {
            match value {
                Value::Object(names) => self.add_group(group, "", names),
                Value::Number(time) if group == "utc_timestamp_ms" => {
                    self.time_ms = time.as_u64().unwrap_or(self.time_ms);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_group(&mut self, group: &str, prefix: &str, names: &Map<String, Value>) {
        for (name, value) in names {
            let name = format!("{prefix}{name}");
            if let Value::Object(inner) = value {
                self.add_group(group, &format!("{name}."), inner);
            } else if let Some(number) = value.as_u64() {
                let is_value = VALUE_GROUPS.contains(&group) || VALUE_ENDS.iter().any(|end| name.ends_with(end));
                let total = self.groups.entry(group.to_owned()).or_default().entry(name).or_default();
                *total = if is_value { number } else { total.saturating_add(number) };
            }
        }
    }

    /// Time of the last line by the host's clock, milliseconds since 1970; 0 before the first one.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// One number; 0 when no line had it. Inner objects are named with a dot: `exit_io_in_agg.sum_us`.
    pub fn get(&self, group: &str, name: &str) -> u64 {
        self.groups.get(group).and_then(|names| names.get(name)).copied().unwrap_or_default()
    }

    /// Traffic of an interface.
    pub fn network(&self, id: &DeviceId) -> NetworkTotals {
        let get = |name| self.get(&format!("net_{id}"), name);
        NetworkTotals {
            received_bytes: get("rx_bytes_count"),
            received_packets: get("rx_packets_count"),
            sent_bytes: get("tx_bytes_count"),
            sent_packets: get("tx_packets_count"),
        }
    }

    /// Work of a disk.
    pub fn drive(&self, id: &DeviceId) -> DriveTotals {
        let get = |name| self.get(&format!("block_{id}"), name);
        DriveTotals {
            read_bytes: get("read_bytes"),
            reads: get("read_count"),
            written_bytes: get("write_bytes"),
            writes: get("write_count"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_add_up_and_values_stand() {
        let mut totals = Totals::default();
        let line = |time: u64, bytes: u64, pause: u64| {
            format!(
                r#"{{"utc_timestamp_ms":{time},"id":"vm","properties":{{"a":"b"}},
                "api_server":{{"process_startup_time_us":39473}},"latencies_us":{{"pause_vm":{pause}}},
                "vcpu":{{"exit_io_in_agg":{{"min_us":1,"max_us":9,"sum_us":{bytes}}}}},
                "net_eth0":{{"rx_bytes_count":{bytes},"rx_packets_count":1,"tx_bytes_count":2}},
                "block_data":{{"read_bytes":512,"read_count":1,"write_bytes":{bytes},"write_count":3}}}}"#
            )
        };
        totals.add_line(&line(5, 100, 70)).unwrap();
        totals.add_line(&line(6, 11, 30)).unwrap();
        let id = DeviceId::new("eth0").unwrap();
        let network = NetworkTotals { received_bytes: 111, received_packets: 2, sent_bytes: 4, sent_packets: 0 };
        assert_eq!(totals.network(&id), network);
        let drive = DriveTotals { read_bytes: 1024, reads: 2, written_bytes: 111, writes: 6 };
        assert_eq!(totals.drive(&DeviceId::new("data").unwrap()), drive);
        assert_eq!(totals.get("api_server", "process_startup_time_us"), 39473);
        assert_eq!(totals.get("latencies_us", "pause_vm"), 30);
        assert_eq!(totals.get("vcpu", "exit_io_in_agg.min_us"), 1);
        assert_eq!(totals.get("vcpu", "exit_io_in_agg.sum_us"), 111);
        assert_eq!(totals.time_ms(), 6);
    }

    #[test]
    fn a_line_that_is_none_adds_nothing() {
        let mut totals = Totals::default();
        assert!(matches!(totals.add_line(r#"{"net":{"rx_bytes_count":5}"#), Err(MetricsError::Json { size: 27, .. })));
        assert!(matches!(totals.add_line("[]"), Err(MetricsError::NoObject)));
        assert_eq!(totals, Totals::default());
    }

    proptest! {
        #[test]
        fn any_text_is_a_line_or_an_error(text in ".{0,80}") {
            let _ = Totals::default().add_line(&text);
        }

        #[test]
        fn totals_do_not_depend_on_where_lines_end(counts in prop::collection::vec(0_u64..1 << 40, 0..20)) {
            let mut totals = Totals::default();
            for count in &counts {
                totals.add_line(&format!(r#"{{"net_eth0":{{"rx_bytes_count":{count}}}}}"#)).unwrap();
            }
            prop_assert_eq!(totals.get("net_eth0", "rx_bytes_count"), counts.iter().sum::<u64>());
        }
    }
}
