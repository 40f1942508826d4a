//! The lines of metald's operations guide on a host of their own, at their true paths, in the order of `lines.sh`: the
//! daemon is installed, watched, backed up, killed, cleaned up after and updated, and one VM lives through all of it.

mod lab;
mod living;
mod upkeep;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use lab::Lab;

/// Programs that this needs: those of the guide, of the host, and of a guest.
pub(crate) const NEEDS: &[&str] = &[
    "qemu-system-x86_64",
    "busybox",
    "depmod",
    "dpkg-deb",
    "mke2fs",
    "make",
    "sudo",
    "ip",
    "nft",
    "iptables",
    "sysctl",
    "curl",
    "jq",
    "sqlite3",
    "getcap",
    "setcap",
    "pgrep",
    "pmap",
    "pidof",
    "ping",
    "script",
    "pkcheck",
];

/// What the operator puts into /etc/metald/metald.env.
const SETTINGS: &str = "CAIRN_DEV_TOKENS=1
UNKEY_METALD_DEFAULT_KERNEL=debian
UNKEY_METALD_DEFAULT_INITRD=guest
UNKEY_METALD_DEFAULT_ROOTFS=root
";

/// See the module.
pub(crate) fn lines_run_on_a_host_of_their_own(work: &Path) -> Result<()> {
    let lab = Lab::boot(work)?;
    all(&lab).with_context(|| format!("the journal:\n{}", lab.journal()))
}

fn all(lab: &Lab) -> Result<()> {
    deployed(lab)?;
    let vm = created(lab)?;
    watched(lab, &vm)?;
    upkeep::backed_up_and_restored(lab, &vm)?;
    living::killed_and_cleaned_up(lab, &vm)?;
    upkeep::debugged(lab, &vm)?;
    upkeep::updated(lab, &vm)?;
    living::health_in_each_case(lab, &vm)?;
    living::incident(lab, &vm)?;
    living::ended(lab, &vm)?;
    upkeep::tuned(lab)
}

/// Guide, "Production Deployment".
fn deployed(lab: &Lab) -> Result<()> {
    lab.ok("install")?;
    fs::write(lab.root().join("root/edit/metald.env"), SETTINGS)?;
    lab.ok("environment")?;
    ensure!(lab.sh("stat -c '%U %a' /etc/metald/metald.env")?.trim() == "root 600", "mode of metald.env");
    lab.ok("storage")?;
    lab.ok("networking")?;
    lab.ok("start")?;
    lab.wait_health(0, "OK: Metald healthy")?;
    let status = lab.ok("status")?;
    ensure!(status.contains("active (running)") && status.contains("enabled"), "{status}");
    let followed = lab.part_for(1, "follow")?;
    let said = String::from_utf8_lossy(&followed.stdout).into_owned();
    ensure!(followed.status.code() == Some(124) && said.contains("metald"), "{followed:?}");
    for (name, kind, file) in
        [("debian", "kernel", "vmlinuz"), ("guest", "initrd", "initrd"), ("root", "disk", "root.img")]
    {
        lab.sh(&format!("cairn vm asset add {name} /root/assets/{file} --kind {kind}"))?;
    }
    Ok(())
}

/// Guide, "Manual Health Verification"; the VM is booted too.
fn created(lab: &Lab) -> Result<String> {
    let answer = lab.ok("create")?;
    let value: Value = serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer}"))?;
    let id = value["vm_id"].as_str().with_context(|| answer.clone())?.to_owned();
    lab.sh(&format!("cairn vm boot {id}"))?;
    lab.wait_page(&id)?;
    Ok(id)
}

/// Guide, "Health Checks", "Troubleshooting Guide" and "Security Scanning".
fn watched(lab: &Lab, vm: &str) -> Result<()> {
    let overall = lab.ok("overall-health")?;
    let health: Value = serde_json::from_str(&overall)?;
    ensure!(health["status"] == "healthy" && health["active_vms"] == 1, "{overall}");
    ensure!(lab.ok("metrics")?.contains("unkey_metald_active_vms"), "metrics");
    let second = lab.sh("curl -s http://localhost:9464/metrics | grep ^unkey_metald")?;
    ensure!(second.contains("unkey_metald_vm_boot_duration_seconds_bucket"), "{second}");

    let capabilities = lab.ok("service-does-not-start")?;
    ensure!(capabilities.contains("/usr/local/bin/metald cap_"), "{capabilities}");
    let seen = lab.ok("creation-fails")?;
    let namespace = format!("ns_vm_{vm}");
    ensure!(seen.contains(&namespace) && seen.contains("Usage:"), "{seen}");
    ensure!(lab.ok("jailer-errors")?.contains(vm), "no line of a jail");
    ensure!(lab.ok("taps")?.contains("tapv"), "no link of a VM");
    let inside = lab.ok_with("namespace", &[("ns_vm_xxxxx", &namespace)])?;
    ensure!(inside.contains("tap0"), "{inside}");
    ensure!(lab.ok("rules")?.contains("192.168.100.0/24"), "the rules of the guide");
    let memory = lab.ok("memory")?;
    ensure!(memory.contains("/usr/local/bin/metald") && memory.contains("total"), "{memory}");
    writable_by_nobody(lab)
}

fn writable_by_nobody(lab: &Lab) -> Result<()> {
    let found = lab.ok("permissions")?;
    ensure!(found.is_empty(), "everybody may write:\n{found}");
    Ok(())
}
