//! Devices of a VM.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ModelError, RateLimiter, TokenBucket};

/// Name of a drive or a network interface. It is part of the path of requests, and Firecracker takes letters, digits
/// and underscores only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeviceId(String);

impl DeviceId {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty or has another character.
    pub fn new(id: &str) -> Result<Self, ModelError> {
        if id.is_empty() || !id.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(ModelError::DeviceId { id: id.to_owned() });
        }
        Ok(Self(id.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A disk (`PUT /drives/{drive_id}`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// Its name, at this hypervisor only.
    pub drive_id: DeviceId,
    /// File or block device.
    pub path_on_host: PathBuf,
    /// Whether the guest boots from it: it becomes `/dev/vda` and `root=` is added to the kernel's arguments.
    pub is_root_device: bool,
    /// Opened without the right to write.
    pub is_read_only: bool,
    /// UUID of the boot partition, for a root device only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Whether flushes of the guest reach the host's disk.
    pub cache_type: CacheType,
    /// How the file is read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_engine: Option<IoEngine>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// What a guest's flush does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum CacheType {
    /// Nothing: a power cut of the host loses data. Firecracker's default.
    #[default]
    Unsafe,
    /// It reaches the disk.
    Writeback,
}

/// How a disk's file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum IoEngine {
    /// One request after the other.
    Sync,
    /// io_uring; needs a kernel newer than 5.10.51 on the host.
    Async,
}

/// What can change about a disk of a running VM (`PATCH /drives/{drive_id}`).
#[derive(Debug, Serialize)]
pub(crate) struct DriveUpdate<'a> {
    pub(crate) drive_id: &'a DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_on_host: Option<&'a std::path::Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_limiter: Option<&'a RateLimiter>,
}

/// A network interface (`PUT /network-interfaces/{iface_id}`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// Its name, at this hypervisor only.
    pub iface_id: DeviceId,
    /// The tap device. Firecracker makes one of that name where none is, down and connected to nothing: the caller
    /// has to be sure that it exists in the process's network namespace.
    pub host_dev_name: String,
    /// The guest's MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
    /// MTU told to the guest, 68 to 65535. Firecracker 1.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Limits of what the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Limits of what the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// New limits of an interface of a running VM (`PATCH /network-interfaces/{iface_id}`).
#[derive(Debug, Serialize)]
pub(crate) struct NetworkUpdate<'a> {
    pub(crate) iface_id: &'a DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rx_rate_limiter: Option<&'a RateLimiter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tx_rate_limiter: Option<&'a RateLimiter>,
}

/// A socket device between host and guest (`PUT /vsock`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vsock {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
    /// Unix socket that Firecracker makes and listens on: after `CONNECT <port>\n` it is the guest's port.
    /// Connections of the guest to port N arrive at the socket `<uds_path>_N`.
    pub uds_path: PathBuf,
}

/// The metadata service (`PUT /mmds/config`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MmdsConfig {
    /// Interfaces at which it answers; they have to exist already.
    pub network_interfaces: Vec<DeviceId>,
    /// Whether a session token is needed.
    pub version: MmdsVersion,
    /// A link-local address; 169.254.169.254 when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
}

/// Version of the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MmdsVersion {
    /// Any GET is answered.
    V1,
    /// A token has to be fetched first (`PUT /latest/api/token`).
    V2,
}

/// A memory balloon (`PUT /balloon`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// Its target, MiB.
    pub amount_mib: u32,
    /// Whether it gives memory back when the guest has none left.
    pub deflate_on_oom: bool,
    /// Seconds between two looks at the guest's statistics; 0 is off, and stays off for the VM's life.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
}

/// A new target (`PATCH /balloon`).
#[derive(Debug, Serialize)]
pub(crate) struct BalloonUpdate {
    pub(crate) amount_mib: u32,
}

/// A source of randomness (`PUT /entropy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Entropy {
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Where the serial console goes (`PUT /serial`); standard output without it. Firecracker 1.14 and newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Serial {
    /// A file or FIFO that exists.
    pub serial_out_path: PathBuf,
    /// What exceeds it is dropped. Firecracker 1.16 and newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucket>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(DeviceId::new("root_fs0").unwrap().to_string(), "root_fs0");
        for bad in ["", "a-b", "a/b", "..", "a?b", "a b", "ä"] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let drive = Drive {
            drive_id: DeviceId::new("data").unwrap(),
            path_on_host: "/disk".into(),
            is_root_device: false,
            is_read_only: true,
            partuuid: None,
            cache_type: CacheType::Unsafe,
            io_engine: None,
            rate_limiter: None,
        };
        assert_eq!(
            serde_json::to_string(&drive).unwrap(),
            r#"{"drive_id":"data","path_on_host":"/disk","is_root_device":false,"is_read_only":true,"cache_type":"Unsafe"}"#
        );
    }
}
