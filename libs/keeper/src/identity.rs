//! Which process: a number is given again, a number with a start time is not.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// One process, distinct from every other that has or had its number on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (field 22 of /proc/PID/stat, proc_pid_stat(5)).
    pub started: u64,
    /// The kernel's boot id (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
}

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It has ended and its parent has not looked yet.
    Zombie,
    /// There is nothing left of it.
    Gone,
}

impl Identity {
    /// Of a process that runs; nothing when there is none of this id.
    pub fn of(pid: u32) -> Result<Option<Self>, Error> {
        let Some(stat) = stat(pid)? else { return Ok(None) };
        Ok(Some(Self { pid, started: stat.started, boot_id: boot_id()? }))
    }

    /// What has become of it.
    pub fn life(&self) -> Result<Life, Error> {
        if boot_id()? != self.boot_id {
            return Ok(Life::Gone);
        }
        Ok(match stat(self.pid)? {
            Some(stat) if stat.started == self.started && matches!(stat.state, 'Z' | 'X') => Life::Zombie,
            Some(stat) if stat.started == self.started => Life::Running,
            _ => Life::Gone,
        })
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> Result<bool, Error> {
        Ok(self.life()? == Life::Running)
    }
}

/// Of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    started: u64,
}

fn stat(pid: u32) -> Result<Option<Stat>, Error> {
    let path = format!("/proc/{pid}/stat");
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text)
            .map(Some)
            .ok_or_else(|| Error::at("understand", Path::new(&path))(io::Error::from(io::ErrorKind::InvalidData))),
        // A process that ends between open and read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::at("read", Path::new(&path))(error)),
    }
}

/// The name in parentheses may hold anything, also parentheses and spaces.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, started })
}

fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path).map_err(Error::at("read", path))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        let stat = parse(&format!("77 (a) (b) R 1 (x) {rest}\n")).unwrap();
        assert_eq!(stat, Stat { state: 'S', started: 4711 });
        assert_eq!(parse("77 (a) S 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_runs_and_another_of_its_number_does_not() {
        let own = Identity::of(std::process::id()).unwrap().unwrap();
        assert_eq!(own.life().unwrap(), Life::Running);
        let earlier = Identity { started: own.started + 1, ..own.clone() };
        assert_eq!(earlier.life().unwrap(), Life::Gone);
        let before = Identity { boot_id: "another".to_owned(), ..own };
        assert_eq!(before.life().unwrap(), Life::Gone);
        assert_eq!(Identity::of(u32::MAX).unwrap(), None);
    }

    #[test]
    fn one_that_has_ended_is_a_zombie_until_its_parent_looks() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert_eq!(identity.life().unwrap(), Life::Zombie);
        child.wait().unwrap();
        assert_eq!(identity.life().unwrap(), Life::Gone);
    }
}
