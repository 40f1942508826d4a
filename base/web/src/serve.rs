//! The connection loop.
//!
//! There is no limit on how long a request or a response may take: blobs of many gigabytes pass here, and BMCs read
//! an image over the whole time of a boot. What is limited is the time to send the head of a request, so that nobody
//! can hold connections for nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::Tls;
use crate::client_address::PeerAddress;
use crate::sending::{Connection, Queue};

/// Pause after a failed accept: it fails when there are no descriptors left, and at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may be silent before the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long, in milliseconds, a peer may take none of the bytes that wait for it. A BMC reads its image only as fast as
/// the machine boots, so this is long; without it, whoever asks for a blob and reads nothing holds file and connection
/// for ever.
const STALLED: u32 = 3_600_000;
/// Most of a request that is read in one go, of a head that is taken, and of an answer that waits to be written, in bytes.
/// Larger buffers cost more than they spare: each would be fresh memory, which the kernel clears page by page.
const BUFFER: usize = 64 << 10;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// With a certificate only TLS is spoken.
    pub tls: Option<Tls>,
    /// Longest time for the TLS handshake, for the head of a request, and between two requests of a connection.
    pub header_read_timeout: Duration,
    /// Cancelled to stop: no new connection is taken, running requests end.
    pub shutdown: CancellationToken,
    /// How long running requests have to end.
    pub drain: Duration,
}

impl ServeOptions {
    /// Plain HTTP, 10 s for a head, 20 s to drain.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tls: None, header_read_timeout: Duration::from_secs(10), shutdown, drain: Duration::from_secs(20) }
    }
}

/// How the server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Connections whose request did not end in time and that were cut.
    pub cut: usize,
}

/// Serves until `shutdown` is cancelled and the running requests have ended or `drain` is over. A stream of events
/// ends by itself only if its handler watches the same token.
pub async fn serve(listener: TcpListener, app: Router, options: ServeOptions) -> Drain {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = options.shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, app.clone(), options.clone(), graceful.watcher()));
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(options.drain, graceful.shutdown()).await;
    while connections.try_join_next().is_some() {}
    let cut = connections.len();
    if cut > 0 {
        tracing::warn!(connections = cut, "requests did not end in time and were cut");
    }
    connections.shutdown().await;
    Drain { cut }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, options: ServeOptions, watcher: Watcher) {
    // Without these a connection only works less well; there is nothing to refuse for it.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STALLED);
    let Some(tls) = &options.tls else {
        let queue = Arc::new(Queue::default());
        let stream = Connection::new(stream, Arc::clone(&queue));
        return requests(stream, peer, Some(queue), app, options.header_read_timeout, watcher).await;
    };
    let handshake = tokio::time::timeout(options.header_read_timeout, tls.acceptor().accept(stream));
    let stream = tokio::select! {
        () = options.shutdown.cancelled() => return,
        stream = handshake => stream,
    };
    match stream {
        Ok(Ok(stream)) => requests(stream, peer, None, app, options.header_read_timeout, watcher).await,
        Ok(Err(error)) => {
            tracing::debug!(client = %peer.ip(), error = &error as &dyn std::error::Error, "TLS handshake failed");
        }
        Err(_) => tracing::debug!(client = %peer.ip(), "TLS handshake took too long"),
    }
}

/// Serves the requests of one connection. With a queue it is one that sends files.
async fn requests<IO>(
    io: IO,
    peer: SocketAddr,
    queue: Option<Arc<Queue>>,
    app: Router,
    header_read_timeout: Duration,
    watcher: Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = app.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        if let Some(queue) = &queue {
            request.extensions_mut().insert(Arc::clone(queue));
        }
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read_timeout)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(client = %peer.ip(), error = &error as &dyn std::error::Error, "connection ended");
    }
}
