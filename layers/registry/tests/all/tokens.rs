//! The token flow, as clients go through it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_core::FixedClock;
use jiff::SignedDuration;
use reqwest::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::fixture::{Server, Setup, http, push_image, try_push};

const PATH: &str = "/api/v1/registry/token";

fn setup() -> Setup {
    let setup = Setup::default().users(&["alice", "bob"]).set("REGISTRY_AUTH_MODE", "token");
    setup.set("REGISTRY_PUSH_ALLOW", "alice=tools")
}

async fn challenge(server: &Server, login: &str, method: &str, path: &str) -> String {
    let (status, response) = server.ask(login, method, path).await;
    assert_eq!(status, 401);
    response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
}

async fn token(server: &Server, login: &str, query: &str) -> (u16, Value) {
    let (status, response) = server.ask(login, "GET", &format!("{PATH}?{query}")).await;
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn a_challenge_leads_to_a_token_that_opens_one_repository() {
    let server = setup().start().await;
    let realm = server.url(PATH);
    assert_eq!(
        challenge(&server, "", "GET", "/v2/").await,
        format!("Bearer realm=\"{realm}\",service=\"cairn-registry\"")
    );
    assert_eq!(
        challenge(&server, "", "POST", "/v2/tools/x/blobs/uploads/").await,
        format!("Bearer realm=\"{realm}\",service=\"cairn-registry\",scope=\"repository:tools/x:pull,push\"")
    );
    let query = "service=cairn-registry&account=alice&offline_token=true\
                 &scope=repository:tools/x:pull,push&scope=repository:other:pull,push";
    let (status, answer) = token(&server, "alice:ecila", query).await;
    assert_eq!(status, 200);
    assert_eq!(answer["token"], answer["access_token"]);
    assert_eq!(answer["expires_in"], 300);
    assert_eq!(answer["scope"], "repository:tools/x:pull,push repository:other:pull");
    assert!(answer["issued_at"].as_str().unwrap().ends_with('Z') && answer.get("refresh_token").is_none());
    let bearer = answer["token"].as_str().unwrap();
    assert_eq!(server.ask(bearer, "POST", "/v2/tools/x/blobs/uploads/").await.0, 202);
    assert_eq!(server.ask(bearer, "GET", "/v2/other/tags/list").await.0, 404);
    assert_eq!(server.ask(bearer, "POST", "/v2/other/blobs/uploads/").await.0, 403);
    let insufficient = challenge(&server, bearer, "GET", "/v2/tools/y/tags/list").await;
    assert!(
        insufficient.ends_with(",scope=\"repository:tools/y:pull\",error=\"insufficient_scope\""),
        "{insufficient}"
    );
}

#[tokio::test]
async fn what_is_not_a_good_token_is_refused_with_its_error() {
    let server = setup().start().await;
    let (_, answer) = token(&server, "alice:ecila", "scope=repository:tools/x:pull").await;
    let good = answer["token"].as_str().unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let payload = signed.split_once('.').unwrap().1;
    let other_key = store::InstanceKey::from_bytes([8; 32]);
    assert_ne!(other_key.derive("registry tokens"), store::InstanceKey::from_bytes([7; 32]).derive("registry tokens"));
    for bad in [
        format!("{signed}.{}", signature.chars().rev().collect::<String>()),
        format!("{none}.{payload}."),
        format!("{signed}."),
        "x".to_owned(),
    ] {
        let challenge = challenge(&server, &bad, "GET", "/v2/tools/x/tags/list").await;
        assert!(challenge.ends_with("error=\"invalid_token\""), "{bad}: {challenge}");
    }
    // A token is no password: it gets no other token.
    assert_eq!(token(&server, good, "scope=repository:tools/x:pull").await.0, 401);
}

#[tokio::test]
async fn wrong_logins_get_nothing_and_nobody_gets_only_what_everybody_may() {
    let server = setup().start().await;
    let (status, answer) = token(&server, "alice:no", "scope=repository:tools/x:pull").await;
    assert_eq!((status, answer["errors"][0]["code"].as_str()), (401, Some("UNAUTHORIZED")));
    assert_eq!(token(&server, "", "scope=repository:tools/x:pull").await.0, 401);
    assert_eq!(token(&server, "alice:ecila", "service=elsewhere").await.0, 400);
    let large = serde_json::json!("x".repeat(3 << 20));
    let (status, answer) = server.order("", "POST", "/api/v1/registry/token", large).await;
    assert_eq!((status, answer["error"].as_str()), (413, Some("invalid_request")), "{answer}");

    let open = setup().set("REGISTRY_ALLOW_ANON", "true").start().await;
    let (status, answer) = token(&open, "", "scope=repository:tools/x:pull,push").await;
    assert_eq!((status, answer["scope"].as_str()), (200, Some("repository:tools/x:pull")));
    let nobody = answer["token"].as_str().unwrap();
    assert_eq!(open.ask(nobody, "GET", "/v2/").await.0, 200);
    assert_eq!(open.ask(nobody, "GET", "/v2/tools/x/tags/list").await.0, 404);
    assert_eq!(open.ask(nobody, "POST", "/v2/tools/x/blobs/uploads/").await.0, 401);

    let basic = Setup::default().users(&["alice"]).start().await;
    assert_eq!(token(&basic, "alice:ecila", "").await.0, 404);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let server = setup().start().await;
    let mut statuses = Vec::new();
    // The limit fills up again meanwhile, one a second: a slow machine needs more of them.
    for _ in 0..400 {
        let (status, response) = server.ask("alice:no", "GET", PATH).await;
        statuses.push(status);
        if status == 429 {
            assert!(response.headers().contains_key("retry-after"));
            break;
        }
    }
    assert!(statuses.first() == Some(&401) && statuses.last() == Some(&429), "{statuses:?}");
}

#[tokio::test]
async fn the_oauth_form_is_taken_too() {
    let server = setup().start().await;
    let post = |form: &'static str| {
        let request = http().post(server.url(PATH)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        }
    };
    let form = "grant_type=password&service=cairn-registry&client_id=x&username=alice&password=ecila\
                &scope=repository:tools/x:pull,push";
    let (status, answer) = post(form).await;
    assert_eq!((status, answer["scope"].as_str()), (200, Some("repository:tools/x:pull,push")));
    assert_eq!(post("grant_type=password&username=alice&password=no").await.0, 401);
    assert_eq!(post("grant_type=refresh_token&refresh_token=x").await.1["error"], json!("unsupported_grant_type"));
    assert_eq!(post("").await.0, 400);
}

