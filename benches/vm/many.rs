//! Many VMs: a thousand at rest, and two hundred that run under real keepers.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::Sizes;
use crate::client::Client;
use crate::daemon::{self, Daemon};
use crate::table::{self, Times};

const MIB: f64 = (1 << 20) as f64;
/// Lists that are asked for; one takes as long as many shows.
const LISTS: u32 = 100;

pub fn measure(directory: &Path, name: &str, sizes: &Sizes) -> anyhow::Result<()> {
    let mut daemon = Daemon::start(directory)?;
    daemon.add_kernel()?;
    let mut client = daemon.client()?;
    let Sizes { at_rest, live, .. } = *sizes;

    table::title(&format!("many: {at_rest} VMs at rest, then {live} that run (keepers real, hypervisor fake)"));
    client.get("/v1/vms")?;
    let empty = resident(daemon.id())?;
    let mut created = Times::default();
    for number in 0..at_rest {
        let wish = daemon::wish(&format!("{name}rest-{number}"));
        created.take(|| client.post("/v1/vms", &wish))?;
    }
    table::line("create, one after another", &created);
    table::line("  the first tenth of them", &created.tenth(0));
    table::line("  the last tenth of them", &created.tenth(9));
    let rest = resident(daemon.id())?;
    requests(&mut client, &format!("{name}rest-0"), at_rest, sizes.requests)?;
    let after = resident(daemon.id())?;

    let mut booted = Times::default();
    for number in 0..live {
        let id = format!("{name}live-{number}");
        client.post("/v1/vms", &daemon::wish(&id))?;
        booted.take(|| client.post(&format!("/v1/vms/{id}/boot"), &json!({})))?;
    }
    table::line("boot, one after another", &booted);
    requests(&mut client, &format!("{name}live-0"), at_rest + live, sizes.requests)?;
    let running = resident(daemon.id())?;
    let (keepers, kept) = processes("cairn-keeper")?;

    let last = last_event(&mut client)?;
    let mut restart = [Times::default(), Times::default()];
    daemon.kill()?;
    let begun = Instant::now();
    let mut daemon = Daemon::start(directory)?;
    restart[0].since(begun);
    daemon.client()?.events(last, "adopted", live)?;
    restart[1].since(begun);
    table::line("SIGKILL, new daemon: start to API answers", &restart[0]);
    table::line("SIGKILL, new daemon: start to all adopted", &restart[1]);
    daemon.client()?.get("/v1/vms")?;
    let anew = resident(daemon.id())?;

    println!("\nresident memory");
    let thousand = |bytes: u64, count: u32| bytes as f64 / MIB / f64::from(count) * 1000.0;
    table::figure("daemon, no VM", empty as f64 / MIB, "MiB");
    table::figure(&format!("daemon, {at_rest} at rest"), rest as f64 / MIB, "MiB");
    table::figure("  for 1,000 VMs at rest", thousand(rest.saturating_sub(empty), at_rest), "MiB");
    table::figure("  after its lists", after as f64 / MIB, "MiB");
    table::figure(&format!("daemon, {live} running besides"), running as f64 / MIB, "MiB");
    table::figure("  for 1,000 running VMs", thousand(running.saturating_sub(after), live), "MiB");
    table::figure("daemon started anew, all adopted", anew as f64 / MIB, "MiB");
    table::figure(
        &format!("one of {keepers} keepers, its share (PSS)"),
        kept as f64 / MIB / keepers.max(1) as f64,
        "MiB",
    );
    daemon.kill()
}

/// Lists and shows on a connection that is kept.
fn requests(client: &mut Client, id: &str, known: u32, count: u32) -> anyhow::Result<()> {
    let (mut lists, mut pages, mut shows) = (Times::default(), Times::default(), Times::default());
    let mut bytes = 0;
    for _ in 0..count.min(LISTS) {
        bytes = lists.take(|| client.get("/v1/vms"))?.len();
        pages.take(|| client.get("/v1/vms?page_size=50"))?;
    }
    let path = format!("/v1/vms/{id}");
    for _ in 0..count {
        shows.take(|| client.get(&path))?;
    }
    table::line(&format!("list of {known} ({} KiB)", bytes >> 10), &lists);
    table::line(&format!("page of 50 of {known}"), &pages);
    table::line(&format!("show, {known} there"), &shows);
    Ok(())
}

/// Number of the newest event.
fn last_event(client: &mut Client) -> anyhow::Result<i64> {
    let mut last = 0;
    loop {
        let answer: Value = serde_json::from_slice(&client.get(&format!("/v1/events?after={last}&limit=1000"))?)?;
        let next = answer["next_after"].as_i64().context("next_after is missing")?;
        if next == last {
            return Ok(last);
        }
        last = next;
    }
}

/// Memory of a process that is in RAM, in bytes.
fn resident(id: u32) -> anyhow::Result<u64> {
    field(&format!("/proc/{id}/status"), "VmRSS:").context("the daemon has no memory")
}

/// How many processes are called so, and how much memory is theirs, in bytes; what they share is divided.
fn processes(name: &str) -> anyhow::Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            count += 1;
            bytes += field(&path.join("smaps_rollup").display().to_string(), "Pss:").unwrap_or_default();
        }
    }
    Ok((count, bytes))
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
