//! The real host.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, setrlimit};

use crate::process::{Command, Feed, OUTPUT_LIMIT, Output, ProcessError, Processes, last_lines};
use crate::supervision::{Lines, OnLine, Stop, Supervision};

/// Where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a command that stopped reading has until it is asked how it ended.
const LINGER: Duration = Duration::from_secs(30);

/// How long output that a command's own children keep open is waited for after the command has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// The machine that this program runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

impl Processes for Linux {
    fn run_fed(&self, command: &Command, feed: &mut Feed<'_>) -> Result<Output, ProcessError> {
        self.run_in_full(command, feed, &Supervision::new())
    }
}

impl Linux {
    /// Runs a command to its end as [`Processes::run`] does, and what else is asked for. A command that can be stopped,
    /// has a lock or a limit also ends when this process does.
    ///
    /// # Errors
    /// As of [`Processes::run`]; [`ProcessError::Stopped`] when the supervision ended it.
    pub fn run_supervised(&self, command: &Command, supervision: &Supervision) -> Result<Output, ProcessError> {
        let mut input = command.input.as_slice();
        self.run_in_full(command, &mut |writer| io::copy(&mut input, writer).map(|_| ()), supervision)
    }

    fn run_in_full(
        &self,
        command: &Command,
        feed: &mut Feed<'_>,
        supervision: &Supervision,
    ) -> Result<Output, ProcessError> {
        let program = command.program().to_owned();
        let start = |source| ProcessError::Start { program: program.clone(), source };
        let mut child = spawn(command, supervision).map_err(start)?;
        let pid = Pid::from_child(&child);
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(start(errno.into()));
            }
        };
        let stdout = child.stdout.take().map(|pipe| reader(pipe, Keep::Start, None));
        let stderr = child.stderr.take().map(|pipe| reader(pipe, Keep::End, supervision.on_line.clone()));
        let (fed, end) = std::thread::scope(|scope| {
            let watchdog = scope.spawn(|| watch(&handle, pid, command.timeout, supervision.stop.as_ref()));
            let fed = match child.stdin.take() {
                Some(stdin) => fed(stdin, &handle, feed),
                None => Ok(()),
            };
            if fed.is_err() {
                kill(&handle, pid);
            }
            (fed, watchdog.join().unwrap_or(End::Late))
        });
        let status = child.wait().map_err(|source| ProcessError::Wait { program: program.clone(), source })?;
        let (stdout, stdout_size) = collect(stdout, pid);
        let (stderr, _) = collect(stderr, pid);
        if matches!(end, End::Stopped) {
            return Err(ProcessError::Stopped { program });
        }
        if let Err(source) = fed {
            return Err(ProcessError::Input { program, source });
        }
        if matches!(end, End::Late) {
            return Err(ProcessError::Timeout { program, timeout: command.timeout, stderr: last_lines(&stderr) });
        }
        if !status.success() {
            let (status, code) = (describe(status), status.code());
            return Err(ProcessError::Exit { program, status, code, stderr: last_lines(&stderr) });
        }
        if stdout_size > OUTPUT_LIMIT {
            return Err(ProcessError::TooMuchOutput { program });
        }
        Ok(Output { stdout, stderr })
    }
}

/// Starts the child as the leader of its own process group, so that a kill reaches its children too.
fn spawn(command: &Command, supervision: &Supervision) -> io::Result<Child> {
    let stdout = match &command.output {
        Some(file) => Stdio::from(File::create(file)?),
        None => Stdio::piped(),
    };
    let mut child = std::process::Command::new(&command.argv[0]);
    child
        .args(&command.argv[1..])
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(directory) = &command.directory {
        child.current_dir(directory);
    }
    if supervision.is_needed_in_child() {
        prepare(&mut child, supervision);
    }
    child.spawn()
}

