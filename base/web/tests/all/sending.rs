//! Files in answers, over connections that a client treats well and badly.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use web::Tls;

use crate::tls::{connect, write_pair};
use crate::wire::{Served, serve};

const MIB: usize = 1 << 20;

/// A file whose every MiB is different and nowhere zero, and its bytes.
fn file(length: usize) -> (NamedTempFile, Vec<u8>) {
    let mut bytes: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8 + 1).collect::<Vec<_>>().repeat(length.div_ceil(MIB));
    for (number, block) in bytes.chunks_mut(MIB).enumerate() {
        block[..8].copy_from_slice(&(number as u64 | 1 << 63).to_le_bytes());
    }
    bytes.truncate(length);
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file.as_file().sync_all().unwrap();
    (file, bytes)
}

/// Counts what was sent, and tells when nothing can be sent any more.
struct Sending {
    sent: Arc<AtomicU64>,
    _over: mpsc::UnboundedSender<()>,
}

struct Files {
    served: Served,
    sent: Arc<AtomicU64>,
    over: mpsc::UnboundedReceiver<()>,
}

/// Serves `/{first}/{length}` of the file, `/json`, and `/copied`, which looks at its own bytes.
async fn serving(source: &NamedTempFile, tls: Option<Tls>) -> Files {
    let (over, ended) = mpsc::unbounded_channel();
    let sent = Arc::new(AtomicU64::new(0));
    let (path, counter) = (source.path().to_owned(), Arc::clone(&sent));
    let answer = move |Path((first, length)): Path<(u64, u64)>, request: Request| async move {
        let sending = Sending { sent: counter, _over: over };
        let told = Arc::new(move |bytes| {
            sending.sent.fetch_add(bytes, Ordering::Relaxed);
        });
        web::file_body(request.extensions(), File::open(path).unwrap(), first, length, told)
    };
    let copied = Router::new().route("/copied/{first}/{length}", get(answer.clone())).layer(from_fn(copy));
    let app = Router::new()
        .route("/{first}/{length}", get(answer))
        .route("/json", get(|| async { axum::Json(serde_json::json!({"small": true})) }))
        .merge(copied);
    Files { served: serve(app, |options| options.tls = tls).await, sent, over: ended }
}

async fn copy(request: Request, next: Next) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Response::from_parts(parts, Body::from(bytes.to_vec()))
}

