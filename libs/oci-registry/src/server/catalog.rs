//! `GET /v2/_catalog`, with `n` and `last`: the repositories that the asker may pull. It is not part of distribution-spec
//! 1.1; its form is that of the Docker Registry HTTP API V2, which the specification came from.

use axum::Json;
use axum::http::Method;
use axum::response::Response;
use serde_json::json;

use super::call::Call;
use super::error::{Code, Failure};
use super::page::{count, linked, page};
use super::timed;
use crate::RepositoryName;

/// Most that one page has.
const PAGE: usize = 1000;

pub(super) async fn list(call: &Call) -> Result<Response, Failure> {
    if !call.registry.options.catalog {
        return Err(Failure::new(Code::Unsupported, "this registry does not list its repositories").with_status(404));
    }
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    timed::looked(call.longest(), look(call)).await
}

async fn look(call: &Call) -> Result<Response, Failure> {
    let count = count(call)?.unwrap_or(PAGE).min(PAGE);
    let (candidates, _) = page(call.registry.storage.repositories().await?, None, call.parameter("last"));
    let mut names: Vec<RepositoryName> = Vec::new();
    for name in candidates {
        // One more than asked for shows that there is a next page.
        if names.len() > count {
            break;
        }
        if call.lists(&name).await {
            names.push(name);
        }
    }
    let (page, more) = page(names, Some(count), None);
    let next = page.last().filter(|_| more).map(|last| format!("/v2/_catalog?n={}&last={last}", page.len()));
    let names: Vec<&str> = page.iter().map(RepositoryName::as_str).collect();
    Ok(linked(Json(json!({"repositories": names})), next))
}
