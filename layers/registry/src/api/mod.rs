//! The registry's routes: `/v2/…` itself, its token endpoint, and what operators ask and order under
//! `/api/v1/registry`. Handlers are thin: they read, ask the service, and answer.

mod audit;
mod repositories;
mod status;
mod token;
mod upkeep;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cairn_core::ErrorKind;
use oci_registry::storage::StorageError;
use web::{Problem, Refusal, User};

use crate::access::{self, BASIC_CHALLENGE, Scheme, address::TOKEN_PATH};
use crate::audit::By;
use crate::errors;
use crate::service::Service;

const BODY: usize = 64 << 10;
/// For requests that only look. Work on the whole registry takes as long as it takes.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
const TOKEN_LIMIT: Duration = Duration::from_secs(30);

/// What somebody wanted who was refused here, in the audit record.
const MANAGE: &str = "manage";

type Shared = State<Arc<Service>>;

impl Service {
    /// All routes of the registry.
    pub fn routes(self: &Arc<Self>) -> Router {
        let work = Router::new()
            .route("/api/v1/registry/gc", post(upkeep::collect))
            .route("/api/v1/registry/restore", post(upkeep::restore))
            .route("/api/v1/registry/retention", post(upkeep::retention))
            .route("/api/v1/registry/check", post(upkeep::check));
        let looks = Router::new()
            .route("/api/v1/registry", get(status::show))
            .route("/api/v1/registry/usage", get(status::usage))
            .route("/api/v1/registry/read-only", get(status::read_only).put(status::set_read_only))
            .route("/api/v1/registry/repositories", get(repositories::list))
            .route("/api/v1/registry/audit", get(audit::list));
        let people = work.merge(web::limit_time(LOOK_LIMIT, looks)).layer(DefaultBodyLimit::max(BODY));
        let people = match &self.api_auth {
            Some(auth) => auth.protect(people),
            None if self.gate.scheme == Scheme::Open => {
                people.route_layer(from_fn_with_state(Arc::clone(self), own_names_only))
            }
            None => people.route_layer(from_fn_with_state(Arc::clone(self), keepers_only)),
        };
        let tokens =
            Router::new().route(TOKEN_PATH, get(token::get).post(token::post)).layer(DefaultBodyLimit::max(BODY));
        let tokens = web::limit_time(TOKEN_LIMIT, tokens);
        people
            .merge(tokens)
            .with_state(Arc::clone(self))
            .merge(oci_registry::server::router(Arc::clone(self.registry())))
    }
}

/// Where nobody has to log in: takes requests that this machine itself sends to one of its own names. Only this machine
/// reaches the listener then; but a proxy or a browser on it may send what comes from elsewhere.
async fn own_names_only(State(service): Shared, request: Request, next: Next) -> Response {
    if service.gate.address.may_manage(request.headers()) {
        return next.run(request).await;
    }
    let detail = "without a login only this machine itself is answered, under its own names and not through a proxy";
    Problem::new(ErrorKind::Forbidden, web::codes::HOST_REFUSED, detail)
        .hint("use http://127.0.0.1:PORT on that machine, or set BASIC_USER and BASIC_PASS_HASH")
        .into_response()
}

/// Without a login for the API, but with users of the registry: takes those who may push everywhere, for these orders
/// reach everything. Where a request comes from proves nothing, as a proxy on this machine may have sent it.
async fn keepers_only(State(service): Shared, mut request: Request, next: Next) -> Response {
    let client = access::client(request.extensions());
    match keeper(&service, request.headers(), client).await {
        Ok(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn keeper(service: &Service, headers: &HeaderMap, client: IpAddr) -> Result<User, Problem> {
    let unauthorized =
        |detail| Problem::new(ErrorKind::Unauthorized, web::codes::UNAUTHORIZED, detail).authenticate(BASIC_CHALLENGE);
    let Some(logins) = &service.gate.logins else { return Err(unauthorized("credentials are needed")) };
    let name = logins.log_in(headers, client).await.map_err(|refusal| match refusal {
        Refusal::Missing => unauthorized("credentials are needed"),
        Refusal::Wrong => {
            service.audit.refused("", client, None, MANAGE);
            unauthorized("user or password is wrong")
        }
        Refusal::Limited { retry_after } => {
            let detail = "too many wrong passwords from this address";
            Problem::new(ErrorKind::RateLimited, web::codes::RATE_LIMIT_EXCEEDED, detail)
                .hint("wait as long as Retry-After says")
                .retry_after(retry_after)
        }
    })?;
    if service.gate.policy.push.allows_everything(&name) {
        return Ok(User(name));
    }
    service.audit.refused(&name, client, None, MANAGE);
    let detail = format!("{name} may not push everywhere, and so not manage the registry");
    Err(Problem::new(ErrorKind::Forbidden, errors::REGISTRY_DENIED, detail)
        .hint("give this user * in REGISTRY_PUSH_ALLOW, or set BASIC_USER and BASIC_PASS_HASH"))
}

/// Who orders something: the user that the login in front of the routes has found.
impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let extensions = &parts.extensions;
        Ok(Self::request(extensions.get::<User>(), access::client(extensions)))
    }
}

/// The storage failed; the log says how.
fn storage(error: &StorageError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "the registry's storage failed");
    Problem::new(ErrorKind::Failed, errors::REGISTRY_STORAGE, "the storage of the registry failed")
        .hint("the log of the server says more under the request id")
}
