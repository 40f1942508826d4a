//! Real keepers, in the background and as units of systemd, with shell scripts for hypervisors.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use host::{Hierarchies, PidFd, Signal};
use keeper::{Directory, Limits, Order};
use vm::adapters::keepers::{HostKeepers, Settings};
use vm::model::VmId;
use vm::ports::{Exit, Keepers, Kept};

/// Only reached when something is wrong.
const LIMIT: Duration = Duration::from_secs(60);

/// How keepers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Background,
    Units,
}

struct Host {
    how: How,
    place: tempfile::TempDir,
    settings: Settings,
    keepers: HostKeepers,
    id: VmId,
}

impl Host {
    /// Nothing, with a word about it, where keepers cannot work.
    fn new(test: &str, how: How) -> Option<Self> {
        let not_run = |reason: &str| drop(writeln!(std::io::stderr(), "NOT RUN: {test}: {reason}"));
        let own = std::env::current_exe().unwrap();
        let program: PathBuf = own.parent().unwrap().parent().unwrap().join("cairn-keeper");
        if !program.exists() {
            not_run(&format!("{} is missing: cargo build -p cairn-keeper", program.display()));
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let name = place.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let prefix = format!("cairn-test-{name}");
        if let Err(error) =
            Hierarchies::of_host().unwrap().make(&format!("{prefix}-vms"), &host::GroupLimits::default())
        {
            not_run(&cairn_core::chain(&error));
            return None;
        }
        let settings = Settings { directory: place.path().join("keepers"), program, prefix };
        if how == How::Units {
            if !std::path::Path::new("/run/systemd/system").is_dir() {
                not_run("systemd is not the first process here");
                return None;
            }
            std::fs::write(unit(&settings), unit_text(&settings)).unwrap();
            systemctl(&["daemon-reload"]);
        }
        let keepers = HostKeepers::open(&settings).unwrap();
        Some(Self { how, place, settings, keepers, id: "one".parse().unwrap() })
    }

    fn order(&self, script: &str) -> Order {
        let place = self.place.path().to_str().unwrap();
        Order {
            name: self.id.to_string(),
            argv: ["/bin/sh", "-c", script, "hypervisor", place].map(str::to_owned).into(),
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            directory: "/".into(),
            user: None,
            network_namespace: None,
            limits: Limits::default(),
            open_files: None,
            console: self.place.path().join("console"),
            console_limit: 1 << 20,
            metrics: None,
            metrics_owner: None,
        }
    }

    async fn start(&self, script: &str) {
        self.keepers.start(&self.id, &self.order(script)).await.unwrap();
    }

    async fn look(&self) -> Kept {
        self.keepers.look(&self.id).await.unwrap()
    }

    async fn ended(&self) -> Exit {
        tokio::time::timeout(LIMIT, self.keepers.ended(&self.id)).await.unwrap().unwrap()
    }

    fn directory(&self) -> Directory {
        Directory::new(self.settings.directory.join(self.id.as_str()))
    }

    /// Kills the keeper, unless it has come to its end.
    fn kill_keeper(&self) {
        let Ok(Some(keeper)) = self.directory().keeper() else { return };
        let keeper = keeper.identity;
        let handle = PidFd::open(keeper.pid).unwrap();
        if let Some(handle) = handle.filter(|_| keeper.is_running().unwrap()) {
            handle.signal(Signal::KILL).unwrap();
            assert!(handle.wait(Some(LIMIT)).unwrap());
        }
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.place.path().join("console")).unwrap_or_default()
    }

    async fn console_has(&self, text: &str) {
        let has = async {
            while !self.console().contains(text) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LIMIT, has).await.unwrap_or_else(|_| panic!("{:?} has no {text:?}", self.console()));
    }

    fn starts(&self) -> usize {
        std::fs::read_to_string(self.place.path().join("starts")).unwrap_or_default().lines().count()
    }
}

