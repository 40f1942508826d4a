//! A process tree with its own process ids, mounts and, if wanted, network: whatever runs inside is ended by the
//! kernel when the enclosure ends, even if this program is killed, and the host sees none of its mounts.
//!
//! The program runs itself twice more: as process 1 of the new process namespace, which only reaps, and as the one that
//! does the work. Its `main` asks [`stage`] first.
//!
//! ```text
//! outside: setpriv --pdeathsig KILL unshare --pid --mount --kill-child … SELF enclosure-init WORK NAME …
//!   init:    /proc, private mounts, reaps                                SELF enclosure-inside WORK NAME …
//!     inside:  Rack, Controller, …
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{environment, systemd_host};

const INIT: &str = "enclosure-init";
const INSIDE: &str = "enclosure-inside";
const LOCK: &str = "lock";
/// Directories that had to be made on the host to mount over; the outside removes them again.
const MADE: &str = "made-directories";
/// What was mounted over, a path a line.
const COVERED: &str = "covered";
const PREFIX: &str = "cairn-work-";

/// Which of the three this process is.
pub enum Stage {
    /// The one the user started.
    Outside,
    /// Process 1 of the enclosure: `main` returns what [`Init::run`] gives back and does nothing else.
    Init(Init),
    /// The one that does the work, in its directory and with its arguments.
    Inside(Inside),
}

/// See [`Stage::Init`].
pub struct Init {
    work: PathBuf,
    arguments: Vec<OsString>,
}

/// See [`Stage::Inside`].
pub struct Inside {
    /// Directory for everything that this enclosure writes; removed at its end.
    pub work: PathBuf,
    /// What [`run`] was given.
    pub arguments: Vec<String>,
}

/// Which network the enclosure has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// Its own, in which only a loopback interface is up.
    Own,
}

/// Looks at the program's arguments. Inside an enclosure this also names the place to work in.
pub fn stage() -> Stage {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    let work = arguments.next().map(PathBuf::from);
    match (first.to_str(), work) {
        (Some(INIT), Some(work)) => Stage::Init(Init { work, arguments: arguments.collect() }),
        (Some(INSIDE), Some(work)) => {
            let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
            Stage::Inside(Inside { work, arguments })
        }
        _ => Stage::Outside,
    }
}

/// Why no enclosure can be made here, if so.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "virtual machines with a BMC need root: run the command with `sudo -E env \"PATH=$PATH\" …`".into(),
        );
    }
    let mut probe = Command::new("unshare");
    probe.args(["--pid", "--mount", "--fork", "--propagation", "unchanged", "--", "true"]);
    match crate::process::run(&mut probe) {
        Ok(_) => None,
        Err(error) => Some(format!("the kernel refuses new process and mount namespaces: {error:#}")),
    }
}

/// Runs this program again inside a new enclosure with `arguments`; gives back its exit code. SIGINT, SIGTERM and SIGHUP
/// end everything inside; the exit code is then 130.
pub fn run(arguments: &[&str], network: Network) -> Result<u8> {
    sweep(&base());
    let (work, _lock) = work_directory(&base())?;
    // Before the child exists, so that its end cannot be missed.
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM, SIGHUP]).context("listen for signals")?;
    let mut child = start(&work, arguments, network)?;
    let ended = follow(&mut signals, &mut child);
    signals.handle().close();
    remove_made_directories(&work);
    remove_groups(&work);
    if environment::keep() {
        eprintln!("kept {}", work.display());
    } else {
        std::fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    ended
}

fn start(work: &Path, arguments: &[&str], network: Network) -> Result<Child> {
    let program = std::env::current_exe().context("the path of the running program")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--pid", "--mount", "--fork", "--kill-child=KILL"]);
    command.args(["--propagation", "unchanged"]);
    if network == Network::Own {
        command.arg("--net");
    }
    command.arg("--").arg(program).arg(INIT).arg(work).args(arguments);
    // Own process group: Ctrl-C reaches this process alone, which then ends the others.
    command.stdin(Stdio::null()).process_group(0).spawn().context("start setpriv and unshare (package util-linux)")
}

/// Waits for the child; on a signal kills process 1 of the enclosure, with which the kernel ends all others.
fn follow(signals: &mut Signals, child: &mut Child) -> Result<u8> {
    let mut interrupted = false;
    loop {
        if let Some(status) = child.try_wait().context("wait for the enclosure")? {
            return Ok(if interrupted { 130 } else { code(status) });
        }
        for signal in signals.wait() {
            if signal != SIGCHLD {
                interrupted = true;
                end(child)?;
            }
        }
    }
}

