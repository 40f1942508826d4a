//! Answers that no Firecracker gives today.

use firecracker::{Client, Error, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// A server that gives every connection one answer.
async fn served(status: &str, body: &str) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (directory, Client::new(socket, Options::default()))
}

#[tokio::test]
async fn unknown_fields_are_passed_over() {
    let body = r#"{"id":"a","state":"Paused","vmm_version":"9.0.0","app_name":"Firecracker","mood":["good"]}"#;
    let (_directory, client) = served("200", body).await;
    assert_eq!(client.info().await.unwrap().state, firecracker::State::Paused);
    // Each answer was followed by the end of its connection.
    assert_eq!(client.info().await.unwrap().id, "a");
}

#[tokio::test]
async fn an_unknown_state_is_named() {
    let (_directory, client) = served("200", r#"{"id":"a","state":"Dreaming","vmm_version":"9.0.0"}"#).await;
    let error = client.info().await.unwrap_err().to_string();
    assert_eq!(error, "cannot ask for the state: / answered something unknown: state \"Dreaming\"");
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    for (status, body) in [("200", "[]"), ("200", ""), ("500", "{}"), ("301", "")] {
        let (_directory, client) = served(status, body).await;
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{status} {body}: {error:?}");
    }
}