/// A unit for this test alone, gone with the next start of the host.
fn unit(settings: &Settings) -> PathBuf {
    format!("/run/systemd/system/{}-vm@.service", settings.prefix).into()
}

/// What of deploy/metald/metald-vm@.service a keeper depends on.
fn unit_text(settings: &Settings) -> String {
    format!(
        "[Unit]\nCollectMode=inactive-or-failed\nStartLimitIntervalSec=60\nStartLimitBurst=10\n[Service]\nType=exec\n\
         ExecStart={} {}/%i\nRestart=on-failure\nRestartPreventExitStatus=75\nRestartSec=1\nKillMode=process\n\
         Delegate=yes\nOOMPolicy=continue\n",
        settings.program.display(),
        settings.directory.display()
    )
}

fn systemctl(words: &[&str]) {
    let status = std::process::Command::new("systemctl").args(words).status().unwrap();
    assert!(status.success() || words[0] != "daemon-reload", "{words:?}: {status}");
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.how == How::Units {
            if std::thread::panicking() {
                systemctl(&["kill", "-s", "KILL", &format!("{}-vm@{}.service", self.settings.prefix, self.id)]);
            }
            std::fs::remove_file(unit(&self.settings)).unwrap();
            let properties = format!("/run/systemd/system.control/{}-vm@{}.service.d", self.settings.prefix, self.id);
            let _ = std::fs::remove_dir_all(properties);
            systemctl(&["daemon-reload"]);
        }
        let trees = Hierarchies::of_host().unwrap();
        for group in [
            trees.group(&format!("{}-vms", self.settings.prefix)),
            trees.apart(&format!("{}-keepers", self.settings.prefix)),
        ] {
            let group = group.unwrap();
            let _ = group.kill(LIMIT);
            let _ = group.remove();
        }
    }
}

/// A keeper that cannot write down what it has begun, for the disk is full, leaves a control group that nobody knows.
#[tokio::test]
async fn a_control_group_that_nobody_wrote_down_is_removed() {
    let Some(host) = Host::new("a_control_group_that_nobody_wrote_down_is_removed", How::Background) else { return };
    std::fs::create_dir_all(host.directory().path()).unwrap();
    host.directory().write_order(&host.order("exit 0")).unwrap();
    let name = format!("{}-vms/{}", host.settings.prefix, host.id);
    let (group, _) = Hierarchies::of_host().unwrap().make(&name, &host::GroupLimits::default()).unwrap();
    assert_eq!(host.look().await, Kept::Nothing);
    assert!(group.directories().iter().all(|directory| !directory.exists()));
    assert_eq!(host.keepers.strays(&[]).await.unwrap(), []);
}

async fn a_process_is_started_once_watched_and_forgotten(how: How) {
    let Some(host) = Host::new("a_process_is_started_once_watched_and_forgotten", how) else { return };
    assert_eq!(host.look().await, Kept::Nothing);
    assert_eq!(host.ended().await, Exit::Unknown);
    let script = "echo x >>$1/starts; echo ready; read word; echo $word; exit 5";
    host.start(script).await;
    host.start(script).await;
    host.console_has("ready").await;
    assert!(matches!(host.look().await, Kept::Running { .. }));
    assert!(host.keepers.forget(&host.id).await.is_err(), "it runs");
    host.keepers.type_in(&host.id, b"typed\n").await.unwrap();
    assert_eq!(host.ended().await, Exit::Code(5));
    assert_eq!(host.look().await, Kept::Ended(Exit::Code(5)));
    assert_eq!((host.console().as_str(), host.starts()), ("ready\ntyped\n", 1));
    host.start(script).await;
    assert_eq!(host.starts(), 1, "it has ended, and is not forgotten");
    assert!(host.keepers.type_in(&host.id, b"x").await.is_err());
    host.keepers.kill(&host.id).await.unwrap();
    host.keepers.forget(&host.id).await.unwrap();
    host.keepers.forget(&host.id).await.unwrap();
    assert_eq!(host.look().await, Kept::Nothing);
    assert_eq!(host.keepers.strays(&[]).await.unwrap(), []);
    assert_eq!(std::fs::read_dir(&host.settings.directory).unwrap().count(), 0);
    assert!(host.console().contains("typed"), "the console stays");
}

