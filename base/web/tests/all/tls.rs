use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use web::{FrameOptions, HttpMetrics, Tls, TlsFiles, TrustedProxies};

use crate::wire::{Served, exchange, serve};

pub(crate) fn write_pair(directory: &Path) -> TlsFiles {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["controller.test".to_owned()]).unwrap();
    let files = TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
    fs::write(&files.certificate, cert.pem()).unwrap();
    fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    files
}

async fn started(tls: &Tls) -> Served {
    let metrics = HttpMetrics::register(&mut observe::metrics::Registry::new());
    let options = FrameOptions { metrics, tls: true, proxies: TrustedProxies::default() };
    let app = web::frame(Router::new().route("/", get(|| async { "over TLS" })), options);
    serve(app, |options| options.tls = Some(tls.clone())).await
}

/// A connection that trusts exactly the certificate in the file.
pub(crate) async fn connect(
    served: &Served,
    trusted: &Path,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("controller.test").unwrap(), stream).await
}

#[tokio::test]
async fn both_versions_are_spoken_and_browsers_are_told_to_stay() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path());
    let served = started(&Tls::load(files.clone()).unwrap()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = connect(&served, &files.certificate, version).await.unwrap();
        let answer = exchange(stream, "GET / HTTP/1.1\r\n", "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "over TLS"));
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_nothing_and_does_no_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path());
    let served = started(&Tls::load(files.clone()).unwrap()).await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"));
    assert!(connect(&served, &files.certificate, &rustls::version::TLS13).await.is_ok());
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path());
    let first = directory.path().join("first.pem");
    fs::copy(&files.certificate, &first).unwrap();
    let tls = Tls::load(files.clone()).unwrap();
    let served = started(&tls).await;

    fs::write(&files.certificate, "no certificate").unwrap();
    let error = tls.reload().unwrap_err();
    assert_eq!(error.to_string(), format!("there is no certificate in {}", files.certificate.display()));
    assert!(connect(&served, &first, &rustls::version::TLS13).await.is_ok());

    write_pair(directory.path());
    tls.reload().unwrap();
    assert!(connect(&served, &first, &rustls::version::TLS13).await.is_err());
    assert!(connect(&served, &files.certificate, &rustls::version::TLS13).await.is_ok());
}

#[test]
fn files_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path());
    let other = tempfile::tempdir().unwrap();
    let foreign = TlsFiles { key: write_pair(other.path()).key, ..files.clone() };
    let error = Tls::load(foreign.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot use the certificate {} with the key {}", files.certificate.display(), foreign.key.display())
    );
    let missing = TlsFiles { certificate: "/no/such/cert.pem".into(), ..files };
    assert_eq!(Tls::load(missing).unwrap_err().to_string(), "cannot read the certificate /no/such/cert.pem");
}
