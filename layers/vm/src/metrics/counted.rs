//! Ports that count what goes through them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::VmMetrics;
use crate::model::{Backend, Slot, Vm, VmId};
use crate::ports::{Edges, Exit, ForeignDrop, Hypervisor, Launch, Look, Stepped, Stray, Wire};

/// Networks whose making and removing is counted.
pub(crate) struct CountedEdges {
    pub(crate) edges: Arc<dyn Edges>,
    pub(crate) metrics: Arc<VmMetrics>,
}

impl Edges for CountedEdges {
    fn open(&self) -> Stepped<'_> {
        self.edges.open()
    }

    fn wire(&self, vm: &Vm) -> Wire {
        self.edges.wire(vm)
    }

    fn capacity(&self) -> u32 {
        self.edges.capacity()
    }

    fn ensure<'a>(&'a self, vm: &'a Vm, process: Option<u32>) -> Stepped<'a, Wire> {
        let metrics = &self.metrics;
        counted(self.edges.ensure(vm, process), |is_well, took| {
            if is_well {
                metrics.network_created.inc();
                metrics.network_setup.observe(took.as_secs_f64());
            } else {
                metrics.network_errors.with(["create"]).inc();
            }
        })
    }

    fn remove<'a>(&'a self, id: &'a VmId, slot: Slot) -> Stepped<'a> {
        let metrics = &self.metrics;
        counted(self.edges.remove(id, slot), |is_well, took| {
            if is_well {
                metrics.network_deleted.inc();
                metrics.network_cleanup.observe(took.as_secs_f64());
            } else {
                metrics.network_errors.with(["delete"]).inc();
            }
        })
    }

    fn strays<'a>(&'a self, known: &'a [(VmId, Slot)]) -> Stepped<'a, Vec<Stray>> {
        self.edges.strays(known)
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.edges.remove_stray(stray)
    }

    fn show<'a>(&'a self, vm: Option<&'a Vm>) -> Stepped<'a, serde_json::Value> {
        self.edges.show(vm)
    }

    fn foreign(&self) -> Stepped<'_, Vec<ForeignDrop>> {
        self.edges.foreign()
    }

    fn keep_pool<'a>(&'a self, shutdown: &'a CancellationToken) -> BoxFuture<'a, ()> {
        self.edges.keep_pool(shutdown)
    }
}

/// A hypervisor whose jails and looks are counted.
pub(crate) struct CountedHypervisor {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) metrics: Arc<VmMetrics>,
}

impl Hypervisor for CountedHypervisor {
    fn backend(&self) -> Backend {
        self.hypervisor.backend()
    }

    fn jail<'a>(&'a self, launch: &'a Launch) -> Stepped<'a, keeper::Order> {
        let backend = self.backend();
        counted(self.hypervisor.jail(launch), move |is_well, _| self.metrics.jails.tried(backend, is_well))
    }

    fn ready<'a>(&'a self, vm: &'a Vm, limit: Duration) -> Stepped<'a> {
        let backend = self.backend();
        counted(self.hypervisor.ready(vm, limit), move |is_well, _| self.metrics.processes.tried(backend, is_well))
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Stepped<'a> {
        self.hypervisor.start(launch)
    }

    fn look<'a>(&'a self, vm: &'a Vm) -> Stepped<'a, Look> {
        let backend = self.backend();
        counted(self.hypervisor.look(vm), move |is_well, took| self.metrics.health_check(backend, is_well, took))
    }

    fn pause<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.hypervisor.pause(vm)
    }

    fn resume<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.hypervisor.resume(vm)
    }

    fn ask_to_end<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        self.hypervisor.ask_to_end(vm)
    }

    fn unjail<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        let backend = self.backend();
        counted(self.hypervisor.unjail(vm), move |is_well, _| {
            if is_well {
                self.metrics.cleanups.with([backend.as_str()]).inc();
            }
        })
    }

    fn judge(&self, exit: Exit) -> Result<(), String> {
        self.hypervisor.judge(exit)
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        self.hypervisor.strays(known)
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.hypervisor.remove_stray(stray)
    }

    fn check(&self) -> Stepped<'_, String> {
        self.hypervisor.check()
    }
}

/// Tells how a call ended and how long it took. One that is given up half-way is not counted.
fn counted<'a, T: Send + 'a>(call: Stepped<'a, T>, count: impl FnOnce(bool, Duration) + Send + 'a) -> Stepped<'a, T> {
    async move {
        let started = Instant::now();
        let done = call.await;
        count(done.is_ok(), started.elapsed());
        done
    }
    .boxed()
}
