//! What a keeper does when nobody kills it.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use host::{Exited, PidFd, Signal};
use keeper::{Exit, Limits, User};

use crate::stage::{LIMIT, Stage, end_of, not_run, until};

#[test]
fn output_metrics_and_end_are_kept() {
    let Some(stage) = Stage::new("output_metrics_and_end_are_kept") else { return };
    stage.say(
        "echo out; echo err >&2; read word; echo $word; echo '{\"net\":{\"rx\":3}}' >$1/metrics; \
         echo '{\"net\":{\"rx\":4}}' >$1/metrics; exit 7",
    );
    let keeper = stage.start();
    stage.enter(b"typed\n");
    assert_eq!(end_of(keeper), Some(0));
    assert_eq!(stage.console(), "out\nerr\ntyped\n");
    let metrics = stage.directory.metrics().unwrap();
    assert_eq!((metrics.lines, metrics.counters["net.rx"].total), (2, 7));
    let ended = stage.ended();
    assert_eq!((ended.exit, ended.not_begun), (Exit::Code(7), None));
    // Another keeper finds nothing to do.
    assert_eq!(end_of(stage.start()), Some(0));
    assert_eq!(stage.console(), "out\nerr\ntyped\n");
}

#[test]
fn a_signal_is_told_and_children_go_too() {
    let Some(stage) = Stage::new("a_signal_is_told_and_children_go_too") else { return };
    stage.say("setsid sleep 600 & echo $! >$1/child; mv $1/child $1/child-of; kill -9 $$");
    assert_eq!(end_of(stage.start()), Some(0));
    assert_eq!(stage.ended().exit, Exit::Signal(9));
    let child: u32 = std::fs::read_to_string(stage.path("child-of")).unwrap().trim().parse().unwrap();
    let gone = |pid| PidFd::open(pid).unwrap().is_none_or(|process| process.has_ended().unwrap());
    assert!(gone(child));
}

#[test]
fn what_cannot_begin_says_why() {
    let Some(stage) = Stage::new("what_cannot_begin_says_why") else { return };
    let mut order = stage.order("");
    order.argv = vec!["/no/such/program".to_owned()];
    stage.directory.write_order(&order).unwrap();
    assert_eq!(end_of(stage.start()), Some(0));
    let ended = stage.ended();
    assert_eq!(ended.exit, Exit::Code(126));
    let why = ended.not_begun.unwrap();
    assert!(why.starts_with("cannot execute /no/such/program: No such file"), "{why}");

    let Some(stage) = Stage::new("what_cannot_begin_says_why") else { return };
    let mut order = stage.order("true");
    order.console = "/no/such/directory/console".into();
    stage.directory.write_order(&order).unwrap();
    assert_eq!(end_of(stage.start()), Some(0));
    assert!(stage.ended().not_begun.unwrap().contains("/no/such/directory/console"));

    let Some(stage) = Stage::new("what_cannot_begin_says_why") else { return };
    let output = stage.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("holds no order"));
}

#[test]
fn a_second_keeper_is_refused() {
    let Some(stage) = Stage::new("a_second_keeper_is_refused") else { return };
    stage.say("read word; exit 0");
    let first = stage.start();
    stage.process();
    assert_eq!(end_of(stage.start()), Some(75));
    stage.enter(b"\n");
    assert_eq!(end_of(first), Some(0));
}

#[test]
fn signals_for_the_keeper_are_not_for_the_guest() {
    let Some(stage) = Stage::new("signals_for_the_keeper_are_not_for_the_guest") else { return };
    stage.say("trap 'echo bad' HUP INT TERM; echo one; read word; echo two; exit 3");
    let keeper = stage.start();
    until("it says so", || stage.console().contains("one").then_some(()));
    let handle = PidFd::open(keeper.id()).unwrap().unwrap();
    for signal in [Signal::HUP, Signal::INT] {
        handle.signal(signal).unwrap();
    }
    handle.signal(Signal::TERM).unwrap();
    assert_eq!(end_of(keeper), Some(0));
    assert_eq!(stage.directory.ended().unwrap(), None);
    let process = PidFd::open(stage.process()).unwrap().unwrap();
    assert!(!process.has_ended().unwrap());
    // Held by the daemon while no keeper is there; what is in it would go with its last holder.
    let _output = stage.fifo(&stage.directory.output());
    let next = stage.start();
    stage.enter(b"\n");
    assert_eq!(end_of(next), Some(0));
    assert_eq!(stage.console(), "one\ntwo\n");
    assert!(matches!(stage.ended().exit, Exit::Code(3) | Exit::Unknown));
}

