//! One group: its directories, one for each tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::Signal;

use super::{CgroupError, GroupLimits};
use crate::{FileError, PidFd};

/// Between two looks at what the kernel does not tell of.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// How long an empty group may be busy.
const BUSY: Duration = Duration::from_secs(2);

/// A control group. It stays when this value goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    directories: Vec<PathBuf>,
}

impl Group {
    /// By its directories.
    pub fn of(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { directories: directories.into_iter().collect() }
    }

    /// Its directories.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Moves a process into it. Everything it begins from then on is there too.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        for directory in &self.directories {
            let path = directory.join("cgroup.procs");
            write(&path, &pid.to_string()).map_err(FileError::at("write to", &path))?;
        }
        Ok(())
    }

    /// Its processes, and those of groups below it. A group that is not there has none.
    pub fn processes(&self) -> Result<BTreeSet<u32>, CgroupError> {
        let mut found = BTreeSet::new();
        for directory in &self.directories {
            for directory in with_below(directory)? {
                let path = directory.join("cgroup.procs");
                match std::fs::read_to_string(&path) {
                    Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(FileError::at("read", &path)(error).into()),
                }
            }
        }
        Ok(found)
    }

    /// Kills all its processes and waits until they have ended. Nothing is begun in it any more.
    pub fn kill(&self, limit: Duration) -> Result<(), CgroupError> {
        let end = Instant::now() + limit;
        for directory in &self.directories {
            // Version 2 from Linux 5.14 on; in version 1 nobody forks faster than they are killed.
            let _ = write(&directory.join("pids.max"), "0");
            let _ = write(&directory.join("cgroup.kill"), "1");
        }
        loop {
            let mut handles = BTreeMap::new();
            for pid in self.processes()? {
                handles.insert(pid, PidFd::open(pid).map_err(|error| self.failed("open a process of", error))?);
            }
            if handles.is_empty() {
                return Ok(());
            }
            // A number that is still listed meant one of the group's processes when its handle was opened.
            let still = self.processes()?;
            for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
                if let Some(handle) = handle {
                    handle.signal(Signal::KILL).map_err(|error| self.failed("kill a process of", error))?;
                }
            }
            for handle in handles.values().flatten() {
                let left = end.saturating_duration_since(Instant::now());
                handle.wait(Some(left)).map_err(|error| self.failed("wait for a process of", error))?;
            }
            if Instant::now() >= end {
                let pids: Vec<u32> = self.processes()?.into_iter().collect();
                if pids.is_empty() {
                    return Ok(());
                }
                return Err(CgroupError::Survived { directory: self.first().to_owned(), pids });
            }
            if handles.values().all(Option::is_none) {
                // They are just ending, and nothing tells when they are gone from the list.
                let _ = poll(&mut [], Some(&PAUSE));
            }
        }
    }

    /// Removes it and the groups below it. That it is not there is no error; processes in it are.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for directory in &self.directories {
            for directory in with_below(directory)?.iter().rev() {
                remove(directory)?;
            }
        }
        Ok(())
    }

    /// The limits that are in force.
    pub fn limits(&self) -> GroupLimits {
        let number = |files: &[&str]| {
            let paths = self.directories.iter().flat_map(|directory| files.iter().map(|file| directory.join(file)));
            paths.filter_map(|path| std::fs::read_to_string(path).ok()).find_map(|text| text.trim().parse::<u64>().ok())
        };
        let quota = self.directories.iter().find_map(|directory| {
            let max = std::fs::read_to_string(directory.join("cpu.max")).ok();
            let max = max.and_then(|text| {
                Some(text.trim().split_once(' ')).map(|pair| pair.map(|(a, b)| (a.to_owned(), b.to_owned())))?
            });
            let file = |name: &str| Some(std::fs::read_to_string(directory.join(name)).ok()?.trim().to_owned());
            let (quota, period) = max.or_else(|| Some((file("cpu.cfs_quota_us")?, file("cpu.cfs_period_us")?)))?;
            let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
            (quota * 1000).checked_div(period)
        });
        GroupLimits {
            // Version 1 says "no limit" with the greatest number of whole pages.
            memory_bytes: number(&["memory.max", "memory.limit_in_bytes"]).filter(|bytes| *bytes < u64::MAX >> 2),
            cpu_millis: quota,
            tasks: number(&["pids.max"]),
        }
    }

    fn first(&self) -> &Path {
        self.directories.first().map_or(Path::new(""), |directory| directory)
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> CgroupError {
        FileError::at(operation, self.first())(error).into()
    }
}

/// Writes to a file of the kernel, which is never made.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// A directory and all below it, those above first.
fn with_below(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = all.get(next).cloned() {
        next += 1;
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if is_gone(&error) => continue,
            entries => entries.map_err(FileError::at("list", &directory))?,
        };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            all.push(entry.path());
        }
    }
    Ok(all)
}

fn remove(directory: &Path) -> Result<(), CgroupError> {
    let end = Instant::now() + BUSY;
    loop {
        match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            // The last process has ended and is not yet off the kernel's list.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                let _ = poll(&mut [], Some(&PAUSE));
            }
            Err(error) => return Err(FileError::at("remove", directory)(error).into()),
        }
    }
}
