//! What clients get wrong, by mistake or on purpose: the specification's code and status, and nothing of it is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use oci_registry::{Descriptor, Digest, media_type};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Server, code_of, http, name, push_image};

/// Every file below the root with its size.
fn files(root: &Path) -> BTreeMap<PathBuf, u64> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.metadata().unwrap();
            if metadata.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path, metadata.len());
            }
        }
    }
    found
}

/// Sends these bytes on a connection of its own and reads what comes back; with `cut`, it sends no more after them.
async fn raw(server: &Server, head: &str, body: &[u8], cut: bool) -> String {
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    if cut {
        connection.shutdown().await.unwrap();
    }
    let mut answer = String::new();
    let _ = connection.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn manifests() {
    let server = Server::start().await;
    let (manifest, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let empty = Descriptor::empty();
    let nobody = Descriptor::new("x/y", Digest::sha256_of(b"nobody pushed this"), 18);
    let child = Descriptor::new(media_type::OCI_MANIFEST, nobody.digest.clone(), 18);
    let image = |layers: &[&Descriptor]| json!({"schemaVersion": 2, "config": empty, "layers": layers});
    let index = |children: &[&Descriptor]| json!({"schemaVersion": 2, "manifests": children});
    let good = image(&[&layer]);
    let long = Descriptor { size: layer.size + 1, ..layer.clone() };
    let before = files(server.root());
    for (what, kind, body, expected) in [
        ("no JSON", media_type::OCI_MANIFEST, json!("x"), (400, "MANIFEST_INVALID")),
        ("missing layer", media_type::OCI_MANIFEST, image(&[&layer, &nobody]), (404, "MANIFEST_BLOB_UNKNOWN")),
        ("missing child", media_type::OCI_INDEX, index(&[&manifest, &child]), (404, "MANIFEST_BLOB_UNKNOWN")),
        ("missing in a cache", media_type::OCI_INDEX, index(&[&nobody]), (404, "MANIFEST_BLOB_UNKNOWN")),
        (
            "a layer as child",
            media_type::OCI_INDEX,
            { index(&[&Descriptor { media_type: media_type::OCI_MANIFEST.to_owned(), ..layer.clone() }]) },
            (404, "MANIFEST_BLOB_UNKNOWN"),
        ),
        ("wrong size", media_type::OCI_MANIFEST, image(&[&long]), (400, "MANIFEST_INVALID")),
        ("index as image", media_type::OCI_MANIFEST, index(&[&manifest]), (400, "MANIFEST_INVALID")),
        ("unknown type", "application/vnd.example+json", good.clone(), (400, "MANIFEST_INVALID")),
        ("schema 1", "application/vnd.docker.distribution.manifest.v1+json", good.clone(), (400, "MANIFEST_INVALID")),
        (
            "artifact manifest",
            "application/vnd.oci.artifact.manifest.v1+json",
            {
                json!({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "x/y", "blobs": []})
            },
            (400, "MANIFEST_INVALID"),
        ),
        (
            "a digest that leads out",
            media_type::OCI_MANIFEST,
            {
                json!({"schemaVersion": 2, "config": {"mediaType": "x/y", "digest": "sha256:../../lock", "size": 0}, "layers": []})
            },
            (400, "MANIFEST_INVALID"),
        ),
        (
            "a subject without form",
            media_type::OCI_MANIFEST,
            { json!({"schemaVersion": 2, "config": empty, "layers": [], "subject": {"digest": "x"}}) },
            (400, "MANIFEST_INVALID"),
        ),
    ] {
        for reference in ["2".to_owned(), Digest::sha256_of(body.to_string().as_bytes()).to_string()] {
            let url = server.url(&format!("/v2/a/manifests/{reference}"));
            let request = http().put(url).header("content-type", kind).body(body.to_string());
            let (status, code) = code_of(request.send().await.unwrap()).await;
            assert_eq!((status, code.as_str()), expected, "{what}");
        }
    }
    let other = Digest::sha256_of(b"other");
    let url = server.url(&format!("/v2/a/manifests/{other}?tag=2"));
    let mismatch = http().put(url).header("content-type", media_type::OCI_MANIFEST).body(good.to_string());
    assert_eq!(code_of(mismatch.send().await.unwrap()).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(files(server.root()), before);
}

#[tokio::test]
async fn a_manifest_of_100_megabytes_is_not_read_whole() {
    let server = Server::start().await;
    let before = files(server.root());
    let url = server.url("/v2/a/manifests/1");
    let announced = raw(&server, "PUT /v2/a/manifests/1 HTTP/1.1\r\ncontent-length: 104857600", b"{", true).await;
    assert!(announced.starts_with("HTTP/1.1 413") && announced.contains("SIZE_INVALID"), "{announced}");

    let given = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&given);
    let pieces = futures::stream::iter((0..100).map(move |_| {
        counted.fetch_add(1 << 20, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1 << 20]))
    }));
    let streamed = http().put(url).header("content-type", media_type::OCI_MANIFEST);
    // The client may be cut off before it has read why.
    if let Ok(response) = streamed.body(reqwest::Body::wrap_stream(pieces)).send().await {
        assert_eq!(code_of(response).await, (413, "SIZE_INVALID".to_owned()));
    }
    // The manifest's limit, what is read of a refused body, and what sockets hold.
    assert!(given.load(Ordering::SeqCst) < 40 << 20, "{}", given.load(Ordering::SeqCst));
    assert_eq!(files(server.root()), before);
}

