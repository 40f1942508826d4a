//! What operators do to a host with a VM that lives, which it has to go on doing.

use std::os::unix::net::UnixListener;

use anyhow::{Result, ensure};

use super::lab::Lab;
use super::upkeep::no_strays;

/// Guide, "Emergency Procedures".
pub(super) fn killed_and_cleaned_up(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    let daemon = lab.sh("pidof metald")?;
    lab.ok("dump")?;
    ensure!(lab.sh("pidof metald")? == daemon, "the daemon ended by SIGQUIT");
    lab.ok("force-restart")?;
    lab.wait_health(0, "OK")?;
    ensure!(lab.sh("pidof metald")? != daemon, "the daemon did not end by SIGKILL");
    still(lab, vm, &process)?;

    clean_up(lab)?;
    still(lab, vm, &process)?;
    namespaces(lab, vm)?;
    still(lab, vm, &process)?;
    // What was meant for an empty directory, once more: disks of VMs become the daemon's user's.
    lab.ok("storage")?;
    still(lab, vm, &process)
}

/// The same process, the same state, and its page.
pub(super) fn still(lab: &Lab, vm: &str, process: &str) -> Result<()> {
    let now = lab.process(vm)?;
    ensure!(now == process, "the hypervisor of {vm} was {process} and is {now}");
    let seen = lab.vm(vm)?;
    ensure!(seen["state"] == "VM_STATE_RUNNING", "{seen:#}");
    lab.wait_page(vm)
}

/// Everything is old; beside what is the VM's there is what an original left behind.
fn clean_up(lab: &Lab) -> Result<()> {
    lab.sh("mkdir -p /srv/jailer/firecracker/left/root; mkdir -p /opt/metald/sockets")?;
    let left = lab.root().join("opt/metald/sockets/left.sock");
    drop(UnixListener::bind(&left)?);
    lab.sh("find /srv/jailer /opt/metald /var/lib/metald -exec touch -h -d '3 days ago' {} +")?;
    let list = "find /srv/jailer /opt/metald /var/lib/metald | sort";
    let before = lab.sh(list)?;
    lab.ok("clean-up")?;
    let after = lab.sh(list)?;
    let gone: Vec<&str> = before.lines().filter(|path| !after.lines().any(|other| other == *path)).collect();
    let expected = [
        "/opt/metald/sockets/left.sock",
        "/srv/jailer/firecracker",
        "/srv/jailer/firecracker/left",
        "/srv/jailer/firecracker/left/root",
    ];
    ensure!(gone == expected, "cleaned up: {gone:#?}");
    Ok(())
}

/// One that nobody has goes; that of a living VM stays; a VM at rest gets another one when it boots.
fn namespaces(lab: &Lab, vm: &str) -> Result<()> {
    lab.sh("cairn vm create at-rest --boot && cairn vm stop at-rest --force && ip netns add ns_vm_left")?;
    lab.ok("namespaces")?;
    let names = lab.sh("ip netns list")?;
    ensure!(!names.contains("ns_vm_left") && names.contains(&format!("ns_vm_{vm}")), "{names}");
    lab.sh("cairn vm boot at-rest")?;
    lab.wait_page("at-rest")?;
    lab.sh("cairn vm delete at-rest --force")?;
    no_strays(lab)
}

/// After all that it stops and boots as any other, and nothing of it is left in the end.
pub(super) fn ended(lab: &Lab, vm: &str) -> Result<()> {
    lab.sh(&format!("cairn vm stop {vm} --force && cairn vm boot {vm}"))?;
    lab.wait_page(vm)?;
    lab.sh(&format!("cairn vm delete {vm} --force"))?;
    ensure!(lab.process(vm).is_err(), "its hypervisor goes on");
    let names = lab.sh("ip netns list")?;
    ensure!(!names.contains(vm), "{names}");
    no_strays(lab)
}

/// Guide, "Automated Health Monitoring": OK was seen before.
pub(super) fn health_in_each_case(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    lab.ok("stop")?;
    let seen = lab.health()?;
    ensure!(seen == (Some(2), "CRITICAL: Metald service not running".to_owned()), "{seen:?}");
    // Without a hypervisor the API answers and the backend is not well.
    lab.sh("cp /etc/metald/metald.env /root/metald.env.kept")?;
    lab.sh("echo UNKEY_METALD_QEMU=/nowhere/qemu >> /etc/metald/metald.env")?;
    lab.ok("begin")?;
    lab.wait_health(1, "WARNING: Backend unhealthy")?;
    lab.sh("cp /root/metald.env.kept /etc/metald/metald.env")?;
    lab.ok("restart")?;
    lab.wait_health(0, "OK: Metald healthy")?;
    still(lab, vm, &process)
}

/// Guide, "Incident Response".
pub(super) fn incident(lab: &Lab, vm: &str) -> Result<()> {
    let process = lab.process(vm)?;
    lab.ok("isolate")?;
    let seen = lab.health()?;
    ensure!(seen == (Some(2), "CRITICAL: Metald API not responding".to_owned()), "{seen:?}");
    // tar ends with 1 when a file grew while it was read: the VM lives.
    let packed = lab.part("evidence")?;
    ensure!(packed.status.code().is_some_and(|code| code < 2), "{packed:?}");
    let list = lab.sh("tar -tzf /tmp/incident-*.tar.gz")?;
    ensure!(list.contains("var/lib/metald/metald.db") && list.contains("var/log/metald/audit.log"), "{list}");
    lab.sh("iptables -D INPUT -p tcp --dport 8080 -j REJECT")?;
    lab.ok("stop")?;
    lab.ok("begin")?;
    lab.wait_health(0, "OK")?;
    still(lab, vm, &process)
}
