//! Our client pushes: streamed, skipped, resumed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt as _;
use oci_registry::client::{ClientError, Retry};
use oci_registry::storage::Usage;
use oci_registry::{Algorithm, Digest, media_type};

use crate::fixture::{Server, client_of, name, noise, push_image, tag};
use crate::proxy::{self, Cut};

const KIND: &str = "application/vnd.oci.image.layer.v1.tar";

#[tokio::test]
async fn a_file_is_pushed_once() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rootfs.tar");
    for (length, blobs) in [(3_000_000, 1), (1, 2), (0, 3)] {
        let bytes = noise(11, length);
        std::fs::write(&file, &bytes).unwrap();
        let pushed = server.client().push_blob(&name("a"), &file, KIND).await.unwrap();
        assert_eq!((&pushed.digest, pushed.size), (&Digest::sha256_of(&bytes), length as u64));
        let uploaded = server.heard.uploaded.load(Ordering::SeqCst);
        assert_eq!(server.client().push_blob(&name("a"), &file, KIND).await.unwrap(), pushed);
        assert_eq!(server.heard.uploaded.load(Ordering::SeqCst), uploaded);
        assert_eq!(server.registry.storage_usage().blobs, blobs);
    }
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    let missing = server.client().push_blob(&name("a"), &directory.path().join("missing"), KIND).await.unwrap_err();
    assert!(matches!(missing, ClientError::Read { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_be_made_from_a_task() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rootfs.tar");
    std::fs::write(&file, b"layer").unwrap();
    let client = server.client();
    let task = tokio::spawn(async move {
        let (manifest, _) = push_image(&client, &name("a"), "1", b"layer").await;
        let layer = client.push_blob(&name("a"), &file, KIND).await.unwrap();
        let found = client.resolve(&name("a"), &tag("1")).await.unwrap();
        let (_, bytes) = client.manifest(&name("a"), &tag("1")).await.unwrap();
        let parts: Vec<_> = client.blob(&name("a"), &layer, 0).await.unwrap().try_collect().await.unwrap();
        (manifest == found, bytes.len() as u64 == found.size, parts.concat())
    });
    assert_eq!(task.await.unwrap(), (true, true, b"layer".to_vec()));
    let registry = std::sync::Arc::clone(&server.registry);
    let direct = tokio::spawn(async move {
        let found = registry.resolve(&name("a"), &tag("1")).await.unwrap();
        (found.is_some(), registry.repositories().await.unwrap().len(), registry.tags(&name("a")).await.unwrap().len())
    });
    assert_eq!(direct.await.unwrap(), (true, 1, 1));
}

#[tokio::test]
async fn a_push_that_breaks_off_is_resumed() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rootfs.tar");
    let bytes = noise(12, 8_000_000);
    std::fs::write(&file, &bytes).unwrap();
    let proxy = proxy::start(server.address, |number| match number {
        0..3 => Cut { to_server: 2_500_000, ..Cut::NEVER },
        _ => Cut::NEVER,
    })
    .await;
    // The server may still be taking in what was on its way when the client asks where the session stands.
    let pause = Duration::from_millis(20);
    let retry = Retry { attempts: 12, first_pause: pause, longest_pause: pause };
    let client = client_of(proxy.address).with_retry(retry);
    let pushed = client.push_blob(&name("a"), &file, KIND).await.unwrap();
    assert_eq!(pushed.digest, Digest::sha256_of(&bytes));
    assert!(proxy.connections.load(Ordering::SeqCst) >= 4);
    assert!(std::fs::read(server.blob_path(&pushed.digest)).unwrap() == bytes);
    assert_eq!(server.registry.storage_usage(), Usage { blobs: 1, bytes: 8_000_000 });
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    // A session that is begun anew each time would have sent two chunks more.
    let uploaded = server.heard.uploaded.load(Ordering::SeqCst);
    assert!(uploaded < 8_000_000 + 2 * 2_500_000, "{uploaded}");
}

#[tokio::test]
async fn a_lost_answer_to_the_last_request_is_no_failure() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("small");
    std::fs::write(&file, noise(13, 1000)).unwrap();
    let answer: &[u8] = b"HTTP/1.1 201";
    let proxy =
        proxy::start(server.address, move |number| if number == 0 { Cut { answer, ..Cut::NEVER } } else { Cut::NEVER })
            .await;
    let pushed = client_of(proxy.address).push_blob(&name("a"), &file, KIND).await.unwrap();
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 2);
    assert!(server.client().has_blob(&name("a"), &pushed.digest).await.unwrap());
    assert_eq!(server.heard.uploaded.load(Ordering::SeqCst), 1000);
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_reader_that_fails_leaves_nothing() {
    let server = Server::start().await;
    let reader = tokio::io::AsyncReadExt::chain(std::io::Cursor::new(noise(14, 1_000_000)), Failing);
    let error = server.client().push_reader(&name("a"), reader, Some(2_000_000), KIND).await.unwrap_err();
    assert!(matches!(error, ClientError::Send { .. }), "{error}");
    assert_eq!(server.registry.storage_usage(), Usage::default());
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_manifest_is_pushed_under_the_digest_that_is_asked_for() {
    let server = Server::start().await;
    let bytes = r#"{"schemaVersion":2,"manifests":[]}"#;
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, bytes.as_bytes());
        let (client, selector) = (server.client(), digest.clone().into());
        let pushed = client.push_manifest(&name("a"), &selector, media_type::OCI_INDEX, bytes.into()).await.unwrap();
        assert_eq!(pushed.digest, digest);
    }
}

struct Failing;

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
    }
}
