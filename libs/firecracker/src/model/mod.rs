//! What is sent and what is answered: the definitions of `firecracker.yaml`, with its names. A field that is `None` is
//! not sent. Paths are as the Firecracker process sees them: inside its jail when it has one.

mod devices;
mod instance;
mod rate;
mod snapshot;

pub use devices::{
    Balloon, CacheType, DeviceId, Drive, Entropy, IoEngine, MmdsConfig, MmdsVersion, NetworkInterface, Serial, Vsock,
};
pub(crate) use devices::{BalloonUpdate, DriveUpdate, NetworkUpdate};
pub use instance::{Action, BootSource, HugePages, InstanceInfo, LogLevel, Logger, MachineConfig, Metrics, State};
pub(crate) use instance::{ActionRequest, VersionAnswer, VmRequest};
pub use rate::{RateLimiter, TokenBucket};
pub use snapshot::{
    MemoryBackend, MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType, VsockOverride,
};

/// A value that Firecracker would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Names of drives and network interfaces are letters, digits and underscores.
    #[error("{id:?} is no device name: letters, digits and _ only")]
    DeviceId {
        /// What was given.
        id: String,
    },
    /// A bucket of no tokens or no refill means «no limit» to Firecracker, which is not what a number of 0 asks for.
    #[error("a rate limit of {bytes_per_second} bytes/s with a refill time of {refill_ms} ms holds no token")]
    EmptyBucket {
        /// Rate in bytes per second.
        bytes_per_second: u64,
        /// Refill time in milliseconds.
        refill_ms: u64,
    },
}
