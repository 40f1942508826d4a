//! What can go wrong between here and a machine.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

/// A cause whose type is no part of the contract.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// An operation on a BMC failed. Neither `Display` nor `Debug` of any variant shows a password, token or signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made: refused, no route, unknown name.
    #[error("BMC {host} cannot be reached")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the connection attempt said.
        #[source]
        source: Cause,
    },
    /// A request was sent and no complete answer came back; whether it took effect is not known.
    #[error("BMC {host} did not answer")]
    NoAnswer {
        /// Host and port.
        host: String,
        /// How the answer was lost.
        #[source]
        source: Cause,
    },
    /// The certificate is not trusted, or the TLS handshake failed otherwise.
    #[error("TLS with BMC {host} failed")]
    Tls {
        /// Host and port.
        host: String,
        /// What the TLS library said.
        #[source]
        source: Cause,
    },
    /// The BMC offers no TLS version or cipher suite that is still considered safe.
    #[error("BMC {host} and this client have no TLS version or cipher suite in common")]
    NoCommonCipher {
        /// Host and port.
        host: String,
        /// What the TLS library said.
        #[source]
        source: Cause,
    },
    /// User name or password is wrong. Nothing more is sent over this connection, because BMCs lock accounts.
    #[error("BMC {host} refused user name or password")]
    Auth {
        /// Host and port.
        host: String,
    },
    /// The service answered with an error.
    #[error("{path} answered {status}: {}", if message.is_empty() { "no reason given" } else { message })]
    Http {
        /// HTTP status.
        status: u16,
        /// Path of the request.
        path: String,
        /// What the service said, scrubbed, in one line.
        message: String,
    },
    /// The service answered something that is not Redfish: no JSON, a missing link, a redirect elsewhere.
    #[error("{path}: {problem}")]
    Protocol {
        /// Path of the request or resource.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The BMC lists no system, or none that was meant.
    #[error("no system {} on this BMC, which has: {}", wanted.as_deref().unwrap_or("at all"), list(seen))]
    NoSystem {
        /// Serial number, UUID or id that was asked for.
        wanted: Option<String>,
        /// What was seen.
        seen: Vec<String>,
    },
    /// The BMC lists several systems and nothing says which one is meant.
    #[error("this BMC has several systems, say which one: {}", list(seen))]
    AmbiguousSystem {
        /// What was seen.
        seen: Vec<String>,
    },
    /// Neither manager nor system has a drive that takes a CD image.
    #[error("BMC {host} has no virtual media drive for a CD image")]
    NoVirtualMedia {
        /// Host and port.
        host: String,
    },
    /// The BMC says that it cannot fetch the image.
    #[error("the BMC cannot fetch the image for drive {slot}: {message}")]
    MediaUnreachable {
        /// Id of the drive.
        slot: String,
        /// What the BMC said, scrubbed.
        message: String,
    },
    /// The phase's deadline came first.
    #[error("{phase} did not end in time")]
    Timeout {
        /// Name of the phase.
        phase: &'static str,
        /// What was wrong last, where something was.
        #[source]
        source: Option<Box<Error>>,
    },
    /// The BMC has no way to do this.
    #[error("the BMC cannot do this: {what}")]
    Unsupported {
        /// What it cannot do.
        what: String,
    },
}

/// A list for people.
fn list(seen: &[String]) -> String {
    if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") }
}

/// The time for one request was over.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(crate) struct Late(pub(crate) Duration);

impl Error {
    /// Sorts a failed request. Addresses are taken out: the caller knows the host, and a query may hold secrets.
    pub(crate) fn from_transport(host: &str, error: reqwest::Error) -> Self {
        let (host, error) = (host.to_owned(), error.without_url());
        let connecting = error.is_connect();
        match tls_failure(&error) {
            Some(true) => Self::NoCommonCipher { host, source: error.into() },
            Some(false) => Self::Tls { host, source: error.into() },
            None if connecting => Self::Unreachable { host, source: error.into() },
            None => Self::NoAnswer { host, source: error.into() },
        }
    }

    /// An answer that is not what the protocol promises.
    pub(crate) fn protocol(path: &str, problem: impl Into<String>) -> Self {
        Self::Protocol { path: path.to_owned(), problem: problem.into() }
    }

    /// A time-out that does not say why gets what was wrong before it.
    pub(crate) fn after(self, last: Option<Box<Self>>) -> Self {
        match self {
            Self::Timeout { phase, source: None } => Self::Timeout { phase, source: last },
            other => other,
        }
    }

    /// Nothing that happens on the BMC will make this go away: waiting for it is pointless.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Auth { .. } | Self::Tls { .. } | Self::NoCommonCipher { .. })
    }
}

/// Whether a failure came from TLS; `Some(true)` when both sides had nothing in common.
fn tls_failure(error: &(dyn StdError + 'static)) -> Option<bool> {
    use rustls::AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};

    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        // An io::Error hides what it wraps from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn StdError + 'static));
        for candidate in [Some(error), inner].into_iter().flatten() {
            if let Some(tls) = candidate.downcast_ref::<rustls::Error>() {
                return Some(matches!(
                    tls,
                    rustls::Error::PeerIncompatible(_)
                        | rustls::Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion)
                ));
            }
        }
        next = inner.or_else(|| error.source());
    }
    None
}
