//! Backup, restore, debugging, updates and tuning.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use super::living::still;

/// What `systemctl edit` is to add.
const OVERRIDE: &str = "[Service]\nEnvironment=\"UNKEY_METALD_LOG_LEVEL=debug\"\n";

/// Guide, "Disaster Recovery". Copies get the date that the guide's restore has.
pub(super) fn backed_up_and_restored(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    lab.sh("chown metald:metald /backup")?;
    lab.ok("maintenance-enable")?;
    let refused = lab.ok("create")?;
    ensure!(refused.contains("\"maintenance\""), "in maintenance: {refused}");
    lab.ok("backup")?;
    lab.ok("maintenance-disable")?;
    lab.ok("configuration-backup")?;
    lab.ok("export")?;
    let list: Value = serde_json::from_str(&lab.sh("cat /backup/vms-2*.json")?).context("the list of VMs")?;
    ensure!(list["vms"].as_array().is_some_and(|vms| vms.len() == 1), "{list:#}");
    lab.sh(
        "cd /backup; for f in metald-2* metald-config-2* vms-2*; do mv $f $(echo $f | sed 's/2[0-9]*/20240118/'); done",
    )?;

    // What comes after the copy is unknown to it, and so a stray.
    lab.sh("cairn vm create later --boot")?;
    lab.sh("rm /etc/metald/metald.env")?;
    lab.ok("restore")?;
    lab.wait_health(0, "OK")?;
    ensure!(lab.sh("stat -c '%U %a' /etc/metald/metald.env")?.trim() == "root 600", "metald.env as restored");
    still(lab, vm, &process)?;
    let strays = lab.sh("cairn vm gc --dry-run --json")?;
    ensure!(strays.contains("later"), "{strays}");
    lab.sh("cairn vm gc")?;
    ensure!(lab.process("later").is_err(), "the VM that the copy does not know goes on");
    no_strays(lab)?;
    still(lab, vm, &process)?;

    lab.ok("recreate")?;
    let list: Value = serde_json::from_str(&lab.sh("cairn vm list --json")?)?;
    let vms = list.as_array().cloned().unwrap_or_default();
    ensure!(vms.len() == 2 && vms.iter().all(|one| one["customer_id"] == "test"), "{list:#}");
    for one in vms.iter().filter_map(|one| one["vm_id"].as_str()).filter(|id| *id != vm) {
        lab.sh(&format!("cairn vm delete {one}"))?;
    }
    Ok(())
}

/// Nothing on the host belongs to no VM.
pub(super) fn no_strays(lab: &Lab) -> Result<()> {
    let strays: Value = serde_json::from_str(&lab.sh("cairn vm gc --dry-run --json")?)?;
    let list = strays.as_array().or_else(|| strays["strays"].as_array());
    ensure!(list.is_some_and(Vec::is_empty), "strays: {strays:#}");
    Ok(())
}

/// Guide, "Debug Mode".
pub(super) fn debugged(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    lab.ok("debug-stop")?;
    let by_hand = lab.part_for(4, "debug-by-hand")?;
    let said = [by_hand.stdout, by_hand.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    ensure!(by_hand.status.code() == Some(124) && said.contains("\"debug\""), "{}: {said}", by_hand.status);
    lab.wait_none("metald")?;
    fs::write(lab.root().join("root/edit/metald.service"), OVERRIDE)?;
    // It wants a terminal.
    let edited = lab.part_on_terminal("debug-unit")?;
    ensure!(edited.status.success(), "systemctl edit: {edited:?}");
    lab.ok("restart")?;
    lab.wait_health(0, "OK")?;
    let environment = lab.sh("tr '\\0' '\\n' < /proc/$(pidof metald)/environ")?;
    ensure!(environment.contains("UNKEY_METALD_LOG_LEVEL=debug"), "{environment}");
    still(lab, vm, &process)
}

/// Guide, "Maintenance Windows".
pub(super) fn updated(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    lab.ok("update")?;
    lab.wait_health(0, "OK")?;
    still(lab, vm, &process)?;
    fs::write(lab.root().join("root/edit/metald.env"), "UNKEY_METALD_MAX_PROCESSES=7\n")?;
    lab.ok("new-settings")?;
    lab.wait_health(0, "OK")?;
    let limit = lab.sh("curl -s http://localhost:8080/metrics | grep ^unkey_metald_vm_limit")?;
    ensure!(limit.trim().ends_with(" 7"), "{limit}");
    still(lab, vm, &process)
}

/// Guide, "System Tuning", but for `sysctl -p`: the kernel is not this host's own. And the journal, at the end.
pub(super) fn tuned(lab: &Lab) -> Result<()> {
    lab.ok("limits")?;
    lab.ok("kernel-limits")?;
    lab.ok("vacuum").map(drop)
}
