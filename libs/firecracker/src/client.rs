//! The calls of the API that a VM's life needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::connection::{Call, Connection, PAYLOAD_LIMIT};
use crate::error::{Error, Step};
use crate::model::{
    Action, ActionRequest, Balloon, BalloonUpdate, BootSource, DeviceId, Drive, DriveUpdate, Entropy, InstanceInfo,
    Logger, MachineConfig, Metrics, MmdsConfig, NetworkInterface, NetworkUpdate, RateLimiter, Serial, SnapshotCreate,
    SnapshotLoad, State, VersionAnswer, VmRequest, Vsock,
};
use crate::version::Version;

/// First pause between two looks at whether the process listens.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two such looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How long a call may take, waiting for its turn included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Any call that is not named below. Firecracker answers these within a millisecond.
    pub call: Duration,
    /// Starting, which loads the kernel.
    pub start: Duration,
    /// Pausing and resuming. Firecracker itself waits up to 30 s for the processors.
    pub state: Duration,
    /// Writing and loading snapshots: as long as the disk needs for the memory.
    pub snapshot: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { call: seconds(5), start: seconds(30), state: seconds(35), snapshot: seconds(300) }
    }
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// Bytes of a body that the process takes (`--http-api-max-payload-size`).
    pub payload_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadlines: Deadlines::default(), payload_limit: PAYLOAD_LIMIT }
    }
}

/// The API of one Firecracker process. Calls can be made from several tasks; they wait for each other. Dropping a call
/// closes the connection, and the next one opens another; so does a connection that the process closed.
///
/// Every call fails with [`Error`], and nothing is sent a second time that may have been received.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    options: Options,
}

impl Client {
    /// A client of the process that listens at `socket`. Nothing is sent yet. The path may be longer than the kernel
    /// takes for sockets.
    pub fn new(socket: impl Into<PathBuf>, options: Options) -> Self {
        Self { connection: Connection::new(socket.into()), options }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        self.connection.socket()
    }

