//! The API as the daemon serves it, and requests to it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ::store::Store;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cairn_core::{Clock, FixedClock};
use http_body_util::BodyExt as _;
use jiff::SignedDuration;
use observe::metrics::Registry;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use vm::access::{NewToken, Tokens};
use vm::adapters::fake::FakeHost;
use vm::api::{self, Api, RouteOptions, table};
use vm::assets::{Assets, Defaults};
use vm::audit::{AuditLog, Entry};
use vm::metrics::VmMetrics;
use vm::model::{AssetKind, Backend};
use vm::ports::StepError;
use vm::store::tokens::TokenStore;
use vm::store::{self, VmStore};
use vm::{Caller, Limits, Ports};
use web::{ClientIp, RateLimiter};

/// A VM of the size that the guide asks for.
pub(crate) fn config() -> Value {
    json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}})
}

/// The API with tokens for everybody.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) api: Arc<Api>,
    pub(crate) host: FakeHost,
    pub(crate) metrics: Registry,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<Result<(), vm::RunError>>,
    pub(crate) router: Router,
    /// Of `acme`.
    pub(crate) customer: String,
    /// Of `other`.
    pub(crate) foreign: String,
    pub(crate) operator: String,
    pub(crate) expired: String,
    pub(crate) revoked: String,
}

