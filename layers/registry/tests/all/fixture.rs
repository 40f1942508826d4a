//! A registry that is served as the daemon serves it, and what tests put into it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cairn_core::{Clock, FixedClock, SystemClock};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci_registry::artifact::{Compression, OsImage};
use oci_registry::client::{Client, Credentials};
use oci_registry::{Descriptor, Digest, RepositoryName, Selector, media_type};
use registry::metrics::RegistryMetrics;
use registry::ports::{Guests, Leases, PortError, Reached};
use registry::settings::{KEYS, RegistrySettings};
use registry::{Ports, Service};
use secrecy::{ExposeSecret as _, SecretString};
use settings::Resolver;
use store::{InstanceKey, Store};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use web::{BasicAuth, FrameOptions, HttpMetrics, Proof, RateLimiter, ServeOptions, TrustedProxies};

/// Jobs of a layer that uses the registry: `job-1` with `ticket` may pull `os-images/debian`.
#[derive(Default)]
pub(crate) struct Jobs {
    pub(crate) in_use: Mutex<Vec<(RepositoryName, Digest)>>,
    pub(crate) database_is_gone: std::sync::atomic::AtomicBool,
    /// Whoever holds this keeps everybody waiting who asks what is in use.
    pub(crate) answers: tokio::sync::Mutex<()>,
}

impl Guests for Jobs {
    fn is_guest(&self, user: &str) -> bool {
        user.starts_with("job-")
    }

    fn may_pull<'a>(
        &'a self,
        user: &'a str,
        token: &'a SecretString,
    ) -> BoxFuture<'a, Result<Option<RepositoryName>, PortError>> {
        let good = user == "job-1" && token.expose_secret() == "ticket";
        async move { Ok(good.then(|| name("os-images/debian"))) }.boxed()
    }
}

impl Leases for Jobs {
    fn in_use(&self) -> BoxFuture<'_, Result<Vec<(RepositoryName, Digest)>, PortError>> {
        async {
            let _answer = self.answers.lock().await;
            if self.database_is_gone.load(std::sync::atomic::Ordering::SeqCst) {
                return Err("the database is gone".into());
            }
            Ok(self.in_use.lock().unwrap().clone())
        }
        .boxed()
    }
}

/// How a [`Server`] is set up.
#[derive(Default)]
pub(crate) struct Setup {
    settings: BTreeMap<String, String>,
    api_user: bool,
    users: Option<String>,
    clock: Option<Arc<FixedClock>>,
}

impl Setup {
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The API has the user `admin` with the password `root`.
    pub(crate) fn api_login(mut self) -> Self {
        self.api_user = true;
        self
    }

    /// The registry has a users file with these users; each password is the name backwards.
    pub(crate) fn users(self, users: &[&str]) -> Self {
        self.users_file(users.iter().map(|user| user_line(user)).collect())
    }

    /// The registry has a users file with this text.
    pub(crate) fn users_file(mut self, text: String) -> Self {
        self.users = Some(text);
        self
    }

    /// Time stands still until the clock is told otherwise.
    pub(crate) fn clock(mut self, clock: &Arc<FixedClock>) -> Self {
        self.clock = Some(Arc::clone(clock));
        self
    }

    pub(crate) async fn start(self) -> Server {
        self.start_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts on what another one has left behind.
    pub(crate) async fn start_in(self, directory: TempDir) -> Server {
        let opened = self.open(&directory).await;
        opened.map_err(|error| error.problem()).unwrap().serve(directory)
    }

    /// Why it does not start.
    pub(crate) async fn refused(self) -> registry::Error {
        let directory = tempfile::tempdir().unwrap();
        self.open(&directory).await.err().unwrap()
    }

    async fn open(mut self, directory: &TempDir) -> Result<Opened, registry::Error> {
        crypto();
        let users_file = directory.path().join("users");
        if let Some(users) = &self.users {
            std::fs::write(&users_file, users).unwrap();
            std::fs::set_permissions(&users_file, std::fs::Permissions::from_mode(0o600)).unwrap();
            self.settings.insert("REGISTRY_HTPASSWD_FILE".to_owned(), users_file.display().to_string());
        }
        let loopback = self.settings.remove("LOOPBACK").is_none();
        let resolved = Resolver::new(&[KEYS]).environment(&self.settings).unwrap().resolve();
        let settings = RegistrySettings::resolve(&resolved, directory.path()).unwrap();
        let listener = web::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::open(&directory.path().join("db"), registry::MIGRATIONS).await.unwrap();
        let mut metrics = observe::metrics::Registry::new();
        let registered = RegistryMetrics::register(&mut metrics);
        let limiter = || Arc::new(RateLimiter::new(NonZeroU32::new(60).unwrap(), NonZeroU32::new(30).unwrap()));
        let api_auth = self.api_user.then(|| {
            let proof = Proof::Hash(bcrypt::hash("root", 4).unwrap().into());
            let user = web::Credentials { user: "admin".to_owned(), proof };
            Arc::new(BasicAuth::new("api", vec![user]).unwrap().limit_failures(limiter()))
        });
        let jobs = Arc::new(Jobs::default());
        let clock: Arc<dyn Clock> = self.clock.take().map_or_else(|| Arc::new(SystemClock) as _, |clock| clock as _);
        let ports = Ports {
            guests: vec![Arc::clone(&jobs) as _],
            leases: vec![Arc::clone(&jobs) as _],
            reached: Reached {
                loopback,
                tls: false,
                listener: format!("http://{address}").parse().unwrap(),
                configured: Vec::new(),
            },
            failures: limiter(),
            clock,
        };
        let key = InstanceKey::from_bytes([7; 32]);
        let storage = settings.storage.clone();
        let service = Service::open(settings, store, &key, registered, api_auth, ports).await?;
        Ok(Opened { listener, address, service, jobs, metrics, storage })
    }
}

struct Opened {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
    jobs: Arc<Jobs>,
    metrics: observe::metrics::Registry,
    storage: PathBuf,
}

impl Opened {
    fn serve(mut self, directory: TempDir) -> Server {
        let routes = self.service.routes();
        let http = HttpMetrics::register(&mut self.metrics);
        let options = FrameOptions { metrics: http, tls: false, proxies: TrustedProxies::default() };
        let shutdown = CancellationToken::new();
        let served = web::serve(self.listener, web::frame(routes, options), ServeOptions::new(shutdown.clone()));
        Server {
            directory,
            address: self.address,
            jobs: self.jobs,
            metrics: self.metrics,
            storage: self.storage,
            tasks: vec![
                tokio::spawn(async { _ = served.await }),
                tokio::spawn({
                    let running = registry::run(Arc::clone(&self.service), shutdown.clone());
                    async { running.await.unwrap() }
                }),
            ],
            service: self.service,
            shutdown,
        }
    }
}

/// A registry that is served.
pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<Service>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: observe::metrics::Registry,
    pub(crate) storage: PathBuf,
    tasks: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client with the login of a user, or of nobody.
    pub(crate) fn client(&self, login: Option<(&str, &str)>) -> Client {
        let credentials = login.map(|(username, password)| Credentials {
            username: username.to_owned(),
            password: SecretString::from(password),
        });
        Client::new(http(), self.url("").parse().unwrap(), credentials)
    }

