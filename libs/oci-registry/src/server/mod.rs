//! The registry over HTTP, and for callers in the same process.

mod access;
mod blob;
mod error;
mod manifest;
mod observer;
mod range;
mod route;
mod tags;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::StreamExt as _;

pub use access::{Access, Action, Anonymous, Asker, Decision};
pub use observer::{Observer, Unobserved};
pub use route::Route;

use crate::storage::{Limits, Storage, StorageError, Usage};
use crate::{Descriptor, RepositoryName, Selector, Tag};
use error::{Code, Failure};
use observer::RequestReport;
use route::Endpoint;

/// Most that is still read, in bytes and time, of a body that was refused.
const DRAIN_SIZE: u64 = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A registry: its storage, and the hooks of the program around it.
pub struct Registry {
    storage: Storage,
    access: Arc<dyn Access>,
    observer: Arc<dyn Observer>,
}

impl Registry {
    /// Opens the directory and sets the hooks in.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub async fn open(
        root: impl Into<PathBuf>,
        limits: Limits,
        access: Arc<dyn Access>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StorageError> {
        Ok(Self { storage: Storage::open(root, limits).await?, access, observer })
    }

    /// The storage itself. Whoever uses it directly is asked nothing and counted nowhere.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What a tag or digest points to; see [`Storage::resolve`].
    ///
    /// # Errors
    /// The record cannot be read.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<Descriptor>, StorageError> {
        self.storage.resolve(repository, selector).await
    }

    /// A manifest, checked against its digest; see [`Storage::manifest`].
    ///
    /// # Errors
    /// The bytes cannot be read, or are not those that were pushed.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<Option<(Descriptor, Bytes)>, StorageError> {
        self.storage.manifest(repository, selector).await
    }

    /// How much is stored; kept up to date, costs nothing to ask.
    pub fn storage_usage(&self) -> Usage {
        self.storage.usage()
    }

    /// The repositories that hold something, sorted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub async fn repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        self.storage.repositories().await
    }

    /// The tags of a repository, sorted.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, StorageError> {
        self.storage.tags(repository).await
    }
}

/// The routes `/v2` and below. Bodies are streamed without a limit of the framework's; [`Limits`] holds instead.
pub fn router(state: Arc<Registry>) -> Router {
    Router::new().route("/v2", any(serve)).route("/v2/", any(serve)).route("/v2/{*path}", any(serve)).with_state(state)
}

/// One request on its way: who asks, for what.
struct Call {
    registry: Arc<Registry>,
    user: String,
    method: Method,
    headers: HeaderMap,
    extensions: Extensions,
    query: Vec<(String, String)>,
}

impl Call {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client already has the content with this ETag.
    fn has_current(&self, etag: &str) -> bool {
        let known = self.header(header::IF_NONE_MATCH).unwrap_or_default();
        known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
    }
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/v2").unwrap_or_default();
    let (route, endpoint) = route::parse(path);
    let mut report = RequestReport::new(Arc::clone(&registry.observer), route);
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let call = Call {
        registry,
        user: String::new(),
        method: parts.method,
        headers: parts.headers,
        extensions: parts.extensions,
        query,
    };
    let is_waiting = call.headers.contains_key(header::EXPECT);
    let mut body = body.into_data_stream();
    let result = match endpoint {
        Ok(endpoint) => answer(call, endpoint, &mut body).await,
        // Nobody learns more than "no" before access is checked; a path without a name belongs to no repository.
        Err(failure) => match allowed(&call, None, Action::Ping).await {
            Ok(_) => Err(failure),
            Err(refusal) => Err(refusal),
        },
    };
    // A client that waits for leave to send its body has not sent it.
    if result.is_err() && !is_waiting {
        drain(&mut body).await;
    }
    let mut response = result.unwrap_or_else(Failure::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    report.status = response.status().as_u16();
    reported(response, report)
}

/// Reads on for a while. To close a connection on which bytes are still arriving resets it, and the client never
/// gets to read why.
async fn drain(body: &mut BodyDataStream) {
    let reading = async {
        let mut left = DRAIN_SIZE;
        while let Some(Ok(part)) = body.next().await {
            left = left.saturating_sub(part.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// Lets the report live as long as the body of the answer.
fn reported(response: Response, report: RequestReport) -> Response {
    use axum::body::HttpBody as _;
    if response.body().is_end_stream() {
        return response;
    }
    let exact = response.body().size_hint().exact();
    let (mut parts, body) = response.into_parts();
    if let Some(length) = exact {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    let body = body.into_data_stream().map(move |frame| {
        let _alive = &report;
        frame
    });
    Response::from_parts(parts, Body::from_stream(body))
}

async fn answer(mut call: Call, endpoint: Endpoint, body: &mut BodyDataStream) -> Result<Response, Failure> {
    call.user = allowed(&call, endpoint.repository(), action(&call.method, &endpoint)).await?;
    match endpoint {
        Endpoint::Ping => match call.method {
            Method::GET | Method::HEAD => Ok(axum::Json(serde_json::json!({})).into_response()),
            _ => Err(Failure::method_not_allowed("GET, HEAD")),
        },
        Endpoint::Blob(repository, digest) => blob::answer(&call, &repository, &digest?).await,
        Endpoint::StartUpload(repository) => upload::start(&call, &repository, body).await,
        Endpoint::Upload(repository, id) => upload::proceed(&call, &repository, id?, body).await,
        Endpoint::Manifest(repository, selector) => manifest::answer(&call, &repository, selector, body).await,
        Endpoint::Tags(repository) => tags::list(&call, &repository).await,
    }
}

fn action(method: &Method, endpoint: &Endpoint) -> Action {
    match (endpoint, method) {
        (Endpoint::Ping, _) => Action::Ping,
        (Endpoint::StartUpload(_) | Endpoint::Upload(..), _) => Action::Push,
        (_, &Method::GET | &Method::HEAD) => Action::Pull,
        (_, &Method::DELETE) => Action::Delete,
        _ => Action::Push,
    }
}

async fn allowed(call: &Call, repository: Option<&RepositoryName>, action: Action) -> Result<String, Failure> {
    let asker = Asker { headers: &call.headers, extensions: &call.extensions };
    match call.registry.access.check(asker, repository, action).await {
        Decision::Allow { user } => Ok(user),
        Decision::Challenge(challenge) => Err(Failure::new(Code::Unauthorized, "authentication required")
            .with_header(header::WWW_AUTHENTICATE, challenge)),
        Decision::Deny => Err(Failure::new(Code::Denied, "requested access to the resource is denied")),
    }
}

/// The `ETag` of content: its digest, quoted.
fn etag(digest: &crate::Digest) -> String {
    format!("\"{digest}\"")
}
