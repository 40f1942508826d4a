//! What can go wrong with a repository, told apart.

use std::path::PathBuf;

use cairn_core::ErrorKind;
use host::{FileError, ProcessError};

/// Something with a repository did not work. URLs are without what is in front of the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none that can be used.
    #[error("{url:?} cannot be the URL of a repository: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// User and password are in the URL, where they would be seen.
    #[error("{url} holds credentials")]
    UrlWithCredentials {
        /// The URL.
        url: String,
    },
    /// This way of reaching it was not allowed.
    #[error("{protocol} is not allowed for {url}")]
    ProtocolNotAllowed {
        /// The first word of the URL.
        protocol: &'static str,
        /// The URL.
        url: String,
    },
    /// A key for HTTP, or a token for SSH.
    #[error("{url} cannot be reached with {credentials}")]
    CredentialsDoNotFit {
        /// The URL.
        url: String,
        /// `a key`, `a token`.
        credentials: &'static str,
    },
    /// The key cannot be read, or not with this passphrase.
    #[error("the key for {url} cannot be used")]
    KeyUnusable {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<russh::keys::Error>,
    },
    /// A key without its passphrase would have to lie on a disk.
    #[error("there is no directory in memory for the key of {url} without its passphrase")]
    NoMemoryDirectory {
        /// The URL.
        url: String,
    },
    /// The name is none of a branch, tag or commit.
    #[error("{reference:?} cannot be the name of a branch, tag or commit: {reason}")]
    Reference {
        /// The name.
        reference: String,
        /// Why.
        reason: &'static str,
    },
    /// Neither a branch nor a tag has the name.
    #[error("{url} has no branch or tag {reference}")]
    UnknownReference {
        /// The URL.
        url: String,
        /// The name.
        reference: String,
    },
    /// A branch and a tag have the name.
    #[error("{reference} is both a branch ({branch}) and a tag ({tag}) of {url}")]
    AmbiguousReference {
        /// The URL.
        url: String,
        /// The name.
        reference: String,
        /// What the branch points to.
        branch: String,
        /// What the tag points to.
        tag: String,
    },
    /// There is no such commit, or the server does not give it away.
    #[error("{url} has no commit {commit}")]
    UnknownCommit {
        /// The URL.
        url: String,
        /// Its id.
        commit: String,
    },
    /// It names something else: a tree, the contents of a file.
    #[error("{reference} of {url} is no commit")]
    NotACommit {
        /// The URL.
        url: String,
        /// The name.
        reference: String,
    },
    /// The path of a file does not stay in the tree.
    #[error("{path:?} cannot be the path of a file in the tree")]
    FilePath {
        /// The path.
        path: String,
    },
    /// The server answers, and has no such repository, or none that may be seen.
    #[error("there is no repository {url}: {message}")]
    RepositoryGone {
        /// The URL.
        url: String,
        /// What git said.
        message: String,
    },
    /// The server does not take the credentials, or wants some.
    #[error("{url} refuses the credentials: {message}")]
    CredentialsRefused {
        /// The URL.
        url: String,
        /// What git said.
        message: String,
    },
    /// The host's key is none of those that are known.
    #[error("the host key of {url} is not known")]
    HostKeyUnknown {
        /// The URL.
        url: String,
    },
    /// The host has another key than the one that is known.
    #[error("the host key of {url} has changed")]
    HostKeyChanged {
        /// The URL.
        url: String,
    },
    /// The server's certificate is not trusted.
    #[error("the certificate of {url} is not trusted: {message}")]
    CertificateRefused {
        /// The URL.
        url: String,
        /// What git said.
        message: String,
    },
    /// Nobody answers.
    #[error("{url} cannot be reached: {message}")]
    Unreachable {
        /// The URL.
        url: String,
        /// What git said.
        message: String,
    },
    /// It took too long.
    #[error("{url} did not answer in full within {seconds} s")]
    Timeout {
        /// The URL.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Somebody else works on the mirror.
    #[error("{} is in use by {holder}", .path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// Who.
        holder: String,
    },
    /// git failed in another way.
    #[error("cannot {operation} {url}: {message}")]
    Git {
        /// `fetch from`, …
        operation: &'static str,
        /// The URL.
        url: String,
        /// What git said.
        message: String,
    },
    /// git could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the mirror.
    #[error(transparent)]
    File(#[from] FileError),
    /// The lock of the mirror.
    #[error(transparent)]
    Lock(#[from] host::LockError),
}

impl Error {
    /// How it is sorted.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::UrlWithCredentials { .. } | Self::CredentialsDoNotFit { .. } => ErrorKind::Invalid,
            Self::KeyUnusable { .. } | Self::Reference { .. } | Self::FilePath { .. } => ErrorKind::Invalid,
            Self::AmbiguousReference { .. } | Self::NotACommit { .. } => ErrorKind::Invalid,
            Self::UnknownReference { .. } | Self::UnknownCommit { .. } | Self::RepositoryGone { .. } => {
                ErrorKind::NotFound
            }
            Self::ProtocolNotAllowed { .. } | Self::HostKeyUnknown { .. } | Self::HostKeyChanged { .. } => {
                ErrorKind::Forbidden
            }
            Self::CertificateRefused { .. } => ErrorKind::Forbidden,
            Self::CredentialsRefused { .. } => ErrorKind::Unauthorized,
            Self::Unreachable { .. } | Self::Timeout { .. } => ErrorKind::Unreachable,
            Self::Busy { .. } => ErrorKind::Conflict,
            Self::NoMemoryDirectory { .. } => ErrorKind::Unavailable,
            Self::Git { .. } | Self::Process(_) | Self::File(_) | Self::Lock(_) => ErrorKind::Failed,
        }
    }

    /// What can be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::UrlWithCredentials { .. } => "leave them out of the URL and give a token or a key in a Secret",
            Self::AmbiguousReference { .. } => "write refs/heads/NAME or refs/tags/NAME",
            Self::HostKeyUnknown { .. } => "give the host's line of known_hosts, or trust the first key that is seen",
            Self::HostKeyChanged { .. } => {
                "ask whoever runs the host whether its key was changed; then give the new one"
            }
            Self::NoMemoryDirectory { .. } => "mount a tmpfs at /dev/shm",
            Self::CertificateRefused { .. } => "give the authority that signed it",
            _ => return None,
        })
    }
}

