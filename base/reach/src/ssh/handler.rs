//! What the transport asks us: is this the host, and how did it end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::Channel;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};

use super::{Error, HostKey, HostKeys, Target};

/// Kinds of host keys we can check, best first. RSA is not among them: every sshd since 2014 has an ed25519 key, too.
const KINDS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// What the session task finds out, for those who hold the connection.
#[derive(Debug, Default)]
pub(super) struct Findings {
    host_key: Mutex<Option<HostKey>>,
    ended: Mutex<Option<String>>,
    /// The transport gives up by itself after a login that was refused when the host offers nothing else.
    refused: AtomicBool,
}

impl Findings {
    pub(super) fn host_key(&self) -> Option<HostKey> {
        self.host_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when the host refused a login and offered no other.
    pub(super) fn refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// How the connection ended.
    pub(super) fn ended(&self) -> String {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ended.unwrap_or_else(|| "the host closed it".to_owned())
    }
}

/// Why the session task stops.
#[derive(Debug)]
pub(super) enum Fault {
    /// The host's key is not one that is taken.
    HostKey(Box<HostKey>),
    /// The transport's own trouble.
    Transport(russh::Error),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Transport(error)
    }
}

/// Key kinds to ask the host for.
///
/// # Errors
/// When nothing is pinned, or only what we cannot check.
pub(super) fn kinds(target: &Target) -> Result<Vec<Algorithm>, Error> {
    let HostKeys::Pinned(pinned) = &target.host_keys else { return Ok(KINDS.to_vec()) };
    let unusable = |reason| Error::HostKeysUnusable { name: target.name.clone(), reason };
    if pinned.is_empty() {
        return Err(unusable("none is given"));
    }
    let wanted: Vec<_> = KINDS.iter().filter(|kind| pinned.iter().any(|key| key.kind() == **kind)).cloned().collect();
    if wanted.is_empty() {
        return Err(unusable("none of them is an ed25519 or ECDSA key"));
    }
    Ok(wanted)
}

/// One per connection.
pub(super) struct Watch {
    pub(super) host_keys: HostKeys,
    pub(super) findings: Arc<Findings>,
}

impl Watch {
    fn takes(&self, shown: &HostKey) -> bool {
        match &self.host_keys {
            HostKeys::Pinned(pinned) => pinned.contains(shown),
            // A renewed key exchange must show the key of the first one.
            HostKeys::TrustFirst | HostKeys::TrustFirstWithPassword => {
                self.findings.host_key().is_none_or(|first| first == *shown)
            }
        }
    }
}

impl Handler for Watch {
    type Error = Fault;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let shown = HostKey::new(&shown.public_key());
        if !self.takes(&shown) {
            return Err(Fault::HostKey(Box::new(shown)));
        }
        *self.findings.host_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        if matches!(&reason, DisconnectReason::Error(Fault::Transport(russh::Error::NoAuthMethod))) {
            self.findings.refused.store(true, Ordering::SeqCst);
        }
        let text = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the host ended it: {}", info.message),
            DisconnectReason::Error(Fault::HostKey(key)) => {
                format!("the host changed its key to {}", key.fingerprint())
            }
            DisconnectReason::Error(Fault::Transport(russh::Error::KeepaliveTimeout)) => {
                "the host stopped answering".to_owned()
            }
            DisconnectReason::Error(Fault::Transport(russh::Error::Disconnect | russh::Error::HUP)) => {
                "the host closed it".to_owned()
            }
            DisconnectReason::Error(Fault::Transport(error)) => error.to_string(),
        };
        *self.findings.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        Ok(())
    }

    // A host may ask for channels of its own. We asked for no forwarding, so each is refused: by dropping `reply`.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        refuse(reply)
    }
}

#[allow(clippy::needless_pass_by_value)] // dropping it is the refusal
fn refuse(_: ChannelOpenHandle) -> Result<(), Fault> {
    Ok(())
}
