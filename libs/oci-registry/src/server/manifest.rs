//! `…/manifests/<tag or digest>`.

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::error::{Code, Failure};
use super::{Call, DOCKER_CONTENT_DIGEST, etag};
use crate::storage::StorageError;
use crate::{RepositoryName, Selector};

pub(super) async fn answer(
    call: &Call,
    repository: &RepositoryName,
    selector: Result<Selector, Failure>,
    body: &mut BodyDataStream,
) -> Result<Response, Failure> {
    match call.method {
        // What cannot be the name of a manifest names none.
        Method::GET | Method::HEAD => match selector {
            Ok(selector) => read(call, repository, &selector).await,
            Err(_) => Err(unknown()),
        },
        Method::PUT => put(call, repository, &selector?, body).await,
        Method::DELETE => delete(call, repository, &selector?).await,
        _ => Err(Failure::method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

fn unknown() -> Failure {
    Failure::new(Code::ManifestUnknown, "manifest unknown to registry")
}

async fn read(call: &Call, repository: &RepositoryName, selector: &Selector) -> Result<Response, Failure> {
    let (descriptor, bytes) = call.registry.storage.manifest(repository, selector).await?.ok_or_else(unknown)?;
    let etag = etag(&descriptor.digest);
    let headers = [(DOCKER_CONTENT_DIGEST, descriptor.digest.to_string()), (header::ETAG, etag.clone())];
    if call.has_current(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let length = bytes.len();
    let body = if call.method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    let mut response = (headers, body).into_response();
    let media_type =
        HeaderValue::from_str(&descriptor.media_type).map_err(|_| Failure::new(Code::Internal, "media type"))?;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

async fn put(
    call: &Call,
    repository: &RepositoryName,
    selector: &Selector,
    body: &mut BodyDataStream,
) -> Result<Response, Failure> {
    let bytes = collect(call, body).await?;
    let media_type = media_type(call, &bytes)?;
    let descriptor = call.registry.storage.put_manifest(repository, selector, &media_type, bytes).await?;
    let (digest, user) = (&descriptor.digest, &call.user);
    tracing::info!(user, %repository, reference = %selector, %digest, size = descriptor.size, "manifest stored");
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/manifests/{digest}")),
        (header::ETAG, etag(digest)),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    Ok((StatusCode::CREATED, headers).into_response())
}

/// The whole body, refused as soon as it is longer than a manifest may be.
async fn collect(call: &Call, body: &mut BodyDataStream) -> Result<Bytes, Failure> {
    let limit = call.registry.storage.limits().max_manifest_size;
    let announced = call.header(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(StorageError::TooLarge { limit }.into());
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part.map_err(|error| StorageError::Interrupted(error.into()))?);
        if bytes.len() as u64 > limit {
            return Err(StorageError::TooLarge { limit }.into());
        }
    }
    Ok(bytes.freeze())
}

/// The media type as sent, without parameters; where none is sent, as the manifest calls itself.
fn media_type(call: &Call, bytes: &[u8]) -> Result<String, Failure> {
    if let Some(sent) = call.header(header::CONTENT_TYPE) {
        let (essence, _) = sent.split_once(';').unwrap_or((sent, ""));
        return Ok(essence.trim().to_ascii_lowercase());
    }
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| StorageError::ManifestInvalid(error.to_string()))?;
    let declared = json["mediaType"].as_str().map(str::to_owned);
    declared.ok_or_else(|| Failure::new(Code::ManifestInvalid, "neither Content-Type nor mediaType says what this is"))
}

async fn delete(call: &Call, repository: &RepositoryName, selector: &Selector) -> Result<Response, Failure> {
    if !call.registry.storage.delete_manifest(repository, selector).await? {
        return Err(unknown());
    }
    tracing::info!(user = call.user, %repository, reference = %selector, "manifest or tag removed");
    Ok(StatusCode::ACCEPTED.into_response())
}
