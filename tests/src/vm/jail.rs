//! Ten VMs of two customers under Firecracker in its jail: what a jailed process has, what files are open to others, and
//! that one customer knows nothing of another. The fake pair plays along always, the real one where it is named.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use testkit::guest_kernel::{End, Guest};
use testkit::hypervisor::{Programs, fakes, real};
use testkit::metald::{LOOK, Metald, PATIENCE};
use testkit::process::run;
use testkit::{http, wait};

use super::count::{count, nothing_left, pids};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["ip", "nft", "find", "pgrep"];

const CUSTOMERS: [&str; 2] = ["one", "two"];
const VMS: usize = 10;

/// See the module.
pub(crate) fn is_closed(work: &Path) -> Result<()> {
    let mut pairs = vec![fakes()?];
    match real() {
        Ok(real) if real.jailer.is_some() => pairs.push(real),
        Ok(_) => eprintln!("NOT RUN: vm-jail with the real jailer: CAIRN_TEST_JAILER is not set"),
        Err(reason) => eprintln!("NOT RUN: vm-jail with the real Firecracker: {reason}"),
    }
    for programs in &pairs {
        let name = if programs.fake { "fake" } else { "real" };
        println!("with the {name} Firecracker");
        let place = work.join(name);
        std::fs::create_dir_all(&place)?;
        with(work, &place, programs).with_context(|| format!("with the {name} Firecracker"))?;
    }
    Ok(())
}

