//! What every request passes, whatever its route.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use futures::FutureExt;
use observe::traces::{self, Cause};
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::http_metrics::UNMATCHED;
use crate::{ClientIp, HttpMetrics, Problem, TrustedProxies, codes};

/// What the frame needs to know.
#[derive(Debug, Clone)]
pub struct FrameOptions {
    /// Where requests are counted.
    pub metrics: HttpMetrics,
    /// Whether the server speaks TLS: adds `Strict-Transport-Security`.
    pub tls: bool,
    /// Proxies that are believed about the client's address.
    pub proxies: TrustedProxies,
}

/// Methods that stand in the name of a span.
const KNOWN_METHODS: [&Method; 9] = [
    &Method::GET,
    &Method::HEAD,
    &Method::POST,
    &Method::PUT,
    &Method::PATCH,
    &Method::DELETE,
    &Method::OPTIONS,
    &Method::CONNECT,
    &Method::TRACE,
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the frame around all routes; called once, last. Inside it: 404 and 405 as [`Problem`], a panic of a handler
/// as 500, security headers (design document 033 of Shoal), `x-request-id`, the client's address, metrics, one log
/// line a request, and the span `request` around the handler.
pub fn frame(routes: Router, options: FrameOptions) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::new(options), around))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(ErrorKind::NotFound, codes::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

/// The router adds `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(ErrorKind::Invalid, codes::METHOD_NOT_ALLOWED, detail).status(405)
}

async fn around(State(options): State<Arc<FrameOptions>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED.to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let request_id = Uuid::now_v7().to_string();
    let peer = ClientIp::of(request.extensions());
    let client = ClientIp(options.proxies.client(peer.0, request.headers()));
    request.extensions_mut().insert(client);

    let span = span(&request_id, client, &method, &route, request.headers());
    let run = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let handled = observe::tasks::named(format!("request {request_id}: {method} {route}"), run).await;
    // The panic hook has logged the panic with the spans it happened in.
    let mut response = handled.unwrap_or_else(|_| {
        Problem::new(ErrorKind::Failed, codes::SERVER_ERROR, "the server could not do this")
            .hint("the log of the server says more under the request id")
            .into_response()
    });
    add_headers(response.headers_mut(), &request_id, options.tls);

    let code = response.status().as_u16();
    traces::put(&span, "http.response.status_code", i64::from(code));
    if code >= 500 {
        traces::failed(&span, response.status().as_str());
    }
    let duration = started.elapsed();
    options.metrics.record(&route, code, duration);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| log(&method, &route, code, duration_ms));
    response
}

/// The span around a request, for lines of the log and for a collector of traces (semantic conventions, "HTTP"). Its name
/// is of the few that there are, never of what a client has made up.
fn span(request_id: &str, client: ClientIp, method: &Method, route: &str, headers: &HeaderMap) -> Span {
    let known = KNOWN_METHODS.contains(&method);
    let verb = if known { method.as_str() } else { "HTTP" };
    let route = Some(route).filter(|route| *route != UNMATCHED);
    let name = route.map_or(verb.to_owned(), |route| format!("{verb} {route}"));
    let span = tracing::info_span!("request", otel.name = name, otel.kind = "server", request_id, client = %client.0);
    Cause::of_request(|name| headers.get(name)?.to_str().ok()).lead(&span);
    traces::put(&span, "http.request.method", if known { verb.to_owned() } else { "_OTHER".to_owned() });
    if let Some(route) = route {
        traces::put(&span, "http.route", route.to_owned());
    }
    span
}

/// Probes and scrapes come every few seconds and say nothing as long as they are answered. The query is never
/// logged: it may carry a signature.
fn log(method: &Method, route: &str, code: u16, duration_ms: u64) {
    match (code, route) {
        (500.., _) => tracing::warn!(%method, route, code, duration_ms, "request answered"),
        (_, "/healthz" | "/readyz" | "/health" | "/metrics") => {
            tracing::debug!(%method, route, code, duration_ms, "request answered")
        }
        _ => tracing::info!(%method, route, code, duration_ms, "request answered"),
    }
}

fn add_headers(headers: &mut HeaderMap, request_id: &str, tls: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}
