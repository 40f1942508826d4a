//! `cairn vm logs` and `cairn vm console`: a guest's serial console.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use cairn_core::ErrorKind;
use clap::Args;
use cli::{Daemon, Output, segment};
use futures::{Stream, StreamExt as _};
use reqwest::Method;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use web::Problem;

use crate::errors;

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The VM
    #[arg(value_name = "VM")]
    id: String,
    /// Go on with what the guest writes from now on
    #[arg(long, short)]
    follow: bool,
    /// Byte for byte as the guest wrote it
    #[arg(long)]
    raw: bool,
}

pub(super) async fn logs(logs: &Logs, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let path = format!("/v1/vms/{}/logs?follow={}", segment(&logs.id), logs.follow);
    let mut body = daemon.send(daemon.patient(Method::GET, &path)).await?.bytes_stream();
    let mut lines = Lines::default();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| daemon.unreachable(&error))?;
        if logs.raw {
            if write_raw(&chunk)?.is_none() {
                return Ok(());
            }
            continue;
        }
        for line in lines.take(&chunk) {
            print(&line, output);
        }
    }
    if let Some(line) = lines.rest() {
        print(&line, output);
    }
    Ok(())
}

/// A line of the console; as JSON, a line of JSON for each, so that it can be followed.
fn print(line: &str, output: &Output) {
    if output.json { output.line(json!({ "line": line })) } else { output.line(line) }
}

/// Writes to standard output; nothing when its reader went away (`| head`), which is no error.
fn write_raw(bytes: &[u8]) -> Result<Option<()>, Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => {
            Err(Problem::new(ErrorKind::Failed, web::codes::SERVER_ERROR, format!("cannot write the result: {error}")))
        }
    }
}

/// Ctrl-], which ends a console at a terminal; everything else is the guest's.
const ESCAPE: u8 = 0x1d;
/// How long what was typed before it still has to reach the guest.
const FAREWELL: Duration = Duration::from_secs(2);

/// Both directions, until the stream of the console ends. At a terminal every key goes to the guest as it is typed, and
/// Ctrl-] ends it; otherwise lines go there as they come.
pub(super) async fn console(id: &str, daemon: &Daemon) -> Result<(), Problem> {
    let path = format!("/v1/vms/{}", segment(id));
    let follow = daemon.patient(Method::GET, &format!("{path}/logs?follow=true"));
    let body = daemon.send(follow).await?.bytes_stream();
    let told = told_to_end()?;
    // From here on every way out goes by its end.
    let raw = Raw::begin()?;
    let (escaped, mut escape) = oneshot::channel();
    let typed = keyboard(raw.is_some().then_some(escaped));
    tokio::select! {
        ended = relay(body, typed, raw.is_some(), &path, daemon) => ended,
        () = told => Err(Problem::new(ErrorKind::Interrupted, errors::INTERRUPTED, "a signal ended the console; the VM goes on")),
        Ok(()) = &mut escape => {
            // The relay ends by itself once it has sent the rest; this one is for a daemon that hangs.
            tokio::time::sleep(FAREWELL).await;
            Ok(())
        }
    }
}
/// What a guest says to standard output, and what is typed to it.
async fn relay(
    mut body: impl Stream<Item = reqwest::Result<Bytes>> + Unpin,
    mut typed: mpsc::Receiver<Vec<u8>>,
    is_terminal: bool,
    path: &str,
    daemon: &Daemon,
) -> Result<(), Problem> {
    let mut open = true;
    loop {
        tokio::select! {
            chunk = body.next() => match chunk {
                Some(chunk) => {
                    if write_raw(&chunk.map_err(|error| daemon.unreachable(&error))?)?.is_none() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            bytes = typed.recv(), if open => match bytes {
                Some(bytes) => {
                    let request = daemon.patient(Method::POST, &format!("{path}/console"));
                    daemon.send(request.header("content-type", "application/octet-stream").body(bytes)).await?;
                }
                None if is_terminal => return Ok(()),
                // Nothing more is typed; the guest may still have something to say.
                None => open = false,
            },
        }
    }
}

/// A terminal whose keys are the guest's, all of them. It is as before when this ends, by a panic too.
struct Raw {
    before: Termios,
}

impl Raw {
    /// Nothing where standard input is no terminal.
    fn begin() -> Result<Option<Self>, Problem> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let failed = |error| {
            let detail = format!("cannot set the terminal: {error}");
            Problem::new(ErrorKind::Failed, web::codes::SERVER_ERROR, detail)
        };
        let before = tcgetattr(&input).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Drain, &raw).map_err(failed)?;
        // Said once the keys are the guest's, so that whoever waits for it can begin.
        let _ = std::io::stderr().write_all(b"Ctrl-] ends this console, not the VM\r\n");
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Waits for a signal that ends a process; from now on none of them does so by itself.
fn told_to_end() -> Result<impl Future<Output = ()>, Problem> {
    let listen = |kind| signal(kind).map_err(|error| Problem::internal(&error));
    let mut signals = [
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
        listen(SignalKind::hangup())?,
        listen(SignalKind::quit())?,
    ];
    Ok(async move {
        let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(waits).await;
    })
}

/// What is typed. A thread of its own: the runtime would not end while one of its own waits for a key. With `escaped` that
/// key ends it and is told.
fn keyboard(mut escaped: Option<oneshot::Sender<()>>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            let typed = &buffer[..length];
            let end = if escaped.is_some() { typed.iter().position(|byte| *byte == ESCAPE) } else { None };
            let typed = &typed[..end.unwrap_or(length)];
            let sent = typed.is_empty() || sender.blocking_send(typed.to_vec()).is_ok();
            if end.is_some()
                && let Some(escaped) = escaped.take()
            {
                // Nobody is told who has ended already.
                let _ = escaped.send(());
                break;
            }
            if !sent {
                break;
            }
        }
    });
    receiver
}

/// Longest line that is waited for: a guest need not end one.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            lines.push(tidy(&line));
        }
        if self.pending.len() > LONGEST_LINE {
            lines.extend(self.rest());
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| tidy(&rest))
    }
}

/// Consoles end lines with a carriage return, and some write one in front.
fn tidy(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_matches(['\r', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\r\ntw"), ["one"]);
        assert_eq!(lines.take(b"o\r\n\nlogin: "), ["two", ""]);
        assert_eq!(lines.rest().as_deref(), Some("login: "));
        assert_eq!(lines.rest(), None);
        let long = vec![b'x'; LONGEST_LINE + 1];
        assert_eq!(lines.take(&long)[0].len(), long.len());
    }
}
