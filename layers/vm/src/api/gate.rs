//! What every request passes before its handler: who is it, may it, and is it a time for changes. What it changed, or wanted
//! to, is taken down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use cairn_core::ErrorKind;
use futures::StreamExt as _;
use tokio::sync::watch;
use web::{ClientIp, Problem, RateLimiter};

use super::Api;
use super::table::{self, Door, Route};
use crate::audit::{Change, DONE};
use crate::errors;
use crate::model::VmId;
use crate::service::{Caller, Error};

/// For requests that only look.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// A handler tells by this extension of its answer which VM it made.
#[derive(Debug, Clone)]
pub(super) struct Touched(pub(super) VmId);

/// And by this one, which other thing.
#[derive(Debug, Clone)]
pub(super) struct Made(pub(super) String);

/// Routes behind their doors.
pub(super) struct Gate {
    api: Arc<Api>,
    failures: Arc<RateLimiter>,
    router: Router<Arc<Api>>,
    missing: Vec<&'static Route>,
}

#[derive(Clone)]
struct Entrance {
    api: Arc<Api>,
    failures: Arc<RateLimiter>,
    route: &'static Route,
}

impl Gate {
    /// `failures` limits how many wrong tokens one address may send.
    pub(super) fn new(api: &Arc<Api>, failures: &Arc<RateLimiter>) -> Self {
        let missing = table::all().collect();
        Self { api: Arc::clone(api), failures: Arc::clone(failures), router: Router::new(), missing }
    }

