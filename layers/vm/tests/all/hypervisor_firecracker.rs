//! Firecracker in its jail: the fakes always, the real ones where they are named.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use testkit::guest_kernel::{End, Guest};
use testkit::hypervisor::{Order, Pattern, Programs, fakes, order, real};
use vm::adapters::Firecracker;
use vm::errors::{ASSET_DAMAGED, HYPERVISOR, HYPERVISOR_MISSING, VM_JAIL};
use vm::model::VmId;
use vm::ports::{Exit, Hypervisor, Launch, Look, Stray};

use crate::hypervisor::{self, Bed, Process};

/// The pairs of programs that there are; says which.
fn programs(test: &str) -> Vec<Programs> {
    let mut found = vec![fakes().unwrap()];
    match real() {
        Ok(real) if real.jailer.is_some() => found.push(real),
        Ok(_) => eprintln!("NOT RUN: {test} with the real jailer: CAIRN_TEST_JAILER is not set"),
        Err(reason) => eprintln!("NOT RUN: {test} with the real Firecracker: {reason}"),
    }
    for programs in &found {
        eprintln!("{test}: with {} Firecracker", if programs.fake { "the fake" } else { "the real" });
    }
    found
}

fn firecracker(bed: &Bed, programs: &Programs) -> Firecracker {
    let jailer = programs.jailer.clone().unwrap();
    let programs = vm::adapters::Programs { firecracker: programs.firecracker.clone(), jailer };
    Firecracker::new(programs, bed.places(), Arc::new(host::Linux))
}

/// A kernel that only root can change.
fn kernel(bed: &Bed, end: End) -> PathBuf {
    let kernel = bed.path("kernel");
    Guest::line("tick", end).write(&kernel).unwrap();
    kernel
}

/// The jail's root, by any version.
fn root(bed: &Bed) -> PathBuf {
    let names = std::fs::read_dir(bed.path("jails")).unwrap().map(|entry| entry.unwrap().path().join(bed.id.as_str()));
    let found: Vec<_> = names.filter(|path| path.is_dir()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].join("root")
}

fn socket(bed: &Bed) -> PathBuf {
    root(bed).join(format!("run/ns_vm_{}.sock", bed.id))
}

#[tokio::test]
async fn a_guest_lives_in_a_jail_until_ctrl_alt_del() {
    let test = "a_guest_lives_in_a_jail_until_ctrl_alt_del";
    for programs in programs(test) {
        let Some(bed) = Bed::new(test, "life") else { return };
        let firecracker = firecracker(&bed, &programs);
        firecracker.check().await.unwrap();
        let mut launch = bed.launch(&kernel(&bed, End::Repeat), "quiet");
        launch.disks = vec![bed.disk("data", 1 << 20, true), bed.disk("other", 1 << 20, false)];
        let before = std::fs::metadata(&launch.kernel).unwrap();
        let mut process = hypervisor::boot(&firecracker, &launch, "tick\n").await;
        hypervisor::assert_confined(&process, &bed);
        hypervisor::assert_closed(&bed.path("jails"));
        // Others' files are as before; the VM's own are its user's.
        let root = root(&bed);
        let jailed = std::fs::metadata(root.join("vmlinux")).unwrap();
        let after = std::fs::metadata(&launch.kernel).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        assert!(jailed.uid() != bed.uid && jailed.mode() & 0o022 == 0, "{jailed:?}");
        for (disk, mode) in [("data", 0o400), ("other", 0o600)] {
            let disk = std::fs::metadata(root.join("disks").join(disk)).unwrap();
            assert_eq!((disk.uid(), disk.mode() & 0o777), (bed.uid, mode));
        }
        // No directory is called what the guide removes.
        assert!(root.ancestors().all(|path| path.file_name().is_none_or(|name| name != "firecracker")));

        hypervisor::pause_and_resume(&firecracker, &launch.vm, &mut process, "tick\n").await;
        firecracker.pause(&launch.vm).await.unwrap();
        if programs.fake {
            order(&socket(&bed), &[Order::ObeyCtrlAltDel]).unwrap();
            firecracker.ask_to_end(&launch.vm).await.unwrap();
            let exit = process.ended();
            assert_eq!((exit, firecracker.judge(exit)), (Exit::Code(0), Ok(())));
        } else {
            // A guest without a keyboard driver takes no notice.
            firecracker.ask_to_end(&launch.vm).await.unwrap();
            assert_eq!(firecracker.look(&launch.vm).await, Ok(Look::Running));
            let exit = process.kill();
            assert!(firecracker.judge(exit).unwrap_err().contains("killed"));
        }
        hypervisor::clear(&firecracker, &bed, &launch.vm).await;
        assert!(launch.disks.iter().all(|disk| disk.path.is_file()));
    }
}