/// What git and ssh say for each kind. Their words in the locale C; the first that fits counts.
const SIGNS: [(&[&str], Sign); 6] = [
    (&["REMOTE HOST IDENTIFICATION HAS CHANGED"], Sign::HostKeyChanged),
    (&["Host key verification failed", "host key is known for"], Sign::HostKeyUnknown),
    (
        &["server certificate verification failed", "SSL certificate problem", "certificate subject name"],
        Sign::Certificate,
    ),
    (
        &[
            "Permission denied (",
            "Authentication failed for",
            "could not read Username",
            "could not read Password",
            "returned error: 401",
            "returned error: 403",
            "Too many authentication failures",
        ],
        Sign::Credentials,
    ),
    (
        &[
            "Could not resolve host",
            "Failed to connect",
            "Couldn't connect",
            "Connection refused",
            "Connection timed out",
            "Operation timed out",
            "Operation too slow",
            "Network is unreachable",
            "No route to host",
            "Connection reset by peer",
            "Connection closed by",
            "kex_exchange_identification",
            "Empty reply from server",
            "returned error: 502",
            "returned error: 503",
            "returned error: 504",
        ],
        Sign::Unreachable,
    ),
    (
        &[
            "does not appear to be a git repository",
            "ERROR: Repository not found",
            "' not found",
            "returned error: 404",
            "returned error: 410",
            "does not exist",
            "not a git repository",
        ],
        Sign::Gone,
    ),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    HostKeyChanged,
    HostKeyUnknown,
    Certificate,
    Credentials,
    Unreachable,
    Gone,
}

/// Understands what git wrote before it failed.
pub(super) fn understand(operation: &'static str, url: &str, lines: &[String]) -> Error {
    let (url, message) = (url.to_owned(), said(lines));
    // What the server wants people to read is not git's own word.
    let own = |line: &&String| !line.starts_with("remote:");
    let has = |sign: &str| lines.iter().filter(own).any(|line| line.contains(sign));
    match SIGNS.iter().find(|(signs, _)| signs.iter().any(|sign| has(sign))).map(|(_, sign)| sign) {
        Some(Sign::HostKeyChanged) => Error::HostKeyChanged { url },
        Some(Sign::HostKeyUnknown) => Error::HostKeyUnknown { url },
        Some(Sign::Certificate) => Error::CertificateRefused { url, message },
        Some(Sign::Credentials) => Error::CredentialsRefused { url, message },
        Some(Sign::Unreachable) => Error::Unreachable { url, message },
        Some(Sign::Gone) => Error::RepositoryGone { url, message },
        None => Error::Git { operation, url, message },
    }
}

/// The lines that say something, as one, without what a terminal would obey.
fn said(lines: &[String]) -> String {
    let noise = |line: &str| {
        let general = ["Please make sure", "and the repository exists", "warning: Permanently added"];
        line.is_empty() || general.iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| !noise(line)).collect();
    let text = lines[lines.len().saturating_sub(4)..].join("; ");
    text.chars().filter(|c| !c.is_control()).take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Error {
        understand("fetch from", "ssh://git@host/a", &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn failures_are_told_apart() {
        let changed = ["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."];
        assert!(matches!(of(&changed), Error::HostKeyChanged { .. }));
        let unknown = ["No ED25519 host key is known for h and you have requested strict checking."];
        assert!(matches!(of(&unknown), Error::HostKeyUnknown { .. }));
        let denied = ["git@h: Permission denied (publickey).", "fatal: Could not read from remote repository."];
        assert!(matches!(of(&denied), Error::CredentialsRefused { .. }));
        let prompt = ["fatal: could not read Username for 'https://h': terminal prompts disabled"];
        assert!(matches!(of(&prompt), Error::CredentialsRefused { .. }));
        assert!(matches!(of(&["fatal: repository 'https://h/a/' not found"]), Error::RepositoryGone { .. }));
        assert!(matches!(of(&["ssh: connect to host h port 22: Connection refused"]), Error::Unreachable { .. }));
        assert!(matches!(of(&["fatal: bad object"]), Error::Git { .. }));
    }

    #[test]
    fn what_the_server_tells_people_decides_nothing() {
        let error = of(&["remote: Permission denied (publickey)", "fatal: early EOF\u{1b}[2J"]);
        assert!(matches!(&error, Error::Git { message, .. } if !message.contains('\u{1b}')), "{error}");
    }
}
