//! TLS of the server, with a certificate that can be exchanged while it runs.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where certificate and key lie, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its root, leaf first.
    pub certificate: PathBuf,
    /// The key of the leaf.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file cannot be read.
    #[error("cannot read the certificate {}", path.display())]
    Certificate { path: PathBuf, source: PemError },
    /// The certificate file has none.
    #[error("there is no certificate in {}", path.display())]
    Empty { path: PathBuf },
    /// The key file cannot be read.
    #[error("cannot read the key {}", path.display())]
    Key { path: PathBuf, source: PemError },
    /// Key and certificate do not belong together, or are of a kind that is not spoken.
    #[error("cannot use the certificate {} with the key {}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    /// The protocol versions are not to be had.
    #[error("cannot set up TLS")]
    Protocol { source: rustls::Error },
}

/// TLS 1.2 and 1.3 with the certificate of two files. Clones share it, so that one of them can [`Tls::reload`].
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads both files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(read(&files)?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|source| TlsError::Protocol { source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config) })
    }

    /// Reads both files again, e.g. on SIGHUP. New connections get the new certificate; when it cannot be used, the
    /// old one stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let pair = read(&self.files)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.config).into()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

/// Mode bits of those who are neither a file's owner nor of its group.
const OTHERS: u32 = 0o007;

/// A key that everybody on this host can read is no secret. It is taken all the same, for volumes of containers show their
/// files like that, and it is said each time.
fn warn_of_readers(key: &Path) {
    let mode = std::fs::metadata(key).map(|metadata| metadata.mode());
    if let Ok(mode) = mode
        && mode & OTHERS != 0
    {
        let mode = format!("{:04o}", mode & 0o7777);
        tracing::warn!(key = %key.display(), mode, "everybody on this host can get at the private key: chmod 0600");
    }
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let unreadable = |source| TlsError::Certificate { path: files.certificate.clone(), source };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect).map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: files.certificate.clone() });
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Key { path: files.key.clone(), source })?;
    warn_of_readers(&files.key);
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map(Arc::new)
        .map_err(|source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source })
}
