//! The probe's guest with real hypervisors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use testkit::hypervisor::real;
use vm::adapters::probe::{Key, Probe, Verdict};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

fn probe(directory: &Path, qemu: Option<PathBuf>, firecracker: Option<PathBuf>) -> Probe {
    let (device, file) = ("/dev/kvm".into(), directory.join("probe.json"));
    Probe { device, qemu, firecracker, file, processes: Arc::new(host::Linux) }
}

#[test]
fn where_a_kernel_can_run_the_guest_passes() {
    let test = "where_a_kernel_can_run_the_guest_passes";
    if !Path::new(QEMU).exists() {
        return eprintln!("NOT RUN: {test}: {QEMU} is missing");
    }
    let directory = tempfile::tempdir().unwrap();
    // Emulated, where everything that a kernel needs is known to be there.
    let verdict = probe(directory.path(), Some(QEMU.into()), None).run("tcg").unwrap();
    assert_eq!(verdict, Some(Verdict::Usable));
}

#[test]
fn the_verdict_about_this_hosts_kvm_is_the_same_by_both_and_is_kept() {
    let test = "the_verdict_about_this_hosts_kvm_is_the_same_by_both_and_is_kept";
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return eprintln!("NOT RUN: {test}: /dev/kvm does not open");
    }
    if !Path::new(QEMU).exists() {
        return eprintln!("NOT RUN: {test}: {QEMU} is missing");
    }
    let directory = tempfile::tempdir().unwrap();
    let probe_of = |qemu, firecracker| probe(directory.path(), qemu, firecracker);
    let by_qemu = probe_of(Some(QEMU.into()), None);
    let verdict = by_qemu.verdict(false).unwrap();
    let key = Key::of_this_host().unwrap();
    eprintln!("{test}: /dev/kvm opens; {key:?}: {verdict:?}");
    // A KVM that runs programs and emulates their privileged instructions does not know this one.
    if key.modules == ["kvm_pvm"] {
        let reason = "a guest under KVM could not execute LOCK CMPXCHG16B";
        assert!(matches!(&verdict, Verdict::NotUsable(said) if said.starts_with(reason)), "{verdict:?}");
    }
    assert_eq!(by_qemu.kept(), Some(verdict.clone()));
    // Kept: nobody is asked a second time.
    assert_eq!(probe_of(Some("/nowhere/qemu".into()), None).verdict(false).unwrap(), verdict);
    match real() {
        Ok(programs) => {
            let other = probe_of(None, Some(programs.firecracker)).verdict(true).unwrap();
            eprintln!("{test}: by Firecracker: {other:?}");
            let stage = |verdict: &Verdict| match verdict {
                Verdict::Usable => String::new(),
                Verdict::NotUsable(reason) => reason.split(" (").next().unwrap_or_default().to_owned(),
            };
            assert_eq!(stage(&other), stage(&verdict));
        }
        Err(reason) => eprintln!("NOT RUN: {test} with the real Firecracker: {reason}"),
    }
}
