//! One request over the one kept-alive connection of a client.
//!
//! Firecracker serves its socket with one thread and takes ten connections, so there is one for each VM and calls wait
//! for each other. A connection is taken out of its place for the length of a call and put back after a complete
//! answer: a call that failed, was late or was dropped never leaves an answer behind for the next one.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Cause, Error, Step};

/// Bytes of a request's body that Firecracker takes unless it was started with `--http-api-max-payload-size`.
pub const PAYLOAD_LIMIT: usize = 51_200;

/// Largest answer that is read. The metadata, the largest of them, are bounded by the limit for requests.
const ANSWER_LIMIT: usize = 4 << 20;

/// Bytes of a socket's path that the kernel takes (`sun_path` without its final zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// What a process with ten connections says to a further one.
const GREETING: &[u8; 12] = b"HTTP/1.1 503";

/// How long that is waited for. A process that takes the connection says nothing by itself.
const GREETING_LIMIT: Duration = Duration::from_millis(250);

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) step: Step,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// The connection's place.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: PathBuf,
    idle: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The right to make the next call.
pub(crate) struct Turn<'a> {
    socket: &'a Path,
    idle: MutexGuard<'a, Option<Open>>,
}

impl Connection {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, idle: Mutex::new(None) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the calls before.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn { socket: &self.socket, idle: self.idle.lock().await }
    }
}

impl Turn<'_> {
    /// Sends the request and reads the whole answer: `Null` for an empty one.
    pub(crate) async fn send(mut self, call: &Call) -> Result<Value, Error> {
        let mut request = request(call)?;
        if let Some(mut open) = self.idle.take()
            && !open.sender.is_closed()
        {
            match open.sender.try_send_request(request).await {
                Ok(response) => return self.receive(call, response, open).await,
                // The peer closed the kept connection, and nothing of the request has left: a new one is safe.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(lost(call, error.into_error())),
                },
            }
        }
        let mut open = connect(self.socket).await.map_err(|source| self.no_connection(call, source))?;
        match open.sender.try_send_request(request).await {
            Ok(response) => self.receive(call, response, open).await,
            Err(_) if is_full(self.socket).await => Err(self.too_many(call)),
            Err(error) => match error.into_error() {
                error if error.is_canceled() => Err(self.no_connection(call, error.into())),
                error => Err(lost(call, error)),
            },
        }
    }

    async fn receive(
        mut self,
        call: &Call,
        response: hyper::Response<hyper::body::Incoming>,
        open: Open,
    ) -> Result<Value, Error> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|source| lost(call, source))?.to_bytes();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.too_many(call));
        }
        *self.idle = Some(open);
        answer(call, status, &body)
    }

    fn too_many(&self, call: &Call) -> Error {
        Error::TooManyConnections { step: call.step, socket: self.socket.to_owned() }
    }

    fn no_connection(&self, call: &Call, source: Cause) -> Error {
        Error::Connect { step: call.step, socket: self.socket.to_owned(), source }
    }
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>, Error> {
    let builder = Request::builder().method(call.method.clone()).uri(&call.path).header("Host", "localhost");
    let builder = if call.body.is_empty() { builder } else { builder.header("Content-Type", "application/json") };
    // Paths are constants and checked names, so this fails for nothing that exists.
    builder.body(Full::new(call.body.clone())).map_err(|error| Error::Answer {
        step: call.step,
        path: call.path.clone(),
        problem: error.to_string(),
    })
}

fn lost(call: &Call, source: impl Into<Cause>) -> Error {
    Error::Lost { step: call.step, path: call.path.clone(), source: source.into() }
}

async fn connect(socket: &Path) -> Result<Open, Cause> {
    let (sender, connection) = http1::handshake(TokioIo::new(open_stream(socket).await?)).await?;
    // Its failures reach the caller through the sender.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Open { sender, driver })
}

/// Whether the process refuses connections. It then says so before anything is asked and hangs up, which no HTTP client
/// understands, so a further connection looks at what it says by itself.
async fn is_full(socket: &Path) -> bool {
    let greeting = async {
        let mut start = [0; GREETING.len()];
        open_stream(socket).await.ok()?.read_exact(&mut start).await.ok()?;
        Some(start == *GREETING)
    };
    timeout(GREETING_LIMIT, greeting).await.ok().flatten().unwrap_or(false)
}

/// A socket deep in a jail has a path that is too long to connect to: it is reached through its open directory.
async fn open_stream(socket: &Path) -> std::io::Result<UnixStream> {
    let (true, Some(directory), Some(name)) =
        (socket.as_os_str().len() > SOCKET_PATH_LIMIT, socket.parent(), socket.file_name())
    else {
        return UnixStream::connect(socket).await;
    };
    let directory = tokio::fs::File::open(directory).await?;
    UnixStream::connect(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)).await
}

fn answer(call: &Call, status: StatusCode, body: &[u8]) -> Result<Value, Error> {
    let Call { step, path, .. } = call;
    let problem = |problem: String| Error::Answer { step: *step, path: path.clone(), problem };
    match status {
        StatusCode::NO_CONTENT => Ok(Value::Null),
        StatusCode::OK => serde_json::from_slice(body).map_err(|error| problem(format!("no JSON: {error}"))),
        status if status.is_client_error() => {
            Err(Error::Refused { step: *step, path: path.clone(), status: status.as_u16(), fault: fault(body) })
        }
        status => Err(problem(format!("status {}", status.as_u16()))),
    }
}

/// What the body of a refusal says: `fault_message` from the API, `error` from the HTTP server below it.
fn fault(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("fault_message").or_else(|| value.get("error")).and_then(Value::as_str) {
        Some(text) => text.trim().to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { step: Step::Info, method: Method::GET, path: "/".to_owned(), body: Bytes::new() }
    }

    #[test]
    fn a_refusal_carries_what_firecracker_said() {
        for (body, said) in [
            (r#"{"fault_message":"no such drive"}"#, "no such drive"),
            (r#"{ "error": "Request payload is too large." }"#, "Request payload is too large."),
            ("plain", "plain"),
            ("", ""),
        ] {
            let error = answer(&call(), StatusCode::BAD_REQUEST, body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot ask for the state: / answered 400: {said}"));
            assert!(!error.is_uncertain());
        }
    }

    #[test]
    fn an_answer_that_is_none_is_told_apart() {
        for (status, body) in [(StatusCode::OK, "{"), (StatusCode::INTERNAL_SERVER_ERROR, ""), (StatusCode::FOUND, "")]
        {
            assert!(matches!(answer(&call(), status, body.as_bytes()), Err(Error::Answer { .. })), "{status}");
        }
    }
}
