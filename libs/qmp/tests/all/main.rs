//! The client against a listener that plays QEMU's part line by line.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

use std::time::Duration;

use qmp::{Client, Error};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;

/// Long enough for a machine with other work.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends each text after a line has come, the first one at once; then hangs up.
fn play(directory: &TempDir, texts: &[&str]) -> std::path::PathBuf {
    let socket = directory.path().join("qmp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let texts: Vec<String> = texts.iter().map(|text| format!("{text}\n")).collect();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                stream.read_line(&mut String::new()).await.unwrap();
            }
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        stream.read_line(&mut String::new()).await.unwrap();
    });
    socket
}

#[tokio::test]
async fn events_do_not_stand_in_the_way_of_answers() {
    let directory = tempfile::tempdir().unwrap();
    let answer = "{\"event\": \"STOP\"}\n{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n\
                  {\"return\": {\"status\": \"paused\"}, \"id\": 2}";
    let socket = play(&directory, &[GREETING, r#"{"return": {}, "id": 1}"#, answer]);
    let mut client = Client::connect(&socket, PATIENCE).await.unwrap();
    assert_eq!(client.version(), "7.2.22");
    assert_eq!(client.execute("query-status", None).await.unwrap(), json!({"status": "paused"}));
    let names: Vec<String> = client.take_events().into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["STOP", "SHUTDOWN"]);
    assert_eq!(client.take_events(), []);
    assert!(matches!(client.execute("quit", None).await, Err(Error::HungUp { .. })));
}

#[tokio::test]
async fn a_refusal_is_an_error_and_the_connection_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}, "id": 2}"#;
    let socket = play(&directory, &[GREETING, r#"{"return": {}, "id": 1}"#, refusal, r#"{"return": 5, "id": 3}"#]);
    let mut client = Client::connect(&socket, PATIENCE).await.unwrap();
    let error = client.execute("dance", Some(json!({"how": "well"}))).await.unwrap_err();
    assert_eq!(error.to_string(), "dance: no such command (CommandNotFound)");
    assert_eq!(client.execute("count", None).await.unwrap(), json!(5));
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.sock");
    assert!(matches!(Client::connect(&missing, PATIENCE).await, Err(Error::Connect { .. })));
    let socket = play(&directory, &["SSH-2.0-OpenSSH"]);
    assert!(matches!(Client::connect(&socket, PATIENCE).await, Err(Error::Message { .. })));
    let other = tempfile::tempdir().unwrap();
    let socket = play(&other, &[r#"{"return": {}}"#]);
    assert!(matches!(Client::connect(&socket, PATIENCE).await, Err(Error::Order { .. })));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let late = Client::connect(&socket, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::Late { .. })), "{late:?}");
}

#[tokio::test]
async fn a_long_path_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("a".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let socket = play(&directory, &[GREETING, r#"{"return": {}, "id": 1}"#]);
    std::fs::rename(socket, deep.join("qmp.sock")).unwrap();
    assert!(Client::connect(&deep.join("qmp.sock"), PATIENCE).await.is_ok());
}
