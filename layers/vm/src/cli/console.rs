//! `cairn vm logs` and `cairn vm console`: a guest's serial console.

use std::io::{Read as _, Write as _};

use cairn_core::ErrorKind;
use clap::Args;
use cli::{Daemon, Output, segment};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc;
use web::Problem;

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
            write_raw(&chunk)?;
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

/// A reader that went away (`| head`) ends this, and is no error.
fn write_raw(bytes: &[u8]) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            Err(Problem::new(ErrorKind::Failed, web::codes::SERVER_ERROR, format!("cannot write the result: {error}")))
        }
    }
}

/// Both directions, until the stream of the console ends.
pub(super) async fn console(id: &str, daemon: &Daemon) -> Result<(), Problem> {
    let path = format!("/v1/vms/{}", segment(id));
    let follow = daemon.patient(Method::GET, &format!("{path}/logs?follow=true"));
    let mut body = daemon.send(follow).await?.bytes_stream();
    let mut typed = keyboard();
    let mut open = true;
    loop {
        tokio::select! {
            chunk = body.next() => match chunk {
                Some(chunk) => write_raw(&chunk.map_err(|error| daemon.unreachable(&error))?)?,
                None => return Ok(()),
            },
            bytes = typed.recv(), if open => match bytes {
                Some(bytes) => {
                    let request = daemon.patient(Method::POST, &format!("{path}/console"));
                    daemon.send(request.header("content-type", "application/octet-stream").body(bytes)).await?;
                }
                // Nothing more is typed; the guest may still have something to say.
                None => open = false,
            },
        }
    }
}

/// What is typed. A thread of its own: the runtime would not end while one of its own waits for a key.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
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
