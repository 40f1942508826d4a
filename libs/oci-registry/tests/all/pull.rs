//! Our client pulls: verified, resumed.

use std::sync::atomic::Ordering;

use futures::TryStreamExt as _;
use oci_registry::client::ClientError;
use oci_registry::{Descriptor, Digest};
use tokio::io::AsyncReadExt as _;

use crate::fixture::{Server, client_of, name, noise, push_image, tag};
use crate::proxy::{self, Cut};

async fn all(stream: impl futures::Stream<Item = Result<bytes::Bytes, ClientError>>) -> Result<Vec<u8>, ClientError> {
    stream
        .try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn a_blob_arrives_whole_or_from_any_byte() {
    let server = Server::start().await;
    let bytes = noise(6, 1_000_000);
    let (_, layer) = push_image(&server.client(), &name("a"), "1", &bytes).await;
    assert!(all(server.client().verified_blob(&name("a"), &layer)).await.unwrap() == bytes);
    for from in [0, 1, 999_999] {
        let stream = server.client().blob(&name("a"), &layer, from).await.unwrap();
        assert!(all(stream).await.unwrap() == bytes[usize::try_from(from).unwrap()..], "{from}");
    }
    let mut read = Vec::new();
    server.client().verified_blob(&name("a"), &layer).into_reader().read_to_end(&mut read).await.unwrap();
    assert!(read == bytes);
    while server.heard.downloaded.load(Ordering::SeqCst) < 4_000_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed() {
    let server = Server::start().await;
    let bytes = noise(7, 3_000_000);
    let (_, layer) = push_image(&server.client(), &name("a"), "1", &bytes).await;
    let proxy = proxy::start(server.address, |number| match number {
        0..4 => Cut { to_client: 400_000, ..Cut::NEVER },
        _ => Cut::NEVER,
    })
    .await;
    let before = server.heard.downloaded.load(Ordering::SeqCst);
    assert!(all(client_of(proxy.address).verified_blob(&name("a"), &layer)).await.unwrap() == bytes);
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 5);
    // What had arrived was not asked for again: less than five whole downloads went out, though buffers were lost.
    assert!(server.heard.downloaded.load(Ordering::SeqCst) - before < 5 * 3_000_000);
}

#[tokio::test]
async fn small_requests_are_repeated_too() {
    let server = Server::start().await;
    let cut = |number| if number < 2 { Cut { to_client: 20, ..Cut::NEVER } } else { Cut::NEVER };
    let (manifest, _) =
        push_image(&client_of(proxy::start(server.address, cut).await.address), &name("a"), "1", b"layer").await;
    let client = client_of(proxy::start(server.address, cut).await.address);
    assert_eq!(client.manifest(&name("a"), &tag("1")).await.unwrap().0, manifest);
    let client = client_of(proxy::start(server.address, cut).await.address);
    assert_eq!(client.resolve(&name("a"), &manifest.digest.clone().into()).await.unwrap(), manifest);
}

#[tokio::test]
async fn without_progress_it_gives_up() {
    let server = Server::start().await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", &noise(8, 100_000)).await;
    let proxy = proxy::start(server.address, |_| Cut { to_client: 20, ..Cut::NEVER }).await;
    let error = all(client_of(proxy.address).verified_blob(&name("a"), &layer)).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { attempts: 4, .. }), "{error}");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 4);
    let error = client_of(proxy.address).resolve(&name("a"), &tag("1")).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { attempts: 4, .. }), "{error}");
    let unknown = Descriptor::new("x/y", Digest::sha256_of(b"nobody pushed this"), 18);
    let error = all(server.client().verified_blob(&name("a"), &unknown)).await.unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert!(error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn damage_on_the_registrys_disk_is_seen() {
    let server = Server::start().await;
    let bytes = noise(9, 1_000_000);
    let (_, layer) = push_image(&server.client(), &name("a"), "1", &bytes).await;
    let path = server.blob_path(&layer.digest);

    let mut damaged = bytes.clone();
    damaged[500_000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = all(server.client().verified_blob(&name("a"), &layer)).await.unwrap_err();
    assert!(matches!(&error, ClientError::DigestMismatch { expected, .. } if *expected == layer.digest), "{error}");
    let mut read = Vec::new();
    let error =
        server.client().verified_blob(&name("a"), &layer).into_reader().read_to_end(&mut read).await.unwrap_err();
    assert!(error.to_string().contains("has digest"), "{error}");

    std::fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
    let error = all(server.client().verified_blob(&name("a"), &layer)).await.unwrap_err();
    assert!(matches!(error, ClientError::SizeMismatch { .. }), "{error}");

    std::fs::write(&path, &bytes[..500_000]).unwrap();
    let error = all(server.client().verified_blob(&name("a"), &layer)).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { .. } | ClientError::Status { status: 416, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_ignores_range_is_understood() {
    let bytes = noise(10, 100_000);
    let body = bytes.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new().fallback(move || async move { body.clone() });
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let proxy =
        proxy::start(address, |number| if number == 0 { Cut { to_client: 30_000, ..Cut::NEVER } } else { Cut::NEVER })
            .await;
    let descriptor = Descriptor::new("x/y", Digest::sha256_of(&bytes), 100_000);
    assert!(all(client_of(proxy.address).verified_blob(&name("a"), &descriptor)).await.unwrap() == bytes);
}
