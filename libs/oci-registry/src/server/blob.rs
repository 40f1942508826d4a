//! `GET` and `HEAD …/blobs/<digest>`, with `Range`; `DELETE`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::call::Call;
use super::error::{Code, Failure};
use super::observer::EventAction;
use super::range::{Wanted, wanted};
use super::timed;
use super::{DOCKER_CONTENT_DIGEST, etag};
use crate::storage::Blob;
use crate::{Digest, RepositoryName};

pub(super) async fn answer(
    call: &Arc<Call>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Failure> {
    match call.method {
        Method::GET | Method::HEAD => read(call, repository, digest).await,
        Method::DELETE => {
            let (longest, call, repository, digest) =
                (call.longest(), Arc::clone(call), repository.clone(), digest.clone());
            timed::changed(longest, async move { delete(&call, &repository, &digest).await }).await
        }
        _ => Err(Failure::method_not_allowed("GET, HEAD, DELETE")),
    }
}

fn unknown() -> Failure {
    Failure::new(Code::BlobUnknown, "blob unknown to registry")
}

async fn delete(call: &Call, repository: &RepositoryName, digest: &Digest) -> Result<Response, Failure> {
    if !call.registry.storage.delete_blob(repository, digest).await? {
        return Err(unknown());
    }
    tracing::info!(user = call.user, %repository, %digest, "blob removed");
    call.event(EventAction::DeleteBlob, repository, None, Some(digest), None);
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn read(call: &Call, repository: &RepositoryName, digest: &Digest) -> Result<Response, Failure> {
    let blob = call.registry.storage.blob(repository, digest).await?.ok_or_else(unknown)?;
    let size = blob.size;
    respond(call, repository, digest, size, |first, length| body(call, blob, first, length))
}

/// The answer for a blob of `size` bytes; `body` gives so many of them, from the first on.
pub(super) fn respond(
    call: &Call,
    repository: &RepositoryName,
    digest: &Digest,
    size: u64,
    body: impl FnOnce(u64, u64) -> Body,
) -> Result<Response, Failure> {
    let etag = etag(digest);
    let (status, first, length) = match asked_for(call, &etag, size) {
        _ if call.has_current(&etag) => (StatusCode::NOT_MODIFIED, 0, 0),
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Wanted::Unsatisfiable => {
            let failure = Failure::new(Code::SizeInvalid, "the range lies outside the blob").with_status(416);
            return Err(failure.with_header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let mut headers = HeaderMap::new();
    if let (Ok(digest), Ok(etag)) = (HeaderValue::from_str(&digest.to_string()), HeaderValue::from_str(&etag)) {
        headers.insert(DOCKER_CONTENT_DIGEST, digest);
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::NOT_MODIFIED {
        return Ok((status, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = HeaderValue::from_str(&format!("bytes {first}-{}/{size}", first + length - 1))
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    if call.method == Method::HEAD {
        return Ok((status, headers, Body::empty()).into_response());
    }
    call.event(EventAction::PullBlob, repository, None, Some(digest), Some(length));
    Ok((status, headers, body(first, length)).into_response())
}

/// What `Range` asks for, unless `If-Range` names other content. Ranges are defined for `GET` alone.
fn asked_for(call: &Call, etag: &str, size: u64) -> Wanted {
    let is_this = call.header(header::IF_RANGE).is_none_or(|condition| condition == etag);
    let applies = call.method == Method::GET && is_this;
    wanted(call.header(header::RANGE).filter(|_| applies), size)
}

fn body(call: &Call, blob: Blob, first: u64, length: u64) -> Body {
    let options = &call.registry.options;
    let observer = Arc::clone(&options.observer);
    options.files.body(&call.extensions, blob.file, first, length, Arc::new(move |bytes| observer.downloaded(bytes)))
}
