//! A VM as Firecracker is told about it. Paths are those inside the jail.

use std::path::{Path, PathBuf};

use firecracker::{
    BootSource, CacheType, Config, DeviceId, Drive, Entropy, HugePages, MachineConfig, Metrics, NetworkInterface,
    RateLimiter,
};

use super::super::guest_line::kernel_arguments;
use crate::errors::HYPERVISOR;
use crate::model::{Backend, RateLimit};
use crate::ports::{Launch, StepError};

/// Kernel in the jail.
pub(super) const KERNEL: &str = "/vmlinux";
/// Initial file system in the jail.
pub(super) const INITRD: &str = "/initrd";
/// FIFO for metrics in the jail.
pub(super) const METRICS: &str = "/metrics.fifo";
/// The network interface; its metrics are `net_eth0`.
const INTERFACE: &str = "eth0";

/// Where a disk is in the jail.
pub(super) fn disk(id: &str) -> PathBuf {
    Path::new("/disks").join(id)
}

/// Everything of a VM.
pub(super) fn config(launch: &Launch) -> Result<Config, StepError> {
    let spec = &launch.vm.spec;
    let machine = MachineConfig {
        vcpu_count: spec.vcpus(),
        mem_size_mib: spec.memory_mib(),
        smt: false,
        track_dirty_pages: false,
        huge_pages: HugePages::None,
    };
    let boot = BootSource {
        kernel_image_path: KERNEL.into(),
        initrd_path: launch.initrd.as_ref().map(|_| INITRD.into()),
        boot_args: Some(kernel_arguments(launch, Backend::Firecracker, None)),
    };
    let mut config = Config::new(machine, boot);
    config.metrics = Some(Metrics { metrics_path: METRICS.into(), properties: Default::default() });
    for file in &launch.disks {
        config.drives.push(Drive {
            drive_id: name(&file.id)?,
            path_on_host: disk(&file.id),
            is_root_device: file.is_root,
            is_read_only: file.read_only,
            partuuid: None,
            // What the guest has flushed is on the disk.
            cache_type: CacheType::Writeback,
            io_engine: None,
            rate_limiter: None,
        });
    }
    let interface = spec.interface();
    config.network_interfaces = vec![NetworkInterface {
        iface_id: name(INTERFACE)?,
        host_dev_name: launch.wire.tap.clone(),
        guest_mac: Some(launch.wire.mac.clone()),
        mtu: None,
        rx_rate_limiter: limiter(interface.rx_rate_limit.as_ref())?,
        tx_rate_limiter: limiter(interface.tx_rate_limit.as_ref())?,
    }];
    config.entropy = Some(Entropy::default());
    Ok(config)
}

/// The network limits all traffic; a limit with a refill time is one of Firecracker's own besides.
fn limiter(limit: Option<&RateLimit>) -> Result<Option<RateLimiter>, StepError> {
    let Some(limit) = limit.filter(|limit| limit.refill_time > 0) else { return Ok(None) };
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let (rate, refill, burst) = (number(limit.bandwidth), number(limit.refill_time), number(limit.burst));
    let limiter = RateLimiter::bandwidth(rate, refill, burst);
    limiter.map(Some).map_err(|error| StepError::of(HYPERVISOR, &error))
}

fn name(id: &str) -> Result<DeviceId, StepError> {
    DeviceId::new(id).map_err(|error| StepError::of(HYPERVISOR, &error))
}

#[cfg(test)]
mod tests {
    use super::super::super::guest_line::tests::launch;
    use super::*;

    #[test]
    fn a_launch_becomes_what_firecracker_is_told() {
        let mut launch = launch();
        launch.initrd = Some("/assets/initrd".into());
        let config = config(&launch).unwrap();
        config.check().unwrap();
        assert_eq!((config.machine.vcpu_count, config.machine.mem_size_mib), (2, 128));
        assert_eq!(config.boot.kernel_image_path, Path::new("/vmlinux"));
        assert_eq!(config.boot.initrd_path.as_deref(), Some(Path::new("/initrd")));
        let drives: Vec<_> =
            config.drives.iter().map(|drive| (drive.path_on_host.to_str().unwrap(), drive.is_read_only)).collect();
        assert_eq!(drives, [("/disks/data", true), ("/disks/root", false)]);
        let [interface] = &config.network_interfaces[..] else { panic!() };
        assert_eq!(interface.host_dev_name, "tap0");
        assert_eq!(interface.guest_mac.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(interface.rx_rate_limiter, None);
    }

    #[test]
    fn only_a_limit_with_a_refill_time_is_firecrackers() {
        let limit = |refill_time| RateLimit { bandwidth: 1_000_000, refill_time, burst: 5_000 };
        assert_eq!(limiter(Some(&limit(0))).unwrap(), None);
        let bucket = limiter(Some(&limit(100))).unwrap().unwrap().bandwidth.unwrap();
        assert_eq!((bucket.size, bucket.one_time_burst, bucket.refill_time), (100_000, Some(5_000), 100));
        assert!(limiter(Some(&RateLimit { bandwidth: 1, refill_time: 1, burst: 0 })).is_err());
    }
}
