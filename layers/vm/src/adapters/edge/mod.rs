//! Networks of VMs: a namespace each, with a tap inside and one routed link to the host (decisions 32 and 33).
//!
//! Everything of a VM follows from its slot. Inside, every namespace is the same (`inside`); the VM's own address is a
//! 1:1 translation at its edge. On the host the base ruleset is loaded once (`rulesets`), and a VM is some elements of
//! its sets (`wanted`), kept in `base`. The host's end is a routed link, or an isolated port of a bridge where the
//! settings name one: then L2 leads nowhere but to the host, which routes as before.

mod base;
mod core;
mod error;
mod inside;
mod layout;
mod link;
mod pool;
mod rulesets;
mod settings;
mod strays;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use host::network::{Networks, Place};
use tokio_util::sync::CancellationToken;

use crate::model::{Slot, Vm, VmId};
use crate::ports::{Edges, ForeignDrop, StepError, Stepped, Stray, Wire};
use core::Core;
use error::EdgeError;

pub use settings::EdgeSettings;

/// How long the kernel has to let go of a link.
const LINGERS: Duration = Duration::from_secs(10);
/// How long until it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long until the pool is tried again after it could not be filled.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// [`Edges`] by the networks of a host.
#[derive(Clone)]
pub struct HostEdges {
    core: Arc<Core>,
}

impl HostEdges {
    /// The networks of VMs on a host: `place` is where the host's ends of links are, [`Place::Host`] outside tests.
    /// Nothing is changed yet.
    ///
    /// # Errors
    /// When the settings cannot be, or the bridge they name is not there or has no address.
    pub fn new(networks: Arc<dyn Networks>, place: &Place, settings: EdgeSettings) -> Result<Self, StepError> {
        Ok(Self { core: Arc::new(Core::new(networks, place, settings)?) })
    }

    /// Where VMs have their addresses: the settings' subnets, or those of the bridge.
    pub fn subnets(&self) -> Vec<ipnet::IpNet> {
        let layout = &self.core.layout;
        vec![layout.subnet4().into(), layout.subnet6().into()]
    }

    /// Does a step on a thread that may block.
    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, StepError> {
        let core = Arc::clone(&self.core);
        let done = tokio::task::spawn_blocking(move || work(&core)).await;
        Ok(done.unwrap_or(Err(EdgeError::Ended))?)
    }

    /// Makes namespaces until the pool is full. Returns how many were made.
    ///
    /// # Errors
    /// When one cannot be made.
    pub async fn fill_pool(&self) -> Result<usize, StepError> {
        self.step(Core::fill_pool).await
    }

    /// Waits until the kernel has let go of a VM's link.
    async fn gone(&self, slot: Slot) -> Result<(), StepError> {
        let gone = async {
            while self.step(move |core| core.has_link(slot)).await? {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        let lingers = |_| StepError::from(EdgeError::Lingers(slot.link(), LINGERS.as_secs()));
        tokio::time::timeout(LINGERS, gone).await.map_err(lingers)?
    }
}

impl Edges for HostEdges {
    fn open(&self) -> Stepped<'_> {
        Box::pin(self.step(Core::open))
    }

    fn wire(&self, vm: &Vm) -> Wire {
        self.core.wire(vm)
    }

    fn capacity(&self) -> u32 {
        self.core.layout.capacity()
    }

    fn ensure<'a>(&'a self, vm: &'a Vm, process: Option<u32>) -> Stepped<'a, Wire> {
        let vm = vm.clone();
        Box::pin(self.step(move |core| core.ensure(&vm, process)))
    }

    fn remove<'a>(&'a self, id: &'a VmId, slot: Slot) -> Stepped<'a> {
        Box::pin(async move {
            let id = id.clone();
            self.step(move |core| core.remove(&id, slot)).await?;
            self.gone(slot).await
        })
    }

    fn strays<'a>(&'a self, known: &'a [(VmId, Slot)]) -> Stepped<'a, Vec<Stray>> {
        let known = known.to_vec();
        Box::pin(self.step(move |core| core.strays(&known)))
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        let stray = stray.clone();
        Box::pin(self.step(move |core| core.remove_stray(&stray)))
    }

    fn show<'a>(&'a self, vm: Option<&'a Vm>) -> Stepped<'a, serde_json::Value> {
        let vm = vm.cloned();
        Box::pin(self.step(move |core| core.show(vm.as_ref())))
    }

    fn foreign(&self) -> Stepped<'_, Vec<ForeignDrop>> {
        Box::pin(self.step(Core::foreign))
    }

    fn keep_pool<'a>(&'a self, shutdown: &'a CancellationToken) -> BoxFuture<'a, ()> {
        let keep = async {
            loop {
                match self.fill_pool().await {
                    Ok(_) => self.core.pool.taken.notified().await,
                    Err(error) => {
                        tracing::warn!(error = %error, "the pool of namespaces cannot be filled");
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                }
            }
        };
        Box::pin(async move {
            shutdown.run_until_cancelled(keep).await;
        })
    }
}
