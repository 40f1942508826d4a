//! `GET` and `HEAD …/blobs/<digest>`, with `Range`.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::error::{Code, Failure};
use super::range::{Wanted, wanted};
use super::{Call, DOCKER_CONTENT_DIGEST, etag};
use crate::storage::Blob;
use crate::{Digest, RepositoryName};

/// Bytes read from disk in one go.
const READ_SIZE: usize = 512 << 10;

pub(super) async fn answer(call: &Call, repository: &RepositoryName, digest: &Digest) -> Result<Response, Failure> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    let blob = call.registry.storage.blob(repository, digest).await?;
    let blob = blob.ok_or_else(|| Failure::new(Code::BlobUnknown, "blob unknown to registry"))?;
    let etag = etag(digest);
    let size = blob.size;
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
    let body = if call.method == Method::HEAD { Body::empty() } else { body(call, blob, first, length).await? };
    Ok((status, headers, body).into_response())
}

/// What `Range` asks for, unless `If-Range` names other content. Ranges are defined for `GET` alone.
fn asked_for(call: &Call, etag: &str, size: u64) -> Wanted {
    let is_this = call.header(header::IF_RANGE).is_none_or(|condition| condition == etag);
    let applies = call.method == Method::GET && is_this;
    wanted(call.header(header::RANGE).filter(|_| applies), size)
}

async fn body(call: &Call, blob: Blob, first: u64, length: u64) -> Result<Body, Failure> {
    let mut file = tokio::fs::File::from_std(blob.file);
    file.set_max_buf_size(READ_SIZE);
    file.seek(SeekFrom::Start(first)).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot seek in a blob");
        Failure::new(Code::Internal, "the registry's storage failed")
    })?;
    let observer = Arc::clone(&call.registry.observer);
    let stream = ReaderStream::with_capacity(file.take(length), READ_SIZE).inspect(move |part| {
        if let Ok(part) = part {
            observer.downloaded(part.len() as u64);
        }
    });
    Ok(Body::from_stream(stream))
}
