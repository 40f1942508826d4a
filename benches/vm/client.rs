//! A client that costs as little as can be: one socket that is kept, and bodies as bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail, ensure};

/// A connection that is used again for every request.
pub struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Client {
    pub fn connect(port: u16, token: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), token: token.to_owned() })
    }

    pub fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.exchange("GET", path, b"")
    }

    pub fn post(&mut self, path: &str, body: &serde_json::Value) -> anyhow::Result<Vec<u8>> {
        self.exchange("POST", path, body.to_string().as_bytes())
    }

    /// Sends a request and reads the answer to its end, which must be a good one.
    pub fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.send(method, path, "application/json", body)?;
        let (status, length) = self.head()?;
        let mut answer = vec![0; length.unwrap_or_default()];
        self.stream.read_exact(&mut answer)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path} was answered with {status}: {}", String::from_utf8_lossy(&answer));
        }
        ensure!(status == 204 || length.is_some(), "{method} {path} was answered without a length");
        Ok(answer)
    }

    /// Reads events after one until so many of a kind have come.
    pub fn events(mut self, after: i64, kind: &str, count: u32) -> anyhow::Result<()> {
        self.send("GET", &format!("/v1/events?after={after}"), "text/event-stream", b"")?;
        let (status, _) = self.head()?;
        ensure!(status == 200, "events were answered with {status}");
        let wanted = format!("\"kind\":\"{kind}\"");
        let (mut found, mut line) = (0, Vec::new());
        while found < count {
            line.clear();
            ensure!(self.stream.read_until(b'\n', &mut line)? > 0, "{found} of {count} came");
            found += u32::from(line.windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes()));
        }
        Ok(())
    }

    fn send(&mut self, method: &str, path: &str, accept: &str, body: &[u8]) -> anyhow::Result<()> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).with_context(|| format!("cannot send {method} {path}"))
    }

    /// Status and length of an answer.
    fn head(&mut self) -> anyhow::Result<(u16, Option<usize>)> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("the connection ended")?.parse()?;
        let mut length = None;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                None => return Ok((status, length)),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = Some(value.parse()?),
                Some(_) => {}
            }
        }
    }
}
