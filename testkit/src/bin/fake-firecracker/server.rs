//! The socket: one thread, ten connections, and what the orders say.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use testkit::hypervisor::{Order, orders};

use crate::arguments::Arguments;
use crate::http::{self, Answer, Request};
use crate::machine::Machine;

/// Connections that are served; a further one is told so and closed.
const CONNECTIONS: usize = 10;

/// Time between two metrics lines.
const METRICS_PERIOD: Duration = Duration::from_secs(60);

/// Time between two texts of a guest that repeats itself.
const GUEST_PERIOD: Duration = Duration::from_millis(25);

/// Exit code of a guest that powered off.
const POWERED_OFF: u8 = 0;

/// The socket and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    listener: Option<UnixListener>,
    socket: PathBuf,
    payload_limit: usize,
    connections: Vec<(UnixStream, Vec<u8>)>,
    answered: u64,
    hung: bool,
}

impl Server {
    /// A server without a socket (`--no-api`).
    pub(crate) fn silent() -> Self {
        let (socket, connections) = (PathBuf::new(), Vec::new());
        Self { listener: None, socket, payload_limit: 0, connections, answered: 0, hung: false }
    }

    /// Makes the socket. One that is left over is a failure, as it is for the real one.
    pub(crate) fn listen(arguments: &Arguments) -> Result<Self> {
        let socket = arguments.socket.clone();
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("FailedToBindSocket {}", socket.display()))?;
        listener.set_nonblocking(true).context("set the socket to not waiting")?;
        Ok(Self { listener: Some(listener), socket, payload_limit: arguments.payload_limit, ..Self::silent() })
    }

    /// Serves until something ends the process; gives back its exit code.
    pub(crate) fn run(&mut self, machine: &mut Machine) -> Result<u8> {
        let mut next_metrics = Instant::now() + METRICS_PERIOD;
        let mut next_step = Instant::now();
        loop {
            let now = Instant::now();
            if machine.is_busy() && now >= next_step {
                if let Some(code) = machine.step() {
                    machine.counters.flush();
                    return Ok(code);
                }
                next_step = now + GUEST_PERIOD;
            }
            if now >= next_metrics {
                self.count(machine);
                machine.counters.flush();
                next_metrics = now + METRICS_PERIOD;
            }
            let wake = if machine.is_busy() { next_metrics.min(next_step) } else { next_metrics };
            let ready = self.wait(wake.saturating_duration_since(Instant::now()))?;
            if let Some(code) = self.serve(machine, &ready)? {
                machine.counters.flush();
                return Ok(code);
            }
        }
    }

    /// Waits for something to read; gives back which connections have something. The listener is the last.
    fn wait(&self, limit: Duration) -> Result<Vec<bool>> {
        let streams = self.connections.iter().filter(|_| !self.hung);
        let mut fds: Vec<PollFd<'_>> = streams.map(|(stream, _)| PollFd::new(stream, PollFlags::IN)).collect();
        fds.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let limit = Timespec::try_from(limit).context("a time to wait")?;
        poll(&mut fds, Some(&limit)).context("wait for requests")?;
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn serve(&mut self, machine: &mut Machine, ready: &[bool]) -> Result<Option<u8>> {
        let mut closed = Vec::new();
        let count = if self.hung { 0 } else { self.connections.len() };
        for index in (0..count).filter(|index| ready[*index]) {
            match self.read(index, machine)? {
                After::Exit(code) => return Ok(Some(code)),
                After::Closed => closed.push(index),
                After::Open => {}
            }
        }
        for index in closed.into_iter().rev() {
            self.connections.remove(index);
        }
        if ready.last() == Some(&true) {
            self.accept()?;
        }
        Ok(None)
    }

    fn accept(&mut self) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("take a connection"),
        };
        if self.connections.len() >= CONNECTIONS {
            // Whoever does not read it finds the connection closed.
            let _ = stream.write_all(http::TOO_MANY);
        } else {
            self.connections.push((stream, Vec::new()));
        }
        Ok(())
    }

    fn read(&mut self, index: usize, machine: &mut Machine) -> Result<After> {
        let mut part = [0; 16 << 10];
        let (stream, buffer) = &mut self.connections[index];
        match stream.read(&mut part) {
            Ok(0) => return Ok(After::Closed),
            Ok(count) => buffer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(After::Open),
            Err(_) => return Ok(After::Closed),
        }
        while let Some(request) = http::take_request(&mut self.connections[index].1, self.payload_limit) {
            let (answer, exit) = match request {
                Ok(request) => match self.answer(&request, machine)? {
                    Some(answered) => answered,
                    None => return Ok(After::Open),
                },
                Err(answer) => (answer, None),
            };
            if self.connections[index].0.write_all(&answer.bytes()).is_err() {
                return Ok(After::Closed);
            }
            self.answered += 1;
            if let Some(code) = exit.or(self.crash()?) {
                return Ok(After::Exit(code));
            }
        }
        Ok(After::Open)
    }

    /// Does what the orders say, then what the request says. `None` is no answer, ever.
    fn answer(&mut self, request: &Request, machine: &mut Machine) -> Result<Option<(Answer, Option<u8>)>> {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let mut obey = false;
        for order in orders(&self.socket)? {
            match order {
                Order::Slow { request, milliseconds } if request.fits(method, path) => {
                    let time = Timespec::try_from(Duration::from_millis(milliseconds)).context("a time to wait")?;
                    poll(&mut [], Some(&time)).context("wait as ordered")?;
                }
                Order::Hang { request } if request.fits(method, path) => {
                    self.hung = true;
                    return Ok(None);
                }
                Order::Refuse { request, fault } if request.fits(method, path) => {
                    return Ok(Some((Answer::fault(400, &fault), None)));
                }
                Order::ObeyCtrlAltDel => obey = true,
                _ => {}
            }
        }
        let asks = |action: &str| path == "/actions" && String::from_utf8_lossy(&request.body).contains(action);
        if asks("FlushMetrics") {
            self.count(machine);
        }
        let outcome = machine.handle(request);
        let powers_off = obey && outcome.answer.status == 204 && asks("SendCtrlAltDel");
        Ok(Some((outcome.answer, if powers_off { Some(POWERED_OFF) } else { outcome.exit })))
    }

    /// Counts what the orders say, for the next metrics line.
    fn count(&self, machine: &mut Machine) {
        for order in orders(&self.socket).unwrap_or_default() {
            if let Order::Count { group, name, number } = order {
                machine.counters.add(&group, &name, number);
            }
        }
    }

    /// The exit code, once as many requests are answered as the orders say.
    fn crash(&self) -> Result<Option<u8>> {
        let crash = orders(&self.socket)?.into_iter().find_map(|order| match order {
            Order::Crash { code, after } if self.answered >= after => Some(code),
            _ => None,
        });
        Ok(crash)
    }
}

/// What reading a connection led to.
enum After {
    Open,
    Closed,
    Exit(u8),
}
