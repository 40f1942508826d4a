//! Why a pull or a push did not come about.

use std::path::PathBuf;

use crate::Digest;

/// Why a request to a registry failed. No text here holds credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The registry could not be reached, or the connection broke before its answer.
    #[error("no answer from {url}")]
    Send {
        /// What was asked, without credentials and query.
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke in the middle of an answer.
    #[error("the answer from {url} broke off")]
    Receive {
        /// What was asked.
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The registry said no.
    #[error("{url} answered {status}{}", message.as_ref().map(|message| format!(": {message}")).unwrap_or_default())]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// Code and message of the registry's error, where it sent them.
        message: Option<String>,
    },
    /// The registry asks for credentials in a way that cannot be met.
    #[error("cannot log in to {url}: {reason}")]
    Login {
        /// What was asked.
        url: String,
        /// What is the matter.
        reason: String,
    },
    /// An answer lacks a header or has one that makes no sense.
    #[error("{url} sent no usable header {header}")]
    Header {
        /// What was asked.
        url: String,
        /// The header.
        header: &'static str,
    },
    /// The content is not what its digest promises.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// The content: its repository.
        what: String,
        /// As promised.
        expected: Digest,
        /// As received.
        actual: Digest,
    },
    /// The content is longer or shorter than promised.
    #[error("{what} has {actual} bytes or more, not {expected}")]
    SizeMismatch {
        /// The content: its digest.
        what: String,
        /// As promised, in bytes.
        expected: u64,
        /// Received until then, in bytes.
        actual: u64,
    },
    /// An answer ended cleanly before it was whole.
    #[error("{what} ended after {received} bytes of {size}")]
    Truncated {
        /// The content: its digest.
        what: String,
        /// Received in bytes.
        received: u64,
        /// As promised, in bytes.
        size: u64,
    },
    /// A manifest or a list is larger than any registry needs to take.
    #[error("the answer from {url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A list is not of the form that the specification gives.
    #[error("the list from {url} cannot be read")]
    List {
        /// What was asked.
        url: String,
        #[source]
        source: serde_json::Error,
    },
    /// What is to be pushed cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Every attempt failed; the last one's reason is the source.
    #[error("gave up after {attempts} attempts without progress")]
    GaveUp {
        /// Attempts in a row.
        attempts: u32,
        #[source]
        source: Box<ClientError>,
    },
}

/// Whether the registry's certificate is what a request failed for: it will be the same the next time.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    // What an input or output error carries is not its source.
    let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    carried.is_some_and(|carried| is_distrust(carried)) || error.source().is_some_and(is_distrust)
}

impl ClientError {
    /// Whether the same request may well succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Send { source, .. } => !source.is_builder() && !source.is_redirect() && !is_distrust(source),
            Self::Receive { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// Whether the registry wants a login, or another one.
    pub fn is_login(&self) -> bool {
        match self {
            Self::Login { .. } => true,
            Self::GaveUp { source, .. } => source.is_login(),
            other => matches!(other.status(), Some(401 | 403)),
        }
    }

    /// HTTP status of the registry's answer, where that is what failed.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::GaveUp { source, .. } => source.status(),
            _ => None,
        }
    }
}
