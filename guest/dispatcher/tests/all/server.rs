//! A controller and registry that answers as told and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use url::Url;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) secret: String,
    pub(crate) body: serde_json::Value,
}

#[derive(Default)]
struct Shared {
    asked: Vec<Asked>,
    statuses: VecDeque<u16>,
    files: HashMap<String, (String, Vec<u8>)>,
}

/// A server on a free port of 127.0.0.1; it ends with the value.
pub(crate) struct Server {
    pub(crate) url: Url,
    shared: Arc<Mutex<Shared>>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// POSTs are answered with these statuses in turn, then with 200; GETs with 404 until there are files.
    pub(crate) fn start(statuses: &[u16]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Mutex::new(Shared { statuses: statuses.iter().copied().collect(), ..Shared::default() }));
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, shared, _runtime: runtime }
    }

    pub(crate) fn serve(&self, path: &str, media_type: &str, contents: &[u8]) {
        let file = (media_type.to_owned(), contents.to_vec());
        self.shared.lock().unwrap().files.insert(path.to_owned(), file);
    }

    /// The POSTs to a path, in their order.
    pub(crate) fn posted(&self, path: &str) -> Vec<Asked> {
        self.shared.lock().unwrap().asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut shared = shared.lock().unwrap();
    if method == Method::GET {
        return match shared.files.get(uri.path()) {
            Some((media_type, contents)) => ([("content-type", media_type.clone())], contents.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    let secret = headers.get("x-webhook-secret").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap();
    shared.asked.push(Asked { path: uri.path().to_owned(), secret, body });
    let scripted = !uri.path().contains("progress");
    let status = if scripted { shared.statuses.pop_front().unwrap_or(200) } else { 204 };
    StatusCode::from_u16(status).unwrap().into_response()
}

/// A TLS server on a free port that answers every connection's first request with 204. It ends with the runtime.
pub(crate) fn serve_tls(certificate: &std::path::Path, key: &std::path::Path) -> (Url, tokio::runtime::Runtime) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            // The body of the report is `{}`.
            while !request.ends_with(b"{}") && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {}
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    (url, runtime)
}
