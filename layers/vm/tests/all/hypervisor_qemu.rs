//! QEMU's microvm with Debian's kernel and `cairn-init`, emulated.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use testkit::debian_kernel::Kernel;
use testkit::guest_kernel::{End, Guest};
use testkit::microvm::{Initramfs, MODULES};
use testkit::process::{exists, run};
use tokio::sync::{Mutex, MutexGuard};
use vm::adapters::{Accelerator, Qemu, panicked};
use vm::errors::{ASSET_DAMAGED, HYPERVISOR, HYPERVISOR_MISSING};
use vm::ports::{Exit, Hypervisor, Launch};

use crate::hypervisor::{self, Bed, Process};

const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// Programs without which nothing here can run.
const NEEDED: [&str; 4] = ["qemu-system-x86_64", "busybox", "depmod", "dpkg-deb"];

/// What all tests boot.
struct Base {
    directory: TempDir,
    kernel: Kernel,
}

/// Kernel and initramfs, made once; `None`, said, where a program is missing. The lock lets one machine run at a time.
async fn base(test: &str) -> Option<(&'static Base, MutexGuard<'static, ()>)> {
    static BASE: OnceLock<Base> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::const_new(());
    if let Some(program) = NEEDED.iter().find(|program| !exists(program)) {
        eprintln!("NOT RUN: {test}: {program} is missing");
        return None;
    }
    let turn = ONE.lock().await;
    let base = BASE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel::get().unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let mut initramfs = Initramfs::default();
        initramfs.copy(&testkit::microvm::init().unwrap(), "init", 0o755).unwrap();
        initramfs.copy(&busybox.unwrap(), "bin/busybox", 0o755).unwrap();
        initramfs.modules(&kernel, &MODULES).unwrap();
        initramfs.add("etc/cairn/modules", 0o644, format!("{}\n", MODULES.join("\n")).as_bytes());
        initramfs.write(&directory.path().join("initramfs")).unwrap();
        Base { directory, kernel }
    });
    Some((base, turn))
}

/// The words for a shell line of busybox.
fn shell(line: &str) -> String {
    format!("quiet cairn.run=\"/bin/busybox sh -c {}\"", line.replace('%', "%25").replace(' ', "%20"))
}

fn launch(base: &Base, bed: &Bed, words: &str) -> Launch {
    let mut launch = bed.launch(&base.kernel.image(), words);
    launch.initrd = Some(base.directory.path().join("initramfs"));
    launch
}

