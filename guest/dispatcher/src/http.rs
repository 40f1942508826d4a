//! The HTTP client: rustls with the system's certificate authorities, no proxy, no redirects.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client};

use crate::failure::{Failure, chain};

/// Where distributions keep their certificate authorities in one file.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Time to get a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client. `whole` limits a request from connecting to the end of its body, `silence` the time between two reads.
/// `authority` is a file with certificate authorities beside those of the system.
pub(crate) fn client(whole: Option<Duration>, silence: Duration, authority: Option<&Path>) -> Result<Client, Failure> {
    // A second call is no failure: the provider is there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(silence)
        .no_proxy()
        // A redirect would carry the token to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("cairn-provisioner/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(authorities(authority));
    if let Some(whole) = whole {
        builder = builder.timeout(whole);
    }
    builder.build().map_err(|error| Failure::new("http_client", chain(&error)))
}

/// The file that the system keeps its certificate authorities in.
pub(crate) fn authorities_file() -> Option<&'static Path> {
    AUTHORITIES.iter().map(Path::new).find(|path| path.exists())
}

/// Without any, plain HTTP still works and HTTPS says that it does not know the issuer.
fn authorities(extra: Option<&Path>) -> Vec<Certificate> {
    let mut found = Vec::new();
    for path in authorities_file().into_iter().chain(extra) {
        match std::fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|text| Certificate::from_pem_bundle(&text).map_err(|error| error.to_string()))
        {
            Ok(certificates) => found.extend(certificates),
            Err(error) => tracing::warn!(path = %path.display(), error, "certificate authorities cannot be read"),
        }
    }
    found
}
