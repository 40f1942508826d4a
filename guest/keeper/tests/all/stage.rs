//! One directory, a script in it, and control groups of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use host::{Hierarchies, PidFd};
use keeper::{Directory, Ended, Limits, Order, open_fifo};

/// Only reached when something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cairn-keeper");

/// Says that a test cannot run here.
pub(crate) fn not_run(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {reason}");
}

pub(crate) struct Stage {
    place: tempfile::TempDir,
    pub(crate) directory: Directory,
    /// Control groups begin with this.
    pub(crate) prefix: String,
}

impl Stage {
    /// Nothing, with a word about it, where control groups cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("cairn-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let trees = Hierarchies::of_host().unwrap();
        if let Err(error) = trees.make(&format!("{prefix}-vms"), &host::GroupLimits::default()) {
            not_run(test, &format!("no control groups: {}", cairn_core::chain(&error)));
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().join("keeper"));
        std::fs::create_dir(directory.path()).unwrap();
        Some(Self { place, directory, prefix })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// An order that runs a script; `$1` is the directory above.
    pub(crate) fn order(&self, script: &str) -> Order {
        let place = self.place.path().to_str().unwrap();
        Order {
            name: "one".to_owned(),
            argv: ["/bin/sh", "-c", script, "hypervisor", place].map(str::to_owned).into(),
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            directory: "/".into(),
            user: None,
            network_namespace: None,
            limits: Limits::default(),
            open_files: None,
            console: self.path("console"),
            console_limit: 1 << 20,
            metrics: Some(self.path("metrics")),
            metrics_owner: None,
        }
    }

    pub(crate) fn say(&self, script: &str) {
        self.directory.write_order(&self.order(script)).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--groups", &self.prefix]).arg(self.directory.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Child {
        self.command().spawn().unwrap()
    }

    pub(crate) fn console(&self) -> String {
        std::fs::read_to_string(self.path("console")).unwrap_or_default()
    }

    pub(crate) fn ended(&self) -> Ended {
        self.directory.ended().unwrap().unwrap()
    }

    /// Waits until there is a process, and gives back its id.
    pub(crate) fn process(&self) -> u32 {
        until("there is a process", || self.directory.process().unwrap()).identity.pid
    }

    /// Writes to the guest once it holds the FIFO: what is written before anybody reads is lost when the writer closes it.
    pub(crate) fn enter(&self, bytes: &[u8]) {
        self.process();
        self.fifo(&self.directory.input()).write_all(bytes).unwrap();
    }

    /// Opens a FIFO as soon as it is there, as the daemon does, so that nothing in it is lost between two keepers.
    pub(crate) fn fifo(&self, path: &Path) -> File {
        until("there is a FIFO", || open_fifo(path, false).ok())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let trees = Hierarchies::of_host().unwrap();
        for group in [trees.group(&format!("{}-vms", self.prefix)), trees.apart(&format!("{}-keepers", self.prefix))] {
            let group = group.unwrap();
            let _ = group.kill(LIMIT);
            let _ = group.remove();
        }
    }
}

/// Waits until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
}

/// Waits until a child has ended, and gives back its exit code; nothing when a signal ended it.
pub(crate) fn end_of(mut child: Child) -> Option<i32> {
    let process = PidFd::open(child.id()).unwrap().unwrap();
    assert!(process.wait(Some(LIMIT)).unwrap(), "a keeper does not end");
    child.wait().unwrap().code()
}
