//! Upload sessions: chunks, restarts, rivals, faults.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use oci_registry::Digest;
use oci_registry::server::Anonymous;
use oci_registry::storage::{Limits, Usage};
use reqwest::Response;
use tokio::io::AsyncWriteExt as _;

use crate::fixture::{Server, code_of, http, name, noise};

async fn start(server: &Server, repository: &str) -> String {
    let response = http().post(server.url(&format!("/v2/{repository}/blobs/uploads/"))).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["range"], "0-0");
    location(&response)
}

fn location(response: &Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn patch(server: &Server, location: &str, range: Option<&str>, body: &[u8]) -> Response {
    let request = http().patch(server.url(location)).body(body.to_vec());
    match range {
        Some(range) => request.header("content-range", range),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

async fn finish(server: &Server, location: &str, digest: &Digest, body: &[u8]) -> Response {
    http().put(server.url(&format!("{location}?digest={digest}"))).body(body.to_vec()).send().await.unwrap()
}

#[tokio::test]
async fn every_way_to_upload() {
    let server = Server::start().await;
    let bytes = noise(2, 1_500_000);
    let expected = |n: u64| Usage { blobs: n, bytes: n * 1_500_000 };
    assert_eq!(server.registry.storage_usage(), expected(0));

    let mut one = bytes.clone();
    one[0] = 1;
    let digest = Digest::sha256_of(&one);
    let response = http()
        .post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}")))
        .body(one.clone())
        .send()
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), location(&response)), (201, format!("/v2/a/blobs/{digest}")));
    assert_eq!(response.headers()["docker-content-digest"], digest.to_string());
    assert_eq!(server.registry.storage_usage(), expected(1));

    let mut two = bytes.clone();
    two[0] = 2;
    let digest = Digest::sha256_of(&two);
    let session = start(&server, "a").await;
    assert_eq!(finish(&server, &session, &digest, &two).await.status(), 201);
    assert_eq!(finish(&server, &session, &digest, &two).await.status(), 404);

    let mut three = bytes.clone();
    three[0] = 3;
    let digest = Digest::sha256_of(&three);
    let session = start(&server, "a").await;
    let response = patch(&server, &session, Some("0-999999"), &three[..1_000_000]).await;
    assert_eq!((response.status().as_u16(), response.headers()["range"].to_str().unwrap()), (202, "0-999999"));
    let status = http().get(server.url(&session)).send().await.unwrap();
    assert_eq!((status.status().as_u16(), status.headers()["range"].to_str().unwrap()), (204, "0-999999"));
    let response = patch(&server, &session, None, &three[1_000_000..1_200_000]).await;
    assert_eq!(response.status(), 202);
    assert_eq!(finish(&server, &session, &digest, &three[1_200_000..]).await.status(), 201);
    let stored = http().get(server.url(&format!("/v2/a/blobs/{digest}"))).send().await.unwrap().bytes().await.unwrap();
    assert!(stored == three);

    assert_eq!(server.registry.storage_usage(), expected(3));
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(server.heard.uploaded.load(Ordering::SeqCst), 4_500_000);
    assert_eq!(server.heard.in_flight.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let session = start(&server, "a").await;
    assert_eq!(patch(&server, &session, Some("0-4"), b"01234").await.status(), 202);
    for range in ["6-9", "0-3", "4-7", "nonsense", "9-5"] {
        let body = if range == "6-9" || range == "0-3" || range == "4-7" { &b"wxyz"[..] } else { b"w" };
        let response = patch(&server, &session, Some(range), body).await;
        assert_eq!(response.headers()["range"], "0-4", "{range}");
        assert_eq!(code_of(response).await, (416, "BLOB_UPLOAD_INVALID".to_owned()), "{range}");
    }
    let lying = patch(&server, &session, Some("5-9"), b"56").await;
    assert_eq!(code_of(lying).await, (400, "SIZE_INVALID".to_owned()));
    // A chunked body has no Content-Length, so that only its end shows the lie.
    let parts = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"56"))]);
    let streamed = http()
        .patch(server.url(&session))
        .header("content-range", "5-9")
        .body(reqwest::Body::wrap_stream(parts))
        .send()
        .await
        .unwrap();
    assert_eq!(code_of(streamed).await, (400, "SIZE_INVALID".to_owned()));
    let digest = Digest::sha256_of(b"0123456789");
    assert_eq!(finish(&server, &session, &digest, b"56789").await.status(), 201);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let promised = Digest::sha256_of(b"promised");
    let session = start(&server, "a").await;
    let response = finish(&server, &session, &promised, b"delivered").await;
    assert_eq!(code_of(response).await, (400, "DIGEST_INVALID".to_owned()));
    let whole = http()
        .post(server.url(&format!("/v2/a/blobs/uploads/?digest={promised}")))
        .body("delivered")
        .send()
        .await
        .unwrap();
    assert_eq!(code_of(whole).await, (400, "DIGEST_INVALID".to_owned()));
    for digest in ["", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:..%2f..%2fx"] {
        let session = start(&server, "a").await;
        let response = http().put(server.url(&format!("{session}?digest={digest}"))).body("x").send().await.unwrap();
        assert_eq!(code_of(response).await, (400, "DIGEST_INVALID".to_owned()), "{digest}");
        assert_eq!(http().delete(server.url(&session)).send().await.unwrap().status(), 204);
    }
    assert_eq!(server.registry.storage_usage(), Usage::default());
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(server.registry.repositories().await.unwrap(), []);
}

