//! The daemon against a host that is played, and killed at every call that changes something.

use std::sync::Arc;
use std::time::Duration;

use cairn_core::SystemClock;
use observe::traces::Cause;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Happening;
use crate::adapters::fake::{FakeHost, Stop};
use crate::assets::{Assets, Defaults};
use crate::errors;
use crate::model::{AssetKind, Backend, Options, State, Vm, VmId};
use crate::plan::Kind;
use crate::ports::Exit;
use crate::service::{Caller, Error, Limits, Ports, Service, Wish};
use crate::store::{MIGRATIONS, VmStore};

/// Long enough for everything here, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    directory: tempfile::TempDir,
    host: FakeHost,
    sign_of_life: Duration,
    /// How often each operation was begun, and how it was over.
    told: Arc<std::sync::Mutex<Vec<String>>>,
}

/// One daemon over the world; dropped like a process that is killed.
struct Daemon {
    service: Arc<Service>,
    running: JoinHandle<Result<(), super::RunError>>,
    shutdown: CancellationToken,
    store: store::Store,
}

impl Daemon {
    async fn kill(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
        drop(self.service);
        self.store.close().await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        self.store.close().await;
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["vms", "assets", "consoles"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory, host: FakeHost::default(), sign_of_life: Duration::ZERO, told: Arc::default() }
    }

    async fn start(&self) -> Daemon {
        self.start_as("boot-1").await
    }

    async fn start_as(&self, boot_id: &str) -> Daemon {
        let at = |name: &str| self.directory.path().join(name);
        let store = store::Store::open(&at("db"), MIGRATIONS).await.unwrap();
        let rows = VmStore::new(store.clone());
        let clock = Arc::new(SystemClock);
        let defaults = Defaults { kernel: "kernel".parse().ok(), initrd: None, disk: "disk".parse().ok() };
        let assets = Assets::new(at("assets"), rows.clone(), defaults, clock.clone());
        for (name, kind) in [("kernel", AssetKind::Kernel), ("disk", AssetKind::Disk)] {
            let content = futures::stream::iter([Ok(bytes::Bytes::from(name.repeat(100)))]);
            assets.add(name.parse().unwrap(), kind, content).await.unwrap();
        }
        let limits = Limits {
            vms: at("vms"),
            consoles: at("consoles"),
            maintenance: at("maintenance"),
            most_vms: 4,
            subnets: vec!["203.0.114.0/24".parse().unwrap()],
            first_uid: 200_000,
            users: 6,
            ports: 40_000..=40_003,
            sign_of_life: self.sign_of_life,
            boot_id: boot_id.to_owned(),
        };
        let host = Arc::new(self.host.clone());
        let ports = Ports {
            keepers: host.clone(),
            edges: host.clone(),
            hypervisors: vec![host],
            chosen: watch::channel(Some(Ok(Backend::Qemu))).1,
            clock,
        };
        let told = Arc::clone(&self.told);
        let observe = Box::new(move |happening: &Happening<'_>| {
            let word = match happening {
                Happening::Begun { kind } => format!("{} begun", kind.as_str()),
                Happening::Over { kind, failure, .. } => {
                    format!("{} over: {}", kind.as_str(), failure.map_or("done", |failure| failure.code.as_str()))
                }
                _ => return,
            };
            told.lock().unwrap().push(word);
        });
        let service = Service::open(rows, assets, at("assets"), limits, ports, observe).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(super::run(Arc::clone(&service), shutdown.clone()));
        Daemon { service, running, shutdown, store }
    }
}

fn operator() -> Caller {
    Caller { who: "test".to_owned(), customer: None }
}

