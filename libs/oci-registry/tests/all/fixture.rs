//! A registry that can be restarted, and what tests put into it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use oci_registry::artifact::{Compression, OsImage};
use oci_registry::client::{Client, Retry};
use oci_registry::server::{Access, Anonymous, Event, EventAction, Observer, Options, Registry, Route, router};
use oci_registry::storage::{Limits, StorageError};
use oci_registry::{Descriptor, Digest, RepositoryName, Selector, media_type};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What the observer heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) uploaded: AtomicU64,
    pub(crate) downloaded: AtomicU64,
    pub(crate) in_flight: AtomicI64,
    pub(crate) requests: Mutex<Vec<(Route, u16)>>,
    pub(crate) events: Mutex<Vec<Recorded>>,
}

/// An event, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) user: String,
    pub(crate) action: EventAction,
    pub(crate) repository: String,
    pub(crate) reference: String,
    pub(crate) digest: Option<Digest>,
    pub(crate) size: Option<u64>,
}

impl Observer for Heard {
    fn uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::SeqCst);
    }
    fn downloaded(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::SeqCst);
    }
    fn upload_started(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }
    fn upload_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
    fn request(&self, route: Route, status: u16, _: Duration) {
        self.requests.lock().unwrap().push((route, status));
    }
    fn event(&self, event: &Event<'_>) {
        self.events.lock().unwrap().push(Recorded {
            user: event.user.to_owned(),
            action: event.action,
            repository: event.repository.map(ToString::to_string).unwrap_or_default(),
            reference: event.reference.unwrap_or_default().to_owned(),
            digest: event.digest.cloned(),
            size: event.size,
        });
    }
}

/// A registry on its own runtime: stopping that ends every connection and every request at once.
pub(crate) struct Server {
    root: PathBuf,
    /// Removed with the server, where it is the server's own.
    directory: Option<TempDir>,
    options: Options,
    runtime: Option<Runtime>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(Anonymous), Limits::default()).await
    }

    pub(crate) async fn start_with(access: Arc<dyn Access>, limits: Limits) -> Self {
        Self::start_options(Options { limits, ..Options::new(access) }).await
    }

    /// The options' observer is replaced.
    pub(crate) async fn start_options(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self::start_at(directory.path(), options).await;
        server.directory = Some(directory);
        server
    }

    /// The directory is the caller's.
    pub(crate) async fn start_at(root: &Path, options: Options) -> Self {
        let heard = Arc::new(Heard::default());
        let options = Options { observer: Arc::clone(&heard) as Arc<dyn Observer>, ..options };
        let (runtime, registry, address) = serve(root, &options).await;
        Self { root: root.to_owned(), directory: None, options, runtime: Some(runtime), registry, heard, address }
    }

    /// Stops everything without a word to the clients and starts anew over the same directory, on another port.
    pub(crate) async fn restart(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        let unused = tempfile::tempdir().unwrap();
        // The old registry's lock goes with the last reference to it.
        self.registry = Arc::new(Registry::open(unused.path(), Options::new(Arc::new(Anonymous))).await.unwrap());
        let (runtime, registry, address) = serve(&self.root, &self.options).await;
        (self.runtime, self.registry, self.address) = (Some(runtime), registry, address);
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        client_of(self.address)
    }

    /// Files that a failed or finished operation must not leave: unfinished ones and upload sessions.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(self.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mut waiting = vec![self.root().join("repositories")];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.parent().unwrap().ends_with("_uploads") {
                    found.push(path);
                }
            }
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(root: &Path, options: &Options) -> (Runtime, Arc<Registry>, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (root, options) = (root.to_owned(), options.clone());
    let opening = runtime.spawn(async move {
        loop {
            match Registry::open(&root, options.clone()).await {
                // The one before is still letting go.
                Err(StorageError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                opened => break Arc::new(opened.unwrap()),
            }
        }
    });
    let registry = opening.await.unwrap();
    let routes = router(Arc::clone(&registry));
    let (send, address) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        send.send(listener.local_addr().unwrap()).unwrap();
        axum::serve(listener, routes).await.unwrap();
    });
    let address = address.await.unwrap();
    (runtime, registry, address)
}

pub(crate) fn http() -> reqwest::Client {
    // Only the first call takes effect, and every test may be the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn client_of(address: SocketAddr) -> Client {
    let retry = Retry { attempts: 4, first_pause: Duration::from_millis(5), longest_pause: Duration::from_millis(20) };
    Client::new(http(), format!("http://{address}").parse().unwrap(), None).with_retry(retry)
}

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Selector {
    Selector::Tag(text.parse().unwrap())
}

/// Bytes that do not repeat within any block size in use, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Pushes an OS image with this layer under a tag; returns its manifest's descriptor and the layer's.
pub(crate) async fn push_image(
    client: &Client,
    repository: &RepositoryName,
    tag_text: &str,
    layer: &[u8],
) -> (Descriptor, Descriptor) {
    let layer = Bytes::copy_from_slice(layer);
    let layer = client.push_bytes(repository, layer, Compression::Zstd.media_type()).await.unwrap();
    client.push_bytes(repository, Bytes::from_static(b"{}"), media_type::OCI_EMPTY).await.unwrap();
    let image = OsImage {
        layer: layer.digest.clone(),
        size: layer.size,
        compression: Compression::Zstd,
        title: None,
        created: None,
    };
    let manifest = Bytes::from(image.manifest_bytes());
    let manifest = client.push_manifest(repository, &tag(tag_text), media_type::OCI_MANIFEST, manifest).await.unwrap();
    (manifest, layer)
}

/// The code of an error answer, which must have the form that the specification gives.
pub(crate) async fn code_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let json: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let error = &json["errors"][0];
    assert!(error["message"].is_string() && error.get("detail").is_some(), "{json}");
    (status, error["code"].as_str().unwrap().to_owned())
}
