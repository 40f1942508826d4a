//! A client that sends exactly what it is told, and a server to send it to.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, Once};

use axum::Router;
use observe::logging::{self, LogFormat};
use observe::metrics::Registry;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use web::{Drain, FrameOptions, HttpMetrics, ServeOptions, TrustedProxies};

/// What this process has logged. Tests share it, and find their lines by the id of their request.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static LOGGING: Once = Once::new();

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log lines of the request that got this answer.
pub(crate) fn log_of(answer: &Answer) -> Vec<Value> {
    let text = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line["request_id"].as_str() == answer.header("x-request-id")).collect()
}

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Drain>,
}

pub(crate) async fn serve(app: Router, change: impl FnOnce(&mut ServeOptions)) -> Served {
    LOGGING.call_once(|| logging::init(LogFormat::Json, "info", || Log, None).unwrap());
    let listener = web::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let mut options = ServeOptions::new(shutdown.clone());
    change(&mut options);
    let task = tokio::spawn(web::serve(listener, app, options));
    Served { address, shutdown, task }
}

/// The routes in a frame, served; and the registry that counts them.
pub(crate) async fn framed(routes: impl FnOnce(&mut Registry) -> Router) -> Served {
    let mut registry = Registry::new();
    let metrics = HttpMetrics::register(&mut registry);
    let routes = routes(&mut registry).merge(web::metrics_route(registry.into()));
    let options = FrameOptions { metrics, tls: false, proxies: TrustedProxies::default() };
    serve(web::frame(routes, options), |_| {}).await
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

/// Sends a request that asks to close the connection and reads to its end.
pub(crate) async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, request: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!("{request}Host: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    io.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) async fn send(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = format!("{line} HTTP/1.1\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    exchange(TcpStream::connect(address).await.unwrap(), &request, body).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path}"), &[], "").await
}
