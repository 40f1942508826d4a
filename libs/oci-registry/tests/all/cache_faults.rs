//! What goes wrong between a cache and its upstream.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use oci_registry::Digest;
use oci_registry::cache::Upstream;
use oci_registry::client::{Client, Credentials};
use oci_registry::server::{Anonymous, Options, Registry, router};
use oci_registry::storage::Limits;
use tokio::sync::watch;

use crate::cache::{cache, cache_of, get, stop, upstream};
use crate::fixture::{Server, code_of, http, name, noise, push_image};
use crate::proxy::{self, Cut};

/// Nothing of a failed pull is there: no content, no unfinished file.
fn assert_nothing_kept(cache: &Server) {
    assert_eq!(cache.registry.storage_usage().blobs, 0);
    assert!(cache.leftovers().is_empty(), "{:?}", cache.leftovers());
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

/// An upstream that sends the first half of a blob, and the second when it is told to.
async fn halves(bytes: &[u8], open: watch::Receiver<bool>) -> SocketAddr {
    let (length, middle) = (bytes.len(), bytes.len() / 2);
    let halves = [Bytes::copy_from_slice(&bytes[..middle]), Bytes::copy_from_slice(&bytes[middle..])];
    serve(Router::new().fallback(move || {
        let ([first, second], mut open) = (halves.clone(), open.clone());
        let rest = async move { open.wait_for(|open| *open).await.map(|_| second).map_err(std::io::Error::other) };
        let body = futures::stream::iter([Ok(first)]).chain(futures::stream::once(rest));
        async move { ([(header::CONTENT_LENGTH, length)], Body::from_stream(body)) }
    }))
    .await
}

#[tokio::test]
async fn without_the_upstream_there_is_nothing() {
    let up = Server::start().await;
    let cache = cache_of(up.address).await;
    let digest = Digest::sha256_of(b"nobody has this");
    let paths = [format!("manifests/{digest}"), "manifests/1".to_owned(), format!("blobs/{digest}")];
    for (path, code) in paths.iter().zip(["MANIFEST_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"]) {
        let url = format!("/v2/mirror/up/x/{path}");
        assert_eq!(code_of(get(&cache, &url).await).await, (404, code.to_owned()));
        assert_eq!(http().head(cache.url(&url)).send().await.unwrap().status(), 404);
    }
    stop(up).await;
    for path in paths.iter().map(String::as_str).chain(["tags/list"]) {
        let url = format!("/v2/mirror/up/x/{path}");
        assert_eq!(code_of(get(&cache, &url).await).await, (502, "UPSTREAM_FAILED".to_owned()), "{path}");
        assert_eq!(http().head(cache.url(&url)).send().await.unwrap().status(), 502);
    }
    assert_nothing_kept(&cache);
    assert_eq!(cache.registry.repositories().await.unwrap(), []);
}

#[tokio::test]
async fn a_blob_that_the_upstream_has_damaged_is_cut_off_and_not_kept() {
    let up = Server::start().await;
    for (seed, length, at) in [(50, 3_000_000, 2_999_999), (51, 3_000_000, 10), (52, 1_000, 10)] {
        let cache = cache_of(up.address).await;
        let bytes = noise(seed, length);
        let (_, layer) = push_image(&up.client(), &name("x"), "1", &bytes).await;
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(up.blob_path(&layer.digest), damaged).unwrap();
        let url = format!("/v2/mirror/up/x/blobs/{}", layer.digest);
        // A part is not answered before the whole is checked.
        let part = http().get(cache.url(&url)).header("range", "bytes=100-199").send().await.unwrap();
        assert_eq!(code_of(part).await, (502, "UPSTREAM_FAILED".to_owned()));
        assert_nothing_kept(&cache);
        let response = get(&cache, &url).await;
        if length < 10_000 {
            assert_eq!(code_of(response).await, (502, "UPSTREAM_FAILED".to_owned()));
        } else {
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.is_err());
        }
        assert_nothing_kept(&cache);
        std::fs::write(up.blob_path(&layer.digest), &bytes).unwrap();
        assert!(get(&cache, &url).await.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_blob_above_the_limit_is_refused() {
    let up = Server::start().await;
    let (_, layer) = push_image(&up.client(), &name("x"), "1", &noise(53, 1_001)).await;
    let limits = Limits { max_blob_size: 1_000, ..Limits::default() };
    let cache = cache(Options { limits, ..Options::new(Arc::new(Anonymous)) }, vec![upstream(up.address)]).await;
    let response = get(&cache, &format!("/v2/mirror/up/x/blobs/{}", layer.digest)).await;
    assert_eq!(code_of(response).await, (502, "UPSTREAM_FAILED".to_owned()));
    assert_nothing_kept(&cache);
}

#[tokio::test]
async fn a_transfer_that_breaks_is_resumed_and_nobody_notices() {
    let up = Server::start().await;
    let bytes = noise(54, 3_000_000);
    let (_, layer) = push_image(&up.client(), &name("x"), "1", &bytes).await;
    let cut = |number| if number < 4 { Cut { to_client: 400_000, ..Cut::NEVER } } else { Cut::NEVER };
    let proxy = proxy::start(up.address, cut).await;
    let cache = cache_of(proxy.address).await;
    let pulled = get(&cache, &format!("/v2/mirror/up/x/blobs/{}", layer.digest)).await.bytes().await.unwrap();
    assert!(pulled == bytes);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_blob_that_never_becomes_whole_is_cut_off_and_not_kept() {
    let bytes = noise(59, 3_000_000);
    let (digest, half) = (Digest::sha256_of(&bytes), Bytes::copy_from_slice(&bytes[..1_500_000]));
    let up = serve(Router::new().fallback(move || {
        let parts = [Ok(half.clone()), Err(std::io::Error::other("broken"))];
        let body = Body::from_stream(futures::stream::iter(parts));
        async move { ([(header::CONTENT_LENGTH, 3_000_000)], body) }
    }))
    .await;
    let cache = cache_of(up).await;
    let url = format!("/v2/mirror/up/x/blobs/{digest}");
    let pulled = futures::future::join_all((0..4).map(|_| async { get(&cache, &url).await.bytes().await })).await;
    assert!(pulled.iter().all(Result::is_err));
    assert_nothing_kept(&cache);
}

#[tokio::test]
async fn a_blob_of_unknown_size_is_refused() {
    let body = noise(61, 3_000);
    let digest = Digest::sha256_of(&body);
    let up = serve(Router::new().fallback(move || {
        let body = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(body.clone())]));
        async move { body }
    }))
    .await;
    let cache = cache_of(up).await;
    let response = get(&cache, &format!("/v2/mirror/up/x/blobs/{digest}")).await;
    assert_eq!(code_of(response).await, (502, "UPSTREAM_FAILED".to_owned()));
    assert_nothing_kept(&cache);
}

#[tokio::test]
async fn bytes_are_handed_on_before_the_last_has_come_but_not_the_last_before_all_are_checked() {
    let bytes = noise(55, 4_000_000);
    let (open, gate) = watch::channel(false);
    let cache = cache_of(halves(&bytes, gate).await).await;
    let url = format!("/v2/mirror/up/x/blobs/{}", Digest::sha256_of(&bytes));
    let mut early = get(&cache, &url).await.bytes_stream();
    let mut received = Vec::new();
    while received.len() < 2_000_000 {
        received.extend_from_slice(&early.next().await.unwrap().unwrap());
    }
    // Whoever comes now reads along.
    let mut late = get(&cache, &url).await.bytes_stream();
    assert!(!late.next().await.unwrap().unwrap().is_empty());
    assert_eq!(cache.registry.storage_usage().blobs, 0);
    // A range waits for the rest: it would be whole before anything is checked.
    let part = http().get(cache.url(&url)).header("range", "bytes=100-1999999").send();
    let (part, ()) = tokio::join!(part, async { open.send(true).unwrap() });
    let part = part.unwrap();
    assert_eq!((part.status().as_u16(), cache.registry.storage_usage().blobs), (206, 1));
    assert!(part.bytes().await.unwrap() == bytes[100..2_000_000]);
    while let Some(part) = early.next().await {
        received.extend_from_slice(&part.unwrap());
    }
    assert!(received == bytes);
    // What has been received whole is kept.
    assert_eq!(cache.registry.storage_usage().blobs, 1);
}

#[tokio::test]
async fn a_cache_that_ends_in_the_middle_leaves_nothing_and_begins_again() {
    let bytes = noise(56, 4_000_000);
    let (open, gate) = watch::channel(false);
    let mut cache = cache_of(halves(&bytes, gate).await).await;
    let url = format!("/v2/mirror/up/x/blobs/{}", Digest::sha256_of(&bytes));
    let mut pulling = get(&cache, &url).await.bytes_stream();
    pulling.next().await.unwrap().unwrap();
    assert_eq!(cache.leftovers().len(), 1);
    cache.restart().await;
    assert!(pulling.any(|part| async move { part.is_err() }).await);
    assert_nothing_kept(&cache);
    open.send(true).unwrap();
    assert!(get(&cache, &url).await.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn an_asker_that_leaves_does_not_end_the_transfer() {
    let bytes = noise(57, 4_000_000);
    let (open, gate) = watch::channel(false);
    let cache = cache_of(halves(&bytes, gate).await).await;
    let url = format!("/v2/mirror/up/x/blobs/{}", Digest::sha256_of(&bytes));
    drop(get(&cache, &url).await);
    // It waits at the gate, and the next asker joins it.
    assert_eq!(cache.leftovers().len(), 1);
    open.send(true).unwrap();
    assert!(get(&cache, &url).await.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn an_upstream_that_did_not_answer_is_left_alone_for_a_while() {
    let up = Server::start().await;
    push_image(&up.client(), &name("x"), "1", b"layer").await;
    let proxy = proxy::start(up.address, |number| match number {
        0 => Cut::NEVER,
        _ => Cut { to_client: 0, ..Cut::NEVER },
    })
    .await;
    let upstream = Upstream { pause: Duration::from_secs(3600), ..upstream(proxy.address) };
    let cache = cache(Options::new(Arc::new(Anonymous)), vec![upstream]).await;
    let by_tag = "/v2/mirror/up/x/manifests/1";
    assert_eq!(get(&cache, by_tag).await.status(), 200);
    stop(up).await;
    let warned = |response: reqwest::Response| response.headers().contains_key("warning");
    assert!(warned(get(&cache, by_tag).await));
    let connections = proxy.connections.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert!(warned(get(&cache, by_tag).await));
        assert!(warned(get(&cache, "/v2/mirror/up/x/tags/list").await));
    }
    assert_eq!(proxy.connections.load(Ordering::SeqCst), connections);
    // What is not here is asked for all the same.
    assert_eq!(get(&cache, "/v2/mirror/up/x/manifests/2").await.status(), 502);
    assert!(proxy.connections.load(Ordering::SeqCst) > connections);
}

#[tokio::test]
async fn an_upstream_that_hangs_holds_nobody_longer_than_the_time_out() {
    let hanging = serve(Router::new().fallback(std::future::pending::<Response>)).await;
    let upstream = Upstream { timeout: Duration::from_millis(20), ..upstream(hanging) };
    let cache = cache(Options::new(Arc::new(Anonymous)), vec![upstream]).await;
    let digest = Digest::sha256_of(b"anything");
    for path in ["manifests/1".to_owned(), format!("manifests/{digest}"), format!("blobs/{digest}")] {
        let response = get(&cache, &format!("/v2/mirror/up/x/{path}")).await;
        assert_eq!(code_of(response).await, (502, "UPSTREAM_FAILED".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_or_is_overloaded_is_as_good_as_none() {
    for (status, answer, code) in [
        (StatusCode::UNAUTHORIZED, 502, "UPSTREAM_FAILED"),
        (StatusCode::FORBIDDEN, 502, "UPSTREAM_FAILED"),
        (StatusCode::INTERNAL_SERVER_ERROR, 502, "UPSTREAM_FAILED"),
        (StatusCode::TOO_MANY_REQUESTS, 429, "TOOMANYREQUESTS"),
    ] {
        let up = serve(Router::new().fallback(move || async move { status })).await;
        let cache = cache_of(up).await;
        let response = get(&cache, "/v2/mirror/up/x/manifests/1").await;
        assert_eq!(code_of(response).await, (answer, code.to_owned()), "{status}");
        assert_nothing_kept(&cache);
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn credentials_go_to_the_upstream_alone_and_into_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // With only one subscriber in the process, a line that another test's thread reaches first would be switched off
    // for this one too.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    // Everything here runs on this thread.
    let _guard = tracing::subscriber::set_default(subscriber);

    let bytes = noise(58, 1_000_000);
    let (heard, body) = (Arc::new(Mutex::new(Vec::<HeaderMap>::new())), bytes.clone());
    let listening = Arc::clone(&heard);
    let elsewhere = serve(Router::new().fallback(move |request: Request| {
        listening.lock().unwrap().push(request.headers().clone());
        let body = body.clone();
        async move { body }
    }))
    .await;
    let up = serve(Router::new().fallback(move |headers: HeaderMap| async move {
        match headers.get("authorization").map(|value| value.to_str().unwrap()) {
            Some("Basic bWlycm9yOnBsYW50ZWQtc2VjcmV0") => {
                let location = format!("http://localhost:{}/cdn?signature=planted-signature", elsewhere.port());
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
            }
            _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"up\"")]).into_response(),
        }
    }))
    .await;
    let credentials = Credentials { username: "mirror".to_owned(), password: "planted-secret".into() };
    let client = Client::new(http(), format!("http://{up}").parse().unwrap(), Some(credentials));
    let directory = tempfile::tempdir().unwrap();
    let upstreams = vec![Upstream::new(name("mirror/up"), client)];
    let options = Options { cache: upstreams, ..Options::new(Arc::new(Anonymous)) };
    let registry = Registry::open(directory.path(), options).await.unwrap();
    let cache = serve(router(Arc::new(registry))).await;

    let url = |digest: &Digest| format!("http://{cache}/v2/mirror/up/x/blobs/{digest}");
    let pulled = http().get(url(&Digest::sha256_of(&bytes))).send().await.unwrap().bytes().await.unwrap();
    assert!(pulled == bytes);
    let wrong = http().get(url(&Digest::sha256_of(b"other"))).send().await.unwrap();
    assert!(wrong.bytes().await.is_err());

    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|headers| !headers.contains_key("authorization")), "{heard:?}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("blob kept") && log.contains("blob not fetched"), "{log}");
    for secret in ["planted-secret", "bWlycm9yOnBsYW50ZWQtc2VjcmV0", "planted-signature"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
