use std::num::NonZeroU32;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use web::{BasicAuth, Credentials, Proof, RateLimiter, User};

use crate::wire::{framed, get as fetch, send};

fn limiter(burst: u32) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(NonZeroU32::new(10).unwrap(), NonZeroU32::new(burst).unwrap()))
}

fn authorization(pair: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[tokio::test]
async fn a_guarded_route_asks_who_it_is_and_counts_what_is_wrong() {
    let served = framed(|registry| {
        let failures = registry.counter("login_auth_failures_total", "Logins that failed");
        let credentials = Credentials { user: "admin".into(), proof: Proof::Plain("correct".into()) };
        let auth = BasicAuth::new("shoal-provisioner", vec![credentials])
            .unwrap()
            .on_failure(move || {
                failures.inc();
            })
            .limit_failures(limiter(2));
        let guarded = Router::new().route("/whoami", get(|Extension(User(user)): Extension<User>| async move { user }));
        Arc::new(auth).protect(guarded).route("/open", get(|| async { "open" }))
    })
    .await;
    let ask = async |pair: &str| {
        let value = authorization(pair);
        send(served.address, "GET /whoami", &[("Authorization", &value)], "").await
    };
    let answer = fetch(served.address, "/whoami").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"shoal-provisioner\", charset=\"UTF-8\""));
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap(), @r###"
    {
      "type": "/errors/unauthorized",
      "title": "Unauthorized",
      "status": 401,
      "detail": "credentials are needed",
      "code": "unauthorized",
      "error": "unauthorized",
      "message": "credentials are needed",
      "details": []
    }
    "###);
    assert_eq!(fetch(served.address, "/open").await.status, 200);
    assert_eq!(fetch(served.address, "/no/such").await.status, 404);
    assert_eq!(ask("admin:correct").await.body, "admin");
    assert_eq!(ask("admin:wrong").await.status, 401);
    assert_eq!(ask("admin:wrong").await.status, 401);
    let limited = ask("admin:wrong").await;
    assert_eq!((limited.status, limited.json()["code"].as_str()), (429, Some("rate_limit_exceeded")));
    assert_eq!(ask("admin:correct").await.status, 200, "who was let in before is not locked out");
    let scrape = fetch(served.address, "/metrics").await;
    assert!(scrape.body.contains("login_auth_failures_total 2\n"), "{}", scrape.body);
}

#[tokio::test]
async fn posts_are_limited_and_reads_are_not() {
    let served = framed(|_| {
        let routes = Router::new().route("/jobs", post(|| async { "made" }).get(|| async { "list" }));
        web::limit_posts(&limiter(5), routes)
    })
    .await;
    for _ in 0..5 {
        assert_eq!(send(served.address, "POST /jobs", &[], "").await.status, 200);
    }
    let answer = send(served.address, "POST /jobs", &[], "").await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap(), @r###"
    {
      "type": "/errors/rate_limit_exceeded",
      "title": "Too Many Requests",
      "status": 429,
      "detail": "too many requests from this address",
      "hint": "wait as long as Retry-After says",
      "code": "rate_limit_exceeded",
      "error": "rate_limit_exceeded",
      "message": "too many requests from this address",
      "details": []
    }
    "###);
    assert_eq!(fetch(served.address, "/jobs").await.status, 200);
}