#[tokio::test]
async fn blobs_in_one_request() {
    let server = Server::start().await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let before = files(server.root());
    let promised = Digest::sha256_of(b"promised");
    let post = |length: &str| format!("POST /v2/a/blobs/uploads/?digest={promised} HTTP/1.1\r\n{length}");
    for (what, head, body, expected) in [
        ("other content", post("content-length: 9"), &b"delivered"[..], "400 DIGEST_INVALID"),
        ("shorter than the body", post("content-length: 4"), b"promised", "400 DIGEST_INVALID"),
        ("no length that is one", post("content-length: x"), b"promised", "400 "),
        ("two lengths", post("content-length: 8\r\ncontent-length: 9"), b"promised", "400 "),
        ("nothing", post("content-length: 0"), b"", "400 DIGEST_INVALID"),
        ("larger than a blob", post("content-length: 99999999999999"), b"promised", "413 SIZE_INVALID"),
    ] {
        let answer = raw(&server, &head, body, what == "larger than a blob").await;
        let (status, code) = expected.split_once(' ').unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{what}: {answer}");
        assert_eq!(files(server.root()), before, "{what}");
    }
    // Cut off: there is nobody to answer.
    for (head, body) in [
        (post("content-length: 100"), &b"promised"[..]),
        (post("transfer-encoding: chunked"), b"8\r\npromised\r\n"),
        (post("transfer-encoding: chunked"), b"fffffffffffffffff\r\npromised"),
    ] {
        let answer = raw(&server, &head, body, true).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        while files(server.root()) != before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    for digest in ["sha256:..%2F..%2Flock", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256", &"a".repeat(64)] {
        for (method, path) in [
            ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=b")),
            ("GET", format!("/v2/a/blobs/{digest}")),
            ("DELETE", format!("/v2/a/blobs/{digest}")),
        ] {
            let response = http().request(method.parse().unwrap(), server.url(&path)).body("x").send().await.unwrap();
            assert_eq!(code_of(response).await, (400, "DIGEST_INVALID".to_owned()), "{method} {path}");
        }
    }
    for (path, code) in [
        (format!("/v2/b/blobs/{}", layer.digest), "BLOB_UNKNOWN"),
        (format!("/v2/a/blobs/{promised}"), "BLOB_UNKNOWN"),
        (format!("/v2/a/manifests/{promised}"), "MANIFEST_UNKNOWN"),
        ("/v2/nobody/manifests/1".to_owned(), "MANIFEST_UNKNOWN"),
    ] {
        let response = http().delete(server.url(&path)).send().await.unwrap();
        assert_eq!(code_of(response).await, (404, code.to_owned()), "{path}");
    }
    assert_eq!(files(server.root()), before);
}

#[tokio::test]
async fn a_blob_that_was_damaged_on_the_disk_shows_in_its_digest() {
    let server = Server::start().await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    std::fs::write(server.blob_path(&layer.digest), b"lawyer").unwrap();
    let response = http().get(server.url(&format!("/v2/a/blobs/{}", layer.digest))).send().await.unwrap();
    assert_eq!(response.headers()["docker-content-digest"], layer.digest.to_string());
    assert_ne!(Digest::sha256_of(&response.bytes().await.unwrap()), layer.digest);
    // A manifest that names it no longer fits, and a new upload heals it.
    let manifest = json!({"schemaVersion": 2, "config": Descriptor::empty(), "layers": [layer]}).to_string();
    let put = async || {
        let url = server.url("/v2/a/manifests/2");
        http().put(url).header("content-type", media_type::OCI_MANIFEST).body(manifest.clone()).send().await.unwrap()
    };
    assert_eq!(code_of(put().await).await, (400, "MANIFEST_INVALID".to_owned()));
    let whole = http().post(server.url(&format!("/v2/a/blobs/uploads/?digest={}", layer.digest))).body("layer");
    assert_eq!(whole.send().await.unwrap().status(), 201);
    assert_eq!(put().await.status(), 201);
}
