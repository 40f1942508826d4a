//! QEMU's microvm: under KVM where Firecracker is not wanted, or emulated where KVM cannot run a kernel.
//!
//! ```text
//! <jails>/qemu/<id>/                     the VM's user's, and the process's working directory
//!     vmlinux, initrd, disks/<disk>      put there by `jail`
//!     qmp.sock                           made by QEMU
//! ```
//!
//! The process has a user, a network namespace and a control group of its own, no capability and QEMU's own seccomp
//! filter; unlike Firecracker's it sees the host's file system, as that user.

mod line;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::{Command, FileError, Host};
use keeper::{Limits, Order, User};
use qmp::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::jails::{self, JailError, Owner, Places};
use crate::errors::{HYPERVISOR, HYPERVISOR_MISSING};
use crate::model::{Backend, Vm, VmId};
use crate::ports::{Exit, Hypervisor, Launch, Look, StepError, Stepped, Stray};
pub use line::Accelerator;
use line::{INITRD, KERNEL, SOCKET};

/// How long QEMU may take to answer a command. It answers within milliseconds, also while a processor is emulated.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pauses between two looks at whether the process listens.
const PAUSE: Duration = Duration::from_millis(20);

/// Oldest version that is used: the one of the oldest Debian that is supported.
const MINIMUM: (u32, u32) = (5, 2);

/// Memory that QEMU itself may use, in bytes: its own, and translated code where the processor is emulated.
const OVERHEAD: u64 = 256 << 20;

/// Threads beside the processors; those of disks come and go.
const THREADS: u64 = 80;

/// Most open files.
const OPEN_FILES: u64 = 1024;

/// Device nodes that QEMU opens as the VM's user.
const TUN: &str = "/dev/net/tun";
const KVM: &str = "/dev/kvm";

/// QEMU as a hypervisor of this layer. Clones are the same one.
#[derive(Clone)]
pub struct Qemu {
    inner: Arc<Inner>,
}

struct Inner {
    program: PathBuf,
    places: Places,
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
    host: Arc<dyn Host>,
}

impl Qemu {
    /// `program` is `qemu-system-x86_64`, as an absolute path. Nothing is touched yet.
    pub fn new(program: PathBuf, places: Places, accelerator: Accelerator, host: Arc<dyn Host>) -> Self {
        let emulated = accelerator == Accelerator::Tcg;
        let tsc_khz = if emulated { line::host_tsc_khz() } else { None };
        Self { inner: Arc::new(Inner { program, places, accelerator, tsc_khz, host }) }
    }

    async fn remove_jail(&self, id: &VmId) -> Result<(), StepError> {
        let removed = id.clone();
        self.blocking(move |inner| jails::remove(inner.host.as_ref(), &inner.directory(&removed))).await?;
        tracing::info!(vm_id = %id, "jailer: directory removed");
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, JailError> + Send + 'static,
    ) -> Result<T, StepError> {
        let inner = self.inner.clone();
        crate::blocking::blocking(move || work(&inner).map_err(JailError::into_step)).await
    }

    /// A connection to a VM's process, which has said that it is that VM's. One for each call: QEMU serves one at a time,
    /// and a daemon that is replaced must not stand in its successor's way.
    async fn client(&self, id: &VmId) -> Result<Client, StepError> {
        let socket = self.inner.directory(id).join(SOCKET);
        let mut client = Client::connect(&socket, DEADLINE).await.map_err(|error| refused(&error))?;
        let answer = execute(&mut client, "query-name", None).await?;
        let name = answer["name"].as_str().unwrap_or_default();
        if name != line::name(id) {
            let reason = format!("the process in the directory of VM {id} says that it is {name:?}");
            return Err(StepError::new(HYPERVISOR, reason));
        }
        Ok(client)
    }

    /// Gives one command.
    async fn command(&self, id: &VmId, command: &str) -> Result<(), StepError> {
        let mut client = self.client(id).await?;
        execute(&mut client, command, None).await.map(drop)
    }
}

impl Inner {
    fn directory(&self, id: &VmId) -> PathBuf {
        self.places.jails.join("qemu").join(id.as_str())
    }