#[tokio::test]
async fn how_it_ended_is_said() {
    let test = "how_it_ended_is_said";
    for programs in programs(test) {
        let Some(bed) = Bed::new(test, "ends") else { return };
        let firecracker = firecracker(&bed, &programs);
        let run = async |launch: &Launch, orders: &[Order]| {
            let mut process = Process::start(&firecracker.jail(launch).await.unwrap());
            firecracker.ready(&launch.vm, hypervisor::PATIENCE).await.unwrap();
            if programs.fake {
                order(&socket(&bed), orders).unwrap();
            }
            // One that ends at once may not have answered.
            let _ = firecracker.start(launch).await;
            let exit = process.ended();
            firecracker.judge(exit)
        };
        let launch = bed.launch(&kernel(&bed, End::Reset), "");
        assert_eq!(run(&launch, &[]).await, Ok(()));
        if programs.fake {
            let launch = bed.launch(&kernel(&bed, End::Crash), "");
            assert!(run(&launch, &[]).await.unwrap_err().contains("exit code 1"));
            let said = run(&launch, &[Order::Crash { code: 148, after: 2 }]).await.unwrap_err();
            assert!(said.contains("seccomp"), "{said}");
        }
        assert!(firecracker.judge(Exit::Unknown).unwrap_err().contains("nobody saw"));
    }
}

#[tokio::test]
async fn what_firecracker_refuses_is_repeated() {
    let test = "what_firecracker_refuses_is_repeated";
    for programs in programs(test) {
        let Some(bed) = Bed::new(test, "refused") else { return };
        let firecracker = firecracker(&bed, &programs);
        let file = bed.path("garbage");
        std::fs::write(&file, vec![7; 5000]).unwrap();
        let error = firecracker.jail(&bed.launch(&file, "")).await.unwrap_err();
        assert_eq!(error.code, ASSET_DAMAGED);
        // It begins like one and is none; the fake believes it.
        let mut launch = bed.launch(&file, "");
        if !programs.fake {
            std::fs::write(&file, [b"\x7fELF".to_vec(), vec![0; 5000]].concat()).unwrap();
            let _process = Process::start(&firecracker.jail(&launch).await.unwrap());
            firecracker.ready(&launch.vm, hypervisor::PATIENCE).await.unwrap();
            // The second time everything is told that it knows already.
            for _ in 0..2 {
                let error = firecracker.start(&launch).await.unwrap_err();
                assert!(error.code == HYPERVISOR && error.reason.contains("start the VM"), "{error}");
                eprintln!("{test}: {error}");
            }
            firecracker.unjail(&launch.vm).await.unwrap();
            continue;
        }
        launch.kernel = kernel(&bed, End::Repeat);
        let _process = Process::start(&firecracker.jail(&launch).await.unwrap());
        firecracker.ready(&launch.vm, hypervisor::PATIENCE).await.unwrap();
        let refuse = Order::Refuse { request: Pattern::of("PUT", "/entropy"), fault: "no entropy today".to_owned() };
        order(&socket(&bed), &[refuse]).unwrap();
        let error = firecracker.start(&launch).await.unwrap_err();
        assert!(error.code == HYPERVISOR && error.reason.contains("no entropy today"), "{error}");
        // A start that was cut off half-way is made good by the next one, by another daemon too.
        order(&socket(&bed), &[]).unwrap();
        self::firecracker(&bed, &programs).start(&launch).await.unwrap();
        assert_eq!(firecracker.look(&launch.vm).await, Ok(Look::Running));
        firecracker.unjail(&launch.vm).await.unwrap();
    }
}

