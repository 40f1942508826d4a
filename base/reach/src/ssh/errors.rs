//! What can go wrong between here and a command on a host.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cairn_core::ErrorKind;

use super::command::CommandError;

/// Each names the host as the target does. Clonable, because callers that wait for one connection share its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No TCP connection, or the host name is not known.
    #[error("{name}: {address} cannot be reached")]
    Unreachable {
        /// Host.
        name: String,
        /// Where it was looked for.
        address: String,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// Not connected or not logged in within the target's time.
    #[error("{name}: {stage} took more than {} s", .after.as_secs_f32())]
    Timeout {
        /// Host.
        name: String,
        /// What had not ended.
        stage: &'static str,
        /// The limit.
        after: Duration,
    },
    /// What answered does not speak SSH as we do, or went away before the login.
    #[error("{name}: no SSH session with {address}")]
    Handshake {
        /// Host.
        name: String,
        /// Where it was looked for.
        address: String,
        /// Why not.
        #[source]
        source: Arc<russh::Error>,
    },
    /// The host showed a key that is not pinned. Nothing was sent to it.
    #[error("{name}: host key {seen} is not the one that is pinned ({})", .expected.join(", "))]
    HostKeyChanged {
        /// Host.
        name: String,
        /// Fingerprints of the pinned keys.
        expected: Vec<String>,
        /// Fingerprint of the key shown.
        seen: String,
    },
    /// No host could match what is pinned.
    #[error("{name}: the pinned host keys cannot be used: {reason}")]
    HostKeysUnusable {
        /// Host.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The host does not take the key or password.
    #[error("{name}: login as {user} with {with} was refused; the host offers {offered}")]
    LoginRefused {
        /// Host.
        name: String,
        /// Who wanted in.
        user: String,
        /// `password`, or the fingerprint of the key.
        with: String,
        /// What the host would take.
        offered: String,
    },
    /// The private key cannot be read or is of a kind that is not supported.
    #[error("{name}: the private key cannot be used: {reason}")]
    KeyUnusable {
        /// Host.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A password would go to a host that nobody vouched for.
    #[error("{name}: a password is not sent to a host whose key is not pinned")]
    PasswordWithoutPinnedKey {
        /// Host.
        name: String,
    },
    /// The jump host cannot be used.
    #[error("{name}: no way through the jump host")]
    Jump {
        /// Host behind it.
        name: String,
        /// What is wrong with the jump host.
        #[source]
        source: Box<Error>,
    },
    /// The connection was there and is gone.
    #[error("{name}: the connection is gone: {reason}")]
    Closed {
        /// Host.
        name: String,
        /// How it ended.
        reason: String,
    },
    /// The host does not open another channel.
    #[error("{name}: the host refuses {what}: {reason}")]
    ChannelRefused {
        /// Host.
        name: String,
        /// What was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// The command did not end within its limit. Its channel is closed, as when a [`Running`](super::Running) is
    /// dropped.
    #[error("{name}: {program} did not end within {} s", .after.as_secs_f32())]
    CommandTimeout {
        /// Host.
        name: String,
        /// First word of the command.
        program: String,
        /// The limit.
        after: Duration,
    },
    /// The channel of a command ended, the connection did not, and nobody said how the command ended.
    #[error("{name}: {program} ended without an exit status")]
    NoExit {
        /// Host.
        name: String,
        /// First word of the command.
        program: String,
    },
    /// The command cannot be written down.
    #[error("{name}: command refused")]
    Command {
        /// Host.
        name: String,
        /// Why not.
        #[source]
        source: CommandError,
    },
}

impl Error {
    /// Kind, for exit codes and HTTP.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::Closed { .. }
            | Self::CommandTimeout { .. } => ErrorKind::Unreachable,
            Self::HostKeyChanged { .. } | Self::PasswordWithoutPinnedKey { .. } => ErrorKind::Forbidden,
            Self::LoginRefused { .. } => ErrorKind::Unauthorized,
            Self::KeyUnusable { .. } | Self::HostKeysUnusable { .. } | Self::Command { .. } => ErrorKind::Invalid,
            Self::Jump { source, .. } => source.kind(),
            Self::ChannelRefused { .. } => ErrorKind::Unavailable,
            Self::NoExit { .. } => ErrorKind::Failed,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::HostKeyChanged { .. } => Some(
                "if the host was installed anew, read its key there (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), \
                 compare it with the one shown, and pin it; otherwise somebody else answers at this address",
            ),
            Self::HostKeysUnusable { .. } => Some("pin the line of /etc/ssh/ssh_host_ed25519_key.pub of the host"),
            Self::PasswordWithoutPinnedKey { .. } => {
                Some("pin the host's key, use a private key, or say that the first key seen is to be trusted")
            }
            Self::KeyUnusable { .. } => Some("use an ed25519 or ECDSA key in OpenSSH form: ssh-keygen -t ed25519"),
            Self::Jump { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// True when another attempt may well succeed with nothing changed here: the network or the host was not there.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Jump { source, .. } => source.is_transient(),
            other => matches!(other.kind(), ErrorKind::Unreachable | ErrorKind::Unavailable),
        }
    }
}
