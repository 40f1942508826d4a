//! What only the fake does when it is told to.

use std::time::Duration;

use firecracker::{Error, Exit, Options, Step};
use testkit::guest_kernel::End;
use testkit::hypervisor::{Order, Pattern, fakes, order};

use crate::support::{Vm, deadline};

#[tokio::test]
async fn a_refused_call_has_its_step_and_path() {
    let vm = Vm::start(&fakes().unwrap()).await;
    let request = Pattern::of("PUT", "/boot-source");
    order(vm.client.socket(), &[Order::Refuse { request, fault: "not today".to_owned() }]).unwrap();
    let error = vm.config(End::Halt).apply(&vm.client).await.unwrap_err();
    assert_eq!(error.step(), Step::BootSource);
    assert_eq!(error.to_string(), "cannot set the kernel: /boot-source answered 400: not today");
}

#[tokio::test]
async fn a_process_that_ends_in_the_middle_has_its_code() {
    let mut vm = Vm::start(&fakes().unwrap()).await;
    // One request found it ready.
    order(vm.client.socket(), &[Order::Crash { code: 148, after: 3 }]).unwrap();
    let error = vm.config(End::Halt).apply(&vm.client).await;
    let error = match error {
        Err(error) => error,
        Ok(()) => vm.client.start().await.unwrap_err(),
    };
    assert!(matches!(error, Error::Lost { .. } | Error::Connect { .. }), "{error:?}");
    assert_eq!(vm.exit().await, Exit::BadSyscall);
}

#[tokio::test]
async fn a_slow_answer_is_no_answer_to_the_next_call() {
    let options = deadline(Duration::from_millis(300));
    let vm = Vm::start_in(&fakes().unwrap(), tempfile::tempdir().unwrap(), options).await;
    let request = Pattern::of("GET", "/version");
    order(vm.client.socket(), &[Order::Slow { request, milliseconds: 400 }]).unwrap();
    assert!(matches!(vm.client.version().await, Err(Error::Late { step: Step::Version, .. })));
    order(vm.client.socket(), &[]).unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(vm.client.info().await.unwrap().id, "anonymous-instance");
}

#[tokio::test]
async fn a_hung_process_takes_connections_and_answers_nothing() {
    let options = deadline(Duration::from_millis(100));
    let vm = Vm::start_in(&fakes().unwrap(), tempfile::tempdir().unwrap(), options).await;
    order(vm.client.socket(), &[Order::Hang { request: Pattern::of("PATCH", "/vm") }]).unwrap();
    vm.boot(End::Repeat).await;
    assert!(matches!(vm.client.pause().await, Err(Error::Late { step: Step::Pause, .. })));
    assert!(matches!(vm.client.info().await, Err(Error::Late { step: Step::Info, .. })));
    // The guest does not mind.
    vm.wait_lines(vm.lines()).await;
}

#[tokio::test]
async fn a_guest_that_obeys_ends_and_counters_can_be_made_up() {
    let mut vm = Vm::start_in(&fakes().unwrap(), tempfile::tempdir().unwrap(), Options::default()).await;
    let count = Order::Count { group: "net_eth0".to_owned(), name: "rx_bytes_count".to_owned(), number: 7 };
    order(vm.client.socket(), &[Order::ObeyCtrlAltDel, count]).unwrap();
    let mut config = vm.config(End::Halt);
    let metrics_path = vm.file("metrics");
    config.metrics = Some(firecracker::Metrics { metrics_path, properties: Default::default() });
    config.apply(&vm.client).await.unwrap();
    vm.client.start().await.unwrap();
    for _ in 0..2 {
        vm.client.flush_metrics().await.unwrap();
    }
    vm.client.send_ctrl_alt_del().await.unwrap();
    assert_eq!(vm.exit().await, Exit::Ok);
    let mut totals = firecracker::Totals::default();
    for line in std::fs::read_to_string(vm.file("metrics")).unwrap().lines() {
        totals.add_line(line).unwrap();
    }
    assert_eq!(totals.get("net_eth0", "rx_bytes_count"), 14);
}
