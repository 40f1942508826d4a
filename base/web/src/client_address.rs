//! Who asks: the address of the peer, or what a trusted proxy says about it.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

/// The other end of the connection; the server puts it into every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// The address that limits and logs go by. As an extractor it never fails; outside the server it is 0.0.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientIp {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl ClientIp {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let peer = || extensions.get::<PeerAddress>().map(|peer| Self(peer.0.ip().to_canonical()));
        extensions.get::<Self>().copied().or_else(peer).unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into()))
    }
}

/// Proxies whose `X-Forwarded-For` is believed: addresses and networks (`127.0.0.1,10.0.0.0/8`). None by default,
/// because anybody can send that header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let wrong = || format!("{entry:?} is no address and no network such as 10.0.0.0/8");
                let (address, prefix) = entry.split_once('/').map_or((entry, None), |(a, p)| (a, Some(p)));
                let address: IpAddr = address.parse().map_err(|_| wrong())?;
                let longest = if address.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| wrong()))?;
                if prefix > longest { Err(wrong()) } else { Ok((address, prefix)) }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedProxies {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(network, prefix)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(*prefix);
                (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(*prefix);
                (network.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        })
    }

    /// The client behind `peer`. Each proxy appends whom it heard, so the list is read from its end for as long as
    /// the one who wrote is trusted.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values = headers.get_all("x-forwarded-for").iter().rev();
        for entry in values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')) {
            if !self.contains(client) {
                break;
            }
            let entry = entry.trim();
            let address = entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()));
            match address {
                Some(address) => client = IpAddr::to_canonical(&address),
                None => break,
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        trusted.parse::<TrustedProxies>().unwrap().client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(client("", "203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
    }

    #[test]
    fn the_list_is_read_from_its_end_through_trusted_proxies() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 203.0.113.9", "10.2.3.4"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "::ffff:10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::/0", "2001:db8::1", &["2001:db8::2"]), "2001:db8::2");
        assert_eq!(client("0.0.0.0/0", "9.9.9.9", &["8.8.8.8"]), "8.8.8.8");
    }

    #[test]
    fn wrong_networks_are_named() {
        for text in ["x", "10.0.0.0/33", "10.0.0.0/", "::1/129"] {
            assert!(text.parse::<TrustedProxies>().unwrap_err().contains(text), "{text}");
        }
    }
}
