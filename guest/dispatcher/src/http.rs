//! The HTTP client: rustls with the system's certificate authorities, no proxy, no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::{Failure, code};
use cairn_core::chain;

/// Where distributions keep their certificate authorities in one file.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Which certificate authorities are believed.
#[derive(Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// Those of the system.
    System,
    /// Those of the system, and those in this file.
    And(&'a Path),
    /// These, in PEM, and no others.
    Only(&'a str),
}

/// Time to get a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client. `whole` limits a request from connecting to the end of its body, `silence` the time between two reads.
pub(crate) fn client(whole: Option<Duration>, silence: Duration, trust: Trust<'_>) -> Result<Client, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::of(code::PANIC))?
        .with_root_certificates(authorities(trust))
        .with_no_client_auth();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(silence)
        .no_proxy()
        // Nothing runs here between two requests: a connection that the controller has closed meanwhile, after ten idle
        // seconds, would be taken for a good one, and the report on it lost.
        .pool_max_idle_per_host(0)
        // A redirect would carry the token to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("cairn-provisioner/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls);
    if let Some(whole) = whole {
        builder = builder.timeout(whole);
    }
    builder.build().map_err(|error| Failure::new(code::PANIC, chain(&error)))
}

/// The file that the system keeps its certificate authorities in.
pub(crate) fn authorities_file() -> Option<&'static Path> {
    AUTHORITIES.iter().map(Path::new).find(|path| path.exists())
}

/// Every authority that can be read: a single odd one in a bundle must not cost the connection. Without any, plain
/// HTTP still works and HTTPS says that it does not know the issuer.
fn authorities(trust: Trust<'_>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let extra = match trust {
        Trust::Only(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
            let (_, ignored) = store.add_parsable_certificates(certificates);
            if ignored > 0 {
                tracing::warn!(ignored, "some certificate authorities of the registry are not understood");
            }
            return store;
        }
        Trust::And(path) => Some(path),
        Trust::System => None,
    };
    for path in authorities_file().into_iter().chain(extra) {
        match CertificateDer::pem_file_iter(path) {
            Ok(certificates) => {
                let (_, ignored) = store.add_parsable_certificates(certificates.flatten());
                if ignored > 0 {
                    tracing::warn!(path = %path.display(), ignored, "some certificate authorities are not understood");
                }
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "certificate authorities cannot be read");
            }
        }
    }
    store
}
