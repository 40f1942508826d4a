//! What can go wrong between here and a Firecracker process.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A cause whose type is no part of the contract.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Which call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of its name")]
pub enum Step {
    Info,
    Version,
    Logger,
    Metrics,
    MachineConfig,
    CpuConfig,
    BootSource,
    Drive,
    DriveUpdate,
    NetworkInterface,
    NetworkUpdate,
    Vsock,
    MmdsConfig,
    MmdsContents,
    Balloon,
    BalloonUpdate,
    Entropy,
    Serial,
    Start,
    FlushMetrics,
    CtrlAltDel,
    Pause,
    Resume,
    SnapshotCreate,
    SnapshotLoad,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Info => "ask for the state",
            Self::Version => "ask for the version",
            Self::Logger => "set the log",
            Self::Metrics => "set the metrics",
            Self::MachineConfig => "set processors and memory",
            Self::CpuConfig => "set processor features",
            Self::BootSource => "set the kernel",
            Self::Drive => "add a drive",
            Self::DriveUpdate => "change a drive",
            Self::NetworkInterface => "add a network interface",
            Self::NetworkUpdate => "change a network interface",
            Self::Vsock => "add the vsock device",
            Self::MmdsConfig => "set the metadata service",
            Self::MmdsContents => "exchange the metadata",
            Self::Balloon => "read or add the balloon",
            Self::BalloonUpdate => "change the balloon",
            Self::Entropy => "add the entropy device",
            Self::Serial => "set the serial console",
            Self::Start => "start the VM",
            Self::FlushMetrics => "flush the metrics",
            Self::CtrlAltDel => "press Ctrl-Alt-Del",
            Self::Pause => "pause the VM",
            Self::Resume => "resume the VM",
            Self::SnapshotCreate => "write a snapshot",
            Self::SnapshotLoad => "load a snapshot",
        })
    }
}

/// A call of the API failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens at the socket, or it may not be reached.
    #[error("cannot {step}: no connection to {}", socket.display())]
    Connect {
        /// The call.
        step: Step,
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        #[source]
        source: Cause,
    },
    /// Ten connections are open already; Firecracker takes no more.
    #[error("cannot {step}: {} has too many connections", socket.display())]
    TooManyConnections {
        /// The call.
        step: Step,
        /// The socket.
        socket: PathBuf,
    },
    /// The request does not fit the process's limit and was not sent: it would be read as several.
    #[error("cannot {step}: the body of {path} has {size} bytes, {limit} are allowed")]
    TooLarge {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// Bytes of the body.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The request cannot be written as JSON: a path that is not UTF-8.
    #[error("cannot {step}: the body of {path} is no JSON")]
    Encode {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// What the encoder said.
        #[source]
        source: serde_json::Error,
    },
    /// The request was sent and no complete answer came back; whether it took effect is not known.
    #[error("cannot {step}: the answer to {path} was lost")]
    Lost {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// How it was lost.
        #[source]
        source: Cause,
    },
    /// No answer within the call's deadline; whether the request took effect is not known.
    #[error("cannot {step}: no answer to {path} within {} ms", deadline.as_millis())]
    Late {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// The deadline.
        deadline: Duration,
    },
    /// Another call held the connection for the whole deadline; this one was not sent.
    #[error("cannot {step}: {path} waited {} ms for another call", deadline.as_millis())]
    Busy {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// The deadline.
        deadline: Duration,
    },
    /// Firecracker said no.
    #[error("cannot {step}: {path} answered {status}: {fault}")]
    Refused {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// HTTP status, 400 nearly always.
        status: u16,
        /// Firecracker's `fault_message`.
        fault: String,
    },
    /// The answer is not what the API promises.
    #[error("cannot {step}: {path} answered something unknown: {problem}")]
    Answer {
        /// The call.
        step: Step,
        /// Path of the request.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// The call that failed.
    pub fn step(&self) -> Step {
        match self {
            Self::Connect { step, .. }
            | Self::TooManyConnections { step, .. }
            | Self::TooLarge { step, .. }
            | Self::Encode { step, .. }
            | Self::Lost { step, .. }
            | Self::Late { step, .. }
            | Self::Busy { step, .. }
            | Self::Refused { step, .. }
            | Self::Answer { step, .. } => *step,
        }
    }

    /// Whether the request may have taken effect although the call failed.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Late { .. } | Self::Answer { .. })
    }
}
