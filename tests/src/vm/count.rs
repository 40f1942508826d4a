//! What is on the host, counted without Cairn: nothing here asks the daemon.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use testkit::process::run;
use testkit::wait;

/// What VMs leave on a host while they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Names of network namespaces, apart from those that were made ahead.
    namespaces: BTreeSet<String>,
    /// Links of VMs on the host.
    links: BTreeSet<String>,
    /// Routes to VMs.
    routes: BTreeSet<String>,
    /// Elements of sets and maps in the packet filter.
    elements: usize,
    /// Processes of hypervisors and keepers.
    processes: BTreeSet<String>,
    /// Jails.
    jails: BTreeSet<String>,
    /// Directories of VMs and keepers.
    directories: BTreeSet<String>,
    /// Control groups with a VM's name.
    groups: BTreeSet<String>,
}

/// Counts. `names` are the ids of VMs whose control groups are looked for.
pub(crate) fn count(work: &Path, names: &[&str]) -> Result<Count> {
    let words = |command: &mut Command, wanted: &dyn Fn(&str) -> bool| -> Result<BTreeSet<String>> {
        Ok(run(command)?.split_whitespace().filter(|word| wanted(word)).map(str::to_owned).collect())
    };
    let rules = run(Command::new("nft").args(["-j", "list", "ruleset"]))?;
    let rules: serde_json::Value = serde_json::from_str(&rules)?;
    let objects = rules["nftables"].as_array().cloned().unwrap_or_default();
    let of = |object: &serde_json::Value, kind: &str| object[kind]["elem"].as_array().map_or(0, Vec::len);
    Ok(Count {
        namespaces: words(Command::new("ip").args(["netns", "list"]), &|word| word.starts_with("ns_vm_"))?,
        links: words(Command::new("ip").args(["-o", "link"]), &|word| word.starts_with("tapv"))?,
        routes: words(Command::new("ip").args(["route"]), &|word| word.starts_with("tapv"))?,
        // Denials are remembered for a while by design; they are counted by their own set.
        elements: objects
            .iter()
            .filter(|object| !object["set"]["name"].as_str().is_some_and(|name| name.contains("den")))
            .map(|object| of(object, "set") + of(object, "map"))
            .sum(),
        processes: processes()?,
        jails: jails(work),
        directories: below(&work.join("data/vms")).into_iter().chain(below(&work.join("data/keepers"))).collect(),
        groups: groups(names)?,
    })
}

/// Jails of every hypervisor and version; `bin` holds the pinned programs.
fn jails(work: &Path) -> BTreeSet<String> {
    let kinds = below(&work.join("jails")).into_iter().filter(|kind| kind != "bin");
    kinds.flat_map(|kind| below(&work.join("jails").join(kind))).collect()
}

fn below(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn processes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // A zombie is nobody's VM any more.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let zombie = status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let ours = ["cairn-keeper", "qemu-system-x86", "firecracker"].iter().any(|name| command.starts_with(name));
        if !zombie && ours {
            found.insert(format!("{} {}", command.trim(), entry.file_name().to_string_lossy()));
        }
    }
    Ok(found)
}

fn groups(names: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for name in names {
        let list = run(Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{name}*")]))?;
        found.extend(list.lines().map(str::to_owned));
    }
    Ok(found)
}

/// Waits until nothing is left: the kernel takes namespaces apart a little later than it says.
pub(crate) fn nothing_left(work: &Path, before: &Count, names: &[&str]) -> Result<()> {
    let nothing = Count { elements: before.elements, ..Count::default() };
    let look = || Ok(Some(count(work, names)?).filter(|now| *now == nothing).map(drop));
    let left = wait::until("nothing to be left", testkit::metald::PATIENCE, testkit::metald::LOOK, look);
    if left.is_err() {
        let now = count(work, names)?;
        ensure!(now == nothing, "left: {now:?}, expected: {nothing:?}");
    }
    Ok(())
}

/// Processes whose name begins so: Firecracker's has its version at the end.
pub(crate) fn pids(name: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is = status.lines().next().is_some_and(|line| line.trim_start_matches("Name:").trim().starts_with(name));
        let zombie = status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        if is && !zombie {
            found.extend(entry.file_name().to_string_lossy().parse::<i32>());
        }
    }
    found.sort_unstable();
    Ok(found)
}
