//! A keeper may be killed at any instruction.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use host::{PidFd, Signal};
use keeper::Exit;

use crate::stage::{PROGRAM, Stage, end_of, not_run, until};

/// Says who it is, talks, listens, ends. `starts` has a line for each time that it ran.
const SCRIPT: &str = "echo $$ >>$1/starts; n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo line $n; done; \
    read word; echo $word; exit 7";
/// At the same time.
const RUNNERS: usize = 4;
/// Kills in the quick tier; the long one has one for every call.
const SAMPLES: usize = 120;

fn expected() -> String {
    (1..=300).map(|number| format!("line {number}\n")).chain(["word\n".to_owned()]).collect()
}

/// Types the word as soon as there is somebody to read it, and holds the FIFOs open, as the daemon does.
fn feed(stage: &Stage) -> [std::fs::File; 2] {
    let mut input = stage.fifo(&stage.directory.input());
    input.write_all(b"word\n").unwrap();
    [input, stage.fifo(&stage.directory.output())]
}

/// Runs a keeper that is killed before a call of it; `true` when it came to its end.
fn traced(stage: &Stage, point: Option<&(String, usize)>, log: &Path) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(log);
    if let Some((call, number)) = point {
        strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
    }
    strace.arg(PROGRAM).args(["--groups", &stage.prefix]).arg(stage.directory.path());
    end_of(strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()) == Some(0)
}

/// Every call of a whole run.
fn points(log: &Path) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let text = std::fs::read_to_string(log).unwrap();
    let mut points = Vec::new();
    for line in text.lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        if ["execve", "exit_group", "rt_sigreturn"].contains(&call) || call.contains(' ') {
            continue;
        }
        let count = counts.entry(call.to_owned()).or_default();
        *count += 1;
        points.push((call.to_owned(), *count));
    }
    points
}

/// What must be so after any kill, once another keeper was there.
fn check(stage: &Stage, what: &str) -> (usize, Exit) {
    let starts = std::fs::read_to_string(stage.path("starts")).unwrap_or_default();
    let starts: Vec<u32> = starts.lines().map(|line| line.parse().unwrap()).collect();
    assert!(starts.len() <= 1, "{what}: {} processes", starts.len());
    let ended = stage.ended();
    if let Some(pid) = starts.first() {
        assert!(PidFd::open(*pid).unwrap().is_none_or(|process| process.has_ended().unwrap()), "{what}");
        assert_eq!(stage.directory.process().unwrap().unwrap().identity.pid, *pid, "{what}");
        assert_eq!(stage.console(), expected(), "{what}");
        assert!(matches!(ended.exit, Exit::Code(7) | Exit::Unknown), "{what}: {ended:?}");
    } else {
        assert!(matches!(ended.exit, Exit::Code(126) | Exit::Signal(9) | Exit::Unknown), "{what}: {ended:?}");
        assert_eq!(stage.console(), "", "{what}");
    }
    let group = host::Hierarchies::of_host().unwrap().group(&format!("{}-vms/one", stage.prefix)).unwrap();
    assert!(group.processes().unwrap().is_empty(), "{what}");
    (starts.len(), ended.exit)
}

#[test]
fn a_keeper_may_be_killed_at_any_call() {
    let test = "a_keeper_may_be_killed_at_any_call";
    match Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status() {
        Ok(status) if status.success() => {}
        Ok(_) => return not_run(test, "strace may not trace here"),
        Err(_) => return not_run(test, "strace is missing"),
    }
    let Some(whole) = Stage::new(test) else { return };
    whole.say(SCRIPT);
    let log = whole.path("log");
    std::thread::scope(|scope| {
        let keeper = scope.spawn(|| traced(&whole, None, &log));
        let _fifos = feed(&whole);
        assert!(keeper.join().unwrap());
    });
    assert_eq!(check(&whole, "not killed"), (1, Exit::Code(7)));
    let points = points(&log);
    let step = if std::env::var_os("CAIRN_LONG").is_some() { 1 } else { points.len().div_ceil(SAMPLES) };
    let chosen: Vec<_> = points.iter().step_by(step).collect();
    let [next, killed, never, known, unknown] = [const { AtomicUsize::new(0) }; 5];
    std::thread::scope(|scope| {
        for _ in 0..RUNNERS {
            scope.spawn(|| {
                while let Some(point) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let stage = Stage::new(test).unwrap();
                    stage.say(SCRIPT);
                    std::thread::scope(|scope| {
                        let feeder = scope.spawn(|| feed(&stage));
                        if !traced(&stage, Some(point), Path::new("/dev/null")) {
                            killed.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(end_of(stage.start()), Some(0), "killed at {point:?}");
                        // Where no process ever began there may be nothing to open, and the stage is over.
                        if stage.directory.input().exists() {
                            drop(feeder.join().unwrap());
                        }
                    });
                    let counter = match check(&stage, &format!("killed at {point:?}")) {
                        (0, _) => &never,
                        (_, Exit::Unknown) => &unknown,
                        _ => &known,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [killed, never, known, unknown] = [killed, never, known, unknown].map(AtomicUsize::into_inner);
    eprintln!(
        "{} calls, killed {killed} times; never begun {never}, exit known {known}, unknown {unknown}",
        points.len()
    );
    assert!(killed >= chosen.len() / 2, "killed {killed} of {}", chosen.len());
}

#[test]
fn a_guest_outlives_many_keepers() {
    let Some(stage) = Stage::new("a_guest_outlives_many_keepers") else { return };
    stage.say(
        "echo $$ >>$1/starts; n=0; while [ ! -e $1/enough ]; do n=$((n+1)); echo line $n; done; echo end $n; exit 7",
    );
    let mut keepers = 0;
    let mut held = None;
    let mut seen = 0;
    while keepers < 40 {
        let mut keeper = stage.start();
        held.get_or_insert_with(|| stage.fifo(&stage.directory.output()));
        // Each one kept something before it is killed.
        seen = until("the console grows", || {
            let now = std::fs::metadata(stage.path("console")).map_or(0, |found| found.len())
                + std::fs::metadata(stage.path("console.1")).map_or(0, |found| found.ino().wrapping_add(found.len()));
            (now != seen).then_some(now)
        });
        PidFd::open(keeper.id()).unwrap().unwrap().signal(Signal::KILL).unwrap();
        keeper.wait().unwrap();
        keepers += 1;
    }
    let last = stage.start();
    std::fs::write(stage.path("enough"), b"").unwrap();
    assert_eq!(end_of(last), Some(0));
    let starts = std::fs::read_to_string(stage.path("starts")).unwrap();
    assert_eq!(starts.lines().count(), 1);
    // Two files hold the end of it, and no line of that is missing.
    let text = std::fs::read_to_string(stage.path("console.1")).unwrap_or_default() + &stage.console();
    let numbers: Vec<u64> = text.lines().skip(1).filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(text.lines().last().unwrap(), format!("end {}", numbers.last().unwrap()));
    eprintln!("{keepers} keepers killed, {} lines, exit {:?}", numbers.last().unwrap(), stage.ended().exit);
    assert!(matches!(stage.ended().exit, Exit::Code(7) | Exit::Unknown));
}