    /// Puts the files in place and says what is to be run.
    fn make(&self, launch: &Launch) -> Result<Order, JailError> {
        let (id, owner) = (&launch.vm.id, Owner { uid: launch.uid, gid: launch.gid });
        jails::check_kernel(&launch.kernel)?;
        let argv = line::vector(&jails::text(&self.program)?, launch, self.accelerator, self.tsc_khz);
        self.check_devices()?;
        let directory = self.directory(id);
        jails::remove(self.host.as_ref(), &directory)?;
        // Others may pass, and not look around.
        jails::directory(&self.places.jails.join("qemu"), 0o711, None)?;
        jails::directory(&directory, 0o700, Some(owner))?;
        jails::share(&launch.kernel, &directory.join(KERNEL), owner)?;
        if let Some(initrd) = &launch.initrd {
            jails::share(initrd, &directory.join(INITRD), owner)?;
        }
        jails::directory(&directory.join("disks"), 0o755, None)?;
        for file in &launch.disks {
            let inside = directory.join(line::disk(&file.id));
            jails::give(self.host.as_ref(), &file.path, &inside, owner, file.read_only)?;
        }
        let spec = &launch.vm.spec;
        Ok(Order {
            name: id.to_string(),
            argv,
            environment: Default::default(),
            directory,
            user: Some(User { uid: launch.uid, gid: launch.gid }),
            network_namespace: Some(launch.wire.namespace_path.clone()),
            limits: Limits {
                memory_bytes: Some((spec.memory_mib() << 20) + OVERHEAD),
                cpu_millis: Some(u64::from(spec.vcpus()) * 1000),
                tasks: Some(u64::from(spec.vcpus()) + THREADS),
            },
            open_files: Some(OPEN_FILES),
            console: self.places.console(id),
            console_limit: self.places.console_limit,
            metrics: None,
            metrics_owner: None,
        })
    }

    /// The VM's user has no capability, so the devices have to be open to it. Whoever may open the tun device can use
    /// only those taps that are the user's own, which is why udev's rules open it to everybody; here it is done where
    /// there is no udev. The KVM device is the administrator's to open.
    fn check_devices(&self) -> Result<(), JailError> {
        use std::os::unix::fs::PermissionsExt;
        let open = |path: &str| -> Result<bool, JailError> {
            let metadata = std::fs::metadata(path).map_err(FileError::at("look at", path.as_ref()))?;
            Ok(metadata.permissions().mode() & 0o006 == 0o006)
        };
        if !open(TUN)? {
            let everybody = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(TUN, everybody).map_err(FileError::at("set the mode of", TUN.as_ref()))?;
            tracing::info!(device = TUN, "jailer: device opened to the users of VMs");
        }
        if self.accelerator == Accelerator::Kvm && !open(KVM)? {
            return Err(JailError::Device { path: KVM.into() });
        }
        Ok(())
    }
}

fn refused(error: &qmp::Error) -> StepError {
    StepError::of(HYPERVISOR, error)
}

async fn execute(client: &mut Client, command: &str, arguments: Option<Value>) -> Result<Value, StepError> {
    client.execute(command, arguments).await.map_err(|error| refused(&error))
}

/// How the guest is.
async fn look(client: &mut Client) -> Result<Look, StepError> {
    let answer = execute(client, "query-status", None).await?;
    read_status(answer["status"].as_str().unwrap_or_default()).map_err(|reason| StepError::new(HYPERVISOR, reason))
}

/// What a state is (`RunState` in QEMU's `qapi/run-state.json`); Err is a sentence about one that nobody asked for.
fn read_status(word: &str) -> Result<Look, String> {
    match word {
        "prelaunch" => Ok(Look::Waiting),
        "running" => Ok(Look::Running),
        "paused" | "suspended" => Ok(Look::Paused),
        "internal-error" => Err("the guest's processor met an instruction that it cannot execute".to_owned()),
        "io-error" => Err("the guest stands still: a disk of it cannot be read or written".to_owned()),
        "guest-panicked" => Err("the guest panicked".to_owned()),
        other => Err(format!("QEMU is in the state {other:?}")),
    }
}

impl Hypervisor for Qemu {
    fn backend(&self) -> Backend {
        Backend::Qemu
    }

    fn jail<'a>(&'a self, launch: &'a Launch) -> Stepped<'a, keeper::Order> {
        Box::pin(async move {
            let id = launch.vm.id.clone();
            let launch = launch.clone();
            let made = self.blocking(move |inner| inner.make(&launch)).await;
            match &made {
                Ok(_) => tracing::info!(vm_id = %id, "jailer: directory made"),
                Err(error) => tracing::warn!(vm_id = %id, %error, "jailer: directory not made"),
            }
            made
        })
    }

