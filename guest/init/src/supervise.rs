//! The command: started, watched, ended. Every process without a parent becomes a child of this one and is reaped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

use crate::power_button;

/// Codes for a program that is there and cannot be started, and for one that is not there, as shells use them.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What a program finds its programs in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What wakes this process.
struct Events {
    children: UnixStream,
    requests: UnixStream,
    devices: Vec<File>,
}

impl Events {
    /// SIGINT is what the kernel makes of Ctrl-Alt-Del once it is told to.
    fn open() -> io::Result<Self> {
        let (children, child) = UnixStream::pair()?;
        let (requests, request) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(Signal::CHILD.as_raw(), child)?;
        for signal in [Signal::INT, Signal::TERM, Signal::POWER] {
            signal_hook::low_level::pipe::register(signal.as_raw(), request.try_clone()?)?;
        }
        children.set_nonblocking(true)?;
        requests.set_nonblocking(true)?;
        rustix::system::reboot(rustix::system::RebootCommand::CadOff)?;
        Ok(Self { children, requests, devices: power_button::devices() })
    }

    /// Waits for something to happen, at most until `end`; gives back whether the VM is asked to end.
    fn wait(&mut self, end: Option<Instant>) -> bool {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let sockets = [&self.children, &self.requests].map(|socket| PollFd::new(socket, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = sockets.into();
        fds.extend(self.devices.iter().map(|device| PollFd::new(device, PollFlags::IN)));
        // An interruption is a signal, which the sockets tell of.
        let _ = poll(&mut fds, left.as_ref());
        drop(fds);
        let mut bytes = [0; 64];
        let _ = self.children.read(&mut bytes);
        let asked = self.requests.read(&mut bytes).is_ok_and(|count| count > 0);
        let pressed = self.devices.iter_mut().any(power_button::is_pressed);
        asked || pressed
    }
}

/// Runs a command to its end, or to the VM's when that is asked for; gives back its code.
pub(crate) fn run(words: &[String], grace: Duration) -> io::Result<u8> {
    let mut events = Events::open()?;
    let child = match start(words) {
        Ok(child) => child,
        Err(error) => {
            println!("cairn-init: cannot start {}: {error}", words[0]);
            return Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED });
        }
    };
    let mut code = None;
    let mut asked = false;
    while code.is_none() && !asked {
        asked = events.wait(None);
        reap(child, &mut code);
    }
    // Whatever is left is told to end, and made to.
    for signal in [Signal::TERM, Signal::KILL] {
        let end = Instant::now() + grace;
        signal_all(signal);
        while reap(child, &mut code) && Instant::now() < end {
            events.wait(Some(end));
        }
    }
    Ok(code.unwrap_or(128 + Signal::KILL.as_raw() as u8))
}

fn start(words: &[String]) -> io::Result<Pid> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("PATH", PATH).env("HOME", "/root").process_group(0);
    // The child is waited for with all others.
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

/// Takes leave of every process that has ended; gives back whether any is left.
fn reap(child: Pid, code: &mut Option<u8>) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                *code = Some(status.exit_status().or(signal).unwrap_or_default() as u8);
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Sends a signal to every process but this one. The kernel's own threads do not hear it.
fn signal_all(signal: Signal) {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in numbers.filter_map(Pid::from_raw).filter(|pid| !pid.is_init()) {
        let _ = kill_process(pid, signal);
    }
}
