//! A TCP proxy that cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How many bytes a connection lets through before it is cut.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) to_server: u64,
    pub(crate) to_client: u64,
    /// An answer that holds this is kept back, and the connection cut.
    pub(crate) answer: &'static [u8],
}

impl Cut {
    pub(crate) const NEVER: Self = Self { to_server: u64::MAX, to_client: u64::MAX, answer: b"" };
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

/// Forwards to `target`; connection number n is cut as `cut(n)` says.
pub(crate) async fn start(target: SocketAddr, cut: impl Fn(usize) -> Cut + Send + 'static) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let Ok((client, _)) = listener.accept().await else { return };
            let cut = cut(counter.fetch_add(1, Ordering::SeqCst));
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(target).await else { return };
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                // Whichever way ends first ends the connection: both halves are dropped.
                tokio::select! {
                    () = forward(client_read, server_write, cut.to_server, b"") => {}
                    () = forward(server_read, client_write, cut.to_client, cut.answer) => {}
                }
            });
        }
    });
    Proxy { address, connections }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut most: u64, last: &[u8]) {
    let mut buffer = vec![0; 16 << 10];
    while most > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let count = count.min(usize::try_from(most).unwrap_or(usize::MAX));
        if !last.is_empty() && buffer[..count].windows(last.len()).any(|bytes| bytes == last) {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        most -= count as u64;
    }
    let _ = to.flush().await;
}
