//! Everything of one VM, and the order in which Firecracker takes it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::model::{
    Balloon, BootSource, DeviceId, Drive, Entropy, HugePages, Logger, MachineConfig, Metrics, MmdsConfig,
    NetworkInterface, Serial, Vsock,
};

/// Processors that Firecracker gives a VM at most.
const MOST_VCPUS: u8 = 32;

/// Least context id of a guest; those below are taken (vsock(7)).
const LEAST_CID: u32 = 3;

/// One VM, ready to be started once it is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the process logs to.
    pub logger: Option<Logger>,
    /// Where metrics lines go.
    pub metrics: Option<Metrics>,
    /// Processors and memory.
    pub machine: MachineConfig,
    /// Processor features, in Firecracker's form.
    pub cpu: Option<Value>,
    /// What is booted.
    pub boot: BootSource,
    /// Disks, in the guest's order; the root device becomes the first one wherever it stands.
    pub drives: Vec<Drive>,
    /// Network interfaces, in the guest's order.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// Metadata service, and what it holds at first.
    pub mmds: Option<(MmdsConfig, Value)>,
    /// Memory balloon.
    pub balloon: Option<Balloon>,
    /// Source of randomness.
    pub entropy: Option<Entropy>,
    /// Where the serial console goes.
    pub serial: Option<Serial>,
}

/// A configuration that Firecracker would refuse, or start as something else than it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Number of processors.
    #[error("{count} virtual processors: 1 to {MOST_VCPUS} are possible, with SMT 1 or an even number")]
    Vcpus {
        /// What was asked for.
        count: u8,
    },
    /// Amount of memory.
    #[error("{mib} MiB of memory: at least 1, and an even number with huge pages")]
    Memory {
        /// What was asked for, MiB.
        mib: u64,
    },
    /// Two devices of one kind have one name.
    #[error("two devices are called {id}")]
    DuplicateId {
        /// The name.
        id: DeviceId,
    },
    /// The guest can boot from one disk.
    #[error("drives {first} and {second} both are the root device")]
    TwoRoots {
        /// One of them.
        first: DeviceId,
        /// The other.
        second: DeviceId,
    },
    /// The metadata service names an interface that is not there, or none.
    #[error("the metadata service needs interfaces that exist, not {id:?}")]
    MmdsInterface {
        /// The name, when it was not none.
        id: Option<DeviceId>,
    },
    /// The guest's context id.
    #[error("vsock context id {cid}: {LEAST_CID} is the least")]
    GuestCid {
        /// What was asked for.
        cid: u32,
    },
}

impl Config {
    /// The least: processors, memory and a kernel.
    pub fn new(machine: MachineConfig, boot: BootSource) -> Self {
        Self {
            logger: None,
            metrics: None,
            machine,
            cpu: None,
            boot,
            drives: Vec::new(),
            network_interfaces: Vec::new(),
            vsock: None,
            mmds: None,
            balloon: None,
            entropy: None,
            serial: None,
        }
    }