fn wish(id: &str, more: &serde_json::Value) -> Wish {
    let mut spec = json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    Wish {
        id: Some(id.parse().unwrap()),
        customer: None,
        spec: serde_json::from_value(spec).unwrap(),
        idempotency_key: None,
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

async fn operate(daemon: &Daemon, id: &VmId, kind: Kind, force: bool) -> Result<Arc<Vm>, Error> {
    let options = Options { force, timeout_seconds: Some(30) };
    within(daemon.service.operate(&operator(), id, kind, options)).await
}

fn id(text: &str) -> VmId {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_vm_lives_and_nothing_is_left_of_it() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    let vm = within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    assert_eq!((vm.state, vm.slot.0), (State::Created, 0));
    let disk = world.directory.path().join("vms/a/disks/disk0");
    assert_eq!(std::fs::read_to_string(&disk).unwrap(), "disk".repeat(100));
    let vm = operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    assert_eq!((vm.state, vm.backend), (State::Running, Some(Backend::Qemu)));
    assert!(matches!(operate(&daemon, &a, Kind::Boot, false).await, Err(Error::WrongState { .. })));
    assert_eq!(operate(&daemon, &a, Kind::Pause, false).await.unwrap().state, State::Paused);
    assert_eq!(operate(&daemon, &a, Kind::Pause, false).await.unwrap().state, State::Paused);
    assert_eq!(operate(&daemon, &a, Kind::Resume, false).await.unwrap().state, State::Running);
    assert_eq!(operate(&daemon, &a, Kind::Reboot, false).await.unwrap().state, State::Running);
    assert_eq!(world.host.starts(&a), 2);
    assert_eq!(operate(&daemon, &a, Kind::Stop, false).await.unwrap().state, State::Shutdown);
    assert_eq!(world.host.there(), (vec![], vec![], vec![a.clone()]));
    assert!(disk.exists(), "a disk stays while its VM does");
    assert_eq!(operate(&daemon, &a, Kind::Boot, false).await.unwrap().state, State::Running);
    operate(&daemon, &a, Kind::Delete, true).await.unwrap();
    assert!(matches!(daemon.service.get(&operator(), &a).await, Err(Error::NotFound(_))));
    assert_eq!(world.host.there(), (vec![], vec![], vec![]));
    assert!(!disk.exists());
    assert_eq!(daemon.service.strays().await.unwrap(), []);
    let events = daemon.service.events(&operator(), Some(&a), 0, 100).await.unwrap();
    let states: Vec<_> =
        events.iter().filter(|event| event.kind == "state").map(|event| event.state.as_str()).collect();
    assert_eq!(states, ["CREATED", "RUNNING", "PAUSED", "RUNNING", "RUNNING", "SHUTDOWN", "RUNNING"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_judged() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    let console = world.directory.path().join("consoles/a.log");
    for (exit, said, state, code) in [
        (Exit::Code(0), "bye\n", State::Shutdown, ""),
        (Exit::Code(0), "x\ncairn-init: exit 3\n", State::Failed, errors::VM_EXITED),
        (Exit::Code(0), "Kernel panic - not syncing: VFS\n", State::Failed, errors::VM_PANICKED),
        (Exit::Code(148), "bad system call\n", State::Failed, errors::VM_CRASHED),
        (Exit::Signal(11), "", State::Failed, errors::VM_CRASHED),
        (Exit::Unknown, "", State::Failed, errors::VM_LOST),
    ] {
        operate(&daemon, &a, Kind::Boot, false).await.unwrap();
        std::fs::write(&console, said).unwrap();
        world.host.end(&a, exit);
        let ends = [State::Shutdown, State::Failed];
        let vm = daemon.service.wait(&operator(), &a, &ends, PATIENCE).await.unwrap();
        let failure = vm.failure.clone();
        assert_eq!((vm.state, failure.as_ref().map_or("", |failure| &failure.code)), (state, code), "{exit:?}");
        if let Some(failure) = failure {
            assert_eq!(failure.console_tail, said);
            assert_eq!(failure.exit_code.is_none(), exit == Exit::Unknown);
        }
        assert_eq!(world.host.there(), (vec![], vec![], vec![a.clone()]));
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_boot_that_fails_leaves_nothing_and_can_be_tried_again() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    for call in ["network", "jail", "keeper", "start"] {
        world.host.refuse(call, 1);
        let refused = operate(&daemon, &a, Kind::Boot, false).await;
        assert!(matches!(&refused, Err(Error::Failed(failure)) if failure.reason.contains(call)), "{refused:?}");
        assert_eq!(daemon.service.get(&operator(), &a).await.unwrap().state, State::Failed);
        assert_eq!(world.host.there(), (vec![], vec![], vec![a.clone()]), "after {call}");
    }
    assert_eq!(operate(&daemon, &a, Kind::Boot, false).await.unwrap().state, State::Running);
    // What has to succeed is tried until it does.
    world.host.refuse("kill", 2);
    assert_eq!(operate(&daemon, &a, Kind::Stop, true).await.unwrap().state, State::Shutdown);
    // A creation that fails leaves no VM.
    world.host.refuse("network", 1);
    let refused = within(daemon.service.create(&operator(), wish("b", &json!({})))).await;
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
    assert!(matches!(daemon.service.get(&operator(), &id("b")).await, Err(Error::NotFound(_))));
    assert!(!world.directory.path().join("vms/b").exists());
    assert_eq!(daemon.service.strays().await.unwrap(), []);
    daemon.stop().await;
}

#[tokio::test]
async fn a_guest_that_does_not_obey_is_ended_by_force() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    world.host.deaf(true);
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    let options = Options { force: false, timeout_seconds: Some(1) };
    let vm = within(daemon.service.operate(&operator(), &a, Kind::Stop, options)).await.unwrap();
    assert!(vm.reason.contains("by force"), "{}", vm.reason);
    // Who is in a hurry cuts a long wait short.
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    let (service, b) = (Arc::clone(&daemon.service), a.clone());
    let patient = tokio::spawn(async move {
        service.operate(&operator(), &b, Kind::Stop, Options { force: false, timeout_seconds: Some(3600) }).await
    });
    within(daemon.service.wait(&operator(), &a, &[State::Stopping], PATIENCE)).await.unwrap();
    assert!(matches!(operate(&daemon, &a, Kind::Boot, false).await, Err(Error::Busy(_))));
    loop {
        // Until the step is reached in which haste helps.
        match operate(&daemon, &a, Kind::Stop, true).await {
            Ok(vm) => break assert_eq!(vm.state, State::Shutdown),
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(within(patient).await.unwrap().unwrap().state, State::Shutdown);
    daemon.stop().await;
}

#[tokio::test]
async fn guests_outlive_their_daemon_and_are_found_again() {
    let world = World::new();
    let daemon = world.start().await;
    for name in ["a", "b", "c"] {
        within(daemon.service.create(&operator(), wish(name, &json!({})))).await.unwrap();
        operate(&daemon, &id(name), Kind::Boot, false).await.unwrap();
    }
    operate(&daemon, &id("b"), Kind::Pause, false).await.unwrap();
    daemon.kill().await;
    world.host.end(&id("c"), Exit::Code(0));
    let daemon = world.start().await;
    for (name, state) in [("a", State::Running), ("b", State::Paused), ("c", State::Shutdown)] {
        within(daemon.service.wait(&operator(), &id(name), &[state], PATIENCE)).await.unwrap();
        assert_eq!(world.host.starts(&id(name)), 1);
    }
    operate(&daemon, &id("a"), Kind::Stop, false).await.unwrap();
    daemon.stop().await;
    // After a restart of the host nothing runs, and that is said.
    world.host.restart();
    let daemon = world.start_as("boot-2").await;
    let b = id("b");
    let vm = within(daemon.service.wait(&operator(), &b, &[State::Shutdown], PATIENCE)).await.unwrap();
    assert_eq!(vm.failure, None);
    assert_eq!(operate(&daemon, &b, Kind::Boot, false).await.unwrap().state, State::Running);
    daemon.stop().await;
}

#[tokio::test]
async fn a_host_that_has_troubles_at_first_costs_no_guest() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    daemon.kill().await;
    world.host.refuse("network", 3);
    let daemon = world.start().await;
    let adopted = within(async {
        loop {
            let events = daemon.service.events(&operator(), Some(&a), 0, 100).await.unwrap();
            match events.last().unwrap().kind.as_str() {
                "adopted" => break true,
                "operation" => break false,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    assert!(adopted.await && world.host.starts(&a) == 1);
    daemon.stop().await;
}

#[tokio::test]
async fn who_asks_for_a_vm_and_leaves_has_one_all_the_same() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    let wished = wish("a", &json!({}));
    let caller = operator();
    // Dropped at whichever point it waits: either nothing was written, or the VM has its owner.
    for waits in 0..40 {
        let mut creating = Box::pin(daemon.service.create(&caller, wished.clone()));
        for _ in 0..waits {
            if futures::poll!(creating.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(creating);
    }
    within(daemon.service.wait(&operator(), &a, &[State::Created], PATIENCE)).await.unwrap();
    let rows = VmStore::new(daemon.store.clone()).all().await.unwrap();
    assert_eq!((rows.len(), daemon.service.vms.all().len()), (1, 1));
    daemon.stop().await;
}

#[tokio::test]
async fn a_disk_that_was_copied_is_not_needed_any_more() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    let own = json!({"storage": [{"path": "disk"}]});
    within(daemon.service.create(&operator(), wish("a", &own))).await.unwrap();
    daemon.service.remove_asset(&"disk".parse().unwrap()).await.unwrap();
    daemon.service.collect_assets(false).await.unwrap();
    assert_eq!(operate(&daemon, &a, Kind::Boot, false).await.unwrap().state, State::Running);
    daemon.stop().await;
}

#[tokio::test]
async fn a_reboot_that_a_guest_ignores_can_be_ended() {
    let world = World::new();
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    world.host.deaf(true);
    let (service, b) = (Arc::clone(&daemon.service), a.clone());
    let patient = tokio::spawn(async move {
        let options = Options { force: false, timeout_seconds: Some(u32::MAX) };
        service.operate(&operator(), &b, Kind::Reboot, options).await
    });
    within(daemon.service.wait(&operator(), &a, &[State::Stopping], PATIENCE)).await.unwrap();
    loop {
        match operate(&daemon, &a, Kind::Delete, true).await {
            Ok(_) => break,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(within(patient).await.unwrap(), Err(Error::Busy(_))));
    assert_eq!(world.host.there(), (vec![], vec![], vec![]));
    let told = world.told.lock().unwrap().clone();
    assert_eq!(told[told.len() - 4..], ["reboot begun", "reboot over: vm_busy", "delete begun", "delete over: done"]);
    daemon.stop().await;
}

#[tokio::test]
async fn an_id_that_is_used_again_is_not_struck_with_the_vm_before() {
    let world = World::new();
    let daemon = world.start().await;
    let vm = within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    let vms = super::Vms::default();
    let before = vms.enlist((*vm).clone(), None, Cause::default()).vm.subscribe();
    let after = vms.enlist((*vm).clone(), None, Cause::default());
    vms.remove(&vm.id, &before);
    assert_eq!(vms.all().len(), 1);
    vms.remove(&vm.id, &after.vm.subscribe());
    assert!(vms.all().is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn no_vm_runs_as_a_user_beyond_those_that_are_vms_own() {
    let world = World::new();
    let daemon = world.start().await;
    let mut slots = Vec::new();
    for _ in 0..8 {
        slots.push(within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap().slot.0);
        operate(&daemon, &id("a"), Kind::Delete, true).await.unwrap();
    }
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 0, 1]);
    daemon.stop().await;
}

#[tokio::test]
async fn restart_policies_have_a_say() {
    let world = World::new();
    let daemon = world.start().await;
    let failing = wish("a", &json!({"restart_policy": "on_failure"}));
    let always = wish("b", &json!({"restart_policy": "always"}));
    for wish in [failing, always] {
        let name = wish.id.clone().unwrap();
        within(daemon.service.create(&operator(), wish)).await.unwrap();
        operate(&daemon, &name, Kind::Boot, false).await.unwrap();
    }
    let (a, b) = (id("a"), id("b"));
    world.host.end(&a, Exit::Code(1));
    world.host.end(&b, Exit::Code(0));
    for name in [&a, &b] {
        let mut watched = daemon.service.vms.get(name).unwrap().vm;
        let again = within(watched.wait_for(|vm| vm.restarts == 1 && vm.state == State::Running)).await;
        drop(again.unwrap());
        assert_eq!(world.host.starts(name), 2);
    }
    // A boot that fails by itself is tried again, later each time: an earlier run that was long forgives it nothing.
    world.host.refuse("jail", 1);
    world.host.end(&a, Exit::Code(1));
    let mut watched = daemon.service.vms.get(&a).unwrap().vm;
    let failed = within(watched.wait_for(|vm| vm.restarts == 2 && vm.state == State::Failed)).await.unwrap().started_at;
    assert_eq!(failed, None);
    drop(within(watched.wait_for(|vm| vm.restarts == 3 && vm.state == State::Running)).await.unwrap());
    // An end that is no failure, and one that a user asked for, are left as they are.
    world.host.end(&a, Exit::Code(0));
    within(daemon.service.wait(&operator(), &a, &[State::Shutdown], PATIENCE)).await.unwrap();
    let vm = operate(&daemon, &b, Kind::Stop, false).await.unwrap();
    assert!(!vm.unattended);
    daemon.stop().await;
    // The host is restarted: what ran and always should is booted again, what was stopped is not.
    let daemon = world.start().await;
    operate(&daemon, &b, Kind::Boot, false).await.unwrap();
    daemon.kill().await;
    world.host.restart();
    let daemon = world.start_as("boot-2").await;
    let mut watched = daemon.service.vms.get(&b).unwrap().vm;
    drop(within(watched.wait_for(|vm| vm.boot_id.as_deref() == Some("boot-2"))).await.unwrap());
    assert_eq!(daemon.service.get(&operator(), &a).await.unwrap().state, State::Shutdown);
    daemon.stop().await;
}

#[tokio::test]
async fn a_guest_that_never_says_a_word_has_failed() {
    let world = World { sign_of_life: Duration::from_millis(100), ..World::new() };
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    let vm = within(daemon.service.wait(&operator(), &a, &[State::Failed], PATIENCE)).await.unwrap();
    assert_eq!(vm.failure.as_ref().map(|failure| failure.code.as_str()), Some(errors::VM_SILENT));
    assert_eq!(world.host.there(), (vec![], vec![], vec![a]));
    daemon.stop().await;
}

#[tokio::test]
async fn a_guest_that_stood_still_has_its_time_from_then_on() {
    let world = World { sign_of_life: Duration::from_millis(500), ..World::new() };
    let daemon = world.start().await;
    let a = id("a");
    within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
    operate(&daemon, &a, Kind::Boot, false).await.unwrap();
    // It may have been too late for that.
    if operate(&daemon, &a, Kind::Pause, false).await.is_ok() {
        tokio::time::sleep(world.sign_of_life).await;
        let resumed = operate(&daemon, &a, Kind::Resume, false).await.unwrap();
        let failed = within(daemon.service.wait(&operator(), &a, &[State::Failed], PATIENCE)).await.unwrap();
        let had = Duration::try_from(failed.updated_at.duration_since(resumed.updated_at)).unwrap();
        assert!(had >= world.sign_of_life, "{had:?}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn maintenance_limits_and_other_peoples_vms() {
    let world = World::new();
    let daemon = world.start().await;
    let service = &daemon.service;
    let caller = |name: &str| Caller { who: name.to_owned(), customer: Some(name.parse().unwrap()) };
    within(service.create(&caller("one"), wish("a", &json!({})))).await.unwrap();
    let a = id("a");
    assert!(matches!(service.get(&caller("two"), &a).await, Err(Error::NotFound(_))));
    let refused = service.operate(&caller("two"), &a, Kind::Boot, Options::default()).await;
    assert!(matches!(refused, Err(Error::NotFound(_))));
    assert_eq!(service.list(&caller("two"), &crate::Filter::default()).await.unwrap().1, 0);
    assert!(service.events(&caller("two"), Some(&a), 0, 10).await.unwrap().is_empty());
    let foreign = Wish { customer: "one".parse().ok(), ..wish("b", &json!({})) };
    assert!(matches!(service.create(&caller("two"), foreign).await, Err(Error::OtherCustomer(_))));
    assert!(matches!(service.create(&caller("two"), wish("a", &json!({}))).await, Err(Error::Exists(_))));
    // Nor does a customer open a way to them, or to the metadata of the host's cloud.
    for to in ["10.100.0.2/32", "203.0.114.2/32", "169.254.169.254/32"] {
        let nosy = wish("b", &json!({"network": [{"egress": [{"to": to}]}]}));
        let refused = service.create(&caller("two"), nosy).await;
        assert!(
            matches!(&refused, Err(Error::Invalid(wrong)) if wrong[0].path == "/network/0/egress/0/to"),
            "{refused:?}"
        );
    }
    service.set_maintenance(true).await.unwrap();
    assert!(matches!(service.create(&operator(), wish("b", &json!({}))).await, Err(Error::Maintenance)));
    assert!(matches!(operate(&daemon, &a, Kind::Boot, false).await, Err(Error::Maintenance)));
    daemon.stop().await;
    let daemon = world.start().await;
    assert!(daemon.service.maintenance(), "it survives a restart");
    daemon.service.set_maintenance(false).await.unwrap();
    for name in ["b", "c", "d"] {
        within(daemon.service.create(&operator(), wish(name, &json!({})))).await.unwrap();
    }
    assert!(matches!(daemon.service.create(&operator(), wish("e", &json!({}))).await, Err(Error::Limit(4))));
    let missing = wish("f", &json!({"boot": {"kernel_path": "other"}}));
    let error = daemon.service.create(&operator(), missing).await.unwrap_err();
    assert_eq!(serde_json::to_value(error.problem()).unwrap()["code"], errors::ASSET_MISSING);
    let none = Error::from(crate::assets::AssetError::NoDefault { kind: AssetKind::Kernel }).problem();
    let hint = none.hint.unwrap();
    assert!(
        hint.contains("cairn vm asset add NAME FILE --kind kernel") && hint.contains("UNKEY_METALD_DEFAULT_KERNEL")
    );
    // The command is one that there is (`cairn vm maintenance on|off|show`).
    assert!(Error::Maintenance.problem().hint.unwrap().contains("cairn vm maintenance off"));
    daemon.stop().await;
}

/// Does one operation, from a VM in a state; the daemon is killed at each call that changes something, before it and
/// after it. The next daemon comes to the same end as one that was never killed, or to that of a step that was given up.
async fn killed_everywhere(kind: Kind, booted: bool, ends: &[Option<State>]) {
    for after in [false, true] {
        for at in 0.. {
            assert!(at < 40, "{kind:?} has no end");
            let world = World::new();
            let daemon = world.start().await;
            let a = id("a");
            if kind != Kind::Create {
                within(daemon.service.create(&operator(), wish("a", &json!({})))).await.unwrap();
            }
            if booted {
                operate(&daemon, &a, Kind::Boot, false).await.unwrap();
            }
            let starts = world.host.starts(&a);
            world.host.stop_at(Some(if after { Stop::After(at) } else { Stop::Before(at) }));
            let (service, b) = (Arc::clone(&daemon.service), a.clone());
            let asked = tokio::spawn(async move {
                let options = Options { force: false, timeout_seconds: Some(30) };
                match kind {
                    Kind::Create => service.create(&operator(), wish("a", &json!({}))).await.map(drop),
                    kind => service.operate(&operator(), &b, kind, options).await.map(drop),
                }
            });
            // Either the call is reached at which everything stops, or all of it is done.
            let reached = within(async {
                loop {
                    if asked.is_finished() {
                        break false;
                    }
                    if world.host.changes() > at {
                        break true;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await;
            asked.abort();
            drop(asked.await);
            daemon.kill().await;
            if !reached {
                break;
            }
            world.host.stop_at(None);
            let daemon = world.start().await;
            let settled = within(async {
                loop {
                    match daemon.service.vms.get(&a).map(|handle| Arc::clone(&handle.vm.borrow())) {
                        Some(vm) if vm.operation.is_none() => break Some(vm.state),
                        Some(_) => tokio::task::yield_now().await,
                        None => break None,
                    }
                }
            })
            .await;
            let place = format!(
                "{kind:?} killed {} call {at}: {:?}",
                if after { "after" } else { "before" },
                world.host.calls()
            );
            assert!(ends.contains(&settled), "{settled:?}, {place}");
            let (running, jails, networks) = world.host.there();
            let lives = matches!(settled, Some(State::Running | State::Paused));
            assert_eq!((running.len(), jails.len()), (usize::from(lives), usize::from(lives)), "{place}");
            assert_eq!(networks.len(), usize::from(settled.is_some()), "{place}");
            assert_eq!(world.directory.path().join("vms/a").exists(), settled.is_some(), "{place}");
            assert_eq!(daemon.service.strays().await.unwrap(), [], "{place}");
            let begun = world.host.starts(&a) - starts;
            assert!(begun <= u32::from(matches!(kind, Kind::Boot | Kind::Reboot)), "{begun} processes, {place}");
            daemon.kill().await;
        }
    }
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_creation_finishes_it() {
    killed_everywhere(Kind::Create, false, &[Some(State::Created)]).await;
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_boot_finishes_it() {
    killed_everywhere(Kind::Boot, false, &[Some(State::Running)]).await;
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_stop_finishes_it() {
    killed_everywhere(Kind::Stop, true, &[Some(State::Shutdown)]).await;
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_reboot_finishes_it() {
    killed_everywhere(Kind::Reboot, true, &[Some(State::Running)]).await;
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_pause_finishes_it() {
    killed_everywhere(Kind::Pause, true, &[Some(State::Paused)]).await;
}

#[tokio::test]
async fn a_daemon_killed_anywhere_in_a_deletion_finishes_it() {
    killed_everywhere(Kind::Delete, true, &[None]).await;
}
