//! From a fresh process to the end of its guest.

use std::io::BufRead;
use std::time::Duration;

use firecracker::{
    Balloon, CacheType, DeviceId, Drive, Entropy, Error, Exit, Metrics, RateLimiter, State, Step, Totals, Vsock,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use testkit::guest_kernel::End;

use crate::support::{Vm, programs, spawn, version};

#[tokio::test]
async fn a_guest_boots_and_its_reset_ends_the_process() {
    for programs in programs("a_guest_boots_and_its_reset_ends_the_process") {
        let mut vm = Vm::start(&programs).await;
        assert_eq!(vm.client.info().await.unwrap().state, State::NotStarted);
        vm.boot(End::Reset).await;
        assert_eq!(vm.exit().await, Exit::Ok, "{}", vm.words());
        assert_eq!(vm.lines(), 1, "{}", vm.words());
        assert!(matches!(vm.client.info().await, Err(Error::Connect { .. } | Error::Lost { .. })));
    }
}

#[tokio::test]
async fn a_guest_that_crashes_is_a_failure() {
    for programs in programs("a_guest_that_crashes_is_a_failure") {
        let mut vm = Vm::start(&programs).await;
        vm.boot(End::Crash).await;
        let exit = vm.exit().await;
        // The real one now and then takes a crash so soon after the start for a reset.
        assert!(exit == Exit::Generic || (!programs.fake && exit == Exit::Ok), "{exit:?}");
    }
}

#[tokio::test]
async fn a_full_configuration_is_taken_in_its_order() {
    for programs in programs("a_full_configuration_is_taken_in_its_order") {
        let vm = Vm::start(&programs).await;
        let mut config = vm.config(End::Halt);
        let drive = |id: &str, is_root_device| {
            std::fs::write(vm.file(id), [0; 4096]).unwrap();
            Drive {
                drive_id: DeviceId::new(id).unwrap(),
                path_on_host: vm.file(id),
                is_root_device,
                is_read_only: false,
                partuuid: None,
                cache_type: CacheType::Writeback,
                io_engine: None,
                rate_limiter: Some(RateLimiter::bandwidth(1 << 20, 100, 1 << 16).unwrap()),
            }
        };
        config.drives = vec![drive("data", false), drive("rootfs", true)];
        config.metrics = Some(Metrics { metrics_path: vm.file("metrics"), properties: Default::default() });
        config.vsock = Some(Vsock { guest_cid: 3, uds_path: vm.file("vsock") });
        config.balloon = Some(Balloon { amount_mib: 1, ..Balloon::default() });
        config.entropy = Some(Entropy::default());
        config.check().unwrap();
        config.apply(&vm.client).await.unwrap();
        assert_eq!(vm.client.machine_config().await.unwrap(), config.machine);
        assert_eq!(vm.client.balloon().await.unwrap(), config.balloon.unwrap());
        vm.client.start().await.unwrap();
        vm.wait_lines(0).await;

        let data = DeviceId::new("data").unwrap();
        vm.client.patch_drive(&data, Some(&vm.file("data")), Some(&RateLimiter::unlimited())).await.unwrap();
        let missing =
            vm.client.patch_drive(&DeviceId::new("other").unwrap(), None, Some(&RateLimiter::unlimited())).await;
        assert!(matches!(missing, Err(Error::Refused { step: Step::DriveUpdate, status: 400, .. })));
        // The guest has no driver.
        assert!(matches!(vm.client.patch_balloon(2).await, Err(Error::Refused { .. })));
    }
}

#[tokio::test]
async fn pause_and_resume_stop_the_guest_and_are_idempotent() {
    for programs in programs("pause_and_resume_stop_the_guest_and_are_idempotent") {
        let vm = Vm::start(&programs).await;
        vm.boot(End::Repeat).await;
        vm.wait_lines(2).await;
        for _ in 0..2 {
            vm.client.pause().await.unwrap();
            assert_eq!(vm.client.info().await.unwrap().state, State::Paused);
        }
        let paused = vm.lines();
        // Ten times the guest's own pause.
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(vm.lines(), paused);
        for _ in 0..2 {
            vm.client.resume().await.unwrap();
            assert_eq!(vm.client.info().await.unwrap().state, State::Running);
        }
        vm.wait_lines(paused).await;
    }
}

#[tokio::test]
async fn what_comes_too_early_or_too_late_is_refused() {
    for programs in programs("what_comes_too_early_or_too_late_is_refused") {
        let vm = Vm::start(&programs).await;
        let fault = |result: Result<(), Error>| match result {
            Err(Error::Refused { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert!(fault(vm.client.start().await).contains("without kernel"));
        let early = [vm.client.pause().await, vm.client.flush_metrics().await, vm.client.send_ctrl_alt_del().await];
        for fault in early.map(fault) {
            assert!(fault.contains("not supported before starting"), "{fault}");
        }
        vm.boot(End::Halt).await;
        let config = vm.config(End::Halt);
        let late = [
            vm.client.start().await,
            vm.client.put_machine_config(&config.machine).await,
            vm.client.put_boot_source(&config.boot).await,
        ];
        for fault in late.map(fault) {
            assert!(fault.contains("not supported after starting"), "{fault}");
        }
        vm.client.send_ctrl_alt_del().await.unwrap();
        assert_eq!(vm.client.info().await.unwrap().state, State::Running);
    }
}

#[tokio::test]
async fn a_refusal_names_the_step_and_leaves_the_process_usable() {
    for programs in programs("a_refusal_names_the_step_and_leaves_the_process_usable") {
        let mut vm = Vm::start(&programs).await;
        let mut config = vm.config(End::Reset);
        config.machine.vcpu_count = 33;
        let refused = |error: Error| match error {
            Error::Refused { step, path, fault, .. } => format!("{step:?} {path} {fault}"),
            other => panic!("{other:?}"),
        };
        let text = refused(config.apply(&vm.client).await.unwrap_err());
        assert!(text.starts_with("MachineConfig /machine-config Machine config error: The number of vCPUs"), "{text}");
        config.machine.vcpu_count = 1;
        config.boot.kernel_image_path = vm.file("missing");
        let text = refused(config.apply(&vm.client).await.unwrap_err());
        assert!(text.starts_with("BootSource /boot-source ") && text.contains("No such file"), "{text}");
        config.boot.kernel_image_path = vm.file("noelf");
        std::fs::write(vm.file("noelf"), "no kernel").unwrap();
        config.apply(&vm.client).await.unwrap();
        let text = refused(vm.client.start().await.unwrap_err());
        assert!(text.starts_with("Start /actions ") && text.contains("invalid kernel image"), "{text}");
        vm.boot(End::Reset).await;
        assert_eq!(vm.exit().await, Exit::Ok);
    }
}

#[tokio::test]
async fn metrics_lines_add_up() {
    for programs in programs("metrics_lines_add_up") {
        let vm = Vm::start(&programs).await;
        let mut config = vm.config(End::Halt);
        config.metrics = Some(Metrics { metrics_path: vm.file("metrics"), properties: Default::default() });
        config.apply(&vm.client).await.unwrap();
        vm.client.start().await.unwrap();
        for asked in [3, 2] {
            for _ in 0..asked {
                vm.client.info().await.unwrap();
            }
            vm.client.flush_metrics().await.unwrap();
        }
        let lines = std::fs::read_to_string(vm.file("metrics")).unwrap();
        let mut totals = Totals::default();
        for line in lines.lines() {
            totals.add_line(line).unwrap();
        }
        // Five, and the one that found the process ready; each counted on one line only.
        assert_eq!(totals.get("get_api_requests", "instance_info_count"), 6);
        assert!(totals.time_ms() > 0 && lines.lines().count() == 3);
    }
}

#[tokio::test]
async fn a_fifo_that_nobody_reads_loses_lines_and_nothing_else() {
    for programs in programs("a_fifo_that_nobody_reads_loses_lines_and_nothing_else") {
        let vm = Vm::start(&programs).await;
        let fifo = vm.file("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        let mut config = vm.config(End::Halt);
        config.metrics = Some(Metrics { metrics_path: fifo.clone(), properties: Default::default() });
        config.apply(&vm.client).await.unwrap();
        vm.client.start().await.unwrap();
        // More than a FIFO holds.
        for _ in 0..200 {
            let flushed = vm.client.flush_metrics().await;
            assert!(matches!(flushed, Ok(()) | Err(Error::Refused { step: Step::FlushMetrics, .. })), "{flushed:?}");
        }
        assert_eq!(vm.client.info().await.unwrap().state, State::Running);
        let reader = std::fs::File::open(&fifo).unwrap();
        let line = std::io::BufReader::new(reader).lines().next().unwrap().unwrap();
        Totals::default().add_line(&line).unwrap();
    }
}

#[tokio::test]
async fn metadata_are_replaced_and_merged() {
    for programs in programs("metadata_are_replaced_and_merged") {
        let vm = Vm::start(&programs).await;
        vm.client.put_metadata(&json!({ "a": { "b": 1, "c": 2 } })).await.unwrap();
        vm.client.patch_metadata(&json!({ "a": { "b": null }, "d": "e" })).await.unwrap();
        assert_eq!(vm.client.metadata().await.unwrap(), json!({ "a": { "c": 2 }, "d": "e" }));
    }
}

#[tokio::test]
async fn ends_are_told_apart() {
    for programs in programs("ends_are_told_apart") {
        let mut vm = Vm::start(&programs).await;
        rustix::process::kill_process(vm.pid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(vm.exit().await, Exit::Signal(15));
        let directory = tempfile::tempdir().unwrap();
        let status = spawn(&programs, directory.path(), &["--no-such-option"]).wait().await.unwrap();
        assert_eq!(Exit::of(status), Exit::Arguments);
    }
}

#[tokio::test]
async fn the_api_and_the_program_say_one_version() {
    for programs in programs("the_api_and_the_program_say_one_version") {
        let vm = Vm::start(&programs).await;
        let said = vm.client.version().await.unwrap();
        assert_eq!(said, version(&programs.firecracker));
        assert_eq!(said.to_string(), vm.client.info().await.unwrap().vmm_version);
    }
}
