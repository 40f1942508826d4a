//! The connection: how many there can be, what becomes of it, how long a call takes.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use firecracker::{Client, Error, Options, State};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::support::{PATIENCE, Vm, deadline, programs, spawn};

#[tokio::test]
async fn an_eleventh_connection_is_told_so() {
    for programs in programs("an_eleventh_connection_is_told_so") {
        let vm = Vm::start(&programs).await;
        // With the client's own these are ten.
        let mut others: Vec<_> = (0..9).map(|_| UnixStream::connect(vm.client.socket()).unwrap()).collect();
        vm.client.info().await.unwrap();
        for _ in 0..20 {
            let late = Client::new(vm.client.socket(), Options::default());
            let error = late.info().await.unwrap_err();
            assert!(matches!(error, Error::TooManyConnections { .. }), "{error:?}");
        }
        vm.client.info().await.unwrap();
        others.pop();
        let late = Client::new(vm.client.socket(), Options::default());
        let wait = async {
            while late.info().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_sent() {
    for programs in programs("a_body_that_is_too_large_is_not_sent") {
        let vm = Vm::start(&programs).await;
        let fits = json!({ "a": "b".repeat(51_200 - 8) });
        vm.client.put_metadata(&fits).await.unwrap();
        let large = vm.client.put_metadata(&json!({ "a": "b".repeat(51_200 - 7) })).await;
        assert!(matches!(large, Err(Error::TooLarge { size: 51_201, limit: 51_200, .. })), "{large:?}");
        assert_eq!(vm.client.metadata().await.unwrap(), fits);

        // A client that believes in a larger limit is refused, and its connection is of no more use to anybody.
        let options = Options { payload_limit: 1 << 20, ..Options::default() };
        let other = Client::new(vm.client.socket(), options);
        let refused = other.put_metadata(&json!({ "a": "b".repeat(60_000) })).await;
        assert!(matches!(refused, Err(Error::Refused { .. } | Error::Lost { .. })), "{refused:?}");
        assert_eq!(vm.client.metadata().await.unwrap(), fits);
    }
}

#[tokio::test]
async fn a_process_that_came_back_is_found_again() {
    for programs in programs("a_process_that_came_back_is_found_again") {
        let mut vm = Vm::start(&programs).await;
        vm.client.put_metadata(&json!({ "first": true })).await.unwrap();
        kill_process(vm.pid(), Signal::KILL).unwrap();
        vm.exit().await;
        assert!(vm.client.metadata().await.is_err());
        std::fs::remove_file(vm.client.socket()).unwrap();
        let _second = spawn(&programs, vm.directory.path(), &["--api-sock", "api.sock"]);
        assert_eq!(vm.client.wait_ready(PATIENCE).await.unwrap().state, State::NotStarted);
        assert_eq!(vm.client.metadata().await.unwrap(), json!({}));
    }
}

#[tokio::test]
async fn a_process_that_stands_still_is_given_up_after_the_deadline() {
    for programs in programs("a_process_that_stands_still_is_given_up_after_the_deadline") {
        let options = deadline(Duration::from_millis(200));
        let vm = Vm::start_in(&programs, tempfile::tempdir().unwrap(), options).await;
        kill_process(vm.pid(), Signal::STOP).unwrap();
        let (first, second) = tokio::join!(vm.client.info(), vm.client.version());
        let error = first.unwrap_err();
        assert!(matches!(error, Error::Late { .. }) && error.is_uncertain(), "{error:?}");
        let error = second.unwrap_err();
        assert!(matches!(error, Error::Busy { .. } | Error::Late { .. }), "{error:?}");
        kill_process(vm.pid(), Signal::CONT).unwrap();
        // The answers to the first two are on their way now, and belong to nobody.
        let patient = Client::new(vm.client.socket(), Options::default());
        patient.put_metadata(&json!({ "a": 1 })).await.unwrap();
        assert_eq!(vm.client.metadata().await.unwrap(), json!({ "a": 1 }));
    }
}

#[tokio::test]
async fn calls_of_several_tasks_do_not_mix() {
    for programs in programs("calls_of_several_tasks_do_not_mix") {
        let vm = Vm::start(&programs).await;
        vm.client.put_metadata(&json!({ "a": 1 })).await.unwrap();
        for round in 0..50 {
            let (info, version, metadata) = tokio::join!(vm.client.info(), vm.client.version(), vm.client.metadata());
            assert_eq!(info.unwrap().vmm_version, version.unwrap().to_string());
            assert_eq!(metadata.unwrap(), json!({ "a": 1 }));
            if round % 10 == 0 {
                // A call that is dropped on its way leaves no answer to the next one.
                let _ = tokio::time::timeout(Duration::from_micros(50), vm.client.info()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_socket_deep_in_a_jail_is_reached() {
    for programs in programs("a_socket_deep_in_a_jail_is_reached") {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("run");
        std::fs::create_dir_all(&deep).unwrap();
        let _child = spawn(&programs, &deep, &["--api-sock", "api.sock"]);
        let client = Client::new(deep.join("api.sock"), Options::default());
        assert_eq!(client.wait_ready(PATIENCE).await.unwrap().state, State::NotStarted);
    }
}

#[tokio::test]
async fn nobody_at_the_socket_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("none"), Options::default());
    let error = client.wait_ready(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && !error.is_uncertain(), "{error:?}");
}
