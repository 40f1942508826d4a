//! A process by a handle: what is done with it never hits another process that has its number now.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exited {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A handle of a process (pidfd_open(2)). It can be waited for like a file that becomes readable.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Of a process; nothing when there is none of this id. Whoever does not know that the id still means the process
    /// compares its start time afterwards.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a signal; `false` when the process is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match rustix::process::pidfd_send_signal(&self.0, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, for ever or so long; gives back whether it has.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        self.wait_for(PollFlags::IN, limit)
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> io::Result<bool> {
        self.wait(Some(Duration::ZERO))
    }

    /// Takes leave of a child that has ended, and says how. Nothing when it runs.
    pub fn reap(&self) -> io::Result<Option<Exited>> {
        self.status_of_child(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// How a child has ended, of which leave is taken later. Nothing when it runs.
    pub fn exit_of_child(&self) -> io::Result<Option<Exited>> {
        self.status_of_child(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    }

    fn status_of_child(&self, options: WaitIdOptions) -> io::Result<Option<Exited>> {
        let wait = || rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options);
        let Some(status) = rustix::io::retry_on_intr(wait)? else { return Ok(None) };
        let code = status.exit_status().map(Exited::Code);
        Ok(code.or_else(|| status.terminating_signal().map(Exited::Signal)))
    }

    /// How a process ended whose parent is another: Linux says so from 6.15 on, once the parent has taken leave of it,
    /// which is waited for so long. Nothing where that cannot be known. The handle has to be older than the end.
    pub fn exit_of_stranger(&self, limit: Duration) -> Option<Exited> {
        // The kernel hangs up when nothing is left of the process.
        let _ = self.wait_for(PollFlags::empty(), Some(limit));
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        pidfd_info(self.0.as_fd(), &mut info).ok()?;
        (info.mask & PIDFD_INFO_EXIT != 0).then_some(match info.exit_code & 0x7f {
            0 => Exited::Code((info.exit_code >> 8) & 0xff),
            signal => Exited::Signal(signal),
        })
    }

    fn wait_for(&self, events: PollFlags, limit: Option<Duration>) -> io::Result<bool> {
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
            match poll(&mut [PollFd::new(&self.0, events)], left.as_ref()) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Ask for the exit status (linux/pidfd.h).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` as Linux 6.13 had it first, 64 bytes; longer ones begin with it.
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64 && offset_of!(PidfdInfo, exit_code) == 60);

#[allow(unsafe_code)]
fn pidfd_info(fd: BorrowedFd<'_>, info: &mut PidfdInfo) -> rustix::io::Result<()> {
    const PIDFD_GET_INFO: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);
    // SAFETY: the kernel reads and writes as many bytes as the number says, which is the size of the value. Every bit
    // pattern is a valid one. On a file that knows no such request it fails.
    unsafe { rustix::ioctl::ioctl(fd, rustix::ioctl::Updater::<PIDFD_GET_INFO, PidfdInfo>::new(info)) }
}
