//! The layer with what stands around its API: tokens, the audit log, metrics.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use host::LockFile;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::access::Tokens;
use crate::assets::Assets;
use crate::audit::AuditLog;
use crate::metrics::{CountedEdges, CountedHypervisor, VmMetrics};
use crate::model::Event;
use crate::service::{Limits, Ports, Service};
use crate::store::VmStore;

/// What the handlers work with.
pub struct Api {
    /// The layer.
    pub service: Arc<Service>,
    /// Who may come in.
    pub tokens: Tokens,
    /// What was changed.
    pub audit: AuditLog,
    /// Numbers.
    pub metrics: Arc<VmMetrics>,
    /// From before anything runs, so that no adoption is missed.
    news: Mutex<Option<Receiver<Event>>>,
    /// Keeps other daemons from these VMs.
    only: OnceLock<LockFile>,
}

impl Api {
    /// Puts the layer together, so that it counts what happens. Nothing runs until [`crate::run`] is called.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn open(
        store: VmStore,
        assets: Assets,
        asset_directory: PathBuf,
        limits: Limits,
        ports: Ports,
        (tokens, audit, metrics): (Tokens, AuditLog, Arc<VmMetrics>),
    ) -> Result<Arc<Self>, crate::store::Error> {
        metrics.vm_limit.set(limits.most_vms.into());
        let ports = Ports {
            edges: Arc::new(CountedEdges { edges: ports.edges, metrics: Arc::clone(&metrics) }),
            hypervisors: ports
                .hypervisors
                .into_iter()
                .map(|hypervisor| Arc::new(CountedHypervisor { hypervisor, metrics: Arc::clone(&metrics) }) as _)
                .collect(),
            ..ports
        };
        let observer = Arc::clone(&metrics);
        let observe = Box::new(move |happening: &crate::run::Happening<'_>| observer.happened(happening));
        let service = Service::open(store, assets, asset_directory, limits, ports, observe).await?;
        let news = Mutex::new(Some(service.watch_events()));
        let api = Self { service, tokens, audit, metrics, news, only: OnceLock::new() };
        api.count();
        Ok(Arc::new(api))
    }

    /// Holds a lock for as long as this lives.
    pub(crate) fn hold(&self, lock: Option<LockFile>) {
        if let Some(lock) = lock {
            // It is given once.
            let _ = self.only.set(lock);
        }
    }

    /// Counts events, and keeps the gauges right after each, until `shutdown`.
    pub async fn keep_gauges(&self, shutdown: &CancellationToken) {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut news = news.unwrap_or_else(|| self.service.watch_events());
        loop {
            self.count();
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = news.recv() => event,
            };
            match event.as_ref().map(|event| event.kind.as_str()) {
                Ok("restart") => {
                    self.metrics.restarts.inc();
                }
                Ok("adopted") => {
                    self.metrics.adopted.inc();
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn count(&self) {
        self.metrics.set_active(&self.service.active_vms());
        let mut states = BTreeMap::new();
        for vm in self.service.vms.all() {
            *states.entry(vm.state.as_str()).or_insert(0) += 1;
        }
        let used = states.values().sum::<u64>();
        self.metrics.set_states(&states);
        self.metrics.set_addresses(u32::try_from(used).unwrap_or(u32::MAX), self.service.context.edges.capacity());
        self.metrics.maintenance.set(self.service.maintenance().into());
    }
}
