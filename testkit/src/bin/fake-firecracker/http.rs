//! Requests and answers on one connection, with the habits of Firecracker's own HTTP server: kept alive, no reason
//! phrase, no length on an empty answer, and a body that is too long is read on as further requests.

use serde_json::{Value, json};

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Option<Value>,
}

impl Answer {
    pub(crate) fn done() -> Self {
        Self { status: 204, body: None }
    }

    pub(crate) fn data(body: Value) -> Self {
        Self { status: 200, body: Some(body) }
    }

    pub(crate) fn fault(status: u16, message: &str) -> Self {
        Self { status, body: Some(json!({ "fault_message": message })) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let head = format!("HTTP/1.1 {} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n", self.status);
        match &self.body {
            None => format!("{head}\r\n").into_bytes(),
            Some(body) => {
                let body = body.to_string();
                let length = body.len();
                format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
            }
        }
    }
}

/// What an eleventh connection reads.
pub(crate) const TOO_MANY: &[u8] = b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";

/// Takes the next whole request out of what has been read; `None` until there is one. Err is the answer to bytes that
/// are no request, which are taken out as well.
pub(crate) fn take_request(buffer: &mut Vec<u8>, limit: usize) -> Option<Result<Request, Answer>> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(path), Some("HTTP/1.1" | "HTTP/1.0")) = (method, path, version) else {
        buffer.drain(..end);
        return Some(Err(error("Invalid HTTP Method.")));
    };
    let length = lines.filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).last();
    let length: usize = length.map_or(Some(0), |(_, value)| value.trim().parse().ok()).unwrap_or(usize::MAX);
    if length > limit {
        buffer.drain(..end);
        return Some(Err(error(&format!(
            "Request payload with size {length} is larger than the limit of {limit} allowed by server."
        ))));
    }
    if buffer.len() < end + length {
        return None;
    }
    let request =
        Request { method: method.to_owned(), path: path.to_owned(), body: buffer[end..end + length].to_vec() };
    buffer.drain(..end + length);
    Some(Ok(request))
}

fn error(text: &str) -> Answer {
    let text = format!("{text}\nAll previous unanswered requests will be dropped.");
    Answer { status: 400, body: Some(json!({ "error": text })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_one_after_the_other_and_in_parts() {
        let mut buffer = b"PUT /vm HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}GET / HTTP/1.1\r\n".to_vec();
        let first = take_request(&mut buffer, 10).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str(), first.body.as_slice()), ("PUT", "/vm", &b"{}"[..]));
        assert!(take_request(&mut buffer, 10).is_none());
        buffer.extend_from_slice(b"\r\n");
        assert_eq!(take_request(&mut buffer, 10).unwrap().unwrap().path, "/");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_body_that_is_too_long_is_read_as_requests() {
        let mut buffer = b"PUT /vm HTTP/1.1\r\nContent-Length: 20\r\n\r\n0123456789\r\n\r\n".to_vec();
        assert_eq!(take_request(&mut buffer, 10).unwrap().unwrap_err().status, 400);
        assert_eq!(take_request(&mut buffer, 10).unwrap().unwrap_err().status, 400);
        assert!(take_request(&mut buffer, 10).is_none());
    }
}
