//! One request from its head to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};

use super::access::{Action, Asker, Decision};
use super::body::{self, RequestBody};
use super::error::{Code, Failure};
use super::observer::{Event, EventAction, RequestReport};
use super::registry::Registry;
use super::route::{self, Endpoint};
use super::{API_VERSION, blob, cached, catalog, manifest, referrers, tags, upload};
use crate::{Digest, RepositoryName};

/// One request on its way: who asks, for what.
pub(super) struct Call {
    pub(super) registry: Arc<Registry>,
    pub(super) user: String,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
    pub(super) query: Vec<(String, String)>,
    /// Where a mount takes its content from.
    pub(super) from: Option<RepositoryName>,
}

impl Call {
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters(name).next()
    }

    pub(super) fn parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client already has the content with this ETag.
    pub(super) fn has_current(&self, etag: &str) -> bool {
        self.header(header::IF_NONE_MATCH).is_some_and(|known| names(known, etag))
    }

    /// Longest that an answer without a blob's bytes may take.
    pub(super) fn longest(&self) -> Duration {
        self.registry.options.read_timeout
    }

    fn asker(&self) -> Asker<'_> {
        Asker { headers: &self.headers, extensions: &self.extensions, from: self.from.as_ref() }
    }

    /// Whether the asker may do this as well, in passing.
    pub(super) async fn may(&self, repository: &RepositoryName, action: Action) -> bool {
        let decision = self.registry.options.access.check(self.asker(), Some(repository), action).await;
        matches!(decision, Decision::Allow { .. })
    }

    /// Whether a list of all repositories tells this one to the asker.
    pub(super) async fn lists(&self, repository: &RepositoryName) -> bool {
        self.registry.options.access.lists(self.asker(), repository).await
    }

    /// Tells the observer what was done.
    pub(super) fn event(
        &self,
        action: EventAction,
        repository: &RepositoryName,
        reference: Option<&str>,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) {
        let (asker, user, repository) = (self.asker(), self.user.as_str(), Some(repository));
        self.registry.options.observer.event(&Event { asker, user, action, repository, reference, digest, size });
    }

    async fn allowed(&self, repository: Option<&RepositoryName>, action: Action) -> Result<String, Failure> {
        let asker = self.asker();
        let failure = match self.registry.options.access.check(asker, repository, action).await {
            Decision::Allow { user } => return Ok(user),
            Decision::Challenge(challenge) => Failure::new(Code::Unauthorized, "authentication required")
                .with_header(header::WWW_AUTHENTICATE, challenge),
            Decision::Deny => Failure::new(Code::Denied, "requested access to the resource is denied"),
            Decision::Wait(wait) => {
                let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1).to_string();
                return Err(Failure::new(Code::TooManyRequests, "too many failed logins from this address")
                    .with_header(header::RETRY_AFTER, seconds));
            }
        };
        // A client that has not said yet who it is only learns how to.
        if failure.code() == Code::Denied || self.headers.contains_key(header::AUTHORIZATION) {
            let (action, user) = (EventAction::Denied, "");
            let event = Event { asker, user, action, repository, reference: None, digest: None, size: None };
            self.registry.options.observer.event(&event);
        }
        Err(failure)
    }
}

/// Whether a list of ETags (RFC 9110, 13.1) names this one.
pub(super) fn names(list: &str, etag: &str) -> bool {
    list.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

pub(super) async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/v2").unwrap_or_default();
    let (route, endpoint) = route::parse(path);
    let options = &registry.options;
    let mut report = RequestReport::new(Arc::clone(&options.observer), route);
    let mut body = RequestBody::new(body, options.read_timeout, options.upload_timeout);
    let longest = options.download_timeout;
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let from = value("mount").and(value("from")).and_then(|name| name.parse().ok());
    let call = Call {
        registry,
        user: String::new(),
        method: parts.method,
        headers: parts.headers,
        extensions: parts.extensions,
        query,
        from,
    };
    let is_waiting = call.headers.contains_key(header::EXPECT);
    let result = match endpoint {
        Ok(endpoint) => answer(call, endpoint, &mut body).await,
        // Nobody learns more than "no" before access is checked; a path without a name belongs to no repository.
        Err(failure) => match call.allowed(None, Action::Ping).await {
            Ok(_) => Err(failure),
            Err(refusal) => Err(refusal),
        },
    };
    // A client that waits for leave to send its body has not sent it, and one that was too slow will not be faster.
    if result.as_ref().is_err_and(|failure| !failure.is_time_out()) && !is_waiting {
        body.drain().await;
    }
    let mut response = result.unwrap_or_else(Failure::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    report.status = response.status().as_u16();
    body::reported(response, report, longest)
}

async fn answer(mut call: Call, endpoint: Endpoint, body: &mut RequestBody) -> Result<Response, Failure> {
    call.user = call.allowed(endpoint.repository(), action(&call.method, &endpoint)).await?;
    if call.registry.is_read_only() && !matches!(call.method, Method::GET | Method::HEAD) {
        let failure = Failure::new(Code::Unsupported, "the registry is read-only at present");
        return Err(failure.with_header(header::ALLOW, "GET, HEAD"));
    }
    let call = Arc::new(call);
    if let Some(cache) = endpoint.repository().and_then(|repository| call.registry.cache.repository(repository)) {
        return cached::answer(&call, &cache, endpoint, body).await;
    }
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
        Endpoint::Referrers(repository, subject) => referrers::list(&call, &repository, subject?).await,
        Endpoint::Catalog => catalog::list(&call).await,
    }
}

fn action(method: &Method, endpoint: &Endpoint) -> Action {
    match (endpoint, method) {
        (Endpoint::Ping, _) => Action::Ping,
        (Endpoint::Catalog, _) => Action::Pull,
        (Endpoint::StartUpload(_) | Endpoint::Upload(..), _) => Action::Push,
        (_, &Method::GET | &Method::HEAD) => Action::Pull,
        (_, &Method::DELETE) => Action::Delete,
        _ => Action::Push,
    }
}
