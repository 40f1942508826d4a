//! `GET …/tags/list`, with `n` and `last`.

use axum::Json;
use axum::http::Method;
use axum::response::Response;
use serde_json::json;

use super::call::Call;
use super::error::{Code, Failure};
use super::page::{count, linked, page};
use super::timed;
use crate::{RepositoryName, Tag};

pub(super) async fn list(call: &Call, repository: &RepositoryName) -> Result<Response, Failure> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    timed::looked(call.longest(), look(call, repository)).await
}

async fn look(call: &Call, repository: &RepositoryName) -> Result<Response, Failure> {
    let storage = &call.registry.storage;
    if !storage.has_repository(repository).await? {
        return Err(Failure::new(Code::NameUnknown, "repository name not known to registry"));
    }
    let (page, more) = page(storage.tags(repository).await?, count(call)?, call.parameter("last"));
    Ok(respond(repository, &page, more))
}

/// The answer with these tags, after which `more` follow or not.
pub(super) fn respond(repository: &RepositoryName, page: &[Tag], more: bool) -> Response {
    let last = page.last().filter(|_| more);
    let next = last.map(|last| format!("/v2/{repository}/tags/list?n={}&last={last}", page.len()));
    let tags: Vec<&str> = page.iter().map(Tag::as_str).collect();
    linked(Json(json!({"name": repository.as_str(), "tags": tags})), next)
}