async fn ask(io: &mut (impl tokio::io::AsyncWrite + Unpin), line: &str) {
    io.write_all(format!("{line} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
}

/// The head of one answer, in small letters.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// The body of one answer, whose length its head must tell.
async fn body(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let head = head(io).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (_, length) = head.split_once("content-length: ").unwrap_or_else(|| panic!("no length in {head}"));
    let mut body = vec![0; length.split_once('\r').unwrap().0.parse().unwrap()];
    io.read_exact(&mut body).await.unwrap();
    body
}

/// A connection that reads ahead little.
async fn connected(files: &Files) -> BufReader<TcpStream> {
    BufReader::with_capacity(8192, TcpStream::connect(files.served.address).await.unwrap())
}

#[tokio::test]
async fn files_and_other_answers_alternate_on_one_connection() {
    let (source, bytes) = file(3 * MIB + 5);
    let mut files = serving(&source, None).await;
    let mut client = connected(&files).await;
    for (line, expected) in [
        ("GET /json", &br#"{"small":true}"#[..]),
        ("GET /0/3145733", &bytes),
        ("GET /1048575/2", &bytes[MIB - 1..=MIB]),
        ("GET /json", br#"{"small":true}"#),
        ("GET /5/0", b""),
        ("GET /3145732/1", &bytes[3 * MIB + 4..]),
        ("GET /0/2097152", &bytes[..2 * MIB]),
        ("GET /json", br#"{"small":true}"#),
    ] {
        ask(&mut client, line).await;
        assert!(body(&mut client).await == expected, "{line}");
    }
    files.served.shutdown.cancel();
    files.served.task.await.unwrap();
    assert_eq!(files.over.recv().await, None);
    assert_eq!(files.sent.load(Ordering::Relaxed), (bytes.len() + 2 + 1 + 2 * MIB) as u64);
}

#[tokio::test]
async fn the_head_alone_sends_nothing_of_the_file() {
    let (source, bytes) = file(MIB);
    let files = serving(&source, None).await;
    let mut client = connected(&files).await;
    ask(&mut client, "HEAD /0/1048576").await;
    let head = head(&mut client).await;
    assert!(head.contains("content-length: 1048576\r\n"), "{head}");
    assert_eq!(files.sent.load(Ordering::Relaxed), 0);
    ask(&mut client, "GET /7/9").await;
    assert_eq!(body(&mut client).await, bytes[7..16]);
}

#[tokio::test]
async fn requests_that_were_sent_together_are_answered_in_order() {
    let (source, bytes) = file(2 * MIB);
    let files = serving(&source, None).await;
    let mut client = connected(&files).await;
    let lines = ["GET /0/2097152", "GET /json", "HEAD /0/10", "GET /1/10", "GET /2/2097150", "GET /json"];
    let together: String = lines.iter().map(|line| format!("{line} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.write_all(together.as_bytes()).await.unwrap();
    assert!(body(&mut client).await == bytes);
    assert_eq!(body(&mut client).await, br#"{"small":true}"#);
    head(&mut client).await;
    assert_eq!(body(&mut client).await, bytes[1..11]);
    assert!(body(&mut client).await == bytes[2..]);
    assert_eq!(body(&mut client).await, br#"{"small":true}"#);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let (source, bytes) = file(64 * MIB);
    let mut files = serving(&source, None).await;
    let mut client = connected(&files).await;
    ask(&mut client, &format!("GET /0/{}", bytes.len())).await;
    let mut begin = vec![0; MIB];
    head(&mut client).await;
    client.read_exact(&mut begin).await.unwrap();
    assert!(begin == bytes[..MIB]);
    drop(client);
    // The channel ends when the routes, the body and the queue of the connection have let go of their senders.
    files.served.shutdown.cancel();
    assert_eq!(files.served.task.await.unwrap().cut, 0);
    assert_eq!(files.over.recv().await, None);
    let sent = files.sent.load(Ordering::Relaxed);
    assert!((MIB as u64..bytes.len() as u64).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_slow_client_gets_everything() {
    let (source, bytes) = file(4 * MIB);
    let files = serving(&source, None).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(files.served.address).await.unwrap();
    ask(&mut client, &format!("GET /0/{}", bytes.len())).await;
    head(&mut client).await;
    let (mut got, mut buffer) = (Vec::new(), vec![0; 3000]);
    while got.len() < bytes.len() {
        let count = client.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0);
        got.extend_from_slice(&buffer[..count]);
        tokio::task::yield_now().await;
    }
    assert!(got == bytes);
}

#[tokio::test]
async fn a_file_that_becomes_shorter_ends_the_connection() {
    let (source, bytes) = file(64 * MIB);
    let files = serving(&source, None).await;
    let mut client = connected(&files).await;
    ask(&mut client, &format!("GET /0/{}", bytes.len())).await;
    head(&mut client).await;
    source.as_file().set_len(0).unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got).await;
    assert!(got.len() < bytes.len());
    // Before it begins, too.
    let mut client = connected(&files).await;
    ask(&mut client, "GET /0/10").await;
    head(&mut client).await;
    assert_eq!(client.read_to_end(&mut got).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn bytes_that_somebody_looked_at_do_not_get_out() {
    let (source, _) = file(MIB);
    let files = serving(&source, None).await;
    let mut client = connected(&files).await;
    ask(&mut client, "GET /copied/0/10").await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "the connection was cut");
}

#[tokio::test]
async fn a_large_file_that_is_not_cached_arrives_as_it_is() {
    let (source, bytes) = file(200_000_000);
    rustix::fs::fadvise(source.as_file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let files = serving(&source, None).await;
    let mut client = connected(&files).await;
    ask(&mut client, "GET /0/200000000").await;
    assert!(body(&mut client).await == bytes);
    assert_eq!(files.sent.load(Ordering::Relaxed), 200_000_000);
}

#[tokio::test]
async fn over_tls_files_are_read() {
    let (source, bytes) = file(3 * MIB + 5);
    let directory = tempfile::tempdir().unwrap();
    let pair = write_pair(directory.path());
    let files = serving(&source, Some(Tls::load(pair.clone()).unwrap())).await;
    let mut client = connect(&files.served, &pair.certificate, &rustls::version::TLS13).await.unwrap();
    for _ in 0..2 {
        ask(&mut client, "GET /1/3145731").await;
        assert!(body(&mut client).await == bytes[1..3_145_732]);
    }
    assert_eq!(files.sent.load(Ordering::Relaxed), 2 * 3_145_731);
    source.as_file().set_len(2 * MIB as u64).unwrap();
    ask(&mut client, "GET /0/3145731").await;
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(rest.len() < 3_145_731, "a file that became shorter ends the connection");
}

/// The kernel tells which calls the test above makes.
#[test]
fn the_kernel_sends_files() {
    const NAME: &str = "sending::files_and_other_answers_alternate_on_one_connection";
    let calls = tempfile::NamedTempFile::new().unwrap();
    let mut traced = std::process::Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=sendfile", "-o"]).arg(calls.path());
    traced.arg(std::env::current_exe().unwrap()).args(["--exact", NAME]);
    match traced.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT RUN: sending::the_kernel_sends_files: strace is missing");
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            let calls = std::fs::read_to_string(calls.path()).unwrap();
            assert!(calls.contains(", 2097152) = "), "{calls}");
        }
    }
}
