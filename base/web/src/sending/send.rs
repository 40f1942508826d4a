//! The body for a connection that sends files itself.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use super::Sent;
use super::queue::{LONGEST, Queue, Source};

/// How far the kernel is asked to read ahead of a file that is not cached, in bytes: disk and network work at the same
/// time then.
const AHEAD: NonZeroU64 = NonZeroU64::new(8 << 20).expect("not zero");

pub(super) struct SendBody {
    queue: Arc<Queue>,
    source: Arc<Source>,
    next: u64,
    end: u64,
    fetching: Option<JoinHandle<()>>,
}

impl SendBody {
    pub(super) fn new(queue: Arc<Queue>, file: File, first: u64, end: u64, sent: Sent) -> Self {
        Self { queue, source: Arc::new(Source { file, sent }), next: first, end, fetching: None }
    }

    /// Waits until the next bytes, up to `last`, are in the page cache, as far as can be known.
    fn poll_cached(&mut self, cx: &mut Context<'_>, last: u64) -> Poll<()> {
        if self.fetching.is_none() {
            if is_cached(&self.source.file, last) {
                return Poll::Ready(());
            }
            let (source, next) = (Arc::clone(&self.source), self.next);
            self.fetching = Some(tokio::task::spawn_blocking(move || fetch(&source.file, next, last)));
        }
        if let Some(fetching) = &mut self.fetching {
            // What went wrong in there goes wrong again, and with a reason, when the bytes are sent.
            let _ = ready!(Pin::new(fetching).poll(cx));
            self.fetching = None;
        }
        Poll::Ready(())
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = usize::try_from(self.end - self.next).unwrap_or(LONGEST).min(LONGEST);
        if length == 0 {
            return Poll::Ready(None);
        }
        let after = self.next + length as u64;
        ready!(self.poll_cached(cx, after - 1));
        let stand_in = self.queue.push(Arc::clone(&self.source), self.next, length);
        self.next = after;
        Poll::Ready(Some(Ok(Frame::data(stand_in))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.next)
    }
}

/// Whether the byte at `offset` can be had without waiting for the disk. The kernel reads ahead of what is sent, so that
/// one byte speaks for those before it.
fn is_cached(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    read != Err(Errno::AGAIN)
}

fn fetch(file: &File, first: u64, last: u64) {
    // Advice; the read below waits for what matters now.
    let _ = rustix::fs::fadvise(file, first, Some(AHEAD), Advice::WillNeed);
    let _ = file.read_at(&mut [0], last);
}
