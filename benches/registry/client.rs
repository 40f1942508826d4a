//! A client that costs as little as can be: one socket, one buffer, nothing is hashed or kept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail, ensure};

use crate::content::Content;

/// Bytes read in one go.
const BUFFER: usize = 256 << 10;

/// A connection that is used again for every request.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What is needed of the head of an answer.
pub struct Answer {
    status: u16,
    location: Option<String>,
    pub length: u64,
}

impl Client {
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER] })
    }

    /// Sends a request and reads the answer to its end; its status must be `expected`.
    fn exchange(
        &mut self,
        request: &str,
        body: Option<(&mut Content, u64, u64)>,
        expected: u16,
    ) -> anyhow::Result<Answer> {
        let length = body.as_ref().map_or(0, |(_, first, end)| end - first);
        let head = format!("{request}Host: bench\r\nContent-Length: {length}\r\n\r\n");
        match body {
            // Small ones go out with their head, as any client does.
            Some((content, first, end)) if length <= 64 << 10 => {
                let mut whole = head.into_bytes();
                content.each(first, end, |bytes| {
                    whole.extend_from_slice(bytes);
                    Ok(())
                })?;
                self.stream.write_all(&whole)?;
            }
            Some((content, first, end)) => {
                self.stream.write_all(head.as_bytes())?;
                content.each(first, end, |bytes| self.stream.write_all(bytes))?;
            }
            None => self.stream.write_all(head.as_bytes())?,
        }
        let answer = self.answer().with_context(|| format!("no answer to {request:?}"))?;
        ensure!(answer.status == expected, "{} and not {expected} to {request:?}", answer.status);
        Ok(answer)
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut filled = 0;
        let end = loop {
            let count = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(count > 0, "the connection ended");
            filled += count;
            if let Some(end) = self.buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        let field = |name: &str| {
            head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let length = field("content-length").map_or(Ok(0), |(_, value)| value.parse::<u64>())?;
        let location = field("location").map(|(_, value)| value.to_owned());
        if status != 204 && field("content-length").is_none() {
            bail!("an answer without a length");
        }
        let mut left = length.saturating_sub((filled - end) as u64);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = self.stream.read(&mut self.buffer[..wanted])?;
            ensure!(count > 0, "the connection ended {left} bytes early");
            left -= count as u64;
        }
        Ok(Answer { status, location, length })
    }

    /// Pushes with one `POST` and one `PUT`.
    pub fn push(&mut self, content: &mut Content, digest: &str) -> anyhow::Result<()> {
        let session = self.session()?;
        let put = put(&session, digest);
        let end = content.length;
        self.exchange(&put, Some((content, 0, end)), 201).map(drop)
    }

    /// Pushes in pieces of `chunk` bytes.
    pub fn push_chunks(&mut self, content: &mut Content, digest: &str, chunk: u64) -> anyhow::Result<()> {
        let mut session = self.session()?;
        let mut first = 0;
        while first < content.length {
            let end = (first + chunk).min(content.length);
            let patch = format!("PATCH {session} HTTP/1.1\r\nContent-Range: {first}-{}\r\n", end - 1);
            let patch = patch + "Content-Type: application/octet-stream\r\n";
            session = path(self.exchange(&patch, Some((content, first, end)), 202)?)?;
            first = end;
        }
        self.exchange(&put(&session, digest), None, 201).map(drop)
    }

    fn session(&mut self) -> anyhow::Result<String> {
        path(self.exchange("POST /v2/bench/blobs/uploads/ HTTP/1.1\r\n", None, 202)?)
    }

    /// Reads what is at a path and returns how long it was, in bytes.
    pub fn pull(&mut self, path: &str) -> anyhow::Result<u64> {
        Ok(self.exchange(&format!("GET {path} HTTP/1.1\r\n"), None, 200)?.length)
    }
}

fn put(session: &str, digest: &str) -> String {
    let joint = if session.contains('?') { '&' } else { '?' };
    format!("PUT {session}{joint}digest={digest} HTTP/1.1\r\nContent-Type: application/octet-stream\r\n")
}

/// Path and query of where to go on; some servers name themselves in front of it.
fn path(answer: Answer) -> anyhow::Result<String> {
    let location = answer.location.context("an answer without a location")?;
    let begin = location.find("/v2/").with_context(|| format!("the location {location:?}"))?;
    Ok(location[begin..].to_owned())
}
