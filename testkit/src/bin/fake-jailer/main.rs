//! A jailer for tests: the command line, paths, files, limits, control groups and failures of Firecracker's jailer, with
//! the fake Firecracker in the jail. It needs root, as the real one does.
//!
//! Differences: `--new-pid-ns` makes no namespace, only the process of its own and the pid file; and because the fake has
//! shared libraries it is started outside and enters the jail itself (`--fake-root`, `--fake-uid`, `--fake-gid`), without
//! a mount namespace of its own.

mod cgroup;
mod jail;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use jail::Jail;

/// Version that it plays.
const VERSION: &str = "1.16.0";

/// Most open files without an option.
const OPEN_FILES: u64 = 2048;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--version") {
        println!("Jailer v{VERSION}\n");
        return ExitCode::SUCCESS;
    }
    match Options::parse(&words).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line.
#[derive(Debug, Default)]
struct Options {
    id: String,
    executable: String,
    uid: Option<u32>,
    gid: Option<u32>,
    base: String,
    namespace: Option<String>,
    cgroup_version: String,
    parent_cgroup: Option<String>,
    cgroups: Vec<String>,
    limits: Vec<String>,
    daemonize: bool,
    new_pid_namespace: bool,
    rest: Vec<String>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self { base: "/srv/jailer".to_owned(), cgroup_version: "1".to_owned(), ..Self::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().with_context(|| format!("The argument '{word}' requires a value"));
            match word.as_str() {
                "--id" => options.id = value()?,
                "--exec-file" => options.executable = value()?,
                "--uid" => options.uid = Some(value()?.parse().context("Invalid uid")?),
                "--gid" => options.gid = Some(value()?.parse().context("Invalid gid")?),
                "--chroot-base-dir" => options.base = value()?,
                "--netns" => options.namespace = Some(value()?),
                "--cgroup-version" => options.cgroup_version = value()?,
                "--parent-cgroup" => options.parent_cgroup = Some(value()?),
                "--cgroup" => options.cgroups.push(value()?),
                "--resource-limit" => options.limits.push(value()?),
                "--daemonize" => options.daemonize = true,
                "--new-pid-ns" => options.new_pid_namespace = true,
                "--" => options.rest = words.by_ref().cloned().collect(),
                other => bail!("Found argument '{other}' which wasn't expected, or isn't valid in this context"),
            }
        }
        ensure!(!options.id.is_empty(), "Argument 'id' required, but not found");
        ensure!(!options.executable.is_empty(), "Argument 'exec-file' required, but not found");
        let allowed = |letter: char| letter == '-' || letter.is_alphanumeric();
        ensure!(options.id.chars().all(allowed) && options.id.len() <= 64, "Invalid instance ID: {}", options.id);
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    let uid = options.uid.context("Argument 'uid' required, but not found")?;
    let gid = options.gid.context("Argument 'gid' required, but not found")?;
    let jail = Jail::make(&options.base, &options.executable, &options.id, uid, gid)?;
    if let Some(namespace) = &options.namespace {
        jail::join(namespace)?;
    }
    jail::limit("no-file", OPEN_FILES)?;
    for limit in &options.limits {
        let (name, value) =
            limit.split_once('=').with_context(|| format!("Invalid format for resources limits: {limit}"))?;
        jail::limit(name, value.parse().with_context(|| format!("Invalid limit value for resource: {name}"))?)?;
    }
    let parent = options.parent_cgroup.as_deref().unwrap_or(jail.name());
    match options.cgroup_version.as_str() {
        "1" => cgroup::first(parent, &options.id, &options.cgroups)?,
        "2" => cgroup::second(parent, &options.id, &options.cgroups)?,
        other => bail!("Invalid cgroup version: {other}"),
    }
    jail.devices()?;

    let mut command = Command::new(jail.executable());
    command.arg0(format!("/{}", jail.name())).env_clear();
    command.args([format!("--id={}", options.id), "--start-time-us=0".to_owned(), "--start-time-cpu-us=0".to_owned()]);
    command.arg("--fake-root").arg(jail.root());
    command.args(["--fake-uid", &uid.to_string(), "--fake-gid", &gid.to_string()]).args(&options.rest);
    if options.daemonize {
        // The real one forks first and so is never the leader of a group, which cannot have a session of its own.
        let _ = rustix::process::setsid();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    if options.daemonize || options.new_pid_namespace {
        let child = command.spawn().context("Failed to exec into Firecracker")?;
        return jail.write_pid(child.id());
    }
    jail.write_pid(std::process::id())?;
    Err(command.exec()).context("Failed to exec into Firecracker")
}