#[tokio::test]
async fn a_vm_stays_with_its_version_when_another_is_installed() {
    let test = "a_vm_stays_with_its_version_when_another_is_installed";
    let programs = fakes().unwrap();
    let Some(bed) = Bed::new(test, "old") else { return };
    let launch = bed.launch(&kernel(&bed, End::Repeat), "");
    let _process = hypervisor::boot(&firecracker(&bed, &programs), &launch, "tick\n").await;
    let first = std::fs::read_dir(bed.path("jails/bin")).unwrap().next().unwrap().unwrap().path();

    let newer = bed.path("newer");
    script(&newer, "echo Firecracker v1.17.0");
    let upgraded = firecracker(&bed, &Programs { firecracker: newer.clone(), ..programs.clone() });
    assert_eq!(upgraded.look(&launch.vm).await, Ok(Look::Running));
    let mut other = launch.clone();
    (other.vm.id, other.disks) = ("new".parse().unwrap(), Vec::new());
    let order = upgraded.jail(&other).await.unwrap();
    assert!(bed.path("jails/firecracker-1.17.0/new/root/vmlinux").is_file());
    let at = order.argv.iter().position(|word| word == "--exec-file").unwrap();
    assert_eq!(Path::new(&order.argv[at + 1]), bed.path("jails/bin/firecracker-1.17.0"));
    // A program that was changed in its place is noticed.
    script(&newer, "echo Firecracker v1.18.0; true");
    upgraded.jail(&other).await.unwrap();
    assert!(bed.path("jails/firecracker-1.18.0/new").is_dir() && !bed.path("jails/firecracker-1.17.0/new").exists());
    let names = async |known: &[VmId]| -> Vec<String> {
        let strays = upgraded.strays(known).await.unwrap();
        let below = bed.path("jails");
        let name = |stray: &Stray| Path::new(&stray.name).strip_prefix(&below).unwrap().display().to_string();
        strays.iter().map(|stray| format!("{} {}", stray.kind, name(stray))).collect()
    };
    let old = Path::new(&first).strip_prefix(bed.path("jails")).unwrap().display().to_string();
    // The copy that no VM and no boot uses any more is one; that of a VM that runs and that of now are none.
    let known = std::slice::from_ref(&launch.vm.id);
    assert_eq!(names(known).await, ["jail firecracker-1.18.0/new", "program bin/firecracker-1.17.0"]);
    for stray in upgraded.strays(known).await.unwrap() {
        upgraded.remove_stray(&stray).await.unwrap();
    }
    assert!(names(known).await.is_empty() && !bed.path("jails/bin/firecracker-1.17.0").exists());
    assert!(!bed.path("jails/firecracker-1.17.0").exists() && bed.path("jails/bin/firecracker-1.18.0").exists());
    upgraded.unjail(&launch.vm).await.unwrap();
    // A new daemon, and what one left that was killed while it copied.
    let upgraded = self::firecracker(&bed, &Programs { firecracker: newer.clone(), ..programs.clone() });
    std::fs::write(bed.path("jails/bin/.firecracker-1.18.0.1"), "half").unwrap();
    let strays = upgraded.strays(&[]).await.unwrap();
    let found: Vec<_> = strays.iter().map(|stray| stray.name.clone()).collect();
    assert_eq!(
        found,
        [
            bed.path("jails/bin/.firecracker-1.18.0.1").display().to_string(),
            bed.path("jails").join(old).display().to_string()
        ]
    );
    for stray in &strays {
        upgraded.remove_stray(stray).await.unwrap();
    }
    assert_eq!(upgraded.strays(&[]).await.unwrap(), []);
    assert!(bed.path("jails/bin/firecracker-1.18.0").exists());
}