#[tokio::test]
async fn the_library_s_client_goes_through_it() {
    let server = setup().start().await;
    let pushed = push_image(&server.client(Some(("alice", "ecila"))), "tools/x", "1", b"layer").await;
    let repository = crate::fixture::name("tools/x");
    let bob = server.client(Some(("bob", "bob")));
    assert_eq!(bob.resolve(&repository, &crate::fixture::tag("1")).await.unwrap().digest, pushed.digest);
    assert_eq!(try_push(&bob, "tools/x", "2", b"other").await.unwrap_err().status(), Some(403));
    let nobody = server.client(None).resolve(&repository, &crate::fixture::tag("1")).await;
    assert_eq!(nobody.unwrap_err().status(), Some(401));

    // A job may pull its artifact with its own token for a password.
    push_image(&server.client(Some(("alice", "ecila"))), "tools/y", "1", b"layer").await;
    let job = server.client(Some(("job-1", "ticket")));
    let missing = job.resolve(&crate::fixture::name("os-images/debian"), &crate::fixture::tag("1")).await;
    assert_eq!(missing.unwrap_err().status(), Some(404));
    assert_eq!(job.resolve(&repository, &crate::fixture::tag("1")).await.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn an_expired_token_is_refused_and_clients_get_another() {
    let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let server = setup().clock(&clock).start().await;
    let client = server.client(Some(("alice", "ecila")));
    push_image(&client, "tools/x", "1", b"layer").await;
    let (_, answer) = token(&server, "alice:ecila", "scope=repository:tools/x:pull").await;
    let bearer = answer["token"].as_str().unwrap();
    assert_eq!(server.ask(bearer, "GET", "/v2/tools/x/tags/list").await.0, 200);
    clock.advance(SignedDuration::from_secs(300));
    let challenge = challenge(&server, bearer, "GET", "/v2/tools/x/tags/list").await;
    assert!(challenge.ends_with(",scope=\"repository:tools/x:pull\",error=\"invalid_token\""), "{challenge}");
    assert!(client.resolve(&crate::fixture::name("tools/x"), &crate::fixture::tag("1")).await.is_ok());
    push_image(&client, "tools/x", "2", b"another layer").await;
}

#[tokio::test]
async fn a_token_for_the_list_shows_the_list_and_opens_nothing_on_it() {
    let server = setup().set("REGISTRY_CATALOG", "true").start().await;
    push_image(&server.client(Some(("alice", "ecila"))), "tools/x", "1", b"layer").await;
    let (_, answer) = token(&server, "bob:bob", "scope=registry:catalog:*").await;
    let bearer = answer["token"].as_str().unwrap();
    assert_eq!(server.read(bearer, "/v2/_catalog").await["repositories"], json!(["tools/x"]));
    assert_eq!(server.ask(bearer, "GET", "/v2/tools/x/tags/list").await.0, 401);
    let (_, answer) = token(&server, "bob:bob", "scope=repository:tools/x:pull").await;
    assert_eq!(server.ask(answer["token"].as_str().unwrap(), "GET", "/v2/_catalog").await.0, 401);
}
