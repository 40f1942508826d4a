//! What holds a client back: read-only mode, turns, time-outs, a full disk. And what is recorded of it all.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Extensions;
use bytes::Bytes;
use futures::future::BoxFuture;
use oci_registry::server::{Access, Action, Anonymous, Asker, Decision, EventAction, FileBody, Options, Saturation};
use oci_registry::storage::Limits;
use oci_registry::{Digest, RepositoryName, media_type};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Server, code_of, http, name, noise, push_image, tag};

fn options() -> Options {
    Options::new(Arc::new(Anonymous))
}

async fn start(server: &Server) -> String {
    let response = http().post(server.url("/v2/a/blobs/uploads/")).send().await.unwrap();
    response.headers()["location"].to_str().unwrap().to_owned()
}

/// Sends the head of a request and the beginning of its body, and keeps the connection.
async fn begin(server: &Server, request: &str, sent: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(sent).await.unwrap();
    connection
}

async fn answer(mut connection: TcpStream) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_read_only_registry_gives_and_takes_nothing() {
    let server = Server::start().await;
    let (manifest, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let session = start(&server).await;
    server.registry.set_read_only(true);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PATCH", session.clone()),
        ("PUT", session.clone()),
        ("DELETE", session.clone()),
        ("PUT", "/v2/a/manifests/2".to_owned()),
        ("DELETE", "/v2/a/manifests/1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{}", layer.digest)),
    ] {
        let response = http().request(method.parse().unwrap(), server.url(&path)).send().await.unwrap();
        assert_eq!(code_of(response).await, (405, "UNSUPPORTED".to_owned()), "{method} {path}");
    }
    assert_eq!(server.client().resolve(&name("a"), &tag("1")).await.unwrap(), manifest);
    assert_eq!(http().get(server.url(&session)).send().await.unwrap().status(), 204);
    server.registry.set_read_only(false);
    assert_eq!(http().patch(server.url(&session)).body("x").send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn one_upload_too_many_waits_and_is_then_sent_away() {
    let read_timeout = Duration::from_millis(200);
    let server = Server::start_options(Options { max_concurrent_uploads: 1, ..options() }).await;
    let (first, second) = (start(&server).await, start(&server).await);
    let held = begin(&server, &format!("PATCH {first}"), &[1; 500]).await;
    while server.registry.uploads().first().is_none_or(|upload| upload.bytes < 500) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let upload = server.registry.uploads().remove(0);
    assert_eq!((upload.user.as_str(), upload.repository), ("anonymous", name("a")));
    assert!(first.ends_with(&upload.id.to_string()));
    assert_eq!(server.registry.saturation(), None);

    // It waits for as long as there is hope.
    let waiting = tokio::spawn(http().patch(server.url(&second)).body("x").send());
    while server.registry.saturation() != Some(Saturation::UploadsWaiting { count: 1 }) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 202);
    assert_eq!(server.registry.saturation(), None);
    assert!(server.registry.uploads().is_empty());

    // Nobody needs a turn for what sends nothing.
    let impatient = Options { max_concurrent_uploads: 1, read_timeout, ..options() };
    let server = Server::start_options(impatient).await;
    let (first, second) = (start(&server).await, start(&server).await);
    let digest = Digest::sha256_of(b"x");
    assert_eq!(http().patch(server.url(&second)).body("x").send().await.unwrap().status(), 202);
    let (mut held, goes_on) = (begin(&server, &format!("PATCH {first}"), b"").await, Arc::new(()));
    let feeding = Arc::downgrade(&goes_on);
    let feeder = tokio::spawn(async move {
        // Slow, but never silent.
        while feeding.upgrade().is_some() {
            held.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    while server.registry.uploads().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = http().patch(server.url(&second)).body("y").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(code_of(refused).await, (429, "TOOMANYREQUESTS".to_owned()));
    let finished = http().put(server.url(&format!("{second}?digest={digest}"))).send().await.unwrap();
    assert_eq!(finished.status(), 201);
    drop(goes_on);
    feeder.await.unwrap();
}

#[tokio::test]
async fn a_silent_or_endless_body_ends_with_408_and_keeps_what_came() {
    let silent = Options { read_timeout: Duration::from_millis(500), ..options() };
    let endless = Options { upload_timeout: Duration::from_millis(500), ..options() };
    for options in [silent, endless] {
        let server = Server::start_options(options).await;
        let session = start(&server).await;
        let text = answer(begin(&server, &format!("PATCH {session}"), &[1; 10]).await).await;
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("BLOB_UPLOAD_INVALID"), "{text}");
        let status = http().get(server.url(&session)).send().await.unwrap();
        assert_eq!(status.headers()["range"], "0-9");
        let digest = Digest::sha256_of(&[1; 1000]);
        let whole = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        let text = answer(begin(&server, &whole, &[1; 10]).await).await;
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
        let text = answer(begin(&server, "PUT /v2/a/manifests/1", b"{").await).await;
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("MANIFEST_INVALID"), "{text}");
        assert_eq!(http().delete(server.url(&session)).send().await.unwrap().status(), 204);
        assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    }
}

/// A part of a file that never comes to its end.
struct Endless;

impl FileBody for Endless {
    fn body(&self, _: &Extensions, _: std::fs::File, _: u64, _: u64, _: Arc<dyn Fn(u64) + Send + Sync>) -> Body {
        let pieces = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        Body::from_stream(pieces)
    }
}

#[tokio::test]
async fn a_download_that_takes_too_long_is_cut() {
    let options = Options { download_timeout: Duration::from_millis(100), files: Arc::new(Endless), ..options() };
    let server = Server::start_options(options).await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", &noise(1, 1 << 20)).await;
    let response = http().get(server.url(&format!("/v2/a/blobs/{}", layer.digest))).send().await.unwrap();
    assert_eq!(response.content_length(), Some(1 << 20));
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn with_too_little_free_nothing_is_taken_in() {
    let limits = Limits { min_free: u64::MAX, ..Limits::default() };
    let server = Server::start_options(Options { limits, ..options() }).await;
    let digest = Digest::sha256_of(b"x");
    let manifest = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let put = http().put(server.url("/v2/a/manifests/1")).header("content-type", media_type::OCI_INDEX);
    for request in [
        http().post(server.url("/v2/a/blobs/uploads/")),
        http().post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}"))).body("x"),
        put.body(manifest),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(code_of(response).await, (507, "INSUFFICIENT_STORAGE".to_owned()));
    }
    assert!(matches!(server.registry.saturation(), Some(Saturation::NearlyFull { min_free: u64::MAX, .. })));
    assert_eq!(server.registry.repositories().await.unwrap(), []);
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
}

/// A file system of a few bytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(disk.0.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn what_does_not_fit_on_the_disk_is_507_and_what_was_there_stays() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!(
            "NOT RUN: what_does_not_fit_on_the_disk_is_507_and_what_was_there_stays: mount is missing or not allowed"
        );
        return;
    };
    let server = Server::start_at(disk.0.path(), options()).await;
    let (manifest, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let usage = server.registry.storage_usage();
    let large = noise(1, 4 << 20);
    let digest = Digest::sha256_of(&large);
    let begun = http().post(server.url("/v2/a/blobs/uploads/")).send().await.unwrap();
    let session = server.url(begun.headers()["location"].to_str().unwrap());
    for request in [
        http().post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}"))).body(large.clone()),
        http().patch(&session).body(large),
    ] {
        assert_eq!(code_of(request.send().await.unwrap()).await, (507, "INSUFFICIENT_STORAGE".to_owned()));
    }
    // Not for a day, in which a client that does not come back would keep the room from all others.
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(http().get(&session).send().await.unwrap().status(), 404);
    assert_eq!(server.registry.storage_usage(), usage);
    assert_eq!(server.client().resolve(&name("a"), &tag("1")).await.unwrap(), manifest);
    // There is room again for what fits.
    push_image(&server.client(), &name("a"), "2", &noise(2, 1 << 20)).await;
}