    fn ready<'a>(&'a self, vm: &'a Vm, limit: Duration) -> Stepped<'a> {
        Box::pin(async move {
            let end = Instant::now() + limit;
            let socket = self.inner.directory(&vm.id).join(SOCKET);
            loop {
                // No event says this: the socket is made some time after the process began.
                match Client::connect(&socket, DEADLINE).await {
                    Err(qmp::Error::Connect { .. }) if Instant::now() + PAUSE < end => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(refused(&error)),
                    Ok(_) => break,
                }
            }
            self.client(&vm.id).await.map(drop)
        })
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Stepped<'a> {
        Box::pin(async move {
            let mut client = self.client(&launch.vm.id).await?;
            match look(&mut client).await? {
                Look::Waiting => execute(&mut client, "cont", None).await.map(drop),
                Look::Running | Look::Paused => Ok(()),
            }
        })
    }

    fn look<'a>(&'a self, vm: &'a Vm) -> Stepped<'a, Look> {
        Box::pin(async move { look(&mut self.client(&vm.id).await?).await })
    }

    fn pause<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(self.command(&vm.id, "stop"))
    }

    fn resume<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(self.command(&vm.id, "cont"))
    }

    /// Presses the power button, and Ctrl-Alt-Del for guests that have no driver for it. Whatever a guest does about
    /// either ends it: a restart ends the process too.
    fn ask_to_end<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(async move {
            let mut client = self.client(&vm.id).await?;
            if look(&mut client).await? == Look::Paused {
                // A guest that stands still hears nothing.
                execute(&mut client, "cont", None).await?;
            }
            execute(&mut client, "system_powerdown", None).await?;
            let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
            execute(&mut client, "send-key", Some(json!({ "keys": keys }))).await.map(drop)
        })
    }

    fn unjail<'a>(&'a self, vm: &'a Vm) -> Stepped<'a> {
        Box::pin(self.remove_jail(&vm.id))
    }

    fn judge(&self, exit: Exit) -> Result<(), String> {
        match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("QEMU ended with exit code {code}; its last words are on the console")),
            Exit::Signal(9) => Err("QEMU was killed, by force or for want of memory (signal 9)".to_owned()),
            Exit::Signal(31) => Err("the seccomp filter caught a forbidden system call of QEMU (signal 31)".to_owned()),
            Exit::Signal(signal) => Err(format!("QEMU was ended by signal {signal}")),
            Exit::Unknown => Err("nobody saw how QEMU ended".to_owned()),
        }
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        Box::pin(async move {
            let known = known.to_vec();
            self.blocking(move |inner| jails::strays(&inner.places.jails.join("qemu"), &known)).await
        })
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        Box::pin(async move {
            match jails::stray_id(stray) {
                Some(id) => self.remove_jail(&id).await,
                None => Ok(()),
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

/// Asks the program for its version.
fn check(inner: &Inner) -> Result<String, StepError> {
    let program = inner.program.display();
    let command = Command::new(inner.program.to_string_lossy()).arg("--version");
    let output = inner.host.run(&command).map_err(|error| {
        let reason = cairn_core::chain(&error);
        let hint = "install the package qemu-system-x86";
        StepError::new(HYPERVISOR_MISSING, format!("QEMU cannot be used: {program}: {reason}; {hint}"))
    })?;
    let text = output.text();
    let (version, number) = line::version(&text)
        .ok_or_else(|| StepError::new(HYPERVISOR_MISSING, format!("{program} --version said something unknown")))?;
    if number < MINIMUM {
        let (major, minor) = MINIMUM;
        let reason = format!("QEMU {program} is {version}, {major}.{minor} is the oldest that can be used");
        return Err(StepError::new(HYPERVISOR_MISSING, reason));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_nobody_asked_for_are_said() {
        for (word, look) in [("prelaunch", Look::Waiting), ("running", Look::Running), ("paused", Look::Paused)] {
            assert_eq!(read_status(word), Ok(look));
        }
        for (word, said) in [("internal-error", "cannot execute"), ("io-error", "disk"), ("watchdog", "\"watchdog\"")] {
            assert!(read_status(word).unwrap_err().contains(said), "{word}");
        }
    }
}
