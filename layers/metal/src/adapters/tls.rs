//! HTTP clients for BMCs and registries, each with its own judgement of certificates.

use std::sync::Arc;
use std::time::Duration;

use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::model::BmcTls;

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The certificates of a record are no certificates.
    #[error("the certificate authorities of the record are not readable")]
    Certificates(#[source] reqwest::Error),
    /// The pin of a record is no SHA-256.
    #[error("{0:?} is not the SHA-256 of a certificate: 64 hex digits were expected")]
    Pin(String),
    /// No protocol version could be set up.
    #[error("TLS could not be set up")]
    Protocol(#[source] rustls::Error),
    /// The HTTP library refused.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// A builder with this judgement of certificates. No proxy: a management network has none.
pub(crate) fn builder(tls: &BmcTls) -> Result<reqwest::ClientBuilder, Error> {
    let builder = reqwest::Client::builder().no_proxy().user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")));
    Ok(match tls {
        BmcTls::System => builder,
        BmcTls::Ca { pem } => {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(Error::Certificates)?;
            builder.tls_certs_only(certificates)
        }
        BmcTls::Pin { sha256 } => builder.tls_backend_preconfigured(pinned(sha256)?),
        BmcTls::Insecure => builder.tls_danger_accept_invalid_certs(true),
    })
}

/// A client with a limit for each request, and redirects followed.
pub(crate) fn client(tls: &BmcTls, timeout: Duration) -> Result<reqwest::Client, Error> {
    builder(tls)?.timeout(timeout).build().map_err(Error::Client)
}

/// The 32 bytes of a pin; `None` if the text is none.
pub(crate) fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut pin = [0; 32];
    for (byte, pair) in pin.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(pin)
}

fn pinned(text: &str) -> Result<rustls::ClientConfig, Error> {
    let pin = parse_pin(text).ok_or_else(|| Error::Pin(text.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = PinnedCertificate { pin, provider: Arc::clone(&provider) };
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Protocol)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Trusts one certificate by its hash. Names and dates do not matter: BMCs sign their own, without names, in 1970. The
/// handshake's signature is still checked, so whoever shows the certificate also has its key.
#[derive(Debug)]
struct PinnedCertificate {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// The certificate is not the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has SHA-256 {seen}, which is not the pinned one")]
struct PinMismatch {
    seen: String,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if bool::from(Sha256::digest(end_entity.as_ref()).as_slice().ct_eq(&self.pin)) {
            Ok(ServerCertVerified::assertion())
        } else {
            let seen: String = Sha256::digest(end_entity.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect();
            let mismatch = rustls::OtherError(Arc::new(PinMismatch { seen }));
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(mismatch)))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_with_and_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(parse_pin(&plain), Some([0xab; 32]));
        assert_eq!(parse_pin(&colons), Some([0xab; 32]));
        for bad in ["", "ab", &"zz".repeat(32), &"ü".repeat(32)] {
            assert_eq!(parse_pin(bad), None, "{bad}");
        }
    }
}
