//! The access hook: who may pull must not push, and nobody sees what is not theirs.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::{Json, Router};
use base64::Engine as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use oci_registry::client::{Client, ClientError, Credentials};
use oci_registry::server::{Access, Action, Asker, Decision};
use oci_registry::{Digest, RepositoryName, Selector, media_type};

use crate::fixture::{Server, code_of, http, name, push_image, tag};

/// `owner` may do everything; `job` may pull from `os/debian` alone.
struct Roles {
    challenge: String,
}

impl Access for Roles {
    fn check<'a>(
        &'a self,
        asker: Asker<'a>,
        repository: Option<&'a RepositoryName>,
        action: Action,
    ) -> BoxFuture<'a, Decision> {
        let encoded = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        let sent = asker.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_owner = sent == encoded("owner:all") || sent == "Bearer owner-token";
        let is_job = sent == encoded("job:token") || sent == "Bearer job-token";
        let decision = match action {
            _ if is_owner => Decision::Allow { user: "owner".to_owned() },
            Action::Ping | Action::Pull if is_job && repository.is_none_or(|name| name.as_str() == "os/debian") => {
                Decision::Allow { user: "job".to_owned() }
            }
            _ if is_job => Decision::Deny,
            _ => Decision::Challenge(self.challenge.clone()),
        };
        Box::pin(async { decision })
    }
}

async fn with_roles() -> Server {
    let challenge = r#"Basic realm="Registry""#.to_owned();
    Server::start_with(Arc::new(Roles { challenge }), Default::default()).await
}

fn client(server: &Server, username: &str, password: &str) -> Client {
    let credentials = Credentials { username: username.to_owned(), password: password.into() };
    Client::new(http(), server.url("").parse().unwrap(), Some(credentials))
}

#[tokio::test]
async fn pull_only_access_cannot_push() {
    let server = with_roles().await;
    let owner = client(&server, "owner", "all");
    let (manifest, layer) = push_image(&owner, &name("os/debian"), "13", b"layer").await;
    push_image(&owner, &name("os/secret"), "1", b"secret layer").await;

    let job = client(&server, "job", "token");
    assert_eq!(job.resolve(&name("os/debian"), &tag("13")).await.unwrap(), manifest);
    assert!(job.has_blob(&name("os/debian"), &layer.digest).await.unwrap());
    let denied = |error: ClientError| assert_eq!(error.status(), Some(403), "{error}");
    denied(job.push_bytes(&name("os/debian"), Bytes::from_static(b"new"), "x/y").await.unwrap_err());
    let (_, bytes) = job.manifest(&name("os/debian"), &tag("13")).await.unwrap();
    denied(job.push_manifest(&name("os/debian"), &tag("14"), media_type::OCI_MANIFEST, bytes).await.unwrap_err());
    denied(job.resolve(&name("os/secret"), &tag("1")).await.unwrap_err());
    let deleted =
        http().delete(server.url("/v2/os/debian/manifests/13")).basic_auth("job", Some("token")).send().await.unwrap();
    assert_eq!(code_of(deleted).await, (403, "DENIED".to_owned()));
    assert_eq!(owner.resolve(&name("os/debian"), &tag("13")).await.unwrap(), manifest);
}

#[tokio::test]
async fn without_or_with_wrong_credentials_there_is_a_challenge() {
    let server = with_roles().await;
    for path in
        ["/v2/", "/v2/os/debian/tags/list", "/v2/os/debian/manifests/13", "/v2/UPPER/manifests/x", "/v2/_catalog"]
    {
        let response = http().get(server.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], r#"Basic realm="Registry""#, "{path}");
        assert_eq!(code_of(response).await, (401, "UNAUTHORIZED".to_owned()), "{path}");
    }
    let wrong = client(&server, "owner", "wrong").resolve(&name("os/debian"), &tag("13")).await.unwrap_err();
    assert_eq!(wrong.status(), Some(401));
    let none = server.client().resolve(&name("os/debian"), &tag("13")).await.unwrap_err();
    assert!(matches!(none, ClientError::Login { .. }), "{none}");
    let shown = format!("{wrong} {wrong:?} {none:?}");
    assert!(!shown.contains("wrong\"") && !shown.contains("b3duZXI6"), "{shown}");
}