#[tokio::test]
async fn a_socket_that_leads_to_another_vm_is_not_believed() {
    let test = "a_socket_that_leads_to_another_vm_is_not_believed";
    let programs = fakes().unwrap();
    let (Some(one), Some(two)) = (Bed::new(test, "one"), Bed::new(test, "two")) else { return };
    let victim = one.launch(&kernel(&one, End::Repeat), "");
    let _victim = hypervisor::boot(&firecracker(&one, &programs), &victim, "tick\n").await;
    let attacker = two.launch(&kernel(&two, End::Repeat), "");
    let _attacker = hypervisor::boot(&firecracker(&two, &programs), &attacker, "tick\n").await;
    std::fs::remove_file(socket(&two)).unwrap();
    symlink(socket(&one), socket(&two)).unwrap();
    let daemon = firecracker(&two, &programs);
    let error = daemon.pause(&attacker.vm).await.unwrap_err();
    assert!(error.code == HYPERVISOR && error.reason.contains("says that it is \"one\""), "{error}");
    assert_eq!(firecracker(&one, &programs).look(&victim.vm).await, Ok(Look::Running));
}

#[tokio::test]
async fn a_disk_of_another_file_system_is_mounted_and_unmounted() {
    let test = "a_disk_of_another_file_system_is_mounted_and_unmounted";
    for programs in programs(test) {
        let Some(bed) = Bed::new(test, "elsewhere") else { return };
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("NOT RUN: {test}: no /dev/shm");
        };
        let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
        if device(elsewhere.path()) == device(&bed.path("jails")) {
            return eprintln!("NOT RUN: {test}: /dev/shm and the temporary directory are one file system");
        }
        let firecracker = firecracker(&bed, &programs);
        let mut launch = bed.launch(&kernel(&bed, End::Repeat), "");
        let mut disk = bed.disk("data", 1 << 20, false);
        disk.path = elsewhere.path().join("data");
        std::fs::File::create(&disk.path).unwrap().set_len(1 << 20).unwrap();
        launch.disks = vec![disk];
        let mut process = hypervisor::boot(&firecracker, &launch, "tick\n").await;
        let inside = process.proc().join("root/disks/data");
        let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
        if !programs.fake {
            assert_eq!(identity(&inside), identity(&launch.disks[0].path));
        }
        process.kill();
        hypervisor::clear(&firecracker, &bed, &launch.vm).await;
        assert_eq!(std::fs::metadata(&launch.disks[0].path).unwrap().len(), 1 << 20);
    }
}

#[tokio::test]
async fn a_disk_that_is_not_the_vms_own_is_not_given_to_it() {
    let test = "a_disk_that_is_not_the_vms_own_is_not_given_to_it";
    let programs = fakes().unwrap();
    let Some(bed) = Bed::new(test, "disk") else { return };
    let firecracker = firecracker(&bed, &programs);
    let mut launch = bed.launch(&kernel(&bed, End::Halt), "");
    launch.disks = vec![bed.disk("data", 4096, false)];
    std::fs::hard_link(bed.path("disks/data"), bed.path("asset")).unwrap();
    let error = firecracker.jail(&launch).await.unwrap_err();
    assert!(error.code == VM_JAIL && error.reason.contains("2 names"), "{error}");
    assert_eq!(std::fs::metadata(bed.path("asset")).unwrap().uid(), 0);
}

#[tokio::test]
async fn a_program_that_cannot_be_used_is_named_with_the_way_out() {
    let test = "a_program_that_cannot_be_used_is_named_with_the_way_out";
    let Some(bed) = Bed::new(test, "check") else { return };
    let programs = fakes().unwrap();
    let with = |path: &Path| firecracker(&bed, &Programs { firecracker: path.to_owned(), ..programs.clone() });
    let missing = with(Path::new("/nowhere/firecracker")).check().await.unwrap_err();
    assert_eq!(missing.code, HYPERVISOR_MISSING);
    assert!(missing.reason.contains("/nowhere/firecracker") && missing.reason.contains("install"), "{missing}");
    let old = bed.path("old");
    script(&old, "echo Firecracker v1.9.1");
    let old = with(&old).check().await.unwrap_err();
    assert!(old.code == HYPERVISOR_MISSING && old.reason.contains("is 1.9.1"), "{old}");
    assert_eq!(with(&programs.firecracker).check().await.unwrap(), "1.16.0");
    let vm = bed.launch(Path::new("/x"), "").vm;
    assert!(with(&programs.firecracker).ready(&vm, Duration::ZERO).await.unwrap_err().reason.contains("no jail"));
}

fn script(path: &Path, line: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
