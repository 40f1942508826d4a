//! A byte stream that notices when nobody takes what is written to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The transport cannot send a keep-alive while it is stuck in a write: a host that freezes in the middle of a large
/// input would never be found dead. Here a write that moves no byte for `limit` fails.
pub(super) struct Pulse<S> {
    inner: S,
    limit: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Pulse<S> {
    pub(super) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, stuck: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if stuck.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.stuck = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no data")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pulse<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pulse<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails() {
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut pulse = Pulse::new(ours, Duration::from_secs(30));
        let error = pulse.write_all(b"more than four").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_no_dead_one() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut pulse = Pulse::new(ours, Duration::from_secs(30));
        let reading = tokio::spawn(async move {
            let mut taken = Vec::new();
            let mut part = [0; 4];
            while taken.len() < 40 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let count = theirs.read(&mut part).await.unwrap();
                taken.extend_from_slice(&part[..count]);
            }
            taken
        });
        pulse.write_all(&[7; 40]).await.unwrap();
        assert_eq!(reading.await.unwrap(), vec![7; 40]);
    }
}
