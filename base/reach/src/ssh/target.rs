//! Where to connect, as whom, and whom to believe.

use std::time::Duration;

use secrecy::SecretString;

use super::HostKey;

/// A host and how to log in to it. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Target {
    /// What messages call the host.
    pub name: String,
    /// Host name or address, as it is reached from here or, with a jump host, from there.
    pub host: String,
    /// TCP port of its sshd.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// How that user proves itself.
    pub login: Login,
    /// Which host keys are taken.
    pub host_keys: HostKeys,
    /// Host through which this one is reached; it has its own login and host keys.
    pub jump: Option<Box<Target>>,
    /// For connecting, key exchange and login together. The jump host has its own.
    pub timeout: Duration,
}

/// Proof of who we are.
#[derive(Debug, Clone)]
pub enum Login {
    /// A private key, as the text of an OpenSSH key file.
    Key {
        /// The text, from `-----BEGIN` to `-----END`.
        pem: SecretString,
        /// Needed when the key is encrypted.
        passphrase: Option<SecretString>,
    },
    /// A password, by `password` or, where the host offers only that, by `keyboard-interactive` with one question.
    /// Sent to pinned hosts only, or with [`HostKeys::TrustFirstWithPassword`].
    Password(SecretString),
}

/// Which host keys are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeys {
    /// Only these. A host with keys of several kinds shows one of a kind that is pinned.
    Pinned(Vec<HostKey>),
    /// The first one seen is taken; the caller keeps [`Connection::host_key`](super::Connection::host_key) and pins it
    /// from then on. A password is not sent to such a host.
    TrustFirst,
    /// As `TrustFirst`, and a password is sent too: whoever answers there first gets it.
    TrustFirstWithPassword,
}
