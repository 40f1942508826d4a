//! What the kernel says about this process and its disks, read at every scrape.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A directory whose file system is watched.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Value of the label `path`: the name that dashboards and alerts know, e.g. `/var/lib/shoal/tasks`.
    pub path: String,
    /// Where that directory really is.
    pub directory: PathBuf,
}

/// Name and help of what [`ProcessCollector`] writes.
pub(super) const PROCESS_FAMILIES: [(&str, &str, &str); 6] = [
    ("process_cpu_seconds_total", "counter", "CPU time this process has used, in user and kernel mode"),
    ("process_resident_memory_bytes", "gauge", "Memory of this process that is in RAM"),
    ("process_open_fds", "gauge", "File descriptors this process has open"),
    ("open_fds", "gauge", "File descriptors this process has open, by the name of the Shoal manual"),
    ("process_threads", "gauge", "Threads of this process"),
    ("process_start_time_seconds", "gauge", "When this process started, in seconds since 1970"),
];

pub(super) const DISK_FREE: (&str, &str) =
    ("disk_free_bytes", "Space that is left for us on the file system of a path");
pub(super) const DISK_TOTAL: (&str, &str) = ("disk_total_bytes", "Size of the file system of a path");

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Without /proc there is nothing to tell; a scrape must not fail for it.
        let Ok(seen) = ProcessUsage::read() else { return Ok(()) };
        let values = [
            seen.cpu_seconds,
            seen.resident_bytes,
            seen.open_files,
            seen.open_files,
            seen.threads,
            seen.started_seconds,
        ];
        for ((name, kind, help), value) in PROCESS_FAMILIES.into_iter().zip(values) {
            if kind == "counter" {
                let metric = ConstCounter::new(value);
                let family = name.trim_end_matches("_total");
                metric.encode(encoder.encode_descriptor(family, help, None, metric.metric_type())?)?;
            } else {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
            }
        }
        Ok(())
    }
}

struct ProcessUsage {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_files: f64,
    threads: f64,
    started_seconds: f64,
}

impl ProcessUsage {
    fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let boot = fs::read_to_string("/proc/stat")?;
        // The directory that is being read is one of the descriptors, but not one that the process keeps.
        let open_files = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
        Self::parse(&stat, &boot, open_files).ok_or_else(|| io::Error::other("/proc/self/stat has another form"))
    }

    /// proc_pid_stat(5): fields are counted from the one after the command name, which may itself contain spaces.
    fn parse(stat: &str, boot: &str, open_files: usize) -> Option<Self> {
        let fields: Vec<f64> =
            stat.rsplit_once(')')?.1.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect();
        // `skip(1)` left out the state, so field N of the manual page is at N - 4.
        let field = |number: usize| fields.get(number - 4).copied();
        let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started_seconds: booted + field(22)? / ticks,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
            open_files: open_files as f64,
        })
    }
}

/// One gauge that a closure reads.
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) read: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reading").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metric = ConstGauge::new((self.read)());
        metric.encode(encoder.encode_descriptor(&self.name, &self.help, None, metric.metric_type())?)
    }
}

#[derive(Debug)]
pub(super) struct DiskCollector(pub(super) Vec<Disk>);

impl Collector for DiskCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seen: Vec<(&Disk, f64, f64)> = self
            .0
            .iter()
            .filter_map(|disk| {
                // A directory that is gone has no value, rather than a false one; readyz reports it.
                let at = rustix::fs::statvfs(&disk.directory).ok()?;
                let unit = at.f_frsize as f64;
                Some((disk, at.f_bavail as f64 * unit, at.f_blocks as f64 * unit))
            })
            .collect();
        for ((name, help), total) in [(DISK_FREE, false), (DISK_TOTAL, true)] {
            let kind = ConstGauge::new(0.0).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (disk, free_bytes, total_bytes) in &seen {
                let labels = [("path", disk.path.as_str())];
                let metric = ConstGauge::new(if total { *total_bytes } else { *free_bytes });
                metric.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1000 1000000 3 18446744073709551615";
        let usage = ProcessUsage::parse(stat, "cpu 1\nbtime 1700000000\n", 5).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(usage.cpu_seconds, 300.0 / ticks);
        assert_eq!(usage.threads, 9.0);
        assert_eq!(usage.started_seconds, 1_700_000_000.0 + 1000.0 / ticks);
        assert_eq!(usage.resident_bytes, 3.0 * rustix::param::page_size() as f64);
    }

    #[test]
    fn this_process_can_be_read() {
        let usage = ProcessUsage::read().unwrap();
        assert!(usage.resident_bytes > 0.0 && usage.open_files >= 3.0 && usage.threads >= 1.0);
    }
}
