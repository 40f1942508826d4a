//! Firecracker in a jail that its own jailer makes.
//!
//! ```text
//! <jails>/bin/firecracker-<version>                    the program, copied once for each version
//! <jails>/firecracker-<version>/<id>/root/             what the process sees as /, its user's
//!     vmlinux, initrd, disks/<disk>                    put there by `jail`
//!     metrics.fifo                                     made by the keeper
//!     firecracker-<version>, dev/, run/ns_vm_<id>.sock made by the jailer and by Firecracker
//! ```
//!
//! The directory of all jails is called after the version, so that a running VM stays with the program that it was started
//! with, and never plain `firecracker`: what the guide clears away by that name (seed 000, "Disk Cleanup") is not a jail.

mod jail;
mod machine;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use firecracker::{Client, Error, State, Step, Version};
use host::Host;

use super::jails::{JailError, Places};
use crate::errors::{HYPERVISOR, HYPERVISOR_MISSING};
use crate::model::{Backend, Vm, VmId};
use crate::ports::{Exit, Hypervisor, Launch, Look, StepError, Stepped, Stray};
use jail::Pinned;

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Firecracker.
    pub firecracker: PathBuf,
    /// Its jailer, of the same version.
    pub jailer: PathBuf,
}

/// Firecracker as a hypervisor of this layer. Clones are the same one.
#[derive(Clone)]
pub struct Firecracker {
    inner: Arc<Inner>,
}

struct Inner {
    programs: Programs,
    places: Places,
    host: Arc<dyn Host>,
    clients: Mutex<HashMap<VmId, Arc<Client>>>,
    pinned: Mutex<Option<Pinned>>,
}

impl Firecracker {
    /// Nothing is touched yet.
    pub fn new(programs: Programs, places: Places, host: Arc<dyn Host>) -> Self {
        let (clients, pinned) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { programs, places, host, clients, pinned }) }
    }

    async fn remove_jail(&self, id: &VmId) -> Result<(), StepError> {
        self.inner.forget(id);
        let removed = id.clone();
        self.blocking(move |inner| jail::remove(inner, &removed)).await?;
        tracing::info!(vm_id = %id, "jailer: jail removed");
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, JailError> + Send + 'static,
    ) -> Result<T, StepError> {
        let inner = self.inner.clone();
        crate::blocking::blocking(move || work(&inner).map_err(JailError::into_step)).await
    }

    /// The client of a VM's process. Its connection is kept.
    async fn client(&self, id: &VmId) -> Result<Arc<Client>, StepError> {
        if let Some(client) = self.inner.known(id) {
            return Ok(client);
        }
        let wanted = id.clone();
        let socket = self.blocking(move |inner| jail::socket(inner, &wanted)).await?;
        let socket = socket.ok_or_else(|| StepError::new(HYPERVISOR, format!("VM {id} has no jail")))?;
        Ok(self.inner.remember(id, Client::new(socket, firecracker::Options::default())))
    }

    /// How the guest is. A process that says it runs another VM is not believed: what lies in a jail belongs to its
    /// user, a socket too.
    async fn seen(&self, id: &VmId) -> Result<(Arc<Client>, Look), StepError> {
        let client = self.client(id).await?;
        let info = client.info().await.map_err(|error| refused(&error))?;
        let look = ours(id, &info)?;
        Ok((client, look))
    }
}

impl Inner {
    fn known(&self, id: &VmId) -> Option<Arc<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn remember(&self, id: &VmId, client: Client) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.entry(id.clone()).or_insert_with(|| Arc::new(client)).clone()
    }

    fn forget(&self, id: &VmId) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn refused(error: &Error) -> StepError {
    StepError::of(HYPERVISOR, error)
}

fn ours(id: &VmId, info: &firecracker::InstanceInfo) -> Result<Look, StepError> {
    if info.id != id.as_str() {
        let reason = format!("the process in the jail of VM {id} says that it is {:?}", info.id);
        return Err(StepError::new(HYPERVISOR, reason));
    }
    Ok(match info.state {
        State::NotStarted => Look::Waiting,
        State::Running => Look::Running,
        State::Paused => Look::Paused,
    })
}

impl Hypervisor for Firecracker {
    fn backend(&self) -> Backend {
        Backend::Firecracker
    }

    fn jail<'a>(&'a self, launch: &'a Launch) -> Stepped<'a, keeper::Order> {
        Box::pin(async move {
            let id = launch.vm.id.clone();
            self.inner.forget(&id);
            let launch = launch.clone();
            let made = self.blocking(move |inner| jail::make(inner, &launch)).await;
            match &made {
                Ok(_) => tracing::info!(vm_id = %id, "jailer: jail made"),
                Err(error) => tracing::warn!(vm_id = %id, %error, "jailer: jail not made"),
            }
            made
        })
    }

