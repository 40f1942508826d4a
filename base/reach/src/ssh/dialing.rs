//! A TCP connection, or one through another host, in bounded time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Connects to the first address of the host that answers. Each gets an equal share of the time that is left: one that
/// swallows packets does not use up the time of the next.
///
/// # Errors
/// What the last address said; `TimedOut` when the time is over.
pub(super) async fn tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let addresses: Vec<SocketAddr> =
        timeout_at(deadline, tokio::net::lookup_host((host, port))).await.map_err(|_| late())??.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match tokio::time::timeout(share.max(Duration::from_millis(1)), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small packets, and an answer awaited for each: Nagle's algorithm would only delay them.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = late(),
        }
    }
    Err(failure)
}
