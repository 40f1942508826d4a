//! The loop: output, metrics, the end of the process, SIGTERM.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use host::{PidFd, Signal};
use keeper::{Console, Directory, Lines, Moved, Totals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::work::{WorkError, at};

/// Metrics are written to disk this often at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Portions that are taken when the process has ended: more than its FIFOs hold.
const MOST_LEFT: usize = 256;
/// Bytes of metrics that are read at once.
const PORTION: usize = 64 << 10;

/// What a keeper hears: SIGTERM. SIGHUP and SIGINT are for the terminal of whoever started it.
pub(crate) struct Signals {
    asked: UnixStream,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        let (asked, ask) = UnixStream::pair()?;
        asked.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(Signal::TERM.as_raw(), ask)?;
        for signal in [Signal::HUP, Signal::INT] {
            signal_hook::flag::register(signal.as_raw(), Arc::new(AtomicBool::new(false)))?;
        }
        Ok(Self { asked })
    }
}

/// Why the loop is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The process has ended.
    Ended,
    /// This keeper was told to.
    Asked,
}

/// What is watched.
pub(crate) struct Watch<'a> {
    directory: &'a Directory,
    console: Console,
    output: Option<File>,
    metrics: Option<File>,
    signals: Signals,
    lines: Lines,
    totals: Totals,
    /// When metrics were last written, if there are newer ones.
    unsaved: bool,
    saved: Instant,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        directory: &'a Directory,
        console: Console,
        output: Option<File>,
        metrics: Option<File>,
        signals: Signals,
    ) -> Self {
        // A file that cannot be understood is not worth the guest's console.
        let totals = directory.metrics().unwrap_or_default();
        let lines = Lines::default();
        Self { directory, console, output, metrics, signals, lines, totals, unsaved: false, saved: Instant::now() }
    }

    /// Goes on until the process has ended, or until SIGTERM.
    pub(crate) fn until_end(&mut self, process: &PidFd) -> Result<Over, WorkError> {
        loop {
            let [ended, asked, output, metrics] = self.wait(process)?;
            if output {
                self.console_portion()?;
            }
            if metrics {
                self.metrics_portion();
            }
            self.save(Instant::now() >= self.saved + SAVE_EVERY);
            if ended {
                return Ok(Over::Ended);
            }
            if asked {
                self.save(true);
                return Ok(Over::Asked);
            }
        }
    }

    /// Takes what is left when nobody writes any more: at most what FIFOs hold, also if somebody does.
    pub(crate) fn drain(&mut self) -> Result<(), WorkError> {
        for _ in 0..MOST_LEFT {
            let output = self.console_portion()?;
            if !self.metrics_portion() && !output {
                break;
            }
        }
        self.save(true);
        Ok(())
    }

    /// Which of process, SIGTERM, output and metrics has something to say.
    fn wait(&self, process: &PidFd) -> Result<[bool; 4], WorkError> {
        let mut fds = vec![PollFd::new(process, PollFlags::IN), PollFd::new(&self.signals.asked, PollFlags::IN)];
        let files = [&self.output, &self.metrics];
        fds.extend(files.into_iter().flatten().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)));
        let left = self.unsaved.then(|| (self.saved + SAVE_EVERY).saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(at("wait")(errno)),
        }
        let mut said = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |is_there: bool| is_there && said.next().unwrap_or_default();
        Ok([next(true), next(true), next(self.output.is_some()), next(self.metrics.is_some())])
    }

    fn console_portion(&mut self) -> Result<bool, WorkError> {
        match &self.output {
            Some(output) => Ok(self.console.take(output)? != Moved::Nothing),
            None => Ok(false),
        }
    }

    /// A process that tells nonsense, or nothing, is none of the keeper's business.
    fn metrics_portion(&mut self) -> bool {
        let Some(mut file) = self.metrics.as_ref() else { return false };
        let mut bytes = vec![0; PORTION];
        match file.read(&mut bytes) {
            Ok(count) if count > 0 => {
                self.unsaved |= self.lines.feed(&bytes[..count], &mut self.totals);
                true
            }
            _ => false,
        }
    }

    /// A disk that does not take them now may later; the guest goes on.
    fn save(&mut self, now: bool) {
        if self.unsaved && now {
            self.unsaved = self.directory.write_metrics(&self.totals).is_err();
            self.saved = Instant::now();
        }
    }
}
