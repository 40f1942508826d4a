//! A client for Firecracker, the hypervisor of microVMs, and what one has to know to run it: its HTTP API on a Unix
//! socket, the jailer's command line and paths, exit codes, metrics lines, versions.
//!
//! One [`Client`] holds one kept-alive connection to one process. [`Config`] is everything of one VM and is applied in
//! the order that works; starting, pausing and snapshots are calls of their own. Nothing here starts a process, waits
//! for one or decides what to do next: the caller does. Nothing is printed and no environment is read.
//!
//! The contract is Firecracker's own: `src/firecracker/swagger/firecracker.yaml` (the API), `docs/jailer.md`,
//! `docs/api_requests/` and `docs/metrics.md` of its repository; written against 1.16 and 1.17-dev.
//!
//! Look next at `client.rs` (the calls), `connection.rs` (one request), `config.rs` (the order), `jailer.rs`.

mod client;
mod config;
mod connection;
mod error;
mod exit;
mod jailer;
mod metrics;
mod model;
mod version;

pub use client::{Client, Deadlines, Options};
pub use config::{Config, ConfigError};
pub use connection::PAYLOAD_LIMIT;
pub use error::{Error, Step};
pub use exit::Exit;
pub use jailer::{Arguments, CgroupVersion, Jailer, JailerError, VmId};
pub use metrics::{DriveTotals, MetricsError, NetworkTotals, Totals};
pub use model::{
    Action, Balloon, BootSource, CacheType, DeviceId, Drive, Entropy, HugePages, InstanceInfo, IoEngine, LogLevel,
    Logger, MachineConfig, MemoryBackend, MemoryBackendType, Metrics, MmdsConfig, MmdsVersion, ModelError,
    NetworkInterface, NetworkOverride, RateLimiter, Serial, SnapshotCreate, SnapshotLoad, SnapshotType, State,
    TokenBucket, Vsock, VsockOverride,
};
pub use version::{Version, VersionError};
