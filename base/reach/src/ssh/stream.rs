//! Bytes to and from something that a host can reach.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Connection;
use super::running::feed;

/// Bytes that wait between a channel and its user, each way.
pub(super) const PIPE: usize = 256 * 1024;

/// A connection through a host: [`Connection::dial`] and [`Connection::dial_socket`]. Shutting it down ends our
/// direction; dropping it ends both at once, with whatever was not sent yet.
#[derive(Debug)]
pub struct Stream {
    inner: DuplexStream,
    /// Keeps the connection below as long as somebody uses the stream.
    _connection: Connection,
    _end: DropGuard,
}

impl Stream {
    pub(super) fn start(channel: Channel<Msg>, connection: Connection) -> Self {
        let (inner, outer) = tokio::io::duplex(PIPE);
        let end = CancellationToken::new();
        tokio::spawn(carry(channel, outer, end.clone()));
        Self { inner, _connection: connection, _end: end.drop_guard() }
    }
}

async fn carry(channel: Channel<Msg>, outer: DuplexStream, end: CancellationToken) {
    let (reading, writing) = channel.split();
    let (source, sink) = tokio::io::split(outer);
    let received = async {
        deliver(reading, sink).await;
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = received => {}
        () = feed(source, &writing) => {}
    }
    // Best effort: without a connection there is no channel either.
    let _ = writing.close().await;
}

/// Hands over what arrives until the channel is closed. An end of data ends only this direction.
async fn deliver(mut reading: ChannelReadHalf, mut sink: impl AsyncWrite + Unpin) {
    while let Some(message) = reading.wait().await {
        let outcome = match message {
            ChannelMsg::Data { data } => sink.write_all(&data).await,
            ChannelMsg::Eof => sink.shutdown().await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if outcome.is_err() {
            return;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