    /// Puts a handler behind the door that the table has for it.
    ///
    /// # Panics
    /// When the table has no such route, or had its handler already: a mistake in the program, seen at the first start.
    pub(super) fn add<H, T>(mut self, method: &str, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        let at = self.missing.iter().position(|route| (route.method, route.path) == (method, path));
        let at = at.unwrap_or_else(|| panic!("{method} {path} is not in the table of routes, or is added twice"));
        let route = self.missing.swap_remove(at);
        let filter = match method {
            "GET" => MethodFilter::GET,
            "PUT" => MethodFilter::PUT,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        let entrance = Entrance { api: Arc::clone(&self.api), failures: Arc::clone(&self.failures), route };
        let router = Router::new().route(path, on(filter, handler).route_layer(from_fn_with_state(entrance, enter)));
        // What is done with a VM takes as long as it takes, and a wait as long as was asked.
        let is_quick = route.change.is_none() && !path.ends_with("/wait");
        self.router = self.router.merge(if is_quick { web::limit_time(LOOK_LIMIT, router) } else { router });
        self
    }

    /// All routes.
    ///
    /// # Panics
    /// When a route of the table has no handler.
    pub(super) fn finish(self) -> Router {
        assert!(self.missing.is_empty(), "routes of the table without a handler: {:?}", self.missing);
        self.router.with_state(self.api)
    }
}

async fn enter(State(entrance): State<Entrance>, ClientIp(client): ClientIp, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let response = pass(&entrance, client, request, next).await.unwrap_or_else(IntoResponse::into_response);
    let Route { path, method, .. } = entrance.route;
    entrance.api.metrics.request(path, method, response.status().as_u16(), started.elapsed());
    response
}

async fn pass(entrance: &Entrance, client: IpAddr, mut request: Request, next: Next) -> Result<Response, Problem> {
    let Entrance { api, route, .. } = entrance;
    // From before the token is looked at, so that no end of it is missed.
    let revoked = api.tokens.revocations();
    let caller = match route.door {
        Door::Open => return Ok(next.run(request).await),
        Door::Loopback => {
            if !is_local(client, request.headers()) {
                let detail = "only this machine may ask for this, and not through a proxy";
                return Err(Problem::new(ErrorKind::Forbidden, errors::LOOPBACK_ONLY, detail)
                    .hint("ask on the host itself: curl http://127.0.0.1:PORT/…"));
            }
            Caller { who: "loopback".to_owned(), customer: None }
        }
        Door::Customer | Door::Operator => identify(entrance, client, request.headers()).await?,
    };
    let Some(action) = route.change else {
        allow(entrance, &caller)?;
        request.extensions_mut().insert(caller);
        let token = request.headers().get(header::AUTHORIZATION).cloned();
        let response = next.run(request).await;
        return Ok(match token {
            Some(token) => while_it_is_good(Arc::clone(api), revoked, token, response),
            None => response,
        });
    };
    let mut change = api.audit.begin(&caller, client, action);
    name(&mut change, route, request.uri().path());
    let response = match allow(entrance, &caller) {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let extensions = response.extensions();
    change.vm(extensions.get::<Touched>().map(|touched| touched.0.clone()));
    change.subject(extensions.get::<Made>().map(|made| made.0.clone()));
    let outcome = match extensions.get::<Arc<Problem>>() {
        Some(problem) => problem.code.clone(),
        None if response.status().is_success() => DONE.to_owned(),
        None => response.status().as_u16().to_string(),
    };
    change.over(&outcome).await;
    Ok(response)
}

/// What is told for as long as somebody listens ends with the token that it was asked with.
fn while_it_is_good(api: Arc<Api>, revoked: watch::Receiver<u64>, token: HeaderValue, response: Response) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let headers: HeaderMap = [(header::AUTHORIZATION, token)].into_iter().collect();
    let ended = async move { api.tokens.until_ended(revoked, &headers).await };
    let body = Body::from_stream(body.into_data_stream().take_until(Box::pin(ended)));
    Response::from_parts(parts, body)
}

fn name(change: &mut Change, route: &Route, path: &str) {
    let Some(parameter) = table::parameter(route, path) else { return };
    if route.path.starts_with("/v1/vms/") {
        change.vm(parameter.parse().ok());
    } else if parameter.len() <= 64 {
        change.subject(Some(parameter.to_owned()));
    }
}

async fn identify(entrance: &Entrance, client: IpAddr, headers: &HeaderMap) -> Result<Caller, Problem> {
    let identified = entrance.api.tokens.identify(headers).await.map_err(|error| Problem::internal(&error))?;
    identified.map_err(|refusal| {
        if refusal != crate::access::Refusal::Missing {
            entrance.api.metrics.login_failures.inc();
            if let Err(wait) = entrance.failures.take(client) {
                let detail = "too many wrong tokens from this address";
                return Problem::new(ErrorKind::RateLimited, web::codes::RATE_LIMIT_EXCEEDED, detail)
                    .hint("wait as long as Retry-After says")
                    .retry_after(wait);
            }
            tracing::warn!(%client, route = entrance.route.path, "token refused");
        }
        refusal.problem()
    })
}

/// Whether somebody who is known may do this now.
fn allow(entrance: &Entrance, caller: &Caller) -> Result<(), Problem> {
    if entrance.route.door == Door::Operator && caller.customer.is_some() {
        let detail = "this is for operators, and the token is a customer's";
        return Err(Problem::new(ErrorKind::Forbidden, errors::TOKEN_DENIED, detail));
    }
    if entrance.route.waits_for_maintenance && entrance.api.service.maintenance() {
        return Err(Error::Maintenance.problem());
    }
    Ok(())
}

/// Whether a request comes from this machine: its peer is, it is addressed to this machine (a page elsewhere can point a
/// name of its own at a loopback address), no proxy sends it on, and no page of somebody else makes a browser send it.
fn is_local(client: IpAddr, headers: &HeaderMap) -> bool {
    const FORWARDED: [HeaderName; 4] = [
        header::FORWARDED,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-real-ip"),
    ];
    let is_own = |name: HeaderName| {
        headers.get(name).is_none_or(|value| {
            let value = value.to_str().unwrap_or_default();
            let host = host_of(value.split_once("://").map_or(value, |(_, authority)| authority));
            host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    };
    let is_sent_on = FORWARDED.iter().any(|name| headers.contains_key(name));
    client.is_loopback() && is_own(header::HOST) && is_own(header::ORIGIN) && !is_sent_on
}

/// Host of `host:port`, without the brackets of IPv6.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        let local = |client: &str, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().unwrap());
            }
            is_local(client.parse().unwrap(), &headers)
        };
        assert!(local("127.0.0.1", &[]));
        assert!(local("127.0.0.1", &[("host", "localhost:8080")]));
        assert!(local("::1", &[("host", "[::1]:8080")]));
        assert!(local("::1", &[("host", "localhost:8080"), ("origin", "http://[::1]:3000")]));
        for (client, lines) in [
            ("192.0.2.1", &[("host", "localhost")][..]),
            ("0.0.0.0", &[]),
            ("127.0.0.1", &[("host", "evil.example:8080")]),
            ("127.0.0.1", &[("host", "localhost.evil.example")]),
            ("127.0.0.1", &[("host", "localhost"), ("origin", "https://evil.example")]),
            ("127.0.0.1", &[("host", "localhost"), ("origin", "null")]),
            ("127.0.0.1", &[("forwarded", "for=1.2.3.4")]),
            ("127.0.0.1", &[("x-forwarded-for", "127.0.0.1")]),
            ("127.0.0.1", &[("x-real-ip", "1.2.3.4")]),
        ] {
            assert!(!local(client, lines), "{client} {lines:?}");
        }
    }
}
