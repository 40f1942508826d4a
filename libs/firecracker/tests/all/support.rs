//! Processes to talk to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use firecracker::{
    BootSource, Client, Config, Deadlines, Exit, HugePages, LogLevel, Logger, MachineConfig, Options, Version,
};
use tempfile::TempDir;
use testkit::guest_kernel::{End, Guest};
use testkit::hypervisor::{self, Programs};
use tokio::process::Child;

/// Long enough for anything but a hang, on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The fakes, and the real ones where they are; says which.
pub fn programs(test: &str) -> Vec<Programs> {
    let mut found = vec![hypervisor::fakes().unwrap()];
    match hypervisor::real() {
        Ok(real) => found.push(real),
        Err(reason) => eprintln!("NOT RUN: {test} with the real Firecracker: {reason}"),
    }
    for programs in &found {
        let kind = if programs.fake { "the fake" } else { "the real" };
        eprintln!("{test}: with {kind} Firecracker {}", version(&programs.firecracker));
    }
    found
}

/// What a program says its version is.
pub fn version(program: &Path) -> Version {
    let output = Command::new(program).arg("--version").output().unwrap();
    Version::of_output(&String::from_utf8_lossy(&output.stdout)).unwrap()
}

/// One process in a directory of its own.
pub struct Vm {
    pub directory: TempDir,
    pub client: Client,
    child: Child,
}

impl Vm {
    /// A process that listens.
    pub async fn start(programs: &Programs) -> Self {
        Self::start_in(programs, tempfile::tempdir().unwrap(), Options::default()).await
    }

    /// A process that listens, in a given directory and with a client of given options.
    pub async fn start_in(programs: &Programs, directory: TempDir, options: Options) -> Self {
        let socket = directory.path().join("api.sock");
        let child = spawn(programs, directory.path(), &["--api-sock", socket.to_str().unwrap()]);
        let client = Client::new(socket, options);
        client.wait_ready(PATIENCE).await.unwrap();
        Self { directory, client, child }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration with a guest. Without a place for its log Firecracker writes that between the guest's lines.
    pub fn config(&self, end: End) -> Config {
        let kernel = self.file("kernel");
        Guest::line("hello", end).write(&kernel).unwrap();
        let log_path = self.file("log");
        let logger = Logger { log_path, level: LogLevel::Info, show_level: true, show_log_origin: false };
        Config { logger: Some(logger), ..config(&kernel) }
    }

    /// Applies a configuration with a guest and starts it.
    pub async fn boot(&self, end: End) {
        self.config(end).apply(&self.client).await.unwrap();
        self.client.start().await.unwrap();
    }

    /// Lines of the guest on standard output.
    pub fn lines(&self) -> usize {
        let output = std::fs::read_to_string(self.file("out")).unwrap_or_default();
        output.lines().filter(|line| *line == "hello").count()
    }

    /// Waits until the guest has written more lines than before.
    pub async fn wait_lines(&self, before: usize) {
        let wait = async {
            while self.lines() <= before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{}", self.words()));
    }

    /// Everything the process wrote.
    pub fn words(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.file(name)).unwrap_or_default();
        ["out", "err", "log"].map(read).concat()
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.child.id().unwrap() as i32).unwrap()
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self) -> Exit {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap();
        Exit::of(status.unwrap())
    }
}

/// Starts a process whose standard output is the file `out`.
pub fn spawn(programs: &Programs, directory: &Path, arguments: &[&str]) -> Child {
    let out = File::options().append(true).create(true).open(directory.join("out")).unwrap();
    let err = File::options().append(true).create(true).open(directory.join("err")).unwrap();
    let mut command = tokio::process::Command::new(&programs.firecracker);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(out).stderr(err);
    command.kill_on_drop(true).spawn().unwrap()
}

/// One processor, 64 MiB and a kernel.
pub fn config(kernel: &Path) -> Config {
    let machine = MachineConfig {
        vcpu_count: 1,
        mem_size_mib: 64,
        smt: false,
        track_dirty_pages: false,
        huge_pages: HugePages::None,
    };
    let boot = BootSource { kernel_image_path: kernel.to_owned(), initrd_path: None, boot_args: None };
    Config::new(machine, boot)
}

/// Options with one deadline for everything.
pub fn deadline(limit: Duration) -> Options {
    let deadlines = Deadlines { call: limit, start: limit, state: limit, snapshot: limit };
    Options { deadlines, ..Options::default() }
}