#[tokio::test]
async fn a_session_belongs_to_its_repository_and_can_be_cancelled() {
    let server = Server::start().await;
    let session = start(&server, "a").await;
    let elsewhere = session.replace("/v2/a/", "/v2/b/");
    assert_eq!(
        code_of(http().get(server.url(&elsewhere)).send().await.unwrap()).await,
        (404, "BLOB_UPLOAD_UNKNOWN".to_owned())
    );
    assert_eq!(patch(&server, &elsewhere, None, b"x").await.status(), 404);
    assert_eq!(http().delete(server.url(&session)).send().await.unwrap().status(), 204);
    assert_eq!(http().get(server.url(&session)).send().await.unwrap().status(), 404);
    assert_eq!(patch(&server, &session, None, b"x").await.status(), 404);
    assert_eq!(http().get(server.url("/v2/a/blobs/uploads/not-an-id")).send().await.unwrap().status(), 404);
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
}

/// Sends the head of a `PATCH` and a part of its body, and keeps the connection open.
async fn hang(server: &Server, session: &str, announced: usize, sent: &[u8]) -> tokio::net::TcpStream {
    let mut connection = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!("PATCH {session} HTTP/1.1\r\nhost: x\r\ncontent-length: {announced}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(sent).await.unwrap();
    connection
}

/// Waits until the server has taken in so many bytes.
async fn taken_in(server: &Server, bytes: u64) {
    while server.heard.uploaded.load(Ordering::SeqCst) < bytes {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn offset(server: &Server, session: &str) -> usize {
    let response = http().get(server.url(session)).send().await.unwrap();
    assert_eq!(response.status(), 204);
    let range = response.headers()["range"].to_str().unwrap().to_owned();
    range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}

#[tokio::test]
async fn an_upload_goes_on_after_the_server_was_stopped_in_the_middle() {
    let mut server = Server::start().await;
    let bytes = noise(3, 4_000_000);
    let digest = Digest::sha256_of(&bytes);
    let session = start(&server, "os/images").await;
    assert_eq!(patch(&server, &session, None, &bytes[..1_000_000]).await.status(), 202);
    let _connection = hang(&server, &session, 3_000_000, &bytes[1_000_000..3_000_000]).await;
    taken_in(&server, 3_000_000).await;
    server.restart().await;

    let at = offset(&server, &session).await;
    assert!((1_000_000..=3_000_000).contains(&at), "{at}");
    let range = format!("{at}-{}", bytes.len() - 1);
    assert_eq!(patch(&server, &session, Some(&range), &bytes[at..]).await.status(), 202);
    assert_eq!(finish(&server, &session, &digest, b"").await.status(), 201);
    let stored =
        http().get(server.url(&format!("/v2/os/images/blobs/{digest}"))).send().await.unwrap().bytes().await.unwrap();
    assert!(stored == bytes);
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_hanging_connection_does_not_keep_its_successor_out() {
    let server = Server::start().await;
    let bytes = noise(4, 2_000_000);
    let session = start(&server, "a").await;
    let _connection = hang(&server, &session, bytes.len(), &bytes[..1_000_000]).await;
    taken_in(&server, 1_000_000).await;
    // An empty chunk takes the session over and says where it stands once the rival has let go.
    assert_eq!(patch(&server, &session, None, b"").await.status(), 202);
    let at = http().get(server.url(&session)).send().await.unwrap();
    let at = at.headers()["range"].to_str().unwrap().strip_prefix("0-").unwrap().parse::<usize>().unwrap();
    let at = if at == 0 { 0 } else { at + 1 };
    assert_eq!(finish(&server, &session, &Digest::sha256_of(&bytes), &bytes[at..]).await.status(), 201);
}

#[tokio::test]
async fn too_large_is_said_at_once_or_as_soon_as_it_shows() {
    let limits = Limits { max_blob_size: 1000, ..Limits::default() };
    let server = Server::start_with(Arc::new(Anonymous), limits).await;
    let session = start(&server, "a").await;
    let announced = patch(&server, &session, None, &[0; 1001]).await;
    assert_eq!(code_of(announced).await, (413, "SIZE_INVALID".to_owned()));
    let parts = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 500]))));
    let streamed = http().patch(server.url(&session)).body(reqwest::Body::wrap_stream(parts)).send().await.unwrap();
    assert_eq!(code_of(streamed).await, (413, "SIZE_INVALID".to_owned()));
    let digest = Digest::sha256_of(&[0; 1001]);
    let whole = http()
        .post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}")))
        .body(vec![0; 1001])
        .send()
        .await
        .unwrap();
    assert_eq!(whole.status(), 413);
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    let digest = Digest::sha256_of(&[0; 1000]);
    let fits = http()
        .post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}")))
        .body(vec![0; 1000])
        .send()
        .await
        .unwrap();
    assert_eq!(fits.status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_from_several_sides_at_once() {
    let server = Server::start().await;
    let bytes = Bytes::from(noise(5, 2_000_000));
    let digest = Digest::sha256_of(&bytes);
    let pushes = (0..8).map(|side| {
        let (client, bytes) = (server.client(), bytes.clone());
        tokio::spawn(async move {
            let repository = name(if side % 2 == 0 { "even" } else { "odd" });
            client
                .push_reader(&repository, std::io::Cursor::new(bytes), None, "application/octet-stream")
                .await
                .unwrap()
        })
    });
    for push in futures::future::join_all(pushes).await {
        assert_eq!(push.unwrap().digest, digest);
    }
    assert_eq!(server.registry.storage_usage(), Usage { blobs: 1, bytes: 2_000_000 });
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    for repository in ["even", "odd"] {
        let blob = http().get(server.url(&format!("/v2/{repository}/blobs/{digest}"))).send().await.unwrap();
        assert!(blob.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn what_lies_in_tmp_and_abandoned_sessions_go_at_the_next_start() {
    let limits = Limits { upload_expiry: Duration::ZERO, ..Limits::default() };
    let mut server = Server::start_with(Arc::new(Anonymous), limits).await;
    let session = start(&server, "a").await;
    patch(&server, &session, None, b"some").await;
    let digest = Digest::sha256_of(b"kept");
    let kept =
        http().post(server.url(&format!("/v2/a/blobs/uploads/?digest={digest}"))).body("kept").send().await.unwrap();
    assert_eq!(kept.status(), 201);
    assert_eq!(server.registry.storage().expire_uploads().await.unwrap(), 1);
    assert_eq!(http().get(server.url(&session)).send().await.unwrap().status(), 404);
    assert_eq!(patch(&server, &session, None, b"more").await.status(), 404);

    let session = start(&server, "a").await;
    let connection = hang(&server, &session, 100, b"some").await;
    taken_in(&server, 12).await;
    assert_eq!(server.registry.storage().expire_uploads().await.unwrap(), 0);
    drop(connection);
    std::fs::write(server.root().join("tmp/unfinished"), "x").unwrap();
    server.restart().await;
    assert_eq!(server.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(http().get(server.url(&session)).send().await.unwrap().status(), 404);
    assert_eq!(server.registry.storage_usage(), Usage { blobs: 1, bytes: 4 });
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let server = Server::start().await;
    let digest = Digest::sha256_of(b"shared");
    http()
        .post(server.url(&format!("/v2/from/here/blobs/uploads/?digest={digest}")))
        .body("shared")
        .send()
        .await
        .unwrap();
    let mounted =
        http().post(server.url(&format!("/v2/to/blobs/uploads/?mount={digest}&from=from/here"))).send().await.unwrap();
    assert_eq!((mounted.status().as_u16(), location(&mounted)), (201, format!("/v2/to/blobs/{digest}")));
    assert_eq!(http().head(server.url(&format!("/v2/to/blobs/{digest}"))).send().await.unwrap().status(), 200);
    let other = Digest::sha256_of(b"nobody has this");
    for query in
        [format!("mount={digest}&from=nobody"), format!("mount={other}"), format!("mount={digest}&from=../from/here")]
    {
        let session = http().post(server.url(&format!("/v2/third/blobs/uploads/?{query}"))).send().await.unwrap();
        assert_eq!(session.status(), 202, "{query}");
    }
    let anywhere = http().post(server.url(&format!("/v2/third/blobs/uploads/?mount={digest}"))).send().await.unwrap();
    assert_eq!((anywhere.status().as_u16(), location(&anywhere)), (201, format!("/v2/third/blobs/{digest}")));
    assert_eq!(server.registry.storage_usage(), Usage { blobs: 1, bytes: 6 });
}