fn end(child: &mut Child) -> Result<()> {
    let id = child.id();
    // `unshare` waits for process 1, and that ends only after all others: when the child is gone, nothing is left.
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    match children.split_whitespace().next().and_then(|first| first.parse().ok()).and_then(Pid::from_raw) {
        Some(init) => rustix::process::kill_process(init, Signal::KILL).context("end the enclosure"),
        None => child.kill().context("end the enclosure"),
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Below /var/tmp, which is on a disk where /tmp may be in memory: machines' disks lie there.
fn base() -> PathBuf {
    let directory = Path::new("/var/tmp");
    if directory.is_dir() { directory.to_owned() } else { std::env::temp_dir() }
}

/// A new directory, and its lock: who can take the lock knows that the owner is gone.
fn work_directory(base: &Path) -> Result<(PathBuf, File)> {
    let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base).context("make a work directory")?;
    let early = directory.path().join("lock.new");
    let lock = File::create(&early)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock the work directory")?;
    std::fs::rename(&early, directory.path().join(LOCK))?;
    Ok((directory.keep(), lock))
}

/// Removes what runs that were killed left in `base`.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_made_directories(&entry.path());
            remove_groups(&entry.path());
            // Only tidiness: what cannot be removed now is tried again by the next run.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the control groups of hosts that could not do so themselves; they are named after the work directory.
fn remove_groups(work: &Path) {
    if let Some(name) = work.file_name() {
        systemd_host::sweep(&name.to_string_lossy());
    }
}

/// Removes the directories of [`MADE`], if they are empty. A directory that goes takes with it what other enclosures have
/// mounted over it (mount_namespaces(7)), so while another one lives the list is left to that one.
fn remove_made_directories(work: &Path) {
    let list = std::fs::read_to_string(work.join(MADE)).unwrap_or_default();
    if list.is_empty() || neighbour(work).is_some_and(|other| append(&other.join(MADE), &list).is_ok()) {
        return;
    }
    for directory in list.lines().rev() {
        let _ = std::fs::remove_dir(directory);
    }
}

/// The work directory of another enclosure that lives.
fn neighbour(work: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(work.parent()?).ok()?.flatten().map(|entry| entry.path());
    let mut others = entries.filter(|path| path != work);
    others.find(|path| {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let lock = if named { File::open(path.join(LOCK)).ok() } else { None };
        lock.is_some_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err())
    })
}

fn append(file: &Path, text: &str) -> std::io::Result<()> {
    File::options().create(true).append(true).open(file)?.write_all(text.as_bytes())
}

impl Init {
    /// Prepares the namespaces, starts the worker and reaps until it has ended.
    pub fn run(self) -> ExitCode {
        match self.reap() {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn reap(self) -> Result<u8> {
        ensure!(std::process::id() == 1, "{INIT} is for process 1 of an enclosure");
        let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        // In a chroot "/" is no mount point: then the mounts are taken back by hand below.
        let private = rustix::mount::mount_change("/", flags).is_ok();
        let proc = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("proc", "/proc", "proc", proc, None).context("mount /proc")?;
        let program = std::env::current_exe().context("the path of the running program")?;
        let mut command = Command::new(program);
        command.arg(INSIDE).arg(&self.work).args(&self.arguments).stdin(Stdio::null());
        let worker = command.spawn().context("start the worker")?;
        let code = loop {
            let Some((id, status)) = rustix::process::wait(WaitOptions::empty()).context("reap")? else { continue };
            if id == Pid::from_child(&worker) {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                break u8::try_from(code.unwrap_or(1)).unwrap_or(1);
            }
        };
        if !private {
            let covered = std::fs::read_to_string(self.work.join(COVERED)).unwrap_or_default();
            for target in covered.lines().chain(["/proc"]) {
                // Most are uncovered already.
                let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            }
        }
        Ok(code)
    }
}

/// Lets processes of this enclosure see `source` in the place of `target`. Outside nothing changes, apart from `target`
/// being made if it is missing and removed at the end.
pub fn bind(work: &Path, source: &Path, target: &str) -> Result<()> {
    std::fs::create_dir_all(source).with_context(|| format!("make {}", source.display()))?;
    make_directory(work, Path::new(target))?;
    bind_file(work, source, target)
}

/// The same for a file that is there.
pub(crate) fn bind_file(work: &Path, source: &Path, target: &str) -> Result<()> {
    ensure!(work.join(LOCK).exists(), "{target} may be covered inside an enclosure only");
    rustix::mount::mount_bind(source, target).with_context(|| format!("mount over {target}"))?;
    let list = work.join(COVERED);
    let covered = std::fs::read_to_string(&list).unwrap_or_default();
    std::fs::write(&list, format!("{covered}{target}\n")).with_context(|| format!("write {}", list.display()))
}

fn make_directory(work: &Path, directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make_directory(work, parent)?;
    }
    let list = work.join(MADE);
    append(&list, &format!("{}\n", directory.display())).with_context(|| format!("write {}", list.display()))?;
    std::fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_without_an_owner_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let (owned, lock) = work_directory(base.path()).unwrap();
        let (left, other_lock) = work_directory(base.path()).unwrap();
        drop(other_lock);
        let young = base.path().join("cairn-work-young");
        std::fs::create_dir(&young).unwrap();
        let foreign = base.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        sweep(base.path());
        assert!(owned.exists() && young.exists() && foreign.exists());
        assert!(!left.exists());
        drop(lock);
        sweep(base.path());
        assert!(!owned.exists());
    }

    #[test]
    fn a_directory_that_was_made_is_removed_again() {
        let work = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        make_directory(work.path(), &place.path().join("a/b")).unwrap();
        assert!(place.path().join("a/b").is_dir());
        remove_made_directories(work.path());
        assert!(!place.path().join("a").exists());
        assert!(place.path().exists());
    }
    #[test]
    fn a_directory_that_a_neighbour_may_need_is_left_to_it() {
        let (base, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (own, _lock) = work_directory(base.path()).unwrap();
        let (other, _other_lock) = work_directory(base.path()).unwrap();
        make_directory(&own, &place.path().join("a")).unwrap();
        remove_made_directories(&own);
        assert!(place.path().join("a").is_dir());
        std::fs::remove_dir_all(&own).unwrap();
        remove_made_directories(&other);
        assert!(!place.path().join("a").exists());
    }
}
