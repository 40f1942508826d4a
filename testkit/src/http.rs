//! One plain HTTP request at a time. HTTP/1.0, so that the answer ends with the connection and is never chunked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// Value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// GET of an `http://host:port/path`.
pub fn get(url: &str) -> Result<Response> {
    request("GET", url, &[], b"")
}

/// Any request with these headers and this body. Waits at most 30 s for each piece of the answer.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    let mut answer = Vec::new();
    let length = body.len() as u64;
    let mut response = stream(method, url, headers, (&mut &*body, length), &mut answer)?;
    response.body = answer;
    Ok(response)
}

/// The same with a body of known length that is sent as it is read, and an answer whose body goes to `sink` as it comes:
/// neither is held in memory, and the response has none.
pub fn stream(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    (body, length): (&mut dyn Read, u64),
    sink: &mut dyn Write,
) -> Result<Response> {
    let rest = url.strip_prefix("http://").with_context(|| format!("not an http:// address: {url}"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(authority).with_context(|| format!("connect to {authority}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).with_context(|| format!("{method} {url}"))?;
    copy(&mut body.take(length), &mut stream).with_context(|| format!("{method} {url}"))?;
    answer(&mut stream, sink).with_context(|| format!("read the answer to {method} {url}"))
}

fn answer(stream: &mut dyn Read, sink: &mut dyn Write) -> Result<Response> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "no end of the header: {head}");
    }
    copy(&mut reader, sink)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Response { status: status.context("no status line")?, headers, body: Vec::new() })
}

/// In larger pieces than `std::io::copy` takes.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{\"error\":\"x\"}";
        let mut body = Vec::new();
        let mut response = answer(&mut text.as_slice(), &mut body).unwrap();
        response.body = body;
        assert_eq!(response.status, 404);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.json().unwrap()["error"], "x");
        assert!(answer(&mut b"nonsense".as_slice(), &mut Vec::new()).is_err());
    }
}
