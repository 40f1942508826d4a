//! What goes on: events and consoles that are followed.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::api_fixture::Bench;

const PATIENCE: Duration = Duration::from_secs(20);

/// A body that is still coming.
struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    fn new(body: Body) -> Self {
        Self { body, text: String::new() }
    }

    /// Reads until the text holds this.
    async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.more().await, "it ended without {wanted:?}: {}", self.text);
        }
    }

    async fn end(mut self) -> String {
        while self.more().await {}
        self.text
    }

    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
        let Some(frame) = frame.unwrap_or_else(|_| panic!("nothing more came after {}", self.text)) else {
            return false;
        };
        if let Some(data) = frame.unwrap().data_ref() {
            self.text.push_str(&String::from_utf8_lossy(data));
        }
        true
    }
}

async fn follow(bench: &Bench, path: &str, token: &str, headers: &[(&str, &str)]) -> Stream {
    let mut ask = bench.get(path).token(token);
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    let response = ask.open(Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    Stream::new(response.into_body())
}

const SSE: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test]
async fn events_go_on_after_the_last_one_that_was_seen() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let mut stream = follow(&bench, "/v1/vms/ud-1/events", &bench.customer, &[SSE]).await;
    stream.until("id: 1\n").await;
    bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await;
    stream.until("\"state\":\"RUNNING\"").await;
    assert!(stream.text.contains("event: event\n"), "{}", stream.text);
    let seen = stream.text.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
    drop(stream);

    bench.post("/v1/vms/ud-1/pause").token(&bench.customer).send().await;
    let mut again = follow(&bench, "/v1/vms/ud-1/events", &bench.customer, &[SSE, ("last-event-id", &seen)]).await;
    again.until("\"state\":\"PAUSED\"").await;
    assert!(!again.text.contains(&format!("id: {seen}\n")), "{}", again.text);
    bench.ask("DELETE", "/v1/vms/ud-1").token(&bench.customer).send().await.is(StatusCode::NO_CONTENT);
    let text = again.end().await;
    assert!(text.contains("\"kind\":\"deleted\""), "{text}");

    // What happened can still be read by whom it belonged to, and by nobody else.
    let list = bench.get("/v1/vms/ud-1/events").token(&bench.customer).send().await;
    assert!(list.is(StatusCode::OK).text.contains("\"deleted\""));
    bench.get("/v1/vms/ud-1/events").token(&bench.foreign).send().await.is(StatusCode::NOT_FOUND);

    let wrong = bench.get("/v1/events").token(&bench.customer).header(SSE.0, SSE.1).header("last-event-id", "x");
    wrong.send().await.is(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_stream_of_all_events_ends_with_the_daemon() {
    let bench = Bench::start().await;
    let mut stream = follow(&bench, "/v1/events", &bench.operator, &[SSE]).await;
    bench.vm("ud-1").await;
    stream.until("\"vm_id\":\"ud-1\"").await;
    bench.shutdown.cancel();
    stream.end().await;
}

#[tokio::test]
async fn events_are_a_list_unless_a_stream_is_asked_for() {
    let bench = Bench::start().await;
    for id in ["ud-1", "ud-2", "ud-3"] {
        bench.vm(id).await;
    }
    let list = async |path: &str| -> Value { bench.get(path).token(&bench.customer).send().await.value() };
    let all = list("/v1/events").await;
    insta::assert_json_snapshot!("event", all["events"][0]);
    assert_eq!((all["events"].as_array().unwrap().len(), &all["next_after"]), (3, &3.into()));
    let page = list("/v1/events?after=1&limit=1").await;
    assert_eq!((page["events"][0]["id"].as_i64(), page["next_after"].as_i64()), (Some(2), Some(2)));
    assert_eq!(list("/v1/events?after=3").await["next_after"], 3);
    assert_eq!(list("/v1/vms/ud-2/events").await["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_console_is_read_from_its_end_and_followed_over_its_rotation() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let path = bench.api.service.console_path(&"ud-1".parse().unwrap());
    let logs = async |query: &str| {
        let path = format!("/v1/vms/ud-1/logs{query}");
        bench.get(&path).token(&bench.customer).send().await.text
    };
    assert_eq!(logs("").await, "");
    std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
    assert_eq!(logs("?tail=2").await, "two\nthree\n");
    assert_eq!(logs("?tail=all").await, "one\ntwo\nthree\n");
    assert_eq!(logs("?tail=0").await, "");
    let wrong = bench.get("/v1/vms/ud-1/logs?tail=few").token(&bench.customer).send().await;
    wrong.is(StatusCode::BAD_REQUEST);

    let mut stream = follow(&bench, "/v1/vms/ud-1/logs?tail=1&follow=true", &bench.customer, &[]).await;
    stream.until("three\n").await;
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    append("four\n");
    stream.until("four\n").await;
    append("five\n");
    let mut earlier = path.clone().into_os_string();
    earlier.push(".1");
    std::fs::rename(&path, earlier).unwrap();
    append("six\n");
    stream.until("six\n").await;
    append("seven\n");
    stream.until("seven\n").await;
    assert_eq!(stream.text, "three\nfour\nfive\nsix\nseven\n");
    assert_eq!(logs("?tail=3").await, "five\nsix\nseven\n");

    bench.ask("DELETE", "/v1/vms/ud-1").token(&bench.customer).send().await.is(StatusCode::NO_CONTENT);
    stream.end().await;
}

#[tokio::test]
async fn a_guest_is_told_what_was_typed() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let type_in =
        async |bytes: &'static [u8]| bench.post("/v1/vms/ud-1/console").token(&bench.customer).body(bytes).await;
    assert_eq!(type_in(b"x").await.code(), "vm_wrong_state");
    bench.post("/v1/vms/ud-1/boot").token(&bench.customer).send().await;
    type_in(b"root\n").await.is(StatusCode::NO_CONTENT);
    type_in(b"\x03\xff").await.is(StatusCode::NO_CONTENT);
    assert_eq!(bench.host.calls().iter().filter(|call| *call == "type ud-1").count(), 2);
    let audit = std::fs::read_to_string(bench.directory.path().join(vm::audit::FILE)).unwrap();
    assert!(audit.contains("vm.console") && !audit.contains("root"), "what was typed is nobody's business");
}

#[tokio::test]
async fn who_is_not_let_in_any_more_hears_no_more() {
    let bench = Bench::start().await;
    bench.vm("ud-1").await;
    let body = serde_json::json!({"name": "ci", "role": "customer", "customer_id": "acme"});
    let made = bench.post("/v1/tokens").token(&bench.operator).json(&body).await.value();
    let token = made["token"].as_str().unwrap();
    let mut events = follow(&bench, "/v1/events", token, &[SSE]).await;
    let console = follow(&bench, "/v1/vms/ud-1/logs?follow=true", token, &[]).await;
    events.until("create is done").await;
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    bench.ask("DELETE", &path).token(&bench.operator).send().await.is(StatusCode::NO_CONTENT);
    events.end().await;
    console.end().await;
}
