//! What else happens while a command runs: who reads its messages, who may end it, which lock its children keep.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::lock::LockFile;

/// Takes one line that a command wrote to standard error, without its end.
pub type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

/// What else happens while a command runs; by itself nothing.
#[derive(Clone, Default)]
pub struct Supervision {
    // First, so that it is free once `on_line` is gone.
    pub(crate) lock: Option<Arc<LockFile>>,
    pub(crate) on_line: Option<OnLine>,
    pub(crate) stop: Option<Stop>,
    pub(crate) memory: Option<u64>,
}

impl Supervision {
    /// Nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether anything is done in the child before it becomes its program.
    pub(crate) fn is_needed_in_child(&self) -> bool {
        self.stop.is_some() || self.lock.is_some() || self.memory.is_some()
    }

    /// Is called with every line on standard error, as it comes. A carriage return ends a line too: programs write over
    /// their own progress with it. What is longer than 4 KiB comes in pieces.
    pub fn on_line(mut self, on_line: OnLine) -> Self {
        self.on_line = Some(on_line);
        self
    }

    /// Kills the command and its children when it says so.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// The command and its children keep this lock too. When this process is killed, the lock lasts until the last of
    /// them has ended: whoever gets it next finds nobody at work.
    pub fn lock(mut self, lock: Arc<LockFile>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Most memory, in bytes of address space, that the command and each of its children may have (RLIMIT_AS).
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }
}

impl fmt::Debug for Supervision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = formatter.debug_struct("Supervision");
        all.field("stop", &self.stop).field("lock", &self.lock).field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Ends commands from another thread. Once said, it stays said.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Nothing is to stop yet.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Kills every command that is supervised by this.
    pub fn now(&self) {
        // Fails only when the counter is full, and then this was said before.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Longest line that is handed on in one piece, in bytes.
const LINE_LIMIT: usize = 4 << 10;

/// Cuts what is read into lines.
pub(crate) struct Lines {
    on_line: OnLine,
    begun: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(on_line: OnLine) -> Self {
        Self { on_line, begun: Vec::new() }
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if !matches!(byte, b'\n' | b'\r') {
                self.begun.push(*byte);
            }
            if matches!(byte, b'\n' | b'\r') || self.begun.len() >= LINE_LIMIT {
                self.end();
            }
        }
    }

    /// Hands on what has no end yet.
    pub(crate) fn end(&mut self) {
        if !self.begun.is_empty() {
            (self.on_line)(&String::from_utf8_lossy(&self.begun));
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_read() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let mut lines = Lines::new(Arc::new(move |line| sink.lock().unwrap().push(line.to_owned())));
        for piece in ["on", "e\ntwo\r", "\n\nthr", "ee"] {
            lines.read(piece.as_bytes());
        }
        lines.end();
        lines.read(&vec![b'x'; LINE_LIMIT + 1]);
        lines.end();
        let seen = seen.lock().unwrap();
        assert_eq!(seen[..3], ["one", "two", "three"]);
        assert_eq!(seen[3..].iter().map(String::len).collect::<Vec<_>>(), [LINE_LIMIT, 1]);
    }
}
