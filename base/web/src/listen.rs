//! Takes the socket before anything else happens: an address that is taken must be told before a file is written.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use cairn_core::ErrorKind;
use tokio::net::TcpListener;

/// Where to listen: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or `:8080` for every address of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Every,
    Address(IpAddr),
    Name(String),
}

impl ListenAddress {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Every => false,
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    async fn candidates(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(match &self.host {
            // The IPv6 socket takes IPv4 too; the other is for a kernel without IPv6.
            Host::Every => vec![(Ipv6Addr::UNSPECIFIED, self.port).into(), (Ipv4Addr::UNSPECIFIED, self.port).into()],
            Host::Address(address) => vec![(*address, self.port).into()],
            Host::Name(name) => tokio::net::lookup_host((name.as_str(), self.port)).await?.collect(),
        })
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let wrong = || format!("{text:?} is no address to listen on: ADDRESS:PORT or :PORT was expected");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host {
            "" => Host::Every,
            name if name.contains([':', '/', '[', ' ']) => return Err(wrong()),
            name => Host::Name(name.to_ascii_lowercase()),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Every => write!(f, ":{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its name means nothing here.
    #[error("cannot find the address of {address}")]
    Resolve { address: ListenAddress, source: io::Error },
    /// Another process listens there.
    #[error("cannot listen on {address}: it is in use by another process")]
    InUse { address: ListenAddress, source: io::Error },
    /// Not an address of this machine, or not for us.
    #[error("cannot listen on {address}")]
    Bind { address: ListenAddress, source: io::Error },
}

impl BindError {
    /// [`ErrorKind::Conflict`] when in use, [`ErrorKind::Invalid`] otherwise.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Conflict,
            Self::Resolve { .. } | Self::Bind { .. } => ErrorKind::Invalid,
        }
    }
}

/// Takes the socket. `local_addr()` of the result tells the port when 0 was asked for.
pub async fn bind(address: &ListenAddress) -> Result<TcpListener, BindError> {
    let address = address.clone();
    let candidates = match address.candidates().await {
        Ok(candidates) => candidates,
        Err(source) => return Err(BindError::Resolve { address, source }),
    };
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for candidate in candidates {
        match TcpListener::bind(candidate).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::InUse { address, source: error });
            }
            Err(error) => failure = error,
        }
    }
    Err(BindError::Bind { address, source: failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_know_whether_they_are_local() {
        for (text, loopback) in [
            (":8080", false),
            ("127.0.0.1:0", true),
            ("0.0.0.0:8080", false),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("localhost:8080", true),
            ("controller.example:8080", false),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.is_loopback(), loopback, "{text}");
            assert_eq!(address.to_string().parse::<ListenAddress>().unwrap(), address);
        }
        for text in ["", "8080", "localhost", ":99999", "http://x:80", "::1:80", ":"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken: ListenAddress = first.local_addr().unwrap().to_string().parse().unwrap();
        let error = bind(&taken).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {taken}: it is in use by another process"));
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let error = bind(&"192.0.2.1:80".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:80");
        bind(&":0".parse().unwrap()).await.unwrap();
        bind(&"localhost:0".parse().unwrap()).await.unwrap();
    }
}
