//! Waiting: for the end of a process, for a change of a directory, for a guest that reads.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use host::{FileError, PidFd};
use keeper::{Identity, Life};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe;

use super::failed;
use crate::ports::StepError;

/// A process that lives, or did a moment ago.
pub(super) struct Handle(AsyncFd<PidFd>);

/// A handle of a process; nothing when it is gone.
pub(super) fn handle(identity: &Identity) -> Result<Option<Handle>, StepError> {
    let at = |source: io::Error| failed(FileError::at("watch", Path::new(&format!("/proc/{}", identity.pid)))(source));
    // The handle first: what has this number then keeps it as long as the handle is open.
    let Some(handle) = PidFd::open(identity.pid).map_err(at)? else { return Ok(None) };
    if identity.life().map_err(failed)? != Life::Running {
        return Ok(None);
    }
    Ok(Some(Handle(readable(handle).map_err(at)?)))
}

impl Handle {
    /// Waits for the end of the process.
    pub(super) async fn ended(&self) -> Result<(), StepError> {
        // The kernel makes the handle readable when the process has ended, and it stays so.
        self.0.readable().await.map(drop).map_err(failed)
    }
}

/// Waits for a descriptor without a thread. The function that takes the place of the deprecated one is unsafe, for values
/// that may change or close their descriptor meanwhile; both kinds here own theirs and do neither.
#[allow(deprecated)]
fn readable<T: AsRawFd>(value: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(value, Interest::READABLE)
}

/// Names that appear in a directory (inotify(7)). The kernel gives each user so many of these and no more, and whoever
/// follows consoles can use them up: then it is looked every so often instead.
pub(super) struct Changes(Option<AsyncFd<Watch>>);

/// Between two looks where nothing can be watched.
const LOOK: Duration = Duration::from_millis(50);

/// Has its descriptor until it is dropped.
struct Watch(Option<OwnedFd>);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for Watch {
    /// Closing an inotify descriptor waits for a grace period of the kernel's, some 10 ms (fsnotify_destroy_group), and
    /// nobody has to wait with it.
    fn drop(&mut self) {
        let fd = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(fd)));
        }
    }
}

impl Changes {
    pub(super) fn of(directory: &Path) -> Result<Self, StepError> {
        let watch = || -> io::Result<Self> {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&fd, directory, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
            Ok(Self(Some(readable(Watch(Some(fd)))?)))
        };
        match watch() {
            Err(error) if is_used_up(&error) => {
                tracing::warn!(directory = %directory.display(), %error, "a directory is looked at instead of watched");
                Ok(Self(None))
            }
            watched => watched.map_err(FileError::at("watch", directory)).map_err(failed),
        }
    }

    /// Waits for a change since the last call, or since the beginning.
    pub(super) async fn next(&self) -> Result<(), StepError> {
        let Some(watched) = &self.0 else {
            tokio::time::sleep(LOOK).await;
            return Ok(());
        };
        loop {
            let mut ready = watched.readable().await.map_err(failed)?;
            let mut events = [0u8; 4096];
            // Where it is not readable after all, it is waited for again.
            if let Ok(read) = ready.try_io(|watch| read(watch.get_ref(), &mut events)) {
                return read.map(drop).map_err(failed);
            }
        }
    }
}

/// inotify_init1(2): EMFILE for instances, inotify_add_watch(2): ENOSPC for watches.
fn is_used_up(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NOSPC].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn read(Watch(fd): &Watch, events: &mut [u8]) -> io::Result<usize> {
    let fd = fd.as_ref().ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::io::read(fd, events)?)
}

/// Writes to a FIFO that somebody reads.
pub(super) async fn type_in(path: &Path, bytes: &[u8]) -> Result<(), StepError> {
    let at = |operation| move |source: io::Error| failed(FileError::at(operation, path)(source));
    let mut sender = pipe::OpenOptions::new().open_sender(path).map_err(at("open"))?;
    sender.write_all(bytes).await.map_err(at("write to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_watch_it_is_looked_again() {
        assert!(
            is_used_up(&Errno::MFILE.into()) && is_used_up(&Errno::NOSPC.into()) && !is_used_up(&Errno::ACCESS.into())
        );
        Changes(None).next().await.unwrap();
    }
}
