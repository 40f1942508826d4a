//! What a VM's network costs, with a pool and without; printed, not judged.

use std::time::{Duration, Instant};

use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::Slot;
use vm::ports::Edges;

use super::rack::Rack;
use super::{id, open, vm};

/// How many VMs are made each way.
const ROUNDS: u32 = 15;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Medians of ensure, ensure once more, and remove, in milliseconds; VMs from `first` on.
fn measure(rack: &Rack, edges: &HostEdges, first: u32) -> [f64; 3] {
    let (mut made, mut again, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let timed = |times: &mut Vec<Duration>, work: &dyn Fn()| {
        let start = Instant::now();
        work();
        times.push(start.elapsed());
    };
    for slot in first..first + ROUNDS {
        let vm = vm(slot, open());
        timed(&mut made, &|| drop(rack.wait(edges.ensure(&vm, None))));
        timed(&mut again, &|| drop(rack.wait(edges.ensure(&vm, None))));
    }
    for slot in first..first + ROUNDS {
        timed(&mut removed, &|| rack.wait(edges.remove(&id(slot), Slot(slot))));
    }
    [median(made), median(again), median(removed)]
}

#[test]
fn a_pool_saves_the_ruleset() {
    let Some(rack) = Rack::new("a_pool_saves_the_ruleset") else { return };
    let others: u32 = std::env::var("EDGE_TEST_OTHERS").ok().and_then(|others| others.parse().ok()).unwrap_or(10);
    let size = usize::try_from(ROUNDS).unwrap();
    let edges = rack.edges(EdgeSettings { pool: size, ..EdgeSettings::default() });
    for slot in 0..others {
        rack.wait(edges.ensure(&vm(slot, open()), None));
    }
    let without = measure(&rack, &edges, others);
    let start = Instant::now();
    assert_eq!(rack.runtime.block_on(edges.fill_pool()).unwrap(), size);
    let member = start.elapsed().as_secs_f64() * 1000.0 / f64::from(ROUNDS);
    let with = measure(&rack, &edges, others);
    println!("network of one VM, {others} others there, median of {ROUNDS}: ensure, once more, remove");
    println!("without a pool {:8.2} ms {:8.2} ms {:8.2} ms", without[0], without[1], without[2]);
    println!("with a pool    {:8.2} ms {:8.2} ms {:8.2} ms", with[0], with[1], with[2]);
    println!("one of the pool {member:7.2} ms");
}
