//! Processes that outlive their parent, and their control groups: what the kernel says of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use host::network::{LinuxNetworks, Networks};
use host::{
    CgroupError, Credentials, Exited, Group, GroupLimits, Held, Hierarchies, Launch, LaunchError, PidFd, Signal,
};

use crate::not_run;

/// Only reached when something is wrong.
const LIMIT: Duration = Duration::from_secs(20);

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        not_run(test, "only root can do this");
    }
    root
}

/// What is not as usual.
#[derive(Default)]
struct Other<'a> {
    user: Option<Credentials>,
    network_namespace: Option<&'a Path>,
    open_files: Option<u64>,
    directory: Option<&'a Path>,
}

/// Holds a shell that runs `script`; what it prints comes out of the file.
fn hold(script: &str, other: &Other<'_>) -> Result<(Held, File), LaunchError> {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned);
    let environment = BTreeMap::from([("WORD".to_owned(), "a word".to_owned())]);
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let launch = Launch {
        argv: &argv,
        environment: &environment,
        directory: other.directory.unwrap_or(Path::new("/")),
        user: other.user,
        network_namespace: other.network_namespace,
        open_files: other.open_files,
        input: null.as_fd(),
        output: write.as_fd(),
        error: write.as_fd(),
    };
    let held = launch.hold()?;
    Ok((held, read.into()))
}

fn output_of(script: &str, other: &Other<'_>) -> String {
    let (held, mut read) = hold(script, other).unwrap();
    let process = held.release().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(process.wait(Some(LIMIT)).unwrap());
    assert_eq!(process.reap().unwrap(), Some(Exited::Code(0)), "{text}");
    text
}

#[test]
fn nothing_is_inherited_but_what_was_said() {
    let leak = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let text = output_of(
        "ls /proc/$$/fd; env; ulimit -c; umask; ps -o sid= -p $$; echo $$; exec cat /proc/self/status",
        &Other::default(),
    );
    let lines: Vec<_> = text.lines().collect();
    // The shell's own.
    assert_eq!(&lines[..3], ["0", "1", "2"], "{text}");
    assert!(!lines.contains(&"3"), "{text}");
    assert!(lines.contains(&"WORD=a word") && !text.contains("CARGO"), "{text}");
    assert!(lines.contains(&"0077"), "{text}");
    for signals in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(lines.contains(&signals), "{text}");
    }
    let umask = lines.iter().position(|line| *line == "0077").unwrap();
    assert_eq!(lines[umask + 1].trim(), lines[umask + 2], "it leads a session");
}

#[test]
fn a_process_with_a_user_can_do_nothing_more() {
    if !is_root("a_process_with_a_user_can_do_nothing_more") {
        return;
    }
    let user = Credentials { uid: 200_123, gid: 200_124 };
    let text = output_of("cat /proc/$$/status", &Other { user: Some(user), ..Other::default() });
    for line in [
        "Uid:\t200123\t200123\t200123\t200123",
        "Gid:\t200124\t200124\t200124\t200124",
        "Groups:\t ",
        "NoNewPrivs:\t1",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let root = hold("true", &Other { user: Some(Credentials { uid: 0, gid: 1 }), ..Other::default() })
        .unwrap()
        .0
        .release()
        .unwrap_err();
    assert!(root.to_string().starts_with("cannot change the user for"), "{root}");
}

#[test]
fn without_a_user_capabilities_stay() {
    let of = |text: &str| text.lines().find(|line| line.starts_with("CapEff")).map(str::to_owned);
    let text = output_of("cat /proc/$$/status", &Other::default());
    assert_eq!(of(&text), of(&std::fs::read_to_string("/proc/self/status").unwrap()));
    assert!(text.contains("NoNewPrivs:\t0"), "{text}");
}

#[test]
fn the_network_namespace_is_another() {
    let test = "the_network_namespace_is_another";
    let directory = tempfile::tempdir().unwrap();
    let networks = LinuxNetworks::in_directory(directory.path());
    if let Err(error) = networks.create_namespace("other") {
        return not_run(test, &error.to_string());
    }
    let path = networks.namespace_path("other");
    let text = output_of(
        "cat /proc/$$/net/dev; cat /proc/self/net/dev | wc -l",
        &Other {
            network_namespace: Some(&path),
            user: Some(Credentials { uid: 200_123, gid: 200_123 }),
            ..Other::default()
        },
    );
    networks.remove_namespace("other").unwrap();
    assert_eq!(text.lines().filter(|line| line.contains(':')).count(), 1, "{text}");
    let error = hold("true", &Other { network_namespace: Some(&path), ..Other::default() }).unwrap_err();
    assert!(matches!(error, LaunchError::Namespace { .. }), "{error}");
}

#[test]
fn files_and_directory_are_as_said() {
    let directory = tempfile::tempdir().unwrap();
    let text = output_of(
        "ulimit -n; pwd",
        &Other { open_files: Some(77), directory: Some(directory.path()), ..Other::default() },
    );
    assert_eq!(text, format!("77\n{}\n", directory.path().canonicalize().unwrap().display()));
    output_of("true", &Other { open_files: Some(1 << 30), ..Other::default() });
}

#[test]
fn what_cannot_be_executed_says_so_and_leaves_no_zombie() {
    let argv = ["/no/such/program".to_owned()];
    let null = File::open("/dev/null").unwrap();
    let mut launch = Launch {
        argv: &argv,
        environment: &BTreeMap::new(),
        directory: Path::new("/"),
        user: None,
        network_namespace: None,
        open_files: None,
        input: null.as_fd(),
        output: null.as_fd(),
        error: null.as_fd(),
    };
    let held = launch.hold().unwrap();
    let pid = held.pid();
    let error = held.release().unwrap_err();
    assert_eq!(error.to_string(), "cannot execute /no/such/program");
    assert!(PidFd::open(pid).unwrap().is_none());
    launch.directory = Path::new("/no/such/directory");
    let error = launch.hold().unwrap().release().unwrap_err();
    assert_eq!(error.to_string(), "cannot change to the working directory of /no/such/program");
    launch.argv = &[];
    assert!(matches!(launch.hold(), Err(LaunchError::Word { .. })));
}

#[test]
fn one_that_is_not_let_go_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let (held, _read) = hold(&format!("touch {}", trace.display()), &Other::default()).unwrap();
    let process = PidFd::open(held.pid()).unwrap().unwrap();
    assert!(!process.has_ended().unwrap());
    drop(held);
    assert!(process.has_ended().unwrap());
    assert!(!trace.exists());
}

