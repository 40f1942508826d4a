//! The body for every other connection.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::Sent;

/// Bytes read in one go: more than hyper gathers before it writes, so that two pieces are held at most.
const PIECE: usize = 128 << 10;

pub(super) struct ReadBody {
    file: Arc<File>,
    next: u64,
    end: u64,
    sent: Sent,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl ReadBody {
    pub(super) fn new(file: File, first: u64, end: u64, sent: Sent) -> Self {
        Self { file: Arc::new(file), next: first, end, sent, reading: None }
    }
}

impl Body for ReadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = usize::try_from(self.end - self.next).unwrap_or(PIECE).min(PIECE);
        if length == 0 {
            return Poll::Ready(None);
        }
        let (file, next) = (Arc::clone(&self.file), self.next);
        let reading =
            self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(move || read(&file, next, length)));
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let bytes = read.map_err(io::Error::other)??;
        self.next += bytes.len() as u64;
        (self.sent)(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.next)
    }
}

/// All of the bytes: a file that became shorter ends the answer.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}
