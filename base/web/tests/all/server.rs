use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, put};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use web::Drain;

use crate::wire::{get as fetch, serve};

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_is_cut() {
    let app = Router::new().route("/", get(|| async { "here" }));
    let served = serve(app, |options| options.header_read_timeout = Duration::from_millis(500)).await;
    for sent in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut slow = TcpStream::connect(served.address).await.unwrap();
        slow.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "after {sent:?}");
    }
    assert_eq!(fetch(served.address, "/").await.body, "here");
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head() {
    let app = Router::new().route("/", put(|body: Bytes| async move { body.len().to_string() }));
    let served = serve(app, |options| options.header_read_timeout = Duration::from_millis(500)).await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n").await.unwrap();
    for byte in b"slow" {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n4"), "{answer}");
}

#[tokio::test]
async fn a_stop_lets_a_running_request_end_and_takes_no_new_one() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_handler, until) = (Arc::clone(&entered), Arc::clone(&leave));
    let app = Router::new().route(
        "/",
        get(move || async move {
            in_handler.notify_one();
            until.notified().await;
            "done"
        }),
    );
    let served = serve(app, |_| {}).await;
    let idle = TcpStream::connect(served.address).await.unwrap();
    let request = tokio::spawn(async move { fetch(served.address, "/").await });
    entered.notified().await;
    served.shutdown.cancel();
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!served.task.is_finished());
    leave.notify_one();
    assert_eq!(request.await.unwrap().body, "done");
    assert_eq!(served.task.await.unwrap(), Drain { cut: 0 });
    drop(idle);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_after_the_drain() {
    let app = Router::new().route(
        "/",
        get(|| async {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]);
            Body::from_stream(first.chain(futures::stream::pending()))
        }),
    );
    let served = serve(app, |options| options.drain = Duration::from_millis(50)).await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0);
    }
    served.shutdown.cancel();
    assert_eq!(served.task.await.unwrap(), Drain { cut: 1 });
    let _ = client.read_to_end(&mut seen).await;
    assert!(!seen.ends_with(b"0\r\n\r\n"), "the end of the body was not pretended");
}
