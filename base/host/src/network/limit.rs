//! Rate limits, and connections that are forgotten.

use std::net::IpAddr;
use std::time::Duration;

use super::error::{Cause, NetworkError};

/// How fast a link may send: a token bucket (tc-tbf(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// In bytes a second; at least 1.
    pub rate: u64,
    /// How much may go at once after silence, in bytes. Has to hold the largest packet, or nothing larger passes.
    pub burst: u32,
    /// How long a packet may wait before it is dropped.
    pub latency: Duration,
}

impl Limit {
    /// Whether the kernel could keep it.
    pub(super) fn check(&self) -> Result<(), Cause> {
        if self.rate == 0 || self.burst == 0 {
            return Err(Cause::Invalid("neither rate nor burst of a limit can be 0".to_owned()));
        }
        Ok(())
    }
}

/// Limits of links, and the connections that the packet filter remembers.
pub trait Traffic {
    /// Sets or changes how fast a link may send; what it receives is limited at the other end.
    fn set_limit(&self, link: &str, limit: &Limit) -> Result<(), NetworkError>;

    /// Takes the limit of a link away.
    fn remove_limit(&self, link: &str) -> Result<(), NetworkError>;

    /// The limit of a link. The kernel keeps times, so burst and latency come back rounded.
    fn limit(&self, link: &str) -> Result<Option<Limit>, NetworkError>;

    /// Forgets every tracked connection from or to one of these addresses, before or after translation, and returns how
    /// many there were. The kernel's list of all connections is read once, however many addresses there are. A rule that accepts what is established lets old connections live on until this is done.
    fn forget_connections(&self, addresses: &[IpAddr]) -> Result<usize, NetworkError>;
}

/// For errors: whose connections.
pub(super) fn connections_of(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("connections of {}", addresses.join(", "))
}