    fn ready<'a>(&'a self, vm: &'a Vm, limit: Duration) -> Stepped<'a> {
        Box::pin(async move {
            let client = self.client(&vm.id).await?;
            let info = client.wait_ready(limit).await.map_err(|error| refused(&error))?;
            ours(&vm.id, &info).map(drop)
        })
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Stepped<'a> {
        Box::pin(async move {
            let (client, Look::Waiting) = self.seen(&launch.vm.id).await? else { return Ok(()) };
            let mut config = machine::config(launch)?;
            config.check().map_err(|error| StepError::of(HYPERVISOR, &error))?;
            let applied = match config.apply(&client).await {
                // Told before by a start that was cut off; it can be told only once.
                Err(Error::Refused { step: Step::Metrics, .. }) => {
                    config.metrics = None;
                    config.apply(&client).await
                }
                applied => applied,
            };
            applied.map_err(|error| refused(&error))?;
            match client.start().await {
                Err(error)
                    if error.is_uncertain() && matches!(self.seen(&launch.vm.id).await, Ok((_, Look::Running))) =>
                {
                    Ok(())
                }
                started => started.map_err(|error| refused(&error)),
            }
        })
    }

    fn look<'a>(&'a self, vm: &'a Vm) -> Stepped<'a, Look> {
        Box::pin(async move { Ok(self.seen(&vm.id).await?.1) })
    }

    fn pause<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(async move {
            let (client, _) = self.seen(&vm.id).await?;
            client.pause().await.map_err(|error| refused(&error))
        })
    }

    fn resume<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(async move {
            let (client, _) = self.seen(&vm.id).await?;
            client.resume().await.map_err(|error| refused(&error))
        })
    }

    fn ask_to_end<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(async move {
            let (client, look) = self.seen(&vm.id).await?;
            if look == Look::Paused {
                // A guest that stands still hears nothing.
                client.resume().await.map_err(|error| refused(&error))?;
            }
            client.send_ctrl_alt_del().await.map_err(|error| refused(&error))
        })
    }

    fn unjail<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(self.remove_jail(&vm.id))
    }

    fn judge(&self, exit: Exit) -> Result<(), String> {
        let exit = match exit {
            Exit::Code(code) => firecracker::Exit::of_code(code),
            Exit::Signal(signal) => firecracker::Exit::Signal(signal),
            Exit::Unknown => return Err("nobody saw how Firecracker ended".to_owned()),
        };
        if exit.is_ok() { Ok(()) } else { Err(exit.to_string()) }
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        Box::pin(async move {
            let known = known.to_vec();
            self.blocking(move |inner| jail::strays(inner, &known)).await
        })
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        Box::pin(async move {
            match super::jails::stray_id(stray) {
                Some(id) => self.remove_jail(&id).await,
                None => {
                    let stray = stray.clone();
                    self.blocking(move |inner| jail::remove_program(inner, &stray)).await
                }
            }
        })
    }

    fn check(&self) -> Stepped<'_, String> {
        Box::pin(async move {
            let inner = self.inner.clone();
            crate::blocking::blocking(move || check(&inner)).await
        })
    }
}

/// Asks both programs for their versions.
fn check(inner: &Inner) -> Result<String, StepError> {
    let Programs { firecracker, jailer } = &inner.programs;
    let versions = [("Firecracker", firecracker), ("the jailer", jailer)].map(|(what, program)| {
        let version = jail::version(inner, program).map_err(|error| {
            let error = StepError::of(HYPERVISOR_MISSING, &error);
            let hint = "install a release of github.com/firecracker-microvm/firecracker there, or choose qemu";
            StepError::new(HYPERVISOR_MISSING, format!("{what} cannot be used: {}; {hint}", error.reason))
        })?;
        if version < Version::MINIMUM {
            let reason = format!(
                "{what} {} is {version}, {} is the oldest that can be used",
                program.display(),
                Version::MINIMUM
            );
            return Err(StepError::new(HYPERVISOR_MISSING, reason));
        }
        Ok(version)
    });
    let [firecracker, jailer] = versions;
    let (firecracker, jailer) = (firecracker?, jailer?);
    if firecracker != jailer {
        tracing::warn!(%firecracker, %jailer, "jailer: not of Firecracker's version");
    }
    Ok(firecracker.to_string())
}
