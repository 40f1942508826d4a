//! What kind of machine this is.

use std::fs;

use crate::FileError;

/// Name, processors, memory and age of this machine. What the kernel does not say is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Model of the processors.
    pub cpu_model: String,
    /// Processors that are on.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Of it, what can be had without pushing anything out, in bytes.
    pub memory_available: u64,
    /// Seconds since it was started.
    pub uptime: u64,
}

/// Asks the kernel.
///
/// # Errors
/// /proc cannot be read.
pub fn machine() -> Result<Machine, FileError> {
    let read = |name: &str| {
        let path = std::path::Path::new("/proc").join(name);
        fs::read_to_string(&path).map_err(FileError::at("read", &path))
    };
    let mut machine = parse(&read("cpuinfo")?, &read("meminfo")?, &read("uptime")?);
    let name = rustix::system::uname();
    machine.hostname = name.nodename().to_string_lossy().into_owned();
    machine.architecture = name.machine().to_string_lossy().into_owned();
    Ok(machine)
}

fn parse(cpuinfo: &str, meminfo: &str, uptime: &str) -> Machine {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    Machine {
        cpu_model: model.map(|(_, model)| model.trim().to_owned()).unwrap_or_default(),
        cpus: u32::try_from(cpus).unwrap_or_default(),
        memory: kibibytes("MemTotal") << 10,
        memory_available: kibibytes("MemAvailable") << 10,
        uptime: uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
        ..Machine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A: B\n\nprocessor\t: 1\nmodel name\t: A: B\n";
        let machine = parse(cpuinfo, "MemTotal:  2048 kB\nMemAvailable:    1024 kB\n", "61.25 100.00\n");
        let expected = Machine {
            cpu_model: "A: B".to_owned(),
            cpus: 2,
            memory: 2 << 20,
            memory_available: 1 << 20,
            uptime: 61,
            ..Machine::default()
        };
        assert_eq!(machine, expected);
        assert_eq!(parse("", "", ""), Machine::default());
    }

    #[test]
    fn this_machine_can_be_asked() {
        let machine = machine().unwrap();
        assert!(machine.cpus > 0 && machine.memory > machine.memory_available && !machine.architecture.is_empty());
    }
}