    /// Sends a request with a login in front of the `@`, if there is one, and gives back status and answer.
    pub(crate) async fn ask(&self, login: &str, method: &str, path: &str) -> (u16, reqwest::Response) {
        let request = http().request(method.parse().unwrap(), self.url(path));
        let response = with_login(request, login).send().await.unwrap();
        (response.status().as_u16(), response)
    }

    /// Sends JSON to the API and gives back status and JSON.
    pub(crate) async fn order(
        &self,
        login: &str,
        method: &str,
        path: &str,
        body: serde_json::Value,
    ) -> (u16, serde_json::Value) {
        let request = http().request(method.parse().unwrap(), self.url(path)).json(&body);
        let response = with_login(request, login).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    pub(crate) async fn read(&self, login: &str, path: &str) -> serde_json::Value {
        let (status, response) = self.ask(login, "GET", path).await;
        assert_eq!(status, 200, "{path}");
        response.json().await.unwrap()
    }

    /// Stops everything and gives back the directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.service.close().await;
        self.directory
    }
}

fn with_login(request: reqwest::RequestBuilder, login: &str) -> reqwest::RequestBuilder {
    match login.split_once(':') {
        Some((user, password)) => request.basic_auth(user, Some(password)),
        None if login.is_empty() => request,
        None => request.bearer_auth(login),
    }
}

/// Only the first call takes effect, and every test may be the first.
pub(crate) fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn http() -> reqwest::Client {
    crypto();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn password(user: &str) -> String {
    user.chars().rev().collect()
}

pub(crate) fn user_line(user: &str) -> String {
    format!("{user}:{}\n", bcrypt::hash(password(user), 4).unwrap())
}

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Selector {
    Selector::Tag(text.parse().unwrap())
}

/// Pushes an OS image with this layer under a tag; returns its manifest's descriptor.
pub(crate) async fn push_image(client: &Client, repository: &str, tag_text: &str, layer: &[u8]) -> Descriptor {
    try_push(client, repository, tag_text, layer).await.unwrap()
}

pub(crate) async fn try_push(
    client: &Client,
    repository: &str,
    tag_text: &str,
    layer: &[u8],
) -> Result<Descriptor, oci_registry::client::ClientError> {
    let repository = name(repository);
    let layer = Bytes::copy_from_slice(layer);
    let layer = client.push_bytes(&repository, layer, Compression::Zstd.media_type()).await?;
    client.push_bytes(&repository, Bytes::from_static(b"{}"), media_type::OCI_EMPTY).await?;
    let (digest, size) = (layer.digest, layer.size);
    let image = OsImage { layer: digest, size, compression: Compression::Zstd, title: None, created: None };
    let manifest = Bytes::from(image.manifest_bytes());
    client.push_manifest(&repository, &tag(tag_text), media_type::OCI_MANIFEST, manifest).await
}

/// Whether the programs are there; says so by name where not.
pub(crate) fn can_run(test: &str, programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = std::process::Command::new(program).arg("--version").output().is_ok();
        if !found {
            eprintln!("NOT RUN: {test}: {program} is missing");
        }
        found
    })
}

/// Runs a program off the runtime, which goes on serving meanwhile; whether it ended well, and what it said.
pub(crate) async fn run(program: &str, home: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(program);
    command.args(arguments).env("HOME", home).env("XDG_RUNTIME_DIR", home);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
