//! Which bytes of which file the stand-ins of one connection are for.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

use super::Sent;

/// Longest stand-in, in bytes. More than hyper gathers before it writes, so that it asks for the next one only when this
/// one is out; and little enough that a connection does not keep a thread from the others for long.
pub(super) const LONGEST: usize = 2 << 20;

/// What stand-ins are slices of. Pages that are never touched take no memory.
static REGION: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; LONGEST].into_boxed_slice());

/// Where a slice begins in the region; `None` for an ordinary one.
fn place(slice: &[u8]) -> Option<usize> {
    let place = slice.as_ptr().addr().checked_sub(REGION.as_ptr().addr())?;
    (place < LONGEST).then_some(place)
}

/// Whether these are not the bytes to write but stand for some of a file.
pub(super) fn is_stand_in(slice: &[u8]) -> bool {
    place(slice).is_some()
}

/// A file that is being sent.
pub(super) struct Source {
    pub(super) file: File,
    pub(super) sent: Sent,
}

/// Bytes to send now.
pub(super) struct Piece {
    pub(super) source: Arc<Source>,
    pub(super) offset: u64,
}

/// The files of one connection: its bodies put them in, it takes them out in the same order.
#[derive(Default)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    next: u64,
    broken: bool,
}

struct Waiting {
    number: u64,
    source: Arc<Source>,
    offset: u64,
    length: usize,
    sent: usize,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Valid between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stand-in for `length` bytes of the file, [`LONGEST`] at most.
    pub(super) fn push(self: &Arc<Self>, source: Arc<Source>, offset: u64, length: usize) -> Bytes {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Waiting { number, source, offset, length, sent: 0 });
        drop(state);
        Bytes::from_owner(StandIn { queue: Arc::clone(self), number, length })
    }

    /// Fails once a stand-in has been lost: what is to be written now may be a copy of it.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.state().broken { Err(lost()) } else { Ok(()) }
    }

    /// What to send for this stand-in, or for the rest or a part of it.
    pub(super) fn piece(&self, slice: &[u8]) -> io::Result<Piece> {
        let state = self.state();
        let first = state.waiting.front().filter(|first| {
            !state.broken && place(slice) == Some(first.sent) && slice.len() <= first.length - first.sent
        });
        let first = first.ok_or_else(lost)?;
        Ok(Piece { source: Arc::clone(&first.source), offset: first.offset + first.sent as u64 })
    }

    /// So many bytes of that piece have been sent.
    pub(super) fn advance(&self, length: usize) {
        let mut state = self.state();
        let Some(first) = state.waiting.front_mut() else { return };
        first.sent += length;
        if first.sent >= first.length {
            state.waiting.pop_front();
        }
    }

    fn dropped(&self, number: u64) {
        let mut state = self.state();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != number);
        state.broken |= state.waiting.len() != before;
    }
}

fn lost() -> io::Error {
    io::Error::other("the bytes of a file were to be written by another way than from the file")
}

/// Lives as long as any slice of it.
struct StandIn {
    queue: Arc<Queue>,
    number: u64,
    length: usize,
}

impl AsRef<[u8]> for StandIn {
    fn as_ref(&self) -> &[u8] {
        &REGION[..self.length]
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.queue.dropped(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<Source> {
        Arc::new(Source { file: tempfile::tempfile().unwrap(), sent: Arc::new(|_| {}) })
    }

    fn offset(queue: &Queue, slice: &[u8]) -> Option<u64> {
        queue.piece(slice).ok().map(|piece| piece.offset)
    }

    #[test]
    fn stand_ins_are_known_by_their_address_and_in_order() {
        let queue = Arc::new(Queue::default());
        let (one, two) = (queue.push(source(), 100, 10), queue.push(source(), 200, 20));
        assert!(is_stand_in(&one) && is_stand_in(&two[19..]) && !is_stand_in(&[0; 10]));
        assert_eq!(offset(&queue, &one), Some(100));
        assert_eq!(offset(&queue, &one[..4]), Some(100), "a part of it");
        assert_eq!(offset(&queue, &one[1..]), None, "not where sending is");
        assert_eq!(offset(&queue, &two), None, "longer than the one whose turn it is");
        queue.advance(4);
        assert_eq!(offset(&queue, &one[4..]), Some(104));
        queue.advance(6);
        drop(one);
        assert_eq!(offset(&queue, &two), Some(200));
        queue.advance(20);
        assert_eq!(offset(&queue, &two[..0]), None, "there is none left");
        assert!(queue.check().is_ok());
    }

    #[test]
    fn a_stand_in_that_is_lost_breaks_the_connection() {
        let queue = Arc::new(Queue::default());
        let (one, two) = (queue.push(source(), 0, 10), queue.push(source(), 0, 10));
        queue.advance(9);
        let copied = one.to_vec();
        assert!(!is_stand_in(&copied) && queue.check().is_ok());
        drop(one);
        assert!(queue.check().is_err());
        assert_eq!(offset(&queue, &two), None);
    }
}