async fn what_is_killed_is_gone_with_all_it_began(how: How) {
    let Some(host) = Host::new("what_is_killed_is_gone_with_all_it_began", how) else { return };
    host.start("trap '' TERM; setsid sleep 600 & echo child $!; read word").await;
    host.console_has("child ").await;
    let child = host.console().trim().rsplit_once(' ').unwrap().1.parse().unwrap();
    let child = PidFd::open(child).unwrap().unwrap();
    host.keepers.kill(&host.id).await.unwrap();
    assert!(child.has_ended().unwrap());
    assert_eq!(host.ended().await, Exit::Signal(9));
    host.keepers.forget(&host.id).await.unwrap();
}

async fn what_cannot_begin_is_an_error_and_is_forgotten(how: How) {
    let Some(host) = Host::new("what_cannot_begin_is_an_error_and_is_forgotten", how) else { return };
    let mut order = host.order("");
    order.argv = vec!["/no/such/hypervisor".to_owned()];
    let error = host.keepers.start(&host.id, &order).await.unwrap_err();
    assert_eq!(error.code, vm::errors::VM_KEEPER);
    assert!(error.reason.starts_with("cannot execute /no/such/hypervisor"), "{error}");
    assert_eq!(host.look().await, Kept::Ended(Exit::Code(126)));
    host.keepers.forget(&host.id).await.unwrap();
    host.start("exit 0").await;
    assert_eq!(host.ended().await, Exit::Code(0));
}

async fn a_keeper_that_is_killed_is_replaced_while_its_guest_lives(how: How) {
    let Some(host) = Host::new("a_keeper_that_is_killed_is_replaced_while_its_guest_lives", how) else { return };
    host.start("echo x >>$1/starts; while read word; do echo $word; done").await;
    let Kept::Running { pid } = host.look().await else { panic!("it runs") };
    // Once by who waits, once by who looks.
    let waiting = async { tokio::time::timeout(LIMIT, host.keepers.ended(&host.id)).await.unwrap().unwrap() };
    let killing = async {
        host.kill_keeper();
        host.keepers.type_in(&host.id, b"one\n").await.unwrap();
        host.console_has("one\n").await;
    };
    tokio::select! {
        exit = waiting => panic!("{exit:?}"),
        () = killing => {}
    }
    host.kill_keeper();
    assert_eq!(host.look().await, Kept::Running { pid });
    // A daemon that was restarted.
    let keepers = HostKeepers::open(&host.settings).unwrap();
    assert_eq!(keepers.look(&host.id).await.unwrap(), Kept::Running { pid });
    keepers.type_in(&host.id, b"two\n").await.unwrap();
    host.console_has("two\n").await;
    // Keeper and guest at once: how it ended is known where the kernel says so, and otherwise said to be unknown.
    host.kill_keeper();
    PidFd::open(pid).unwrap().unwrap().signal(Signal::KILL).unwrap();
    assert!(matches!(host.ended().await, Exit::Signal(9) | Exit::Unknown));
    assert_eq!(host.starts(), 1);
}