/// VMs at most.
pub(crate) const MOST_VMS: u32 = 20;
/// Most bytes of an asset here.
pub(crate) const ASSET_LIMIT: u64 = 100_000;
/// Wrong tokens that are answered with 401 before 429 comes.
pub(crate) const WRONG_TOKENS: u32 = 20;

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(false, true).await
    }

    /// `developer`: `dev_customer_<id>` is let in. `well`: there is a hypervisor.
    pub(crate) async fn with(developer: bool, well: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["vms", "assets", "consoles"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let clock = Arc::new(FixedClock::at("2026-01-02T03:04:05Z".parse().unwrap()));
        let store = Store::open(&at("db"), store::MIGRATIONS).await.unwrap();
        let tokens = Tokens::new(TokenStore::new(store.clone()), Arc::clone(&clock) as _, developer);
        let texts = make_tokens(&tokens, &clock).await;
        let mut metrics = Registry::new();
        let registered = Arc::new(VmMetrics::register(&mut metrics, false, &table::names()));
        let audit = AuditLog::new(Some(directory.path()), Arc::clone(&clock) as _, registered.audit_lost.clone());
        let rows = VmStore::new(store);
        let defaults = Defaults { kernel: "kernel".parse().ok(), initrd: None, disk: "disk".parse().ok() };
        let assets = Assets::new(at("assets"), rows.clone(), defaults, Arc::clone(&clock) as _);
        for (name, kind) in [("kernel", AssetKind::Kernel), ("disk", AssetKind::Disk)] {
            let content = futures::stream::iter([Ok(bytes::Bytes::from(name))]);
            assets.add(name.parse().unwrap(), kind, content).await.unwrap();
        }
        let limits = Limits {
            vms: at("vms"),
            consoles: at("consoles"),
            maintenance: at("maintenance"),
            most_vms: MOST_VMS,
            subnets: Vec::new(),
            first_uid: 200_000,
            users: 65_536,
            ports: 40_000..=40_003,
            sign_of_life: Duration::ZERO,
            boot_id: "boot-1".to_owned(),
        };
        let host = FakeHost::default();
        let played = Arc::new(host.clone());
        let missing = StepError::new("hypervisor_missing", "firecracker is not there");
        let chosen = if well { Ok(Backend::Qemu) } else { Err(missing) };
        let ports = Ports {
            keepers: played.clone(),
            edges: played.clone(),
            hypervisors: vec![played],
            chosen: watch::channel(Some(chosen)).1,
            clock: Arc::clone(&clock) as _,
        };
        let around = (tokens, audit, registered);
        let api = Api::open(rows, assets, at("assets"), limits, ports, around).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(vm::run(Arc::clone(&api.service), shutdown.clone()));
        let number = |number| NonZeroU32::new(number).unwrap();
        let options = RouteOptions {
            failures: Arc::new(RateLimiter::new(number(1), number(WRONG_TOKENS))),
            shutdown: shutdown.clone(),
            asset_limit: ASSET_LIMIT,
            version: "1.2.3",
            clock,
        };
        let router = api::routes(&api, options);
        let [customer, foreign, operator, expired, revoked] = texts;
        Self { directory, api, host, metrics, shutdown, running, router, customer, foreign, operator, expired, revoked }
    }

    pub(crate) fn get<'b>(&'b self, path: &'b str) -> Ask<'b> {
        Ask::new(self, "GET", path)
    }

    pub(crate) fn post<'b>(&'b self, path: &'b str) -> Ask<'b> {
        Ask::new(self, "POST", path)
    }

    pub(crate) fn ask<'b>(&'b self, method: &'b str, path: &'b str) -> Ask<'b> {
        Ask::new(self, method, path)
    }

    /// A VM of `acme` that is called so, made anew where there is none.
    pub(crate) async fn vm(&self, id: &str) {
        let caller = Caller { who: "test".to_owned(), customer: Some("acme".parse().unwrap()) };
        if self.api.service.get(&caller, &id.parse().unwrap()).await.is_err() {
            let body = json!({"vm_id": id, "config": config()});
            let reply = self.post("/v1/vms").token(&self.customer).json(&body).await;
            assert_eq!(reply.status, 201, "{}", reply.text);
        }
    }

    /// The lines of the audit file.
    pub(crate) fn audit(&self) -> Vec<Entry> {
        let text = std::fs::read_to_string(self.directory.path().join(vm::audit::FILE)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Texts of tokens: of `acme`, of `other`, of an operator, one that has expired and one that was revoked.
async fn make_tokens(tokens: &Tokens, clock: &FixedClock) -> [String; 5] {
    let mut texts = Vec::new();
    for (name, customer) in
        [("acme", Some("acme")), ("other", Some("other")), ("operator", None), ("expired", None), ("revoked", None)]
    {
        let expires_at = (name == "expired").then(|| clock.now() + SignedDuration::from_hours(1));
        let customer = customer.map(|customer| customer.parse().unwrap());
        let new = NewToken { name: name.to_owned(), customer, expires_at };
        let (token, text) = tokens.create("test", new).await.unwrap();
        if name == "revoked" {
            assert!(tokens.revoke(&token.id).await.unwrap());
        }
        texts.push(text.expose_secret().to_owned());
    }
    clock.advance(SignedDuration::from_hours(2));
    texts.try_into().unwrap()
}

/// A request.
pub(crate) struct Ask<'b> {
    bench: &'b Bench,
    request: axum::http::request::Builder,
    from: IpAddr,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl<'b> Ask<'b> {
    fn new(bench: &'b Bench, method: &str, path: &str) -> Self {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        Self { bench, request, from: [127, 0, 0, 1].into() }
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    pub(crate) fn from(self, from: &str) -> Self {
        Self { from: from.parse().unwrap(), ..self }
    }

    pub(crate) async fn json(self, body: &Value) -> Reply {
        self.header("content-type", "application/json").body(body.to_string()).await
    }

    pub(crate) async fn send(self) -> Reply {
        self.body(String::new()).await
    }

    pub(crate) async fn body(self, body: impl Into<Body>) -> Reply {
        let (parts, body) = self.open(body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Reply { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// The answer while it is still coming.
    pub(crate) async fn open(self, body: impl Into<Body>) -> axum::http::Response<Body> {
        let mut request = self.request.body(body.into()).unwrap();
        request.extensions_mut().insert(ClientIp(self.from));
        self.bench.router.clone().oneshot(request).await.unwrap()
    }
}

impl Reply {
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Code of a problem.
    pub(crate) fn code(&self) -> String {
        self.value()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn is(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status.as_u16(), "{}", self.text);
        self
    }
}