#[test]
fn a_stranger_says_how_it_ended_where_the_kernel_knows() {
    let test = "a_stranger_says_how_it_ended_where_the_kernel_knows";
    for (script, expected) in [("exit 7", Exited::Code(7)), ("kill -9 $$", Exited::Signal(9))] {
        let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap().unwrap();
        assert!(process.wait(Some(LIMIT)).unwrap());
        child.wait().unwrap();
        match process.exit_of_stranger(LIMIT) {
            Some(exit) => assert_eq!(exit, expected),
            None => return not_run(test, "this kernel does not say how a process ended"),
        }
        assert!(!process.signal(Signal::TERM).unwrap());
    }
}

/// A group that is removed with this value.
struct OfTest {
    trees: Hierarchies,
    name: String,
}

impl OfTest {
    fn new(test: &str) -> Option<Self> {
        let trees = Hierarchies::of_host().unwrap();
        let name = format!("cairn-test-{}-{test}", std::process::id());
        let this = Self { trees, name };
        match this.trees.make(&this.name, &GroupLimits::default()) {
            Ok((group, _)) if group.directories().is_empty() => not_run(test, "there are no control groups"),
            Ok(_) => return Some(this),
            Err(error) => not_run(test, &format!("{error}: {:?}", std::error::Error::source(&error))),
        }
        None
    }
}

impl Drop for OfTest {
    fn drop(&mut self) {
        let group = self.trees.group(&self.name).unwrap();
        let _ = group.kill(LIMIT);
        let _ = group.remove();
    }
}

/// Lets a shell go inside the group.
fn in_group(group: &Group, script: &str) -> (PidFd, File) {
    let (held, read) = hold(script, &Other::default()).unwrap();
    group.add(held.pid()).unwrap();
    assert!(group.processes().unwrap().contains(&held.pid()));
    (held.release().unwrap(), read)
}

#[test]
fn a_group_dies_as_a_whole_however_fast_it_forks() {
    let test = "a_group_dies_as_a_whole_however_fast_it_forks";
    let Some(of_test) = OfTest::new(test) else { return };
    let (group, _) = of_test
        .trees
        .make(&format!("{}/one", of_test.name), &GroupLimits { tasks: Some(200), ..Default::default() })
        .unwrap();
    let script = "f() { while :; do (sleep 600 & f) 2>/dev/null & wait $!; done; }; f";
    let (first, _output) = in_group(&group, script);
    while group.processes().unwrap().len() < 20 {
        std::thread::yield_now();
    }
    assert_eq!(of_test.trees.children(&of_test.name).unwrap().into_iter().collect::<Vec<_>>(), ["one"]);
    group.kill(LIMIT).unwrap();
    assert!(group.processes().unwrap().is_empty());
    assert!(first.has_ended().unwrap());
    first.reap().unwrap();
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(group.directories().iter().all(|directory| !directory.exists()));
    group.kill(LIMIT).unwrap();
}

#[test]
fn limits_bite() {
    let test = "limits_bite";
    let Some(of_test) = OfTest::new(test) else { return };
    let limits = GroupLimits { memory_bytes: Some(32 << 20), cpu_millis: Some(500), tasks: Some(4) };
    let (group, refused) = of_test.trees.make(&format!("{}/one", of_test.name), &limits).unwrap();
    if !refused.is_empty() {
        return not_run(test, &format!("this host has no limits for {}", refused.join(", ")));
    }
    assert_eq!(group.limits(), limits);
    let (hog, _output) = in_group(&group, "head -c 100M /dev/zero | tail -c 90M >/dev/null");
    assert!(hog.wait(Some(LIMIT)).unwrap());
    let exit = hog.reap().unwrap();
    // The last program of the pipe is killed, and the shell says so.
    assert!(matches!(exit, Some(Exited::Code(137) | Exited::Signal(9))), "{exit:?}");
    let (forks, _output) = in_group(&group, "for n in 1 2 3 4 5 6; do sleep 600 & done; kill -9 0");
    assert!(forks.wait(Some(LIMIT)).unwrap());
    assert!(matches!(forks.reap().unwrap(), Some(Exited::Code(code)) if code != 0), "the shell cannot fork");
    group.kill(LIMIT).unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let trees = Hierarchies::of_host().unwrap();
    assert!(matches!(trees.make("../x", &GroupLimits::default()), Err(CgroupError::Name { .. })));
}
