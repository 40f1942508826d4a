use serde_json::json;

use super::*;
use crate::model::{Backend, State};

fn vm(id: &str, network: &serde_json::Value) -> Vm {
    let spec = json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}, "network": network});
    let now = Timestamp::from_second(100).unwrap();
    let vm = Vm::new(id.parse().unwrap(), "acme".parse().unwrap(), serde_json::from_value(spec).unwrap(), now);
    Vm { backend: Some(Backend::Qemu), ..vm }
}

fn candidate(id: &str, network: &serde_json::Value) -> Candidate {
    Candidate { vm: vm(id, network), key: None, most: 10, slots: 3, ports: 40_000..=40_001 }
}

async fn open() -> (tempfile::TempDir, VmStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("db"), MIGRATIONS).await.unwrap();
    (directory, VmStore::new(store))
}

fn admitted(admission: Admission) -> Vm {
    match admission {
        Admission::Admitted(vm) => *vm,
        other => panic!("{other:?}"),
    }
}

fn event(second: i64) -> NewEvent {
    NewEvent { time: Timestamp::from_second(second).unwrap(), kind: "state", message: "x".to_owned() }
}

#[tokio::test]
async fn what_is_written_is_read() {
    let (_directory, store) = open().await;
    let mut vm = admitted(store.admit(candidate("a", &json!([]))).await.unwrap());
    assert_eq!(store.all().await.unwrap(), [vm.clone()]);
    vm.state = State::Failed;
    vm.generation += 1;
    vm.failure = Some(crate::model::Failure {
        code: "vm_crashed".to_owned(),
        reason: "y".to_owned(),
        exit_code: Some(148),
        console_tail: "z".to_owned(),
    });
    vm.operation = None;
    vm.started_at = Some(Timestamp::from_microsecond(1_234_567).unwrap());
    let written = store.write(&vm, Some(&event(7))).await.unwrap().unwrap();
    assert_eq!((written.id, written.state.as_str()), (1, "FAILED"));
    assert_eq!(store.all().await.unwrap(), [vm.clone()]);
    // Who does not know the row as it is does not write it.
    assert!(matches!(store.write(&vm, None).await, Err(Error::Changed { .. })));
}

#[tokio::test]
async fn a_slot_rests_before_it_is_used_again() {
    let (_directory, store) = open().await;
    let mut vms = Vec::new();
    for (at, id) in ["a", "b", "c"].into_iter().enumerate() {
        vms.push(admitted(store.admit(candidate(id, &json!([]))).await.unwrap()));
        assert_eq!(vms[at].slot, Slot(u32::try_from(at).unwrap()));
    }
    assert!(matches!(store.admit(candidate("d", &json!([]))).await.unwrap(), Admission::NoSlot));
    store.remove(&vms[2], &event(10), true).await.unwrap();
    store.remove(&vms[0], &event(11), true).await.unwrap();
    assert_eq!(admitted(store.admit(candidate("d", &json!([]))).await.unwrap()).slot, Slot(2));
    assert_eq!(admitted(store.admit(candidate("e", &json!([]))).await.unwrap()).slot, Slot(0));
}

#[tokio::test]
async fn ids_limits_and_ports_are_refused_and_nothing_stays() {
    let (_directory, store) = open().await;
    let ports = json!([{"ports": [{"guest_port": 80}, {"host_port": 40000, "guest_port": 81}]}]);
    let first = admitted(store.admit(candidate("a", &ports)).await.unwrap());
    let taken: Vec<_> = first.mappings.iter().map(|mapping| (mapping.host_port, mapping.guest_port)).collect();
    assert_eq!(taken, [(40_000, 81), (40_001, 80)]);
    assert!(matches!(store.admit(candidate("a", &json!([]))).await.unwrap(), Admission::Exists));
    let named = json!([{"ports": [{"host_port": 40000, "guest_port": 1}]}]);
    assert!(matches!(store.admit(candidate("b", &named)).await.unwrap(), Admission::PortTaken(Protocol::Tcp, 40_000)));
    let any = json!([{"ports": [{"guest_port": 1}]}]);
    assert!(matches!(store.admit(candidate("b", &any)).await.unwrap(), Admission::NoPort));
    let udp = json!([{"ports": [{"host_port": 40000, "guest_port": 1, "protocol": "udp"}]}]);
    admitted(store.admit(candidate("b", &udp)).await.unwrap());
    let full = Candidate { most: 2, ..candidate("c", &json!([])) };
    assert!(matches!(store.admit(full).await.unwrap(), Admission::Full(2)));
    store.remove(&first, &event(1), true).await.unwrap();
    admitted(store.admit(candidate("c", &ports)).await.unwrap());
    assert_eq!(store.all().await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_key_makes_one_vm() {
    let (_directory, store) = open().await;
    let with = |id: &str, fingerprint: &str| Candidate {
        key: Some(("k".to_owned(), fingerprint.to_owned())),
        ..candidate(id, &json!([]))
    };
    let vm = admitted(store.admit(with("a", "f")).await.unwrap());
    assert!(matches!(store.admit(with("b", "f")).await.unwrap(), Admission::Before(id) if id == vm.id));
    assert!(matches!(store.admit(with("b", "g")).await.unwrap(), Admission::KeyUsed));
    // A creation that failed can be tried again; a VM that was deleted is not made again by its old request.
    store.remove(&vm, &event(1), false).await.unwrap();
    assert!(matches!(store.admit(with("b", "f")).await.unwrap(), Admission::Before(_)));
    store.prune(Timestamp::from_second(1000).unwrap()).await.unwrap();
    admitted(store.admit(with("b", "f")).await.unwrap());
}

#[tokio::test]
async fn events_are_numbered_and_bounded() {
    let (_directory, store) = open().await;
    let mut vm = admitted(store.admit(candidate("a", &json!([]))).await.unwrap());
    for at in 0..KEPT_EVENTS + 20 {
        vm.generation += 1;
        store.write(&vm, Some(&event(at))).await.unwrap();
    }
    let events = store.events(Some("acme"), Some("a"), 0, 1000).await.unwrap();
    assert_eq!(events.len(), usize::try_from(KEPT_EVENTS).unwrap());
    assert_eq!((events[0].id, events.last().unwrap().id), (21, KEPT_EVENTS + 20));
    assert!(store.events(Some("other"), None, 0, 10).await.unwrap().is_empty());
    assert_eq!(store.events(None, None, events[197].id, 10).await.unwrap().len(), 2);
}