    /// Finds what can be seen without a process.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        let MachineConfig { vcpu_count: count, mem_size_mib: mib, smt, huge_pages, .. } = self.machine;
        if count == 0 || count > MOST_VCPUS || (smt && count > 1 && count % 2 == 1) {
            return Err(ConfigError::Vcpus { count });
        }
        if mib == 0 || (huge_pages != HugePages::None && mib % 2 == 1) {
            return Err(ConfigError::Memory { mib });
        }
        distinct(self.drives.iter().map(|drive| &drive.drive_id))?;
        distinct(self.network_interfaces.iter().map(|interface| &interface.iface_id))?;
        let mut roots = self.drives.iter().filter(|drive| drive.is_root_device);
        if let (Some(first), Some(second)) = (roots.next(), roots.next()) {
            let (first, second) = (first.drive_id.clone(), second.drive_id.clone());
            return Err(ConfigError::TwoRoots { first, second });
        }
        if let Some(Vsock { guest_cid: cid, .. }) = self.vsock
            && cid < LEAST_CID
        {
            return Err(ConfigError::GuestCid { cid });
        }
        self.check_mmds()
    }

    fn check_mmds(&self) -> Result<(), ConfigError> {
        let Some((mmds, _)) = &self.mmds else { return Ok(()) };
        if mmds.network_interfaces.is_empty() {
            return Err(ConfigError::MmdsInterface { id: None });
        }
        let known = |id: &DeviceId| self.network_interfaces.iter().any(|interface| interface.iface_id == *id);
        match mmds.network_interfaces.iter().find(|id| !known(id)) {
            Some(id) => Err(ConfigError::MmdsInterface { id: Some(id.clone()) }),
            None => Ok(()),
        }
    }

    /// Tells a fresh process all of it: first where to log, so that what follows can be read, then what is needed to
    /// boot, then the devices, the metadata service after the interfaces that it names. Nothing is started.
    ///
    /// # Errors
    /// The first call that failed; the process has part of the configuration then and is best ended.
    pub async fn apply(&self, client: &Client) -> Result<(), Error> {
        if let Some(logger) = &self.logger {
            client.put_logger(logger).await?;
        }
        if let Some(metrics) = &self.metrics {
            client.put_metrics(metrics).await?;
        }
        client.put_machine_config(&self.machine).await?;
        if let Some(cpu) = &self.cpu {
            client.put_cpu_config(cpu).await?;
        }
        client.put_boot_source(&self.boot).await?;
        let (roots, others): (Vec<_>, Vec<_>) = self.drives.iter().partition(|drive| drive.is_root_device);
        for drive in roots.into_iter().chain(others) {
            client.put_drive(drive).await?;
        }
        for interface in &self.network_interfaces {
            client.put_network_interface(interface).await?;
        }
        if let Some(vsock) = &self.vsock {
            client.put_vsock(vsock).await?;
        }
        if let Some((mmds, contents)) = &self.mmds {
            client.put_mmds_config(mmds).await?;
            client.put_metadata(contents).await?;
        }
        if let Some(balloon) = &self.balloon {
            client.put_balloon(balloon).await?;
        }
        if let Some(entropy) = &self.entropy {
            client.put_entropy(entropy).await?;
        }
        if let Some(serial) = &self.serial {
            client.put_serial(serial).await?;
        }
        Ok(())
    }
}

fn distinct<'a>(ids: impl Iterator<Item = &'a DeviceId>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(ConfigError::DuplicateId { id: id.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CacheType, MmdsVersion};

    fn config() -> Config {
        let machine = MachineConfig {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
        };
        let boot = BootSource { kernel_image_path: "/kernel".into(), initrd_path: None, boot_args: None };
        Config::new(machine, boot)
    }

    fn drive(id: &str, is_root_device: bool) -> Drive {
        Drive {
            drive_id: DeviceId::new(id).unwrap(),
            path_on_host: "/disk".into(),
            is_root_device,
            is_read_only: false,
            partuuid: None,
            cache_type: CacheType::Unsafe,
            io_engine: None,
            rate_limiter: None,
        }
    }

    #[test]
    fn processors_and_memory_have_limits() {
        for (count, smt, good) in [
            (0, false, false),
            (1, true, true),
            (3, false, true),
            (3, true, false),
            (32, true, true),
            (33, false, false),
        ] {
            let mut config = config();
            config.machine.vcpu_count = count;
            config.machine.smt = smt;
            assert_eq!(config.check().is_ok(), good, "{count} {smt}");
        }
        let mut config = config();
        config.machine.mem_size_mib = 0;
        assert_eq!(config.check(), Err(ConfigError::Memory { mib: 0 }));
        config.machine.mem_size_mib = 129;
        assert_eq!(config.check(), Ok(()));
        config.machine.huge_pages = HugePages::TwoMiB;
        assert_eq!(config.check(), Err(ConfigError::Memory { mib: 129 }));
    }

    #[test]
    fn devices_have_names_of_their_own_and_one_root() {
        let mut config = config();
        config.drives = vec![drive("a", true), drive("b", false)];
        assert_eq!(config.check(), Ok(()));
        config.drives.push(drive("a", false));
        assert_eq!(config.check(), Err(ConfigError::DuplicateId { id: DeviceId::new("a").unwrap() }));
        config.drives = vec![drive("a", true), drive("b", true)];
        assert!(matches!(config.check(), Err(ConfigError::TwoRoots { .. })));
    }

    #[test]
    fn the_metadata_service_needs_its_interfaces() {
        let mut config = config();
        let id = DeviceId::new("eth0").unwrap();
        let mmds = MmdsConfig { network_interfaces: vec![id.clone()], version: MmdsVersion::V2, ipv4_address: None };
        config.mmds = Some((mmds, Value::Null));
        assert_eq!(config.check(), Err(ConfigError::MmdsInterface { id: Some(id) }));
        config.vsock = Some(Vsock { guest_cid: 2, uds_path: "/vsock".into() });
        assert_eq!(config.check(), Err(ConfigError::GuestCid { cid: 2 }));
    }
}