/// Has the child keep the lock, stay within its memory, and end when this process is killed. The signal comes at the end
/// of the thread that made the child; that is the one which waits for it.
#[allow(unsafe_code)]
fn prepare(child: &mut std::process::Command, supervision: &Supervision) {
    let parent = rustix::process::getpid();
    let (lock, memory) = (supervision.lock.clone(), supervision.memory);
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        if let Some(lock) = &lock {
            rustix::io::fcntl_setfd(lock.as_fd(), rustix::io::FdFlags::empty())?;
        }
        if let Some(bytes) = memory {
            setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec this makes system calls alone, on values that are there already; nothing allocates
    // or takes a lock, and an error is a number.
    unsafe { child.pre_exec(prepare) };
}

/// Why a child is no longer watched.
enum End {
    /// It ended by itself.
    Own,
    /// Its time was over.
    Late,
    /// It was stopped.
    Stopped,
}

/// Waits for the child to end and kills it when its time is over or it is to stop. The child stays a zombie, so its id
/// cannot be reused meanwhile.
fn watch(handle: &OwnedFd, pid: Pid, timeout: Duration, stop: Option<&Stop>) -> End {
    let end = match stop {
        Some(stop) => ended_or_stopped(handle, stop, timeout),
        None if ended_within(handle, Some(timeout)) => End::Own,
        None => End::Late,
    };
    if !matches!(end, End::Own) {
        kill(handle, pid);
        ended_within(handle, None);
    }
    end
}

fn ended_or_stopped(handle: &OwnedFd, stop: &Stop, timeout: Duration) -> End {
    let end = Instant::now() + timeout;
    loop {
        let left = timespec(end.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(handle, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return End::Late,
            Ok(_) if fds[0].revents().is_empty() => return End::Stopped,
            Ok(_) => return End::Own,
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

/// Whether the child ends before the time is over; without a time, waits for its end.
fn ended_within(handle: &OwnedFd, timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(timespec);
    loop {
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn kill(handle: &OwnedFd, pid: Pid) {
    // Both fail only when there is nothing left to kill.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
}

/// Feeds the child. That it ended before its input did is no failure here: its exit status tells more.
fn fed(stdin: ChildStdin, handle: &OwnedFd, feed: &mut Feed<'_>) -> io::Result<()> {
    let mut input = Input { stdin, handle, closed: false, failed: false };
    let fed = feed(&mut input);
    if input.failed { Ok(()) } else { fed }
}

/// Standard input of a child that may stop reading before its end, as tar does after the last entry.
struct Input<'a> {
    stdin: ChildStdin,
    handle: &'a OwnedFd,
    /// It ended well without reading everything.
    closed: bool,
    /// It ended badly without reading everything.
    failed: bool,
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        match self.stdin.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => match exit_status(self.handle) {
                Some(0) => {
                    self.closed = true;
                    Ok(bytes.len())
                }
                status => {
                    self.failed = status.is_some();
                    Err(error)
                }
            },
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a child that has ended, or ends soon, ended: 128 for a signal. It is not reaped.
fn exit_status(handle: &OwnedFd) -> Option<i32> {
    if !ended_within(handle, Some(LINGER)) {
        return None;
    }
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(WaitId::PidFd(handle.as_fd()), options).ok().flatten()?;
    Some(status.exit_status().unwrap_or(128))
}

/// Which part of an output is kept when it is too long.
#[derive(Clone, Copy)]
enum Keep {
    Start,
    End,
}

/// A thread that reads a pipe, and where its result arrives.
type Reader = (JoinHandle<()>, std::sync::mpsc::Receiver<(Vec<u8>, usize)>);

/// Reads a pipe to its end on a thread of its own. Sends what is kept and how much there was.
fn reader(mut pipe: impl Read + Send + 'static, keep: Keep, on_line: Option<OnLine>) -> Reader {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut kept, mut size) = (Vec::new(), 0);
        let mut buffer = vec![0; 64 << 10];
        let mut lines = on_line.map(Lines::new);
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    size += count;
                    if let Some(lines) = &mut lines {
                        lines.read(&buffer[..count]);
                    }
                    kept.extend_from_slice(&buffer[..count]);
                    match keep {
                        Keep::Start => kept.truncate(OUTPUT_LIMIT),
                        Keep::End => drop(kept.drain(..kept.len().saturating_sub(OUTPUT_LIMIT))),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(lines) = &mut lines {
            lines.end();
        }
        // The receiver is gone only when nobody waits for the output any more.
        let _ = sender.send((kept, size));
    });
    (thread, receiver)
}

/// What a reader thread has read. A child's own child can keep the pipe open; such stragglers are killed.
fn collect(reader: Option<Reader>, pid: Pid) -> (Vec<u8>, usize) {
    let Some((thread, receiver)) = reader else { return Default::default() };
    let output = receiver.recv_timeout(DRAIN).or_else(|_| {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        receiver.recv_timeout(DRAIN)
    });
    match output {
        Ok(output) => {
            let _ = thread.join();
            output
        }
        Err(_) => Default::default(),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}
