//! A gate before the real BMC: everything passes, but for one request that it was told to hold, either before the BMC has
//! seen it or after the BMC has acted and before the answer gets back. So a controller can be killed at that very point.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Where a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The BMC has not seen it, and never will.
    Before,
    /// The BMC has acted, and the answer is lost.
    After,
}

/// Which request is held: the first that fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub side: Side,
    pub method: &'static str,
    /// Part of its path.
    pub path: &'static str,
    /// Part of its body.
    pub body: &'static str,
}

#[derive(Debug, Default)]
struct State {
    hold: Option<Hold>,
    held: bool,
    let_go: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Runs until the program ends.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    port: u16,
    state: Shared,
}

impl Gate {
    /// Before the port `bmc` of 127.0.0.1.
    pub(crate) fn start(bmc: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen")?;
        let gate = Self { port: listener.local_addr()?.port(), state: Shared::default() };
        let state = Arc::clone(&gate.state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A client that goes away is what this is for.
                std::thread::spawn(move || pass(client, bmc, &state));
            }
        });
        Ok(gate)
    }

    /// Its address, in the place of the BMC's.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Holds the first request that fits from now on.
    pub(crate) fn hold(&self, hold: Hold) {
        *lock(&self.state) = State { hold: Some(hold), held: false, let_go: false };
    }

    /// Waits until a request is held.
    pub(crate) fn wait_held(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut state = lock(&self.state);
        while !state.held {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "waited {} s for {:?}", limit.as_secs(), state.hold);
            state = self.state.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Ends the connection of the request that is held, without an answer.
    pub(crate) fn drop_held(&self) {
        let mut state = lock(&self.state);
        state.hold = None;
        state.let_go = true;
        self.state.1.notify_all();
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries one request and its answer. Each has a connection of its own, so that ends are ends.
fn pass(mut client: TcpStream, bmc: u16, state: &Shared) -> Result<()> {
    let request = Request::read(&mut client)?;
    let held = held(&request, state);
    if held == Some(Side::Before) {
        wait_let_go(state);
        return Ok(());
    }
    let mut server = TcpStream::connect(("127.0.0.1", bmc)).context("connect to the BMC")?;
    server.write_all(&request.bytes)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if held == Some(Side::After) {
        wait_let_go(state);
        return Ok(());
    }
    client.write_all(&answer).context("answer")
}

/// Whether this is the request to hold; the first one only.
fn held(request: &Request, state: &Shared) -> Option<Side> {
    let mut state = lock(state);
    let hold = state.hold.filter(|hold| request.fits(hold))?;
    state.hold = None;
    Some(hold.side)
}

fn wait_let_go(shared: &Shared) {
    let mut state = lock(shared);
    state.held = true;
    shared.1.notify_all();
    while !state.let_go {
        state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

struct Request {
    /// As it goes on, with `Connection: close`.
    bytes: Vec<u8>,
    line: String,
    body: String,
}

impl Request {
    fn read(client: &mut TcpStream) -> Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            let mut piece = [0; 4096];
            let count = client.read(&mut piece)?;
            ensure!(count > 0, "no request");
            bytes.extend_from_slice(&piece[..count]);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut body = bytes.split_off(end + 4);
        let length = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        };
        let length = head.lines().find_map(length).unwrap_or(0);
        let already = body.len();
        body.resize(length.max(already), 0);
        client.read_exact(&mut body[already..])?;
        let kept = head.lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut bytes = format!("{head}Connection: close\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&body);
        Ok(Self { bytes, line, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn fits(&self, hold: &Hold) -> bool {
        self.line.starts_with(hold.method) && self.line.contains(hold.path) && self.body.contains(hold.body)
    }
}
