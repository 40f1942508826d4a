//! Requests for repositories that are a cache: what is missing is fetched, then the store answers as always.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use futures::TryStreamExt as _;

use super::body::RequestBody;
use super::call::Call;
use super::error::{Code, Failure};
use super::page::count;
use super::route::Endpoint;
use super::{blob, manifest, referrers, tags};
use crate::cache::{CacheError, Cached, Found, Standing};
use crate::{Digest, RepositoryName};

pub(super) async fn answer(
    call: &Arc<Call>,
    cached: &Cached,
    endpoint: Endpoint,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(refused());
    }
    match endpoint {
        Endpoint::Manifest(repository, selector) => {
            let standing = match &selector {
                Ok(wanted) => cached.refresh(wanted).await.map_err(|error| failure(&error, Code::ManifestUnknown))?,
                Err(_) => Standing::Current,
            };
            Ok(warned(manifest::answer(call, &repository, selector, body).await?, standing))
        }
        Endpoint::Blob(repository, digest) => read_blob(call, cached, &repository, &digest?).await,
        Endpoint::Tags(repository) => list_tags(call, cached, &repository).await,
        Endpoint::Referrers(repository, subject) => list_referrers(call, cached, &repository, subject?).await,
        Endpoint::StartUpload(_) | Endpoint::Upload(..) | Endpoint::Ping | Endpoint::Catalog => Err(refused()),
    }
}

fn refused() -> Failure {
    let failure =
        Failure::new(Code::Unsupported, "the repository is a cache of another registry's, which is read only");
    failure.with_header(header::ALLOW, "GET, HEAD")
}

async fn read_blob(
    call: &Arc<Call>,
    cached: &Cached,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Failure> {
    if call.method == Method::HEAD && call.registry.storage.blob_size(repository, digest).await?.is_none() {
        let size = cached.blob_size(digest).await.map_err(|error| failure(&error, Code::BlobUnknown))?;
        return blob::respond(call, repository, digest, size, |_, _| Body::empty());
    }
    match cached.blob(digest).await.map_err(|error| failure(&error, Code::BlobUnknown))? {
        Found::Here => blob::answer(call, repository, digest).await,
        Found::Growing(growing) if call.header(header::RANGE).is_some() => {
            growing.kept().await.map_err(|error| failure(&error, Code::BlobUnknown))?;
            blob::answer(call, repository, digest).await
        }
        // Without a range it is the whole blob.
        Found::Growing(growing) => blob::respond(call, repository, digest, growing.size, |_, _| {
            let observer = Arc::clone(&call.registry.options.observer);
            let bytes = growing.bytes();
            Body::from_stream(bytes.inspect_ok(move |part| observer.downloaded(part.len() as u64)))
        }),
    }
}

async fn list_tags(call: &Call, cached: &Cached, repository: &RepositoryName) -> Result<Response, Failure> {
    let is_known = call.registry.storage.has_repository(repository).await?;
    if !(is_known && cached.is_silent()) {
        match cached.tags(count(call)?, call.parameter("last")).await {
            Ok((page, more)) => return Ok(tags::respond(repository, &page, more)),
            Err(error) if !is_known => return Err(failure(&error, Code::NameUnknown)),
            Err(_) => {}
        }
    }
    Ok(warned(tags::list(call, repository).await?, Standing::Unasked))
}

/// Referrers are asked for beside a pull that works without them: there is always an answer.
async fn list_referrers(
    call: &Call,
    cached: &Cached,
    repository: &RepositoryName,
    subject: Option<Digest>,
) -> Result<Response, Failure> {
    if let Some(digest) = &subject
        && !cached.is_silent()
        && let Ok(found) = cached.referrers(digest).await
    {
        return Ok(referrers::respond(call, repository, subject, found));
    }
    let standing = if subject.is_some() { Standing::Unasked } else { Standing::Current };
    Ok(warned(referrers::list(call, repository, subject).await?, standing))
}

/// The answer with a warning as distribution-spec 1.1 has it ("Warnings").
fn warned(mut response: Response, standing: Standing) -> Response {
    let value = standing.warning().map(|text| HeaderValue::from_str(&format!("299 - \"{text}\"")));
    if let Some(Ok(value)) = value {
        response.headers_mut().insert(header::WARNING, value);
    }
    response
}

/// Why nothing can be answered; `unknown` is the code for what does not exist.
fn failure(error: &CacheError, unknown: Code) -> Failure {
    match error {
        error if error.is_unknown() => Failure::new(unknown, "unknown to the upstream registry"),
        error if error.is_overload() => {
            Failure::new(Code::TooManyRequests, "the upstream registry takes no more requests at present")
        }
        CacheError::Storage { source } if !source.is_refusal() => Failure::of_the_disk(source),
        error => {
            tracing::warn!(error = error as &dyn std::error::Error, "nothing to answer with from a cache");
            Failure::new(Code::Upstream, "the upstream registry gave no usable answer")
        }
    }
}