#[tokio::test]
async fn a_mount_needs_access_to_where_it_comes_from() {
    /// Everybody may do everything but pull from `secret`.
    struct NotSecret;
    impl Access for NotSecret {
        fn check<'a>(
            &'a self,
            _: Asker<'a>,
            repository: Option<&'a RepositoryName>,
            action: Action,
        ) -> BoxFuture<'a, Decision> {
            let decision = match (repository.map(RepositoryName::as_str), action) {
                (Some("secret"), Action::Pull) => Decision::Deny,
                _ => Decision::Allow { user: "somebody".to_owned() },
            };
            Box::pin(async { decision })
        }
    }
    let server = Server::start_with(Arc::new(NotSecret), Default::default()).await;
    let digest = Digest::sha256_of(b"secret");
    http().post(server.url(&format!("/v2/secret/blobs/uploads/?digest={digest}"))).body("secret").send().await.unwrap();
    for query in [format!("mount={digest}&from=secret"), format!("mount={digest}")] {
        let mount = http().post(server.url(&format!("/v2/mine/blobs/uploads/?{query}"))).send().await.unwrap();
        assert_eq!(mount.status(), 202, "{query}");
        assert_eq!(http().get(server.url(&format!("/v2/mine/blobs/{digest}"))).send().await.unwrap().status(), 404);
    }
    assert_eq!(http().get(server.url(&format!("/v2/secret/blobs/{digest}"))).send().await.unwrap().status(), 403);
    assert_eq!(http().get(server.url("/v2/_catalog")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn tokens_come_from_the_server_that_the_registry_names() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let tokens = Router::new().route(
        "/token",
        axum::routing::get(|headers: HeaderMap, uri: axum::http::Uri| async move {
            let query = uri.query().unwrap_or_default().to_owned();
            assert!(query.starts_with("service=registry.example&scope=repository%3Aos%2Fdebian%3Apull"), "{query}");
            let is_owner = headers.get("authorization").is_some_and(|value| value == "Basic b3duZXI6YWxs");
            Json(serde_json::json!({"token": if is_owner { "owner-token" } else { "job-token" }}))
        }),
    );
    tokio::spawn(async move { axum::serve(listener, tokens).await.unwrap() });
    let challenge = format!(r#"Bearer realm="{realm}",service="registry.example",scope="repository:os/debian:pull""#);
    let server = Server::start_with(Arc::new(Roles { challenge }), Default::default()).await;

    let owner = client(&server, "owner", "all");
    let (manifest, _) = push_image(&owner, &name("os/debian"), "13", b"layer").await;
    let anonymous = server.client();
    assert_eq!(
        anonymous.resolve(&name("os/debian"), &Selector::from(manifest.digest.clone())).await.unwrap(),
        manifest
    );
    let refused = anonymous.push_bytes(&name("os/debian"), Bytes::from_static(b"x"), "x/y").await.unwrap_err();
    assert_eq!(refused.status(), Some(403));
}

#[tokio::test]
async fn who_has_to_wait_is_told_how_long_and_is_not_denied() {
    /// Everybody has guessed too often.
    struct Guessed;
    impl Access for Guessed {
        fn check<'a>(&'a self, _: Asker<'a>, _: Option<&'a RepositoryName>, _: Action) -> BoxFuture<'a, Decision> {
            Box::pin(async { Decision::Wait(std::time::Duration::from_millis(1500)) })
        }
    }
    let server = Server::start_with(Arc::new(Guessed), Default::default()).await;
    let response = http().get(server.url("/v2/")).basic_auth("a", Some("b")).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(code_of(response).await, (429, "TOOMANYREQUESTS".to_owned()));
    assert!(server.heard.events.lock().unwrap().is_empty());
}
