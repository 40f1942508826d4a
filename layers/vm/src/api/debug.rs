//! `/debug/pprof`: what the daemon is doing, and where its memory is, as text (guide, "High Memory Usage").

use axum::http::header;
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use web::Problem;

pub(super) async fn tasks() -> Response {
    text(observe::tasks::dump())
}

pub(super) async fn memory() -> Result<Response, Problem> {
    let read = tokio::task::spawn_blocking(observe::memory::report).await;
    let report = read
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::new(ErrorKind::Failed, web::codes::SERVER_ERROR, cairn_core::chain(&error)))?;
    Ok(text(report))
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}
