//! The network of one VM: ours over netlink, beside the same set-up by programs.

use std::process::Command;
use std::sync::Arc;

use anyhow::anyhow;
use host::network::{LinuxNetworks, Place};
use testkit::process;
use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::{NetworkInterface, Slot, State, Vm, VmSpec};
use vm::ports::{Edges, Stepped};

use crate::commands::{self, Rival};
use crate::table::{self, Times};

/// Times of making and removing.
#[derive(Default)]
struct Pair {
    made: Times,
    removed: Times,
}

/// How a network is made.
#[derive(Clone, Copy)]
enum Way {
    Ours,
    OursPooled,
    Programs { batch: bool },
}

/// In the order in which they take turns.
const WAYS: [Way; 4] = [Way::Ours, Way::OursPooled, Way::Programs { batch: false }, Way::Programs { batch: true }];

pub fn measure(name: &str, rounds: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = EdgeSettings { pool: 1, ..EdgeSettings::default() };
    let edges = HostEdges::new(Arc::new(LinuxNetworks::new()), &Place::Host, settings)?;
    runtime.block_on(edges.open())?;
    let rival = rival(&edges, |step| Ok(runtime.block_on(step)?), name)?;
    let mut pairs = <[Pair; WAYS.len()]>::default();
    let mut again = Times::default();
    // Nothing is removed before all are made: the kernel takes down a namespace in the background, and whoever makes the
    // next one waits for it.
    for (way, vm) in vms(name, rounds)? {
        let made = &mut pairs[way].made;
        match WAYS[way] {
            Way::Ours => made.take(|| Ok(runtime.block_on(edges.ensure(&vm, None))?)).map(drop)?,
            Way::OursPooled => {
                runtime.block_on(edges.fill_pool())?;
                made.take(|| Ok(runtime.block_on(edges.ensure(&vm, None))?))?;
                again.take(|| Ok(runtime.block_on(edges.ensure(&vm, None))?))?;
            }
            Way::Programs { batch } => made.take(|| rival.make(&edges.wire(&vm), batch))?,
        }
    }
    for (way, vm) in vms(name, rounds)? {
        let removed = &mut pairs[way].removed;
        match WAYS[way] {
            Way::Ours | Way::OursPooled => removed.take(|| Ok(runtime.block_on(edges.remove(&vm.id, vm.slot))?))?,
            Way::Programs { batch } => removed.take(|| rival.remove(&edges.wire(&vm), batch))?,
        }
    }
    runtime.block_on(edges.remove(&vm(name, 0)?.id, Slot(0)))?;
    let [without, with, single, batches] = pairs;
    let ours_removed = without.removed.and(&with.removed);
    table::title("networks: namespace, tap, veth, addresses, routes, limits, NAT and permissions of one VM");
    table::line("ip, nft, tc, sysctl: each command a process: make", &single.made);
    table::line("ip -batch, nft -f, tc, sysctl: make", &batches.made);
    table::line("cairn, without a pool: make", &without.made);
    table::line("cairn, from the pool: make", &with.made);
    table::line("cairn: make once more, all is there", &again);
    table::line("ip, nft: each command a process: remove", &single.removed);
    table::line("ip -batch, nft -f: remove", &batches.removed);
    table::line("cairn: remove", &ours_removed);
    for (theirs, other) in [("each command a process", &single), ("ip -batch", &batches)] {
        table::ratio(&format!("make: {theirs} / cairn without a pool"), &other.made, &without.made);
        table::ratio(&format!("make: {theirs} / cairn from the pool"), &other.made, &with.made);
        table::ratio(&format!("remove: {theirs} / cairn"), &other.removed, &ours_removed);
    }
    println!("processes that are started by hand for one VM: {} and {}", rival.processes(false), rival.processes(true));
    Ok(())
}

/// Programs that do what ours does: the ruleset inside is that of one of ours.
fn rival(
    edges: &HostEdges,
    wait: impl Fn(Stepped<'_, vm::ports::Wire>) -> anyhow::Result<vm::ports::Wire>,
    name: &str,
) -> anyhow::Result<Rival> {
    let example = vm(name, 0)?;
    let wire = wait(edges.ensure(&example, None))?;
    let ruleset = process::run(Command::new("nsenter").args([
        &format!("--net={}", wire.namespace_path.display()),
        "nft",
        "list",
        "ruleset",
    ]))?;
    Ok(commands::Rival::new(wire, ruleset))
}

/// All VMs, and which of the ways is theirs. Each round begins with another one, so that none always comes after the same.
fn vms(name: &str, rounds: u32) -> anyhow::Result<Vec<(usize, Vm)>> {
    let ways = u32::try_from(WAYS.len())?;
    let turn = |number: u32| {
        let way = usize::try_from((number + number / ways) % ways)?;
        // The first slot is the example's.
        Ok((way, vm(name, number + 1)?))
    };
    (0..rounds * ways).map(turn).collect()
}

/// A VM that may use the internet, at a slot.
fn vm(name: &str, slot: u32) -> anyhow::Result<Vm> {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let interface = NetworkInterface { egress_internet: true, ..NetworkInterface::default() };
    Ok(Vm {
        id: format!("{name}net-{slot}").parse().map_err(|error| anyhow!("{error}"))?,
        customer: "bench".parse().map_err(|error| anyhow!("{error}"))?,
        spec: VmSpec { network: vec![interface], ..VmSpec::default() },
        state: State::Created,
        reason: String::new(),
        failure: None,
        backend: None,
        slot: Slot(slot),
        mappings: Vec::new(),
        boot_id: None,
        unattended: false,
        restarts: 0,
        started_at: None,
        generation: 1,
        created_at: now,
        updated_at: now,
        operation: None,
    })
}