#[test]
fn one_in_the_background_belongs_to_nobody() {
    let Some(stage) = Stage::new("one_in_the_background_belongs_to_nobody") else { return };
    stage.say("cat /proc/self/cgroup; read word");
    let output = stage.command().arg("--detach").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let process = stage.directory.process().unwrap().unwrap();
    let keeper = stage.directory.keeper().unwrap().unwrap().identity;
    assert!(process.identity.is_running().unwrap() && keeper.is_running().unwrap());
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", keeper.pid)).unwrap();
    assert_eq!(of("comm"), "cairn-keeper\n");
    let groups = of("cgroup");
    let apart = format!("/{}-keepers", stage.prefix);
    for line in groups.lines().filter(|line| !line.contains(":cpuset:")) {
        assert!(line.ends_with(&apart), "{line}");
    }
    let stat = of("stat");
    let session: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, keeper.pid);
    // A second one is refused, and its starter hears so.
    assert_eq!(stage.command().arg("--detach").output().unwrap().status.code(), Some(75));
    until("the script has spoken", || stage.console().contains("0::").then_some(()));
    assert!(stage.console().contains(&format!("/{}-vms/one", stage.prefix)), "{}", stage.console());
    stage.enter(b"\n");
    let handle = PidFd::open(keeper.pid).unwrap();
    assert!(handle.is_none_or(|handle| handle.wait(Some(LIMIT)).unwrap()));
    assert_eq!(stage.ended().exit, Exit::Code(0));
}

#[test]
fn a_user_has_only_what_is_its_own_and_limits_bite() {
    let test = "a_user_has_only_what_is_its_own_and_limits_bite";
    if !rustix::process::geteuid().is_root() {
        return not_run(test, "only root can do this");
    }
    let Some(stage) = Stage::new(test) else { return };
    let mut order = stage.order("cat /proc/self/status; exec dd bs=300M count=1 if=/dev/zero of=/dev/null");
    order.user = Some(User { uid: 200_001, gid: 200_001 });
    order.limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(1000), tasks: Some(20) };
    stage.directory.write_order(&order).unwrap();
    assert_eq!(end_of(stage.start()), Some(0));
    let text = stage.console();
    for line in ["Uid:\t200001\t200001\t200001\t200001", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let fifo = stage.path("metrics").symlink_metadata().unwrap();
    assert_eq!((fifo.uid(), fifo.mode() & 0o777), (200_001, 0o600));
    let unlimited = stage.directory.process().unwrap().unwrap().unlimited;
    if !unlimited.is_empty() {
        return not_run(test, &format!("this host has no limits for {}", unlimited.join(", ")));
    }
    let exit = stage.ended().exit;
    assert_eq!(exit, Exit::Signal(9), "{text}");
}

#[test]
fn in_a_unit_the_process_has_a_group_below() {
    let Some(stage) = Stage::new("in_a_unit_the_process_has_a_group_below") else { return };
    stage.say("cat /proc/self/cgroup; sleep 600 & exit 0");
    let trees = host::Hierarchies::of_host().unwrap();
    let unit = format!("{}-vms/unit", stage.prefix);
    let (group, _) = trees.make(&unit, &host::GroupLimits::default()).unwrap();
    let argv = [crate::stage::PROGRAM.to_owned(), stage.directory.path().to_str().unwrap().to_owned()];
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let launch = host::Launch {
        argv: &argv,
        environment: &std::collections::BTreeMap::new(),
        directory: "/".as_ref(),
        user: None,
        network_namespace: None,
        open_files: None,
        input: std::os::fd::AsFd::as_fd(&null),
        output: std::os::fd::AsFd::as_fd(&null),
        error: std::os::fd::AsFd::as_fd(&null),
    };
    let held = launch.hold().unwrap();
    group.add(held.pid()).unwrap();
    let keeper = held.release().unwrap();
    assert!(keeper.wait(Some(LIMIT)).unwrap());
    assert_eq!(keeper.reap().unwrap(), Some(Exited::Code(0)), "it has not killed itself with the rest");
    let process = stage.directory.process().unwrap().unwrap();
    assert_eq!(process.control_groups.len(), 1);
    assert!(process.control_groups[0].ends_with(format!("{unit}/vm")), "{process:?}");
    assert!(stage.console().contains(&format!("/{unit}/vm\n")), "{}", stage.console());
    assert_eq!(stage.ended().exit, Exit::Code(0));
}
