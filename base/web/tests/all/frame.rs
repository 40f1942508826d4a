use axum::Router;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use web::{ClientIp, Json, Query, body_limit};

use crate::wire::{Served, framed, get as fetch, log_of, send};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    server_serial: String,
    recipe: Value,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

async fn started() -> Served {
    framed(|_| {
        Router::new()
            .route("/jobs", post(|Json(job): Json<NewJob>| async move { Json(job) }).layer(body_limit(100)))
            .route("/jobs", get(|Query(page): Query<Page>| async move { page.limit.to_string() }))
            .route("/jobs/{id}", get(|ClientIp(client): ClientIp| async move { client.to_string() }))
            .route("/panic", get(|| async { panic!("token=hunter2 in a handler") as &'static str }))
    })
    .await
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let served = started().await;
    let answer = fetch(served.address, "/no/such?sig=hunter2").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")));
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap(), @r###"
    {
      "type": "/errors/not_found",
      "title": "Not Found",
      "status": 404,
      "detail": "there is nothing at /no/such",
      "code": "not_found",
      "error": "not_found",
      "message": "there is nothing at /no/such",
      "details": []
    }
    "###);
    let answer = send(served.address, "DELETE /jobs", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST,GET,HEAD")));
    assert_eq!(answer.json()["code"], "method_not_allowed");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let served = started().await;
    for path in ["/jobs/1", "/no/such", "/panic", "/metrics"] {
        let answer = fetch(served.address, path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_body_says_what_is_wrong() {
    let served = started().await;
    for (headers, body, status, code) in [
        (&[JSON][..], "{", 400, "invalid_json"),
        (&[JSON][..], "{\"server_serial\":1,\"recipe\":{}}", 400, "invalid_request"),
        (&[][..], "{}", 415, "unsupported_media_type"),
        (&[JSON][..], &format!("{{\"server_serial\":\"{}\"}}", "x".repeat(200)), 413, "body_too_large"),
    ] {
        let answer = send(served.address, "POST /jobs", headers, body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(code)), "{body}");
    }
    let answer = send(served.address, "POST /jobs", &[JSON], "{\"server_serial\":1,\"recipe\":{}}").await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap(), @r###"
    {
      "type": "/errors/invalid_request",
      "title": "Bad Request",
      "status": 400,
      "detail": "the request is wrong at /server_serial: invalid type: integer `1`, expected a string",
      "code": "invalid_request",
      "error": "invalid_request",
      "message": "the request is wrong at /server_serial: invalid type: integer `1`, expected a string",
      "details": [
        {
          "path": "/server_serial",
          "field": "server_serial",
          "code": "type",
          "message": "invalid type: integer `1`, expected a string"
        }
      ]
    }
    "###);
    let answer = send(served.address, "POST /jobs", &[JSON], "{\"server_serial\":\"SN-1\",\"recipe\":{}}").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"server_serial": "SN-1", "recipe": {}})));
    let answer = fetch(served.address, "/jobs?limit=many").await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_client_is_its_peer_whatever_it_says() {
    let served = started().await;
    let answer = send(served.address, "GET /jobs/1", &[("X-Forwarded-For", "192.0.2.1")], "").await;
    assert_eq!(answer.body, "127.0.0.1");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_served() {
    let served = started().await;
    let answer = fetch(served.address, "/panic").await;
    assert_eq!((answer.status, &answer.json()["code"]), (500, &json!("server_error")));
    assert!(!answer.body.contains("hunter2"));
    assert_eq!(fetch(served.address, "/jobs/1").await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_code() {
    let served = started().await;
    let scrape = fetch(served.address, "/metrics").await;
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(scrape.body.contains("http_requests_total{route=\"unmatched\",code=\"404\"} 0"), "{}", scrape.body);
    for path in ["/jobs/1", "/jobs/2", "/no/such", "/panic"] {
        fetch(served.address, path).await;
    }
    send(served.address, "PUT /jobs/1", &[], "").await;
    let scrape = fetch(served.address, "/metrics").await;
    for line in [
        "http_requests_total{route=\"/jobs/{id}\",code=\"200\"} 2",
        "http_requests_total{route=\"/jobs/{id}\",code=\"405\"} 1",
        "http_requests_total{route=\"unmatched\",code=\"404\"} 1",
        "http_requests_total{route=\"/panic\",code=\"500\"} 1",
        "http_request_duration_seconds_count{route=\"/jobs/{id}\",code=\"200\"} 2",
    ] {
        assert!(scrape.body.contains(line), "{line} is missing in\n{}", scrape.body);
    }
    let open_metrics = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let scrape = send(served.address, "GET /metrics", &open_metrics, "").await;
    assert!(scrape.body.ends_with("# EOF\n") && scrape.body.contains("# TYPE http_requests counter\n"));
}

#[tokio::test]
async fn a_request_is_one_line_without_its_query() {
    let served = started().await;
    let answer = fetch(served.address, "/jobs/7?limit=1&sig=hunter2").await;
    let lines = log_of(&answer);
    assert_eq!(lines.len(), 1);
    let keys: Vec<&str> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["time", "level", "message", "method", "route", "code", "duration_ms", "request_id", "client"]);
    assert_eq!((&lines[0]["route"], &lines[0]["code"]), (&json!("/jobs/{id}"), &json!(200)));
    assert!(!format!("{lines:?}").contains("hunter2"));

    let scrape = fetch(served.address, "/metrics").await;
    assert_eq!(log_of(&scrape), [] as [Value; 0], "a scrape that works is not worth a line");
}

#[tokio::test]
async fn a_panic_is_a_line_with_its_request() {
    let served = started().await;
    let lines = log_of(&fetch(served.address, "/panic").await);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["message"], &lines[0]["level"]), (&json!("panicked"), &json!("error")));
    assert_eq!(lines[0]["reason"], "token=[redacted] in a handler");
    assert_eq!((&lines[1]["code"], &lines[1]["level"]), (&json!(500), &json!("warn")));
}