/// `reader` may only pull.
struct Reader;

impl Access for Reader {
    fn check<'a>(&'a self, asker: Asker<'a>, _: Option<&'a RepositoryName>, action: Action) -> BoxFuture<'a, Decision> {
        let known = asker.headers.contains_key("authorization");
        let decision = match action {
            Action::Push | Action::Delete if known => Decision::Deny,
            Action::Pull if asker.headers.get("x-nobody").is_some() => Decision::Challenge("Basic".to_owned()),
            _ => Decision::Allow { user: "somebody".to_owned() },
        };
        Box::pin(async { decision })
    }
}

#[tokio::test]
async fn what_was_done_is_told_with_who_and_what() {
    let server = Server::start_with(Arc::new(Reader), Limits::default()).await;
    let (manifest, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let layer = layer.digest;
    let url = |path: &str| server.url(path);
    let blob = url(&format!("/v2/a/blobs/{layer}"));
    for request in [
        http().get(&blob).header("range", "bytes=1-2"),
        http().head(&blob),
        http().get(url("/v2/a/manifests/1")),
        http().head(url("/v2/a/manifests/1")),
        http().post(url(&format!("/v2/b/blobs/uploads/?mount={layer}&from=a"))),
        http().delete(url(&format!("/v2/b/blobs/{layer}"))),
        http().delete(url("/v2/a/manifests/1")),
        http().delete(url(&format!("/v2/a/manifests/{}", manifest.digest))),
        http().delete(&blob).basic_auth("reader", Some("x")),
        http().get(&blob).header("x-nobody", ""),
        http().get(url("/v2/a/manifests/none")),
    ] {
        request.send().await.unwrap();
    }
    let (digest, size) = (&manifest.digest, Some(manifest.size));
    let empty = Digest::sha256_of(b"{}");
    let by_digest = digest.to_string();
    let expected = [
        ("somebody", EventAction::PushBlob, "a", "", Some(&layer), Some(5)),
        ("somebody", EventAction::PushBlob, "a", "", Some(&empty), Some(2)),
        ("somebody", EventAction::PushManifest, "a", "1", Some(digest), size),
        ("somebody", EventAction::PullBlob, "a", "", Some(&layer), Some(2)),
        ("somebody", EventAction::PullManifest, "a", "1", Some(digest), size),
        ("somebody", EventAction::MountBlob, "b", "a", Some(&layer), Some(5)),
        ("somebody", EventAction::DeleteBlob, "b", "", Some(&layer), None),
        ("somebody", EventAction::DeleteTag, "a", "1", None, None),
        ("somebody", EventAction::DeleteManifest, "a", &by_digest, Some(digest), None),
        ("", EventAction::Denied, "a", "", None, None),
    ];
    let events = server.heard.events.lock().unwrap().clone();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let text = (event.user.as_str(), event.action, event.repository.as_str(), event.reference.as_str());
            (text.0, text.1, text.2, text.3, event.digest.as_ref(), event.size)
        })
        .collect();
    assert_eq!(told, expected);
}
