//! 256 MiB in, 256 MiB out, in bounded memory on both sides.

use std::io::BufRead as _;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use oci_registry::Descriptor;
use tokio::io::{AsyncRead, ReadBuf};

use crate::fixture::{Server, client_of, name};

const SIZE: u64 = 256 << 20;
/// Well below the blob, and above what sockets and buffers may hold.
const BOUND: u64 = 48 << 20;

/// Gives bytes without holding them, and counts.
struct Counting {
    given: Arc<AtomicU64>,
}

impl AsyncRead for Counting {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let given = self.given.load(Ordering::SeqCst);
        let count = usize::try_from(SIZE - given).unwrap().min(buffer.remaining());
        buffer.initialize_unfilled_to(count).fill(u8::try_from(given >> 20 & 0xff).unwrap());
        buffer.advance(count);
        self.given.fetch_add(count as u64, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_is_never_held() {
    let server = Server::start().await;
    let given = Arc::new(AtomicU64::new(0));
    let push = {
        let (client, reader) = (server.client(), Counting { given: Arc::clone(&given) });
        tokio::spawn(async move { client.push_reader(&name("a"), reader, None, "x/y").await.unwrap() })
    };
    let mut most = 0;
    while !push.is_finished() {
        let received = server.heard.uploaded.load(Ordering::SeqCst);
        most = most.max(given.load(Ordering::SeqCst).saturating_sub(received));
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let pushed = push.await.unwrap();
    assert_eq!(pushed.size, SIZE);
    assert!(most < BOUND, "{most} bytes were on their way");

    let mut stream = server.client().verified_blob(&name("a"), &pushed);
    let before = server.heard.downloaded.load(Ordering::SeqCst);
    let (mut received, mut most) = (0, 0);
    while let Some(part) = stream.next().await {
        received += part.unwrap().len() as u64;
        most = most.max((server.heard.downloaded.load(Ordering::SeqCst) - before).saturating_sub(received));
    }
    assert_eq!(received, SIZE);
    assert!(most < BOUND, "{most} bytes were on their way");
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Largest resident memory that a process has had, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_server_stays_small() {
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/serve");
    if !program.exists() {
        eprintln!("NOT RUN: a_server_stays_small: {} is missing", program.display());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut server = Process(Command::new(program).arg(root.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    std::io::BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let client = client_of(address.trim().parse().unwrap());
    let idle = peak_memory(server.0.id());

    let reader = Counting { given: Arc::default() };
    let pushed: Descriptor = client.push_reader(&name("a"), reader, Some(SIZE), "x/y").await.unwrap();
    let mut stream = client.verified_blob(&name("a"), &pushed);
    while let Some(part) = stream.next().await {
        part.unwrap();
    }
    let grown = peak_memory(server.0.id()) - idle;
    assert!(grown < BOUND, "grew by {grown} bytes");
}