fn qemu(bed: &Bed) -> Qemu {
    Qemu::new(PROGRAM.into(), bed.places(), Accelerator::Tcg, Arc::new(host::Linux))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_lives_from_its_first_word_to_the_power_button() {
    let test = "a_guest_lives_from_its_first_word_to_the_power_button";
    let Some((base, _turn)) = base(test).await else { return };
    let Some(bed) = Bed::new(test, "life") else { return };
    let qemu = qemu(&bed);
    eprintln!("{test}: with QEMU {}", qemu.check().await.unwrap());
    let line = "nproc; cat /sys/block/vda/size /sys/block/vdb/size; echo kept > /dev/vdb; sync; echo no > /dev/vda; \
                while true; do echo tick; sleep 0.1; done";
    let mut launch = launch(base, &bed, &shell(line));
    launch.vm.spec.cpu.vcpu_count = 2;
    launch.disks = vec![bed.disk("first", 1 << 20, true), bed.disk("second", 2 << 20, false)];
    let mut process = hypervisor::boot(&qemu, &launch, "tick\n").await;
    let console = process.console();
    assert!(console.contains("2\n2048\n4096\n"), "{console}");
    assert!(console.contains("Operation not permitted"), "{console}");

    hypervisor::assert_confined(&process, &bed);
    hypervisor::assert_closed(&bed.path("jails"));
    let status = std::fs::read_to_string(process.proc().join("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    run(&mut bed.inside(&["busybox", "ping", "-c", "1", "-w", "20", "10.0.0.2"])).unwrap();

    hypervisor::pause_and_resume(&qemu, &launch.vm, &mut process, "tick\n").await;
    // Asked while it stands still.
    qemu.pause(&launch.vm).await.unwrap();
    qemu.ask_to_end(&launch.vm).await.unwrap();
    let exit = process.ended();
    assert_eq!((exit, qemu.judge(exit)), (Exit::Code(0), Ok(())), "{}", process.console());
    assert!(process.console().contains("\ncairn-init: exit 143\n") && !panicked(&process.console()));
    hypervisor::clear(&qemu, &bed, &launch.vm).await;
    // The disks stay, with what the guest could write.
    let disk = |name: &str| std::fs::read(bed.path("disks").join(name)).unwrap();
    assert!(disk("second").starts_with(b"kept\n") && disk("first").iter().all(|byte| *byte == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_a_panic_and_a_kill_are_told_apart() {
    let test = "a_restart_a_panic_and_a_kill_are_told_apart";
    let Some((base, _turn)) = base(test).await else { return };
    let Some(bed) = Bed::new(test, "ends") else { return };
    let qemu = qemu(&bed);
    for (words, panics) in
        [(format!("{} cairn.end=reboot", shell("echo up")), false), ("quiet rdinit=/none".to_owned(), true)]
    {
        let launch = launch(base, &bed, &words);
        let order = qemu.jail(&launch).await.unwrap();
        let mut process = Process::start(&order);
        qemu.ready(&launch.vm, hypervisor::PATIENCE).await.unwrap();
        qemu.start(&launch).await.unwrap();
        let exit = process.ended();
        assert_eq!((exit, qemu.judge(exit)), (Exit::Code(0), Ok(())), "{}", process.console());
        assert_eq!(panicked(&process.console()), panics, "{}", process.console());
    }
    let launch = launch(base, &bed, &shell("while true; do echo tick; sleep 1; done"));
    let mut process = hypervisor::boot(&qemu, &launch, "tick\n").await;
    assert_eq!(process.kill(), Exit::Signal(9));
    assert!(qemu.judge(Exit::Signal(9)).unwrap_err().contains("killed"));
    assert_eq!(qemu.look(&launch.vm).await.unwrap_err().code, HYPERVISOR);
    hypervisor::clear(&qemu, &bed, &launch.vm).await;
}

#[tokio::test]
async fn what_is_no_kernel_is_refused_with_its_name() {
    let test = "what_is_no_kernel_is_refused_with_its_name";
    let Some((_, _turn)) = base(test).await else { return };
    let Some(bed) = Bed::new(test, "corrupt") else { return };
    let qemu = qemu(&bed);
    let kernel = bed.path("kernel");
    std::fs::write(&kernel, vec![7; 5000]).unwrap();
    let error = qemu.jail(&bed.launch(&kernel, "")).await.unwrap_err();
    assert_eq!(error.code, ASSET_DAMAGED);
    assert!(error.reason.contains("is no kernel"), "{error}");
    assert_eq!(qemu.strays(&[]).await.unwrap(), []);
    // An ELF file that QEMU does not start ends it at once, with its reason on the console.
    Guest::line("hello", End::Halt).write(&kernel).unwrap();
    let launch = bed.launch(&kernel, "");
    let mut process = Process::start(&qemu.jail(&launch).await.unwrap());
    let exit = process.ended();
    assert!(qemu.judge(exit).unwrap_err().contains("exit code 1"), "{exit:?}");
    assert!(process.console().contains("PVH"), "{}", process.console());
    assert!(qemu.ready(&launch.vm, std::time::Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn a_program_that_cannot_be_used_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let places = vm::adapters::Places {
        jails: directory.path().join("jails"),
        consoles: directory.path().to_owned(),
        console_limit: 0,
    };
    let program = directory.path().join("qemu-system-x86_64");
    let qemu = Qemu::new(program.clone(), places, Accelerator::Tcg, Arc::new(host::Linux));
    let missing = qemu.check().await.unwrap_err();
    assert_eq!(missing.code, HYPERVISOR_MISSING);
    assert!(missing.reason.contains("install the package qemu-system-x86"), "{missing}");
    std::fs::write(&program, "#!/bin/sh\necho QEMU emulator version 4.2.1\n").unwrap();
    run(Command::new("chmod").arg("755").arg(&program)).unwrap();
    let old = qemu.check().await.unwrap_err();
    assert!(old.code == HYPERVISOR_MISSING && old.reason.contains("5.2 is the oldest"), "{old}");
}
