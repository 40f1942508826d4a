//! Snapshots.

use firecracker::{
    Error, Exit, MemoryBackend, MemoryBackendType, SnapshotCreate, SnapshotLoad, SnapshotType, State, Step,
};
use testkit::guest_kernel::End;

use crate::support::{Vm, programs};

fn create(vm: &Vm) -> SnapshotCreate {
    SnapshotCreate {
        snapshot_path: vm.file("state"),
        mem_file_path: vm.file("memory"),
        snapshot_type: SnapshotType::Full,
    }
}

fn load(vm: &Vm) -> SnapshotLoad {
    SnapshotLoad {
        snapshot_path: vm.file("state"),
        mem_backend: MemoryBackend { backend_type: MemoryBackendType::File, backend_path: vm.file("memory") },
        track_dirty_pages: false,
        resume_vm: true,
        network_overrides: Vec::new(),
        vsock_override: None,
    }
}

#[tokio::test]
async fn a_guest_goes_on_in_a_fresh_process() {
    for programs in programs("a_guest_goes_on_in_a_fresh_process") {
        let vm = Vm::start(&programs).await;
        vm.boot(End::Repeat).await;
        vm.wait_lines(0).await;
        let running = vm.client.create_snapshot(&create(&vm)).await;
        assert!(matches!(running, Err(Error::Refused { step: Step::SnapshotCreate, .. })), "{running:?}");
        vm.client.pause().await.unwrap();
        vm.client.create_snapshot(&create(&vm)).await.unwrap();

        let other = Vm::start(&programs).await;
        other.client.load_snapshot(&load(&vm)).await.unwrap();
        assert_eq!(other.client.info().await.unwrap().state, State::Running);
        other.wait_lines(1).await;
        assert_eq!(vm.client.info().await.unwrap().state, State::Paused);
    }
}

#[tokio::test]
async fn a_load_that_fails_ends_the_process_unless_it_was_never_allowed() {
    for programs in programs("a_load_that_fails_ends_the_process_unless_it_was_never_allowed") {
        let mut vm = Vm::start(&programs).await;
        vm.config(End::Halt).apply(&vm.client).await.unwrap();
        assert!(matches!(vm.client.load_snapshot(&load(&vm)).await, Err(Error::Refused { .. })));
        vm.client.start().await.unwrap();
        drop(vm.client.info().await.unwrap());

        vm = Vm::start(&programs).await;
        assert!(matches!(vm.client.load_snapshot(&load(&vm)).await, Err(Error::Refused { .. })));
        assert_eq!(vm.exit().await, Exit::Generic);
    }
}