fn with(enclosed: &Path, work: &Path, programs: &Programs) -> Result<()> {
    let text = |path: Option<&PathBuf>| Ok::<_, anyhow::Error>(path.context("a jailer")?.display().to_string());
    let (firecracker, jailer) = (text(Some(&programs.firecracker))?, text(programs.jailer.as_ref())?);
    let mut metald = Metald::start_below(
        enclosed,
        work,
        &[
            ("UNKEY_METALD_BACKEND", "firecracker"),
            ("UNKEY_METALD_FIRECRACKER", &firecracker),
            ("UNKEY_METALD_JAILER", &jailer),
            ("UNKEY_METALD_DEFAULT_KERNEL", "tiny"),
            ("UNKEY_METALD_DEFAULT_INITRD", ""),
            ("CAIRN_DEV_TOKENS", "1"),
        ],
    )?;
    let kernel = work.join("tiny.elf");
    Guest::line("tick", End::Repeat).write(&kernel)?;
    metald.command(&["asset", "add", "tiny", &kernel.display().to_string(), "--kind", "kernel"])?;
    let disk = work.join("disk.raw");
    std::fs::write(&disk, vec![7; 1 << 20])?;
    metald.command(&["asset", "add", "disk", &disk.display().to_string(), "--kind", "disk"])?;
    let ids: Vec<String> = (0..VMS).map(|at| format!("jail-{at}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let before = count(work, &names)?;
    for (at, id) in names.iter().enumerate() {
        let customer = CUSTOMERS[at % 2];
        metald.command(&["create", id, "--memory", "128MiB", "--disk", "disk", "--customer", customer, "--boot"])?;
    }
    for id in &names {
        metald.wait_console(id, "tick")?;
    }
    confined(work, &names)?;
    open_to_nobody(work)?;
    customers(&metald)?;
    let living = pids("firecracker")?;
    metald.kill()?;
    metald.resume()?;
    for id in &names {
        metald.wait_state(id, "RUNNING")?;
    }
    ensure!(pids("firecracker")? == living, "other processes after a SIGKILL of the daemon");
    metald.command(&["pause", "jail-0"])?;
    metald.command(&["resume", "jail-0"])?;
    metald.command(&["stop", "jail-1", "--force"])?;
    ensure!(metald.state("jail-1")? == "SHUTDOWN", "after a forced stop");
    for id in &names {
        metald.command(&["delete", id, "--force"])?;
    }
    nothing_left(work, &before, &names)
}

/// Every process has a user, a network and a root of its own, and nothing beyond its user's rights. The guide's own clean-up
/// finds each of them by the name of its namespace.
fn confined(work: &Path, ids: &[&str]) -> Result<()> {
    let found = wait::until("ten hypervisors", PATIENCE, LOOK, || {
        Ok(Some(pids("firecracker")?).filter(|pids| pids.len() == VMS))
    })?;
    let (mut users, mut networks) = (Vec::new(), Vec::new());
    for pid in found {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(at.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            ensure!(u64::from_str_radix(&field(capabilities), 16)? == 0, "{capabilities} of {pid}:\n{status}");
        }
        let (uid, gid) = (field("Uid:"), field("Gid:"));
        ensure!(uid == gid && uid.parse::<u32>()? >= 200_000, "user {uid}, group {gid}");
        let root = std::fs::metadata(at.join("root"))?;
        ensure!(root.ino() != std::fs::metadata("/")?.ino(), "its root is the host's");
        ensure!(!at.join("root/etc/passwd").exists(), "the host's files are in its root");
        networks.push(std::fs::read_link(at.join("ns/net"))?);
        users.push(uid);
    }
    for list in [users.len(), networks.len()] {
        ensure!(list == VMS, "{list} of {VMS}");
    }
    users.sort();
    users.dedup();
    networks.sort();
    networks.dedup();
    ensure!((users.len(), networks.len()) == (VMS, VMS), "shared users or networks: {users:?} {networks:?}");
    for id in ids {
        // Written as in the guide, "Network Exhaustion".
        run(Command::new("pgrep").args(["-f", &format!("firecracker.*ns_vm_{id}")]))?;
    }
    let jails = run(Command::new("find").arg(work.join("jails")).args(["-type", "d", "-name", "firecracker"]))?;
    ensure!(jails.is_empty(), "the guide would remove {jails}");
    Ok(())
}

/// The guide's own look ("Security Scanning") finds nothing.
fn open_to_nobody(work: &Path) -> Result<()> {
    for (place, kind) in [("assets", "f"), ("jails", "d"), ("data", "f"), ("logs", "f")] {
        let open = run(Command::new("find").arg(work.join(place)).args(["-type", kind, "-perm", "/o+w", "-ls"]))?;
        ensure!(open.is_empty(), "others can write:\n{open}");
    }
    for (place, kind) in [("data", "f"), ("assets", "f")] {
        let open = run(Command::new("find").arg(work.join(place)).args(["-type", kind, "-perm", "/o+r", "-ls"]))?;
        ensure!(open.is_empty(), "others can read:\n{open}");
    }
    Ok(())
}

/// One customer sees its own VMs and learns nothing of another's.
fn customers(metald: &Metald) -> Result<()> {
    let ask = |method: &str, path: &str, customer: &str| {
        let token = format!("Bearer dev_customer_{customer}");
        http::request(method, &metald.url(path), &[("Authorization", &token)], b"")
    };
    let list: serde_json::Value = serde_json::from_slice(&ask("GET", "/v1/vms", "one")?.body)?;
    let ids: Vec<&str> = list["vms"].as_array().into_iter().flatten().filter_map(|vm| vm["vm_id"].as_str()).collect();
    ensure!(ids == ["jail-0", "jail-2", "jail-4", "jail-6", "jail-8"], "one sees {ids:?}");
    for (method, path) in [
        ("GET", "/v1/vms/jail-1"),
        ("GET", "/v1/vms/jail-1/logs"),
        ("GET", "/v1/vms/jail-1/network"),
        ("POST", "/v1/vms/jail-1/boot"),
        ("POST", "/v1/vms/jail-1/shutdown"),
        ("POST", "/v1/vms/jail-1/console"),
        ("DELETE", "/v1/vms/jail-1"),
    ] {
        let (foreign, missing) = (ask(method, path, "one")?, ask(method, &path.replace("jail-1", "jail-none"), "one")?);
        // The network's rules are for operators, whoever's VM it is.
        let wanted = if path.ends_with("/network") { 403 } else { 404 };
        let statuses = (foreign.status, missing.status);
        ensure!(statuses == (wanted, wanted), "{method} {path}: {statuses:?}");
        ensure!(foreign.text().replace("jail-1", "jail-none") == missing.text(), "{method} {path} tells them apart");
    }
    match ask("GET", "/v1/vms/jail-1/events", "one")?.status {
        200 | 404 => Ok(()),
        other => bail!("events of another's VM: {other}"),
    }
}
