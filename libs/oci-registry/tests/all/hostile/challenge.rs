//! A registry that answers everything with 401 and a challenge of its own making.

use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode};
use oci_registry::client::{Client, Credentials, Retry};
use oci_registry::{RepositoryName, Selector, Tag};
use secrecy::SecretString;

/// Lets a client meet `challenge`. Whatever host that names, the client reaches only this registry.
pub(crate) async fn meet(challenge: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(challenge) else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = (StatusCode::UNAUTHORIZED, [("www-authenticate", value)]);
    let server =
        tokio::spawn(axum::serve(listener, Router::new().fallback(async move || answer.clone())).into_future());
    let proxy = reqwest::Proxy::all(format!("http://{address}")).unwrap();
    LazyLock::force(&PROVIDER);
    let http = reqwest::Client::builder().proxy(proxy).build().unwrap();
    let credentials = Credentials { username: "user".to_owned(), password: SecretString::from("planted") };
    let client = Client::new(http, format!("http://{address}").parse().unwrap(), Some(credentials));
    let at_once = Retry { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };
    let client = client.with_retry(at_once);
    let repository: RepositoryName = "known/repo".parse().unwrap();
    let error = client.resolve(&repository, &Selector::Tag(Tag::latest())).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("planted"), "the password is told: {told}");
    server.abort();
}

/// The one TLS provider.
static PROVIDER: LazyLock<()> = LazyLock::new(|| {
    // Another test may have been quicker.
    let _ = rustls::crypto::ring::default_provider().install_default();
});
