//! A plain connection that sends files for stand-ins.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::queue::{Queue, is_stand_in};

/// What hyper reads from and writes to.
pub(crate) struct Connection {
    stream: TcpStream,
    queue: Arc<Queue>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, queue: Arc<Queue>) -> Self {
        Self { stream, queue }
    }

    /// Does `write` when the socket takes bytes. Asking for readiness each time counts as work of the task, so that a
    /// client that is faster than the file lets the others have their turn.
    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || write(&self.stream).map_err(io::Error::from)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_send_file(&self, cx: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        let piece = self.queue.piece(stand_in)?;
        let count = ready!(self.poll_writing(cx, |stream| {
            let mut offset = piece.offset;
            rustix::fs::sendfile(stream, &piece.source.file, Some(&mut offset), stand_in.len())
        }))?;
        if count == 0 {
            let short = "a file became shorter while it was sent";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, short)));
        }
        self.queue.advance(count);
        (piece.source.sent)(count as u64);
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.queue.check()?;
        let empty = slices.iter().take_while(|slice| slice.is_empty()).count();
        let slices = &slices[empty..];
        let plain = slices.iter().take_while(|slice| !is_stand_in(slice)).count();
        match (plain, slices) {
            (0, [stand_in, ..]) => self.poll_send_file(cx, stand_in),
            // The head of an answer waits for the first bytes of its file, so that they leave in one packet.
            (1, [head, _, ..]) => self.poll_writing(cx, |stream| rustix::net::send(stream, head, SendFlags::MORE)),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..plain]),
        }
    }

    /// Stand-ins must come as they are: without this hyper would copy them together with heads.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