    /// Waits until the process listens, and gives back its first answer.
    ///
    /// # Errors
    /// What the last attempt said, once `limit` is over; at once what trying again cannot mend.
    pub async fn wait_ready(&self, limit: Duration) -> Result<InstanceInfo, Error> {
        let end = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        loop {
            // No event says this: the directory of the socket is made by the jailer as well.
            match self.info().await {
                Err(Error::Connect { .. }) if Instant::now() + pause < end => tokio::time::sleep(pause).await,
                other => return other,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// `GET /`. A state that is not known is an error that names it.
    pub async fn info(&self) -> Result<InstanceInfo, Error> {
        #[derive(serde::Deserialize)]
        struct Answer {
            id: String,
            state: String,
            vmm_version: String,
        }
        let Answer { id, state, vmm_version } = self.get(Step::Info, "/").await?;
        let state = State::parse(&state).ok_or_else(|| Error::Answer {
            step: Step::Info,
            path: "/".to_owned(),
            problem: format!("state {state:?}"),
        })?;
        Ok(InstanceInfo { id, state, vmm_version })
    }

    /// `GET /version`.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer: VersionAnswer = self.get(Step::Version, "/version").await?;
        answer.firecracker_version.parse().map_err(|error: crate::VersionError| Error::Answer {
            step: Step::Version,
            path: "/version".to_owned(),
            problem: error.to_string(),
        })
    }

    /// `PUT /logger`.
    pub async fn put_logger(&self, logger: &Logger) -> Result<(), Error> {
        self.put(Step::Logger, "/logger", logger).await
    }

    /// `PUT /metrics`.
    pub async fn put_metrics(&self, metrics: &Metrics) -> Result<(), Error> {
        self.put(Step::Metrics, "/metrics", metrics).await
    }

    /// `GET /machine-config`.
    pub async fn machine_config(&self) -> Result<MachineConfig, Error> {
        self.get(Step::MachineConfig, "/machine-config").await
    }

    /// `PUT /machine-config`.
    pub async fn put_machine_config(&self, machine: &MachineConfig) -> Result<(), Error> {
        self.put(Step::MachineConfig, "/machine-config", machine).await
    }

    /// `PUT /cpu-config`; its form is Firecracker's (`docs/cpu_templates/cpu-templates.md`).
    pub async fn put_cpu_config(&self, template: &Value) -> Result<(), Error> {
        self.put(Step::CpuConfig, "/cpu-config", template).await
    }

    /// `PUT /boot-source`.
    pub async fn put_boot_source(&self, source: &BootSource) -> Result<(), Error> {
        self.put(Step::BootSource, "/boot-source", source).await
    }

    /// `PUT /drives/{drive_id}`.
    pub async fn put_drive(&self, drive: &Drive) -> Result<(), Error> {
        self.put(Step::Drive, &format!("/drives/{}", drive.drive_id), drive).await
    }

    /// `PATCH /drives/{drive_id}`: another file (the guest sees its new size), other limits. What is `None` stays.
    pub async fn patch_drive(
        &self,
        id: &DeviceId,
        file: Option<&Path>,
        limits: Option<&RateLimiter>,
    ) -> Result<(), Error> {
        let update = DriveUpdate { drive_id: id, path_on_host: file, rate_limiter: limits };
        self.patch(Step::DriveUpdate, &format!("/drives/{id}"), &update).await
    }

    /// `PUT /network-interfaces/{iface_id}`.
    pub async fn put_network_interface(&self, interface: &NetworkInterface) -> Result<(), Error> {
        self.put(Step::NetworkInterface, &format!("/network-interfaces/{}", interface.iface_id), interface).await
    }

    /// `PATCH /network-interfaces/{iface_id}`: other limits for what the guest receives and sends. What is `None`
    /// stays.
    pub async fn patch_network_interface(
        &self,
        id: &DeviceId,
        receive: Option<&RateLimiter>,
        send: Option<&RateLimiter>,
    ) -> Result<(), Error> {
        let update = NetworkUpdate { iface_id: id, rx_rate_limiter: receive, tx_rate_limiter: send };
        self.patch(Step::NetworkUpdate, &format!("/network-interfaces/{id}"), &update).await
    }

    /// `PUT /vsock`.
    pub async fn put_vsock(&self, vsock: &Vsock) -> Result<(), Error> {
        self.put(Step::Vsock, "/vsock", vsock).await
    }

    /// `PUT /mmds/config`.
    pub async fn put_mmds_config(&self, config: &MmdsConfig) -> Result<(), Error> {
        self.put(Step::MmdsConfig, "/mmds/config", config).await
    }

    /// `GET /mmds`.
    pub async fn metadata(&self) -> Result<Value, Error> {
        self.get(Step::MmdsContents, "/mmds").await
    }

    /// `PUT /mmds`: replaces the metadata.
    pub async fn put_metadata(&self, contents: &Value) -> Result<(), Error> {
        self.put(Step::MmdsContents, "/mmds", contents).await
    }

    /// `PATCH /mmds`: merges into the metadata (RFC 7396).
    pub async fn patch_metadata(&self, contents: &Value) -> Result<(), Error> {
        self.patch(Step::MmdsContents, "/mmds", contents).await
    }

    /// `GET /balloon`.
    pub async fn balloon(&self) -> Result<Balloon, Error> {
        self.get(Step::Balloon, "/balloon").await
    }

    /// `PUT /balloon`.
    pub async fn put_balloon(&self, balloon: &Balloon) -> Result<(), Error> {
        self.put(Step::Balloon, "/balloon", balloon).await
    }

    /// `PATCH /balloon`: another target in MiB. Fails in a guest without the driver.
    pub async fn patch_balloon(&self, amount_mib: u32) -> Result<(), Error> {
        self.patch(Step::BalloonUpdate, "/balloon", &BalloonUpdate { amount_mib }).await
    }

    /// `PUT /entropy`.
    pub async fn put_entropy(&self, entropy: &Entropy) -> Result<(), Error> {
        self.put(Step::Entropy, "/entropy", entropy).await
    }

    /// `PUT /serial`.
    pub async fn put_serial(&self, serial: &Serial) -> Result<(), Error> {
        self.put(Step::Serial, "/serial", serial).await
    }

    /// `PUT /actions` with `InstanceStart`.
    pub async fn start(&self) -> Result<(), Error> {
        self.action(Step::Start, Action::InstanceStart, self.options.deadlines.start).await
    }

    /// `PUT /actions` with `FlushMetrics`.
    pub async fn flush_metrics(&self) -> Result<(), Error> {
        self.action(Step::FlushMetrics, Action::FlushMetrics, self.options.deadlines.call).await
    }

    /// `PUT /actions` with `SendCtrlAltDel`.
    pub async fn send_ctrl_alt_del(&self) -> Result<(), Error> {
        self.action(Step::CtrlAltDel, Action::SendCtrlAltDel, self.options.deadlines.call).await
    }

    /// `PATCH /vm`: stops the processors. Nothing happens when they are stopped.
    pub async fn pause(&self) -> Result<(), Error> {
        self.state(Step::Pause, "Paused").await
    }

    /// `PATCH /vm`: lets the processors run. Nothing happens when they do.
    pub async fn resume(&self) -> Result<(), Error> {
        self.state(Step::Resume, "Resumed").await
    }

    /// `PUT /snapshot/create`, of a paused VM.
    pub async fn create_snapshot(&self, snapshot: &SnapshotCreate) -> Result<(), Error> {
        let deadline = self.options.deadlines.snapshot;
        self.write(Step::SnapshotCreate, Method::PUT, "/snapshot/create", snapshot, deadline).await
    }

    /// `PUT /snapshot/load`. A failure ends the process, and a load after any other configuration is one that does not.
    pub async fn load_snapshot(&self, snapshot: &SnapshotLoad) -> Result<(), Error> {
        let deadline = self.options.deadlines.snapshot;
        self.write(Step::SnapshotLoad, Method::PUT, "/snapshot/load", snapshot, deadline).await
    }

    async fn action(&self, step: Step, action_type: Action, deadline: Duration) -> Result<(), Error> {
        self.write(step, Method::PUT, "/actions", &ActionRequest { action_type }, deadline).await
    }

    async fn state(&self, step: Step, state: &'static str) -> Result<(), Error> {
        self.write(step, Method::PATCH, "/vm", &VmRequest { state }, self.options.deadlines.state).await
    }

    async fn get<T: DeserializeOwned>(&self, step: Step, path: &str) -> Result<T, Error> {
        let call = Call { step, method: Method::GET, path: path.to_owned(), body: Bytes::new() };
        let value = self.send(&call, self.options.deadlines.call).await?;
        serde_json::from_value(value).map_err(|error| Error::Answer {
            step,
            path: path.to_owned(),
            problem: error.to_string(),
        })
    }

    async fn put(&self, step: Step, path: &str, body: &impl Serialize) -> Result<(), Error> {
        self.write(step, Method::PUT, path, body, self.options.deadlines.call).await
    }

    async fn patch(&self, step: Step, path: &str, body: &impl Serialize) -> Result<(), Error> {
        self.write(step, Method::PATCH, path, body, self.options.deadlines.call).await
    }

    async fn write(
        &self,
        step: Step,
        method: Method,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<(), Error> {
        let path = path.to_owned();
        let body = match serde_json::to_vec(body) {
            Ok(body) => Bytes::from(body),
            Err(source) => return Err(Error::Encode { step, path, source }),
        };
        let limit = self.options.payload_limit;
        if body.len() > limit {
            return Err(Error::TooLarge { step, path, size: body.len(), limit });
        }
        self.send(&Call { step, method, path, body }, deadline).await.map(drop)
    }

    async fn send(&self, call: &Call, deadline: Duration) -> Result<Value, Error> {
        let (step, path) = (call.step, || call.path.clone());
        let end = Instant::now() + deadline;
        let turn = timeout(deadline, self.connection.turn()).await;
        let turn = turn.map_err(|_| Error::Busy { step, path: path(), deadline })?;
        let answer = tokio::time::timeout_at(end, turn.send(call)).await;
        answer.map_err(|_| Error::Late { step, path: path(), deadline })?
    }
}
