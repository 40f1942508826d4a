//! `GET` and `HEAD` of blobs, with ranges and conditions.

use oci_registry::Digest;
use oci_registry::server::Route;

use crate::fixture::{Server, code_of, http, name, noise, push_image};

const REPOSITORY: &str = "os-images/debian/13";

async fn with_blob(length: usize) -> (Server, String, Vec<u8>) {
    let server = Server::start().await;
    let layer = noise(1, length);
    let (_, descriptor) = push_image(&server.client(), &name(REPOSITORY), "latest", &layer).await;
    let url = server.url(&format!("/v2/{REPOSITORY}/blobs/{}", descriptor.digest));
    (server, url, layer)
}

#[tokio::test]
async fn a_range_gives_exactly_those_bytes() {
    let (_server, url, layer) = with_blob(3_000_000).await;
    let last = layer.len() - 1;
    for (range, first, end) in [
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=0-99".to_owned(), 0, 99),
        ("bytes=1000000-2000000".to_owned(), 1_000_000, 2_000_000),
        ("bytes=2999999-".to_owned(), last, last),
        ("bytes=1-99999999".to_owned(), 1, last),
        ("bytes=-10".to_owned(), last - 9, last),
        ("bytes=-99999999".to_owned(), 0, last),
    ] {
        let response = http().get(&url).header("range", &range).send().await.unwrap();
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(response.headers()["content-range"], format!("bytes {first}-{end}/{}", layer.len()), "{range}");
        assert_eq!(response.content_length(), Some((end - first + 1) as u64), "{range}");
        assert!(response.bytes().await.unwrap()[..] == layer[first..=end], "{range}");
    }
}

#[tokio::test]
async fn a_range_outside_is_refused_and_nonsense_is_ignored() {
    let (_server, url, layer) = with_blob(10).await;
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=5-3"] {
        let response = http().get(&url).header("range", range).send().await.unwrap();
        assert_eq!(response.headers()["content-range"], "bytes */10", "{range}");
        assert_eq!(code_of(response).await, (416, "SIZE_INVALID".to_owned()), "{range}");
    }
    for range in ["bytes=0-1,3-4", "lines=0-1", "bytes=x-"] {
        let response = http().get(&url).header("range", range).send().await.unwrap();
        assert_eq!(response.status(), 200, "{range}");
        assert_eq!(response.bytes().await.unwrap()[..], layer, "{range}");
    }
}

#[tokio::test]
async fn head_and_conditions() {
    let (server, url, layer) = with_blob(1000).await;
    let digest = Digest::sha256_of(&layer);
    let head = http().head(&url).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "1000");
    assert_eq!(head.headers()["docker-content-digest"], digest.to_string());
    assert_eq!(head.headers()["etag"], format!("\"{digest}\""));
    assert_eq!(head.headers()["accept-ranges"], "bytes");
    assert_eq!(head.headers()["docker-distribution-api-version"], "registry/2.0");

    let etag = format!("\"{digest}\"");
    let known = http().get(&url).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((known.status().as_u16(), known.bytes().await.unwrap().len()), (304, 0));
    let same = http().get(&url).header("if-range", &etag).header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!(same.status(), 206);
    let other = http().get(&url).header("if-range", "\"other\"").header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!(other.status(), 200);

    let unknown = Digest::sha256_of(b"nobody pushed this");
    let missing = http().get(server.url(&format!("/v2/{REPOSITORY}/blobs/{unknown}"))).send().await.unwrap();
    assert_eq!(code_of(missing).await, (404, "BLOB_UNKNOWN".to_owned()));
    let requests = server.heard.requests.lock().unwrap().clone();
    for expected in [
        (Route::Blob, 200),
        (Route::Blob, 206),
        (Route::Blob, 304),
        (Route::Blob, 404),
        (Route::Uploads, 201),
        (Route::Manifest, 201),
    ] {
        assert!(requests.contains(&expected), "{expected:?} in {requests:?}");
    }
}

#[tokio::test]
async fn a_blob_is_read_only_through_a_repository_that_holds_it() {
    let (server, url, layer) = with_blob(1000).await;
    let digest = Digest::sha256_of(&layer);
    push_image(&server.client(), &name("other"), "latest", b"something else").await;
    for repository in ["other", "os-images/debian", "os-images/debian/13/deeper", "nobody"] {
        let response = http().get(server.url(&format!("/v2/{repository}/blobs/{digest}"))).send().await.unwrap();
        assert_eq!(code_of(response).await, (404, "BLOB_UNKNOWN".to_owned()), "{repository}");
    }
    assert_eq!(http().get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn names_of_storage_and_of_endpoints_are_names_like_others() {
    let server = Server::start().await;
    let client = server.client();
    for repository in ["a", "a/refs", "a/blobs", "a/blobs/uploads", "a/manifests", "a/tags/list", "v2"] {
        let (manifest, layer) = push_image(&client, &name(repository), "latest", repository.as_bytes()).await;
        assert_eq!(
            client.resolve(&name(repository), &manifest.digest.clone().into()).await.unwrap(),
            manifest,
            "{repository}"
        );
        assert!(client.has_blob(&name(repository), &layer.digest).await.unwrap(), "{repository}");
        let tags = http().get(server.url(&format!("/v2/{repository}/tags/list"))).send().await.unwrap();
        assert_eq!(tags.status(), 200, "{repository}");
    }
    let names: Vec<String> = server.registry.repositories().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "a/blobs", "a/blobs/uploads", "a/manifests", "a/refs", "a/tags/list", "v2"]);
}
