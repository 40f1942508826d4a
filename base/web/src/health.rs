//! `/healthz`: the process answers. `/readyz`: it can do its work. `/metrics`: how it is doing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cairn_core::ErrorKind;
use futures::future::{BoxFuture, join_all};
use observe::metrics::Registry;
use serde_json::json;

use crate::{Detail, Json, Problem, codes};

/// Longest time for one check; a disk that hangs must not hang the answer.
const DEADLINE: Duration = Duration::from_secs(5);

type Run = dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// One thing that must hold for the process to be ready.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    run: Arc<Run>,
}

impl Check {
    /// A check; the text of its error is shown to whoever asks, so it names no secret.
    pub fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, run: Arc::new(move || Box::pin(run())) }
    }

    async fn failure(&self) -> Option<Detail> {
        let result = tokio::time::timeout(DEADLINE, (self.run)()).await;
        let (code, message) = match result {
            Ok(Ok(())) => return None,
            Ok(Err(message)) => ("failed", message),
            Err(_) => ("timeout", format!("no answer within {} s", DEADLINE.as_secs())),
        };
        tracing::warn!(check = self.name, reason = message, "not ready");
        Some(Detail { path: String::new(), field: self.name.to_owned(), code: code.to_owned(), message })
    }
}

/// `/healthz` answers `{"ok":true}`; `/readyz` runs all checks at once and answers `{"ready":true}` or 503
/// `not_ready` with the failing checks as `details`, their name as `field`.
pub fn health_routes(checks: Vec<Check>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"ok": true})) }))
        .route("/readyz", get(ready).with_state(Arc::<[Check]>::from(checks)))
}

async fn ready(State(checks): State<Arc<[Check]>>) -> Response {
    let failures: Vec<Detail> = join_all(checks.iter().map(Check::failure)).await.into_iter().flatten().collect();
    if failures.is_empty() {
        return Json(json!({"ready": true})).into_response();
    }
    let names: Vec<&str> = failures.iter().map(|failure| failure.field.as_str()).collect();
    let detail = format!("not ready: {}", names.join(", "));
    Problem::new(ErrorKind::Unavailable, codes::NOT_READY, detail).detail_list(failures).into_response()
}

/// `/metrics`, in the format that the `Accept` header asks for.
pub fn metrics_route(registry: Arc<Registry>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(registry)
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (content_type, text) = registry.render(accept);
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
