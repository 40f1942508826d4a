//! Paths and methods that are refused.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{Server, code_of, http, name, push_image};

/// Sends the path as it is: an ordinary client would tidy it up first.
async fn raw(server: &Server, method: &str, path: &str) -> (u16, String) {
    let mut connection = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn names_that_lead_out_are_refused() {
    let server = Server::start().await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    std::fs::write(server.root().parent().unwrap().join("outside-of-registry"), "secret").unwrap();
    let digest = layer.digest;
    for path in [
        format!("/v2/../a/blobs/{digest}"),
        format!("/v2/b/../a/blobs/{digest}"),
        format!("/v2/%2e%2e/a/blobs/{digest}"),
        format!("/v2/b%2f..%2fa/blobs/{digest}"),
        format!("/v2/..%2fa/blobs/{digest}"),
        format!("/v2//a/blobs/{digest}"),
        format!("/v2/a//blobs/{digest}"),
        format!("/v2/a/./blobs/{digest}"),
        format!("/v2/A/blobs/{digest}"),
        format!("/v2/a%00/blobs/{digest}"),
        format!("/v2/_uploads/blobs/{digest}"),
        format!("/v2/{}/blobs/{digest}", "a".repeat(256)),
        "/v2/../../outside-of-registry/manifests/1".to_owned(),
        "/v2/a/_refs/manifests/1".to_owned(),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let (status, answer) = raw(&server, method, &path).await;
            assert_eq!(status, 400, "{method} {path}\n{answer}");
            assert!(answer.contains("NAME_INVALID"), "{method} {path}\n{answer}");
        }
    }
    for (path, code) in [
        ("/v2/a/manifests/..", "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/%2e%2e%2f1", "MANIFEST_UNKNOWN"),
        ("/v2/a/blobs/sha256:..", "DIGEST_INVALID"),
        ("/v2/a/blobs/..", "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/..%2f..%2f_refs%2f1", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/_catalog", "UNSUPPORTED"),
        ("/v2/a", "UNSUPPORTED"),
    ] {
        let (status, answer) = raw(&server, "GET", path).await;
        assert!((400..500).contains(&status) && answer.contains(code), "{path}\n{answer}");
    }
    let (status, _) = raw(&server, "POST", "/v2/a/../../../tmp/x/blobs/uploads/").await;
    assert_eq!(status, 400);
    let mut entries: Vec<_> = std::fs::read_dir(server.root().join("repositories"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    entries.sort();
    assert_eq!(entries, ["a"]);
    std::fs::remove_file(server.root().parent().unwrap().join("outside-of-registry")).unwrap();
}

#[tokio::test]
async fn methods_that_an_endpoint_does_not_have() {
    let server = Server::start().await;
    let (_, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    for (method, path) in [
        ("PATCH", format!("/v2/a/blobs/{}", layer.digest)),
        ("DELETE", format!("/v2/a/referrers/{}", layer.digest)),
        ("POST", "/v2/a/manifests/1".to_owned()),
        ("PUT", "/v2/a/tags/list".to_owned()),
        ("GET", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", "/v2/".to_owned()),
    ] {
        let response = http().request(method.parse().unwrap(), server.url(&path)).send().await.unwrap();
        assert!(response.headers().contains_key("allow"), "{method} {path}");
        assert_eq!(code_of(response).await, (405, "UNSUPPORTED".to_owned()), "{method} {path}");
    }
    for path in ["/v2", "/v2/"] {
        let response = http().get(server.url(path)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, "{}"), "{path}");
    }
}