async fn starts_and_kills_at_random_never_make_two(how: How) {
    let Some(host) = Host::new("starts_and_kills_at_random_never_make_two", how) else { return };
    let script = "echo x >>$1/starts; n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo $n; done; read word; exit 4";
    for round in 0..12u64 {
        let _ = std::fs::remove_file(host.place.path().join("starts"));
        let _ = std::fs::remove_file(host.place.path().join("console"));
        // A daemon that takes another's place, and somebody who kills keepers.
        let order = host.order(script);
        let others = HostKeepers::open(&host.settings).unwrap();
        let killing = async {
            for step in 0..10 {
                tokio::time::sleep(Duration::from_millis((round * 7 + step * 3) % 23)).await;
                host.kill_keeper();
            }
        };
        let (one, other, ()) =
            tokio::join!(host.keepers.start(&host.id, &order), others.start(&host.id, &order), killing);
        assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
        // Held as by a daemon that waits already: what the guest wrote would go with it should it end while no keeper is there.
        let _output = keeper::open_fifo(&host.directory().output(), false).ok();
        let feeding = async {
            while host.keepers.type_in(&host.id, b"word\n").await.is_err() {
                if host.directory().ended().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let (exit, ()) = tokio::join!(host.ended(), feeding);
        assert!(host.starts() <= 1, "{} processes", host.starts());
        assert!(matches!(exit, Exit::Code(4 | 126) | Exit::Unknown), "{exit:?}");
        if exit == Exit::Code(4) {
            let numbers: Vec<u32> = host.console().lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(numbers, (1..=2000).collect::<Vec<_>>());
        }
        host.keepers.forget(&host.id).await.unwrap();
        assert_eq!(host.look().await, Kept::Nothing);
    }
}

async fn what_belongs_to_nobody_is_found_and_removed(how: How) {
    let Some(host) = Host::new("what_belongs_to_nobody_is_found_and_removed", how) else { return };
    host.start("read word").await;
    let (trees, prefix) = (Hierarchies::of_host().unwrap(), &host.settings.prefix);
    trees.make(&format!("{prefix}-vms/lost"), &host::GroupLimits::default()).unwrap();
    assert_eq!(host.keepers.strays(&[host.id.clone(), "lost".parse().unwrap()]).await.unwrap(), []);
    let strays = host.keepers.strays(&[]).await.unwrap();
    let kinds: Vec<_> = strays.iter().map(|stray| stray.kind.as_str()).collect();
    match how {
        How::Background => assert_eq!(kinds, ["process", "directory", "cgroup", "cgroup"]),
        How::Units => assert_eq!(kinds, ["process", "directory"]),
    }
    for stray in &strays {
        host.keepers.remove_stray(stray).await.unwrap();
    }
    assert_eq!(host.keepers.strays(&[]).await.unwrap(), []);
    assert_eq!(host.look().await, Kept::Nothing);
}

async fn limits_bite(how: How) {
    let Some(host) = Host::new("limits_bite", how) else { return };
    let limits = Limits { memory_bytes: Some(24 << 20), cpu_millis: Some(900), tasks: Some(50) };
    let wanted = host::GroupLimits { memory_bytes: Some(24 << 20), ..host::GroupLimits::default() };
    let probe = format!("{}-vms/probe", host.settings.prefix);
    let (_, refused) = Hierarchies::of_host().unwrap().make(&probe, &wanted).unwrap();
    if !refused.is_empty() {
        let _ = writeln!(std::io::stderr(), "NOT RUN: limits_bite: this host cannot limit {}", refused.join(", "));
        return;
    }
    let mut order = host.order("head -c 300M /dev/zero | tail -c 250M >/dev/null; exit $?");
    order.limits = limits;
    host.keepers.start(&host.id, &order).await.unwrap();
    let exit = host.ended().await;
    assert!(matches!(exit, Exit::Code(137) | Exit::Signal(9)), "{exit:?}: {}", host.console());
    host.keepers.forget(&host.id).await.unwrap();
}

macro_rules! both_ways {
    ($($behaviour:ident),* $(,)?) => {
        mod in_the_background {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::How::Background).await; })*
        }
        mod as_units {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::How::Units).await; })*
        }
    };
}

both_ways!(
    limits_bite,
    a_process_is_started_once_watched_and_forgotten,
    what_is_killed_is_gone_with_all_it_began,
    what_cannot_begin_is_an_error_and_is_forgotten,
    a_keeper_that_is_killed_is_replaced_while_its_guest_lives,
    starts_and_kills_at_random_never_make_two,
    what_belongs_to_nobody_is_found_and_removed,
);
